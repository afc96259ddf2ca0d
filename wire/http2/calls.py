"""Calls of gRPC on the streams of a connection: messages in, messages out, and a status at the end.

A handler of a unary method is called with the whole request and answers whenever it likes; one of a streaming method
gets messages as they come. Both run in the connection's own turn, as plain functions: whoever has to wait keeps the
call, and answers later.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol, final

from isochrone.wire.http2.connection import Connection
from isochrone.wire.http2.endpoint import Consumer, Stream
from isochrone.wire.http2.frames import Code
from isochrone.wire.http2.headers import ANSWER, OK_TRAILERS, RequestHeaders, error_answer, error_trailers

PREFIX_BYTES = 5
_NEVER = 1 << 62
PATH_CHARS_MAX = 200
"""So much of a method that does not exist is told back."""
CANCELLED, UNKNOWN, INVALID_ARGUMENT, RESOURCE_EXHAUSTED, FAILED_PRECONDITION, ABORTED = 1, 2, 3, 8, 9, 10
UNIMPLEMENTED, INTERNAL, UNAVAILABLE = 12, 13, 14
"""Codes of gRPC."""


class StreamHandler(Protocol):
    """Who takes the messages of one streaming call."""

    def message(self, message: bytes) -> None:
        """One message of the client."""

    def ended(self) -> None:
        """The client has said all. The call goes on until `finish` or `fail`."""

    def cancelled(self) -> None:
        """The client gave up, or is gone. Nothing that is sent arrives any more."""


@dataclass(frozen=True, slots=True)
class UnaryMethod:
    """A method with one request and one answer."""

    handle: "Callable[[Call, bytes], None]"
    """Must end each call, by `answer` or `fail`, even if it was cancelled: until then the client's place is taken."""


@dataclass(frozen=True, slots=True)
class StreamMethod:
    """A method in which one side streams, or both."""

    open: "Callable[[Call], StreamHandler]"


Methods = Mapping[str, UnaryMethod | StreamMethod]
"""By path, as `/etcdserverpb.KV/Put`."""


def acceptor(
    methods: Methods, message_bytes_max: int
) -> Callable[[Connection, Stream, RequestHeaders], Consumer | None]:
    """Takes the calls of these methods, with requests of at most so many bytes a message."""

    def accept(connection: Connection, stream: Stream, headers: RequestHeaders) -> Consumer | None:
        method = methods.get(headers.path)
        if method is None:
            connection.finish(stream, error_answer(UNIMPLEMENTED, f"unknown method {headers.path[:PATH_CHARS_MAX]}"))
            return None
        return Call(connection, stream, method, headers.timeout_ns, message_bytes_max)

    return accept


@final
class Call:
    """One call. What is sent after its end, or after the client gave up, is without effect."""

    __slots__ = (
        "_buffer",
        "_connection",
        "_handler",
        "_headers_sent",
        "_message_bytes_max",
        "_method",
        "_needed",
        "_over",
        "_stream",
        "_working",
        "cancelled_by_client",
        "timeout_ns",
    )

    def __init__(
        self,
        connection: Connection,
        stream: Stream,
        method: UnaryMethod | StreamMethod,
        timeout_ns: int | None,
        message_bytes_max: int,
    ) -> None:
        self._connection = connection
        self._stream = stream
        self._method = method
        self._message_bytes_max = message_bytes_max
        self._buffer: bytes | bytearray = b""
        self._needed = 0
        """How much must have come before the buffer is looked at again."""
        self._headers_sent = False
        self._working = False
        """A unary handler has the request and has not ended the call."""
        self._over = False
        self.cancelled_by_client = False
        self.timeout_ns = timeout_ns
        """How long the client waits, from the beginning of the call; None: for good."""
        self._handler = method.open(self) if isinstance(method, StreamMethod) else None

    # For handlers.

    @property
    def backlog_bytes(self) -> int:
        """About how much waits for this client, on all its streams."""
        return self._connection.backlog_bytes

    def call_when_drained(self, callback: Callable[[], None]) -> None:
        """See `Connection.call_when_drained`."""
        self._connection.call_when_drained(callback)

    def call_before_output(self, callback: Callable[[], None]) -> bool:
        """See `Connection.call_before_output`."""
        return self._connection.call_before_output(callback)

    def answer(self, message: bytes) -> None:
        """End a unary call with its answer."""
        if self._end():
            self._connection.answer(self._stream, ANSWER, prefixed(message), OK_TRAILERS)

    def send(self, message: bytes) -> None:
        """Send one message of a streaming call."""
        self._send(prefixed(message))

    def send_all(self, messages: Iterable[bytes]) -> None:
        """Send messages of a streaming call, which costs less than one after the other."""
        self._send(b"".join([prefixed(message) for message in messages]))

    def _send(self, data: bytes) -> None:
        if self._over or self.cancelled_by_client:
            return
        if not self._headers_sent:
            self._headers_sent = True
            self._connection.send_headers(self._stream, ANSWER)
        self._connection.send_data(self._stream, data)

    def finish(self) -> None:
        """End a streaming call well."""
        if self._end():
            self._connection.finish(self._stream, OK_TRAILERS if self._headers_sent else ANSWER + OK_TRAILERS)

    def fail(self, code: int, text: str) -> None:
        """End the call with an error: a code of gRPC, and a text for people."""
        if self._end():
            block = error_trailers(code, text) if self._headers_sent else error_answer(code, text)
            self._connection.finish(self._stream, block)

    def rest(self) -> None:
        """Take no more messages of a streaming call than the client may send already, until `go_on`."""
        self._connection.rest(self._stream)

    def go_on(self) -> None:
        """Take more again."""
        self._connection.go_on(self._stream)

    def reset(self) -> None:
        """End the call at once, whether or not the client has taken what was sent; after `fail`, too."""
        self._over = True
        self._drop(len(self._buffer))
        self._connection.reset(self._stream, Code.CANCEL)

    # For the connection.

    def received(self, data: bytes, ended: bool) -> None:
        """See `Consumer`."""
        if self._is_over():
            return
        held = len(self._buffer)
        if isinstance(self._buffer, bytearray):
            self._buffer += data
            if len(self._buffer) < self._needed and not ended:  # not looked at for every piece, be they of one byte
                self._connection.hold(len(data))
                return
            buffer = bytes(self._buffer)
        else:
            buffer = data
        at, size = 0, len(buffer)
        while size - at >= PREFIX_BYTES:
            length = int.from_bytes(buffer[at + 1 : at + PREFIX_BYTES], "big")
            if refusal := self._refusal(buffer[at], length):
                self._drop(held)
                self.fail(*refusal)
                return
            end = at + PREFIX_BYTES + length
            if end > size:
                break
            message, at = buffer[at + PREFIX_BYTES : end], end
            if self._handler is not None:
                self._handler.message(message)
                if self._is_over():
                    break
            elif at == size and ended:
                self._drop(held)
                self._work(message)
                return
            else:
                break  # more follows a unary request, or its end does
        if self._is_over():  # the handler ended the call
            self._drop(held)
            return
        self._keep(buffer if self._handler is None else buffer[at:], held, whole=self._handler is None and at > 0)
        if ended:
            self._ended()

    def cancelled(self) -> bool:
        """See `Consumer`."""
        self.cancelled_by_client = True
        self._drop(len(self._buffer))
        if self._handler is not None and not self._over:
            self._over = True
            self._handler.cancelled()
        return self._working

    def _ended(self) -> None:
        left, unary = bytes(self._buffer), self._handler is None
        self._drop(len(left))
        if unary and len(left) >= PREFIX_BYTES:
            length = int.from_bytes(left[1:PREFIX_BYTES], "big")
            if len(left) == PREFIX_BYTES + length:
                self._work(left[PREFIX_BYTES:])
                return
        if unary or left:
            self.fail(
                INTERNAL, "the request is not what its method takes: one whole message" if unary else "a torn message"
            )
        elif self._handler is not None:
            self._handler.ended()

    def _refusal(self, flag: int, length: int) -> tuple[int, str] | None:
        if flag:
            return UNIMPLEMENTED, "compressed messages are not taken"
        if length > self._message_bytes_max:
            text = f"grpc: received message larger than max ({length} vs. {self._message_bytes_max})"
            return RESOURCE_EXHAUSTED, text
        return None

    def _work(self, message: bytes) -> None:
        assert isinstance(self._method, UnaryMethod)
        self._working = True
        self._method.handle(self, message)

    def _is_over(self) -> bool:
        return self._over

    def _end(self) -> bool:
        """Whether the call ends by this, rather than before."""
        if self._over:
            return False
        self._over = True
        if self._working:
            self._working = False
            if self.cancelled_by_client:
                self._connection.work_ended()
        return not self.cancelled_by_client

    def _keep(self, rest: bytes, held: int, *, whole: bool) -> None:
        """Keep what is not yet a message; `whole`: or the request of a unary call whose end has not come."""
        self._buffer = bytearray(rest) if rest else b""
        if whole:
            self._needed = _NEVER
        elif len(rest) < PREFIX_BYTES:
            self._needed = PREFIX_BYTES
        else:
            self._needed = PREFIX_BYTES + int.from_bytes(rest[1:PREFIX_BYTES], "big")
        if len(rest) != held:
            self._connection.hold(len(rest) - held)

    def _drop(self, held: int) -> None:
        self._buffer = b""
        if held:
            self._connection.hold(-held)


def prefixed(message: bytes) -> bytes:
    """A message with the prefix that gRPC gives it: not compressed, its length."""
    return b"\0" + len(message).to_bytes(4, "big") + message
