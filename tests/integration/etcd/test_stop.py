"""A node that is told to stop does so in order, whatever its endpoint of etcd's API has under way."""

import asyncio
import json
import signal
from pathlib import Path

import grpc
import grpc.aio
import pytest
from etcd_nodes import NODES
from process_cluster import Cluster
from small_topology import eventually, isochrone, write_topology

from isochrone.wire.etcd.generated import rpc_pb2, v3lock_pb2
from isochrone.wire.etcd.services_grpc import client_call


async def hold_up(cluster: Cluster, follower: str, address: str) -> None:
    """Pass a write on through a follower, then stop it under a watch and a wait for a lock."""
    async with grpc.aio.insecure_channel(address) as channel:
        grant = rpc_pb2.LeaseGrantRequest(TTL=600)
        lock = client_call(channel, "/v3lockpb.Lock/Lock")
        leases = [(await client_call(channel, "/etcdserverpb.Lease/LeaseGrant")(grant)).ID for _ in range(2)]
        await lock(v3lock_pb2.LockRequest(name=b"us/l", lease=leases[0]))
        waiting = asyncio.ensure_future(lock(v3lock_pb2.LockRequest(name=b"us/l", lease=leases[1])))
        watch = client_call(channel, "/etcdserverpb.Watch/Watch")()
        create = rpc_pb2.WatchCreateRequest(key=b"us/l", range_end=b"us/m", start_revision=1)
        await watch.write(rpc_pb2.WatchRequest(create_request=create))
        assert (await watch.read()).created
        assert (await watch.read()).events
        cluster.by_node[follower].send_signal(signal.SIGTERM)
        with pytest.raises(grpc.aio.AioRpcError):
            await waiting


def test_a_node_stops_in_order_under_calls_watches_and_waits(tmp_path: Path) -> None:
    done = isochrone("bootstrap", write_topology(tmp_path), "--out", tmp_path / "cluster", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    cluster = Cluster(tmp_path / "cluster")
    try:
        for node in NODES:
            cluster.start(node)
        eventually(lambda: cluster.leader(*NODES) is not None, "a leader that all know")
        follower = next(node for node in NODES if node != cluster.leader(*NODES))
        addresses = json.loads(cluster.config_file(follower).read_text(encoding="utf-8"))["etcd_addresses"]
        asyncio.run(asyncio.wait_for(hold_up(cluster, follower, addresses[follower]), 60))
        process = cluster.by_node[follower]
        output, errors = process.communicate(timeout=30)
        cluster.running.remove(process)
        assert (process.returncode, output) == (0, "False\n"), errors
        assert "Traceback" not in errors and "never" not in errors, errors
    finally:
        cluster.end()
