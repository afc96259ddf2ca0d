"""Watches of the SDK, through hosts: nothing twice, nothing left out, whatever happens to nodes and links."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest
from host_cluster import GROUP, HostCluster
from virtual_time import run_virtual

from isochrone.client import Client, Watcher, WatchEvent, WatchGap
from isochrone.client import watches as client_watches
from isochrone.client.watches import TakenApart
from isochrone.errors import InvalidRequest
from isochrone.ids import NodeId, ReplicaRole, Revision
from isochrone.node import session_watches
from isochrone.regions import watch_hub
from isochrone.regions.requests import alone
from isochrone.wire.commands import Command, encode_command
from isochrone.wire.kv import Compact, Put, Txn

FULL = ReplicaRole.FULL


def with_client(test: Callable[[HostCluster, Client], Awaitable[None]]) -> None:
    async def main() -> None:
        cluster = HostCluster({"a": FULL, "b": FULL, "c": FULL})
        await cluster.start_all()
        await cluster.until(lambda: cluster.leader() is not None)
        client = await cluster.client(timeout_s=20.0)
        await test(cluster, client)
        await cluster.stop_all()

    run_virtual(main())


async def take(watcher: Watcher, count: int, timeout_s: float = 30.0) -> list[WatchEvent]:
    events: list[WatchEvent] = []
    async with asyncio.timeout(timeout_s):
        while len(events) < count:
            told = await anext(watcher)
            assert isinstance(told, WatchEvent)
            events.append(told)
    return events


def values(events: list[WatchEvent]) -> list[bytes]:
    return [event.item.value for event in events]


async def nothing_more(watcher: Watcher) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(3):
            await anext(watcher)


async def compact(cluster: HostCluster, revision: int) -> None:
    leader = cluster.leader()
    assert leader is not None
    host = cluster.processes[NodeId(leader)].host
    assert host is not None
    done: asyncio.Future[object] = asyncio.get_running_loop().create_future()
    command = encode_command(Command(0, 0, 0, Compact(revision)))
    host.write(
        GROUP, host.replicas[GROUP].machine.data._ordered[0].keyspace, (command,), b"", 10**10, alone(done.set_result)
    )  # type: ignore[union-attr,arg-type]
    assert (await done).error is None  # type: ignore[attr-defined]


def test_a_watch_tells_what_is_written_and_what_was_before() -> None:
    async def test(_: HostCluster, client: Client) -> None:
        async with client.watch("k/", prefix=True, prev_kv=True) as watcher:
            await asyncio.sleep(1)
            await client.put("k/a", "1")
            await client.put("k/a", "2")
            await client.delete("k/a")
            events = await take(watcher, 3)
            assert values(events) == [b"1", b"2", b""]
            assert [event.deleted for event in events] == [False, False, True]
            assert [event.previous and event.previous.value for event in events] == [None, b"1", b"2"]
            await nothing_more(watcher)
            assert watcher.next_revision == events[-1].item.mod_revision + 1

    with_client(test)


def test_a_watch_begins_in_the_past_and_at_one_key() -> None:
    async def test(_: HostCluster, client: Client) -> None:
        for number in range(4):
            await client.put("k/a", str(number))
            await client.put("k/b", "other")
        async with client.watch("k/a", start_revision=4) as watcher:
            assert values(await take(watcher, 3)) == [b"1", b"2", b"3"]
            await nothing_more(watcher)

    with_client(test)


def test_a_watch_outlives_its_node() -> None:
    async def test(cluster: HostCluster, client: Client) -> None:
        watcher = client.watch("k/", prefix=True)
        await asyncio.sleep(1)
        told: list[bytes] = []
        for number in range(9):
            await client.put("k/a", str(number))
            if number % 3 == 2:
                told += values(await take(watcher, 3))
                node = watcher._node
                assert node is not None
                await cluster.crash(node)
                await client.put("k/a", f"after {number}", timeout_s=20)
                await cluster.start(node)
                told += values(await take(watcher, 1))
        expected = [b"0", b"1", b"2", b"after 2", b"3", b"4", b"5", b"after 5", b"6", b"7", b"8", b"after 8"]
        assert told == expected
        watcher.close()

    with_client(test)


def test_lost_frames_are_noticed_and_made_good() -> None:
    """Links lose frames without a word: the numbers of batches and the progress before each pong tell."""

    async def test(cluster: HostCluster, client: Client) -> None:
        async with client.watch("k/", prefix=True) as watcher:
            await asyncio.sleep(1)
            cluster.loss = 0.3
            for number in range(40):
                await client.put("k/a", str(number), timeout_s=200)
            cluster.loss = 0.0
            assert values(await take(watcher, 40, 60)) == [b"%d" % number for number in range(40)]
            await nothing_more(watcher)

    with_client(test)


def test_a_watch_that_breaks_within_a_revision_goes_on_behind_what_was_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """A large transaction comes in fragments; a new watch can only begin at a revision, so it is told some again."""
    monkeypatch.setattr(watch_hub, "BATCH_BYTES_MAX", 1)

    async def test(cluster: HostCluster, client: Client) -> None:
        async with client.watch("k/", prefix=True) as watcher:
            await asyncio.sleep(1)
            watched: list[WatchEvent] = []
            for round_ in range(5):
                puts = tuple(Put(b"k/%d" % number, b"%d" % round_) for number in range(8))
                cluster.loss = 0.3
                await client.execute("k/", Txn((), puts), timeout_s=60)
                await asyncio.sleep(1)
                cluster.loss = 0.0
                watched += await take(watcher, 8, 60)
            expected = [(b"k/%d" % number, b"%d" % round_) for round_ in range(5) for number in range(8)]
            assert [(event.item.key, event.item.value) for event in watched] == expected
            await nothing_more(watcher)

    with_client(test)


@pytest.mark.parametrize(("limit", "most"), [("BUFFER_EVENTS_MAX", 6), ("BUFFER_BYTES_MAX", 300)])
def test_a_caller_that_does_not_take_lets_the_watch_rest(
    limit: str, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_watches, limit, most)

    async def test(_: HostCluster, client: Client) -> None:
        async with client.watch("k/", prefix=True) as watcher:
            await asyncio.sleep(1)
            for number in range(50):
                await client.put("k/a", str(number))
            assert len(watcher._buffer) <= 8 and watcher._number is None
            assert values(await take(watcher, 50)) == [b"%d" % number for number in range(50)]
            await nothing_more(watcher)

    with_client(test)


def test_what_is_compacted_is_told_as_a_gap_with_the_keys_as_they_are() -> None:
    async def test(cluster: HostCluster, client: Client) -> None:
        for number in range(8):
            await client.put(f"k/{number % 2}", str(number))
        await compact(cluster, 7)
        async with client.watch("k/", prefix=True, start_revision=2) as watcher:
            gap = await anext(watcher)
            assert isinstance(gap, WatchGap) and gap.revision == 9
            assert [(item.key, item.value) for item in gap.items] == [(b"k/0", b"6"), (b"k/1", b"7")]
            await client.put("k/0", "after")
            assert values(await take(watcher, 1)) == [b"after"]

    with_client(test)


def test_a_node_whose_client_reads_slowly_lets_its_watches_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_watches, "BACKLOG_BYTES_MAX", -1)
    resume: list[Callable[[], None]] = []

    async def test(cluster: HostCluster, client: Client) -> None:
        answering = next(stream.answering for process in cluster.processes.values() for stream in process.streams)
        monkeypatch.setattr(type(answering), "call_when_drained", lambda _self, again: resume.append(again))
        async with client.watch("k/", prefix=True) as watcher:
            await asyncio.sleep(1)
            for number in range(5):
                await client.put("k/a", str(number))
            await nothing_more(watcher)
            assert len(resume) == 1, "asked once, however much is written"
            monkeypatch.setattr(session_watches, "BACKLOG_BYTES_MAX", 1 << 20)
            resume[0]()
            assert values(await take(watcher, 5)) == [b"0", b"1", b"2", b"3", b"4"]

    with_client(test)


def test_a_node_that_is_cut_off_from_its_group_lets_its_watches_go() -> None:
    async def test(cluster: HostCluster, client: Client) -> None:
        watcher = client.watch("k/", prefix=True)
        await asyncio.sleep(1)
        node = watcher._node
        assert node is not None
        cluster.cut |= {pair for other in "abc" if other != node for pair in ((node, other), (other, node))}
        await client.put("k/a", "1", timeout_s=30)
        assert values(await take(watcher, 1, 60)) == [b"1"]
        assert watcher._node != node
        watcher.close()

    with_client(test)


def test_many_watches_on_one_session_end_with_it() -> None:
    async def test(cluster: HostCluster, client: Client) -> None:
        watchers = [client.watch(f"k/{number}") for number in range(30)]
        await asyncio.sleep(1)
        hubs = [
            process.host.replicas[GROUP].service._watches.hub
            for process in cluster.processes.values()
            if process.host is not None
        ]
        assert sum(len(hub) for hub in hubs) == 30
        await client.put("k/7", "x")
        assert values(await take(watchers[7], 1)) == [b"x"]
        watchers[7].close()
        await asyncio.sleep(1)
        assert sum(len(hub) for hub in hubs) == 29
        await client.close()
        await asyncio.sleep(1)
        assert sum(len(hub) for hub in hubs) == 0
        with pytest.raises(StopAsyncIteration):
            await anext(watchers[3])

    with_client(test)


def test_a_watch_that_is_closed_within_a_revision_does_not_tell_half_of_it() -> None:
    async def test(_: HostCluster, client: Client) -> None:
        for key in ("k/a", "k/b"):
            await client.put(key, "1")
        watcher = client.watch("k/", prefix=True, start_revision=1)
        *_, second = await take(watcher, 2)
        number, sequence = watcher._number, watcher._sequence
        assert number is not None
        order = (1 << 40).to_bytes(8, "big") + b"\0" * 4
        half = replace(second.item, mod_revision=Revision(1 << 40))
        watcher.told(number, sequence + 1, TakenApart(((order, WatchEvent(half, None), 1),), 1 << 40))
        watcher.close()
        assert [step async for step in watcher.revisions()] == []

    with_client(test)


def test_bad_watches_are_refused() -> None:
    async def test(_: HostCluster, client: Client) -> None:
        for options in ({"start_revision": -1}, {"prefix": True, "range_end": "k/z"}):
            with pytest.raises(InvalidRequest):
                client.watch("k/a", **options)  # type: ignore[arg-type]
        with pytest.raises(InvalidRequest):
            client.watch("nowhere/a")
        with pytest.raises(InvalidRequest):
            client.watch("")

    with_client(test)
