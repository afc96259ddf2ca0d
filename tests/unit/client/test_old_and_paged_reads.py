"""Reads that may be old and tell how old, ranges in pieces, sequential keys, fenced writes, watches by revision."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import replace

import pytest
from host_cluster import HostCluster
from virtual_time import run_virtual

from isochrone.client import Client, Provenance, WatchGap
from isochrone.client.listing import list_all
from isochrone.errors import ForeignToken, InvalidRequest, LeaseNotFound, RevisionCompacted, StaleToken, Unavailable
from isochrone.ids import ReplicaRole, Revision, Timestamp
from isochrone.wire.kv import DeleteRange, Put, Range, RangeResult
from isochrone.wire.records import KeyValue

FULL = ReplicaRole.FULL


def with_clients(test: Callable[[HostCluster, Client, Client], Awaitable[None]]) -> None:
    async def main() -> None:
        cluster = HostCluster({"a": FULL, "b": FULL, "c": FULL})
        await cluster.start_all()
        await cluster.until(lambda: cluster.leader() is not None)
        await test(cluster, await cluster.client(timeout_s=20.0), await cluster.client(timeout_s=20.0))
        await cluster.stop_all()

    run_virtual(main())


def now() -> float:
    return asyncio.get_running_loop().time()


def test_a_stale_read_tells_how_old_it_is_at_most() -> None:
    """At a replica that is cut off from its group: what it lacks was acknowledged within that time."""

    async def test(cluster: HostCluster, client: Client, other: Client) -> None:
        await client.kv.put("k/a", "1")
        await asyncio.sleep(1)
        near = await other.kv.range_nearest("k/a")
        assert near.provenance is Provenance.STALE and near.age_s is not None and 1 <= near.age_s < 4
        leader = cluster.leader()
        assert leader is not None
        cut_off = next(name for name in "abc" if name != leader)
        for name in "abc":
            cluster.cut |= {(cut_off, name), (name, cut_off)} if name != cut_off else set()
            cluster.cut |= {("client-1", name), (name, "client-1")} if name != cut_off else set()
        acknowledged_at: list[float] = []
        for number in range(20):
            await client.kv.put("k/a", str(number))
            acknowledged_at.append(now())
            await asyncio.sleep(0.5)
            near = await other.kv.range_nearest("k/a")
            assert near.replica == cut_off and near.age_s is not None
            assert near.found.items[0].value == b"1"
            assert near.age_s >= now() - acknowledged_at[0], "it lacks all of them"
        cluster.heal()
        # A clock that is so far behind that what was applied seems to lie ahead says nothing.
        for process in cluster.processes.values():
            process.clock.offset_ms = -60_000
        unknown = await other.kv.range_nearest("k/a")
        assert unknown.age_s is None and unknown.found.items

    with_clients(test)


def test_a_node_that_serves_no_replica_refuses_a_stale_read() -> None:
    async def test(cluster: HostCluster, client: Client, other: Client) -> None:
        await client.kv.put("k/a", "1")
        for process in cluster.processes.values():
            assert process.host is not None
            process.host._stopping = True
        with pytest.raises(Unavailable, match="serves no replica"):
            await other.kv.range_nearest("k/a", timeout_s=2)
        for process in cluster.processes.values():
            assert process.host is not None
            process.host._stopping = False

    with_clients(test)


class Pieces:
    """Keys of one byte each, of which an answer holds at most `items_max`; `compact_at` questions have been asked."""

    def __init__(self, keys: int, items_max: int, compact_at: int = 0) -> None:
        made = [KeyValue(b"k%04d" % n, b"", Revision(1), Revision(1), 1, Timestamp(1), 0) for n in range(keys)]
        self.items, self.items_max, self.compact_at = made, items_max, compact_at
        self.revision, self.asked = 7, list[Range]()

    async def ask(self, query: Range) -> RangeResult:
        self.asked.append(query)
        if len(self.asked) == self.compact_at:
            self.revision = 9
        if query.revision and query.revision < self.revision:
            raise RevisionCompacted("compacted")
        found = [item for item in self.items if query.key <= item.key < query.range_end]
        if min(len(found), query.limit) > self.items_max:
            raise InvalidRequest("too large")
        items = tuple(found[: query.limit])
        return RangeResult(Revision(self.revision), Timestamp(1), len(found), len(items) < len(found), items)


@pytest.mark.parametrize(("keys", "items_max"), [(0, 5), (1, 1), (3, 1000), (2500, 1000), (250, 30), (12, 1)])
def test_a_range_is_read_in_pieces_as_of_one_revision(keys: int, items_max: int) -> None:
    pieces = Pieces(keys, items_max)
    found = asyncio.run(list_all(pieces.ask, b"k", b"l"))
    assert (found.revision, found.count, found.more) == (7, keys, False) and list(found.items) == pieces.items
    assert {query.revision for query in pieces.asked} <= {0, 7}


def test_a_range_that_is_compacted_while_it_is_read_is_read_anew() -> None:
    pieces = Pieces(2500, 1000, compact_at=2)
    found = asyncio.run(list_all(pieces.ask, b"k", b"l"))
    assert found.revision == 9 and list(found.items) == pieces.items
    with pytest.raises(InvalidRequest):
        asyncio.run(list_all(Pieces(3, 0).ask, b"k", b"l"))
    assert replace(found, items=()).count == 2500


def test_a_watch_goes_on_after_a_compaction_of_more_than_one_answer_may_hold() -> None:
    async def test(cluster: HostCluster, client: Client, other: Client) -> None:
        for number in range(10):
            await client.kv.put(f"k/big/{number}", b"x" * 1_000_000)
        done = await client.kv.put("k/big/0", "new")
        await client.kv.compact("k/", done.revision)
        await asyncio.sleep(1)
        with pytest.raises(InvalidRequest):
            await client.kv.range("k/big/", prefix=True)
        async with other.watch("k/big/", prefix=True, start_revision=1) as watcher:
            gap = await anext(watcher)
            assert isinstance(gap, WatchGap) and len(gap.items) == 10 and gap.revision >= done.revision
            await client.kv.put("k/big/1", "next")
            told = await anext(watcher)
            assert not isinstance(told, WatchGap) and told.item.value == b"next"

    with_clients(test)


def test_a_gap_that_cannot_be_read_for_a_while_does_not_end_the_watch() -> None:
    async def test(cluster: HostCluster, client: Client, other: Client) -> None:
        for number in range(4):
            done = await client.kv.put("k/a", str(number))
        await client.kv.compact("k/", done.revision)
        await asyncio.sleep(2)
        crashed = [name for name in "abc" if name != cluster.leader()]
        for name in crashed:
            await cluster.crash(name)
        async with other.watch("k/a", start_revision=1) as watcher:
            taking = asyncio.create_task(anext(watcher))
            await asyncio.sleep(60)
            assert not taking.done()
            for name in crashed:
                await cluster.start(name)
            gap = await taking
            assert isinstance(gap, WatchGap) and [item.value for item in gap.items] == [b"3"]

    with_clients(test)


def test_what_was_written_in_one_step_is_told_in_one() -> None:
    async def test(cluster: HostCluster, client: Client, other: Client) -> None:
        async with other.watch("k/", prefix=True, start_revision=1) as watcher, aclosing(watcher.revisions()) as steps:
            await client.kv.txn([], [Put(b"k/a", b"1"), Put(b"k/b", b"1"), Put(b"k/c", b"1")])
            await client.kv.put("k/a", "2")
            await client.kv.txn([], [DeleteRange(b"k/b"), Put(b"k/d", b"x" * 1_000_000), Put(b"k/e", b"y" * 900_000)])
            told = [await anext(steps) for _ in range(3)]
        keys = [[event.item.key for event in step] for step in told if isinstance(step, tuple)]
        assert keys == [[b"k/a", b"k/b", b"k/c"], [b"k/a"], [b"k/b", b"k/d", b"k/e"]]

    with_clients(test)


def test_sequential_keys_rise_and_go_with_their_lease() -> None:
    async def test(_: HostCluster, first: Client, second: Client) -> None:
        made = [await client.kv.create_sequential("k/s/", str(n)) for n, client in enumerate((first, second, first))]
        assert made == sorted(set(made)) and all(key.startswith(b"k/s/") and len(key) == 24 for key in made)
        async with first.session("k/", ttl_s=5) as session:
            ephemeral = await first.kv.create_sequential("k/s/", "x", lease=session.lease)
            assert await session.create_sequential("k/s/", "y") > ephemeral > made[-1]
            assert (await second.kv.range("k/s/", prefix=True)).count == 5
        assert (await second.kv.range("k/s/", prefix=True)).count == 3
        with pytest.raises(LeaseNotFound):
            await first.kv.create_sequential("k/s/", "x", lease=12345)

    with_clients(test)


def test_a_fenced_write_of_an_older_token_is_refused() -> None:
    async def test(_: HostCluster, first: Client, second: Client) -> None:
        async with first.lock("k/lock") as lock:
            old = lock.token
            await first.kv.fenced("k/gate", "k/lock", old, Put(b"k/data", b"old"))
            await first.kv.fenced("k/gate", "k/lock", old, Put(b"k/data", b"old, again"))
        async with second.lock("k/lock") as lock:
            await second.kv.fenced("k/gate", lock.name, lock.token, Put(b"k/data", b"new"))
            with pytest.raises(StaleToken):
                await first.kv.fenced("k/gate", "k/lock", old, Put(b"k/data", b"late"))
            async with first.lock("k/other") as other:
                assert other.token > lock.token
                with pytest.raises(ForeignToken):
                    await first.kv.fenced("k/gate", other.name, other.token, Put(b"k/data", b"another's"))
            with pytest.raises(InvalidRequest):
                await first.kv.fenced("k/gate", lock.name, 0, Put(b"k/data", b"without a token"))
        assert (await first.get("k/data")).value == b"new"

    with_clients(test)
