"""What operators may ask of a group's members, what they are told instead, and how members look."""

import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console
from small_topology import write_topology

from isochrone.errors import InvalidRequest, Unavailable
from isochrone.ids import GroupId, Incarnation, LogIndex, NodeId, ReplicaRole, StoreId, Term, Timestamp
from isochrone.node.members import (
    GroupView,
    hand_back_notice,
    plan_add,
    plan_leave_joint,
    plan_move_leader,
    plan_promote,
    plan_remove,
    view_group,
)
from isochrone.ops.cli.member_view import members_to_plain, render_members
from isochrone.topology import Topology, load_topology
from isochrone.wire.messages import Configuration, Member
from isochrone.wire.operations import AddReplica, ChangeMembers, LeaveJoint, MoveLeader
from isochrone.wire.status import GroupStatus, MemberStatus, NodeStatus

GROUP, OTHER = GroupId("us-east-1.zone"), GroupId("eu-west-1.zone")
FULL, WITNESS, LEARNER = ReplicaRole.FULL, ReplicaRole.WITNESS, ReplicaRole.LEARNER
A, B, C, D = (NodeId(f"us-east-1{zone}-1") for zone in "abcd")
A2 = NodeId("us-east-1a-2")
SITE, EU = NodeId("us-west-2a-1"), NodeId("eu-west-1a-1")

TOPOLOGY = """
name: places
latencies: aws
regions:
  - {name: us-east-1, zones: [us-east-1a, us-east-1b, us-east-1c, us-east-1d]}
  - {name: eu-west-1, zones: [eu-west-1a, eu-west-1b, eu-west-1c]}
  - {name: us-west-2, zones: [us-west-2a], witness_site: true}
nodes:
  - {name: us-east-1a-1, zone: us-east-1a}
  - {name: us-east-1a-2, zone: us-east-1a}
  - {name: us-east-1b-1, zone: us-east-1b}
  - {name: us-east-1c-1, zone: us-east-1c}
  - {name: us-east-1d-1, zone: us-east-1d}
  - {name: eu-west-1a-1, zone: eu-west-1a}
  - {name: eu-west-1b-1, zone: eu-west-1b}
  - {name: eu-west-1c-1, zone: eu-west-1c}
  - {name: us-west-2a-1, zone: us-west-2a}
keyspaces:
  - {prefix: us/, home: us-east-1, survive: zone}
  - {prefix: eu/, home: eu-west-1, survive: zone}
clock: {source: bound, bound_ms: 5}
"""


@pytest.fixture
def topology(tmp_path: Path) -> Topology:
    """Nodes of two regions and a witness site."""
    return load_topology(write_topology(tmp_path, TOPOLOGY))


def store_of(node: NodeId) -> StoreId:
    return StoreId(f"s-{node}")


def member(node: NodeId, role: ReplicaRole | None = FULL, outgoing: ReplicaRole | None = None) -> MemberStatus:
    return MemberStatus(node, store_of(node), role, outgoing, LogIndex(90))


def told(group: GroupId, leader: NodeId | None, members: Sequence[MemberStatus], joint: bool = False) -> GroupStatus:
    return GroupStatus(
        group=group,
        role=FULL,
        leader=leader,
        term=Term(7),
        commit=LogIndex(95),
        applied=LogIndex(95),
        first=LogIndex(1),
        last=LogIndex(100),
        retained_bytes=0,
        last_timestamp=Timestamp(0),
        match={},
        relay=False,
        members=tuple(members),
        joint=joint,
    )


def view(
    topology: Topology,
    *members: MemberStatus,
    silent: Sequence[NodeId] = (),
    stores: dict[NodeId, StoreId] | None = None,
    leader: NodeId | None = A,
    joint: bool = False,
) -> GroupView:
    """The group as its leader, or else its first member, tells it, with all nodes up but some."""
    speaker = leader or members[0].node
    statuses = [
        NodeStatus(
            node=spec.id,
            region=spec.region,
            zone=spec.zone,
            store=(stores or {}).get(spec.id, store_of(spec.id)),
            incarnation=Incarnation(1),
            pid=1,
            groups=(told(GROUP, leader, members, joint),) if spec.id == speaker else (),
            counters={},
        )
        for spec in topology.nodes
        if spec.id not in silent
    ]
    return view_group(topology, statuses, GROUP)


THREE = (member(A), member(B), member(C))


def test_a_learner_is_made_on_its_node_and_then_added(topology: Topology) -> None:
    replica, change = plan_add(view(topology, *THREE), D, LEARNER)
    joins = Member(D, store_of(D), LEARNER)
    assert change == ChangeMembers(GROUP, (joins,))
    assert replica == AddReplica(GROUP, Configuration((*(Member(n, store_of(n), FULL) for n in (A, B, C)), joins)))


def test_the_store_is_what_the_node_says_now(topology: Topology) -> None:
    found = view(topology, *THREE, stores={D: StoreId("another")})
    assert plan_add(found, D, LEARNER)[1].put == (Member(D, StoreId("another"), LEARNER),)


def test_a_member_is_promoted_removed_and_made_the_leader(topology: Topology) -> None:
    found = view(topology, *THREE, member(D, LEARNER), member(A2, LEARNER))
    assert plan_promote(found, D, None) == ChangeMembers(GROUP, (Member(D, store_of(D), FULL),))
    assert plan_promote(found, A2, A) == ChangeMembers(GROUP, (Member(A2, store_of(A2), FULL),), (A,))
    assert plan_remove(found, C) == ChangeMembers(GROUP, (), (C,))
    assert plan_move_leader(found, B) == MoveLeader(GROUP, B)


def test_a_dead_member_can_be_removed(topology: Topology) -> None:
    assert plan_remove(view(topology, *THREE, silent=[C]), C).remove == (C,)


def test_a_joint_configuration_is_left_and_only_that(topology: Topology) -> None:
    half_way = view(topology, member(A, FULL, FULL), member(B, None, FULL), joint=True)
    assert plan_leave_joint(half_way) == LeaveJoint(GROUP)
    with pytest.raises(Unavailable, match=r"is half-way; .* isochrone member leave-joint us-east-1.zone"):
        plan_remove(half_way, B)
    with pytest.raises(InvalidRequest, match="in no joint configuration"):
        plan_leave_joint(view(topology, *THREE))


@pytest.mark.parametrize(
    ("node", "role", "members", "text"),
    [
        ("nobody", LEARNER, THREE, "topology places has no node nobody; it has us-east-1a-1, "),
        (B, LEARNER, THREE, "us-east-1b-1 is a full member of group us-east-1.zone already"),
        (SITE, LEARNER, THREE, "a witness site, which holds witnesses only"),
        (A2, WITNESS, THREE, "zone us-east-1a holds a voter .* already, us-east-1a-1; a zone holds at most one"),
        (D, WITNESS, (member(A), member(B), member(C, WITNESS)), "2 witnesses; allowed: fewer witnesses than any"),
    ],
)
def test_what_no_group_can_be_is_not_added(
    topology: Topology, node: str, role: ReplicaRole, members: Sequence[MemberStatus], text: str
) -> None:
    members = members if role is LEARNER or node == A2 else (*members[:1], *members[2:])
    with pytest.raises(InvalidRequest, match=text):
        plan_add(view(topology, *members), NodeId(node), role)


def test_a_node_that_does_not_run_is_not_added(topology: Topology) -> None:
    with pytest.raises(Unavailable, match="does not answer; it must run to join a group, so start it first"):
        plan_add(view(topology, *THREE, silent=[D]), D, LEARNER)


def test_a_lost_store_is_to_be_removed_from_every_group_first(topology: Topology) -> None:
    lost = {C: StoreId("new")}
    with pytest.raises(
        InvalidRequest, match=r"remove it there first: isochrone member remove us-east-1.zone us-east-1c"
    ):
        plan_add(view(topology, *THREE, stores=lost), C, LEARNER)
    removed = view(topology, member(A), member(B), stores=lost)
    elsewhere = replace(removed, foreign={OTHER: {C: store_of(C)}})
    with pytest.raises(InvalidRequest, match=r"member of eu-west-1.zone, .* isochrone member remove eu-west-1.zone"):
        plan_add(elsewhere, C, LEARNER)
    assert plan_add(removed, C, LEARNER)[1].put == (Member(C, StoreId("new"), LEARNER),)


@pytest.mark.parametrize(
    ("node", "replaced", "text"),
    [
        (D, None, "us-east-1d-1 is no member of group us-east-1.zone; members are us-east-1a-1, us-east-1b-1, "),
        (B, None, "can only promote a learner member: us-east-1b-1 is a full voter"),
        (
            A2,
            None,
            "zone us-east-1a holds a voter .* isochrone member promote us-east-1.zone NODE --in-place-of us-eas",
        ),
        (A2, B, "zone us-east-1a holds a voter"),
        (EU, A2, "us-east-1a-2 is no voter of group us-east-1.zone"),
    ],
)
def test_what_cannot_vote_is_not_promoted(topology: Topology, node: NodeId, replaced: NodeId | None, text: str) -> None:
    with pytest.raises(InvalidRequest, match=text):
        plan_promote(view(topology, *THREE, member(A2, LEARNER), member(EU, LEARNER)), node, replaced)


def test_the_last_full_voter_stays(topology: Topology) -> None:
    with pytest.raises(InvalidRequest, match="the group would have no full voter"):
        plan_remove(view(topology, member(A)), A)
    with pytest.raises(InvalidRequest, match="the group would have no full voter"):
        plan_remove(view(topology, member(A), member(B, WITNESS), member(C, LEARNER)), A)
    with pytest.raises(InvalidRequest, match="2 witnesses; allowed: fewer witnesses than any quorum"):
        plan_remove(view(topology, member(A), member(B, WITNESS), member(C, WITNESS), member(D)), D)


@pytest.mark.parametrize("gone", ["silent", "lost"])
def test_a_change_after_which_the_group_would_stop_is_refused(topology: Topology, gone: str) -> None:
    stores = {C: StoreId("new")} if gone == "lost" else {}
    found = view(topology, *THREE, member(D, LEARNER), silent=[C] if gone == "silent" else [], stores=stores)
    with pytest.raises(Unavailable, match="would have 2 voters and need 2 of them, but us-east-1c-1 does not answer"):
        plan_remove(found, B)
    assert plan_promote(found, D, None).put, "three of four voters are left"


def test_only_a_full_voter_that_answers_can_lead(topology: Topology) -> None:
    found = view(topology, member(A), member(B, WITNESS), member(C), member(D, LEARNER), silent=[C])
    for node, role in ((B, "witness"), (D, "learner")):
        with pytest.raises(InvalidRequest, match=f"is a {role} member of .* only a full voter can lead"):
            plan_move_leader(found, node)
    with pytest.raises(Unavailable, match="us-east-1c-1 does not answer"):
        plan_move_leader(found, C)


def test_a_leader_away_from_home_comes_with_a_warning(topology: Topology) -> None:
    found = view(topology, *THREE, member(EU))
    assert hand_back_notice(found, B) is None
    assert (hand_back_notice(found, EU) or "").startswith("group us-east-1.zone prefers leaders in us-east-1: ")


def test_an_unknown_group_and_one_that_nobody_tells_of_are_told_apart(topology: Topology) -> None:
    with pytest.raises(InvalidRequest, match=r"has no group nobody; it has us-east-1\.zone, eu-west-1\.zone"):
        view_group(topology, [], GroupId("nobody"))
    silent = view_group(topology, [], GROUP)
    for plan in (lambda: plan_remove(silent, A), lambda: plan_leave_joint(silent)):
        with pytest.raises(Unavailable, match=r"no node that answers has a replica of group us-east-1.zone"):
            plan()


def test_the_leader_of_the_highest_term_is_believed_and_no_relay(topology: Topology) -> None:
    def node(name: NodeId, status: GroupStatus) -> NodeStatus:
        spec = topology.node(name)
        return NodeStatus(name, spec.region, spec.zone, store_of(name), Incarnation(1), 1, (status,), {})

    old, new = told(GROUP, A, THREE), replace(told(GROUP, B, THREE[:2]), term=Term(8))
    found = view_group(topology, [node(A, old), node(B, new)], GROUP)
    assert (found.leader, len(found.members)) == (B, 2)
    relay = replace(told(GROUP, C, THREE), term=Term(9), relay=True)
    assert view_group(topology, [node(A, old), node(C, relay)], GROUP).leader == A
    assert view_group(topology, [node(C, relay)], GROUP).leader is None


def printed(found: GroupView) -> list[str]:
    console = Console(file=io.StringIO(), width=200)
    for part in render_members(found):
        console.print(part)
    assert isinstance(console.file, io.StringIO)
    return [" ".join(line.split()) for line in console.file.getvalue().splitlines()]


def test_members_are_shown_with_what_the_leader_knows_of_them(topology: Topology) -> None:
    lines = printed(view(topology, *THREE, member(D, LEARNER), silent=[B], stores={C: StoreId("new")}))
    assert "us-east-1.zone: led by us-east-1a-1" in lines
    assert "us-east-1a-1 us-east-1a s-us-east-1a-1 full leads 90 10" in lines
    assert "us-east-1b-1 us-east-1b s-us-east-1b-1 full silent 90 10" in lines
    assert "us-east-1c-1 us-east-1c s-us-east-1c-1 full lost 90 10" in lines
    assert "us-east-1d-1 us-east-1d s-us-east-1d-1 learner follows 90 10" in lines
    assert lines[-1].startswith("3 voters, of which 2 must be left: survives the loss of 1; 2 away now")


def test_the_halves_of_a_joint_configuration_are_shown(topology: Topology) -> None:
    found = view(topology, member(A, FULL, FULL), member(B, None, FULL), member(D, FULL), joint=True)
    lines = printed(found)
    assert any("full > leaves" in line for line in lines)
    assert any("joins > full" in line for line in lines)
    assert "both halves decide" in lines[-1]
    plain = members_to_plain(found)
    assert (plain["joint"], plain["leader"]) == (True, A)
    assert [(each["node"], each["role"], each["outgoing_role"]) for each in plain["members"]] == [
        (A, FULL, FULL),
        (B, None, FULL),
        (D, FULL, None),
    ]


def test_a_group_that_nobody_tells_of_is_shown_as_that(topology: Topology) -> None:
    assert printed(view_group(topology, [], GROUP))[-1] == "no node that answers has a replica of it"
