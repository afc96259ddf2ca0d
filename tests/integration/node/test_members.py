"""Members of a group come and go while real processes serve, by the commands that an operator has."""

import asyncio
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from process_cluster import Cluster
from small_topology import eventually, isochrone, status_of, write_topology

from isochrone.client import Client

GROUP = "us-east-1.zone"
A, B, C, D = NODES = tuple(f"us-east-1{zone}-1" for zone in "abcd")

FOUR_ZONES = """
name: four-zones
latencies: aws
regions:
  - {name: us-east-1, zones: [us-east-1a, us-east-1b, us-east-1c, us-east-1d]}
keyspaces:
  - {prefix: us/, home: us-east-1, survive: zone}
clock: {source: bound, bound_ms: 5}
"""


class Operator:
    """Somebody at a shell in the directory above the cluster's."""

    def __init__(self, cluster: Cluster, directory: Path) -> None:
        self.cluster = cluster
        self.topology = directory / "topology-given.yaml"
        self._directory = directory

    def run(self, *arguments: object) -> "subprocess.CompletedProcess[str]":
        return isochrone(*arguments, "--dir", self.cluster.root, cwd=self._directory)

    def does(self, *arguments: object) -> str:
        done = self.run(*arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def eventually_does(self, *arguments: object) -> None:
        """Ask again while the answer is that now is not the time."""

        def done() -> bool:
            result = self.run(*arguments)
            assert result.returncode in (0, 1), result.stderr
            assert result.returncode == 0 or "try again" in result.stderr, result.stderr
            return result.returncode == 0

        eventually(done, " ".join(map(str, arguments)))

    def refused(self, *arguments: object, status: int = 2) -> str:
        done = self.run(*arguments)
        assert (done.returncode, done.stdout) == (status, ""), done.stderr
        return done.stderr

    def members(self) -> dict[str, Any]:
        (group,) = json.loads(self.does("member", "list", GROUP, "-o", "json"))
        return {"leader": group["leader"], **{each["node"]: (each["role"], each["state"]) for each in group["members"]}}


@pytest.fixture
def operator(tmp_path: Path) -> Iterator[Operator]:
    """Four nodes that run, of which three have a replica."""
    done = isochrone("bootstrap", write_topology(tmp_path, FOUR_ZONES), "--out", tmp_path / "cluster", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    cluster = Cluster(tmp_path / "cluster")
    for node in NODES:
        cluster.start(node)
    eventually(lambda: cluster.leader(A, B, C) == A, "the first node leads")
    eventually(lambda: status_of(cluster.address(D)) is not None, "the fourth node listens")
    yield Operator(cluster, tmp_path)
    cluster.end()


async def put_and_get(address: str, key: str) -> str:
    """Write and read by way of one node; returns who answered."""
    async with await Client.connect([address], region="us-east-1", timeout_s=20.0) as client:
        await client.put(key, "v")
        read = await client.get(key)
        assert read.value == b"v"
        return read.replica


def test_a_group_moves_on_and_a_lost_store_is_replaced(operator: Operator) -> None:
    cluster = operator.cluster
    assert operator.members() == {"leader": A, A: ("full", "leads"), B: ("full", "follows"), C: ("full", "follows")}

    # A fourth node joins, leads, and takes the place of the first.
    operator.does("member", "add", GROUP, D)
    operator.eventually_does("member", "promote", GROUP, D)
    assert f"{D} leads {GROUP}" in operator.does("move-leader", GROUP, D)
    assert operator.members()["leader"] == D
    assert asyncio.run(put_and_get(cluster.address(B), "us/x")) == D
    operator.does("member", "remove", GROUP, A)
    assert operator.members() == {"leader": D, B: ("full", "follows"), C: ("full", "follows"), D: ("full", "leads")}
    assert asyncio.run(put_and_get(cluster.address(A), "us/y")) == D

    # The store of another one is lost.
    cluster.kill(C)
    shutil.rmtree(cluster.root / "data" / C)
    assert "it must rejoin as a learner: see isochrone bootstrap --replace" in cluster.fails(C)
    done = isochrone(
        "bootstrap", operator.topology, "--out", cluster.root, "--replace", C, cwd=operator.topology.parent
    )
    assert done.returncode == 0, done.stderr
    cluster.start(C)
    eventually(lambda: operator.members()[C] == ("full", "lost"), "the node answers with its new store")
    assert "remove it there first" in operator.refused("member", "add", GROUP, C)
    operator.does("member", "remove", GROUP, C)
    operator.does("member", "add", GROUP, C)
    operator.eventually_does("member", "promote", GROUP, C)
    cluster.kill(B)
    assert asyncio.run(put_and_get(cluster.address(C), "us/z")) == D


def test_a_node_joins_by_a_snapshot_when_the_log_is_dropped(operator: Operator) -> None:
    """More is written than a log keeps, so a new member gets the state, and serves it after a restart."""
    cluster = operator.cluster
    values = {f"us/{number}": bytes([number]) * 1_000_000 for number in range(24)}

    async def fill() -> None:
        async with await Client.connect([cluster.address(A)], region="us-east-1", timeout_s=20.0) as client:
            for key, value in values.items():
                await client.put(key, value)

    def retained_bytes(node: str) -> int:
        status = status_of(cluster.address(node))
        assert status is not None
        (group,) = status.groups
        return group.retained_bytes

    asyncio.run(fill())
    eventually(lambda: all(retained_bytes(node) < 21_000_000 for node in (A, B, C)), "old entries are dropped")
    operator.does("member", "add", GROUP, D)
    operator.eventually_does("member", "promote", GROUP, D)
    operator.does("move-leader", GROUP, D)
    cluster.kill(D)
    cluster.start(D)
    eventually(lambda: cluster.leader(A, B, C, D) is not None, "somebody leads")
    operator.does("move-leader", GROUP, D)

    async def read() -> None:
        async with await Client.connect([cluster.address(D)], region="us-east-1", timeout_s=20.0) as client:
            for key, value in values.items():
                result = await client.get(key)
                assert (result.replica, result.value) == (D, value)

    asyncio.run(read())


def test_what_cannot_be_is_refused_with_the_reason(operator: Operator) -> None:
    cluster = operator.cluster
    assert "has no group nobody" in operator.refused("member", "add", "nobody", D)
    assert "has no node nobody" in operator.refused("member", "add", GROUP, "nobody")
    assert "is a full member" in operator.refused("member", "add", GROUP, B)
    assert "is no member" in operator.refused("member", "promote", GROUP, D)
    assert "is no member" in operator.refused("move-leader", GROUP, D)
    cluster.kill(C)
    assert f"{C} does not answer: it would stop" in operator.refused("member", "remove", GROUP, B, status=1)
    assert operator.members() == {"leader": A, A: ("full", "leads"), B: ("full", "follows"), C: ("full", "silent")}
