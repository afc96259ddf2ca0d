"""A client's end of a connection that carries one streaming call of gRPC, without I/O.

Streams to nodes are few and long, so each has a connection of its own: the call begins with it, and ends it. Messages
are handed over as they come, within `receive`; the end is told once, after the last of them, whatever it came from: a
status, a reset, a GOAWAY that excludes the call, a server that breaks the protocol, or the loss of the connection.

A server is trusted no more than a client is: beside what `Endpoint` bounds, a message has at most so many bytes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import final

from isochrone.errors import InvariantViolation
from isochrone.wire.http2 import frames
from isochrone.wire.http2.calls import INTERNAL, PREFIX_BYTES, RESOURCE_EXHAUSTED, UNAVAILABLE, UNKNOWN, prefixed
from isochrone.wire.http2.endpoint import Endpoint, Stream
from isochrone.wire.http2.frames import Code, ProtocolError, frame
from isochrone.wire.http2.headers import HEADER_LIST_BYTES_MAX, TEXT_CHARS_MAX, AnswerDecoder, request_block
from isochrone.wire.http2.limits import Limits

_STREAM = 1


@dataclass(frozen=True, slots=True)
class CallEnd:
    """How a call ended: a code of gRPC (0: well), and a text for people."""

    code: int
    text: str


@final
class ClientConnection(Endpoint):
    """See the module."""

    def __init__(
        self,
        authority: str,
        path: str,
        received: Callable[[bytes], None],
        ended: Callable[[CallEnd], None],
        wake: Callable[[], None],
        *,
        limits: Limits,
        message_bytes_max: int,
    ) -> None:
        """Begin the call of the method at `path`.

        Args:
            authority: `host:port` of the server.
            path: of the method, as `/etcdserverpb.Watch/Watch`.
            received: called with each message, from within `receive`.
            ended: called once, when nothing will come any more.
            wake: called when there is something to send.
            limits: of what the server may make us keep.
            message_bytes_max: of one message of the server.
        """
        super().__init__(wake, limits, b"")
        self._received = received
        self._tell_ended = ended
        self._message_bytes_max = message_bytes_max
        self._decoder = AnswerDecoder()
        self._partial = bytearray()
        """The beginning of a message that has not come as a whole."""
        self._needed = 0
        """How much of it there must be before it is looked at again."""
        self._answered = False
        """The headers of the answer have come."""
        self._end_reason = CallEnd(UNAVAILABLE, "the connection was closed")
        """What the end is, if the connection is lost now."""
        self._stream = self._streams[_STREAM] = Stream(_STREAM, self._stream_send_window, remote_ended=False)
        self._stream.consumer = self
        self._write(
            frames.PREFACE
            + frames.settings(
                (frames.ENABLE_PUSH, 0),
                (frames.INITIAL_WINDOW_SIZE, limits.stream_window_bytes),
                (frames.MAX_HEADER_LIST_SIZE, HEADER_LIST_BYTES_MAX),
            )
            + frames.window_update(0, limits.connection_window_bytes - frames.WINDOW_DEFAULT)
            + frame(frames.HEADERS, frames.END_HEADERS, _STREAM, request_block(authority, path))
        )

    def send(self, message: bytes) -> None:
        """Send one message; without effect when the call has ended."""
        self.send_data(self._stream, prefixed(message))

    def end(self, reason: CallEnd) -> None:
        """Give the call up, for this reason."""
        self._end_reason = reason
        self._close()

    # Reading.

    def received(self, data: bytes, ended: bool) -> None:
        """See `Consumer`."""
        if not self._answered:
            raise ProtocolError(Code.PROTOCOL_ERROR, "data before the headers of its answer")
        if self._partial:
            self._partial += data
            if len(self._partial) < self._needed:  # not looked at for every piece, be they of one byte
                data = b""
            else:
                data, self._partial = bytes(self._partial), bytearray()
        self._take_messages(data)
        if ended:
            self.end(CallEnd(UNKNOWN, "the call ended without a status"))

    def _take_messages(self, data: bytes) -> None:
        at, size = 0, len(data)
        while size - at >= PREFIX_BYTES and not self.closing:
            length = int.from_bytes(data[at + 1 : at + PREFIX_BYTES], "big")
            if data[at]:
                self.end(CallEnd(INTERNAL, "a compressed message, which was not asked for"))
                return
            if length > self._message_bytes_max:
                text = f"grpc: received message larger than max ({length} vs. {self._message_bytes_max})"
                self.end(CallEnd(RESOURCE_EXHAUSTED, text))
                return
            begin = at + PREFIX_BYTES
            if size < begin + length:
                break
            at = begin + length
            self._received(data[begin:at])
        if at < size and not self.closing:
            self._partial = bytearray(data[at:])
            known = size - at >= PREFIX_BYTES
            self._needed = PREFIX_BYTES + (int.from_bytes(self._partial[1:PREFIX_BYTES], "big") if known else 0)

    def cancelled(self) -> bool:
        """See `Consumer`."""
        self._partial.clear()
        self._tell_ended(self._end_reason)
        return False

    def _block_complete(self, flags: int, number: int, block: bytes) -> None:
        self._check_not_idle(number)
        said = self._decoder.decode(block)
        ended = bool(flags & frames.END_STREAM)
        if self._answered and not ended:
            raise ProtocolError(Code.PROTOCOL_ERROR, "headers inside a stream")
        if not self._answered and said.http_status != "200":
            self.end(CallEnd(UNKNOWN, f"this is no answer of gRPC: its HTTP status is {said.http_status}"))
            return
        self._answered = True
        if ended and said.grpc_status is None:
            self.end(CallEnd(UNKNOWN, "the call ended without a status"))
        elif ended and self._partial:
            self.end(CallEnd(INTERNAL, "the call ended amid a message"))
        elif ended:
            self.end(CallEnd(said.grpc_status or 0, said.message))

    def _reset(self, number: int, payload: bytes) -> None:
        code = frames.parse_word(payload)
        self._check_not_idle(number)
        self.end(CallEnd(UNAVAILABLE, f"the server reset the stream, with the code {code}"))

    def _away(self, payload: bytes) -> None:
        last, code, text = frames.parse_go_away(payload)
        why = text[:TEXT_CHARS_MAX] or ("it shuts down" if code == Code.NO_ERROR else f"code {code}")
        reason = CallEnd(UNAVAILABLE, f"the server goes away: {why}")
        if last < _STREAM:
            self.end(reason)
        else:  # what is under way goes on, until the connection ends
            self._end_reason = reason

    def _check_not_idle(self, number: int) -> None:
        if number != _STREAM:
            raise ProtocolError(Code.PROTOCOL_ERROR, f"stream {number} was not opened")

    # Writing.

    def _ended(self, stream: Stream) -> None:
        raise InvariantViolation("our side of the call ends with its connection")

    def _cancel(self, stream: Stream) -> None:
        self.cancelled()

    def _end(self, error: ProtocolError) -> None:
        self._end_reason = CallEnd(UNAVAILABLE, f"it breaks the protocol: {error}")
        super()._end(error)
