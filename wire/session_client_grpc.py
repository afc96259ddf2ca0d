"""The client's side of a session stream; see `wire.sessions_grpc` for the node's."""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import final

from isochrone.errors import ConnectionLost, IsochroneError, Unavailable
from isochrone.ids import ZoneId
from isochrone.wire.codec import FRAME_BYTES_MAX, MalformedFrame
from isochrone.wire.http2.calls import UNIMPLEMENTED
from isochrone.wire.http2.client_os import CallFailed, ClientStream, open_stream
from isochrone.wire.http2.limits import Limits
from isochrone.wire.session import ClientHello, NodeHello, SessionMessage
from isochrone.wire.session_codec import decode_session_frames, encode_session_frame, session_message_bytes
from isochrone.wire.shaper_os import Shaper
from isochrone.wire.streams_grpc import QUIET_S, SESSION_METHOD, STREAM_WINDOW_BYTES, Outbox

CONNECTION_BYTES_MAX = 256 << 20
"""Most bytes that wait for one node; more, and the connection is given up. Far above what a client has under way."""


async def connect(
    address: str,
    hello: ClientHello,
    received: Callable[[SessionMessage], None],
    closed: Callable[[IsochroneError | None], None],
    *,
    shaper: Shaper | None = None,
) -> "GrpcSessionConnection":
    """Open a session stream to the node at `address` (`host:port`).

    Waits for as long as the node may take to answer: give it a deadline by `asyncio.timeout`. Frames are shaped from
    the client's zone to the node's if there is a shaper; the hello is not, as the node's zone is not known yet.

    Args:
        address: where the node listens.
        hello: who the client is.
        received: called with each message, in the loop's thread and in the node's order. Must not block or raise.
        closed: called once when the connection has ended, after the last message: with None if `close` was called,
            else with `ConnectionLost`. Not called if `connect` itself fails.
        shaper: shapes what the client sends.

    Raises:
        Unavailable: nobody answers there, or the node refuses the client; nothing was sent that could have effect.
    """
    try:
        stream, data = await open_stream(
            address,
            SESSION_METHOD,
            encode_session_frame([hello]),
            limits=Limits(stream_window_bytes=STREAM_WINDOW_BYTES),
            message_bytes_max=FRAME_BYTES_MAX,
            quiet_s=QUIET_S,
        )
    except CallFailed as error:
        if error.code == UNIMPLEMENTED:
            raise Unavailable(f"{address} speaks gRPC, but not to clients of Isochrone: is it etcd's API?") from error
        raise Unavailable(f"node at {address}: {error}") from error
    try:
        messages = decode_session_frames(data)
    except MalformedFrame as error:
        stream.discard()
        raise Unavailable(f"node at {address}: {error}") from error
    match messages:
        case [NodeHello() as node, *rest]:
            connection = GrpcSessionConnection(address, stream, hello, node, received, closed, shaper)
            for message in rest:
                received(message)
            stream.listen(connection.message, connection.ended)
            return connection
    stream.discard()
    raise Unavailable(f"node at {address}: it does not answer with a hello")


@final
class GrpcSessionConnection:
    """An open session stream. Made by `connect`."""

    node: NodeHello
    """Who answered."""

    def __init__(
        self,
        address: str,
        stream: ClientStream,
        hello: ClientHello,
        node: NodeHello,
        received: Callable[[SessionMessage], None],
        closed: Callable[[IsochroneError | None], None],
        shaper: Shaper | None,
    ) -> None:
        self.node = node
        self._address = address
        self._stream = stream
        self._received = received
        self._closed = closed
        self._closing = False
        self._loop = asyncio.get_running_loop()
        zones = (ZoneId(hello.zone), ZoneId(node.zone))
        self._outbox: Outbox[SessionMessage] = Outbox(
            encode=encode_session_frame,
            size_of=session_message_bytes,
            ship=partial(shaper.submit, *zones) if shaper else _pass,
            bytes_max=CONNECTION_BYTES_MAX,
            overflow=self._overflow,
        )
        self._outbox.open(stream)

    # For `connect`.

    def message(self, data: bytes) -> str | None:
        """The node has sent more. Returns what is wrong with it, if anything."""
        try:
            messages = decode_session_frames(data)
        except MalformedFrame as error:
            return str(error)
        for message in messages:
            self._received(message)
        return None

    def ended(self, reason: CallFailed) -> None:
        """The stream has ended."""
        self._closed(
            None if self._closing else ConnectionLost(f"connection to {self.node.node} at {self._address}: {reason}")
        )

    # For the client.

    def send(self, message: SessionMessage) -> None:
        """Send a message. Never blocks; messages keep their order. Dropped when the connection has ended."""
        self._outbox.put((message,))

    async def close(self) -> None:
        """End the connection and wait until it has ended. May be called again."""
        self._closing = True
        await self._stream.close()

    def counters(self) -> dict[str, int]:
        """Messages and gRPC messages written."""
        return {
            "session_messages_written": self._outbox.messages_written,
            "session_grpc_messages_written": self._outbox.writes,
        }

    def _overflow(self) -> None:
        self._outbox.close()
        self._outbox.clear()
        # Soon, as `send` may be what calls this, and whoever sends is not to hear of the end from within.
        self._loop.call_soon(self._stream.give_up, "the node reads too slowly")


def _pass(deliver: Callable[[], None]) -> None:
    """The link of a client that is not shaped."""
    deliver()
