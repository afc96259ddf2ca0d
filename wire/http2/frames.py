"""Frames of HTTP/2 (RFC 9113, sections 4, 6 and 7): numbers, limits, and turning frames into bytes."""

from enum import IntEnum
from struct import Struct, error

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
"""What a client sends first."""
HEADER_BYTES = 9
FRAME_BYTES_MAX = 16_384
"""The largest payload of a frame, in both directions unless the client allows more; it is not needed."""
WINDOW_DEFAULT = 65_535
WINDOW_MAX = (1 << 31) - 1

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
"""Types of frames."""
END_STREAM, ACK, END_HEADERS, PADDED, PRIORITIZED = 0x1, 0x1, 0x4, 0x8, 0x20
"""Flags of frames."""
HEADER_TABLE_SIZE, ENABLE_PUSH, MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE, MAX_HEADER_LIST_SIZE = (
    range(1, 7)
)
"""Settings."""

_HEAD = Struct(">HBBBL")
_SETTING = Struct(">HL")
_PAIR = Struct(">LL")
_WORD = Struct(">L")


class Code(IntEnum):
    """Why a stream or a connection ends."""

    NO_ERROR = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2
    FLOW_CONTROL_ERROR = 3
    STREAM_CLOSED = 5
    FRAME_SIZE_ERROR = 6
    REFUSED_STREAM = 7
    CANCEL = 8
    COMPRESSION_ERROR = 9
    ENHANCE_YOUR_CALM = 11


class ProtocolError(Exception):
    """The other end broke the protocol: the connection ends."""

    def __init__(self, code: Code, text: str) -> None:
        super().__init__(text)
        self.code = code


def frame(kind: int, flags: int, stream: int, payload: bytes | memoryview) -> bytes:
    """A frame as bytes."""
    size = len(payload)
    return _HEAD.pack(size >> 8, size & 0xFF, kind, flags, stream) + payload


def parse_head(buffer: bytes, at: int) -> tuple[int, int, int, int]:
    """Size of the payload, type, flags and stream of the frame that begins at `at`."""
    high, low, kind, flags, stream = _HEAD.unpack_from(buffer, at)
    return high << 8 | low, kind, flags, stream & WINDOW_MAX


def settings(*pairs: tuple[int, int]) -> bytes:
    """A SETTINGS frame."""
    return frame(SETTINGS, 0, 0, b"".join(_SETTING.pack(*pair) for pair in pairs))


def parse_settings(payload: bytes) -> list[tuple[int, int]]:
    """The pairs of a SETTINGS frame."""
    if len(payload) % _SETTING.size:
        raise ProtocolError(Code.FRAME_SIZE_ERROR, f"settings of {len(payload)} bytes")
    return list(_SETTING.iter_unpack(payload))


def window_update(stream: int, grant: int) -> bytes:
    """Let the other end send so many bytes more."""
    return frame(WINDOW_UPDATE, 0, stream, _WORD.pack(grant))


def reset_stream(stream: int, code: Code) -> bytes:
    """End a stream at once."""
    return frame(RST_STREAM, 0, stream, _WORD.pack(code))


def go_away(last_stream: int, code: Code, text: str = "") -> bytes:
    """Tell that streams above the last one named are not served."""
    return frame(GOAWAY, 0, 0, _PAIR.pack(last_stream, code) + text.encode())


def parse_go_away(payload: bytes) -> tuple[int, int, str]:
    """The last stream that is served, the code and the text of a GOAWAY."""
    if len(payload) < _PAIR.size:
        raise ProtocolError(Code.FRAME_SIZE_ERROR, f"a GOAWAY of {len(payload)} bytes")
    last, code = _PAIR.unpack_from(payload)
    return last & WINDOW_MAX, code, payload[_PAIR.size :].decode(errors="replace")


def parse_word(payload: bytes) -> int:
    """The one number that a frame holds."""
    try:
        (word,) = _WORD.unpack(payload)
    except error:
        raise ProtocolError(Code.FRAME_SIZE_ERROR, f"{len(payload)} bytes where 4 belong") from None
    return int(word)


def unpad(flags: int, payload: bytes) -> bytes:
    """The payload without its padding."""
    if not flags & PADDED:
        return payload
    if not payload or payload[0] >= len(payload):
        raise ProtocolError(Code.PROTOCOL_ERROR, "padding as long as its frame")
    return payload[1 : len(payload) - payload[0]]
