"""A snapshot of ours is a database of etcd's: its tools read it, and an etcd that is made from it holds the same."""

import json
import subprocess
from pathlib import Path
from typing import Any

import grpc
import pytest
from etcd_cluster import EtcdCluster
from etcd_nodes import etcd_nodes

from isochrone.wire.etcd.generated import rpc_pb2 as pb
from isochrone.wire.etcd.services_grpc import METHODS

pytestmark = pytest.mark.interop
SMALL_KEYS = 4_000
LARGE = 1_000_000
TTL_S = 3_600


def ask(channel: grpc.Channel, path: str, request: Any) -> Any:
    method = METHODS[path]
    call = channel.unary_unary(
        path, request_serializer=method.request.SerializeToString, response_deserializer=method.response.FromString
    )
    return call(request, timeout=20)


def etcdctl(*words: object) -> str:
    done = subprocess.run(["etcdctl", *map(str, words)], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def fill(channel: grpc.Channel) -> int:
    """Many keys, long values, keys of one revision, keys that were deleted, and a lease; returns the lease."""
    lease = ask(channel, "/etcdserverpb.Lease/LeaseGrant", pb.LeaseGrantRequest(TTL=TTL_S)).ID
    for first in range(0, SMALL_KEYS, 100):
        puts = [
            pb.RequestOp(request_put=pb.PutRequest(key=b"us/small/%05d" % number, value=bytes(number % 200)))
            for number in range(first, first + 100)
        ]
        ask(channel, "/etcdserverpb.KV/Txn", pb.TxnRequest(success=puts))
    for key, value in ((b"us/large", bytes(LARGE)), (b"us/long", bytes(5_000)), (b"us/small/00007", b"again")):
        ask(channel, "/etcdserverpb.KV/Put", pb.PutRequest(key=key, value=value))
    ask(channel, "/etcdserverpb.KV/Put", pb.PutRequest(key=b"us/leased", value=b"v", lease=lease))
    ask(channel, "/etcdserverpb.KV/DeleteRange", pb.DeleteRangeRequest(key=b"us/small/00008"))
    return int(lease)


def state(channel: grpc.Channel, lease: int) -> tuple[Any, ...]:
    """All that the store tells: keys with their versions, the revision, and the lease."""
    held = ask(channel, "/etcdserverpb.KV/Range", pb.RangeRequest(key=b"us/", range_end=b"us0"))
    told = ask(channel, "/etcdserverpb.Lease/LeaseTimeToLive", pb.LeaseTimeToLiveRequest(ID=lease, keys=True))
    return held.header.revision, list(held.kvs), told.grantedTTL, list(told.keys)


def test_an_etcd_that_is_restored_from_our_snapshot_holds_the_same(tmp_path: Path) -> None:
    file = tmp_path / "snapshot.db"
    with etcd_nodes(tmp_path) as (addresses, leader):
        follower = next(address for address in addresses if address != leader)
        with grpc.insecure_channel(leader) as channel:
            lease = fill(channel)
            ours = state(channel, lease)
        etcdctl(f"--endpoints={follower}", "snapshot", "save", file)
    told = json.loads(etcdctl("snapshot", "status", file, "-w", "json"))
    keys = SMALL_KEYS - 1 + 3
    assert told["totalKey"] == keys + 3, "keys, the one that was deleted last, a lease, the mark of what is compacted"
    assert told["revision"] == ours[0]
    assert told["totalSize"] == file.stat().st_size - 32
    etcdctl("snapshot", "restore", file, "--data-dir", tmp_path / "member-0")
    with EtcdCluster(tmp_path, members=1) as restored, grpc.insecure_channel(restored.addresses[0]) as channel:
        theirs = state(channel, lease)
        assert len(theirs[1]) == keys
        assert theirs == ours
        with pytest.raises(grpc.RpcError, match="required revision has been compacted"):
            ask(channel, "/etcdserverpb.KV/Range", pb.RangeRequest(key=b"us/", revision=ours[0] - 1))
