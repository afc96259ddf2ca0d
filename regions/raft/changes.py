"""Changes of membership as pure arithmetic: from a configuration to the one that is appended, and who is what in it.

Rules (Ongaro's thesis, section 4.3, after etcd's form of it):
- Whatever changes voters or the sizes of their quorums goes through a joint configuration, in which both halves decide.
  Learners come and go by a single entry.
- A voter that is demoted stays a voter of the outgoing half until the joint configuration is left.
- A full voter begins as a learner, and is promoted when it has caught up. A witness needs no such step: it stores no
  state, and counts for nothing before it holds the log.
- A replica keeps state or it does not, for as long as it is a member: between witness and the other roles there is no
  way but to remove the member and to add it anew.
- A member is a node with one particular store, which never changes in place.
"""

from collections.abc import Mapping, Sequence

from isochrone.errors import InvalidRequest
from isochrone.ids import LogIndex, NodeId, ReplicaRole, StoreId
from isochrone.ports import LoggedConfiguration, StoredGroup
from isochrone.wire.configurations import check_configuration
from isochrone.wire.messages import Configuration, Member, QuorumSizes


def all_members(configuration: Configuration) -> dict[NodeId, Member]:
    """Everyone in either half, in order of name. In a joint configuration an outgoing voter counts as what it was."""
    by_node = {member.node: member for member in (*configuration.members, *configuration.outgoing)}
    return dict(sorted(by_node.items()))


def voting_members(members: Sequence[Member]) -> tuple[Member, ...]:
    """Those that vote, in order of name."""
    return tuple(sorted(member for member in members if member.role is not ReplicaRole.LEARNER))


def planned_change(
    current: Configuration, members: Sequence[Member], quorums: QuorumSizes, *, auto_leave: bool
) -> Configuration:
    """The configuration to append so that the group comes to consist of `members`.

    Raises:
        InvalidRequest: no group can be so, or not from here, or nothing would change; says why.
    """
    target = Configuration(tuple(sorted(members)), quorums=quorums)
    check_configuration(target)
    before = {member.node: member for member in current.members}
    for member in target.members:
        _check_transition(before.get(member.node), member)
    if (frozenset(target.members), quorums) == (frozenset(current.members), current.quorums):
        raise InvalidRequest("the group consists of these members already")
    outgoing = voting_members(current.members)
    if (voting_members(target.members), quorums) == (outgoing, current.quorums):
        return target
    return Configuration(target.members, outgoing, quorums, current.quorums, auto_leave)


def _check_transition(before: Member | None, after: Member) -> None:
    node = after.node
    if before is None:
        if after.role is ReplicaRole.FULL:
            raise InvalidRequest(f"{node} cannot become a full voter at once: it joins as a learner and is promoted")
        return
    if before.store != after.store:
        raise InvalidRequest(
            f"{node} is a member with store {before.store}; with store {after.store} it is another replica: "
            "remove the member first"
        )
    if before.role is not after.role and ReplicaRole.WITNESS in (before.role, after.role):
        raise InvalidRequest(
            f"{node} cannot turn from {before.role} to {after.role} in place, as a witness keeps no state: "
            "remove the member, then add it anew"
        )


def left_configuration(joint: Configuration) -> Configuration:
    """What follows a joint configuration."""
    return Configuration(joint.members, quorums=joint.quorums)


def promoted(current: Configuration, target: Configuration) -> tuple[NodeId, ...]:
    """The learners of `current` that vote in `target`."""
    learners = {member.node for member in current.members if member.role is ReplicaRole.LEARNER}
    return tuple(member.node for member in voting_members(target.members) if member.node in learners)


def standing(
    history: Sequence[LoggedConfiguration], node: NodeId, store: StoreId, commit: LogIndex
) -> ReplicaRole | None:
    """What `node` with `store` is to a replica that knows these configurations and this commit index; None: no member.

    A replica that is catching up may know only what its node was with the store that it had before.
    A voter that a configuration removes or demotes remains what it was until that configuration is known to be
    committed: it may hold the longest log, without which nobody could be elected (openraft#2091).
    """
    for logged in reversed(history):
        role = _role_in(logged.configuration, node, store)
        if votes_as(role):
            return role
        if logged.index <= commit:
            break
    return _role_in(history[-1].configuration, node, store)


def _role_in(configuration: Configuration, node: NodeId, store: StoreId) -> ReplicaRole | None:
    member = all_members(configuration).get(node)
    return member.role if member is not None and member.store == store else None


def full_voters(history: Sequence[LoggedConfiguration], commit: LogIndex) -> tuple[NodeId, ...]:
    """The full voters of the configuration in force, and of those that may yet come back in its place."""
    found: dict[NodeId, None] = {}
    for logged in reversed(history):
        members = all_members(logged.configuration).values()
        found.update((member.node, None) for member in members if member.role is ReplicaRole.FULL)
        if logged.index <= commit:
            break
    return tuple(found)


def role_or_former(role: ReplicaRole | None, *, keeps_state: bool) -> ReplicaRole:
    """A replica that is no member goes on as what it can be without a vote."""
    if role is not None:
        return role
    return ReplicaRole.LEARNER if keeps_state else ReplicaRole.WITNESS


def votes_as(role: ReplicaRole | None) -> bool:
    """Whether a replica of this standing has a vote."""
    return role in (ReplicaRole.FULL, ReplicaRole.WITNESS)


def history_of(stored: StoredGroup) -> list[LoggedConfiguration]:
    """All configurations known of a group, the oldest first; the last one is in force."""
    return [LoggedConfiguration(stored.truncated_index, stored.configuration), *stored.configurations]


def keeps_state(stored: StoredGroup, node: NodeId) -> bool:
    """Whether a replica stores the state beside the log: all do but witnesses, and those that were witnesses.

    What a witness has dropped from its log it has never applied. Before anything is dropped the replica is what it was
    made as: what the log says of its node may be about the store that the node had before, or make a learner of one
    that was a witness.
    """
    if stored.truncated_index:
        return stored.applied >= stored.truncated_index
    named = (all_members(logged.configuration).get(node) for logged in history_of(stored))
    first = next((member for member in named if member is not None), None)
    return first is None or first.role is not ReplicaRole.WITNESS


def changed_members(members: Sequence[Member], put: Sequence[Member], remove: Sequence[NodeId]) -> tuple[Member, ...]:
    """Members with some added or changed, and some removed. Raises `InvalidRequest` for one that is not there."""
    by_node: Mapping[NodeId, Member] = {member.node: member for member in members}
    for node in remove:
        if node not in by_node:
            raise InvalidRequest(f"{node} is no member of the group")
    kept = {node: member for node, member in by_node.items() if node not in remove}
    return tuple(sorted({**kept, **{member.node: member for member in put}}.values()))
