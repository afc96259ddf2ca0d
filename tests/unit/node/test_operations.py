"""Operators' requests at a running node: done when final, refused by whom, and undecided when the leader is lost."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest
from host_cluster import GROUP, HostCluster
from virtual_time import run_virtual

from isochrone.errors import InvalidRequest, LeadershipLost, NotLeader, Unavailable
from isochrone.ids import GroupId, NodeId, ReplicaRole
from isochrone.node.operations import operate
from isochrone.regions.host import Host
from isochrone.wire.messages import Configuration, Member
from isochrone.wire.operations import AddReplica, ChangeMembers, LeaveJoint, MoveLeader

A, B, C, D = map(NodeId, "abcd")


def in_cluster(test: Callable[[HostCluster], Awaitable[None]]) -> None:
    async def main() -> None:
        cluster = HostCluster(dict.fromkeys("abc", ReplicaRole.FULL))
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


def configuration(cluster: HostCluster, name: str = "a") -> Configuration:
    return host_of(cluster, name).replicas[GROUP].core.configuration


async def add_learner(cluster: HostCluster) -> Member:
    """A fourth node joins, as the command line has it: first the replica, then the change."""
    learner = cluster.new_process("d")
    await cluster.start("d")
    joined = replace(configuration(cluster), members=(*configuration(cluster).members, learner))
    await operate(host_of(cluster, "d"), AddReplica(GROUP, joined))
    await operate(host_of(cluster, "a"), ChangeMembers(GROUP, (learner,)))
    return learner


def match_of(cluster: HostCluster, leader: str, node: NodeId) -> bool:
    status = host_of(cluster, leader).replicas[GROUP].status()
    return status.match.get(node) == status.last


def test_a_node_is_added_promoted_made_the_leader_and_serves_clients_that_knew_nothing_of_it() -> None:
    async def test(cluster: HostCluster) -> None:
        client = await cluster.client()
        await client.put("k/x", "1")
        learner = await add_learner(cluster)
        await cluster.until(lambda: match_of(cluster, "a", D))
        await operate(host_of(cluster, "a"), ChangeMembers(GROUP, (replace(learner, role=ReplicaRole.FULL),)))
        await operate(host_of(cluster, "a"), MoveLeader(GROUP, D))
        assert cluster.leader() == "d"
        result = await client.get("k/x", timeout_s=5)
        assert (result.value, result.replica) == (b"1", D)
        await asyncio.sleep(1)
        for gone in (A, B):
            await operate(host_of(cluster, "d"), ChangeMembers(GROUP, remove=(gone,)))
        await cluster.crash("a")
        await cluster.crash("b")
        await client.put("k/y", "2", timeout_s=5)

    in_cluster(test)


def test_a_client_that_knows_only_former_members_finds_those_of_today() -> None:
    """All that the topology names have left the group; one of them still runs, and a new client asks it."""

    async def test(cluster: HostCluster) -> None:
        learner = await add_learner(cluster)
        await cluster.until(lambda: match_of(cluster, "a", D))
        await operate(host_of(cluster, "a"), ChangeMembers(GROUP, (replace(learner, role=ReplicaRole.FULL),)))
        await operate(host_of(cluster, "a"), MoveLeader(GROUP, D))
        await asyncio.sleep(1)
        await operate(host_of(cluster, "d"), ChangeMembers(GROUP, remove=(A, B, C)))
        await asyncio.sleep(5)
        for name in "bc":
            await cluster.crash(name)
        client = await cluster.client()
        await client.put("k/x", "1", timeout_s=5)
        assert (await client.get("k/x", timeout_s=5)).replica == D

    in_cluster(test)


def test_a_call_that_reaches_a_node_without_a_replica_goes_on_elsewhere() -> None:
    async def test(cluster: HostCluster) -> None:
        cluster.new_process("d")
        await cluster.start("d")
        with pytest.raises(NotLeader, match="no leader is known"):
            await operate(host_of(cluster, "d"), ChangeMembers(GROUP, remove=(C,)))
        with pytest.raises(InvalidRequest, match="the topology has no group nobody"):
            await operate(host_of(cluster, "a"), LeaveJoint(GroupId("nobody")))

    in_cluster(test)


def test_followers_name_the_leader_and_the_leader_names_what_is_wrong() -> None:
    async def test(cluster: HostCluster) -> None:
        for operation in (ChangeMembers(GROUP, remove=(C,)), MoveLeader(GROUP, C), LeaveJoint(GROUP)):
            with pytest.raises(NotLeader) as refused:
                await operate(host_of(cluster, "b"), operation)
            assert refused.value.leader == A
        with pytest.raises(InvalidRequest, match="d is no member of the group"):
            await operate(host_of(cluster, "a"), ChangeMembers(GROUP, remove=(D,)))
        with pytest.raises(InvalidRequest, match="not a full voter"):
            await operate(host_of(cluster, "a"), MoveLeader(GROUP, D))
        with pytest.raises(Unavailable, match="in no joint configuration"):
            await operate(host_of(cluster, "a"), LeaveJoint(GROUP))

    in_cluster(test)


def test_a_learner_that_is_not_in_sync_is_not_promoted() -> None:
    async def test(cluster: HostCluster) -> None:
        learner = await add_learner(cluster)
        cluster.isolate("d")
        client = await cluster.client()
        await client.put("k/x", "1")
        await asyncio.sleep(5)
        promote = ChangeMembers(GROUP, (replace(learner, role=ReplicaRole.FULL),))
        with pytest.raises(Unavailable, match="can only promote a learner member which is in sync with leader"):
            await operate(host_of(cluster, "a"), promote)
        cluster.heal()
        await cluster.until(lambda: match_of(cluster, "a", D))
        await operate(host_of(cluster, "a"), promote)

    in_cluster(test)


def test_a_change_whose_leader_is_cut_off_is_undecided() -> None:
    async def test(cluster: HostCluster) -> None:
        cluster.isolate("a")
        with pytest.raises(LeadershipLost):
            await operate(host_of(cluster, "a"), ChangeMembers(GROUP, remove=(C,)))
        cluster.heal()
        await cluster.until(lambda: cluster.leader() in ("b", "c"))
        leader = cluster.leader()
        assert leader is not None
        assert len(configuration(cluster, leader).members) == 3

    in_cluster(test)


def test_an_operator_who_goes_away_changes_nothing_about_what_was_asked() -> None:
    async def test(cluster: HostCluster) -> None:
        asking = asyncio.ensure_future(operate(host_of(cluster, "a"), ChangeMembers(GROUP, remove=(C,))))
        await asyncio.sleep(0)
        asking.cancel()
        await asyncio.sleep(2)
        assert [member.node for member in configuration(cluster).members] == [A, B]

    in_cluster(test)
