"""One end of an HTTP/2 connection, without I/O: what server and client have in common.

Theory of operation. `receive` takes what has arrived and calls the consumer of each stream that it concerns. Whatever
is sent, then or later, leaves bytes in the output; whoever owns the connection is woken once (`wake`), and takes all
that has gathered by then. Data that the other end's windows do not allow waits at its stream, in order.

Invariants:
1. Frames of one stream leave in the order in which they were given, and nothing follows an end of stream.
2. What the other end makes us keep is bounded: a header block, output that it does not take, changes of its settings,
   and of a stream that rests no more than its window. Whoever goes beyond loses the connection.
3. After a `ProtocolError` nothing more is read: a GOAWAY with the reason is the last thing that leaves.

Windows are given back as data arrives, unless the stream rests (`rest`): then the other end may send no more than is
left of its window, and is held to that.

HAZARD: consumers are called from within `receive`, and may send from there; they must not call `receive`.
"""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from typing import Protocol

from isochrone.wire.http2 import frames
from isochrone.wire.http2.frames import Code, ProtocolError, frame
from isochrone.wire.http2.headers import HEADER_LIST_BYTES_MAX
from isochrone.wire.http2.limits import PIECE_BYTES, Limits

COUNTED_BYTES = 16 << 10
"""What is kept for the other end is counted in steps of so many bytes."""
DRAINED_BYTES = 1 << 20
"""Whoever rests because much waits for the other end goes on when no more than this does."""
GRANT_BYTES = 256 << 10
"""A stream's window is given back after no more than this, however large it is: to whoever sends much on a slow link
that is the only sign of life (`keepalive`)."""


class Consumer(Protocol):
    """Who takes what arrives on one stream."""

    def received(self, data: bytes, ended: bool) -> None:
        """More data; `ended`: the last of it."""

    def cancelled(self) -> bool:
        """The other end gave up, or the connection is gone.

        True if work goes on; `Connection.work_ended` is called when it ends.
        """


class Stream:
    """One stream, from its headers to its end."""

    __slots__ = ("consumer", "credit", "number", "pending", "remote_ended", "resting", "send_window")

    def __init__(self, number: int, send_window: int, *, remote_ended: bool) -> None:
        self.number = number
        self.send_window = send_window
        self.remote_ended = remote_ended
        self.resting = False
        """Its consumer wants no more than the other end may send already."""
        self.credit = 0
        """Bytes received that the other end was not yet allowed to send again."""
        self.pending: deque[tuple[bytes | memoryview, bool]] = deque()
        """Data, or a block of trailers that ends the stream, which waits for a window."""
        self.consumer: Consumer | None = None


class Endpoint(ABC):
    """See the module."""

    def __init__(
        self, wake: Callable[[], None], limits: Limits, preface: bytes, grown: Callable[[], None] | None = None
    ) -> None:
        """Begin.

        Args:
            wake: called when there is output to be taken.
            limits: of what the other end may make us keep.
            preface: what the other end begins with, before its first frame.
            grown: called when more is kept for the other end by a step than when it was last counted; see `count`.
        """
        self._wake = wake
        self._grown = grown
        self._limits = limits
        self._preface = preface
        self._streams: dict[int, Stream] = {}
        self._blocked: dict[int, Stream] = {}
        """Streams whose data waits for the connection's window alone, the longest blocked first."""
        self._settings_left = limits.settings
        self._last_stream = 0
        """The newest stream that the other end has opened."""
        self._buffer = b""
        self._settings_seen = False
        self._block: tuple[int, int, bytearray] | None = None
        """Stream, flags and beginning of a header block that is being continued."""
        self._send_window = frames.WINDOW_DEFAULT
        self._stream_send_window = frames.WINDOW_DEFAULT
        self._grant_bytes = min(limits.stream_window_bytes // 2, GRANT_BYTES)
        self._credit = 0
        self._backlog_bytes = 0
        self._backlog_bytes_noticed = limits.backlog_bytes if grown is None else COUNTED_BYTES
        """Beyond that something is to be done about it."""
        self._when_drained: list[Callable[[], None]] = []
        self._before_output: deque[Callable[[], None]] = deque()
        self._output: list[bytes] = []
        self.closing = False
        """Nothing more is read; close when the output has left."""

    # What server and client do differently.

    @abstractmethod
    def _block_complete(self, flags: int, number: int, block: bytes) -> None:
        """A whole block of headers has come."""

    @abstractmethod
    def _reset(self, number: int, payload: bytes) -> None:
        """The other end ends a stream at once."""

    @abstractmethod
    def _away(self, payload: bytes) -> None:
        """The other end says GOAWAY."""

    @abstractmethod
    def _check_not_idle(self, number: int) -> None:
        """Raise `ProtocolError` if there never was such a stream."""

    @abstractmethod
    def _ended(self, stream: Stream) -> None:
        """We have sent the end of a stream."""

    @abstractmethod
    def _cancel(self, stream: Stream) -> None:
        """Tell whoever consumes a stream that it is gone."""

    # What the owner of the connection calls.

    def receive(self, data: bytes) -> None:
        """Take what has arrived, in pieces of any size."""
        if self.closing:
            return
        try:
            self._parse(self._buffer + data if self._buffer else data)
            self._check_backlog()
        except ProtocolError as error:
            self._end(error)

    def take_output(self) -> bytes:
        """All that is to be sent now."""
        output = b"".join(self._output)
        self._backlog_bytes -= len(output) + PIECE_BYTES * len(self._output)
        self._output.clear()
        if self._when_drained and self._backlog_bytes <= DRAINED_BYTES:
            waiting, self._when_drained = self._when_drained, []
            for callback in waiting:
                callback()
        return output

    def call_when_drained(self, callback: Callable[[], None]) -> None:
        """Call back once, when little waits for the other end any more; never if the connection is lost before."""
        self._when_drained.append(callback)

    def call_before_output(self, callback: Callable[[], None]) -> bool:
        """Call back once, before output is taken next, to send what has gathered by then; False if there is none."""
        if self.closing:
            return False
        self._before_output.append(callback)
        self._wake()
        return True

    def gather(self) -> None:
        """Have everything sent that waits for output to be taken; to be called before that."""
        while self._before_output:
            self._before_output.popleft()()

    def ping(self) -> None:
        """Ask for a sign of life; any frame that comes back is one."""
        self._write(frame(frames.PING, 0, 0, bytes(8)))

    @property
    def greeted(self) -> bool:
        """Whether the other end has begun as HTTP/2 has it."""
        return self._settings_seen

    @property
    def is_idle(self) -> bool:
        """Whether no stream is under way."""
        return not self._streams

    @property
    def backlog_bytes(self) -> int:
        """About how much waits for the other end."""
        return self._backlog_bytes

    def count(self) -> int:
        """How many bytes are kept for the other end; by a step more than that, and `grown` is called."""
        self._backlog_bytes_noticed = min(self._backlog_bytes + COUNTED_BYTES, self._limits.backlog_bytes)
        return self._backlog_bytes

    def lost(self) -> None:
        """The connection is gone. Who works on its calls may hold on to it, but not to what it was to send."""
        self._close()
        self._output.clear()
        self._backlog_bytes = 0

    def _close(self) -> None:
        """Read nothing more, and send no more than what is in the output."""
        self.closing = True
        self.gather()  # into nothing: who gathers is free to go on elsewhere
        self._when_drained.clear()
        streams, self._streams = self._streams, {}
        self._blocked.clear()
        for stream in streams.values():
            self._forget(stream)
            self._cancel(stream)

    # What consumers call. All of it is without effect on a stream that has ended.

    def send_data(self, stream: Stream, data: bytes) -> None:
        """More data of an answer."""
        number, size = stream.number, len(data)
        if number not in self._streams:
            return
        if not stream.pending and self._fits(stream, size):
            stream.send_window -= size
            self._send_window -= size
            self._write(frame(frames.DATA, 0, number, data))
        else:
            stream.pending.append((data, False))
            self._backlog_bytes += size + PIECE_BYTES
            if number not in self._blocked:
                self._advance(stream)
        self._check_backlog()

    def rest(self, stream: Stream) -> None:
        """Let the other end send no more on this stream than it may already, until `go_on`."""
        stream.resting = True

    def go_on(self, stream: Stream) -> None:
        """Take more again."""
        stream.resting = False
        if stream.number in self._streams and not stream.remote_ended:
            self._give_back(stream)

    # Reading.

    def _parse(self, buffer: bytes) -> None:
        at, end = 0, len(buffer)
        if self._preface:
            if not buffer.startswith(self._preface[:end]):
                raise ProtocolError(Code.PROTOCOL_ERROR, "this is not HTTP/2")
            if end < len(self._preface):
                self._buffer = buffer
                return
            at, self._preface = len(self._preface), b""
        while end - at >= frames.HEADER_BYTES and not self.closing:
            size, kind, flags, number = frames.parse_head(buffer, at)
            if size > frames.FRAME_BYTES_MAX:
                raise ProtocolError(Code.FRAME_SIZE_ERROR, f"a frame of {size} bytes")
            begin = at + frames.HEADER_BYTES
            if end < begin + size:
                break
            at = begin + size
            self._handle(kind, flags, number, buffer[begin:at])
        self._buffer = buffer[at:]

    def _handle(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        if self._block is not None and kind != frames.CONTINUATION:
            raise ProtocolError(Code.PROTOCOL_ERROR, "a header block was not continued")
        if not self._settings_seen and kind != frames.SETTINGS:
            raise ProtocolError(Code.PROTOCOL_ERROR, "a connection begins with settings")
        if kind == frames.DATA:
            self._data(flags, number, payload)
        elif kind == frames.HEADERS:
            self._headers(flags, number, payload)
        elif kind == frames.WINDOW_UPDATE:
            self._window_update(number, frames.parse_word(payload) & frames.WINDOW_MAX)
        elif kind == frames.RST_STREAM:
            self._reset(number, payload)
        elif kind == frames.SETTINGS:
            self._settings(flags, number, payload)
        elif kind == frames.PING:
            self._ping(flags, number, payload)
        elif kind == frames.CONTINUATION:
            self._continuation(flags, number, payload)
        elif kind == frames.GOAWAY:
            self._away(payload)
        elif kind == frames.PUSH_PROMISE:
            raise ProtocolError(Code.PROTOCOL_ERROR, "nothing may be pushed here")

    def _data(self, flags: int, number: int, payload: bytes) -> None:
        size = len(payload)
        self._credit += size
        if self._credit * 2 > self._limits.connection_window_bytes:
            self._write(frames.window_update(0, self._credit))
            self._credit = 0
        data = frames.unpad(flags, payload)
        stream = self._streams.get(number)
        if stream is None:
            self._check_not_idle(number)
            return
        if stream.remote_ended:
            raise ProtocolError(Code.STREAM_CLOSED, "data after the end of its stream")
        stream.credit += size
        if flags & frames.END_STREAM:
            stream.remote_ended = True
        elif stream.credit > self._grant_bytes:
            self._give_back(stream)
        if stream.consumer is not None:
            stream.consumer.received(data, stream.remote_ended)

    def _give_back(self, stream: Stream) -> None:
        """Let a stream's data be followed by as much again, once that is worth a frame."""
        if stream.credit <= self._grant_bytes:
            return
        if stream.resting:
            if stream.credit > self._limits.stream_window_bytes:
                raise ProtocolError(Code.FLOW_CONTROL_ERROR, "more data than the window of its stream allows")
            return
        self._write(frames.window_update(stream.number, stream.credit))
        stream.credit = 0

    def _headers(self, flags: int, number: int, payload: bytes) -> None:
        block = frames.unpad(flags, payload)
        if flags & frames.PRIORITIZED:
            if len(block) < 5:
                raise ProtocolError(Code.FRAME_SIZE_ERROR, "a priority of less than 5 bytes")
            block = block[5:]
        if flags & frames.END_HEADERS:
            self._block_complete(flags, number, block)
        else:
            self._block = (number, flags, bytearray(block))

    def _continuation(self, flags: int, number: int, payload: bytes) -> None:
        if self._block is None or self._block[0] != number:
            raise ProtocolError(Code.PROTOCOL_ERROR, "there is no header block to continue")
        _, first_flags, block = self._block
        block += payload
        if len(block) > HEADER_LIST_BYTES_MAX or not payload:
            raise ProtocolError(Code.ENHANCE_YOUR_CALM, "a header block without end")
        if flags & frames.END_HEADERS:
            self._block = None
            self._block_complete(first_flags, number, bytes(block))

    def _window_update(self, number: int, grant: int) -> None:
        if grant == 0:
            raise ProtocolError(Code.PROTOCOL_ERROR, "a window update of nothing")
        if number == 0:
            self._send_window += grant
            if self._send_window > frames.WINDOW_MAX:
                raise ProtocolError(Code.FLOW_CONTROL_ERROR, "a window beyond the largest")
            self._advance_blocked()
            return
        stream = self._streams.get(number)
        if stream is None:
            self._check_not_idle(number)
            return
        stream.send_window += grant
        if stream.send_window > frames.WINDOW_MAX:
            raise ProtocolError(Code.FLOW_CONTROL_ERROR, "a window beyond the largest")
        if stream.pending:
            self._advance(stream)

    def _settings(self, flags: int, number: int, payload: bytes) -> None:
        if number:
            raise ProtocolError(Code.PROTOCOL_ERROR, "settings of a stream")
        if flags & frames.ACK:
            if payload:
                raise ProtocolError(Code.FRAME_SIZE_ERROR, "an acknowledgement with settings")
            return
        self._settings_seen = True
        self._settings_left -= 1
        if self._settings_left < 0:
            raise ProtocolError(Code.ENHANCE_YOUR_CALM, "too many changes of settings")
        window = self._stream_send_window
        for name, value in frames.parse_settings(payload):
            if name == frames.INITIAL_WINDOW_SIZE:
                if value > frames.WINDOW_MAX:
                    raise ProtocolError(Code.FLOW_CONTROL_ERROR, "a window beyond the largest")
                window = value
            elif name == frames.ENABLE_PUSH and value > 1:
                raise ProtocolError(Code.PROTOCOL_ERROR, f"enable push: {value}")
            elif name == frames.MAX_FRAME_SIZE and not frames.FRAME_BYTES_MAX <= value < 1 << 24:
                raise ProtocolError(Code.PROTOCOL_ERROR, f"largest frame: {value}")
        self._write(frame(frames.SETTINGS, frames.ACK, 0, b""))
        if window != self._stream_send_window:
            self._resize_windows(window)

    def _resize_windows(self, size: int) -> None:
        change, self._stream_send_window = size - self._stream_send_window, size
        for stream in list(self._streams.values()):
            stream.send_window += change
            if stream.send_window > frames.WINDOW_MAX:
                raise ProtocolError(Code.FLOW_CONTROL_ERROR, "a window beyond the largest")
            if stream.pending:
                self._advance(stream)

    def _ping(self, flags: int, number: int, payload: bytes) -> None:
        if number:
            raise ProtocolError(Code.PROTOCOL_ERROR, "a ping of a stream")
        if len(payload) != 8:
            raise ProtocolError(Code.FRAME_SIZE_ERROR, f"a ping of {len(payload)} bytes")
        if not flags & frames.ACK:
            self._write(frame(frames.PING, frames.ACK, 0, payload))

    # Writing.

    def _write(self, data: bytes) -> None:
        if self.closing:
            return
        if not self._output:
            self._wake()
        self._output.append(data)
        self._backlog_bytes += len(data) + PIECE_BYTES

    def _fits(self, stream: Stream, size: int) -> bool:
        """Whether that much data may leave at once, in one frame."""
        return size <= stream.send_window and size <= self._send_window and size <= frames.FRAME_BYTES_MAX

    def _check_backlog(self) -> None:
        if self._backlog_bytes > self._backlog_bytes_noticed and not self.closing:
            if self._backlog_bytes > self._limits.backlog_bytes:
                self._end(ProtocolError(Code.ENHANCE_YOUR_CALM, "what is sent is not taken"))
            elif self._grown is not None:
                self._grown()

    def _advance_blocked(self) -> None:
        for _ in range(len(self._blocked)):
            if self._send_window <= 0:
                break
            self._advance(next(iter(self._blocked.values())))

    def _advance(self, stream: Stream) -> None:
        """Send what the windows allow of what is pending."""
        self._blocked.pop(stream.number, None)
        while stream.pending:
            data, ends = stream.pending.popleft()
            self._backlog_bytes -= len(data) + PIECE_BYTES
            if ends:
                self._write(frame(frames.HEADERS, frames.END_HEADERS | frames.END_STREAM, stream.number, data))
                self._ended(stream)
                return
            data = memoryview(data)
            while data:
                size = min(len(data), stream.send_window, self._send_window, frames.FRAME_BYTES_MAX)
                if size <= 0:
                    self._keep_pending(stream, data)
                    return
                stream.send_window -= size
                self._send_window -= size
                self._write(frame(frames.DATA, 0, stream.number, data[:size]))
                data = data[size:]

    def _keep_pending(self, stream: Stream, data: memoryview) -> None:
        """The rest of a piece waits for a window: for the stream's, or at the end of those that wait for the other."""
        stream.pending.appendleft((data, False))
        self._backlog_bytes += len(data) + PIECE_BYTES
        if stream.send_window > 0:
            self._blocked[stream.number] = stream

    def _forget(self, stream: Stream) -> None:
        self._blocked.pop(stream.number, None)
        self._backlog_bytes -= sum(len(data) + PIECE_BYTES for data, _ in stream.pending)
        stream.pending.clear()

    def _end(self, error: ProtocolError) -> None:
        """The other end broke the rules: say why, and read nothing more."""
        self._write(frames.go_away(self._last_stream, error.code, str(error)))
        self._close()
