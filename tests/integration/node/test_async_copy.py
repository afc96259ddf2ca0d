"""An asynchronous copy in another region, on real processes: it follows, its lag is told, and it catches up."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from small_topology import ONE_REGION, eventually, isochrone, status_of, write_topology

from isochrone.client import Client
from isochrone.ids import NodeId
from isochrone.ops.cli.status_view import to_plain
from isochrone.topology import load_topology

COPY = "eu-west-1a-1"
COPIED = ONE_REGION.replace("regions:\n", "regions:\n  - {name: eu-west-1, zones: [eu-west-1a]}\n").replace(
    "survive: zone", "survive: zone, async_copy: eu-west-1"
)


class Cluster:
    """Four nodes as plain processes, and what `isochrone status -o json` tells of them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.topology = load_topology(root / "topology.yaml")
        self.addresses = {spec.id: self._config(spec.id)["listen"] for spec in self.topology.nodes}
        self.running: dict[str, subprocess.Popen[bytes]] = {}

    def _config_file(self, node: str) -> Path:
        return self.root / "nodes" / f"{node}.json"

    def _config(self, node: str) -> dict[str, Any]:
        plain: dict[str, Any] = json.loads(self._config_file(node).read_text(encoding="utf-8"))
        return plain

    def start(self, node: str) -> None:
        command = [sys.executable, "-m", "isochrone.ops.cli.main", "node", "--config", str(self._config_file(node))]
        self.running[node] = subprocess.Popen(command, stderr=subprocess.DEVNULL, cwd=self.root)

    def kill(self, node: str) -> None:
        process = self.running.pop(node)
        process.kill()
        process.wait()

    def copy_row(self) -> dict[str, Any]:
        """The row of the learner."""
        statuses = [
            status for node in self.topology.nodes if (status := status_of(self.addresses[node.id])) is not None
        ]
        rows = to_plain(self.topology, statuses, self.addresses)["replicas"]
        return next(row for row in json.loads(json.dumps(rows)) if row["node"] == COPY)

    def put(self, count: int) -> None:
        async def write() -> None:
            async with await Client.connect([self.addresses[NodeId("us-east-1a-1")]], region="us-east-1") as client:
                for number in range(count):
                    await client.put(f"us/{number}", b"x", timeout_s=30.0)

        asyncio.run(write())


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """A cluster whose nodes all run."""
    done = isochrone("bootstrap", write_topology(tmp_path, COPIED), "--out", tmp_path / "d", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    cluster = Cluster(tmp_path / "d")
    for node in cluster.topology.nodes:
        cluster.start(node.id)
    yield cluster
    for node in list(cluster.running):
        cluster.kill(node)


def test_the_copy_follows_and_its_lag_is_told_even_while_its_region_is_gone(cluster: Cluster) -> None:
    cluster.put(20)

    def caught_up() -> bool:
        row = cluster.copy_row()
        return row["state"] == "follows" and (row["lag"], row["lag_ms"]) == (0, 0.0) and row["applied"] > 20

    eventually(caught_up, "the copy holds every write")
    assert cluster.copy_row()["role"] == "learner"
    cluster.kill(COPY)
    cluster.put(10)
    row = cluster.copy_row()
    assert (row["state"], row["role"]) == ("silent", "learner")
    assert row["lag"] >= 10
    assert row["lag_ms"] > 0
    cluster.start(COPY)
    eventually(caught_up, "the copy has caught up")
