"""A node's one server: peer streams, session streams and the admin calls, as gRPC over our own HTTP/2.

Today's connections are plain text, on loopback or a private network; TLS belongs into `start`.
"""

from typing import final

from isochrone.wire.admin_grpc import AdminHandler, AdminService
from isochrone.wire.budget import Budget
from isochrone.wire.codec import FRAME_BYTES_MAX
from isochrone.wire.http2.departures_os import Departures
from isochrone.wire.http2.limits import Limits
from isochrone.wire.http2.server_os import Http2Server
from isochrone.wire.peers_grpc import GrpcTransport
from isochrone.wire.session import NodeHello
from isochrone.wire.sessions_grpc import SessionHandler, SessionService
from isochrone.wire.shaper_os import Shaper
from isochrone.wire.streams_grpc import PEER_METHOD, QUIET_S, SESSION_METHOD, STREAM_WINDOW_BYTES

CONNECTIONS_MAX = 12_000
"""At a time: as many as there may be sessions, and peers and operators beside them."""


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
        budget: Budget | None = None,
        departures: Departures | None = None,
    ) -> None:
        """Make a server that does not listen yet.

        `budget`: of what all clients together may make us keep; None: one of its own. `departures` decide when what is
        sent leaves; None: in the next turn of the loop.
        """
        budget = budget or Budget()
        self._sessions = SessionService(node, shaper, sessions, budget)
        self._admin = AdminService(admin)
        methods = {
            PEER_METHOD: transport.method(),
            SESSION_METHOD: self._sessions.method(),
            **self._admin.methods(),
        }
        self._server = Http2Server(
            methods,
            message_bytes_max=FRAME_BYTES_MAX,
            limits=Limits(stream_window_bytes=STREAM_WINDOW_BYTES),
            connections_max=CONNECTIONS_MAX,
            quiet_s=QUIET_S,
            budget=budget,
            departures=departures,
        )

    async def start(self, address: str) -> str:
        """Listen on `address` (`host:port`; port 0 draws a free one). Returns the address with the port in use.

        Raises:
            Unavailable: the port is in use, or the address is not one of this machine.
        """
        host, _, port = address.rpartition(":")
        drawn = await self._server.start(host.strip("[]"), int(port))
        return f"{host}:{drawn}"

    async def stop(self) -> None:
        """End all streams and stop listening."""
        await self._admin.close()
        await self._server.stop()

    def counters(self) -> dict[str, int]:
        """Counts of sessions."""
        return self._sessions.counters()
