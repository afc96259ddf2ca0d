"""Predicted latencies of a group, from the round trips alone.

With d(a, b) the round trip and Q(L, k) the round trip from L to its k-th nearest voter::

    commit = d(client, L) + Q(L, quorum - 1)
    read   = d(client, L) + Q(L, quorum - 1), and d(client, L) alone while a lease of the leader holds

where the quorum is the one that commits. Both lack the software's own time: a commit adds the sync of the log and the
work of client and leader. A witness counts in Q, for it acknowledges like any voter, but it never leads (except as a
relay, which takes no proposals). A learner counts in nothing: commits do not wait for it. What is on its way to it is
the least that it lacks.
"""

from dataclasses import dataclass

from isochrone.ids import NodeId, RegionId, ReplicaRole, ZoneId
from isochrone.topology.model import Group, Topology


@dataclass(frozen=True, slots=True)
class Prediction:
    """Latencies seen by a client in the first zone of its region while the first full voter of a region leads."""

    client_region: RegionId
    leader_region: RegionId
    leader: NodeId
    commit_ms: float
    read_ms: float
    """Of a linearizable read; where the group reads under leases, while the leader has one."""


def quorum_rtt_ms(topology: Topology, group: Group, leader: NodeId) -> float:
    """Q(L, quorum - 1): the round trip after which a leader and its nearest peers are a quorum.

    Raises:
        ValueError: `leader` is no full voter of the group.
    """
    if leader not in [voter.node for voter in group.voters() if voter.role is ReplicaRole.FULL]:
        raise ValueError(f"{leader} is no full voter of {group.id} and cannot lead it")
    home = topology.node(leader).zone
    distances = sorted(
        topology.rtt_ms(home, topology.node(voter.node).zone) for voter in group.voters() if voter.node != leader
    )
    return distances[group.commit_quorum() - 2] if group.commit_quorum() > 1 else 0.0


def predicted_commit_ms(topology: Topology, group: Group, client_zone: ZoneId, leader_node: NodeId) -> float:
    """From the client's call to its answer, for a write. Raises `ValueError` for a node that cannot lead."""
    leader_zone = topology.node(leader_node).zone
    return topology.rtt_ms(client_zone, leader_zone) + quorum_rtt_ms(topology, group, leader_node)


def predicted_read_ms(topology: Topology, group: Group, client_zone: ZoneId, leader_node: NodeId) -> float:
    """From the client's call to its answer, for a linearizable read. Raises `ValueError` like a commit's.

    A lease saves the round trip to a quorum. Without one a read differs from a write only in what is synced.
    """
    commit_ms = predicted_commit_ms(topology, group, client_zone, leader_node)
    return topology.rtt_ms(client_zone, topology.node(leader_node).zone) if group.lease_reads else commit_ms


@dataclass(frozen=True, slots=True)
class AsyncCopy:
    """A learner in another region."""

    node: NodeId
    region: RegionId
    delay_ms: float
    """The longest one-way delay to it from a replica that could lead: younger entries are on their way."""


def async_copies(topology: Topology, group: Group) -> tuple[AsyncCopy, ...]:
    """The asynchronous copies of a group, and how far they lag when all is well."""
    leaders = [topology.node(voter.node).zone for voter in group.voters() if voter.role is ReplicaRole.FULL]
    copies = [topology.node(learner.node) for learner in group.learners()]
    return tuple(
        AsyncCopy(copy.id, copy.region, max(topology.link(leader, copy.zone).delay_ms for leader in leaders))
        for copy in copies
    )


def predictions(topology: Topology, group: Group) -> tuple[Prediction, ...]:
    """One for each region of clients and each region that could lead, in the order of the file."""
    leaders: dict[RegionId, NodeId] = {}
    for voter in group.voters():
        if voter.role is ReplicaRole.FULL:
            leaders.setdefault(topology.node(voter.node).region, voter.node)
    return tuple(
        Prediction(
            client.id,
            leader_region,
            leader,
            predicted_commit_ms(topology, group, client.zones[0], leader),
            predicted_read_ms(topology, group, client.zones[0], leader),
        )
        for client in topology.regions
        for leader_region, leader in leaders.items()
    )
