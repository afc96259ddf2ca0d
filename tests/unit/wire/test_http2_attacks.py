"""Known attacks on servers of HTTP/2: each ends with the code that the RFC has for it, and costs what is stated.

Work is counted, not timed: bytes kept, frames sent, calls begun. Where an attack once cost the square of its length,
the test is long enough to take minutes then.
"""

import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hpack import Encoder
from http2_client import MESSAGE_BYTES_MAX, Client, prefixed
from hypothesis import given, settings
from hypothesis import strategies as st

from isochrone.wire.http2 import frames
from isochrone.wire.http2.calls import Call, StreamMethod, UnaryMethod
from isochrone.wire.http2.frames import Code
from isochrone.wire.http2.headers import HEADER_LIST_BYTES_MAX, KEPT_BLOCK_BYTES_MAX, _literal
from isochrone.wire.http2.limits import Limits

SMALL = Limits(streams=50, request_bytes=1 << 20, backlog_bytes=1 << 20, resets=100, settings=100)


class Counted:
    """Methods that count what reaches them: `Echo` answers, `Keep` does not, `Stream` takes messages."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.opened = self.messages = self.cancels = 0
        self.methods = {
            "/t/Echo": UnaryMethod(lambda call, message: call.answer(message)),
            "/t/Keep": UnaryMethod(lambda call, _: self.calls.append(call)),
            "/t/Stream": StreamMethod(self._open),
        }

    def _open(self, _: Call) -> "Counted":
        self.opened += 1
        return self

    def message(self, _: bytes) -> None:
        self.messages += 1

    def ended(self) -> None:
        """Goes on."""

    def cancelled(self) -> None:
        self.cancels += 1


@contextmanager
def within(mebibytes: float) -> Iterator[None]:
    """What happens inside never holds more memory than this."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] <= mebibytes * (1 << 20)
    finally:
        tracemalloc.stop()


def flood(client: Client, kind: int, payload: bytes, count: int, *, flags: int = 0, stream: int = 0) -> int:
    """Send one frame again and again, never reading. Returns after how many pieces the server had enough."""
    piece = frames.frame(kind, flags, stream, payload) * 100
    for sent in range(count // 100):
        if client.connection.closing:
            return sent
        client.connection.receive(piece)
    return count


def test_rapid_reset() -> None:
    counted = Counted()
    client = Client(counted.methods, SMALL)
    for number in range(SMALL.resets + 1):
        stream = client.open("/t/Stream")
        client.send(frames.RST_STREAM, 0, stream, bytes(4))
        assert client.connection.closing is (number == SMALL.resets)
    assert client.refusal()[0] == Code.ENHANCE_YOUR_CALM
    assert counted.opened == counted.cancels == SMALL.resets + 1


def test_who_gives_up_no_more_calls_than_are_answered_may_go_on_for_ever() -> None:
    client = Client(Counted().methods, SMALL)
    for _ in range(5 * SMALL.resets):
        client.send(frames.RST_STREAM, 0, client.open("/t/Stream"), bytes(4))
        client.call(b"", "/t/Echo")
        client.read()
    assert not client.connection.closing


def test_work_that_was_given_up_takes_its_place_until_it_is_done() -> None:
    counted = Counted()
    client = Client(counted.methods, SMALL)
    for _ in range(SMALL.streams):
        client.send(frames.RST_STREAM, 0, client.call(b"", "/t/Keep"), bytes(4))
    client.read()
    refused = client.call(b"", "/t/Keep")
    (reset,) = client.read()
    assert (reset.kind, reset.stream) == (frames.RST_STREAM, refused)
    assert frames.parse_word(reset.payload) == Code.REFUSED_STREAM
    assert len(counted.calls) == SMALL.streams
    counted.calls[0].answer(b"")
    client.call(b"", "/t/Keep")
    assert len(counted.calls) == SMALL.streams + 1


@pytest.mark.parametrize(
    ("kind", "payload"),
    [(frames.PING, bytes(8)), (frames.SETTINGS, b"")],
    ids=["ping", "settings"],
)
def test_floods_that_want_acknowledgements(kind: int, payload: bytes) -> None:
    client = Client(Counted().methods, SMALL)
    with within(4):
        assert flood(client, kind, payload, 100_000) <= 200, "many small pieces weigh more than their bytes"
    assert client.refusal()[0] == Code.ENHANCE_YOUR_CALM


@pytest.mark.parametrize(
    ("kind", "payload", "flags", "stream"),
    [
        (frames.DATA, b"", 0, 1),
        (frames.DATA, b"\0", frames.PADDED, 1),
        (frames.PRIORITY, bytes(5), 0, 1),
        (99, b"unknown", 0, 1),
        (frames.WINDOW_UPDATE, b"\0\0\0\1", 0, 1),
        (frames.WINDOW_UPDATE, b"\0\0\0\1", 0, 0),
        (frames.RST_STREAM, bytes(4), 0, 3),
        (frames.PING, bytes(8), frames.ACK, 0),
    ],
    ids=["empty data", "padding", "priority", "unknown", "stream window", "window", "late reset", "pong"],
)
def test_floods_that_want_nothing_leave_nothing(kind: int, payload: bytes, flags: int, stream: int) -> None:
    counted = Counted()
    client = Client(counted.methods, SMALL)
    client.open("/t/Stream")
    client.send(frames.RST_STREAM, 0, client.open("/t/Stream"), bytes(4))
    client.read()
    with within(1):
        flood(client, kind, payload, 20_000, flags=flags, stream=stream)
    assert not client.connection.closing and counted.messages == 0
    client.connection.take_output()
    client.call(b"", "/t/Echo")
    assert len(client.read()) == 3, "the others of the client's calls go on"


def test_settings_look_at_every_stream_but_once_for_each_frame() -> None:
    kept = Counted()
    client = Client(kept.methods, Limits())
    for _ in range(2_000):
        client.open("/t/Stream")
    many = frames.settings(*[(frames.INITIAL_WINDOW_SIZE, 1_000 + number % 2) for number in range(2_700)])
    for _ in range(20):  # a million of changes to thousands of streams, if each were made
        client.connection.receive(many)
    assert not client.connection.closing


def test_a_header_block_without_end() -> None:
    for size in (1, 100, frames.FRAME_BYTES_MAX):
        client = Client(Counted().methods, SMALL)
        client.send(frames.HEADERS, 0, 1, b"")
        assert flood(client, frames.CONTINUATION, bytes(size), 100_000, stream=1) <= HEADER_LIST_BYTES_MAX // 100 + 1
        assert client.refusal()[0] == Code.ENHANCE_YOUR_CALM
    client = Client(Counted().methods, SMALL)
    client.send(frames.HEADERS, 0, 1, b"")
    client.send(frames.CONTINUATION, 0, 1, b"")
    assert client.refusal()[0] == Code.ENHANCE_YOUR_CALM


def test_a_header_block_that_swells() -> None:
    """A value of the table, named again and again by one byte (an HPACK bomb)."""
    client = Client(Counted().methods, SMALL)
    encoder = Encoder()
    bomb = encoder.encode([("x", "y" * 4_000)]) + b"\xbe" * 4_000
    with within(2):
        client.send(frames.HEADERS, frames.END_HEADERS, 1, bomb)
    assert client.refusal()[0] == Code.COMPRESSION_ERROR


def test_a_number_in_a_header_block_without_end() -> None:
    client = Client(Counted().methods, SMALL)
    client.send(frames.HEADERS, frames.END_HEADERS, 1, b"\xff" * 16_000)
    assert client.refusal()[0] == Code.COMPRESSION_ERROR


def test_long_blocks_that_are_all_different_are_not_kept() -> None:
    client = Client(Counted().methods, SMALL)
    said = {b":method": b"POST", b":scheme": b"http", b":path": b"/t/Echo", b"content-type": b"application/grpc"}
    spelt = b"".join(_literal(*each) for each in said.items())
    with within(2):
        for number in range(400):
            block = spelt + _literal(b"x", b"%08d" % number + bytes(10 * KEPT_BLOCK_BYTES_MAX))
            client.send(frames.HEADERS, frames.END_HEADERS | frames.END_STREAM, 2 * number + 1, block)
            assert not client.connection.closing
            client.connection.take_output()


def test_unknown_methods_are_not_told_back_at_length() -> None:
    client = Client(Counted().methods, SMALL)
    stream = client.open("/" + "%" * 3_000, end=True)
    (answer,) = [each for each in client.read() if each.stream == stream]
    assert len(answer.payload) < 1_000 and client.fields(answer)["grpc-status"] == "12"


def test_requests_that_never_end_are_bounded_together() -> None:
    client = Client(Counted().methods, SMALL)
    with within(4):
        while not client.connection.closing:
            stream = client.open("/t/Echo")
            client.data(stream, prefixed(bytes(MESSAGE_BYTES_MAX))[: frames.FRAME_BYTES_MAX])
    assert client.refusal()[0] == Code.ENHANCE_YOUR_CALM


def test_who_goes_beyond_the_bound_is_left_by_every_call() -> None:
    counted = Counted()
    client = Client(counted.methods, SMALL, message_bytes_max=SMALL.request_bytes)
    begun = [client.open("/t/Stream") for _ in range(3)]
    client.data(begun[0], b"\0")
    torn = prefixed(bytes(SMALL.request_bytes // 2 + 10_000))[:-1]
    for stream in begun[1:]:
        for at in range(0, len(torn), 10_000):
            client.data(stream, torn[at : at + 10_000])
    assert client.refusal()[0] == Code.ENHANCE_YOUR_CALM
    assert counted.cancels == 3


def test_a_message_in_pieces_of_a_byte_is_not_copied_for_each() -> None:
    counted = Counted()
    client = Client(counted.methods, Limits())
    message = prefixed(bytes(MESSAGE_BYTES_MAX))
    for path in ("/t/Stream", "/t/Echo"):
        stream = client.open(path)
        for byte in message[:-1]:
            client.data(stream, bytes((byte,)))
        client.read()
        client.data(stream, message[-1:], end=path == "/t/Echo")
        answered = {each.stream for each in client.read() if each.kind == frames.DATA}
        assert (counted.messages, answered) == (1, {stream} if path == "/t/Echo" else set())


@pytest.mark.parametrize(
    "request_", [b"\1\0\0\0\0", b"\0\xff\xff\xff\xff", b"\0\0\1\x86\xa1"], ids=["compressed", "4 GiB", "1 too long"]
)
@pytest.mark.parametrize("path", ["/t/Echo", "/t/Stream"])
def test_prefixes_that_are_not_taken_end_the_call_at_once(path: str, request_: bytes) -> None:
    client = Client(Counted().methods, SMALL)
    stream = client.open(path)
    client.data(stream, request_)
    told = [each for each in client.read() if each.kind == frames.HEADERS and each.stream == stream]
    assert client.fields(told[0])["grpc-status"] == ("12" if request_[0] else "8")
    assert not client.connection.closing and client.connection.is_idle


def test_a_window_opened_bit_by_bit_costs_what_is_sent() -> None:
    """Answers of megabytes, and a client that takes a byte at a time (CVE-2019-9511, 9517)."""
    size = 4 << 20
    client = Client({"/t/Big": UnaryMethod(lambda call, _: call.answer(bytes(size)))}, Limits())
    streams = [client.call(b"", "/t/Big") for _ in range(10)]
    client.read()
    grants = b"".join(frames.window_update(0, 1) + frames.window_update(stream, 1) for stream in streams)
    for _ in range(2_000):  # each would copy what is left
        client.connection.receive(grants)
    sent = client.read()
    assert sum(len(each.payload) for each in sent) == 2_000 * len(streams) and not client.connection.closing


def test_answers_that_wait_for_their_own_windows_are_in_nobodys_way() -> None:
    counted = Counted()
    client = Client(counted.methods, Limits())
    client.connection.receive(frames.settings((frames.INITIAL_WINDOW_SIZE, 0)))
    for _ in range(1_000):
        client.call(b"", "/t/Echo")
    client.read()
    grants = frames.window_update(0, 1) * 1_000
    for _ in range(20):  # each grant would look at a thousand streams
        client.connection.receive(grants)
    assert client.read() == []
    client.connection.receive(frames.settings((frames.INITIAL_WINDOW_SIZE, 100)))
    assert (
        len([each for each in client.read() if each.flags & frames.END_STREAM and each.kind == frames.HEADERS]) == 1_000
    )


@pytest.mark.parametrize("grant", [frames.WINDOW_MAX, 1 << 30])
@pytest.mark.parametrize("which", [0, 1])
def test_windows_beyond_the_largest(grant: int, which: int) -> None:
    client = Client(Counted().methods, SMALL)
    client.open("/t/Stream")
    for _ in range(2):
        client.connection.receive(frames.window_update(which, grant))
    assert client.refusal()[0] == Code.FLOW_CONTROL_ERROR


def test_answers_that_nobody_takes() -> None:
    client = Client({"/t/Echo": UnaryMethod(lambda call, _: call.answer(bytes(10_000)))}, SMALL)
    client.connection.receive(frames.window_update(0, 1 << 30))
    with within(4):
        for _ in range(10_000):
            if client.connection.closing:
                break
            client.call(b"")
    assert client.refusal()[0] == Code.ENHANCE_YOUR_CALM


def test_after_its_end_a_stream_takes_nothing_more() -> None:
    client = Client(Counted().methods, SMALL)
    stream = client.open("/t/Stream", end=True)
    client.data(stream, b"more")
    assert client.refusal()[0] == Code.STREAM_CLOSED


KINDS = st.integers(0, 10)
WILD_FRAMES = st.lists(
    st.one_of(
        st.tuples(KINDS, st.integers(0, 255), st.sampled_from([0, 1, 2, 3, 5, 99, 2**31 - 1]), st.binary(max_size=40)),
        st.tuples(st.just(frames.HEADERS), st.just(5), st.sampled_from([1, 3, 5, 7]), st.just(b"")),
        st.tuples(st.just(frames.DATA), st.integers(0, 1), st.sampled_from([1, 3, 5]), st.just(prefixed(b"text"))),
    ),
    max_size=12,
)


@settings(max_examples=400, deadline=None)
@given(WILD_FRAMES, st.binary(max_size=30), st.booleans())
def test_whatever_arrives_ends_in_answers_or_in_one_goaway(
    said: list[tuple[int, int, int, bytes]], tail: bytes, greets: bool
) -> None:
    counted = Counted()
    client = Client(counted.methods, SMALL, begin=greets)
    for kind, flags, stream, payload in said:
        whole = client.headers("/t/Stream") if kind == frames.HEADERS and not payload else payload
        client.connection.receive(frames.frame(kind, flags, stream, whole))
    client.connection.receive(tail)
    found = client.read()
    ends = [each for each in found if each.kind == frames.GOAWAY]
    assert len(ends) == client.connection.closing and (not ends or found[-1] is ends[0])
    client.connection.lost()
    assert counted.opened == counted.cancels and client.connection.backlog_bytes >= 0
