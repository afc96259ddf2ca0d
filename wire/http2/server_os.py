"""Listens for clients of gRPC, and gives each a `Connection`."""

import asyncio
import logging
import os
import socket
from collections.abc import Callable
from typing import cast, final

from isochrone.errors import Unavailable
from isochrone.wire.budget import Budget, Share
from isochrone.wire.http2.calls import Methods, acceptor
from isochrone.wire.http2.connection import Accept, Connection
from isochrone.wire.http2.departures_os import Departures
from isochrone.wire.http2.limits import Limits
from isochrone.wire.http2.socket_os import Socket

logger = logging.getLogger(__name__)

BACKLOG = 1024
"""Clients that may wait to be accepted."""
CONNECTIONS_MAX = 10_000
"""Most connections at a time."""
GREETING_TIMEOUT_S = 10.0
"""Whoever has not said by then that it speaks HTTP/2 is cut off."""
KEEPALIVE_IDLE_S, KEEPALIVE_INTERVAL_S, KEEPALIVE_PROBES = 60, 10, 6
"""A client that is gone without a word is noticed by the system: asked after so long, so often, and then given up."""
WRITE_BUFFER_BYTES = 16 << 10
"""A socket that holds more than that takes no more to write, and counts as one that makes us keep it."""


@final
class Http2Server:
    """A server of some methods of gRPC."""

    def __init__(
        self,
        methods: Methods,
        *,
        message_bytes_max: int,
        limits: Limits | None = None,
        connections_max: int = CONNECTIONS_MAX,
        greeting_timeout_s: float = GREETING_TIMEOUT_S,
        quiet_s: float | None = None,
        budget: Budget | None = None,
        departures: Departures | None = None,
    ) -> None:
        """Make a server that does not listen yet.

        Args:
            methods: what it serves.
            message_bytes_max: of one message of a client.
            limits: of what one client may make us keep.
            connections_max: who comes when there are so many is cut off.
            greeting_timeout_s: who does not speak HTTP/2 by then is cut off.
            quiet_s: clients of whom nothing is heard for so long are pinged, and cut off after as long again; None:
                only the system looks after them.
            budget: of what all clients together may make us keep; None: one of its own.
            departures: decide when answers leave; None: in the next turn of the loop.
        """
        self._budget = budget or Budget()
        self._accept = acceptor(methods, message_bytes_max)
        self._quiet_s = quiet_s
        self._departures = departures
        self._limits = limits or Limits()
        self._connections_max = connections_max
        self._greeting_timeout_s = greeting_timeout_s
        self._sockets: dict[_Socket, None] = {}
        self._server: asyncio.Server | None = None
        self._stopping = False

    async def start(self, host: str, port: int) -> int:
        """Listen, in plain text as yet; returns the port, which is drawn if 0 was given.

        Raises:
            Unavailable: the port is in use, or the address is not one of this machine.
        """
        loop = asyncio.get_running_loop()
        try:
            self._server = await loop.create_server(self._connected, host, port, backlog=BACKLOG)
        except OSError as error:
            reason = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
            raise Unavailable(f"cannot listen on {host}:{port}: {reason}") from error
        return int(self._server.sockets[0].getsockname()[1])

    async def stop(self, grace_s: float = 0.0) -> None:
        """Take no more calls, wait for those under way at most so long, and close all connections."""
        if self._server is None:
            return
        self._stopping = True
        self._server.close()
        for each in self._sockets:
            each.connection.go_away()
        try:
            async with asyncio.timeout(grace_s):
                await asyncio.gather(*(each.idle() for each in self._sockets))
        except TimeoutError:
            pass  # whoever is left is cut off
        await asyncio.gather(*(each.close() for each in list(self._sockets)))
        await self._server.wait_closed()

    def _connected(self) -> "_Socket":
        return _Socket(
            self._accept,
            self._limits,
            self._sockets,
            self._has_room,
            self._greeting_timeout_s,
            self._quiet_s,
            self._budget,
            self._departures,
        )

    def _has_room(self) -> bool:
        """Whether one more client may stay; one that was accepted just before a stop may not."""
        return not self._stopping and len(self._sockets) < self._connections_max


@final
class _Socket(Socket):
    """One client's socket."""

    def __init__(
        self,
        accept: Accept,
        limits: Limits,
        sockets: "dict[_Socket, None]",
        has_room: Callable[[], bool],
        greeting_timeout_s: float,
        quiet_s: float | None,
        budget: Budget,
        departures: Departures | None,
    ) -> None:
        super().__init__(lambda wake: self._speak(accept, wake, limits), quiet_s, departures)
        self._share = Share(budget, self._cut_off)
        self._has_room = has_room
        self._greeting_timeout_s = greeting_timeout_s
        self._greeting: asyncio.TimerHandle | None = None
        self._sockets = sockets
        self._idle: asyncio.Future[None] | None = None

    def _speak(self, accept: Accept, wake: Callable[[], None], limits: Limits) -> Connection:
        self.connection = Connection(accept, wake, limits, self._count)
        return self.connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        if not self._has_room():
            cast("asyncio.Transport", transport).abort()
            return
        self._sockets[self] = None
        _keep_alive(transport.get_extra_info("socket"))
        self._greeting = self._loop.call_later(self._greeting_timeout_s, self._expect_greeting)
        super().connection_made(transport)
        cast("asyncio.WriteTransport", transport).set_write_buffer_limits(WRITE_BUFFER_BYTES)

    def connection_lost(self, error: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self._sockets.pop(self, None)
        if self._greeting is not None:
            self._greeting.cancel()
        super().connection_lost(error)
        self._share.end()
        self._tell_idle()

    def pause_writing(self) -> None:
        """See `asyncio.Protocol`."""
        super().pause_writing()
        self._count()

    async def idle(self) -> None:
        """Return when no call is under way."""
        if not self.connection.is_idle:
            self._idle = self._loop.create_future()
            await self._idle

    def _expect_greeting(self) -> None:
        if not self.connection.greeted:
            self.abort()

    def _flush(self) -> None:
        super()._flush()
        if self._share.kept_bytes:
            self._count()
        self._tell_idle()

    def _count(self) -> None:
        """Tell what is kept for the client: with what its socket holds, if it is paused; else that is little."""
        held = self._transport.get_write_buffer_size() if self._transport and self._paused else 0
        self._share.set(self.connection.count() + held)

    def _cut_off(self) -> None:
        logger.warning("cutting a client off: too much is kept for all of them, and most for this one")
        self.abort()

    def _tell_idle(self) -> None:
        if self._idle is not None and not self._idle.done() and self.connection.is_idle:
            self._idle.set_result(None)


def _keep_alive(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_IDLE_S)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_INTERVAL_S)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, KEEPALIVE_PROBES)
