"""The smallest HTTP/2 client that can load a gRPC server from Python: prepared headers, no decoding of theirs.

`h2load` repeats one request; this client can follow one call by another, and reads streams. A call costs it about
20 us, where grpc.aio takes ten times as much and would hide what a fast server can do.

It trusts its server and is for loopback only. Of flow control it keeps what matters: it grants the server windows as
large as there are, and holds back what exceeds the connection's window. A stream's own window is not counted, so no
more than `STREAM_BYTES_MAX` may go up one stream. Headers of answers are not decoded: a call without a message in its
answer has failed, and why is for a real client to find out.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import final

from h2load import length_prefixed

STREAM_BYTES_MAX = 65_535
_WINDOW_MAX = (1 << 31) - 1
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING, _GOAWAY, _WINDOW_UPDATE, _CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
_END_STREAM, _ACK, _END_HEADERS, _PADDED = 1, 1, 4, 8


class CallFailed(Exception):
    """The server refused a call, or the connection broke."""


class Stream:
    """One call under way. `received` gets each message, `ended` is called once, with whether the stream was reset."""

    __slots__ = ("buffer", "ended", "number", "received")

    def __init__(self, number: int, received: Callable[[bytes], None], ended: Callable[[bool], None]) -> None:
        self.number = number
        self.received = received
        self.ended = ended
        self.buffer = b""


@final
class Connection(asyncio.Protocol):
    """One connection; made by `connect`."""

    def __init__(self, authority: str) -> None:
        self._authority = authority
        self._transport: asyncio.Transport | None = None
        self._streams: dict[int, Stream] = {}
        self._next = 1
        self._buffer = b""
        self._window = STREAM_BYTES_MAX
        self._held: deque[bytes] = deque()
        """Data frames that wait for the connection's window."""
        self._unacknowledged = 0
        self._headers: dict[str, bytes] = {}

    def open(self, path: str, received: Callable[[bytes], None], ended: Callable[[bool], None]) -> Stream:
        """Begin a call."""
        stream = Stream(self._next, received, ended)
        self._next += 2
        self._streams[stream.number] = stream
        block = self._headers.get(path)
        if block is None:
            block = self._headers[path] = header_block(path, self._authority)
        self._write(frame(_HEADERS, _END_HEADERS, stream.number, block))
        return stream

    def send(self, stream: Stream, message: bytes, *, end: bool = False) -> None:
        """Send one message; `end`: the last one."""
        data = frame(_DATA, _END_STREAM if end else 0, stream.number, length_prefixed(message))
        self._held.append(data)
        self._release()

    def call(self, path: str, message: bytes) -> "asyncio.Future[bytes]":
        """A unary call. The result is the answer's bytes; raises `CallFailed`."""
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

        def ended(reset: bool) -> None:
            if not answer.done():
                answer.set_exception(CallFailed(f"{path} was {'reset' if reset else 'refused'}"))

        self.send(
            self.open(path, lambda data: None if answer.done() else answer.set_result(data), ended), message, end=True
        )
        return answer

    def close(self) -> None:
        """Close the connection; calls under way fail."""
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        initial_window = (4).to_bytes(2, "big") + _WINDOW_MAX.to_bytes(4, "big")
        grant = (_WINDOW_MAX - STREAM_BYTES_MAX).to_bytes(4, "big")
        self._write(PREFACE + frame(_SETTINGS, 0, 0, initial_window) + frame(_WINDOW_UPDATE, 0, 0, grant))

    def connection_lost(self, error: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        streams, self._streams = self._streams, {}
        for stream in streams.values():
            stream.ended(True)

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        buffer = self._buffer + data if self._buffer else data
        at, end = 0, len(buffer)
        while end - at >= 9:
            size = int.from_bytes(buffer[at : at + 3], "big")
            if end - at < 9 + size:
                break
            number = int.from_bytes(buffer[at + 5 : at + 9], "big")
            self._handle(buffer[at + 3], buffer[at + 4], number, buffer[at + 9 : at + 9 + size])
            at += 9 + size
        self._buffer = buffer[at:]

    def _handle(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        if kind == _DATA:
            self._data(flags, number, payload)
        elif kind in (_HEADERS, _CONTINUATION):
            if flags & _END_STREAM and kind == _HEADERS:
                self._end(number, reset=False)
        elif kind == _RST_STREAM:
            self._end(number, reset=True)
        elif kind == _WINDOW_UPDATE and number == 0:
            self._window += int.from_bytes(payload, "big")
            self._release()
        elif kind == _SETTINGS and not flags & _ACK:
            self._write(frame(_SETTINGS, _ACK, 0, b""))
        elif kind == _PING and not flags & _ACK:
            self._write(frame(_PING, _ACK, 0, payload))
        elif kind == _GOAWAY:
            self.close()

    def _data(self, flags: int, number: int, payload: bytes) -> None:
        self._unacknowledged += len(payload)
        if self._unacknowledged > 1 << 20:
            self._write(frame(_WINDOW_UPDATE, 0, 0, self._unacknowledged.to_bytes(4, "big")))
            self._unacknowledged = 0
        if flags & _PADDED:
            payload = payload[1 : len(payload) - payload[0]]
        stream = self._streams.get(number)
        if stream is not None:
            buffer = stream.buffer + payload if stream.buffer else payload
            at = 0
            while len(buffer) - at >= 5:
                end = at + 5 + int.from_bytes(buffer[at + 1 : at + 5], "big")
                if end > len(buffer):
                    break
                stream.received(buffer[at + 5 : end])
                at = end
            stream.buffer = buffer[at:]
        if flags & _END_STREAM:
            self._end(number, reset=False)

    def _end(self, number: int, *, reset: bool) -> None:
        stream = self._streams.pop(number, None)
        if stream is not None:
            stream.ended(reset)

    def _release(self) -> None:
        while self._held and len(self._held[0]) - 9 <= self._window:
            data = self._held.popleft()
            self._window -= len(data) - 9
            self._write(data)

    def _write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)


async def connect(address: str) -> Connection:
    """Connect to `host:port`."""
    host, _, port = address.rpartition(":")
    _, connection = await asyncio.get_running_loop().create_connection(lambda: Connection(address), host, int(port))
    return connection


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """An HTTP/2 frame (RFC 9113, section 4.1)."""
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def header_block(path: str, authority: str) -> bytes:
    """The headers of a gRPC call, encoded without a dynamic table (RFC 7541): POST, http, path, authority, type, te."""
    block = b"\x83\x86" + literal(b"\x04", path) + literal(b"\x01", authority)
    return block + literal(b"\x0f\x10", "application/grpc") + literal(b"\x00\x02te", "trailers")


def literal(name: bytes, value: str) -> bytes:
    """A header that enters no table: its name, encoded already, and its value."""
    data = value.encode("ascii")
    if len(data) > 126:
        raise ValueError(f"{value!r} is too long for a length of one byte")
    return name + bytes((len(data),)) + data
