"""What a run's options make of its topology: reads under leases, other sizes of quorums, another preferred leader."""

from dataclasses import replace

from isochrone.drills.sim.options import SimOptions
from isochrone.ids import NodeId, ReplicaRole
from isochrone.topology.model import Group, Topology
from isochrone.wire.configurations import quorum_faults
from isochrone.wire.messages import QuorumSizes


def varied(topology: Topology, options: SimOptions) -> Topology:
    """The topology as a run with these options has it."""
    if not options.lease_reads and not options.quorum_shift:
        return topology
    groups = tuple(
        replace(
            group,
            lease_reads=group.lease_reads or options.lease_reads,
            quorums=_shifted(group, options.quorum_shift) if options.quorum_shift else group.quorums,
        )
        for group in topology.groups
    )
    return replace(topology, groups=groups)


def _shifted(group: Group, shift: int) -> QuorumSizes:
    """So many replicas more than a majority commit, and as many elect as that takes; as it was if that is unsound."""
    voters = len(group.voters())
    majority = voters // 2 + 1
    commit = min(max(majority + shift, 1), voters)
    sizes = QuorumSizes(commit, max(majority, voters + 1 - commit))
    witnesses = sum(replica.role is ReplicaRole.WITNESS for replica in group.replicas)
    return group.quorums if any(quorum_faults(sizes, voters, witnesses)) else sizes


def preferred_one(group: Group) -> NodeId:
    """The last full voter; the first one campaigns first, so it has to hand over."""
    return [replica.node for replica in group.replicas if replica.role is ReplicaRole.FULL][-1]
