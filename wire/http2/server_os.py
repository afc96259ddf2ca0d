"""Listens for clients of gRPC and moves bytes between their sockets and `Connection`.

What calls answer in one turn of the event loop leaves in one write. A client that does not read is not written to: its
answers gather in its connection, up to the limit at which it loses it.
"""

import asyncio
from typing import final

from isochrone.errors import Unavailable
from isochrone.wire.http2.calls import Methods, acceptor
from isochrone.wire.http2.connection import Accept, Connection, Limits

BACKLOG = 1024
"""Clients that may wait to be accepted."""


@final
class Http2Server:
    """A server of some methods of gRPC."""

    def __init__(self, methods: Methods, *, message_bytes_max: int, limits: Limits | None = None) -> None:
        """`message_bytes_max`: of one message of a client."""
        self._accept = acceptor(methods, message_bytes_max)
        self._limits = limits or Limits()
        self._sockets: dict[_Socket, None] = {}
        self._server: asyncio.Server | None = None

    async def start(self, host: str, port: int) -> int:
        """Listen, in plain text as yet; returns the port, which is drawn if 0 was given.

        Raises:
            Unavailable: the port is in use, or the address is not one of this machine.
        """
        loop = asyncio.get_running_loop()
        try:
            self._server = await loop.create_server(self._connected, host, port, backlog=BACKLOG)
        except OSError as error:
            raise Unavailable(f"cannot listen on {host}:{port}: {error.strerror or error}") from error
        return int(self._server.sockets[0].getsockname()[1])

    async def stop(self, grace_s: float = 0.0) -> None:
        """Take no more calls, wait for those under way at most so long, and close all connections."""
        if self._server is None:
            return
        self._server.close()
        for socket in self._sockets:
            socket.connection.go_away()
        try:
            async with asyncio.timeout(grace_s):
                await asyncio.gather(*(socket.idle() for socket in self._sockets))
        except TimeoutError:
            pass  # whoever is left is cut off
        await asyncio.gather(*(socket.close() for socket in list(self._sockets)))
        await self._server.wait_closed()

    def _connected(self) -> "_Socket":
        return _Socket(self._accept, self._limits, self._sockets)


@final
class _Socket(asyncio.Protocol):
    """One client's socket."""

    def __init__(self, accept: Accept, limits: Limits, sockets: "dict[_Socket, None]") -> None:
        self._loop = asyncio.get_running_loop()
        self._sockets = sockets
        self._transport: asyncio.Transport | None = None
        self._paused = False
        self._scheduled = True
        """A flush is about to come."""
        self._closed: asyncio.Future[None] = self._loop.create_future()
        self._idle: asyncio.Future[None] | None = None
        self.connection = Connection(accept, self._wake, limits)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._sockets[self] = None
        self._flush()

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        self._scheduled = True
        try:
            self.connection.receive(data)
        finally:
            self._flush()

    def eof_received(self) -> None:
        """See `asyncio.Protocol`. The transport closes."""

    def pause_writing(self) -> None:
        """See `asyncio.Protocol`."""
        self._paused = True

    def resume_writing(self) -> None:
        """See `asyncio.Protocol`."""
        self._paused = False
        self._flush()

    def connection_lost(self, error: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self._sockets.pop(self, None)
        self.connection.lost()
        self._closed.set_result(None)
        self._tell_idle()

    async def idle(self) -> None:
        """Return when no call is under way."""
        if not self.connection.is_idle:
            self._idle = self._loop.create_future()
            await self._idle

    async def close(self) -> None:
        """Close the socket; what cannot leave at once does not leave."""
        assert self._transport is not None
        if self._paused:
            self._transport.abort()
        else:
            self._transport.close()
        await self._closed

    def _wake(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._scheduled = False
        if self._transport is None or self._transport.is_closing():
            return
        if not self._paused:
            if output := self.connection.take_output():
                self._transport.write(output)
            if self.connection.closing:
                self._transport.close()
        elif self.connection.closing:
            self._transport.abort()  # it does not read, so it cannot be told why
        self._tell_idle()

    def _tell_idle(self) -> None:
        if self._idle is not None and not self._idle.done() and self.connection.is_idle:
            self._idle.set_result(None)
