"""What operators are told of a replica."""

from isochrone.ids import GroupId
from isochrone.regions.raft.changes import all_members
from isochrone.regions.raft.status import RaftStatus
from isochrone.wire.status import GroupStatus, MemberStatus


def group_status(group: GroupId, status: RaftStatus) -> GroupStatus:
    """A replica's state, from that of its core."""
    return GroupStatus(
        group=group,
        role=status.role,
        leader=status.leader,
        term=status.term,
        commit=status.commit,
        applied=status.applied,
        first=status.first,
        last=status.last,
        retained_bytes=status.retained_bytes,
        match=status.match,
        relay=status.relay,
        last_timestamp=status.last_timestamp,
        members=_member_statuses(status),
        joint=status.configuration.joint,
        configuration_committed=status.configuration_committed,
        quorums=status.configuration.quorums,
    )


def _member_statuses(status: RaftStatus) -> tuple[MemberStatus, ...]:
    roles = {member.node: member.role for member in status.configuration.members}
    outgoing = {member.node: member.role for member in status.configuration.outgoing}
    return tuple(
        MemberStatus(
            node,
            member.store,
            roles.get(node),
            outgoing.get(node),
            status.match.get(node),
            status.peers[node].match_timestamp if node in status.peers else None,
        )
        for node, member in all_members(status.configuration).items()
    )
