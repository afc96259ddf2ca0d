"""What headers say, also when the table that both ends keep changes between them."""

import pytest
from hpack import Decoder, Encoder

from isochrone.wire.http2.frames import Code, ProtocolError
from isochrone.wire.http2.headers import (
    ANSWER,
    OK_TRAILERS,
    TEXT_CHARS_MAX,
    HeaderDecoder,
    RequestHeaders,
    error_answer,
    error_trailers,
    http_refusal,
)

CALL = [
    (":method", "POST"),
    (":scheme", "http"),
    (":path", "/etcdserverpb.KV/Put"),
    (":authority", "localhost"),
    ("content-type", "application/grpc"),
    ("te", "trailers"),
]


def with_fields(**fields: str) -> list[tuple[str, str]]:
    """A call's headers with some replaced (`_` stands for `-`, and `method` for `:method`)."""
    changed = {
        (f":{name}" if f":{name}" in dict(CALL) else name.replace("_", "-")): text for name, text in fields.items()
    }
    return list((dict(CALL) | changed).items())


def decode(fields: list[tuple[str, str]]) -> RequestHeaders | None:
    return HeaderDecoder().decode(Encoder().encode(fields))


def test_a_call() -> None:
    assert decode(CALL) == RequestHeaders("/etcdserverpb.KV/Put", None)


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        ("1H", 3_600 * 10**9),
        ("2M", 120 * 10**9),
        ("99999999S", 99_999_999 * 10**9),
        ("5m", 5_000_000),
        ("7u", 7000),
        ("0n", 0),
    ],
)
def test_how_long_a_client_waits(text: str, nanoseconds: int) -> None:
    assert decode(with_fields(grpc_timeout=text)) == RequestHeaders("/etcdserverpb.KV/Put", nanoseconds)


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"method": "GET"}, 405),
        ({"content_type": "application/json"}, 415),
        ({"content_type": "application/grpcx"}, 415),
        ({"grpc_timeout": "123456789S"}, 400),
        ({"grpc_timeout": "1s"}, 400),
        ({"grpc_timeout": "-1S"}, 400),
    ],
)
def test_what_is_no_call_of_grpc_is_refused_as_http(fields: dict[str, str], status: int) -> None:
    headers = decode(with_fields(**fields))
    assert headers is not None and headers.refusal is not None and headers.refusal[0] == status


@pytest.mark.parametrize("kind", ["application/grpc", "application/grpc+proto", "application/grpc;x=y"])
def test_types_of_content_that_are_calls(kind: str) -> None:
    assert decode(with_fields(content_type=kind)) == RequestHeaders("/etcdserverpb.KV/Put", None)


@pytest.mark.parametrize(
    "fields",
    [
        CALL[1:],
        [*CALL, (":path", "/other")],
        [("te", "trailers"), *CALL],
        [*CALL, ("Upper", "case")],
        [field for field in CALL if field[0] != ":path"],
    ],
)
def test_malformed_requests(fields: list[tuple[str, str]]) -> None:
    assert decode(fields) is None


def ordered(path_field: bytes) -> bytes:
    """A block of a call, with the path as the given field."""
    return b"\x83\x86" + path_field + b"\x0f\x10\x10application/grpc"


def test_the_same_bytes_after_a_change_of_the_table_are_read_anew() -> None:
    # Entry 62 is the newest of the table, and 63 the one before: byte 0xbe says what was put there last.
    decoder = HeaderDecoder()
    decoder.decode(ordered(b"\x44\x02/a"))
    assert decoder.decode(ordered(b"\xbe")) == decoder.decode(ordered(b"\xbe")) == RequestHeaders("/a", None)
    decoder.decode(ordered(b"\x44\x02/b"))
    assert decoder.decode(ordered(b"\xbe")) == RequestHeaders("/b", None)
    assert decoder.decode(ordered(b"\xbf")) == RequestHeaders("/a", None)
    malformed = b"\x83\x86\x0f\x10\x10application/grpc\x44\x02/c"  # a pseudo-header after a regular one
    assert decoder.decode(malformed) is None
    assert decoder.decode(ordered(b"\xbe")) == RequestHeaders("/c", None), "the table has it all the same"


def test_a_table_of_one_entry_is_watched_too() -> None:
    """A new entry may drop the old one, so that there are as many as before."""
    long = b"/" + b"x" * 4000
    field = b"\x44\x7f" + bytes(((len(long) - 127) & 127 | 128, (len(long) - 127) >> 7)) + long
    decoder = HeaderDecoder()
    decoder.decode(ordered(field))
    assert decoder.decode(ordered(b"\xbe")) == RequestHeaders(long.decode(), None)
    decoder.decode(ordered(b"\x44\x7f" + field[2:4] + long[:-1] + b"y"))
    found = decoder.decode(ordered(b"\xbe"))
    assert found is not None and found.path.endswith("y")


@pytest.mark.parametrize(
    "block", [b"\xff\xff\xff\xff\xff\xff", b"\xbe", b"\x44\x7f", Encoder().encode([("x", "y" * 20_000)])]
)
def test_what_cannot_be_decoded_ends_the_connection(block: bytes) -> None:
    with pytest.raises(ProtocolError) as found:
        HeaderDecoder().decode(block)
    assert found.value.code is Code.COMPRESSION_ERROR


def test_kept_blocks_are_bounded() -> None:
    decoder = HeaderDecoder()
    for number in range(2000):
        path = b"/%d" % number
        block = b"\x83\x86\x04" + bytes((len(path),)) + path + b"\x0f\x10\x10application/grpc"
        assert decoder.decode(block) == RequestHeaders(path.decode(), None)
    assert len(decoder._kept) <= 256


@pytest.mark.parametrize(
    ("block", "fields"),
    [
        (ANSWER, {":status": "200", "content-type": "application/grpc"}),
        (OK_TRAILERS, {"grpc-status": "0"}),
        (error_trailers(5, "not here"), {"grpc-status": "5", "grpc-message": "not here"}),
        (error_trailers(13, "100 % of é\n"), {"grpc-status": "13", "grpc-message": "100 %25 of %C3%A9%0A"}),
        (error_trailers(2, "x" * 5000), {"grpc-status": "2", "grpc-message": "x" * TEXT_CHARS_MAX}),
        (
            error_answer(14, "gone"),
            {":status": "200", "content-type": "application/grpc", "grpc-status": "14", "grpc-message": "gone"},
        ),
        (http_refusal(415, "why"), {":status": "415", "content-type": "text/plain", "x-reason": "why"}),
    ],
)
def test_answers_are_what_a_client_decodes(block: bytes, fields: dict[str, str]) -> None:
    assert {str(name): str(value) for name, value in Decoder().decode(block)} == fields
