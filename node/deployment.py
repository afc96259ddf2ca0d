"""Control over a running deployment: what drills and the command line ask of it.

`node.deployment_ray` implements it for Ray; everything that crosses to the nodes goes over their admin channel.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from isochrone.ids import NodeId, RegionId
from isochrone.node.links import Links
from isochrone.topology import Topology
from isochrone.wire.status import NodeStatus


class Deployment(Protocol):
    """A running deployment. Every call is idempotent.

    Calls that change something raise `Unavailable` when the process that should do it does not answer or did not
    get it done in time; what was asked may then have happened or may still happen.
    """

    @property
    def topology(self) -> Topology:
        """The topology as bootstrapped."""

    @property
    def addresses(self) -> Mapping[NodeId, str]:
        """`host:port` of every node, for clients and peers."""

    @property
    def directory(self) -> Path:
        """Where the deployment keeps its files."""

    async def status(self) -> tuple[NodeStatus, ...]:
        """The nodes that answer, in the topology's order; the others are left out. Needs no Ray."""

    async def kill_node(self, node: NodeId) -> None:
        """Kill a node with SIGKILL and keep it down. Returns when its process is gone."""

    async def start_node(self, node: NodeId) -> None:
        """Let a node that was killed run again, on its own data. Returns when it listens."""

    async def pause_node(self, node: NodeId) -> None:
        """Stop a node's process with SIGSTOP: it holds its connections and says nothing."""

    async def resume_node(self, node: NodeId) -> None:
        """Let a paused node go on (SIGCONT)."""

    async def set_links(self, links: Links) -> frozenset[NodeId]:
        """Change the directed links named; the others stay. Nodes that start later get them too, and a paused node
        gets them when it goes on. Returns the nodes that listen and did not answer: paused ones, as a rule."""

    async def kill_region(self, region: RegionId) -> None:
        """Kill a region's supervisor, then its nodes, with SIGKILL. Returns when their processes are gone."""

    async def start_region(self, region: RegionId) -> None:
        """Start a region's supervisor again, and by it the nodes. Returns when the nodes listen."""

    async def stop(self) -> None:
        """Take the deployment down. Its data stays."""
