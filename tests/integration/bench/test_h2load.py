"""h2load against a real etcd: figures come out, and a request that is refused gives none."""

from pathlib import Path

import grpc
import pytest
from etcd_cluster import EtcdCluster
from h2load import Target, run_h2load

from isochrone.wire.etcd.generated import rpc_pb2

pytestmark = pytest.mark.interop
PUT = "/etcdserverpb.KV/Put"


def test_writes_to_etcd(tmp_path: Path) -> None:
    with EtcdCluster(tmp_path, members=1) as cluster:
        member = cluster.leader
        put = rpc_pb2.PutRequest(key=b"k", value=bytes(100)).SerializeToString()
        load = run_h2load(Target(member.address, PUT, put), 16, 1, {"etcd": member.process.pid})
        assert load.operations > 100 and load.seconds == 1.0
        assert 0 < load.p50_ms <= load.p99_ms < 1000
        assert load.cpu_us["etcd"] > 0 and load.cpu_us["h2load"] > 0
        wrong = rpc_pb2.PutRequest(value=b"v").SerializeToString()
        with pytest.raises(grpc.RpcError, match="key is not provided"):
            run_h2load(Target(member.address, PUT, wrong), 1, 1, {})
