"""Finds the nodes of a cluster by its directory, and asks them how they are. Needs no Ray.

A directory of `isochrone up` tells by its run file what runs. One of `isochrone bootstrap` holds the addresses in the
nodes' configurations; whether they run, only the nodes can tell.
"""

import asyncio
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from isochrone.errors import DeadlineExceeded, Unavailable
from isochrone.ids import NodeId
from isochrone.node.files_os import load_config
from isochrone.node.layout import Layout
from isochrone.topology import Topology, load_topology
from isochrone.wire.admin_grpc import AdminClient
from isochrone.wire.status import NodeStatus

STATUS_TIMEOUT_S = 1.0


@dataclass(frozen=True, slots=True)
class Cluster:
    """Where the nodes of a cluster are."""

    topology: Topology
    addresses: Mapping[NodeId, str] = field(hash=False)
    """`host:port` of every node of the topology."""

    async def statuses(self) -> tuple[NodeStatus, ...]:
        """The nodes that answer, in the topology's order; the others are left out."""
        asked = (_status(self.addresses[spec.id]) for spec in self.topology.nodes)
        return tuple(status for status in await asyncio.gather(*asked) if status is not None)


def find_cluster(directory: Path) -> Cluster:
    """Find the cluster that was brought up, or bootstrapped, in `directory`.

    Raises:
        Unavailable: nothing runs there, and nothing was bootstrapped to run as plain processes.
        StorageError: its files cannot be read.
        ConfigError: the configuration of a node is wrong.
    """
    layout = Layout(Path(os.path.abspath(directory)))
    if not layout.run.exists():
        cluster = _of_processes(layout)
        if cluster is not None:
            return cluster
    from isochrone.node.deployment_ray import attach

    deployment = attach(directory)
    return Cluster(deployment.topology, deployment.addresses)


def _of_processes(layout: Layout) -> Cluster | None:
    if not layout.bootstrap_record.exists():
        return None
    topology = load_topology(layout.topology)
    files = [file for spec in topology.nodes if (file := layout.node_config(spec.id)).exists()]
    configs = [config for file in files if not (config := load_config(file)).local]
    return Cluster(topology, configs[0].addresses) if configs else None


async def _status(address: str) -> NodeStatus | None:
    try:
        async with AdminClient(address) as admin:
            return await admin.status(STATUS_TIMEOUT_S)
    except (Unavailable, DeadlineExceeded):
        return None
