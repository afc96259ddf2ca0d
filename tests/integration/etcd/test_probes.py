"""Health and reflection of a node's endpoint, as probes and tools ask for them."""

from pathlib import Path

import grpc
import pytest
from etcd_nodes import etcd_nodes
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from isochrone.ids import GroupId
from isochrone.wire.health_grpc import health_name

SERVING = health_pb2.HealthCheckResponse.SERVING


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
