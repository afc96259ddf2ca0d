"""The server's end of a connection: what it says, what it refuses, and what it keeps of a client at most."""

import tracemalloc
from collections.abc import Callable

import pytest
from http2_client import Client, Frame, parse, prefixed
from hypothesis import given, settings
from hypothesis import strategies as st

from isochrone.wire.http2 import frames
from isochrone.wire.http2.calls import Call, StreamMethod, UnaryMethod, acceptor
from isochrone.wire.http2.connection import Connection
from isochrone.wire.http2.endpoint import GRANT_BYTES
from isochrone.wire.http2.frames import Code
from isochrone.wire.http2.headers import ANSWER, OK_TRAILERS
from isochrone.wire.http2.limits import Limits

ECHO = {"/t/Echo": UnaryMethod(lambda call, message: call.answer(message))}
END = frames.END_HEADERS | frames.END_STREAM


def answer(stream: int, message: bytes) -> list[Frame]:
    """A whole answer of one frame of data."""
    return [
        Frame(frames.HEADERS, frames.END_HEADERS, stream, ANSWER),
        Frame(frames.DATA, 0, stream, prefixed(message)),
        Frame(frames.HEADERS, END, stream, OK_TRAILERS),
    ]


class Kept:
    """A unary method that keeps its calls until the test answers them."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.methods = {"/t/Echo": UnaryMethod(lambda call, _: self.calls.append(call))}


def data_of(found: list[Frame], stream: int) -> bytes:
    return b"".join(each.payload for each in found if each.kind == frames.DATA and each.stream == stream)


def test_the_server_speaks_first() -> None:
    client = Client(ECHO, Limits(streams=7), begin=False)
    first, second = client.greeting
    assert first.kind == frames.SETTINGS and first.flags == 0
    assert (frames.MAX_CONCURRENT_STREAMS, 7) in frames.parse_settings(first.payload)
    assert second == Frame(frames.WINDOW_UPDATE, 0, 0, (Limits().connection_window_bytes - 65_535).to_bytes(4, "big"))


def test_a_call_and_its_answer() -> None:
    client = Client(ECHO)
    assert client.call(b"one") == 1
    assert client.call(b"two") == 3
    assert client.read() == answer(1, b"one") + answer(3, b"two")
    assert client.connection.is_idle and client.connection.backlog_bytes == 0


def test_whoever_owns_the_connection_is_woken_once_for_all_that_gathers() -> None:
    kept = Kept()
    client = Client(kept.methods)
    for _ in range(3):
        client.call(b"")
    woken = client.wakes
    for call in kept.calls:
        call.answer(b"")
    assert client.wakes == woken + 1
    client.read()
    client.call(b"")
    kept.calls[-1].answer(b"")
    assert client.wakes == woken + 2


def test_bytes_may_come_in_pieces_of_any_size() -> None:
    recorder = Client(ECHO)
    said = frames.PREFACE + frames.settings() + frames.frame(frames.HEADERS, 4, 1, recorder.headers())
    said += frames.frame(frames.DATA, 1, 1, prefixed(b"whole")) + frames.frame(frames.PING, 0, 0, b"12345678")
    for size in range(1, len(said) + 1):
        client = Client(ECHO, begin=False)
        for at in range(0, len(said), size):
            client.connection.receive(said[at : at + size])
        found = client.read()
        assert [each for each in found if each.kind != frames.SETTINGS] == [
            *answer(1, b"whole"),
            Frame(frames.PING, frames.ACK, 0, b"12345678"),
        ]


def test_an_answer_waits_for_the_windows_and_goes_on_where_it_stopped() -> None:
    client = Client({"/t/Echo": UnaryMethod(lambda call, _: call.answer(bytes(range(250)) * 400))})
    whole = prefixed(bytes(range(250)) * 400)
    stream = client.call(b"")
    sent = client.read()
    assert len(data_of(sent, stream)) == 65_535, "the first window"
    assert max(len(each.payload) for each in sent) == frames.FRAME_BYTES_MAX
    client.connection.receive(frames.window_update(stream, 1 << 20))
    assert client.read() == [], "the connection's window is used up, too"
    client.connection.receive(frames.window_update(0, 10))
    sent += client.read()
    assert len(data_of(sent, stream)) == 65_545
    client.connection.receive(frames.window_update(0, 1 << 20))
    sent += client.read()
    assert data_of(sent, stream) == whole
    assert sent[-1] == Frame(frames.HEADERS, END, stream, OK_TRAILERS)
    assert client.connection.backlog_bytes == 0


def test_small_answers_do_not_pass_the_windows_either() -> None:
    client = Client(ECHO)
    client.connection.receive(frames.settings((frames.INITIAL_WINDOW_SIZE, 3)))
    client.read()
    stream = client.call(b"xyz")
    assert client.read() == [
        Frame(frames.HEADERS, frames.END_HEADERS, stream, ANSWER),
        Frame(frames.DATA, 0, stream, prefixed(b"xyz")[:3]),
    ]
    client.connection.receive(frames.settings((frames.INITIAL_WINDOW_SIZE, 5)))
    assert data_of(client.read(), stream) == prefixed(b"xyz")[3:5]
    client.connection.receive(frames.settings((frames.INITIAL_WINDOW_SIZE, 1)))  # the window is now negative
    client.connection.receive(frames.window_update(stream, 4))
    assert data_of(client.read(), stream) == b""
    client.connection.receive(frames.window_update(stream, 3))
    assert client.read()[-1].payload == OK_TRAILERS


def test_streams_that_wait_for_the_connections_window_take_turns() -> None:
    client = Client({"/t/Echo": UnaryMethod(lambda call, _: call.answer(bytes(200_000)))})
    client.connection.receive(frames.settings((frames.INITIAL_WINDOW_SIZE, 1 << 30)))
    first, second = client.call(b""), client.call(b"")
    client.read()
    grants = []
    for _ in range(6):
        client.connection.receive(frames.window_update(0, 1000))
        grants += [each.stream for each in client.read()]
    assert grants == [first, second] * 3 or grants == [second, first] * 3


def test_who_sends_much_hears_something_before_a_slow_link_has_carried_half_a_window() -> None:
    client = Client(ECHO, Limits(stream_window_bytes=8 << 20), message_bytes_max=8 << 20)
    stream = client.open()
    data = prefixed(bytes(8 << 20))
    unanswered = granted = 0
    for at in range(0, len(data) - frames.FRAME_BYTES_MAX, frames.FRAME_BYTES_MAX):
        client.data(stream, data[at : at + frames.FRAME_BYTES_MAX])
        unanswered += frames.FRAME_BYTES_MAX
        for each in client.read():
            granted += frames.parse_word(each.payload) if each.stream == stream else 0
            unanswered = 0
        assert unanswered <= GRANT_BYTES
    assert granted > 7 << 20


def test_a_server_takes_back_its_windows_as_a_request_arrives() -> None:
    limits = Limits(stream_window_bytes=1000, connection_window_bytes=70_000)
    client = Client(ECHO, limits)
    stream = client.open()
    message = prefixed(bytes(90_000))
    granted = {0: 70_000, stream: 1000}
    for at in range(0, len(message), 400):
        piece = message[at : at + 400]
        assert min(granted.values()) >= len(piece), "a client that keeps to its windows is never stuck"
        client.data(stream, piece, end=at + 400 >= len(message))
        for number in granted:
            granted[number] -= len(piece)
        for each in client.read():
            if each.kind == frames.WINDOW_UPDATE:
                granted[each.stream] += frames.parse_word(each.payload)
    assert client.connection.is_idle is False, "the answer is larger than what this client has granted"


def test_padding_and_priorities_are_taken_off() -> None:
    client = Client(ECHO)
    block = client.headers()
    padded = b"\x03" + bytes(5) + block + b"\0\0\0"
    client.send(frames.HEADERS, frames.END_HEADERS | frames.PADDED | frames.PRIORITIZED, 1, padded)
    client.send(frames.DATA, frames.PADDED, 1, b"\x02" + prefixed(b"hello")[:4] + b"\0\0")
    client.send(frames.DATA, frames.PADDED | frames.END_STREAM, 1, b"\x00" + prefixed(b"hello")[4:])
    client.send(frames.PRIORITY, 0, 1, bytes(5))
    assert client.read() == answer(1, b"hello")


def test_a_header_block_may_be_continued() -> None:
    client = Client(ECHO)
    block = client.headers()
    client.send(frames.HEADERS, 0, 1, block[:5])
    client.send(frames.CONTINUATION, 0, 1, block[5:9])
    client.send(frames.CONTINUATION, frames.END_HEADERS, 1, block[9:])
    client.data(1, prefixed(b"x"), end=True)
    assert client.read() == answer(1, b"x")


def test_trailers_end_a_request() -> None:
    client = Client(ECHO)
    stream = client.open()
    client.data(stream, prefixed(b"x"))
    assert client.read() == []
    client.send(frames.HEADERS, END, stream, OK_TRAILERS)
    assert client.read() == answer(stream, b"x")


def test_what_is_unknown_is_passed_over() -> None:
    client = Client(ECHO)
    client.send(0xFA, 0xFF, 12345, b"whatever")
    client.connection.receive(frames.settings((0xABCD, 7), (frames.MAX_FRAME_SIZE, 1 << 20)))
    client.connection.receive(frames.go_away(0, Code.NO_ERROR))
    client.call(b"x")
    assert client.read()[1:] == answer(1, b"x")


@pytest.mark.parametrize(
    ("breach", "code"),
    [
        (lambda c: c.connection.receive(b"\0\x40\x01\0\0\0\0\0\x01"), Code.FRAME_SIZE_ERROR),
        (lambda c: c.send(frames.DATA, 0, 1, b"x"), Code.PROTOCOL_ERROR),
        (lambda c: c.send(frames.DATA, 0, 0, b"x"), Code.PROTOCOL_ERROR),
        (lambda c: c.send(frames.HEADERS, END, 2, c.headers()), Code.PROTOCOL_ERROR),
        (lambda c: c.send(frames.HEADERS, END, 0, c.headers()), Code.PROTOCOL_ERROR),
        (lambda c: c.send(frames.HEADERS, END, 1, b"\xff\xff\xff\xff\xff"), Code.COMPRESSION_ERROR),
        (lambda c: c.send(frames.HEADERS, END | frames.PADDED, 1, b"\x09abc"), Code.PROTOCOL_ERROR),
        (lambda c: c.send(frames.HEADERS, END | frames.PADDED, 1, b""), Code.PROTOCOL_ERROR),
        (lambda c: c.send(frames.HEADERS, END | frames.PRIORITIZED, 1, b"abc"), Code.FRAME_SIZE_ERROR),
        (lambda c: c.send(frames.CONTINUATION, 4, 1, b""), Code.PROTOCOL_ERROR),
        (lambda c: (c.send(frames.HEADERS, 0, 1, b""), c.send(frames.PING, 0, 0, bytes(8))), Code.PROTOCOL_ERROR),
        (lambda c: (c.open(), c.send(frames.HEADERS, 4, 1, OK_TRAILERS)), Code.PROTOCOL_ERROR),
        (lambda c: c.send(frames.RST_STREAM, 0, 1, bytes(4)), Code.PROTOCOL_ERROR),
        (lambda c: c.send(frames.RST_STREAM, 0, 1, bytes(3)), Code.FRAME_SIZE_ERROR),
        (lambda c: c.send(frames.SETTINGS, 0, 1), Code.PROTOCOL_ERROR),
        (lambda c: c.send(frames.SETTINGS, 0, 0, bytes(5)), Code.FRAME_SIZE_ERROR),
        (lambda c: c.send(frames.SETTINGS, frames.ACK, 0, bytes(6)), Code.FRAME_SIZE_ERROR),
        (lambda c: c.connection.receive(frames.settings((frames.ENABLE_PUSH, 2))), Code.PROTOCOL_ERROR),
        (lambda c: c.connection.receive(frames.settings((frames.MAX_FRAME_SIZE, 1))), Code.PROTOCOL_ERROR),
        (
            lambda c: c.connection.receive(frames.settings((frames.INITIAL_WINDOW_SIZE, 1 << 31))),
            Code.FLOW_CONTROL_ERROR,
        ),
        (lambda c: c.send(frames.PUSH_PROMISE, 0, 1, bytes(8)), Code.PROTOCOL_ERROR),
        (lambda c: c.send(frames.PING, 0, 1, bytes(8)), Code.PROTOCOL_ERROR),
        (lambda c: c.send(frames.PING, 0, 0, bytes(7)), Code.FRAME_SIZE_ERROR),
        (lambda c: c.connection.receive(frames.window_update(0, 0)), Code.PROTOCOL_ERROR),
        (lambda c: c.connection.receive(frames.window_update(0, frames.WINDOW_MAX)), Code.FLOW_CONTROL_ERROR),
        (lambda c: c.connection.receive(frames.window_update(1, 1)), Code.PROTOCOL_ERROR),
        (
            lambda c: (c.open(), c.connection.receive(frames.window_update(1, frames.WINDOW_MAX))),
            Code.FLOW_CONTROL_ERROR,
        ),
        (lambda c: c.send(frames.WINDOW_UPDATE, 0, 0, b""), Code.FRAME_SIZE_ERROR),
    ],
)
def test_breaches_of_the_protocol_end_the_connection(breach: Callable[[Client], object], code: Code) -> None:
    client = Client(ECHO)
    breach(client)
    assert client.refusal()[0] is code


def test_data_after_the_end_of_its_stream_ends_the_connection() -> None:
    kept = Kept()
    client = Client(kept.methods)
    client.data(client.call(b"x"), b"more")
    assert client.refusal()[0] is Code.STREAM_CLOSED
    assert kept.calls[0].cancelled_by_client


@pytest.mark.parametrize(
    "first", [b"GET / HTTP/1.1\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\rX", b"\x16\x03\x01\x02\x00"]
)
def test_what_is_not_http2_is_sent_away(first: bytes) -> None:
    client = Client(ECHO, begin=False)
    client.connection.receive(first)
    assert client.refusal()[0] is Code.PROTOCOL_ERROR


def test_a_client_begins_with_its_settings() -> None:
    client = Client(ECHO, begin=False)
    client.connection.receive(frames.PREFACE + frames.frame(frames.PING, 0, 0, bytes(8)))
    assert client.refusal()[0] is Code.PROTOCOL_ERROR


def test_frames_for_streams_that_have_ended_are_passed_over() -> None:
    client = Client(ECHO)
    stream = client.call(b"x")
    client.read()
    client.data(stream, b"late")
    client.send(frames.RST_STREAM, 0, stream, bytes(4))
    client.connection.receive(frames.window_update(stream, 1))
    assert client.read() == [] and not client.connection.closing


def test_more_streams_than_allowed_are_refused() -> None:
    kept = Kept()
    client = Client(kept.methods, Limits(streams=2))
    for _ in range(3):
        client.call(b"x")
    assert client.read() == [Frame(frames.RST_STREAM, 0, 5, Code.REFUSED_STREAM.to_bytes(4, "big"))]
    kept.calls[0].answer(b"")
    client.call(b"x")
    assert len(kept.calls) == 3


def test_a_client_that_gives_its_calls_up_gets_no_place_before_their_work_has_ended() -> None:
    kept = Kept()
    client = Client(kept.methods, Limits(streams=2))
    for _ in range(50):
        client.send(frames.RST_STREAM, 0, client.call(b"x"), Code.CANCEL.to_bytes(4, "big"))
    assert len(kept.calls) == 2 and all(call.cancelled_by_client for call in kept.calls)
    kept.calls[0].answer(b"")
    kept.calls[1].fail(13, "")
    client.read()
    client.call(b"x")
    kept.calls[2].answer(b"")
    assert client.read() == answer(101, b""), "and nothing was sent for those that were given up"


def test_a_client_that_takes_no_answers_loses_its_connection() -> None:
    client = Client(
        {"/t/Echo": UnaryMethod(lambda call, _: call.answer(bytes(400_000)))}, Limits(backlog_bytes=1 << 20)
    )
    client.call(b"")
    client.call(b"")
    assert not client.connection.closing
    client.call(b"")
    assert client.refusal() == (Code.ENHANCE_YOUR_CALM, "what is sent is not taken")


def test_pings_whose_answers_are_not_read_are_bounded() -> None:
    client = Client(ECHO, Limits(backlog_bytes=10_000))
    for _ in range(1000):
        client.send(frames.PING, 0, 0, bytes(8))
    assert client.refusal()[0] is Code.ENHANCE_YOUR_CALM


def test_nothing_is_read_after_the_connection_was_ended_amid_a_batch() -> None:
    heard: list[bytes] = []

    def flood(call: Call, message: bytes) -> None:
        heard.append(message)
        call.answer(bytes(400_000))

    client = Client({"/t/Echo": UnaryMethod(flood)}, Limits(backlog_bytes=1 << 20))
    calls = b""
    for number in range(1, 19, 2):
        calls += frames.frame(frames.HEADERS, frames.END_HEADERS, number, client.headers())
        calls += frames.frame(frames.DATA, frames.END_STREAM, number, prefixed(b"x"))
    client.connection.receive(calls)
    assert len(heard) == 3, "the third answer was one too many"
    assert client.refusal()[0] is Code.ENHANCE_YOUR_CALM


def test_unfinished_requests_are_bounded() -> None:
    client = Client(ECHO, Limits(request_bytes=50_000))
    for _ in range(3):
        client.data(client.open(), prefixed(bytes(90_000))[:16_000])
    assert not client.connection.closing
    client.data(client.open(), prefixed(bytes(90_000))[:16_000])
    assert client.refusal()[0] is Code.ENHANCE_YOUR_CALM


def test_requests_that_were_finished_or_given_up_do_not_count() -> None:
    client = Client(ECHO, Limits(request_bytes=20_000))
    for number in range(20):
        stream = client.open()
        client.data(stream, prefixed(bytes(15_000))[:14_000])
        if number % 2:
            client.data(stream, prefixed(bytes(15_000))[14_000:], end=True)
        else:
            client.send(frames.RST_STREAM, 0, stream, bytes(4))
        client.read()
        client.connection.receive(frames.window_update(0, 15_005))
    assert not client.connection.closing


def test_a_header_block_is_bounded() -> None:
    client = Client(ECHO)
    client.send(frames.HEADERS, 0, 1, bytes(16_000))
    client.send(frames.CONTINUATION, 0, 1, bytes(1000))
    assert client.refusal()[0] is Code.ENHANCE_YOUR_CALM


def test_going_away_lets_calls_end_and_takes_no_new_ones() -> None:
    kept = Kept()
    client = Client(kept.methods)
    client.call(b"x")
    client.connection.go_away()
    client.call(b"x")
    told, refused = client.read()
    assert told == Frame(frames.GOAWAY, 0, 0, (1).to_bytes(4, "big") + bytes(4))
    assert refused == Frame(frames.RST_STREAM, 0, 3, Code.REFUSED_STREAM.to_bytes(4, "big"))
    assert not client.connection.is_idle
    kept.calls[0].answer(b"y")
    assert client.read() == answer(1, b"y") and client.connection.is_idle


def test_a_lost_connection_keeps_nothing_that_it_was_to_send() -> None:
    """Whoever works on its calls may hold on to it for long."""
    kept = Kept()
    client = Client(kept.methods)
    client.call(b"held on to")
    tracemalloc.start()
    for _ in range(3):
        client.call(b"")
        kept.calls[-1].answer(bytes(60_000))
    assert tracemalloc.get_traced_memory()[0] > 180_000
    client.connection.lost()
    left_bytes, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert left_bytes < 30_000 and client.connection.count() == 0
    assert client.read() == []


def test_a_lost_connection_cancels_its_calls_and_takes_no_answers() -> None:
    kept = Kept()
    client = Client(kept.methods)
    client.call(b"x")
    client.connection.lost()
    assert kept.calls[0].cancelled_by_client
    kept.calls[0].answer(b"y")
    assert client.read() == []


class Sink:
    """A streaming method that answers each message with two, and ends when the client does."""

    def __init__(self, call: Call) -> None:
        self.call = call

    def message(self, message: bytes) -> None:
        self.call.send(message)
        self.call.send(message[:2])

    def ended(self) -> None:
        self.call.finish()

    def cancelled(self) -> None:
        self.call.finish()


FRAMES = st.lists(
    st.tuples(
        st.integers(0, 11),
        st.integers(0, 255) | st.sampled_from([0, 1, 4, 5]),
        st.integers(0, 8),
        st.binary(max_size=40),
    ),
    max_size=30,
)


@settings(max_examples=300, deadline=None)
@given(FRAMES, st.integers(1, 60))
def test_no_frames_of_a_client_do_more_than_end_its_connection(
    said: list[tuple[int, int, int, bytes]], size: int
) -> None:
    methods = {**ECHO, "/t/Stream": StreamMethod(Sink)}
    recorder = Client(methods)
    calls = [recorder.headers(path) for path in ("/t/Echo", "/t/Stream", "/t/None")]
    connection = Connection(
        acceptor(methods, 1000), lambda: None, Limits(streams=3, backlog_bytes=5000, request_bytes=500)
    )
    data = frames.PREFACE + frames.settings()
    for kind, flags, stream, payload in said:
        if kind in (10, 11):  # calls that are right, so that streams exist
            data += frames.frame(frames.HEADERS, frames.END_HEADERS, 2 * stream + 1, calls[len(payload) % 3])
            data += frames.frame(frames.DATA, flags & 1, 2 * stream + 1, prefixed(payload))
        else:
            data += frames.frame(kind, flags, stream, payload)
    output = b""
    for at in range(0, len(data), size):
        connection.receive(data[at : at + size])
        output += connection.take_output()
    found = parse(output)
    if connection.closing:
        assert found[-1].kind == frames.GOAWAY
    ended: set[int] = set()
    for each in found:
        if each.kind in (frames.HEADERS, frames.DATA):
            assert each.stream not in ended, "nothing follows the end of a stream"
        if each.kind == frames.HEADERS and each.flags & frames.END_STREAM:
            ended.add(each.stream)
    connection.lost()
    assert connection.take_output() == b""
