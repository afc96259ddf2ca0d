"""When a deployment is up: every group of the topology has a node that says it leads."""

from pathlib import Path

from small_topology import write_topology

from isochrone.ids import (
    GroupId,
    Incarnation,
    LogIndex,
    NodeId,
    RegionId,
    ReplicaRole,
    StoreId,
    Term,
    Timestamp,
    ZoneId,
)
from isochrone.node.deployment_ray import leaderless_groups
from isochrone.topology import load_topology
from isochrone.wire.status import GroupStatus, NodeStatus

GROUP = GroupId("us-east-1.zone")


def node_status(node: str, leader: str | None) -> NodeStatus:
    """A node with one replica that names a leader."""
    known = None if leader is None else NodeId(leader)
    zero = LogIndex(0)
    group = GroupStatus(
        GROUP, ReplicaRole.FULL, known, Term(1), zero, zero, zero, zero, 0, {}, relay=False, last_timestamp=Timestamp(0)
    )
    zone = ZoneId("us-east-1a")
    return NodeStatus(NodeId(node), RegionId("us-east-1"), zone, StoreId("s"), Incarnation(1), 1, (group,), {})


def test_a_group_is_led_when_the_leader_itself_says_so(tmp_path: Path) -> None:
    topology = load_topology(write_topology(tmp_path))
    assert leaderless_groups(topology, []) == [GROUP]
    assert leaderless_groups(topology, [node_status("a", None), node_status("b", "a")]) == [GROUP]
    assert leaderless_groups(topology, [node_status("a", "a"), node_status("b", None)]) == []
