"""A node's endpoint of etcd's API: its services put together, for one group.

The group is the one that the node's configuration names, else the first with keys whose home is the node's region, else
the first with keys that has a full replica there. An endpoint without a group answers probes only. Keys and ranges
outside that group are refused with the code "permission denied" and the reason.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import final

from isochrone.client.client import Client
from isochrone.ids import GroupId, NodeId, RegionId, ReplicaRole
from isochrone.node.clusters_os import Cluster
from isochrone.node.config import NodeConfig, check_etcd_group
from isochrone.node.etcd_auth_grpc import auth_methods
from isochrone.node.etcd_calls_grpc import GroupCalls
from isochrone.node.etcd_cluster_grpc import ClusterCalls
from isochrone.node.etcd_group import GroupAccess
from isochrone.node.etcd_locks_grpc import LockCalls
from isochrone.node.etcd_maintenance_grpc import MaintenanceCalls
from isochrone.node.etcd_probes_grpc import HealthCalls, reflection_methods
from isochrone.node.etcd_snapshot_grpc import SnapshotCalls
from isochrone.node.etcd_watches_grpc import PATH, watch_method
from isochrone.regions.host import Host
from isochrone.topology import Replica, Topology
from isochrone.wire.budget import Budget
from isochrone.wire.etcd.answers_grpc import Speaker, numeric_id
from isochrone.wire.etcd.checks_grpc import REQUEST_BYTES_MAX
from isochrone.wire.http2.calls import Methods
from isochrone.wire.http2.departures_os import Departures
from isochrone.wire.http2.server_os import Http2Server

MESSAGE_BYTES_MAX = REQUEST_BYTES_MAX + (512 << 10)
"""Somewhat above what a request may have, so that one that is too large is told so in etcd's words."""


def served_group(topology: Topology, region: RegionId, wanted: GroupId | None) -> GroupId | None:
    """The group that an endpoint in a region speaks for; None if the region holds the keys of none.

    Raises:
        ConfigError: there is no such group as the one wanted, or no keyspace belongs to it.
    """
    if wanted is not None:
        check_etcd_group(topology, wanted)
        return wanted
    with_keys = {keyspace.group for keyspace in topology.keyspaces}
    groups = [group for group in topology.groups if group.id in with_keys]
    at_home = [group.id for group in groups if group.home == region]
    held = [group.id for group in groups if any(_holds_keys(topology, region, each) for each in group.replicas)]
    return next(iter(at_home + held), None)


def _holds_keys(topology: Topology, region: RegionId, replica: Replica) -> bool:
    return replica.role is ReplicaRole.FULL and topology.node(replica.node).region == region


def speaking_for(config: NodeConfig, topology: Topology, group: GroupId) -> dict[NodeId, str]:
    """Where nodes speak for a group, if they are configured as this one."""
    return {
        node.id: config.etcd_addresses[node.id]
        for node in topology.nodes
        if node.id in config.etcd_addresses and served_group(topology, node.region, config.etcd_group) == group
    }


@final
class EtcdEndpoint:
    """See the module."""

    def __init__(
        self,
        config: NodeConfig,
        topology: Topology,
        host: Host,
        store_bytes: Callable[[], int],
        connect: Callable[[], Awaitable[Client]],
        budget: Budget,
        departures: Departures,
    ) -> None:
        """Make an endpoint that does not listen yet.

        Args:
            config: of the node.
            topology: of the cluster.
            host: of the node.
            store_bytes: tells the size of the node's store.
            connect: opens a client of this cluster.
            budget: of what all clients together may make the node keep.
            departures: decide when answers leave.

        Raises:
            ConfigError: as `served_group`.
        """
        self.address = config.etcd_addresses[config.node]
        """`host:port` where it listens."""
        self.group = served_group(topology, config.region, config.etcd_group)
        """The group that it speaks for, if any."""
        self._access: GroupAccess | None = None
        methods: Methods = {}
        if self.group is not None:
            keyspaces = [(each.prefix, each.id) for each in topology.keyspaces if each.group == self.group]
            self._access = GroupAccess(host, config.node, self.group, keyspaces, connect)
            methods = _services(self._access, config, topology, store_bytes)
        self._health = HealthCalls(host, [each.id for each in topology.groups])
        services = dict.fromkeys(path.split("/")[1] for path in methods)
        methods = {**methods, **auth_methods(), **self._health.methods(), **reflection_methods(services)}
        self._server = Http2Server(methods, message_bytes_max=MESSAGE_BYTES_MAX, budget=budget, departures=departures)

    @property
    def refusals(self) -> Mapping[str, int]:
        """Questions to the group that were answered with an error, by its class."""
        return {} if self._access is None else self._access.refusals

    def leader_changed(self) -> None:
        """A group of this node has another leader, or none."""
        self._health.changed()

    async def start(self) -> None:
        """Listen. Raises `Unavailable` if the address cannot be listened on."""
        host, _, port = self.address.rpartition(":")
        await self._server.start(host.strip("[]"), int(port))

    async def stop(self) -> None:
        """Take no more calls, and end those under way."""
        await self._server.stop()
        if self._access is not None:
            await self._access.close()


def _services(access: GroupAccess, config: NodeConfig, topology: Topology, store_bytes: Callable[[], int]) -> Methods:
    """Everything that asks the group."""
    speaker = Speaker(numeric_id(f"{config.cluster}/{access.group}"), numeric_id(config.node))
    cluster = Cluster(topology, config.addresses)
    client_addresses = speaking_for(config, topology, access.group)
    return {
        **GroupCalls(access, speaker).methods(),
        **ClusterCalls(access, speaker, cluster, client_addresses).methods(),
        **MaintenanceCalls(access, speaker, store_bytes).methods(),
        **LockCalls(access, speaker).methods(),
        **SnapshotCalls(access, speaker).methods(),
        PATH: watch_method(access, speaker),
    }
