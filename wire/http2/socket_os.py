"""Moves bytes between a socket and one end of an HTTP/2 connection.

What is sent in one turn of the event loop leaves in one write, unless whoever sends asks for an earlier one. Another
end that does not read is not written to: what waits for it gathers in the connection, up to the limit at which that
ends.
"""

import asyncio
from collections.abc import Callable
from typing import cast

from isochrone.wire.http2.departures_os import Departures
from isochrone.wire.http2.endpoint import Endpoint
from isochrone.wire.http2.keepalive import Keepalive


class Socket(asyncio.Protocol):
    """One connected socket; made in the loop's thread, as all of its methods are called there."""

    def __init__(
        self,
        speak: Callable[[Callable[[], None]], Endpoint],
        quiet_s: float | None,
        departures: Departures | None,
    ) -> None:
        """Make a socket that is not connected yet.

        Args:
            speak: makes the end of the connection, given whom to wake when it has something to send.
            quiet_s: see `Keepalive`; None: only the system looks after the other end.
            departures: decide when what has gathered leaves; None: in the next turn of the loop.
        """
        self._loop = asyncio.get_running_loop()
        self._flush_soon = (departures or Departures()).soon
        self._transport: asyncio.Transport | None = None
        self._paused = False
        self._scheduled = True
        """A flush is about to come."""
        self._writing = False
        """Output was taken and is not written yet: what comes now must not overtake it."""
        self._closed: asyncio.Future[None] = self._loop.create_future()
        self._endpoint = speak(self._wake)
        self._keepalive = None if quiet_s is None else Keepalive(quiet_s, self._endpoint.ping, self._silent)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        self._transport = cast("asyncio.Transport", transport)  # other loops' transports are of other classes
        if self._keepalive is not None:
            self._keepalive.start()
        self._flush()

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        self._scheduled = True
        if self._keepalive is not None:
            self._keepalive.heard()
        try:
            self._endpoint.receive(data)
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
        if self._keepalive is not None:
            self._keepalive.stop()
        self._endpoint.lost()
        if not self._closed.done():
            self._closed.set_result(None)

    def abort(self) -> None:
        """Close the socket at once."""
        if self._transport is not None:
            self._transport.abort()

    async def close(self) -> None:
        """Close the socket; what cannot leave at once does not leave."""
        assert self._transport is not None
        self._flush()
        if self._transport.get_write_buffer_size():
            self._transport.abort()
        else:
            self._transport.close()
        await asyncio.shield(self._closed)

    def write_now(self) -> None:
        """Write what has gathered, rather than when this turn of the loop is over."""
        transport = self._transport
        if transport is not None and not (self._writing or self._paused or transport.is_closing()):
            self._write_out(transport)

    def _write_out(self, transport: asyncio.Transport) -> None:
        self._writing = True
        try:
            if output := self._endpoint.take_output():
                transport.write(output)
        finally:
            self._writing = False

    def _silent(self) -> None:
        """The other end does not answer pings."""
        self.abort()

    def _wake(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._flush_soon(self._flush)

    def _flush(self) -> None:
        try:
            self._endpoint.gather()
        finally:  # whoever fails in it must not hold up what is sent later
            self._scheduled = False
        if self._transport is None or self._transport.is_closing():
            return
        if not self._paused:
            self._write_out(self._transport)
            if self._endpoint.closing:
                self._transport.close()
        elif self._endpoint.closing:
            self._transport.abort()  # it does not read, so it cannot be told why
