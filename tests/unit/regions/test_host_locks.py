"""Locks through hosts: waits that last, and end by release, by time, by loss, whoever leads."""

import asyncio
from collections.abc import Awaitable, Callable
from itertools import count

import pytest
from host_asker import Asker
from host_cluster import GROUP, HostCluster
from virtual_time import run_virtual

from isochrone.errors import LockNotHeld, NotLeader, Unavailable
from isochrone.ids import NodeId, ReplicaRole
from isochrone.regions.requests import Outcome
from isochrone.wire.commands import Operation, Result, decode_result
from isochrone.wire.leases import LeaseGrant, LeaseKeepAlive
from isochrone.wire.locks import (
    LockAcquire,
    LockEnd,
    LockMode,
    LockQuery,
    LockQueryResult,
    LockRelease,
    LockResult,
    LockWait,
)

FULL = ReplicaRole.FULL
NAME = b"k/lock"


def with_leases(test: Callable[[HostCluster, Asker], Awaitable[None]]) -> None:
    """A group of three with leases 1, 2 and 3 of 10 s, and 4 of an hour."""

    async def main() -> None:
        cluster = HostCluster({"a": FULL, "b": FULL, "c": FULL})
        await cluster.start_all()
        await cluster.until(lambda: cluster.leader() is not None)
        asker = Asker(cluster)
        for lease, ttl_ms in ((1, 10_000), (2, 10_000), (3, 10_000), (4, 3_600_000)):
            await done(asker, LeaseGrant(lease, ttl_ms))
        await test(cluster, asker)
        await cluster.stop_all()

    run_virtual(main())


async def done(asker: Asker, operation: Operation) -> Result:
    outcome = await asker.write(operation)
    if outcome.error is not None:
        raise outcome.error
    return decode_result(outcome.payload)


def end_of(answer: "asyncio.Future[Outcome]") -> LockResult:
    outcome = answer.result()
    assert outcome.error is None, outcome.error
    result = decode_result(outcome.payload)
    assert isinstance(result, LockResult)
    return result


async def new_leader(cluster: HostCluster) -> None:
    old = cluster.leader()
    assert old is not None
    await cluster.crash(old)
    await cluster.until(lambda: cluster.leader() not in (None, old))
    await asyncio.sleep(0.5)


def test_a_wait_is_answered_when_the_lock_is_free() -> None:
    async def test(_: HostCluster, asker: Asker) -> None:
        first = await done(asker, LockAcquire(NAME, 4, 1))
        second = await done(asker, LockAcquire(NAME, 1, 2))
        assert isinstance(first, LockResult) and isinstance(second, LockResult)
        assert (first.end, second.end) == (LockEnd.GRANTED, LockEnd.WAITING)
        waits = asker.read(LockWait(NAME, 1, 2))
        await asyncio.sleep(3)
        assert not waits.done()
        await done(asker, LockRelease(NAME, 4, first.token))
        assert end_of(waits).end is LockEnd.GRANTED and end_of(waits).token > first.token
        late = asker.read(LockWait(NAME, 1, 2))
        await asyncio.sleep(0.5)
        assert end_of(late).token == end_of(waits).token, "whoever asks late finds the grant, too"

    with_leases(test)


def test_a_wait_ends_in_time_though_nothing_else_happens() -> None:
    async def test(_: HostCluster, asker: Asker) -> None:
        await done(asker, LockAcquire(NAME, 4, 1))
        await done(asker, LockAcquire(NAME, 1, 2, wait_ms=2_000))
        waits = asker.read(LockWait(NAME, 1, 2))
        await asyncio.sleep(1.9)
        assert not waits.done()
        await asyncio.sleep(0.3)
        assert end_of(waits).end is LockEnd.TIMED_OUT
        late = asker.read(LockWait(NAME, 1, 2))
        await asyncio.sleep(0.3)
        assert end_of(late).end is LockEnd.TIMED_OUT, "how it ended is known for a while"

    with_leases(test)


def test_a_lost_holder_is_followed_after_the_lock_delay() -> None:
    async def test(_: HostCluster, asker: Asker) -> None:
        await done(asker, LockAcquire(NAME, 1, 1, delay_ms=4_000))
        await done(asker, LockAcquire(NAME, 4, 2))
        waits = asker.read(LockWait(NAME, 4, 2))
        await asyncio.sleep(13.5)
        assert not waits.done(), "the lease of 10 s has run out, its delay of 4 s has not"
        await asyncio.sleep(1)
        assert end_of(waits).end is LockEnd.GRANTED

    with_leases(test)


def test_a_deadlock_is_told_to_its_victim() -> None:
    async def test(_: HostCluster, asker: Asker) -> None:
        await done(asker, LockAcquire(NAME, 1, 1, LockMode.S))
        await done(asker, LockAcquire(NAME, 2, 2, LockMode.S))
        await done(asker, LockAcquire(NAME, 2, 3, LockMode.X))
        waits = asker.read(LockWait(NAME, 2, 3))
        await asyncio.sleep(0.5)
        await done(asker, LockAcquire(NAME, 1, 4, LockMode.X))
        assert end_of(waits).end is LockEnd.DEADLOCK

    with_leases(test)


def test_waits_are_taken_up_by_the_next_leader_with_time_and_order() -> None:
    async def test(cluster: HostCluster, asker: Asker) -> None:
        first = await done(asker, LockAcquire(NAME, 4, 1))
        assert isinstance(first, LockResult)
        await done(asker, LockAcquire(NAME, 1, 2, wait_ms=8_000))
        await done(asker, LockAcquire(NAME, 2, 3))
        waits = asker.read(LockWait(NAME, 2, 3))
        await asyncio.sleep(0.5)
        await new_leader(cluster)
        assert isinstance(waits.result().error, NotLeader | Unavailable)
        again = asker.read(LockWait(NAME, 2, 3))
        for _ in range(4):
            await asyncio.sleep(2)
            for lease in (1, 2):
                await asker.get(LeaseKeepAlive(lease))
        view = await asker.get(LockQuery(NAME))
        assert isinstance(view, LockQueryResult)
        assert [item.lease for item in view.requests] == [4, 2], "the wait of 8 s is over, whoever led meanwhile"
        await done(asker, LockRelease(NAME, 4, first.token))
        assert end_of(again).token > first.token

    with_leases(test)


def test_who_waits_at_a_leader_that_hands_over_is_told() -> None:
    async def test(cluster: HostCluster, asker: Asker) -> None:
        await done(asker, LockAcquire(NAME, 1, 1))
        await done(asker, LockAcquire(NAME, 2, 2))
        waits = asker.read(LockWait(NAME, 2, 2))
        await asyncio.sleep(0.5)
        old = cluster.leader()
        successor = next(NodeId(name) for name in cluster.processes if name != old)
        asker.host(old).administration.transfer_leadership(GROUP, successor, lambda _: None)
        await cluster.until(lambda: cluster.leader() == successor)
        assert isinstance(waits.result().error, NotLeader)

    with_leases(test)


def test_tokens_rise_across_leaders_and_losses() -> None:
    """Exclusion by token order: whatever happens to leaders and holders, a later grant has a larger token."""

    async def test(cluster: HostCluster, asker: Asker) -> None:
        tokens: list[int] = []
        requests = count(1)
        for round_ in range(4):
            lease = 100 + round_
            await done(asker, LeaseGrant(lease, 2_000))
            number = next(requests)
            await done(asker, LockAcquire(NAME, lease, number))
            waits = asker.read(LockWait(NAME, lease, number))
            await asyncio.sleep(1)
            tokens.append(end_of(waits).token)
            if round_ == 1:
                await new_leader(cluster)
            await asyncio.sleep(8)
        assert tokens == sorted(set(tokens))

    with_leases(test)


def test_waiting_for_what_was_never_asked_is_an_error() -> None:
    async def test(_: HostCluster, asker: Asker) -> None:
        with pytest.raises(LockNotHeld):
            await asker.get(LockWait(NAME, 1, 99))

    with_leases(test)
