"""The client's end of an HTTP/2 connection in memory: says what it is told to, and reads what comes back."""

from collections.abc import Callable
from dataclasses import dataclass

from hpack import Decoder, Encoder

from isochrone.wire.http2 import frames
from isochrone.wire.http2.calls import Methods, acceptor
from isochrone.wire.http2.connection import Connection
from isochrone.wire.http2.limits import Limits

MESSAGE_BYTES_MAX = 100_000


@dataclass(frozen=True, slots=True)
class Frame:
    """A frame that the server sent."""

    kind: int
    flags: int
    stream: int
    payload: bytes


def parse(data: bytes) -> list[Frame]:
    """All frames in these bytes, which must be whole."""
    found, at = [], 0
    while at < len(data):
        size, kind, flags, stream = frames.parse_head(data, at)
        payload = data[at + 9 : at + 9 + size]
        assert len(payload) == size, "a torn frame"
        found.append(Frame(kind, flags, stream, payload))
        at += 9 + size
    return found


class Client:
    """A client and its server."""

    def __init__(
        self,
        methods: Methods,
        limits: Limits | None = None,
        *,
        begin: bool = True,
        message_bytes_max: int = MESSAGE_BYTES_MAX,
        grown: Callable[[], None] | None = None,
    ) -> None:
        self.wakes = 0
        self.connection = Connection(acceptor(methods, message_bytes_max), self._wake, limits or Limits(), grown)
        self.greeting = self.read()
        self._encoder, self._decoder = Encoder(), Decoder()
        self._next = 1
        if begin:
            self.connection.receive(frames.PREFACE + frames.settings())
            assert self.read() == [Frame(frames.SETTINGS, frames.ACK, 0, b"")]

    def headers(self, path: str = "/t/Echo", **fields: str) -> bytes:
        """The block of a call."""
        said = {":method": "POST", ":scheme": "http", ":path": path, "content-type": "application/grpc"}
        return self._encoder.encode(
            list((said | {name.replace("_", "-"): text for name, text in fields.items()}).items())
        )

    def open(self, path: str = "/t/Echo", *, end: bool = False, **fields: str) -> int:
        """Begin a call; returns its stream."""
        number, self._next = self._next, self._next + 2
        flags = frames.END_HEADERS | (frames.END_STREAM if end else 0)
        self.send(frames.HEADERS, flags, number, self.headers(path, **fields))
        return number

    def data(self, stream: int, data: bytes, *, end: bool = False) -> None:
        """More of a request."""
        self.send(frames.DATA, frames.END_STREAM if end else 0, stream, data)

    def call(self, message: bytes, path: str = "/t/Echo") -> int:
        """Make a unary call; returns its stream."""
        stream = self.open(path)
        self.data(stream, prefixed(message), end=True)
        return stream

    def send(self, kind: int, flags: int, stream: int, payload: bytes = b"") -> None:
        """Send any frame."""
        self.connection.receive(frames.frame(kind, flags, stream, payload))

    def read(self) -> list[Frame]:
        """What the server has sent since."""
        self.connection.gather()
        return parse(self.connection.take_output())

    def fields(self, frame: Frame) -> dict[str, str]:
        """What a HEADERS frame says."""
        assert frame.kind == frames.HEADERS
        return {str(name): str(text) for name, text in self._decoder.decode(frame.payload)}

    def refusal(self) -> tuple[frames.Code, str]:
        """With what the connection was ended: the last frame must be a GOAWAY, and nothing may follow."""
        last = self.read()[-1]
        assert last.kind == frames.GOAWAY and self.connection.closing
        self.connection.receive(frames.frame(frames.PING, 0, 0, bytes(8)))
        assert self.read() == []
        return frames.Code(int.from_bytes(last.payload[4:8], "big")), last.payload[8:].decode()

    def _wake(self) -> None:
        self.wakes += 1


def prefixed(message: bytes) -> bytes:
    """A message as gRPC sends it."""
    return b"\0" + len(message).to_bytes(4, "big") + message
