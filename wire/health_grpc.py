"""Health by `grpc.health.v1` and reflection: how probes and tools that know nothing of us look at a node.

Health has a name for each group (`raft.<group>`), so that a probe can tell a node that lives from a group that serves.
The empty name stands for the process itself and serves as long as it answers.
"""

from collections.abc import Iterable
from typing import final

import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from isochrone.ids import GroupId


def health_name(group: GroupId) -> str:
    """The service name under which a group's health is asked for."""
    return f"raft.{group}"


@final
class Health:
    """The health of one node's groups. A group that was never told of is unknown to a probe (`NOT_FOUND`)."""

    def __init__(self) -> None:
        self._servicer = health.aio.HealthServicer()

    def add_to(self, server: grpc.aio.Server) -> None:
        """Serve it. The server must not have started."""
        health_pb2_grpc.add_HealthServicer_to_server(self._servicer, server)

    async def set(self, group: GroupId, *, serving: bool) -> None:
        """Say whether a group can serve here; whoever watches it is told."""
        state = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
        await self._servicer.set(health_name(group), state)

    async def end(self) -> None:
        """Say that nothing is served any more, before the server stops."""
        await self._servicer.enter_graceful_shutdown()


def add_reflection(server: grpc.aio.Server, services: Iterable[str]) -> None:
    """Let tools list these services (full names, whose descriptors are loaded), health and reflection."""
    names = (*services, health.SERVICE_NAME, reflection.SERVICE_NAME)
    reflection.enable_server_reflection(names, server)
