"""Compaction, the log cap and snapshots with production hosts, stores and SDK: nobody lacks what was dropped."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest
from host_cluster import GROUP, KEYSPACE, HostCluster
from virtual_time import run_virtual

from isochrone.client import Client
from isochrone.errors import IsochroneError, Unavailable
from isochrone.ids import Nanos, NodeId, ReplicaRole
from isochrone.regions.replica import Replica
from isochrone.regions.requests import Outcome, alone
from isochrone.regions.state.machine import GroupState
from isochrone.regions.watch_hub import WatchRequest
from isochrone.wire.commands import decode_result, encode_query
from isochrone.wire.kv import Range, RangeResult
from isochrone.wire.messages import Member
from isochrone.wire.records import decode_record
from isochrone.wire.status import GroupStatus

FULL, WITNESS, LEARNER = ReplicaRole.FULL, ReplicaRole.WITNESS, ReplicaRole.LEARNER
WITH_LEARNER = {"a": FULL, "b": FULL, "c": FULL, "l": LEARNER}
SMALL = {"truncate_entries_min": 4, "keep_entries": 8, "snapshot_chunk_bytes": 400}


def in_cluster(
    test: Callable[[HostCluster], Awaitable[None]], roles: dict[str, ReplicaRole], seed: int = 1, **raft: int
) -> None:
    async def main() -> None:
        cluster = HostCluster(roles, seed, **raft)
        await cluster.start_all()
        await cluster.until(lambda: cluster.leader() is not None)
        await test(cluster)
        await cluster.stop_all()

    run_virtual(main())


def replica(cluster: HostCluster, name: str) -> Replica:
    host = cluster.processes[NodeId(name)].host
    assert host is not None
    return host.replicas[GROUP]


def status(cluster: HostCluster, name: str) -> GroupStatus:
    return replica(cluster, name).status()


def state(cluster: HostCluster, name: str) -> tuple[object, object]:
    machine = replica(cluster, name).machine
    assert isinstance(machine, GroupState)
    return machine.revision, machine.data.keyspaces


async def write(client: Client, count: int, prefix: str = "k/x", size: int = 20) -> None:
    for number in range(count):
        await client.put(f"{prefix}{number % 40}", f"{number}".rjust(size))


async def equal_states(cluster: HostCluster, *names: str) -> None:
    leader = cluster.leader()
    assert leader is not None
    await cluster.until(lambda: all(status(cluster, n).applied == status(cluster, leader).last for n in names))
    for name in names:
        assert state(cluster, name) == state(cluster, leader), name


async def learner_left_behind(cluster: HostCluster, client: Client) -> None:
    """The learner is down until no log reaches down to its own."""
    await write(client, 10)
    await cluster.until(lambda: status(cluster, "l").applied > 10)
    await cluster.crash("l")
    await asyncio.sleep(3)
    await write(client, 120)
    await asyncio.sleep(1)
    last = (await cluster.processes[NodeId("l")].store.load(GROUP)).last_index
    assert all(status(cluster, name).first > last + 1 for name in "abc")


def count(cluster: HostCluster, name: str, event: str) -> int:
    host = cluster.processes[NodeId(name)].host
    assert host is not None
    return host.counters[f"raft_{event}"]


async def outcome_of(call: Callable[[Callable[[Outcome], None]], None]) -> Outcome:
    """What a host answers; raises its error."""
    answer: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
    call(answer.set_result)
    outcome = await answer
    if outcome.error is not None:
        raise outcome.error
    return outcome


async def read_at(cluster: HostCluster, leader: str, key: str) -> bytes:
    """A linearizable read at a node that leads."""
    host = cluster.processes[NodeId(leader)].host
    assert host is not None
    outcome = await outcome_of(lambda done: host.read(GROUP, KEYSPACE, encode_query(Range(key.encode())), done))
    result = decode_result(outcome.payload)
    assert isinstance(result, RangeResult)
    found = result.items[0] if result.items else None
    assert found is not None
    return found.value


def test_a_learner_catches_up_by_a_snapshot_and_can_then_lead_and_answer() -> None:
    async def test(cluster: HostCluster) -> None:
        client = await cluster.client()
        await learner_left_behind(cluster, client)
        await cluster.start("l")
        await equal_states(cluster, "l", "b", "c")
        assert count(cluster, "l", "snapshot_installed") == 1
        await write(client, 30, "k/y")
        await equal_states(cluster, "l", "b", "c")
        await cluster.crash("l")
        await cluster.start("l")
        await equal_states(cluster, "l")
        learner = next(member for member in cluster.configuration.members if member.node == "l")
        host = cluster.processes[NodeId(cluster.leader() or "")].host
        assert host is not None
        full = replace(learner, role=FULL)
        await outcome_of(
            lambda done: host.administration.change_membership(GROUP, put=(full,), remove=(), quorums=None, done=done)
        )
        await cluster.until(lambda: not replica(cluster, "l").core.configuration.joint)
        await outcome_of(lambda done: host.administration.transfer_leadership(GROUP, NodeId("l"), done))
        assert cluster.leader() == "l"
        for number in range(40):
            assert int(await read_at(cluster, "l", f"k/x{number}")) == 80 + number

    in_cluster(test, WITH_LEARNER, **SMALL)


def test_a_learner_that_its_group_sleeps_without_gets_its_snapshot_when_it_returns() -> None:
    """Nothing is written when it returns: the nodes' heartbeats alone tell that it is back."""

    async def test(cluster: HostCluster) -> None:
        client = await cluster.client()
        await learner_left_behind(cluster, client)
        await cluster.until(lambda: all(replica(cluster, name).core.quiescent for name in "abc"))
        known = next(member for member in status(cluster, "a").members if member.node == "l")
        assert 0 < known.match < status(cluster, "a").first - 1, "its lag is known, and nothing is kept for it"
        await cluster.start("l")
        await equal_states(cluster, "l")
        assert count(cluster, "l", "snapshot_installed") == 1
        await cluster.until(lambda: all(replica(cluster, name).core.quiescent for name in "abcl"))
        lead, own = status(cluster, "a"), status(cluster, "l")
        known = next(member for member in lead.members if member.node == "l")
        assert (known.match, own.last_timestamp) == (lead.last, lead.last_timestamp)
        assert known.match_timestamp in (None, lead.last_timestamp)

    in_cluster(test, WITH_LEARNER, **SMALL)


def test_a_new_node_joins_a_group_whose_log_begins_late() -> None:
    async def test(cluster: HostCluster) -> None:
        client = await cluster.client()
        await write(client, 100)
        await asyncio.sleep(1)
        leader = cluster.leader() or ""
        host = cluster.processes[NodeId(leader)].host
        assert host is not None and status(cluster, leader).first > 20
        learner: Member = cluster.new_process("n")
        await cluster.start("n")
        await outcome_of(
            lambda done: host.administration.change_membership(
                GROUP, put=(learner,), remove=(), quorums=None, done=done
            )
        )
        joined = cluster.processes[NodeId("n")].host
        assert joined is not None
        await joined.add_replica(GROUP, replica(cluster, leader).core.configuration)
        await equal_states(cluster, "n")
        assert count(cluster, "n", "snapshot_installed") == 1

    in_cluster(test, {"a": FULL, "b": FULL, "c": FULL}, **SMALL)


def test_at_the_log_cap_writes_are_refused_for_a_voter_that_is_down_and_go_on_when_it_is_back() -> None:
    """W3."""

    async def test(cluster: HostCluster) -> None:
        client = await cluster.client()
        await write(client, 10)
        await asyncio.sleep(1)
        await cluster.crash("b")
        last = (await cluster.processes[NodeId("b")].store.load(GROUP)).last_index
        leader = cluster.leader() or ""
        while status(cluster, leader).retained_bytes < 20_000:
            await write(client, 1, size=300)
        host = cluster.processes[NodeId(cluster.leader() or "")].host
        assert host is not None
        refusals: list[Outcome] = []
        for _ in range(10):
            host.write(GROUP, KEYSPACE, (bytes(500),), b"", Nanos(10**9), alone(refusals.append))
        await cluster.until(lambda: bool(refusals))
        assert any(
            isinstance(r.error, Unavailable) and "log cap" in str(r.error) and " b," in str(r.error) for r in refusals
        )
        await asyncio.sleep(60)
        assert status(cluster, cluster.leader() or "").first <= last + 1
        await cluster.start("b")
        await cluster.until(lambda: status(cluster, cluster.leader() or "").retained_bytes < 10_000)
        await write(client, 20)
        await equal_states(cluster, "b")

    in_cluster(
        test,
        {"a": FULL, "b": FULL, "w": WITNESS},
        **SMALL,
        keep_bytes=2_000,
        truncate_bytes_min=1_000,
        log_bytes_max=20_000,
    )


def test_rows_that_wait_for_a_write_are_void_when_a_snapshot_takes_their_place() -> None:
    """A heartbeat lets the learner apply what it had stored; then the whole snapshot comes in one chunk."""

    async def test(cluster: HostCluster) -> None:
        client = await cluster.client()
        await learner_left_behind(cluster, client)
        await cluster.start("l")
        await cluster.until(lambda: bool(replica(cluster, "l").core.status().applied))
        await equal_states(cluster, "l")
        assert count(cluster, "l", "snapshot_installed") == 1
        await cluster.crash("l")
        await cluster.start("l")
        await equal_states(cluster, "l")

    in_cluster(test, WITH_LEARNER, **{**SMALL, "snapshot_chunk_bytes": 1 << 20})


@pytest.mark.parametrize("seed", range(6))
def test_whatever_happens_on_the_way_the_learner_ends_with_the_state_of_the_others(seed: int) -> None:
    async def test(cluster: HostCluster) -> None:
        rng = random.Random(f"snapshots/{seed}")
        client = await cluster.client()
        await learner_left_behind(cluster, client)
        for round_ in range(3):
            if round_:
                await cluster.crash("l")
                await asyncio.sleep(3)
                await write(client, 60, f"k/r{round_}")
            await cluster.start("l")
            cluster.loss = rng.choice([0.0, 0.1])
            for _ in range(rng.randrange(4)):
                await asyncio.sleep(rng.choice([0.03, 0.06, 0.2]))
                victim = rng.choice(["l", "l", cluster.leader() or "l"])
                store = cluster.processes[NodeId(victim)].store
                store.hold()
                await asyncio.sleep(rng.choice([0.02, 0.1]))
                await cluster.crash(victim, keep=rng.randrange(store.pending + 1))
                await cluster.start(victim)
            cluster.heal()
            try:
                await write(client, 5)
            except IsochroneError:
                pass  # lost with its leader, or not: the states must agree all the same
            await cluster.until(lambda: cluster.leader() is not None)
            await asyncio.sleep(3)
            await equal_states(cluster, "a", "b", "c", "l")
        stored = await cluster.processes[NodeId("l")].store.load(GROUP)
        assert stored.base_timestamp > 0, "it had a snapshot"

    in_cluster(test, WITH_LEARNER, seed, **SMALL)


def test_a_watch_at_a_replica_that_installs_a_snapshot_misses_nothing() -> None:
    async def test(cluster: HostCluster) -> None:
        client = await cluster.client()
        host = cluster.processes[NodeId("l")].host
        assert host is not None
        woken: list[int] = []
        watch = host.watch(GROUP, WatchRequest(b"k/", b"k0"), lambda: woken.append(1))
        await write(client, 10)
        await cluster.until(lambda: status(cluster, "l").applied > 10)
        cluster.isolate("l")
        await write(client, 120)
        await asyncio.sleep(1)
        cluster.heal()
        await equal_states(cluster, "l")
        assert count(cluster, "l", "snapshot_installed") == 1
        await write(client, 5)
        await equal_states(cluster, "l")
        revisions: list[int] = []
        while (batch := watch.take()) is not None:
            revisions += [decode_record(event.record).mod_revision for event in batch.events]
        assert revisions == list(range(2, 137))

    in_cluster(test, WITH_LEARNER, **SMALL)
