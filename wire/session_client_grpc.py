"""The client's side of a session stream; see `wire.sessions_grpc` for the node's."""

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from typing import Any, final

import grpc
import grpc.aio

from isochrone.errors import ConnectionLost, IsochroneError, Unavailable
from isochrone.ids import ZoneId
from isochrone.wire.codec import MalformedFrame
from isochrone.wire.session import (
    ClientHello,
    NodeHello,
    SessionMessage,
    decode_session_frames,
    encode_session_frame,
    session_message_bytes,
)
from isochrone.wire.shaper_os import Shaper
from isochrone.wire.streams_grpc import CHANNEL_OPTIONS, SESSION_METHOD, Outbox, run_until_first, text_of

logger = logging.getLogger(__name__)

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
    channel = grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS)
    try:
        call = channel.stream_stream(SESSION_METHOD)()
        await call.write(encode_session_frame([hello]))
        data = await call.read()
        messages = [] if data is grpc.aio.EOF else decode_session_frames(data)
    except (grpc.aio.AioRpcError, asyncio.InvalidStateError, MalformedFrame) as error:
        await channel.close()
        if isinstance(error, grpc.aio.AioRpcError) and error.code() is grpc.StatusCode.UNIMPLEMENTED:
            raise Unavailable(f"{address} speaks gRPC, but not to clients of Isochrone: is it etcd's API?") from error
        raise Unavailable(f"node at {address}: {_text_of(error)}") from error
    except BaseException:
        await channel.close()
        raise
    match messages:
        case [NodeHello() as node, *rest]:
            connection = GrpcSessionConnection(address, channel, call, hello, node, received, closed, shaper)
            for message in rest:
                received(message)
            return connection
    await channel.close()
    raise Unavailable(f"node at {address}: it does not answer with a hello")


@final
class GrpcSessionConnection:
    """An open session stream. Made by `connect`."""

    node: NodeHello
    """Who answered."""

    def __init__(
        self,
        address: str,
        channel: Any,
        call: Any,
        hello: ClientHello,
        node: NodeHello,
        received: Callable[[SessionMessage], None],
        closed: Callable[[IsochroneError | None], None],
        shaper: Shaper | None,
    ) -> None:
        self.node = node
        self._address = address
        self._channel = channel
        self._call = call
        self._received = received
        self._closed = closed
        self._given_up = asyncio.Event()
        zones = (ZoneId(hello.zone), ZoneId(node.zone))
        self._outbox: Outbox[SessionMessage] = Outbox(
            encode=encode_session_frame,
            size_of=session_message_bytes,
            ship=partial(shaper.submit, *zones) if shaper else _pass,
            bytes_max=CONNECTION_BYTES_MAX,
            overflow=self._overflow,
        )
        self._task = asyncio.create_task(self._run(), name=f"session with {node.node}")

    def send(self, message: SessionMessage) -> None:
        """Send a message. Never blocks; messages keep their order. Dropped when the connection has ended."""
        self._outbox.put((message,))

    async def close(self) -> None:
        """End the connection and wait until it has ended. May be called again."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    def counters(self) -> dict[str, int]:
        """Messages and gRPC messages written."""
        return {
            "session_messages_written": self._outbox.messages_written,
            "session_grpc_messages_written": self._outbox.writes,
        }

    def _overflow(self) -> None:
        self._outbox.clear()
        self._given_up.set()

    async def _run(self) -> None:
        ended: IsochroneError | None = None
        try:
            await run_until_first(self._read(), self._outbox.write_to(self._call.write), self._given_up.wait())
            text = "the node reads too slowly" if self._given_up.is_set() else "the node closed the stream"
            ended = ConnectionLost(f"connection to {self.node.node} at {self._address}: {text}")
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError, MalformedFrame) as error:
            ended = ConnectionLost(f"connection to {self.node.node} at {self._address}: {_text_of(error)}")
        finally:
            try:
                await self._channel.close()
            finally:
                self._closed(ended)

    async def _read(self) -> None:
        while (data := await self._call.read()) is not grpc.aio.EOF:
            for message in decode_session_frames(data):
                self._received(message)


def _pass(deliver: Callable[[], None]) -> None:
    """The link of a client that is not shaped."""
    deliver()


def _text_of(error: Exception) -> str:
    return text_of(error) if isinstance(error, grpc.aio.AioRpcError) else str(error)
