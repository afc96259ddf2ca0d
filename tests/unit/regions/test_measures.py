"""What replicas count of their work, in virtual time."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable

from host_asker import Asker
from host_cluster import GROUP, KEYSPACE, MS, HostCluster
from state_log import StateLog
from virtual_time import run_virtual

from isochrone.histograms import Histogram
from isochrone.ids import NS_PER_S, Nanos, NodeId, ReplicaRole
from isochrone.regions.measures import GroupMeasures
from isochrone.regions.raft.ready import EventName
from isochrone.regions.requests import Outcome, alone
from isochrone.regions.state.model import Happening
from isochrone.regions.watch_hub import WatchHub, WatchRequest
from isochrone.wire.commands import Command, OpenSession, Operation, SessionResult, decode_result, encode_command
from isochrone.wire.fence_gates import fenced
from isochrone.wire.kv import Compare, Put, Relation, Target, Txn
from isochrone.wire.leases import LeaseGrant
from isochrone.wire.locks import LockAcquire, LockEnd, LockRelease, LockResult

FULL = ReplicaRole.FULL
NAME = b"k/lock"


def with_cluster(test: Callable[[HostCluster, Asker], Awaitable[None]]) -> None:
    async def main() -> None:
        cluster = HostCluster({"a": FULL, "b": FULL, "c": FULL})
        await cluster.start_all()
        await cluster.until(lambda: cluster.leader() is not None)
        await test(cluster, Asker(cluster))
        await cluster.stop_all()

    run_virtual(main())


def measures(cluster: HostCluster, name: str) -> GroupMeasures:
    host = cluster.processes[NodeId(name)].host
    assert host is not None
    return host.replicas[GROUP].measures


def happened(cluster: HostCluster) -> Counter[Happening]:
    """Summed over the nodes, as whoever reads the metrics does."""
    return sum((measures(cluster, name).happened for name in cluster.processes), Counter[Happening]())


async def locked(asker: Asker, acquire: LockAcquire) -> LockResult:
    outcome = await asker.write(acquire)
    assert outcome.error is None, outcome.error
    result = decode_result(outcome.payload)
    assert isinstance(result, LockResult)
    return result


async def in_session(asker: Asker, session: int, sequence: int, operation: Operation) -> Outcome:
    answer: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
    command = encode_command(Command(session, sequence, 0, operation))
    asker.host().write(GROUP, KEYSPACE, (command,), b"", Nanos(5 * NS_PER_S), alone(answer.set_result))
    return await answer


def test_values_are_counted_by_the_smallest_bound_that_is_not_below_them() -> None:
    histogram = Histogram((10, 100))
    for value in (0, 10, 11, 100, 101):
        histogram.record(value)
    assert (histogram.counts, histogram.total, histogram.count) == ([2, 2, 1], 222, 5)


def test_locks_are_counted_by_whether_they_waited_and_by_how_the_wait_ended() -> None:
    async def test(cluster: HostCluster, asker: Asker) -> None:
        for lease in (1, 2, 3):
            await asker.write(LeaseGrant(lease, 60_000))
        leader = cluster.leader()
        assert leader is not None
        first = await locked(asker, LockAcquire(NAME, 1, 1))
        assert (await locked(asker, LockAcquire(NAME, 2, 2))).end is LockEnd.WAITING
        assert (await locked(asker, LockAcquire(NAME, 3, 3, wait_ms=1_000))).end is LockEnd.WAITING
        await asyncio.sleep(3)
        await asker.write(LockRelease(NAME, 1, first.token))
        counted = measures(cluster, leader)
        assert happened(cluster)[Happening.LOCK_GRANTED] == 1
        assert counted.waits_ended == {LockEnd.GRANTED: 1, LockEnd.TIMED_OUT: 1}
        at_once, waited = counted.acquired_at_once_ns, counted.acquired_after_wait_ns
        # One round trip to a follower, 20 ms, and its like for the entry that released the lock.
        assert at_once.count == 1 and 20 * MS <= at_once.total < 25 * MS
        assert waited.count == 1 and 3_000 * MS < waited.total < 3_200 * MS
        assert counted.commit_ns.count == counted.commands == 3 + 4
        followers = [measures(cluster, name) for name in cluster.processes if name != leader]
        assert [(each.commands, each.waits_ended) for each in followers] == [(0, {}), (0, {})]

    with_cluster(test)


def test_expiries_repeated_commands_and_refused_tokens_are_counted_once() -> None:
    async def test(cluster: HostCluster, asker: Asker) -> None:
        await asker.write(LeaseGrant(1, 2_000))
        opened = decode_result((await asker.write(OpenSession(b"", 3_000))).payload)
        assert isinstance(opened, SessionResult)
        session = opened.session
        for _ in range(3):
            await in_session(asker, session, 1, Put(b"k/a", b"1"))
        for sequence, token in ((2, 5), (3, 4), (4, 5)):
            await in_session(asker, session, sequence, fenced(b"k/gate", b"k/lock", token, Put(b"k/b", b"2")))
        assert happened(cluster) == {Happening.COMMAND_REPEATED: 2, Happening.TOKEN_REFUSED: 1}
        await asyncio.sleep(6)
        await in_session(asker, session, 9, Put(b"k/a", b"2"))
        assert happened(cluster)[Happening.SESSION_EXPIRED] == 1
        assert happened(cluster)[Happening.LEASE_EXPIRED] == 1

    with_cluster(test)


def test_a_comparison_that_fails_without_a_token_is_no_refused_token() -> None:
    log = StateLog()
    log.do(Txn((Compare(b"k/a", Target.VERSION, Relation.EQUAL, 7),), (Put(b"k/a", b"1"),)))
    assert log.last.happened == ()
    log.do(Txn((Compare(b"k/lock", Target.LOCK, Relation.EQUAL, 7),), (Put(b"k/a", b"1"),)))
    assert log.last.happened == (Happening.TOKEN_REFUSED,)


def test_elections_are_counted_and_timed_where_they_are_won() -> None:
    async def test(cluster: HostCluster, asker: Asker) -> None:
        first = cluster.leader()
        assert first is not None and measures(cluster, first).election_ns.count == 1
        await cluster.crash(first)
        await cluster.until(lambda: cluster.leader() not in (None, first))
        second = cluster.leader()
        assert second is not None
        won = measures(cluster, second)
        assert won.events[EventName.BECAME_LEADER] == won.election_ns.count == 1
        # A round of preliminary votes and one of votes, at 20 ms each.
        assert 40 * MS <= won.election_ns.total < 1_000 * MS

    with_cluster(test)


def test_the_lag_of_a_watcher_counts_from_when_it_had_been_told_everything() -> None:
    log = StateLog()
    hub = WatchHub(log.state.data)
    watcher = hub.create(WatchRequest(b"k/a"), Nanos(100))

    def write(now: int) -> None:
        log.do(Put(b"k/a", b"1"))
        hub.applied(log.last.events, Nanos(now))

    write(1_000)
    write(2_000)
    assert hub.take(watcher, Nanos(2_500)) is not None and hub.take(watcher, Nanos(2_500)) is None
    assert (hub.lag_ns.count, hub.lag_ns.total, hub.events_told) == (1, 1_500, 2)
    write(9_000)
    assert hub.take(watcher, Nanos(9_250)) is not None
    assert (hub.lag_ns.count, hub.lag_ns.total, hub.events_told) == (2, 1_750, 3)


def test_a_watcher_that_begins_in_the_past_is_behind_until_it_has_read_on() -> None:
    log = StateLog()
    log.do(Put(b"k/a", b"1"))
    hub = WatchHub(log.state.data)
    watcher = hub.create(WatchRequest(b"k/a", start_revision=1), Nanos(100))
    assert hub.behind == 1
    assert hub.take(watcher, Nanos(400)) is not None
    assert (hub.behind, hub.lag_ns.total) == (0, 300)
