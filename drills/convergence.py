"""When do all replicas match? A pure reading of what the nodes say of themselves."""

from collections.abc import Iterable, Sequence

from isochrone.ids import GroupId, NodeId
from isochrone.topology.model import Group, Topology
from isochrone.wire.status import GroupStatus, NodeStatus


def leader_of(statuses: Iterable[NodeStatus], group: GroupId) -> NodeId | None:
    """Who leads a group, by the newest term in which a replica says that it leads itself; None if none does."""
    leaders = [
        (replica.term, status.node)
        for status in statuses
        for replica in status.groups
        if replica.group == group and replica.leader == status.node
    ]
    return max(leaders)[1] if leaders else None


def mismatch(topology: Topology, statuses: Sequence[NodeStatus]) -> str | None:
    """The first thing that differs between the replicas of a group, in words; None when all match.

    Replicas match when every node answers, one of them leads, all are in its term, and all hold, have committed
    and have applied the same last entry.
    """
    answering = {status.node for status in statuses}
    silent = [node.id for node in topology.nodes if node.id not in answering]
    if silent:
        return f"{', '.join(silent)} gave no status"
    return next((text for group in topology.groups if (text := _group_mismatch(group, statuses))), None)


def _group_mismatch(group: Group, statuses: Sequence[NodeStatus]) -> str | None:
    leader = leader_of(statuses, group.id)
    if leader is None:
        return f"group {group.id} has no leader"
    replicas = {status.node: found for status in statuses if (found := _replica(status, group.id)) is not None}
    lead = replicas[leader]
    for replica in group.replicas:
        found = replicas.get(replica.node)
        if found is None:
            return f"{replica.node} does not host its replica of group {group.id}"
        if (found.term, found.leader) != (lead.term, leader):
            return f"{replica.node} does not follow {leader}, the leader of group {group.id}"
        if (found.last, found.commit, found.applied) != (lead.last, lead.last, lead.last):
            return (
                f"{replica.node} holds entries of group {group.id} up to {found.last}, has committed {found.commit} "
                f"and applied {found.applied}; its leader {leader} holds {lead.last}"
            )
    return None


def _replica(status: NodeStatus, group: GroupId) -> GroupStatus | None:
    return next((replica for replica in status.groups if replica.group == group), None)
