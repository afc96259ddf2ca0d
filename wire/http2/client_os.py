"""Connects to a server of gRPC and opens one streaming call, on a connection of its own."""

import asyncio
import os
from collections.abc import Callable
from typing import final

from isochrone.wire.http2.calls import CANCELLED, UNAVAILABLE
from isochrone.wire.http2.client import CallEnd, ClientConnection
from isochrone.wire.http2.departures_os import Departures
from isochrone.wire.http2.limits import Limits
from isochrone.wire.http2.socket_os import Socket

EARLY_BYTES = 4 << 10
"""A message of this size is worth a write of its own."""


class CallFailed(Exception):
    """A call ended, or could not begin."""

    def __init__(self, end: CallEnd) -> None:
        super().__init__(end.text or f"gRPC code {end.code}")
        self.code = end.code


@final
class ClientStream(Socket):
    """One call, from its first message to its end. Made by `open_stream`."""

    def __init__(
        self,
        authority: str,
        path: str,
        *,
        limits: Limits,
        message_bytes_max: int,
        quiet_s: float,
        departures: Departures | None = None,
    ) -> None:
        super().__init__(
            lambda wake: self._speak(authority, path, wake, limits=limits, message_bytes_max=message_bytes_max),
            quiet_s,
            departures,
        )
        self.first: asyncio.Future[bytes] = self._loop.create_future()
        """The server's first message. Raises `CallFailed` if there is none."""
        self._early: list[bytes] = []
        """Messages after the first one, as long as nobody listens."""
        self._failure: CallFailed | None = None
        """How the call has ended."""
        self._listener: tuple[Callable[[bytes], str | None], Callable[[CallFailed], None]] | None = None

    def _speak(
        self, authority: str, path: str, wake: Callable[[], None], *, limits: Limits, message_bytes_max: int
    ) -> ClientConnection:
        self._connection = ClientConnection(
            authority, path, self._received, self._ended, wake, limits=limits, message_bytes_max=message_bytes_max
        )
        return self._connection

    def listen(self, received: Callable[[bytes], str | None], ended: Callable[[CallFailed], None]) -> None:
        """Hear what comes after the first message. To be called in the turn in which `open_stream` returns.

        What has come meanwhile is told before this returns, and so may be the end.

        Args:
            received: called with each message, in the loop's thread and in the server's order; must not block or
                raise. Returns None, or why the call cannot go on after that.
            ended: called once when the call has ended, after the last message and whoever ended it.
        """
        for message in self._early:
            if fault := received(message):
                self.give_up(fault)
                break
        self._early.clear()
        self._listener = received, ended
        if self._failure is not None:
            ended(self._failure)

    def send(self, message: bytes) -> None:
        """Send one message. Never blocks; without effect when the call has ended.

        A large one leaves at once: the server can begin with it while this turn of the loop goes on.
        """
        self._connection.send(message)
        if len(message) >= EARLY_BYTES:
            self.write_now()

    @property
    def backlog_bytes(self) -> int:
        """About how much was sent and has not left."""
        return self._connection.backlog_bytes

    def call_when_drained(self, callback: Callable[[], None]) -> None:
        """See `Endpoint.call_when_drained`."""
        self._connection.call_when_drained(callback)

    def call_before_output(self, callback: Callable[[], None]) -> bool:
        """See `Endpoint.call_before_output`."""
        return self._connection.call_before_output(callback)

    def give_up(self, reason: str) -> None:
        """End the call at once, for this reason."""
        self._connection.end(CallEnd(CANCELLED, reason))
        self.abort()

    def discard(self) -> None:
        """Drop the call, to which nobody listens yet."""
        self.first.add_done_callback(lambda first: first.cancelled() or first.exception())
        self.first.cancel()
        self.abort()

    def connection_lost(self, error: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        if error is not None:
            self._connection.end(CallEnd(UNAVAILABLE, f"the connection broke: {error}"))
        super().connection_lost(error)

    def _silent(self) -> None:
        self.give_up("it has been silent, and does not answer a ping")

    def _received(self, message: bytes) -> None:
        if self._listener is not None:
            received, _ = self._listener
            if fault := received(message):
                self.give_up(fault)
        elif self.first.done():
            self._early.append(message)
        else:
            self.first.set_result(message)

    def _ended(self, end: CallEnd) -> None:
        self._failure = CallFailed(end)
        if self._listener is not None:
            _, ended = self._listener
            ended(self._failure)
        elif not self.first.done():
            self.first.set_exception(self._failure)


async def open_stream(
    address: str,
    path: str,
    greeting: bytes,
    *,
    limits: Limits,
    message_bytes_max: int,
    quiet_s: float,
    departures: Departures | None = None,
) -> tuple[ClientStream, bytes]:
    """Open a call, send the first message, and wait for the first one that comes back; then `listen`.

    Waits for as long as the server may take: give it a deadline by `asyncio.timeout`. Cancellation leaves nothing open.

    Args:
        address: `host:port` of the server.
        path: of the method.
        greeting: the first message.
        limits: of what the server may make us keep.
        message_bytes_max: of one message of the server.
        quiet_s: when nothing comes for so long, the server is pinged, and lost after as long again.
        departures: decide when what was sent leaves; None: in the next turn of the loop.

    Raises:
        CallFailed: nobody listens there, or the call ended before anything came.
    """
    host, _, port = address.rpartition(":")
    loop = asyncio.get_running_loop()
    stream = ClientStream(
        address, path, limits=limits, message_bytes_max=message_bytes_max, quiet_s=quiet_s, departures=departures
    )
    stream.send(greeting)
    try:
        await loop.create_connection(lambda: stream, host.strip("[]"), int(port))
        return stream, await stream.first
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
        raise CallFailed(CallEnd(UNAVAILABLE, reason)) from error
    except UnicodeError as error:  # from looking it up
        raise CallFailed(CallEnd(UNAVAILABLE, f"{host} is no name of a host")) from error
    except BaseException:
        stream.discard()
        raise
