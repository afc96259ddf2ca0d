"""Three nodes of ours that speak etcd's API, in processes of their own."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from process_cluster import Cluster
from small_topology import eventually, isochrone, write_topology

NODES = ("us-east-1a-1", "us-east-1b-1", "us-east-1c-1")


@contextmanager
def etcd_nodes(directory: Path) -> Iterator[tuple[list[str], str]]:
    """Where they speak it, and where the leader does. Their keys lie below `us/`."""
    done = isochrone("bootstrap", write_topology(directory), "--out", directory / "cluster", cwd=directory)
    assert done.returncode == 0, done.stderr
    cluster = Cluster(directory / "cluster")
    try:
        for node in NODES:
            cluster.start(node)
        eventually(lambda: cluster.leader(*NODES) is not None, "a leader that all know")
        leader = cluster.leader(*NODES)
        assert leader is not None
        addresses = json.loads(cluster.config_file(leader).read_text(encoding="utf-8"))["etcd_addresses"]
        yield [addresses[node] for node in NODES], addresses[leader]
    finally:
        cluster.end()
