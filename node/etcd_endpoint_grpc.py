"""A node's endpoint of etcd's API: its services put together, for one group.

The group is the one that the node's configuration names, else the first of its region that has keys. Keys and ranges
outside that group are refused with etcd's "permission denied".
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import final

from isochrone.client.client import Client
from isochrone.ids import GroupId, RegionId
from isochrone.node.clusters_os import Cluster
from isochrone.node.config import ConfigError, NodeConfig
from isochrone.node.etcd_calls_grpc import GroupCalls
from isochrone.node.etcd_cluster_grpc import ClusterCalls
from isochrone.node.etcd_group import GroupAccess
from isochrone.node.etcd_locks_grpc import LockCalls
from isochrone.node.etcd_maintenance_grpc import MaintenanceCalls
from isochrone.node.etcd_probes_grpc import HealthCalls, reflection_methods
from isochrone.node.etcd_snapshot_grpc import SnapshotCalls
from isochrone.node.etcd_watches_grpc import PATH, watch_method
from isochrone.regions.host import Host
from isochrone.topology import Topology
from isochrone.wire.etcd.answers_grpc import Speaker, numeric_id
from isochrone.wire.etcd.checks_grpc import REQUEST_BYTES_MAX
from isochrone.wire.http2.server_os import Http2Server

MESSAGE_BYTES_MAX = REQUEST_BYTES_MAX + (512 << 10)
"""Somewhat above what a request may have, so that one that is too large is told so in etcd's words."""


def served_group(topology: Topology, region: RegionId, wanted: GroupId | None) -> GroupId | None:
    """The group that an endpoint in a region speaks for; None if the region is home to none with keys.

    Raises:
        ConfigError: there is no such group as the one wanted, or no keyspace belongs to it.
    """
    with_keys = {keyspace.group for keyspace in topology.keyspaces}
    if wanted is not None:
        if wanted not in with_keys:
            raise ConfigError(f"etcd_group: found {wanted}; allowed: {', '.join(sorted(with_keys))}")
        return wanted
    return next((group.id for group in topology.groups if group.home == region and group.id in with_keys), None)


@final
class EtcdEndpoint:
    """See the module."""

    def __init__(
        self,
        config: NodeConfig,
        topology: Topology,
        group: GroupId,
        host: Host,
        connect: Callable[[], Awaitable[Client]],
    ) -> None:
        """`connect` opens a client of this cluster."""
        keyspaces = [(each.prefix, each.id) for each in topology.keyspaces if each.group == group]
        speaker = Speaker(numeric_id(f"{config.cluster}/{group}"), numeric_id(config.node))
        self._address = config.etcd_addresses[config.node]
        self._access = GroupAccess(host, config.node, group, keyspaces, connect)
        cluster = Cluster(topology, config.addresses)
        methods = {
            **GroupCalls(self._access, speaker).methods(),
            **ClusterCalls(self._access, speaker, cluster, config.etcd_addresses).methods(),
            **MaintenanceCalls(self._access, speaker).methods(),
            **LockCalls(self._access, speaker).methods(),
            **SnapshotCalls(self._access, speaker).methods(),
            PATH: watch_method(self._access, speaker),
        }
        self._health = HealthCalls(host, [each.id for each in topology.groups])
        services = dict.fromkeys(path.split("/")[1] for path in methods)
        methods |= {**self._health.methods(), **reflection_methods(services)}
        self._server = Http2Server(methods, message_bytes_max=MESSAGE_BYTES_MAX)

    @property
    def refusals(self) -> Mapping[str, int]:
        """Questions to the group that were answered with an error, by its class."""
        return self._access.refusals

    def leader_changed(self) -> None:
        """A group of this node has another leader, or none."""
        self._health.changed()

    async def start(self) -> None:
        """Listen. Raises `Unavailable` if the address cannot be listened on."""
        host, _, port = self._address.rpartition(":")
        await self._server.start(host.strip("[]"), int(port))

    async def stop(self) -> None:
        """Take no more calls, and end those under way."""
        await self._server.stop()
        await self._access.close()
