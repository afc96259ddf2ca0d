"""Changes of a group's members as operators ask for them: what to ask of whom, and what is refused beforehand. Pure.

The leader judges every change by the rules of Raft when it is asked (`regions.raft.changes` and `membership`). What is
refused here is what the leader cannot know, or would let happen: nodes that the topology does not have, a zone that
would hold two voters, a group whose quorum would be dead as soon as it is formed.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from isochrone.errors import InvalidRequest, Unavailable
from isochrone.ids import GroupId, NodeId, ReplicaRole, StoreId
from isochrone.regions.raft.changes import changed_members
from isochrone.topology.model import NodeSpec, Topology
from isochrone.wire.configurations import check_configuration, resolved_sizes
from isochrone.wire.messages import Configuration, Member, QuorumSizes
from isochrone.wire.operations import AddReplica, ChangeMembers, LeaveJoint, MoveLeader
from isochrone.wire.status import GroupStatus, MemberStatus, NodeStatus

_VOTING = (ReplicaRole.FULL, ReplicaRole.WITNESS)


@dataclass(frozen=True, slots=True)
class GroupView:
    """A group as the nodes that answer tell it."""

    topology: Topology
    group: GroupId
    leader: NodeId | None
    """Who leads it and takes requests."""
    told: GroupStatus | None
    """By the leader, else by whoever knows most; None where nobody who answers has a replica."""
    stores: dict[NodeId, StoreId]
    """The store of every node that answers."""
    foreign: dict[GroupId, dict[NodeId, StoreId]]
    """Members of other groups, by what their leaders or best replicas tell."""

    @property
    def members(self) -> tuple[MemberStatus, ...]:
        """Everyone in the configuration in force, in order of name; none where nobody tells it."""
        return () if self.told is None else self.told.members

    def member(self, node: NodeId) -> MemberStatus | None:
        """One of them."""
        return next((member for member in self.members if member.node == node), None)

    def answers(self, member: MemberStatus | Member) -> bool:
        """Whether a member's node answers, with the store that makes it this member."""
        return self.stores.get(member.node) == member.store


def view_group(topology: Topology, statuses: Sequence[NodeStatus], group: GroupId) -> GroupView:
    """What is known of a group. Raises `InvalidRequest` for one that the topology does not have."""
    known = [each.id for each in topology.groups]
    if group not in known:
        raise InvalidRequest(f"topology {topology.name} has no group {group}; it has {', '.join(known)}")
    told = {each: _best_told(statuses, each) for each in known}
    leader, best = told[group]
    foreign = {
        each: {member.node: member.store for member in status.members}
        for each, (_, status) in told.items()
        if each != group and status is not None
    }
    return GroupView(topology, group, leader, best, {each.node: each.store for each in statuses}, foreign)


def _best_told(statuses: Sequence[NodeStatus], group: GroupId) -> tuple[NodeId | None, GroupStatus | None]:
    """Who leads a group, and its status there; without a leader, the status of the replica that knows most."""
    replicas = [(status.node, each) for status in statuses for each in status.groups if each.group == group]
    leading = [(each.term, node, each) for node, each in replicas if each.leader == node and not each.relay]
    if leading:
        _, leader, status = max(leading, key=lambda item: item[:2])
        return leader, status
    best = max(replicas, key=lambda item: (item[1].term, item[1].commit, item[0]), default=None)
    return None, None if best is None else best[1]


def plan_add(view: GroupView, node: NodeId, role: ReplicaRole) -> tuple[AddReplica, ChangeMembers]:
    """What to ask of `node`, and then of the leader, so that the node becomes a learner or a witness."""
    spec = _known_node(view, node)
    store = view.stores.get(node)
    if store is None:
        raise Unavailable(f"node {node} does not answer; it must run to join a group, so start it first")
    _refuse_present(view, node, store)
    if role is ReplicaRole.WITNESS:
        _refuse_second_voter(view, spec, ())
    elif view.topology.region(spec.region).witness_site:
        raise InvalidRequest(f"node {node} stands in {spec.region}, a witness site, which holds witnesses only")
    member = Member(node, store, role)
    members = _planned(view, (member,), ())
    return AddReplica(view.group, Configuration(members, quorums=_told(view).quorums)), _change(view, (member,), ())


def plan_promote(view: GroupView, node: NodeId, replaced: NodeId | None) -> ChangeMembers:
    """What to ask of the leader so that a learner becomes a full voter, in the place of `replaced` if that is given."""
    spec = _known_node(view, node)
    member = _known_member(view, node)
    if member.role is not ReplicaRole.LEARNER:
        was = "a member that is being removed" if member.role is None else f"a {member.role} voter"
        raise InvalidRequest(f"can only promote a learner member: {node} is {was} of group {view.group}")
    if view.topology.region(spec.region).witness_site:
        raise InvalidRequest(f"node {node} stands in {spec.region}, a witness site, which holds witnesses only")
    removed: tuple[NodeId, ...] = ()
    if replaced is not None:
        if _known_member(view, replaced).role not in _VOTING:
            raise InvalidRequest(f"{replaced} is no voter of group {view.group}, so there is no place of it to take")
        removed = (replaced,)
    _refuse_second_voter(view, spec, removed)
    return _change(view, (Member(node, member.store, ReplicaRole.FULL),), removed)


def plan_remove(view: GroupView, node: NodeId) -> ChangeMembers:
    """What to ask of the leader so that a member leaves."""
    _known_member(view, node)
    return _change(view, (), (node,))


def plan_leave_joint(view: GroupView) -> LeaveJoint:
    """What to ask of the leader so that a joint configuration is left for the one that it leads to."""
    if not _told(view).joint:
        raise InvalidRequest(f"group {view.group} is in no joint configuration")
    return LeaveJoint(view.group)


def plan_move_leader(view: GroupView, target: NodeId) -> MoveLeader:
    """What to ask of the leader so that another member leads."""
    member = _known_member(view, target)
    if member.role is not ReplicaRole.FULL:
        role = member.role or "leaving"
        raise InvalidRequest(f"{target} is a {role} member of group {view.group}; only a full voter can lead")
    if not view.answers(member):
        raise Unavailable(f"node {target} does not answer, so it cannot take over")
    return MoveLeader(view.group, target)


def hand_back_notice(view: GroupView, target: NodeId) -> str | None:
    """A word of warning where the topology wants the leader elsewhere."""
    home = view.topology.group(view.group).home
    if view.topology.node(target).region == home:
        return None
    return f"group {view.group} prefers leaders in {home}: {target} hands back as soon as one there has caught up"


def voters_and_quorum(members: Sequence[Member], quorums: QuorumSizes) -> tuple[int, int]:
    """How many voters there are, and how many of them must be left for the group to go on."""
    voters = sum(member.role in _VOTING for member in members)
    sizes = resolved_sizes(quorums, voters)
    return voters, max(sizes.commit, sizes.election)


# ---- what is refused


def _told(view: GroupView) -> GroupStatus:
    if view.told is None:
        raise Unavailable(f"no node that answers has a replica of group {view.group}")
    return view.told


def _known_node(view: GroupView, node: NodeId) -> NodeSpec:
    spec = next((each for each in view.topology.nodes if each.id == node), None)
    if spec is None:
        known = ", ".join(each.id for each in view.topology.nodes)
        raise InvalidRequest(f"topology {view.topology.name} has no node {node}; it has {known}")
    return spec


def _known_member(view: GroupView, node: NodeId) -> MemberStatus:
    _known_node(view, node)
    _told(view)
    member = view.member(node)
    if member is None:
        names = ", ".join(each.node for each in view.members)
        raise InvalidRequest(f"{node} is no member of group {view.group}; members are {names}")
    return member


def _refuse_present(view: GroupView, node: NodeId, store: StoreId) -> None:
    """Refuse a node that is a member, here or elsewhere, as the owner of a store that it no longer has."""
    _told(view)
    member = view.member(node)
    if member is not None and member.store == store:
        role = f"a {member.role}" if member.role else "a leaving"
        raise InvalidRequest(f"{node} is {role} member of group {view.group} already")
    elsewhere = [group for group, stores in sorted(view.foreign.items()) if stores.get(node, store) != store]
    groups = [view.group, *elsewhere] if member is not None else elsewhere
    if groups:
        commands = "; ".join(f"isochrone member remove {group} {node}" for group in groups)
        raise InvalidRequest(
            f"{node} has another store now ({store}) than the one with which it is a member of "
            f"{', '.join(groups)}, whose nodes do not talk to it; remove it there first: {commands}"
        )


def _refuse_second_voter(view: GroupView, spec: NodeSpec, removed: Sequence[NodeId]) -> None:
    """A zone is what may be lost as a whole, so a second voter in one would make the group weaker, not stronger."""
    for member in view.members:
        voter = member.role in _VOTING and member.node not in (spec.id, *removed)
        if voter and _zone_of(view, member.node) == spec.zone:
            raise InvalidRequest(
                f"zone {spec.zone} holds a voter of group {view.group} already, {member.node}; a zone holds at most "
                f"one. To let a learner take its place: isochrone member promote {view.group} NODE --in-place-of "
                f"{member.node}"
            )


def _zone_of(view: GroupView, node: NodeId) -> str | None:
    return next((each.zone for each in view.topology.nodes if each.id == node), None)


def _change(view: GroupView, put: tuple[Member, ...], remove: tuple[NodeId, ...]) -> ChangeMembers:
    """The request, unless the group could not go on with the members that it asks for."""
    if _told(view).joint:
        raise Unavailable(
            f"a change of the members of group {view.group} is half-way; it ends by itself if the group has its "
            f"quorums, and otherwise by: isochrone member leave-joint {view.group}"
        )
    members = _planned(view, put, remove)
    voters, quorum = voters_and_quorum(members, _told(view).quorums)
    silent = [each.node for each in members if each.role in _VOTING and not view.answers(each)]
    if voters - len(silent) < quorum:
        raise Unavailable(
            f"group {view.group} would have {voters} voters and need {quorum} of them, but {', '.join(silent)} "
            f"{'does' if len(silent) == 1 else 'do'} not answer: it would stop. Bring them back, or remove them first"
        )
    return ChangeMembers(view.group, put, remove)


def _planned(view: GroupView, put: tuple[Member, ...], remove: tuple[NodeId, ...]) -> tuple[Member, ...]:
    current = tuple(Member(each.node, each.store, each.role) for each in view.members if each.role is not None)
    members = changed_members(current, put, remove)
    check_configuration(Configuration(members, quorums=_told(view).quorums))
    return members
