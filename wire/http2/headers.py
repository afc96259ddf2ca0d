"""Header blocks (RFC 7541): what a request says, and the few blocks that an answer needs.

A client sends the same block again and again, once its table holds what it says. Decoding costs more than all else that
a call needs, so a block is decoded once as long as the table stays as it is: a block's meaning is a function of its
bytes and of the table, and the blocks that were kept are forgotten whenever one changes it. Answers use no table.
"""

import re
from dataclasses import dataclass
from typing import final
from urllib.parse import quote, unquote

from hpack import Decoder, HPACKError

from isochrone.wire.http2.frames import Code, ProtocolError

HEADER_LIST_BYTES_MAX = 16_384
KEPT_BLOCKS_MAX = 256
KEPT_BLOCK_BYTES_MAX = 1_024
"""Longer blocks are decoded whenever they come."""
TEXT_CHARS_MAX = 1_000
"""So much of an error's text is told: spelt for a header, it fits into a frame."""
TIMEOUT = re.compile(rb"(\d{1,8})([HMSmun])", re.ASCII)
GRPC_STATUS = re.compile(rb"\d{1,4}", re.ASCII)
UNIT_NS = {b"H": 3_600 * 10**9, b"M": 60 * 10**9, b"S": 10**9, b"m": 10**6, b"u": 10**3, b"n": 1}


@dataclass(frozen=True, slots=True)
class RequestHeaders:
    """What the headers of a gRPC call say."""

    path: str
    timeout_ns: int | None
    """How long the client will wait from now on; None: for good."""
    refusal: tuple[int, str] | None = None
    """An HTTP status and a text, if this is no call of gRPC."""


@final
class HeaderDecoder:
    """Decodes the blocks of one connection, in order."""

    def __init__(self) -> None:
        self._decoder = Decoder(HEADER_LIST_BYTES_MAX)
        self._kept: dict[bytes, RequestHeaders] = {}

    def decode(self, block: bytes) -> RequestHeaders | None:
        """What a request's block says; None if it is malformed, which ends the stream but not the connection.

        Raises:
            ProtocolError: the block cannot be decoded, so that the table is lost and with it the connection.
        """
        if (kept := self._kept.get(block)) is not None:
            return kept
        entries = self._decoder.header_table.dynamic_entries
        count, newest = len(entries), entries[0] if entries else None
        try:
            fields = [(bytes(name), bytes(value)) for name, value in self._decoder.decode(block, raw=True)]
        except HPACKError as error:
            raise ProtocolError(Code.COMPRESSION_ERROR, f"headers: {error}") from error
        headers = _parse(fields)
        if count != len(entries) or newest is not (entries[0] if entries else None):
            self._kept.clear()
        elif headers is not None and len(block) <= KEPT_BLOCK_BYTES_MAX:
            if len(self._kept) >= KEPT_BLOCKS_MAX:
                self._kept.clear()
            self._kept[block] = headers
        return headers


def _parse(fields: list[tuple[bytes, bytes]]) -> RequestHeaders | None:
    """What a list of headers says; None if it breaks the rules of RFC 9113, section 8.3."""
    said: dict[bytes, bytes] = {}
    regular = False
    for name, value in fields:
        pseudo = name.startswith(b":")
        if name != name.lower() or (pseudo and (regular or name in said)):
            return None
        regular = regular or not pseudo
        said[name] = value
    if not {b":method", b":scheme", b":path"} <= said.keys():
        return None
    path = said[b":path"].decode("latin-1")
    if said[b":method"] != b"POST":
        return RequestHeaders(path, None, (405, "gRPC calls are POST"))
    kind = said.get(b"content-type", b"")
    if kind != b"application/grpc" and not kind.startswith((b"application/grpc+", b"application/grpc;")):
        return RequestHeaders(path, None, (415, "gRPC calls have the content type application/grpc"))
    if b"grpc-timeout" not in said:
        return RequestHeaders(path, None)
    timeout = TIMEOUT.fullmatch(said[b"grpc-timeout"])
    if timeout is None:
        return RequestHeaders(path, None, (400, "malformed grpc-timeout"))
    return RequestHeaders(path, int(timeout[1]) * UNIT_NS[timeout[2]])


def _literal(name: bytes, value: bytes) -> bytes:
    """A header that enters no table, with its name spelt out."""
    return b"\0" + _length(len(name)) + name + _length(len(value)) + value


def _length(number: int) -> bytes:
    """A number with a prefix of seven bits (RFC 7541, section 5.1); its eighth bit says: not Huffman-coded."""
    if number < 127:
        return bytes((number,))
    number -= 127
    encoded = bytearray(b"\x7f")
    while number >= 128:
        encoded.append(number & 127 | 128)
        number >>= 7
    return bytes(encoded) + bytes((number,))


_POST_HTTP = b"\x83\x86"
_STATUS_200 = b"\x88"
_STATUS_NAME = b"\x08"
ANSWER = _STATUS_200 + _literal(b"content-type", b"application/grpc")
"""The headers before the first message of an answer."""
OK_TRAILERS = _literal(b"grpc-status", b"0")
"""The end of a call that did not fail."""


def error_trailers(code: int, text: str) -> bytes:
    """The end of a call that failed after messages were sent."""
    message = quote(text[:TEXT_CHARS_MAX], safe=" !\"#$&'()*+,-./:;<=>?@[\\]^_`{|}~").encode("ascii")
    return _literal(b"grpc-status", b"%d" % code) + _literal(b"grpc-message", message)


def error_answer(code: int, text: str) -> bytes:
    """A whole answer that is nothing but an error."""
    return ANSWER + error_trailers(code, text)


def http_refusal(status: int, text: str) -> bytes:
    """A whole answer to what is no call of gRPC."""
    spelt = _STATUS_NAME + _length(3) + b"%d" % status
    return spelt + _literal(b"content-type", b"text/plain") + _literal(b"x-reason", text.encode("ascii"))


def request_block(authority: str, path: str) -> bytes:
    """The headers of a call."""
    return (
        _POST_HTTP
        + _literal(b":path", path.encode("ascii"))
        + _literal(b":authority", authority.encode())
        + _literal(b"content-type", b"application/grpc")
        + _literal(b"te", b"trailers")
    )


@dataclass(frozen=True, slots=True)
class AnswerHeaders:
    """What a block of an answer says: its headers, its trailers, or both in one."""

    http_status: str | None
    grpc_status: int | None
    message: str


@final
class AnswerDecoder:
    """Decodes the blocks of one connection's answers, in order."""

    def __init__(self) -> None:
        self._decoder = Decoder(HEADER_LIST_BYTES_MAX)

    def decode(self, block: bytes) -> AnswerHeaders:
        """What a block says.

        Raises:
            ProtocolError: it cannot be decoded, or its status is no number.
        """
        try:
            fields = [(bytes(name), bytes(value)) for name, value in self._decoder.decode(block, raw=True)]
        except HPACKError as error:
            raise ProtocolError(Code.COMPRESSION_ERROR, f"headers: {error}") from error
        said = dict(fields)
        status = said.get(b"grpc-status")
        if status is not None and GRPC_STATUS.fullmatch(status) is None:
            raise ProtocolError(Code.PROTOCOL_ERROR, "a status that is no number")
        http_status = said.get(b":status")
        return AnswerHeaders(
            None if http_status is None else http_status.decode("latin-1"),
            None if status is None else int(status),
            unquote(said.get(b"grpc-message", b"").decode("latin-1"), errors="replace")[:TEXT_CHARS_MAX],
        )
