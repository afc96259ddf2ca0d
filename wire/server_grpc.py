"""A node's one gRPC server: peer streams, session streams and the admin calls.

Today's connections are plain text, on loopback or a private network; TLS belongs into `start`.
"""

import os
import socket
from typing import Any, final

import grpc
import grpc.aio

from isochrone.errors import Unavailable
from isochrone.wire.admin_grpc import AdminHandler, AdminService
from isochrone.wire.peers_grpc import GrpcTransport
from isochrone.wire.session import NodeHello
from isochrone.wire.sessions_grpc import SessionHandler, SessionService
from isochrone.wire.shaper_os import Shaper
from isochrone.wire.streams_grpc import SERVER_OPTIONS, SERVICE


@final
class NodeServer:
    """Listens for peers, clients and operators."""

    def __init__(
        self,
        node: NodeHello,
        *,
        shaper: Shaper,
        transport: GrpcTransport,
        sessions: SessionHandler,
        admin: AdminHandler,
    ) -> None:
        self._transport = transport
        self._sessions = SessionService(node, shaper, sessions)
        self._admin = AdminService(admin)
        self._server: Any = None

    async def start(self, address: str) -> str:
        """Listen on `address` (`host:port`; port 0 draws a free one). Returns the address with the port in use.

        Raises:
            Unavailable: the port is in use, or the address is not one of this machine.
        """
        _check_free(address)
        server = grpc.aio.server(options=SERVER_OPTIONS)
        server.add_generic_rpc_handlers((self._handlers(),))
        try:
            port = server.add_insecure_port(address)
        except RuntimeError as error:
            raise Unavailable(f"cannot listen on {address}: {error}") from error
        await server.start()
        self._server = server
        return f"{address.rpartition(':')[0]}:{port}"

    async def stop(self) -> None:
        """End all streams and stop listening."""
        if self._server is not None:
            await self._server.stop(None)

    def counters(self) -> dict[str, int]:
        """Counts of sessions."""
        return self._sessions.counters()

    def _handlers(self) -> grpc.GenericRpcHandler:
        return grpc.method_handlers_generic_handler(
            SERVICE,
            {
                "Peer": grpc.stream_stream_rpc_method_handler(self._transport.serve),
                "Session": grpc.stream_stream_rpc_method_handler(self._sessions.serve),
                "Status": grpc.unary_unary_rpc_method_handler(self._admin.status),
                "Operate": grpc.unary_unary_rpc_method_handler(self._admin.operate),
                "SetLinks": grpc.unary_unary_rpc_method_handler(self._admin.set_links),
                "Stop": grpc.unary_unary_rpc_method_handler(self._admin.stop),
            },
        )


def _check_free(address: str) -> None:
    """Raise `Unavailable` if nobody can listen there: the system says why in fewer words than gRPC."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_server((host, int(port))).close()
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise Unavailable(f"cannot listen on {address}: {reason}") from error
