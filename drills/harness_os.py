"""The harness that drills run on: a deployment of their own on this machine's Ray, and SDK clients in this process.

All clients share one shaper: links are named by zone, and each client sends from its own.
"""

import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import final

from isochrone.client.client import Client
from isochrone.drills.faults import Link
from isochrone.ids import RegionId, ZoneId
from isochrone.node.deployment import Deployment
from isochrone.node.deployment_ray import bring_up
from isochrone.wire.shaper_os import Shaper
from isochrone.wire.shaping import LinkShape

CONNECT_TIMEOUT_S = 10.0


@final
class LocalHarness:
    """Stands behind `drills.runner.Harness`. Must be made in a running loop, and closed."""

    def __init__(self, topology_file: Path, directory: Path, seed: int) -> None:
        self._topology_file = topology_file
        self._directory = directory
        self._shaper = Shaper(random.Random(f"{seed}/shaper"))

    async def bring_up(self, progress: Callable[[str], None]) -> Deployment:
        """Start a new deployment. Raises as `node.deployment_ray.bring_up` does."""
        return await bring_up(self._topology_file, self._directory, progress)

    async def connect(self, deployment: Deployment, region: RegionId, zone: ZoneId) -> Client:
        """Connect an SDK client that runs in a zone, through the nodes of its region first."""
        here = {node.id for node in deployment.topology.nodes if node.region == region}
        endpoints = sorted(deployment.addresses, key=lambda node: (node not in here, node))
        return await Client.connect(
            [deployment.addresses[node] for node in endpoints],
            region=region,
            zone=zone,
            name=f"drill-{region}",
            timeout_s=CONNECT_TIMEOUT_S,
            shaper=self._shaper,
        )

    def set_links(self, links: Mapping[Link, LinkShape]) -> None:
        """Shape what the clients send."""
        self._shaper.set_links(links)

    def close(self) -> None:
        """Stop shaping."""
        self._shaper.close()
