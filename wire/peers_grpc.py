"""The `Transport` port over gRPC: one outgoing stream to every peer, one incoming stream from every peer.

**Theory of operation.** A stream opens with a `PeerHello` each way; the receiver refuses another cluster, another
protocol version or a process that has been replaced, and its reason reaches the sender's log. After that only the
sender speaks. Messages go through an `Outbox` (natural batching, link shaping). A stream that breaks is opened again
after a jittered, growing pause, at once when the peer itself has just connected to us.

Invariants:

1. `send` never blocks and never raises; what cannot be delivered is dropped and counted. At most `QUEUE_BYTES_MAX`
   wait for a stream that is up but slow (a stopped process sends no reset), `AWAY_BYTES_MAX` for a peer that is away;
   the oldest are dropped first. What waited when a stream broke is dropped with it.
2. An envelope is delivered only from an accepted stream, with the identity of its hello; a newer stream of the same
   sender ends the older one.
3. Bytes that are not well-formed frames, or damaged entries, end the stream; they are counted and logged.

The hello is not shaped: it says who speaks, and carries nothing that the groups agree on.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import final

from isochrone.ids import NodeId, ZoneId
from isochrone.wire.codec import (
    FRAME_BYTES_MAX,
    MalformedFrame,
    decode_frames,
    decode_hello,
    encode_frame,
    encode_hello,
)
from isochrone.wire.entries import CorruptEntry
from isochrone.wire.http2.calls import ABORTED, FAILED_PRECONDITION, INVALID_ARGUMENT, UNAVAILABLE, Call, StreamMethod
from isochrone.wire.http2.client_os import CallFailed, open_stream
from isochrone.wire.http2.departures_os import Departures
from isochrone.wire.http2.limits import Limits
from isochrone.wire.messages import AppendRequest, Envelope, GroupMessage, PeerHello, PeerMessage
from isochrone.wire.shaper_os import Shaper
from isochrone.wire.streams_grpc import HANDSHAKE_TIMEOUT_S, PEER_METHOD, QUIET_S, STREAM_WINDOW_BYTES, Outbox

logger = logging.getLogger(__name__)

QUEUE_BYTES_MAX = 32 << 20
"""Most bytes that wait for a peer whose stream is up; about a second of a full gigabit link."""
AWAY_BYTES_MAX = 64 << 10
"""Most bytes that wait for a peer without a stream: enough for the votes and heartbeats of many groups."""
_BACKOFF_S_MIN = 0.05
_BACKOFF_S_MAX = 1.0


@dataclass(frozen=True, slots=True)
class PeerAddress:
    """Where a peer listens (`host:port`), and the zone by which its link is shaped."""

    address: str
    zone: ZoneId


class _Peer:
    """The outgoing side towards one peer."""

    __slots__ = ("address", "name", "outbox", "retry", "task", "trouble")

    def __init__(self, name: NodeId, address: str, outbox: Outbox[PeerMessage]) -> None:
        self.name = name
        self.address = address
        self.outbox = outbox
        self.retry = asyncio.Event()
        """Set when the peer has shown that it is alive."""
        self.trouble = ""
        """Why there is no stream, as last logged; empty while one is up."""
        self.task: asyncio.Task[None] | None = None


@final
class GrpcTransport:
    """`isochrone.ports.Transport` over gRPC. `method` takes the peers' streams and belongs into a `NodeServer`."""

    def __init__(
        self,
        hello: PeerHello,
        zone: ZoneId,
        peers: Mapping[NodeId, PeerAddress],
        *,
        shaper: Shaper,
        accept: Callable[[PeerHello], str | None],
        rng: random.Random,
        departures: Departures | None = None,
    ) -> None:
        """Make a transport, in a running loop.

        Args:
            hello: who this node is.
            zone: where it is.
            peers: all other nodes.
            shaper: shapes what leaves.
            accept: decides whether a peer may be heard: None, or the reason why not (`wire.handshake`). It is asked
                about incoming streams, and about who answered an outgoing one.
            rng: source of the jitter of reconnections.
            departures: decide when messages leave; None: in the next turn of the loop.
        """
        self._hello = hello
        self._accept = accept
        self._rng = rng
        self._departures = departures
        self._receive: Callable[[Envelope], None] | None = None
        self._incoming: dict[NodeId, object] = {}
        """The newest stream of each sender."""
        self._counters = dict.fromkeys(
            (
                "peer_messages_unroutable",
                "peer_messages_received",
                "peer_grpc_messages_received",
                "peer_frames_malformed",
                "peer_streams_opened",
                "peer_streams_accepted",
                "peer_streams_refused",
            ),
            0,
        )
        self._peers = {}
        for name, peer in peers.items():
            outbox: Outbox[PeerMessage] = Outbox(
                encode=partial(encode_frame, hello.incarnation),
                size_of=_size_of,
                ship=partial(shaper.submit, zone, peer.zone),
                bytes_max=AWAY_BYTES_MAX,
                overflow=partial(self._overflow, name),
            )
            self._peers[name] = _Peer(name, peer.address, outbox)

    def start(self, receive: Callable[[Envelope], None]) -> None:
        """Begin to connect and to deliver; see the port. `receive` must not raise."""
        self._receive = receive
        for peer in self._peers.values():
            peer.task = asyncio.create_task(self._keep_connected(peer), name=f"peer {peer.name}")

    def send(self, to: NodeId, messages: Sequence[PeerMessage]) -> None:
        """Queue messages to a peer; see the port."""
        peer = self._peers.get(to)
        if peer is None:
            self._counters["peer_messages_unroutable"] += len(messages)
        else:
            peer.outbox.put(messages)

    def counters(self) -> dict[str, int]:
        """What has passed and what has not, since the start."""
        outboxes = [peer.outbox for peer in self._peers.values()]
        return self._counters | {
            "peer_messages_written": sum(outbox.messages_written for outbox in outboxes),
            "peer_messages_dropped": sum(outbox.messages_dropped for outbox in outboxes),
            "peer_grpc_messages_written": sum(outbox.writes for outbox in outboxes),
            "peer_bytes_waiting": sum(outbox.bytes_waiting for outbox in outboxes),
        }

    async def close(self) -> None:
        """End all outgoing streams. Incoming ones end with the server."""
        tasks = [peer.task for peer in self._peers.values() if peer.task]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _overflow(self, name: NodeId) -> None:
        self._peers[name].outbox.drop_oldest()

    async def _keep_connected(self, peer: _Peer) -> None:
        """Open a stream to the peer, again and again."""
        loop = asyncio.get_running_loop()
        backoff_s = _BACKOFF_S_MIN
        while True:
            began = loop.time()
            trouble = await self._run_stream(peer)
            if trouble != peer.trouble:
                logger.warning("no stream from %s to %s (%s): %s", self._hello.node, peer.name, peer.address, trouble)
                peer.trouble = trouble
            backoff_s = _BACKOFF_S_MIN if loop.time() - began > _BACKOFF_S_MAX else min(2 * backoff_s, _BACKOFF_S_MAX)
            peer.retry.clear()
            try:
                async with asyncio.timeout(backoff_s * self._rng.uniform(0.5, 1.0)):
                    await peer.retry.wait()
                    # It connects before it listens: the first attempts may come too early.
                    backoff_s = _BACKOFF_S_MIN
            except TimeoutError:
                continue

    async def _run_stream(self, peer: _Peer) -> str:
        """Open one stream and feed it until it ends. Returns why it ended."""
        end: asyncio.Future[str] = asyncio.get_running_loop().create_future()

        def ended(reason: CallFailed) -> None:
            if not end.done():
                end.set_result(str(reason))

        try:
            async with asyncio.timeout(HANDSHAKE_TIMEOUT_S):
                stream, answer = await open_stream(
                    peer.address,
                    PEER_METHOD,
                    encode_hello(self._hello),
                    limits=Limits(stream_window_bytes=STREAM_WINDOW_BYTES),
                    message_bytes_max=FRAME_BYTES_MAX,
                    quiet_s=QUIET_S,
                    departures=self._departures,
                )
        except TimeoutError:
            return f"no answer within {HANDSHAKE_TIMEOUT_S:g} s"
        except CallFailed as error:
            return str(error)
        try:
            if refusal := self._refusal_of_answer(peer, decode_hello(answer)):
                return refusal
            self._counters["peer_streams_opened"] += 1
            peer.trouble = ""
            logger.info("stream from %s to %s is up", self._hello.node, peer.name)
            stream.listen(lambda _: "it speaks where it has only to listen", ended)
            peer.outbox.bytes_max = QUEUE_BYTES_MAX
            peer.outbox.open(stream)
            return await end
        except MalformedFrame as error:
            return str(error)
        finally:
            peer.outbox.close()
            if peer.outbox.bytes_max == QUEUE_BYTES_MAX:
                peer.outbox.clear()
                peer.outbox.bytes_max = AWAY_BYTES_MAX
            await stream.close()

    def _refusal_of_answer(self, peer: _Peer, hello: PeerHello) -> str | None:
        if hello.node != peer.name:
            return f"{hello.node} answers at its address"
        return self._accept(hello)

    def method(self) -> StreamMethod:
        """The method that takes the peers' streams."""
        return StreamMethod(self._stream)

    def _stream(self, call: Call) -> "_PeerStream":
        stream = _PeerStream(self, call)
        if self._receive is None:
            stream.end(UNAVAILABLE, "the node is starting")
        return stream

    # For the peers' streams.

    def greet(self, stream: "_PeerStream", data: bytes) -> PeerHello | str:
        """Judge a hello: who may be heard from now on, or why it may not."""
        try:
            hello = decode_hello(data)
            refusal = self._accept(hello)
        except MalformedFrame as error:
            refusal = str(error)
        if refusal is not None:
            return refusal
        self._incoming[hello.node] = stream
        self._counters["peer_streams_accepted"] += 1
        if peer := self._peers.get(hello.node):
            peer.retry.set()
        return hello

    def refused(self, reason: str) -> None:
        """A stream was refused."""
        self._counters["peer_streams_refused"] += 1
        logger.warning("%s refused a peer stream: %s", self._hello.node, reason)

    @property
    def encoded_hello(self) -> bytes:
        """What this node answers."""
        return encode_hello(self._hello)

    def is_newest(self, stream: "_PeerStream", hello: PeerHello) -> bool:
        """Whether the peer has opened no other stream since."""
        return self._incoming.get(hello.node) is stream

    def gone(self, stream: "_PeerStream", hello: PeerHello) -> None:
        """A stream has ended."""
        if self.is_newest(stream, hello):
            del self._incoming[hello.node]

    def deliver(self, hello: PeerHello, data: bytes) -> str | None:
        """Hand over what one gRPC message holds; why not, if it is damaged."""
        assert self._receive is not None
        try:
            frames = decode_frames(data)
            if any(incarnation != hello.incarnation for incarnation, _ in frames):
                raise MalformedFrame(f"a frame of {hello.node} has another incarnation than its stream")
        except (MalformedFrame, CorruptEntry) as error:
            self._counters["peer_frames_malformed"] += 1
            logger.error("%s ends the stream of %s: %s", self._hello.node, hello.node, error)
            return str(error)
        messages = tuple(message for _, group in frames for message in group)
        self._counters["peer_grpc_messages_received"] += 1
        self._counters["peer_messages_received"] += len(messages)
        self._receive(Envelope(hello.node, hello.store, hello.incarnation, messages))
        return None


@final
class _PeerStream:
    """A peer's incoming stream. A `StreamHandler`."""

    __slots__ = ("_call", "_hello", "_over", "_timer", "_transport")

    def __init__(self, transport: GrpcTransport, call: Call) -> None:
        self._transport = transport
        self._call = call
        self._hello: PeerHello | None = None
        self._over = False
        no_hello = f"no hello within {HANDSHAKE_TIMEOUT_S:g} s"
        self._timer = asyncio.get_running_loop().call_later(HANDSHAKE_TIMEOUT_S, self._refuse, no_hello)

    def message(self, message: bytes) -> None:
        """See `StreamHandler`."""
        hello = self._hello
        if hello is None:
            self._greet(message)
        elif not self._transport.is_newest(self, hello):
            self.end(ABORTED, "a newer stream has taken over")
        elif damage := self._transport.deliver(hello, message):
            self.end(INVALID_ARGUMENT, damage)

    def ended(self) -> None:
        """See `StreamHandler`."""
        if self._hello is None and not self._over:
            self._greet(b"")
        self._close()
        self._call.finish()

    def cancelled(self) -> None:
        """See `StreamHandler`."""
        self._close()

    def end(self, code: int, reason: str) -> None:
        """End the stream for a fault of the peer, or because nobody listens to it."""
        self._close()
        self._call.fail(code, reason)

    def _greet(self, data: bytes) -> None:
        match self._transport.greet(self, data):
            case str() as refusal:
                self._refuse(refusal)
            case hello:
                self._timer.cancel()
                self._hello = hello
                self._call.send(self._transport.encoded_hello)

    def _refuse(self, reason: str) -> None:
        self._transport.refused(reason)
        self.end(FAILED_PRECONDITION, reason)

    def _close(self) -> None:
        self._timer.cancel()
        if not self._over:
            self._over = True
            if self._hello is not None:
                self._transport.gone(self, self._hello)


def _size_of(message: PeerMessage) -> int:
    match message:
        case GroupMessage(message=AppendRequest(entries=entries)):
            return 64 + sum(len(entry.encoded) + 5 for entry in entries)
        case _:
            return 64
