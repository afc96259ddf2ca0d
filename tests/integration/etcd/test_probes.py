"""Health and reflection of a node's endpoint, as probes and tools ask for them."""

import json
from pathlib import Path
from typing import Any

import grpc
import pytest
from etcd_nodes import NODES, etcd_nodes
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from process_cluster import Cluster
from small_topology import eventually, isochrone, write_topology

from isochrone.ids import GroupId
from isochrone.node.etcd_probes_grpc import health_name
from isochrone.wire.etcd.generated import rpc_pb2

SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


def test_probes_and_tools_find_what_an_endpoint_serves(tmp_path: Path) -> None:
    with etcd_nodes(tmp_path) as (_, leader), grpc.insecure_channel(leader) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        group = health_pb2.HealthCheckRequest(service=health_name(GroupId("us-east-1.zone")))
        assert health.Check(health_pb2.HealthCheckRequest(), timeout=10).status == SERVING
        assert health.Check(group, timeout=10).status == SERVING
        watching = health.Watch(group, timeout=10)
        assert next(watching).status == SERVING
        watching.cancel()
        with pytest.raises(grpc.RpcError, match="unknown service"):
            health.Check(health_pb2.HealthCheckRequest(service="raft.other"), timeout=10)
        tools = reflection_pb2_grpc.ServerReflectionStub(channel)
        asked = [
            reflection_pb2.ServerReflectionRequest(list_services=""),
            reflection_pb2.ServerReflectionRequest(file_containing_symbol="etcdserverpb.KV"),
        ]
        listed, file = tools.ServerReflectionInfo(iter(asked), timeout=10)
        names = {service.name for service in listed.list_services_response.service}
        assert {"etcdserverpb.KV", "etcdserverpb.Watch", "grpc.health.v1.Health"} <= names
        assert b"mvccpb" in b"".join(file.file_descriptor_response.file_descriptor_proto)


def test_whoever_watches_is_told_that_a_group_serves_no_more_and_again(tmp_path: Path) -> None:
    done = isochrone("bootstrap", write_topology(tmp_path), "--out", tmp_path / "cluster", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    cluster = Cluster(tmp_path / "cluster")
    try:
        for node in NODES:
            cluster.start(node)
        eventually(lambda: cluster.leader(*NODES) is not None, "a leader that all know")
        asked, *others = NODES
        address = json.loads(cluster.config_file(asked).read_text(encoding="utf-8"))["etcd_addresses"][asked]
        with grpc.insecure_channel(address) as channel:
            group = health_pb2.HealthCheckRequest(service=health_name(GroupId("us-east-1.zone")))
            watching = health_pb2_grpc.HealthStub(channel).Watch(group, timeout=60)
            assert next(watching).status == SERVING
            for node in others:
                cluster.kill(node)
            assert next(watching).status == NOT_SERVING
            read_health = channel.unary_unary("/etcdserverpb.KV/Range")
            asked_by_etcdctl = rpc_pb2.RangeRequest(key=b"health").SerializeToString()
            with pytest.raises(grpc.RpcError):
                read_health(asked_by_etcdctl, timeout=2)
            for node in others:
                cluster.start(node)
            assert next(watching).status == SERVING
            answer = rpc_pb2.RangeResponse.FromString(read_health(asked_by_etcdctl, timeout=20))
            assert answer.header.revision == 1 and not answer.kvs
            watching.cancel()
    finally:
        cluster.end()


def test_users_and_roles_are_refused_and_a_password_is_not_needed(tmp_path: Path) -> None:
    with etcd_nodes(tmp_path) as (_, leader), grpc.insecure_channel(leader) as channel:
        for method, code in (("Authenticate", "FAILED_PRECONDITION"), ("UserAdd", "UNIMPLEMENTED")):
            with pytest.raises(grpc.RpcError) as error:
                channel.unary_unary(f"/etcdserverpb.Auth/{method}")(b"", timeout=10)
            told: Any = error.value
            assert told.code().name == code, told.details()
