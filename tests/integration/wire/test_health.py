"""Health and reflection as tools ask for them, over a real connection."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from isochrone.ids import GroupId
from isochrone.wire.etcd.services_grpc import METHODS
from isochrone.wire.health_grpc import Health, add_reflection, health_name

GROUP = GroupId("us-east-1.zone")
SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


@asynccontextmanager
async def served(health: Health) -> AsyncIterator[grpc.aio.Channel]:
    server = grpc.aio.server()
    health.add_to(server)
    add_reflection(server, dict.fromkeys(method.service for method in METHODS.values()))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield channel
    await server.stop(None)


def test_health_is_told_by_group_and_changes_are_told_to_whoever_watches() -> None:
    async def run() -> None:
        health = Health()
        async with served(health) as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            group = health_pb2.HealthCheckRequest(service=health_name(GROUP))
            assert (await stub.Check(health_pb2.HealthCheckRequest())).status == SERVING
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await stub.Check(group)
            assert refused.value.code() is grpc.StatusCode.NOT_FOUND
            await health.set(GROUP, serving=False)
            watching = stub.Watch(group)
            assert (await watching.read()).status == NOT_SERVING
            await health.set(GROUP, serving=True)
            assert (await watching.read()).status == SERVING
            assert (await stub.Check(group)).status == SERVING
            await health.end()
            assert (await watching.read()).status == NOT_SERVING
            assert (await stub.Check(health_pb2.HealthCheckRequest())).status == NOT_SERVING
            watching.cancel()

    asyncio.run(asyncio.wait_for(run(), 30))


def test_tools_find_the_services_and_what_they_take() -> None:
    async def run() -> None:
        async with served(Health()) as channel:
            stub = reflection_pb2_grpc.ServerReflectionStub(channel)
            asked = [
                reflection_pb2.ServerReflectionRequest(list_services=""),
                reflection_pb2.ServerReflectionRequest(file_containing_symbol="v3electionpb.Election"),
            ]
            listed, file = [answer async for answer in stub.ServerReflectionInfo(iter(asked))]
            names = [service.name for service in listed.list_services_response.service]
            assert {"etcdserverpb.KV", "v3lockpb.Lock", "grpc.health.v1.Health"} <= set(names)
            found = b"".join(file.file_descriptor_response.file_descriptor_proto)
            assert b"mvccpb" in found and b"ResponseHeader" in found, "with all that it needs"

    asyncio.run(asyncio.wait_for(run(), 30))
