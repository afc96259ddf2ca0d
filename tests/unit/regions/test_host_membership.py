"""Members come and go while production hosts serve: new replicas on running nodes, removed ones, restarts between."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest
from host_cluster import CLUSTER, GROUP, KEYSPACE, HostCluster
from virtual_time import run_virtual

from isochrone.errors import InvalidRequest, LeadershipLost, NotLeader, StorageError, Unavailable
from isochrone.ids import GroupId, Incarnation, NodeId, ReplicaRole, StoreId
from isochrone.ports import StoreIdentity
from isochrone.regions.host import Host
from isochrone.regions.requests import Outcome
from isochrone.regions.storage.memory import MemoryStore
from isochrone.wire.commands import decode_result, encode_query
from isochrone.wire.kv import Range, RangeResult
from isochrone.wire.messages import Configuration, Member, QuorumSizes
from isochrone.wire.status import GroupStatus

FULL, WITNESS, LEARNER = ReplicaRole.FULL, ReplicaRole.WITNESS, ReplicaRole.LEARNER
THREE = {"a": FULL, "b": FULL, "c": FULL}


def in_cluster(test: Callable[[HostCluster], Awaitable[None]], roles: dict[str, ReplicaRole] = THREE) -> None:
    async def main() -> None:
        cluster = HostCluster(roles)
        await cluster.start_all()
        await cluster.until(lambda: cluster.leader() == "a")
        await asyncio.sleep(1)
        await test(cluster)
        await cluster.stop_all()

    run_virtual(main())


def host_of(cluster: HostCluster, name: str) -> Host:
    host = cluster.processes[NodeId(name)].host
    assert host is not None
    return host


def status_of(cluster: HostCluster, name: str) -> GroupStatus:
    return host_of(cluster, name).replicas[GROUP].status()


async def change(
    cluster: HostCluster, leader: str, *put: Member, remove: tuple[str, ...] = (), quorums: QuorumSizes | None = None
) -> None:
    """Change the group's members at a node; raises what the node answers."""
    answer: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
    gone = tuple(NodeId(name) for name in remove)
    host_of(cluster, leader).administration.change_membership(
        GROUP, put=put, remove=gone, quorums=quorums, done=answer.set_result
    )
    outcome = await answer
    if outcome.error is not None:
        raise outcome.error


async def read(cluster: HostCluster, leader: str, key: str) -> bytes | None:
    """A linearizable read at a node that leads."""
    answer: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
    host_of(cluster, leader).read(GROUP, KEYSPACE, encode_query(Range(key.encode())), answer.set_result)
    outcome = await answer
    assert outcome.error is None, outcome.error
    result = decode_result(outcome.payload)
    assert isinstance(result, RangeResult)
    found = result.items[0] if result.items else None
    return None if found is None else found.value


async def add_learner(cluster: HostCluster, name: str) -> Member:
    """A new node with a replica that has caught up."""
    learner = cluster.new_process(name)
    await cluster.start(name)
    await change(cluster, "a", learner)
    configuration = host_of(cluster, "a").replicas[GROUP].core.configuration
    await host_of(cluster, name).add_replica(GROUP, configuration)
    await cluster.until(lambda: status_of(cluster, name).applied == status_of(cluster, "a").applied)
    return learner


def roles_in(status: GroupStatus) -> dict[str, ReplicaRole | None]:
    return {member.node: member.role for member in status.members}


def test_a_node_joins_as_a_learner_is_promoted_and_takes_the_place_of_another() -> None:
    async def test(cluster: HostCluster) -> None:
        client = await cluster.client()
        await client.put("k/x", "1")
        learner = await add_learner(cluster, "d")
        await asyncio.sleep(1)
        status = status_of(cluster, "a")
        lag = {member.node: status.last - (member.match or 0) for member in status.members}
        assert (roles_in(status)["d"], lag["d"]) == (LEARNER, 0)
        await change(cluster, "a", replace(learner, role=FULL), remove=("c",))
        assert roles_in(status_of(cluster, "a")) == {"a": FULL, "b": FULL, "d": FULL}
        await asyncio.sleep(1)
        assert roles_in(status_of(cluster, "c")) == {"a": FULL, "b": FULL, "d": FULL}, "the removed one must know"
        await cluster.crash("b")
        await client.put("k/y", "2")
        await cluster.crash("a")
        await cluster.start("b")
        await cluster.until(lambda: cluster.leader() in ("b", "d"))
        leader = cluster.leader()
        assert leader is not None
        assert [await read(cluster, leader, key) for key in ("k/x", "k/y")] == [b"1", b"2"]

    in_cluster(test)


def test_a_leader_that_removes_itself_answers_and_hands_over() -> None:
    async def test(cluster: HostCluster) -> None:
        client = await cluster.client()
        await client.put("k/x", "1")
        await change(cluster, "a", remove=("a",), quorums=None)
        await cluster.until(lambda: cluster.leader() in ("b", "c"), limit_s=1)
        assert (await client.get("k/x")).value == b"1"
        await client.put("k/y", "2")

    in_cluster(test)


def test_a_removed_replica_restarts_and_stays_quiet() -> None:
    async def test(cluster: HostCluster) -> None:
        client = await cluster.client()
        await change(cluster, "a", remove=("c",))
        await asyncio.sleep(1)
        await cluster.crash("c")
        await cluster.start("c")
        term = status_of(cluster, "a").term
        await client.put("k/x", "1")
        await asyncio.sleep(20)
        assert (cluster.leader(), status_of(cluster, "a").term) == ("a", term)
        assert host_of(cluster, "c").counters["raft_became_pre_candidate"] == 0
        assert roles_in(status_of(cluster, "c")) == {"a": FULL, "b": FULL}

    in_cluster(test)


def test_a_configuration_outlives_the_restart_of_every_node() -> None:
    async def test(cluster: HostCluster) -> None:
        client = await cluster.client()
        await add_learner(cluster, "d")
        await client.put("k/x", "1")
        for name in "abcd":
            await cluster.crash(name)
        for name in "abcd":
            await cluster.start(name)
        await cluster.until(lambda: cluster.leader() is not None)
        for name in "abcd":
            assert roles_in(status_of(cluster, name)) == {"a": FULL, "b": FULL, "c": FULL, "d": LEARNER}
        assert (await client.get("k/x")).value == b"1"

    in_cluster(test)


def test_a_witness_joins_at_once_and_keeps_no_state() -> None:
    async def test(cluster: HostCluster) -> None:
        client = await cluster.client()
        witness = replace(cluster.new_process("w"), role=WITNESS)
        await cluster.start("w")
        current = host_of(cluster, "a").replicas[GROUP].core.configuration
        target = Configuration((current.members[0], current.members[1], witness))
        await host_of(cluster, "w").add_replica(GROUP, target)
        await change(cluster, "a", witness, remove=("c",))
        assert host_of(cluster, "w").replicas[GROUP].machine is None
        await cluster.crash("b")
        await client.put("k/x", "1")
        assert status_of(cluster, "w").last == status_of(cluster, "a").last

    in_cluster(test)


def test_a_removed_witness_that_restarts_applies_nothing_and_can_come_back() -> None:
    """Its log may still be whole, so that it could begin to apply it; but then it could be no witness any more."""

    async def test(cluster: HostCluster) -> None:
        client = await cluster.client()
        await client.put("k/x", "1")
        witness = Member(NodeId("w"), StoreId("s-w"), WITNESS)
        await change(cluster, "a", remove=("w",))
        await asyncio.sleep(1)
        await cluster.crash("w")
        await cluster.start("w")
        assert host_of(cluster, "w").replicas[GROUP].machine is None
        await client.put("k/x", "2")
        await change(cluster, "a", witness)
        await cluster.crash("b")
        await client.put("k/x", "3")
        await cluster.crash("w")
        await cluster.start("w")
        await client.put("k/x", "4")
        assert status_of(cluster, "w").last == status_of(cluster, "a").last
        assert host_of(cluster, "w").replicas[GROUP].machine is None

    in_cluster(test, {"a": FULL, "b": FULL, "w": WITNESS})


def test_what_cannot_be_is_refused_at_once() -> None:
    async def test(cluster: HostCluster) -> None:
        with pytest.raises(NotLeader):
            await change(cluster, "b", remove=("c",))
        with pytest.raises(InvalidRequest, match="no member"):
            await change(cluster, "a", remove=("z",))
        with pytest.raises(InvalidRequest, match="need not meet"):
            await change(cluster, "a", quorums=QuorumSizes(1, 2))
        answer: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        host_of(cluster, "a").administration.leave_joint(GROUP, answer.set_result)
        assert isinstance((await answer).error, Unavailable)

    in_cluster(test)


def test_whoever_waits_for_a_change_learns_that_the_leader_lost_its_office() -> None:
    async def test(cluster: HostCluster) -> None:
        cluster.isolate("a")
        pending = asyncio.ensure_future(change(cluster, "a", remove=("c",)))
        await asyncio.sleep(0.1)
        with pytest.raises(Unavailable, match="under way"):
            await change(cluster, "a", remove=("b",))
        with pytest.raises(LeadershipLost):
            await pending
        cluster.heal()
        await cluster.until(lambda: cluster.leader() is not None)
        await asyncio.sleep(2)
        assert roles_in(status_of(cluster, "a")) == THREE

    in_cluster(test)


def test_a_host_that_stops_says_that_the_outcome_is_unknown() -> None:
    async def test(cluster: HostCluster) -> None:
        cluster.isolate("a")
        pending = asyncio.ensure_future(change(cluster, "a", remove=("c",)))
        await asyncio.sleep(0.1)
        await host_of(cluster, "a").stop()
        with pytest.raises(LeadershipLost):
            await pending

    in_cluster(test)


@pytest.mark.parametrize(
    ("group", "member", "reason"),
    [
        (GroupId("other"), Member(NodeId("d"), StoreId("s-d"), LEARNER), "no group"),
        (GROUP, Member(NodeId("d"), StoreId("another"), LEARNER), "no member"),
        (GROUP, Member(NodeId("d"), StoreId("s-d"), FULL), "learner"),
    ],
)
def test_a_replica_is_made_only_where_the_configuration_wants_it(group: GroupId, member: Member, reason: str) -> None:
    async def test(cluster: HostCluster) -> None:
        cluster.new_process("d")
        await cluster.start("d")
        configuration = Configuration((*cluster.configuration.members, member))
        with pytest.raises(InvalidRequest, match=reason):
            await host_of(cluster, "d").add_replica(group, configuration)
        assert host_of(cluster, "d").group_statuses() == ()

    in_cluster(test)


def test_a_replica_that_is_there_is_not_made_again() -> None:
    async def test(cluster: HostCluster) -> None:
        await add_learner(cluster, "d")
        before = status_of(cluster, "d")
        await host_of(cluster, "d").add_replica(GROUP, host_of(cluster, "a").replicas[GROUP].core.configuration)
        assert status_of(cluster, "d") == before

    in_cluster(test)


def test_a_node_under_another_store_is_not_a_member_when_it_comes_back() -> None:
    async def test(cluster: HostCluster) -> None:
        await cluster.crash("c")
        process = cluster.processes[NodeId("c")]
        identity = StoreIdentity(CLUSTER, NodeId("c"), StoreId("wiped"), Incarnation(1))
        process.store = MemoryStore(identity, {GROUP: cluster.configuration})
        with pytest.raises(StorageError, match="rejoin as a learner"):
            await cluster.start("c")
        process.host = None

    in_cluster(test)


@pytest.mark.parametrize(("before", "after"), [(WITNESS, LEARNER), (FULL, WITNESS)])
def test_a_removed_replica_comes_back_only_as_what_its_store_can_be(before: ReplicaRole, after: ReplicaRole) -> None:
    async def test(cluster: HostCluster) -> None:
        await change(cluster, "a", remove=("d",))
        current = host_of(cluster, "a").replicas[GROUP].core.configuration

        def with_d(role: ReplicaRole) -> Configuration:
            return replace(current, members=(*current.members, Member(NodeId("d"), StoreId("s-d"), role)))

        with pytest.raises(InvalidRequest, match=f"so it cannot join as {after}; choose another node, or give"):
            await host_of(cluster, "d").add_replica(GROUP, with_d(after))
        await host_of(cluster, "d").add_replica(GROUP, with_d(WITNESS if before is WITNESS else LEARNER))

    in_cluster(test, {**THREE, "d": before})
