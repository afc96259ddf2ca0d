"""The status table: one row per replica that the topology names, whether its node answers or not."""

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console
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
from isochrone.ops.cli.status_view import render, replica_rows, to_plain
from isochrone.topology import Topology, load_topology
from isochrone.wire.status import GroupStatus, MemberStatus, NodeStatus

SHIPPED = Path(__file__).parents[3] / "deploy" / "topologies"
GROUP = GroupId("us-east-1.zone")
LEADER, FOLLOWER, SILENT = NodeId("us-east-1a-1"), NodeId("us-east-1b-1"), NodeId("us-east-1c-1")


@pytest.fixture
def topology(tmp_path: Path) -> Topology:
    """One region, three zones, one group."""
    return load_topology(write_topology(tmp_path))


def status_of_group(commit: int, applied: int) -> GroupStatus:
    """A replica that knows who leads."""
    return GroupStatus(
        group=GROUP,
        role=ReplicaRole.FULL,
        leader=LEADER,
        term=Term(7),
        commit=LogIndex(commit),
        applied=LogIndex(applied),
        first=LogIndex(1),
        last=LogIndex(commit),
        retained_bytes=0,
        match={},
        relay=False,
        last_timestamp=Timestamp(commit * 7_000_000),
    )


def node_status(node: NodeId, commit: int, applied: int) -> NodeStatus:
    """A node with one replica."""
    zone = ZoneId(node.removesuffix("-1"))
    return NodeStatus(
        node, RegionId("us-east-1"), zone, StoreId("s"), Incarnation(1), 1, (status_of_group(commit, applied),), {}
    )


def test_lag_is_what_a_replica_has_to_apply_up_to_the_highest_commit(topology: Topology) -> None:
    rows = replica_rows(topology, [node_status(LEADER, 100, 98), node_status(FOLLOWER, 90, 85)])
    assert [(row.node, row.leads, row.term, row.commit, row.applied, row.lag) for row in rows] == [
        (LEADER, True, 7, 100, 98, 2),
        (FOLLOWER, False, 7, 90, 85, 15),
        (SILENT, False, None, None, None, None),
    ]
    assert {(row.group, row.region, row.role) for row in rows} == {(GROUP, "us-east-1", ReplicaRole.FULL)}


COPY, COPIED = NodeId("eu-west-1a-1"), GroupId("us-east-1.zone.copy-eu-west-1")


@pytest.fixture
def copied() -> Topology:
    """Two regions, each with a learner in the other one."""
    return load_topology(SHIPPED / "async-copies.yaml")


def copied_status(node: NodeId, commit: int, match: int | None = None) -> NodeStatus:
    """A node with one replica of the group with a learner: entries are 7 ms apart. `match`: what it knows of that."""
    role = ReplicaRole.LEARNER if node == COPY else ReplicaRole.FULL
    store = StoreId("s")
    stamped = None if match is None or match < 10 else Timestamp(match * 7_000_000)
    members = () if match is None else (MemberStatus(COPY, store, ReplicaRole.LEARNER, None, LogIndex(match), stamped),)
    group = replace(status_of_group(commit, commit), group=COPIED, role=role, members=members)
    return replace(node_status(node, 0, 0), groups=(group,))


@pytest.mark.parametrize(
    ("leader", "copy", "shown"),
    [
        ((100, 88), 90, "lags by 10 entries, 70 ms"),
        ((100, 88), 100, "lags by 0 entries, 0 ms"),
        ((100, 99), None, "lags by 1 entry, 7 ms (by its leader's word: its node does not answer)"),
        ((100, 9), None, "lags by 91 entries (by its leader's word: its node does not answer)"),
        ((100, 0), None, "its lag is not known: neither its node nor a leader tells it"),
        (None, 90, "lags by 0 entries, 0 ms"),
        (None, None, "its lag is not known: neither its node nor a leader tells it"),
    ],
)
def test_the_lag_of_a_learner_is_told_by_itself_or_else_by_its_leader(
    copied: Topology, leader: tuple[int, int] | None, copy: int | None, shown: str
) -> None:
    statuses = [] if leader is None else [copied_status(LEADER, *leader)]
    statuses += [] if copy is None else [copied_status(COPY, copy)]
    assert f"learner eu-west-1a-1 in eu-west-1: {shown}" in printed(copied, statuses, 200)


def test_the_lag_of_a_learner_is_told_where_nobody_leads(copied: Topology) -> None:
    follower = copied_status(FOLLOWER, 100)
    follower = replace(follower, groups=(replace(follower.groups[0], leader=None),))
    (row,) = [each for each in replica_rows(copied, [follower, copied_status(COPY, 95)]) if each.node == COPY][:1]
    assert (row.role, row.state, row.lag, row.lag_ms) == (ReplicaRole.LEARNER, "follows", 5, 35.0)


def test_a_deposed_leader_does_not_tell_the_lag(copied: Topology) -> None:
    """Its word is old; the one of the newer term counts."""
    old, new = copied_status(LEADER, 60, 60), copied_status(FOLLOWER, 100, 80)
    new = replace(new, groups=(replace(new.groups[0], leader=FOLLOWER, term=Term(8)),))
    rows = [row for row in replica_rows(copied, [old, new]) if row.node == COPY]
    assert (rows[0].state, rows[0].lag, rows[0].lag_ms) == ("silent", 20, 140.0)


def printed(topology: Topology, statuses: list[NodeStatus], width: int) -> list[str]:
    console = Console(width=width, file=io.StringIO())
    for part in render(topology, statuses):
        console.print(part)
    assert isinstance(console.file, io.StringIO)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def test_the_table_has_a_row_for_each_replica_and_says_what_it_does(topology: Topology) -> None:
    searching = replace(node_status(FOLLOWER, 5, 4), groups=(replace(status_of_group(5, 4), leader=None),))
    lines = printed(topology, [node_status(LEADER, 5, 5), searching], 80)
    assert lines[0] == "one-region: 2 of 3 nodes answer"
    assert lines[2] == "us-east-1.zone: led by us-east-1a-1; keys us/"
    assert [line.split() for line in lines[5:]] == [
        ["us-east-1a-1", "us-east-1a", "full", "leads", "7", "5", "5", "0"],
        ["us-east-1b-1", "us-east-1b", "full", "elects", "7", "5", "4", "1"],
        ["us-east-1c-1", "us-east-1c", "full", "silent", "-", "-", "-", "-"],
    ]


def test_a_group_that_nobody_leads_says_so(topology: Topology) -> None:
    assert "us-east-1.zone: no leader; keys us/" in printed(topology, [node_status(FOLLOWER, 5, 5)], 80)


@pytest.mark.parametrize("name", ["three-regions", "two-regions-and-witness", "five-sites", "async-copies"])
def test_no_name_is_broken_at_80_columns(name: str) -> None:
    shipped = load_topology(SHIPPED / f"{name}.yaml")
    words = {word for line in printed(shipped, [], 80) for word in line.split()}
    assert {spec.id for spec in shipped.nodes if spec.id in str(shipped.groups)} <= words
    assert {spec.zone for spec in shipped.nodes if spec.id in str(shipped.groups)} <= words


def test_plain_data_holds_all_that_nodes_tell_and_who_is_silent(topology: Topology) -> None:
    addresses = {spec.id: f"127.0.0.1:{port}" for port, spec in enumerate(topology.nodes, start=7001)}
    plain = to_plain(topology, [node_status(LEADER, 5, 5), node_status(FOLLOWER, 5, 4)], addresses)
    assert plain["addresses"][FOLLOWER] == "127.0.0.1:7002"
    assert plain["unreachable"] == [SILENT]
    assert plain["nodes"][1]["groups"][0]["applied"] == 4
    assert [(row["node"], row["lag"], row["lag_ms"]) for row in json.loads(json.dumps(plain))["replicas"]] == [
        (LEADER, 0, 0.0),
        (FOLLOWER, 1, 0.0),
        (SILENT, None, None),
    ]


def test_who_has_joined_is_shown_and_who_has_left_is_not(copied: Topology) -> None:
    leader = node_status(LEADER, 100, 100)
    members = tuple(
        MemberStatus(node, StoreId("s"), role, None, None)
        for node, role in ((LEADER, ReplicaRole.FULL), (COPY, ReplicaRole.LEARNER))
    )
    told = replace(leader.groups[0], group=COPIED, members=members)
    rows = replica_rows(copied, [replace(leader, groups=(told,))])
    assert [(row.node, row.role) for row in rows if row.group == COPIED] == [
        (LEADER, ReplicaRole.FULL),
        (COPY, ReplicaRole.LEARNER),
    ]


def test_the_endpoints_of_a_group_are_told_as_etcdctl_takes_them(topology: Topology) -> None:
    def speaks(node: NodeId, port: int, group: GroupId | None) -> NodeStatus:
        return replace(node_status(node, 1, 1), etcd_address=f"127.0.0.1:{port}", etcd_group=group)

    statuses = [speaks(LEADER, 2379, GROUP), speaks(FOLLOWER, 2380, GROUP), speaks(SILENT, 2381, None)]
    assert "etcd's API: 127.0.0.1:2379,127.0.0.1:2380" in printed(topology, statuses, 200)
    assert not any("etcd" in line for line in printed(topology, [node_status(LEADER, 1, 1)], 200))
