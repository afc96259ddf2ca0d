"""Reads under leases on real processes, one of which is stopped while it leads."""

import asyncio
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from process_cluster import Cluster
from small_topology import ONE_REGION, eventually, isochrone, write_topology

from isochrone.client import Client

NODES = ("us-east-1a-1", "us-east-1b-1", "us-east-1c-1")
LEASED = ONE_REGION.replace("survive: zone}", "survive: zone, lease_reads: true}")
READERS = 8


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """Three nodes that have a leader."""
    done = isochrone("bootstrap", write_topology(tmp_path, LEASED), "--out", tmp_path / "cluster", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    cluster = Cluster(tmp_path / "cluster")
    for node in NODES:
        cluster.start(node)
    eventually(lambda: cluster.leader(*NODES) is not None, "a leader that all know")
    yield cluster
    cluster.end()


def test_a_leader_that_was_stopped_answers_nothing_stale(cluster: Cluster) -> None:
    """Reads wait at it while it is stopped and another one is elected; it must not answer them when it goes on."""
    leader = cluster.leader(*NODES)
    assert leader is not None
    addresses = [cluster.address(node) for node in NODES]

    async def main() -> None:
        async with (
            await Client.connect([cluster.address(leader)], region="us-east-1", timeout_s=30.0) as reader,
            await Client.connect(addresses, region="us-east-1", timeout_s=30.0) as writer,
        ):
            await writer.put("us/x", "0")
            assert (await reader.get("us/x")).value == b"0"
            cluster.by_node[leader].send_signal(signal.SIGSTOP)
            try:
                waiting = [asyncio.ensure_future(reader.get("us/x")) for _ in range(READERS)]
                written = await writer.put("us/x", "1")
            finally:
                cluster.by_node[leader].send_signal(signal.SIGCONT)
            later = [await reader.get("us/x") for _ in range(READERS)]
            assert written.replica != leader
            assert {result.value for result in later} == {b"1"}
            await asyncio.gather(*waiting)

    asyncio.run(main())
