"""When a host has its turns, and how its writes to the store end in them."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from host_cluster import HostCluster, VirtualClock
from virtual_time import run_virtual

from isochrone.ids import Nanos, NodeId, ReplicaRole
from isochrone.regions.turns import AT_ONCE, Turns
from isochrone.wire.messages import AppendResponse

B = NodeId("b")


def with_turns(test: Callable[[Turns, list[str], list[Nanos | None]], Awaitable[None]]) -> list[str]:
    """Run a test with turns that have begun; each notes `turn` and returns the last that the test gives, or None."""
    log: list[str] = []
    needed_next: list[Nanos | None] = []

    def turn() -> Nanos | None:
        log.append("turn")
        return needed_next.pop() if needed_next else None

    async def main() -> None:
        turns = Turns(VirtualClock(), turn)
        turns.begin()
        await asyncio.sleep(0)
        log.clear()
        await test(turns, log, needed_next)
        turns.end()

    run_virtual(main())
    return log


def test_many_wakes_make_one_turn_after_what_runs() -> None:
    async def test(turns: Turns, log: list[str], _: list[Nanos | None]) -> None:
        for _ in range(3):
            turns.wake()
        log.append("awake")
        await asyncio.sleep(1)

    assert with_turns(test) == ["awake", "turn"]


def test_a_turn_that_is_taken_stands_for_the_one_that_was_due() -> None:
    async def test(turns: Turns, log: list[str], _: list[Nanos | None]) -> None:
        turns.wake()
        turns.take()
        log.append("taken")
        await asyncio.sleep(1)
        turns.wake()
        await asyncio.sleep(1)

    assert with_turns(test) == ["turn", "taken", "turn"]


def test_a_turn_is_followed_by_the_next_when_that_is_needed_at_once_or_at_its_time() -> None:
    async def test(turns: Turns, log: list[str], needed_next: list[Nanos | None]) -> None:
        loop = asyncio.get_running_loop()
        needed_next += [Nanos(round(loop.time() * 1e9) + 500_000_000), AT_ONCE]
        turns.take()
        await asyncio.sleep(0.4)
        log.append("later")
        await asyncio.sleep(0.2)

    assert with_turns(test) == ["turn", "turn", "later", "turn"]


def test_no_turn_begins_within_another() -> None:
    log: list[str] = []

    async def main() -> None:
        def turn() -> None:
            log.append("begins")
            if len(log) == 1:
                turns.take()
            log.append("ends")

        turns = Turns(VirtualClock(), turn)
        turns.begin()
        await asyncio.sleep(1)

    run_virtual(main())
    assert log == ["begins", "ends", "begins", "ends"]


def in_cluster(test: Callable[[HostCluster], Awaitable[None]]) -> None:
    async def main() -> None:
        cluster = HostCluster(dict.fromkeys("abc", ReplicaRole.FULL))
        await cluster.start_all()
        await test(cluster)
        await cluster.stop_all()

    run_virtual(main())


def test_what_hangs_on_a_write_leaves_when_it_has_ended_and_not_a_turn_of_the_loop_later() -> None:
    async def test(cluster: HostCluster) -> None:
        client = await cluster.client()
        await client.put("k/warm", "1")
        store = cluster.processes[B].store
        store.hold()
        write = asyncio.ensure_future(client.put("k/x", "1"))
        await asyncio.sleep(0.2)
        before = cluster.sent[B, AppendResponse]
        store.release(1)
        assert cluster.sent[B, AppendResponse] > before
        store.release()
        await write

    in_cluster(test)


def test_a_host_stops_after_the_write_under_way() -> None:
    async def test(cluster: HostCluster) -> None:
        client = await cluster.client()
        await client.put("k/warm", "1")
        process = cluster.processes[B]
        process.store.hold()
        write = asyncio.ensure_future(client.put("k/x", "1"))
        await asyncio.sleep(0.2)
        assert process.store.pending
        assert process.host is not None
        stopping = asyncio.ensure_future(process.host.stop())
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(stopping), 10)
        commits = process.store.commits
        process.store.release(1)
        await asyncio.wait_for(stopping, 1)
        assert process.store.commits == commits + 1
        await process.host.closed()
        await write

    in_cluster(test)
