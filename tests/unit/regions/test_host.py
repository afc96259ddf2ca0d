"""Production hosts, client service and SDK together, in virtual time, on stores and links that a test can hold back."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

import pytest
from host_cluster import GROUP, KEYSPACE, MS, HostCluster
from virtual_time import run_virtual

from isochrone.errors import (
    Indeterminate,
    InvalidRequest,
    InvariantViolation,
    IsochroneError,
    LeadershipLost,
    NotLeader,
    QueueFull,
    Rejected,
    StorageError,
    Unavailable,
)
from isochrone.ids import Incarnation, LogIndex, Nanos, NodeId, ReplicaRole, Revision, StoreId, Term
from isochrone.regions.host import QUEUED_BYTES_MAX, QUEUED_COMMANDS_MAX, WAITING_READS_MAX
from isochrone.regions.requests import Outcome, alone
from isochrone.wire.commands import Command, encode_command, encode_query
from isochrone.wire.kv import Put, Range
from isochrone.wire.messages import Envelope, GroupMessage, Heartbeat, HeartbeatResponse, TimeoutNow, VoteRequest

FULL, WITNESS = ReplicaRole.FULL, ReplicaRole.WITNESS
THREE = {"a": FULL, "b": FULL, "c": FULL}
WITNESSED = {"a": FULL, "b": FULL, "w": WITNESS}


def in_cluster(
    test: Callable[[HostCluster], Awaitable[None]], roles: dict[str, ReplicaRole] = THREE, seed: int = 1
) -> None:
    async def main() -> None:
        cluster = HostCluster(roles, seed)
        await cluster.start_all()
        await cluster.until(lambda: cluster.leader() is not None)
        await test(cluster)
        await cluster.stop_all()

    run_virtual(main())


def test_a_write_is_acknowledged_only_when_a_quorum_has_synced_it() -> None:
    async def test(cluster: HostCluster) -> None:
        client = await cluster.client()
        await client.put("k/warm", "1")
        for name in ("b", "c"):
            cluster.processes[NodeId(name)].store.hold()
        write = asyncio.ensure_future(client.put("k/x", "1"))
        await asyncio.sleep(5)
        assert not write.done(), "acknowledged while only the leader had synced"
        cluster.processes[NodeId("b")].store.release()
        assert (await write).succeeded

    in_cluster(test)


def test_a_follower_s_sync_and_not_its_receipt_counts() -> None:
    async def test(cluster: HostCluster) -> None:
        client = await cluster.client()
        await client.put("k/warm", "1")
        cluster.processes[NodeId("a")].store.hold()
        write = asyncio.ensure_future(client.put("k/x", "1"))
        await asyncio.sleep(0.2)
        # Two followers have synced; the leader's own sync is not needed, and it has applied in memory only.
        assert (await write).succeeded
        assert cluster.processes[NodeId("a")].store.pending

    in_cluster(test)


@pytest.mark.parametrize("roles", [THREE, WITNESSED], ids=["three full", "with a witness"])
@pytest.mark.parametrize("seed", range(12))
def test_random_faults_lose_nothing_and_repeat_nothing(roles: dict[str, ReplicaRole], seed: int) -> None:
    print(f"seed {seed}")
    rng = random.Random(f"host/{seed}/{len(roles)}")

    async def test(cluster: HostCluster) -> None:
        client = await cluster.client(timeout_s=60.0)
        done: dict[str, int] = {}
        maybe: dict[str, int] = {}

        async def write(key: str) -> None:
            try:
                await client.put(key, str(rng.random()))
                done[key] = done.get(key, 0) + 1
            except Rejected:
                return
            except Indeterminate:
                maybe[key] = maybe.get(key, 0) + 1

        writes = []
        for _ in range(25):
            await asyncio.sleep(rng.choice([0.01, 0.3, 2.0]))
            writes += [asyncio.ensure_future(write(f"k/{rng.randrange(4)}")) for _ in range(rng.randrange(6))]
            await _fault(cluster, rng)
        cluster.heal()
        for name, process in cluster.processes.items():
            process.store.release()
            cluster.thaw(name)
            if process.host is None:
                await cluster.start(name)
        await asyncio.gather(*writes)
        for key in {*done, *maybe}:
            version = (await client.get(key)).version
            assert done.get(key, 0) <= version <= done.get(key, 0) + maybe.get(key, 0), key
        assert done

    in_cluster(test, roles, seed)


async def _fault(cluster: HostCluster, rng: random.Random) -> None:
    name = rng.choice(list(cluster.processes))
    process = cluster.processes[name]
    match rng.randrange(8):
        case 0 | 1 if process.host is not None:
            await cluster.crash(name, keep=rng.randrange(process.store.pending + 1))
        case 2 | 3 if process.host is None:
            await cluster.start(name)
        case 4:
            cluster.isolate(name)
        case 5:
            cluster.loss = rng.choice([0.0, 0.1, 0.3])
        case 6:
            process.store.hold() if rng.random() < 0.5 else process.store.release()
        case 7:
            cluster.freeze(name) if rng.random() < 0.5 else cluster.thaw(name)
        case _:
            cluster.heal()


def test_a_deposed_leader_answers_no_read() -> None:
    async def test(cluster: HostCluster) -> None:
        client = await cluster.client()
        await client.put("k/x", "old")
        cluster.isolate("a", "client-0")
        stale = asyncio.ensure_future(client.get("k/x", timeout_s=4.0))
        other = await cluster.client()
        cluster.cut -= {pair for name in "bc" for pair in ((name, "client-1"), ("client-1", name))}
        assert (await other.put("k/x", "new", timeout_s=8.0)).replica in "bc"
        with pytest.raises(IsochroneError):
            await stale

    in_cluster(test)


def test_whoever_waits_for_a_write_learns_that_the_leader_lost_its_office() -> None:
    """Its successor has committed the write: the old leader must not call it refused."""

    async def test(cluster: HostCluster) -> None:
        client = await cluster.client()
        await client.put("k/warm", "1")
        leader = cluster.processes[NodeId("a")].host
        assert leader is not None
        done: list[Outcome] = []
        put = Command(1, 1, 0, Put(b"k/x", b"1"))
        leader.write(GROUP, KEYSPACE, (encode_command(put),), b"", Nanos(60_000 * MS), alone(done.append))
        await asyncio.sleep(0.015)
        cluster.isolate("a")
        await cluster.until(lambda: cluster.leader() in ("b", "c"))
        await cluster.until(lambda: bool(done))
        assert isinstance(done[0].error, LeadershipLost)

    in_cluster(test)


def test_a_failed_sync_ends_the_host_and_tells_everyone() -> None:
    async def test(cluster: HostCluster) -> None:
        client = await cluster.client()
        await client.put("k/x", "1")
        process = cluster.processes[NodeId("a")]
        assert process.host is not None
        process.store.fail_next()
        write = asyncio.ensure_future(client.put("k/x", "2"))
        with pytest.raises(StorageError, match="broken"):
            await process.host.closed()
        outcomes: list[IsochroneError | None] = []
        process.host.read(GROUP, KEYSPACE, encode_query(Range(b"k/x")), lambda outcome: outcomes.append(outcome.error))
        assert isinstance(outcomes[0], Unavailable)
        # The host says no more, so the others elect a leader, and the retried write takes effect once.
        assert (await write).succeeded
        assert (await client.get("k/x")).version == 2
        assert cluster.leader() in {"b", "c"}

    in_cluster(test)


def test_a_violated_invariant_in_a_turn_ends_the_host() -> None:
    async def test(cluster: HostCluster) -> None:
        process = cluster.processes[NodeId("a")]
        assert process.host is not None
        term = process.host.replicas[GROUP].core.term
        second_leader = GroupMessage(GROUP, Heartbeat(term, LogIndex(0), 1, LogIndex(0)))
        cluster.deliver(NodeId("a"), Envelope(NodeId("b"), StoreId("s-b"), Incarnation(1), (second_leader,)))
        with pytest.raises(InvariantViolation, match="and so do we"):
            await process.host.closed()
        await cluster.until(lambda: cluster.leader() in {"b", "c"})

    in_cluster(test)


def test_messages_of_an_older_incarnation_or_of_another_store_are_dropped() -> None:
    async def test(cluster: HostCluster) -> None:
        await cluster.crash("b")
        await cluster.start("b")
        await asyncio.sleep(1)
        process = cluster.processes[NodeId("a")]
        assert process.host is not None
        assert process.host.incarnations[NodeId("b")] == 2
        request = GroupMessage(GROUP, VoteRequest(Term(99), 999, Term(98), pre=False, transfer=True))  # type: ignore[arg-type]
        zombie = Envelope(NodeId("b"), StoreId("s-b"), Incarnation(1), (request,))
        term = process.host.replicas[GROUP].core.term
        cluster.deliver(NodeId("a"), zombie)
        cluster.deliver(NodeId("a"), replace(zombie, store=StoreId("other"), incarnation=Incarnation(2)))
        await asyncio.sleep(0.05)
        assert process.host.replicas[GROUP].core.term == term
        assert process.host.counters["messages_of_old_incarnations"] == 1
        assert process.host.counters["messages_of_strangers"] == 1

    in_cluster(test)


def test_a_stranger_under_a_member_s_name_does_not_shut_the_member_out() -> None:
    async def test(cluster: HostCluster) -> None:
        client = await cluster.client()
        process = cluster.processes[NodeId("a")]
        assert process.host is not None
        heartbeat = GroupMessage(GROUP, Heartbeat(Term(1), LogIndex(0), 1, LogIndex(0)))
        for store in ("copy", "s-x"):
            cluster.deliver(NodeId("a"), Envelope(NodeId("b"), StoreId(store), Incarnation(99), (heartbeat,)))
        unasked = GroupMessage(GROUP, HeartbeatResponse(Term(99), 1))
        cluster.deliver(NodeId("a"), Envelope(NodeId("x"), StoreId("s-x"), Incarnation(99), (unasked,)))
        await asyncio.sleep(0.05)
        assert process.host.counters["messages_of_strangers"] == 3
        assert process.store.crash().incarnations.get(NodeId("b"), 0) <= 1
        assert process.host.incarnations[NodeId("b")] == 1
        assert NodeId("x") not in process.host.incarnations
        await cluster.crash("a")
        await cluster.start("a")
        # Without b's votes and answers nothing would be committed.
        await cluster.crash("c")
        assert (await client.put("k/x", "1", timeout_s=20)).succeeded

    in_cluster(test)


def test_reads_wait_for_no_disk() -> None:
    async def test(cluster: HostCluster) -> None:
        client = await cluster.client()
        await client.put("k/x", "1")
        for process in cluster.processes.values():
            process.store.hold()
        write = asyncio.ensure_future(client.put("k/x", "2", timeout_s=5))
        for _ in range(10):
            assert (await client.get("k/x", timeout_s=0.1)).value == b"1"
            await asyncio.sleep(0.1)
        assert not write.done()
        for process in cluster.processes.values():
            process.store.release()
        assert (await write).succeeded

    in_cluster(test)


def test_reads_that_cannot_be_confirmed_are_bounded() -> None:
    async def test(cluster: HostCluster) -> None:
        host = cluster.processes[NodeId("a")].host
        assert host is not None and cluster.leader() == "a"
        cluster.isolate("a")
        errors: list[IsochroneError | None] = []
        query = encode_query(Range(b"k/x"))
        for _ in range(WAITING_READS_MAX + 1):
            host.read(GROUP, KEYSPACE, query, lambda outcome: errors.append(outcome.error))
        assert [type(error) for error in errors] == [QueueFull]
        await asyncio.sleep(3)
        assert len(errors) == WAITING_READS_MAX + 1
        assert {type(error) for error in errors[1:]} == {NotLeader}

    in_cluster(test)


@pytest.mark.parametrize(("count", "size_bytes"), [(QUEUED_COMMANDS_MAX, 1), (QUEUED_BYTES_MAX >> 20, 1 << 20)])
def test_commands_that_wait_are_bounded_in_number_and_in_bytes(count: int, size_bytes: int) -> None:
    async def test(cluster: HostCluster) -> None:
        host = cluster.processes[NodeId("a")].host
        assert host is not None and cluster.leader() == "a"
        ends: list[tuple[type[object], int]] = []

        def ended(outcomes: Sequence[object], _: Revision) -> None:
            ends.append((type(outcomes[0]), len(outcomes)))

        half = [bytes(size_bytes)] * (count // 2)
        for _ in range(3):
            host.write(GROUP, KEYSPACE, half, b"", Nanos(10**9), ended)
        assert ends == [(QueueFull, len(half))]
        await asyncio.sleep(3)
        assert len(ends) == 3
        host.write(GROUP, KEYSPACE, half[:1], b"", Nanos(10**9), ended)
        await asyncio.sleep(1)
        assert ends[3] == (InvalidRequest, 1), "there is room again, and it is no command"

    in_cluster(test)


def test_queries_that_came_together_are_counted_each() -> None:
    async def test(cluster: HostCluster) -> None:
        host = cluster.processes[NodeId("a")].host
        assert host is not None and cluster.leader() == "a"
        cluster.isolate("a")
        ends: list[tuple[type[object], int]] = []

        def ended(outcomes: Sequence[object], _: Revision) -> None:
            ends.append((type(outcomes[0]), len(outcomes)))

        half = [Range(b"k/x")] * (WAITING_READS_MAX // 2)
        for _ in range(3):
            host.read_all(GROUP, KEYSPACE, half, ended)
        assert ends == [(QueueFull, len(half))]
        await asyncio.sleep(3)
        assert ends[1:] == [(NotLeader, len(half))] * 2
        cluster.heal()
        await cluster.until(lambda: cluster.leader() is not None)
        leader = cluster.processes[NodeId(str(cluster.leader()))].host
        assert leader is not None
        for _ in range(4):
            leader.read_all(GROUP, KEYSPACE, half, ended)
            await asyncio.sleep(1)
        assert ends[3:] == [(tuple, len(half))] * 4

    in_cluster(test)


def test_a_new_incarnation_is_durable_before_its_messages_are_handled() -> None:
    async def test(cluster: HostCluster) -> None:
        process = cluster.processes[NodeId("a")]
        assert process.host is not None
        process.store.hold()
        request = GroupMessage(GROUP, VoteRequest(Term(99), 999, Term(98), pre=False, transfer=True))  # type: ignore[arg-type]
        cluster.deliver(NodeId("a"), Envelope(NodeId("b"), StoreId("s-b"), Incarnation(7), (request,)))
        await asyncio.sleep(0.05)
        assert process.host.replicas[GROUP].core.term < 99
        process.store.release()
        await asyncio.sleep(0.05)
        assert process.host.replicas[GROUP].core.term == 99
        assert process.store.crash().incarnations[NodeId("b")] == 7

    in_cluster(test)


def test_entries_far_ahead_of_a_follower_s_clock_are_not_taken() -> None:
    async def test(cluster: HostCluster) -> None:
        client = await cluster.client()
        await client.put("k/x", "1")
        cluster.processes[NodeId("a")].clock.offset_ms = 10_000
        with pytest.raises(Indeterminate):
            await client.put("k/x", "2", timeout_s=0.5)
        assert all(
            process.host is not None and process.host.counters["messages_ahead_of_clock"]
            for name, process in cluster.processes.items()
            if name != "a"
        )

    in_cluster(test)


@pytest.mark.parametrize("seed", range(4))
def test_a_leader_whose_clock_is_far_ahead_loses_its_office(seed: int) -> None:
    async def test(cluster: HostCluster) -> None:
        client = await cluster.client()
        await client.put("k/x", "1")
        clock = cluster.processes[NodeId("a")].clock
        clock.offset_ms = 3_600_000
        # Neither the attempts that the fast clock has stamped nor their stamps survive.
        result = await client.put("k/x", "2", timeout_s=30)
        assert result.replica in {"b", "c"}
        item = await client.get("k/x")
        assert item.version == 2
        assert item.timestamp < clock.now().earliest - 3_000_000 * MS
        clock.offset_ms = 0
        await client.put("k/x", "3", timeout_s=30)

    in_cluster(test, seed=seed)


def test_a_follower_whose_clock_is_slow_harms_nobody_and_comes_back() -> None:
    async def test(cluster: HostCluster) -> None:
        client = await cluster.client()
        await client.put("k/x", "1")
        clock = cluster.processes[NodeId("c")].clock
        clock.offset_ms = -10_000
        for number in range(20):
            assert (await client.put("k/x", str(number))).replica == "a"
            await asyncio.sleep(0.3)
        clock.offset_ms = 0
        await client.put("k/x", "last")
        await cluster.crash("b")
        assert (await client.get("k/x", timeout_s=10)).version == 22

    in_cluster(test)


def test_a_store_that_is_no_replica_is_refused() -> None:
    async def test(cluster: HostCluster) -> None:
        await cluster.crash("b")
        process = cluster.processes[NodeId("b")]
        foreign = replace(process.store.identity, store=StoreId("wiped"))
        process.store = type(process.store)(foreign, {GROUP: cluster.configuration})
        with pytest.raises(StorageError, match="rejoin as a learner"):
            await cluster.start("b")
        process.host = None

    in_cluster(test)


def test_a_witness_leads_only_to_hand_over_and_serves_nothing() -> None:
    async def test(cluster: HostCluster) -> None:
        client = await cluster.client()
        await client.put("k/x", "1")
        cluster.isolate("b")
        await client.put("k/x", "2")
        await cluster.crash("a")
        cluster.heal()
        assert (await client.get("k/x", timeout_s=20)).value == b"2"
        assert cluster.leader() == "b"
        witness = cluster.processes[NodeId("w")].host
        assert witness is not None and witness.counters["raft_relay_handed_over"] >= 1
        errors: list[IsochroneError | None] = []
        witness.read(GROUP, KEYSPACE, encode_query(Range(b"k/x")), lambda outcome: errors.append(outcome.error))
        assert isinstance(errors[0], Rejected)

    in_cluster(test, WITNESSED)


def test_state_and_dedupe_survive_a_restart_of_everyone() -> None:
    async def test(cluster: HostCluster) -> None:
        client = await cluster.client()
        for number in range(20):
            await client.put(f"k/{number % 3}", str(number))
        for name in "abc":
            await cluster.crash(name)
        for name in "abc":
            await cluster.start(name)
        assert [(await client.get(f"k/{n}", timeout_s=20)).version for n in range(3)] == [7, 7, 6]
        assert (await client.put("k/0", "again")).revision == 22

    in_cluster(test)


async def _move(cluster: HostCluster, source: str, target: str) -> Outcome:
    """Ask `source` to hand over to `target`; returns once it answers."""
    host = cluster.processes[NodeId(source)].host
    assert host is not None
    moved: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
    host.administration.transfer_leadership(GROUP, NodeId(target), moved.set_result)
    return await moved


def test_a_leader_moves_under_load_without_an_unknown_outcome() -> None:
    async def test(cluster: HostCluster) -> None:
        client = await cluster.client()
        await client.put("k/warm", "1")

        async def write(number: int) -> None:
            await asyncio.sleep(number * 0.005)
            assert (await client.put(f"k/{number % 7}", str(number))).succeeded

        writes = [asyncio.ensure_future(write(number)) for number in range(200)]
        await asyncio.sleep(0.3)
        assert (await _move(cluster, "a", "b")).error is None
        assert cluster.leader() == "b"
        await asyncio.gather(*writes)
        versions = [(await client.get(f"k/{number}")).version for number in range(7)]
        assert sum(versions) == 200, "each write has taken effect once"

    in_cluster(test)


def test_a_move_answers_what_became_of_it() -> None:
    async def test(cluster: HostCluster) -> None:
        assert (await _move(cluster, "a", "a")).error is None
        assert isinstance((await _move(cluster, "b", "c")).error, NotLeader)
        assert isinstance((await _move(cluster, "a", "nobody")).error, InvalidRequest)
        await cluster.crash("b")
        late = await _move(cluster, "a", "b")
        assert isinstance(late.error, Unavailable) and "b did not take group g over in time" in str(late.error)
        both = await asyncio.gather(_move(cluster, "a", "c"), _move(cluster, "a", "c"))
        assert [outcome.error for outcome in both] == [None, None]
        assert cluster.leader() == "c"

    in_cluster(test)


def test_a_move_that_another_replica_wins_says_so() -> None:
    async def test(cluster: HostCluster) -> None:
        # What b is told gets lost, while what an earlier transfer told c arrives late.
        cluster.cut.add(("a", "b"))
        moving = asyncio.ensure_future(_move(cluster, "a", "b"))
        await asyncio.sleep(0.2)
        late = GroupMessage(GROUP, TimeoutNow(Term(1)))
        cluster.deliver(NodeId("c"), Envelope(NodeId("a"), StoreId("s-a"), Incarnation(1), (late,)))
        outcome = await moving
        assert isinstance(outcome.error, Unavailable) and "c leads group g instead of b" in str(outcome.error)

    in_cluster(test)


def test_a_host_that_stops_answers_those_who_wait_for_a_move() -> None:
    async def test(cluster: HostCluster) -> None:
        cluster.isolate("b")
        moving = asyncio.ensure_future(_move(cluster, "a", "b"))
        await asyncio.sleep(0.1)
        await cluster.crash("a")
        assert isinstance((await moving).error, Indeterminate)

    in_cluster(test)
