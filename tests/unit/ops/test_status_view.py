"""The status table: one row per replica that the topology names, whether its node answers or not."""

from pathlib import Path

import pytest
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
    ZoneId,
)
from isochrone.ops.cli.status_view import render, replica_rows, to_plain
from isochrone.topology import Topology, load_topology
from isochrone.wire.status import GroupStatus, NodeStatus

GROUP = GroupId("us-east-1.zone")
LEADER, FOLLOWER, SILENT = NodeId("us-east-1a-1"), NodeId("us-east-1b-1"), NodeId("us-east-1c-1")


@pytest.fixture
def topology(tmp_path: Path) -> Topology:
    """One region, three zones, one group."""
    return load_topology(write_topology(tmp_path))


def node_status(node: NodeId, commit: int, applied: int) -> NodeStatus:
    """A node with one replica, which knows who leads."""
    group = GroupStatus(
        group=GROUP,
        role=ReplicaRole.FULL,
        leader=LEADER,
        term=Term(7),
        commit=LogIndex(commit),
        applied=LogIndex(applied),
        first=LogIndex(1),
        last=LogIndex(commit),
        match={},
        relay=False,
    )
    zone = ZoneId(node.removesuffix("-1"))
    return NodeStatus(node, RegionId("us-east-1"), zone, StoreId("s"), Incarnation(1), 1, (group,), {})


def test_lag_is_what_a_replica_has_to_apply_up_to_the_highest_commit(topology: Topology) -> None:
    rows = replica_rows(topology, [node_status(LEADER, 100, 98), node_status(FOLLOWER, 90, 85)])
    assert [(row.node, row.leads, row.term, row.commit, row.applied, row.lag) for row in rows] == [
        (LEADER, True, 7, 100, 98, 2),
        (FOLLOWER, False, 7, 90, 85, 15),
        (SILENT, False, None, None, None, None),
    ]
    assert {(row.group, row.region, row.role) for row in rows} == {(GROUP, "us-east-1", ReplicaRole.FULL)}


def test_the_table_has_a_row_for_a_node_that_does_not_answer(topology: Topology) -> None:
    table = render(topology, [node_status(LEADER, 5, 5)])
    assert table.row_count == 3
    assert [str(cell) for cell in table.columns[5].cells] == ["leads", "no answer", "no answer"]
    assert [str(cell) for cell in table.columns[9].cells] == ["0", "-", "-"]


def test_plain_data_holds_all_that_nodes_tell_and_who_is_silent(topology: Topology) -> None:
    plain = to_plain(topology, [node_status(LEADER, 5, 5), node_status(FOLLOWER, 5, 4)])
    assert plain["unreachable"] == [SILENT]
    assert plain["nodes"][1]["groups"][0]["applied"] == 4
