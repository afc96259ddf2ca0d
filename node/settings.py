"""What a node reads from its topology: the settings of its groups, the routes of clients, the first configurations.

Pure, so that every way to run a node derives the same: real processes, and the simulated world.
"""

from collections.abc import Mapping

from isochrone.ids import NS_PER_MS, Nanos, NodeId, StoreId
from isochrone.regions.loading import GroupSettings
from isochrone.regions.office import CompactionRule
from isochrone.regions.raft.config import RaftConfig
from isochrone.topology import Group, Topology
from isochrone.wire.messages import Configuration, Member
from isochrone.wire.session import KeyspaceRoute, Place


def group_settings(topology: Topology, node: NodeId, group: Group) -> GroupSettings:
    """What the host of `node` must know of a group."""
    raft = RaftConfig(
        group=group.id,
        node=node,
        heartbeat_ns=Nanos(group.heartbeat_ms * NS_PER_MS),
        election_timeout_ns=Nanos(group.election_timeout_ms * NS_PER_MS),
        preferred_leaders=tuple(each.id for each in topology.nodes if each.region == group.home),
        lease_reads=group.lease_reads,
        clock_drift_ppm_max=topology.clock.drift_max_ppm,
        quiesce_after_ns=Nanos(group.election_timeout_ms * NS_PER_MS),
    )
    return GroupSettings(
        raft=raft,
        keyspaces=tuple(keyspace.id for keyspace in topology.keyspaces if keyspace.group == group.id),
        compaction=CompactionRule(
            age_ms=(group.compaction.keep_seconds or 0) * 1_000, revisions=group.compaction.keep_revisions or 0
        ),
        campaign_first=group.replicas[0].node == node,
    )


def places(topology: Topology, addresses: Mapping[NodeId, str]) -> dict[NodeId, Place]:
    """Where every node is, and how clients reach it."""
    return {node.id: (addresses[node.id], node.region, node.zone) for node in topology.nodes}


def routes(topology: Topology, addresses: Mapping[NodeId, str]) -> tuple[KeyspaceRoute, ...]:
    """The directory as of the bootstrap, from the topology."""
    known = places(topology, addresses)
    groups = {group.id: group for group in topology.groups}
    return tuple(
        KeyspaceRoute(
            keyspace.id,
            keyspace.prefix,
            keyspace.group,
            tuple((replica.node, *known[replica.node], replica.role) for replica in groups[keyspace.group].replicas),
        )
        for keyspace in topology.keyspaces
    )


def first_configuration(group: Group, stores: Mapping[NodeId, StoreId]) -> Configuration:
    """A group's configuration at bootstrap, for the store ids that were drawn."""
    members = tuple(sorted(Member(each.node, stores[each.node], each.role) for each in group.replicas))
    return Configuration(members, quorums=group.quorums)
