"""What the streams between nodes, and between clients and nodes, have in common: their names, and natural batching.

**Natural batching.** A message costs each end some tens of microseconds, so nothing sends one message per operation.
What is put into an `Outbox` during one turn of the loop becomes one frame, or several if it is large: the other end can
begin with the first while the turn goes on. The frames go through the link shaper; and all that arrive at a stream
which still has much to send leave as one gRPC message when it has sent that. There is no batching delay: an idle
stream sends at once.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Generic, Protocol, TypeVar, final

from isochrone.wire.codec import FRAME_BYTES_MAX
from isochrone.wire.http2.client_os import EARLY_BYTES
from isochrone.wire.http2.endpoint import DRAINED_BYTES as STREAM_DRAINED_BYTES

SERVICE = "isochrone.Node"
PEER_METHOD = f"/{SERVICE}/Peer"
SESSION_METHOD = f"/{SERVICE}/Session"

FRAME_BYTES_TARGET = 1 << 20
"""A frame is closed when it has grown to this; a single larger message still makes one frame."""
WRITE_BYTES_TARGET = 4 << 20
"""Frames are joined into one gRPC message up to this size."""
DRAINED_BYTES = 256 << 10
"""A stream for which no more waits can take more of what was held back."""
HANDSHAKE_TIMEOUT_S = 5.0
"""Longest wait for a connection and the answer to the first message."""

STREAM_WINDOW_BYTES = 8 << 20
"""How much of a stream may be under way: at a round trip of 200 ms it can carry 40 MiB/s."""
QUIET_S = 10.0
"""When nothing has come on a connection for so long, the other end is pinged, and is lost after as long again."""

M = TypeVar("M")


class MessageStream(Protocol):
    """Where an outbox leads: either side of a streaming call."""

    @property
    def backlog_bytes(self) -> int:
        """About how much was sent and has not left."""

    def send(self, message: bytes) -> None:
        """Send one gRPC message. Never blocks; without effect on a stream that has ended."""

    def call_when_drained(self, callback: Callable[[], None]) -> None:
        """Call back once when at most `STREAM_DRAINED_BYTES` have not left; never if the stream is lost before."""

    def call_before_output(self, callback: Callable[[], None]) -> bool:
        """Call back once, in this turn of the loop or the next, before bytes leave; False if the stream is over."""


@final
class Outbox(Generic[M]):
    """Messages on their way into one stream. Never blocks; bounded by the bytes that wait for the stream.

    All methods belong to the loop's thread. Order is kept from `put` to the stream.
    """

    def __init__(
        self,
        *,
        encode: Callable[[list[M]], bytes],
        size_of: Callable[[M], int],
        ship: Callable[[Callable[[], None]], None],
        bytes_max: int,
        overflow: Callable[[], None],
        kept: Callable[[int], None] | None = None,
    ) -> None:
        """Make an empty outbox.

        Args:
            encode: makes one frame of messages.
            size_of: about how many bytes a message takes; used to close frames before they grow too large.
            ship: the link: calls what it is given when the frame has passed, or never.
            bytes_max: most bytes that may wait for the stream.
            overflow: called when more wait; it may `drop_oldest` or give the stream up.
            kept: called with how many bytes wait for the stream when others do than before.
        """
        self._kept = kept
        self._kept_bytes = 0
        """What it was told last."""
        self.bytes_max = bytes_max
        self.bytes_waiting = 0
        self.messages_dropped = 0
        self.messages_written = 0
        self.writes = 0
        self.when_drained: Callable[[], None] | None = None
        """Called once, and forgotten, when at most `DRAINED_BYTES` wait after a write."""
        self._encode = encode
        self._size_of = size_of
        self._ship = ship
        self._overflow = overflow
        self._gathered: list[M] = []
        self._gathered_bytes = 0
        self._frames: deque[tuple[bytes, int]] = deque()
        """Frames that wait for the stream, each with its number of messages."""
        self._stream: MessageStream | None = None
        self._waits = False
        """The stream will call back."""
        self._loop = asyncio.get_running_loop()

    def put(self, messages: Sequence[M]) -> None:
        """Send messages, after all that were put before."""
        if not self._gathered and messages:
            stream = self._stream
            if stream is None or not stream.call_before_output(self._flush):
                self._loop.call_soon(self._flush)
        self._gathered.extend(messages)
        self._gathered_bytes += sum(map(self._size_of, messages))
        if self._gathered_bytes >= EARLY_BYTES:
            self._flush()

    @property
    def backlog_bytes(self) -> int:
        """About how many bytes were put and have not gone into the stream, but for those on the link."""
        return self._gathered_bytes + self.bytes_waiting

    def drop_oldest(self) -> None:
        """Drop the oldest frames until what waits is within the bound."""
        while self.bytes_waiting > self.bytes_max:
            frame, count = self._frames.popleft()
            self.bytes_waiting -= len(frame)
            self.messages_dropped += count

    def clear(self) -> None:
        """Drop all that waits for the stream."""
        self.messages_dropped += sum(count for _, count in self._frames)
        self._frames.clear()
        self.bytes_waiting = 0
        self._count()

    def open(self, stream: MessageStream) -> None:
        """From now on, until `close`, feed this stream."""
        self._stream = stream
        self._waits = False
        self._write()
        self._count()

    def close(self) -> None:
        """Feed the stream no more; what waits goes on waiting."""
        self._stream = None

    def _drained(self, stream: MessageStream) -> None:
        if stream is self._stream:
            self._waits = False
            self._write()
            self._count()

    def _write(self) -> None:
        """Send what waits, as far as the stream keeps up."""
        if self._waits:
            return
        written = False
        while self._frames and (stream := self._stream) is not None:
            if stream.backlog_bytes > STREAM_DRAINED_BYTES:
                self._waits = True
                stream.call_when_drained(partial(self._drained, stream))
                break
            data, count = self._take()
            self.writes += 1
            self.messages_written += count
            written = True
            stream.send(data)
        if written and self.when_drained is not None and self.backlog_bytes <= DRAINED_BYTES:
            drained, self.when_drained = self.when_drained, None
            drained()

    def _flush(self) -> None:
        """Make frames of what was put in this turn of the loop."""
        gathered, self._gathered = self._gathered, []
        self._gathered_bytes = 0
        chunk: list[M] = []
        chunk_bytes = 0
        for message in gathered:
            chunk.append(message)
            chunk_bytes += self._size_of(message)
            if chunk_bytes >= FRAME_BYTES_TARGET:
                self._submit(chunk)
                chunk, chunk_bytes = [], 0
        if chunk:
            self._submit(chunk)

    def _submit(self, messages: list[M]) -> None:
        frame = self._encode(messages)
        if len(frame) > FRAME_BYTES_MAX:
            self.messages_dropped += len(messages)
            return
        self._ship(lambda: self._enqueue(frame, len(messages)))

    def _enqueue(self, frame: bytes, count: int) -> None:
        self._frames.append((frame, count))
        self.bytes_waiting += len(frame)
        self._write()
        if self.bytes_waiting > self.bytes_max:
            self._overflow()
        self._count()

    def _count(self) -> None:
        if self._kept is not None and self.bytes_waiting != self._kept_bytes:
            self._kept_bytes = self.bytes_waiting
            self._kept(self.bytes_waiting)

    def _take(self) -> tuple[bytes, int]:
        """Join the oldest frames, as many as fit into one gRPC message but at least one."""
        frame, count = self._frames.popleft()
        if not self._frames:
            self.bytes_waiting = 0
            return frame, count
        joined = [frame]
        size = len(frame)
        while self._frames and size + len(self._frames[0][0]) <= WRITE_BYTES_TARGET:
            frame, more = self._frames.popleft()
            joined.append(frame)
            size += len(frame)
            count += more
        self.bytes_waiting -= size
        return b"".join(joined), count
