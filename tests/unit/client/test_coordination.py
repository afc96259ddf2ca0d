"""What the SDK offers above single calls: all of key-value, elections to observe, sessions that hold together."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from host_cluster import HostCluster
from virtual_time import run_virtual

from isochrone.client import Client, Leader, Provenance
from isochrone.errors import (
    DeadlineExceeded,
    InvalidRequest,
    LeaseLost,
    LockHeld,
    LockNotHeld,
    RevisionCompacted,
    Unavailable,
)
from isochrone.ids import ReplicaRole
from isochrone.wire.kv import Compare, Put, Range, RangeResult, Relation, SortOrder, Target
from isochrone.wire.leases import LeaseRevoke, LeaseTimeToLive

FULL = ReplicaRole.FULL


def with_clients(test: Callable[[HostCluster, Client, Client], Awaitable[None]]) -> None:
    async def main() -> None:
        cluster = HostCluster({"a": FULL, "b": FULL, "c": FULL})
        await cluster.start_all()
        await cluster.until(lambda: cluster.leader() is not None)
        await test(cluster, await cluster.client(timeout_s=20.0), await cluster.client(timeout_s=20.0))
        await cluster.stop_all()

    run_virtual(main())


def test_keys_can_be_read_changed_and_forgotten_in_all_ways() -> None:
    async def test(_: HostCluster, client: Client, other: Client) -> None:
        kv = client.kv
        for name in ("k/a", "k/b", "k/c"):
            first = await kv.put(name, name)
        assert (await kv.put("k/c", "new", prev_kv=True)).previous is not None
        found = await kv.range("k/", prefix=True, limit=2, order=SortOrder.DESCEND)
        assert [item.key for item in found.items] == [b"k/c", b"k/b"] and found.count == 3 and found.more
        old = await kv.range("k/c", revision=first.revision)
        assert old.items[0].value == b"k/c"
        assert (await kv.increment("k/n", 5)).value == 5 and (await kv.increment("k/n")).value == 6
        absent = Compare(b"k/a", Target.VERSION, Relation.EQUAL, 0)
        done = await kv.txn([absent], [Put(b"k/a", b"x")], [Range(b"k/a")])
        assert not done.succeeded and isinstance(done.results[0], RangeResult)
        assert done.results[0].items[0].value == b"k/a"
        assert (await kv.delete("k/a", range_end="k/c", prev_kv=True)).deleted == 2
        await kv.compact("k/", first.revision + 1)
        with pytest.raises(RevisionCompacted):
            await kv.range("k/c", revision=first.revision)
        with pytest.raises(InvalidRequest):
            await kv.txn([], [])
        with pytest.raises(InvalidRequest):
            await kv.range("k/", range_end="k/z", prefix=True)

    with_clients(test)


def test_any_replica_answers_what_may_be_old_when_the_group_has_no_leader() -> None:
    async def test(cluster: HostCluster, client: Client, other: Client) -> None:
        written = await client.kv.put("k/a", "1")
        await asyncio.sleep(2)
        for name in "bc":
            await cluster.crash(name)
        began = asyncio.get_running_loop().time()
        found = await other.query_nearest("k/a", Range(b"k/a"), timeout_s=30)
        assert found.provenance is Provenance.STALE and found.replica == "a"
        assert isinstance(found.result, RangeResult) and found.result.items[0].mod_revision == written.revision
        assert asyncio.get_running_loop().time() - began < 5
        with pytest.raises((Unavailable, DeadlineExceeded)):
            await other.kv.range("k/a", timeout_s=3)
        with pytest.raises(InvalidRequest, match="only the leader"):
            await other.query_nearest("k/", LeaseTimeToLive(1))

    with_clients(test)


def test_a_replica_that_falls_silent_is_left_for_another_one() -> None:
    async def test(cluster: HostCluster, client: Client, other: Client) -> None:
        await client.kv.put("k/a", "1")
        await asyncio.sleep(2)
        near = (await other.query_nearest("k/a", Range(b"k/a"))).replica
        cluster.cut |= {(near, "client-1"), ("client-1", near)}
        before = other.statistics().attempts
        found = await other.query_nearest("k/a", Range(b"k/a"), timeout_s=10)
        assert found.replica != near
        assert other.statistics().attempts - before <= 3, "it does not ask everybody"
        cluster.heal()

    with_clients(test)


def test_observers_see_each_leader_and_the_times_without_one() -> None:
    async def test(cluster: HostCluster, first: Client, second: Client) -> None:
        seen: list[bytes | None] = []
        terms: list[int] = []

        async def watch() -> None:
            async for leader in second.observe("k/leader"):
                seen.append(leader.value if leader else None)
                if isinstance(leader, Leader):
                    terms.append(leader.elected_revision)

        observing = asyncio.create_task(watch())
        await asyncio.sleep(1)
        async with first.election("k/leader", "one", ttl_s=5) as leadership:
            with pytest.raises(LockHeld):
                await second.election("k/leader", "two", wait_s=0).__aenter__()
            await leadership.proclaim("one, again")
            old = cluster.leader()
            assert old is not None
            await cluster.crash(old)
            await asyncio.sleep(20)
        async with second.election("k/leader", "two") as later:
            assert later.token > leadership.token
            with pytest.raises(LockNotHeld):
                await leadership.proclaim("I still lead")
        await asyncio.sleep(3)
        observing.cancel()
        await asyncio.gather(observing, return_exceptions=True)
        assert seen == [None, b"one", b"one, again", None, b"two", None]
        assert terms[0] == terms[1] < terms[2], "a term of office is known by its first revision"

    with_clients(test)


def test_what_a_session_holds_is_lost_together() -> None:
    async def test(_: HostCluster, first: Client, second: Client) -> None:
        lease = 0

        async def hold() -> None:
            nonlocal lease
            async with first.session("k/", ttl_s=5) as session, session.lock("k/table"), session.lock("k/table/row"):
                lease = session.lease.identity
                await session.put("k/member", "here")
                made = [await session.create_sequential("k/queue/", "job") for _ in range(2)]
                assert made == sorted(made)
                with pytest.raises(LockHeld):
                    await second.lock("k/table", wait_s=0).__aenter__()
                await asyncio.sleep(100)

        holding = asyncio.create_task(hold())
        await asyncio.sleep(3)
        assert (await second.kv.range("k/", prefix=True)).count == 3
        await second.execute("k/", LeaseRevoke(lease))
        async with second.lock("k/table", wait_s=0), second.lock("k/table/row", wait_s=0):
            assert (await second.kv.range("k/", prefix=True)).count == 0
        with pytest.raises(LeaseLost):
            await holding

    with_clients(test)
