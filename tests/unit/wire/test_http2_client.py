"""The client's end of a call against servers that keep to HTTP/2, and against those that do not."""

import random
from collections.abc import Callable

import pytest
from hpack import Encoder
from http2_client import Frame, parse, prefixed
from hypothesis import given, settings
from hypothesis import strategies as st

from isochrone.wire.http2 import frames
from isochrone.wire.http2.calls import (
    INTERNAL,
    RESOURCE_EXHAUSTED,
    UNAVAILABLE,
    UNKNOWN,
    Call,
    StreamMethod,
    acceptor,
)
from isochrone.wire.http2.client import CallEnd, ClientConnection
from isochrone.wire.http2.connection import Connection
from isochrone.wire.http2.endpoint import DRAINED_BYTES
from isochrone.wire.http2.frames import Code
from isochrone.wire.http2.headers import ANSWER, HEADER_LIST_BYTES_MAX, OK_TRAILERS, error_answer, error_trailers
from isochrone.wire.http2.limits import Limits

MESSAGE_BYTES_MAX = 100_000
LIMITS = Limits(stream_window_bytes=1 << 17, connection_window_bytes=1 << 18, backlog_bytes=1 << 20, settings=50)
GREETING = frames.settings()


class Server:
    """A server whose every byte is the test's own, and the client that talks to it."""

    def __init__(self, limits: Limits = LIMITS, *, begin: bool = True) -> None:
        self.messages: list[bytes] = []
        self.ends: list[CallEnd] = []
        self.wakes = 0
        self.client = ClientConnection(
            "h:1",
            "/t/Stream",
            self.messages.append,
            self.ends.append,
            self._wake,
            limits=limits,
            message_bytes_max=MESSAGE_BYTES_MAX,
        )
        self.greeting = self.client.take_output()
        if begin:
            self.client.receive(GREETING)
            assert self.read() == [Frame(frames.SETTINGS, frames.ACK, 0, b"")]

    def _wake(self) -> None:
        self.wakes += 1

    def answer(self) -> None:
        """The headers of the answer."""
        self.send(frames.HEADERS, frames.END_HEADERS, 1, ANSWER)

    def send(self, kind: int, flags: int, stream: int, payload: bytes = b"") -> None:
        self.client.receive(frames.frame(kind, flags, stream, payload))

    def read(self) -> list[Frame]:
        return parse(self.client.take_output())

    def refusal(self) -> tuple[Code, str]:
        """With what the client ended the connection; nothing follows, and the call has ended once."""
        last = self.read()[-1]
        assert last.kind == frames.GOAWAY and self.client.closing
        said = len(self.messages)
        self.send(frames.PING, 0, 0, bytes(8))
        self.send(frames.DATA, 0, 1, prefixed(b"late"))
        assert self.read() == [] and len(self.messages) == said and len(self.ends) == 1
        assert self.ends[0].code == UNAVAILABLE and self.ends[0].text.startswith("it breaks the protocol: ")
        return Code(int.from_bytes(last.payload[4:8], "big")), last.payload[8:].decode()


def test_the_client_begins_as_the_server_expects_and_both_understand_each_other() -> None:
    heard: list[bytes] = []
    calls: list[Call] = []

    class Handler:
        def message(self, message: bytes) -> None:
            heard.append(message)
            calls[0].send(message * 2)

        def ended(self) -> None:
            raise AssertionError("the client's side does not end before the connection")

        def cancelled(self) -> None:
            heard.append(b"cancelled")

    def begin(call: Call) -> Handler:
        calls.append(call)
        return Handler()

    server = Server(begin=False)
    ours = Connection(acceptor({"/t/Stream": StreamMethod(begin)}, MESSAGE_BYTES_MAX), lambda: None, Limits())
    server.client.send(b"early")
    data = server.greeting + server.client.take_output()
    for at in range(0, len(data), 7):
        ours.receive(data[at : at + 7])
    for size in (1, 0, 50_000):
        server.client.send(bytes(size))
        for _ in range(4):
            ours.receive(server.client.take_output())
            server.client.receive(ours.take_output())
    sent = [b"early", b"\0", b"", bytes(50_000)]
    assert heard == sent
    assert server.messages == [message * 2 for message in sent]
    calls[0].fail(9, "that is enough: 100 %, naïve\n")
    server.client.receive(ours.take_output())
    assert server.ends == [CallEnd(9, "that is enough: 100 %, naïve\n")]
    assert server.client.closing


def test_messages_come_whole_and_in_order_however_they_are_cut() -> None:
    messages = [bytes([number]) * size for number, size in enumerate((0, 1, 5, 300, 70_000, 4, 0, 16_384))]
    data = b"".join(map(prefixed, messages))
    for piece in (1, 3, 1_000, 16_384):
        server = Server(Limits(stream_window_bytes=1 << 20))
        server.answer()
        for at in range(0, len(data), piece):
            server.send(frames.DATA, 0, 1, data[at : at + piece])
        server.send(frames.HEADERS, frames.END_HEADERS | frames.END_STREAM, 1, OK_TRAILERS)
        assert (server.messages, server.ends) == (messages, [CallEnd(0, "")])


def test_windows_are_given_back_as_messages_arrive() -> None:
    server = Server()
    server.answer()
    granted = {0: 0, 1: 0}
    sent = 0
    for _ in range(100):
        data = prefixed(bytes(9_000))
        sent += len(data)
        server.send(frames.DATA, 0, 1, data)
        for each in server.read():
            assert each.kind == frames.WINDOW_UPDATE
            granted[each.stream] += frames.parse_word(each.payload)
    assert len(server.messages) == 100
    assert sent - granted[1] <= LIMITS.stream_window_bytes // 2
    assert sent - granted[0] <= LIMITS.connection_window_bytes // 2


def test_what_the_windows_do_not_allow_waits_and_who_waits_for_that_is_told() -> None:
    server = Server(Limits())
    for _ in range(30):
        server.client.send(bytes(100_000))
    drained: list[int] = []
    server.client.call_when_drained(lambda: drained.append(server.client.backlog_bytes))
    assert sum(len(each.payload) for each in server.read()) == frames.WINDOW_DEFAULT
    assert server.client.backlog_bytes > 2_900_000 and not drained
    taken = frames.WINDOW_DEFAULT
    while taken < 30 * 100_005:
        for stream in (0, 1):
            server.send(frames.WINDOW_UPDATE, 0, stream, (50_000).to_bytes(4, "big"))
        taken += sum(len(each.payload) for each in server.read())
    assert taken == 30 * 100_005
    assert len(drained) == 1 and drained[0] <= DRAINED_BYTES


def test_one_wake_for_all_that_is_sent_before_the_output_is_taken() -> None:
    server = Server()
    before = server.wakes
    for _ in range(5):
        server.client.send(b"x")
    assert server.wakes == before + 1
    assert len(server.read()) == 5


ENDS: list[tuple[Callable[[Server], None], CallEnd]] = [
    (
        lambda server: server.send(frames.HEADERS, 5, 1, error_answer(12, "unknown method")),
        CallEnd(12, "unknown method"),
    ),
    (
        lambda server: server.send(frames.HEADERS, 5, 1, b"\x8d"),
        CallEnd(UNKNOWN, "this is no answer of gRPC: its HTTP status is 404"),
    ),
    (lambda server: server.send(frames.HEADERS, 5, 1, ANSWER), CallEnd(UNKNOWN, "the call ended without a status")),
    (
        lambda server: server.send(frames.RST_STREAM, 0, 1, (7).to_bytes(4, "big")),
        CallEnd(UNAVAILABLE, "the server reset the stream, with the code 7"),
    ),
    (
        lambda server: server.send(frames.GOAWAY, 0, 0, bytes(8) + b"too busy"),
        CallEnd(UNAVAILABLE, "the server goes away: too busy"),
    ),
    (lambda server: server.client.lost(), CallEnd(UNAVAILABLE, "the connection was closed")),
]


@pytest.mark.parametrize(("happen", "end"), ENDS)
def test_a_call_that_never_got_an_answer_ends_once(happen: Callable[[Server], None], end: CallEnd) -> None:
    server = Server()
    happen(server)
    assert server.ends == [end] and server.client.closing
    server.client.lost()
    server.client.send(b"late")
    assert server.ends == [end] and all(each.kind != frames.DATA for each in server.read())


LATE_ENDS: list[tuple[Callable[[Server], None], CallEnd]] = [
    (lambda server: server.send(frames.HEADERS, 5, 1, OK_TRAILERS), CallEnd(0, "")),
    (lambda server: server.send(frames.HEADERS, 5, 1, error_trailers(8, "enough")), CallEnd(8, "enough")),
    (
        lambda server: server.send(frames.DATA, frames.END_STREAM, 1),
        CallEnd(UNKNOWN, "the call ended without a status"),
    ),
    (
        lambda server: server.send(frames.DATA, 0, 1, b"\1\0\0\0\0"),
        CallEnd(INTERNAL, "a compressed message, which was not asked for"),
    ),
    (
        lambda server: server.send(frames.DATA, 0, 1, b"\0" + (MESSAGE_BYTES_MAX + 1).to_bytes(4, "big")),
        CallEnd(RESOURCE_EXHAUSTED, "grpc: received message larger than max (100001 vs. 100000)"),
    ),
]


@pytest.mark.parametrize(("happen", "end"), LATE_ENDS)
def test_the_end_comes_after_the_last_message(happen: Callable[[Server], None], end: CallEnd) -> None:
    server = Server()
    server.answer()
    server.send(frames.DATA, 0, 1, prefixed(b"a") + prefixed(b"b"))
    assert (server.messages, server.ends) == ([b"a", b"b"], [])
    happen(server)
    assert (server.messages, server.ends) == ([b"a", b"b"], [end])


def test_a_call_that_ends_amid_a_message_did_not_end_well() -> None:
    server = Server()
    server.answer()
    server.send(frames.DATA, 0, 1, prefixed(b"torn")[:-1])
    server.send(frames.HEADERS, 5, 1, OK_TRAILERS)
    assert (server.messages, server.ends) == ([], [CallEnd(INTERNAL, "the call ended amid a message")])


def test_a_server_that_goes_away_may_end_what_is_under_way() -> None:
    server = Server()
    server.answer()
    server.send(frames.GOAWAY, 0, 0, (1).to_bytes(4, "big") + bytes(4))
    server.send(frames.DATA, 0, 1, prefixed(b"still here"))
    server.client.send(b"and so are we")
    assert (server.messages, server.ends) == ([b"still here"], [])
    assert [each.kind for each in server.read()] == [frames.DATA]
    server.client.lost()
    assert server.ends == [CallEnd(UNAVAILABLE, "the server goes away: it shuts down")]


def test_whoever_gives_a_call_up_hears_nothing_of_the_rest_of_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server()
    server.answer()

    def hear_enough(message: bytes) -> None:
        server.messages.append(message)
        server.client.end(CallEnd(1, "enough"))

    monkeypatch.setattr(server.client, "_received", hear_enough)
    server.send(frames.DATA, 0, 1, prefixed(b"a") + prefixed(b"b"))
    assert (server.messages, server.ends) == ([b"a"], [CallEnd(1, "enough")])


def test_signs_of_life_are_given_and_asked_for() -> None:
    server = Server()
    server.send(frames.PING, 0, 0, b"12345678")
    assert server.read() == [Frame(frames.PING, frames.ACK, 0, b"12345678")]
    server.client.ping()
    assert server.read() == [Frame(frames.PING, 0, 0, bytes(8))]
    server.send(frames.PING, frames.ACK, 0, bytes(8))
    assert server.read() == [] and server.ends == []


WINDOW = frames.WINDOW_MAX.to_bytes(4, "big")
ATTACKS: list[tuple[str, list[bytes], Code]] = [
    ("data first", [frames.frame(frames.DATA, 0, 1, prefixed(b""))], Code.PROTOCOL_ERROR),
    ("data of another stream", [frames.frame(frames.DATA, 0, 3, b"x")], Code.PROTOCOL_ERROR),
    ("data of no stream", [frames.frame(frames.DATA, 0, 0, b"x")], Code.PROTOCOL_ERROR),
    ("padding as long as its frame", [frames.frame(frames.DATA, frames.PADDED, 1, b"\5abcd")], Code.PROTOCOL_ERROR),
    ("a stream of the server's", [frames.frame(frames.HEADERS, 4, 2, ANSWER)], Code.PROTOCOL_ERROR),
    ("a push", [frames.frame(frames.PUSH_PROMISE, 4, 1, bytes(4))], Code.PROTOCOL_ERROR),
    ("headers twice", [frames.frame(frames.HEADERS, 4, 1, ANSWER)] * 2, Code.PROTOCOL_ERROR),
    (
        "headers that are no HPACK",
        [frames.frame(frames.HEADERS, 4, 1, b"\xff\xff\xff\xff\xff")],
        Code.COMPRESSION_ERROR,
    ),
    ("a status of words", [frames.frame(frames.HEADERS, 5, 1, b"\x88\0\x0bgrpc-status\4good")], Code.PROTOCOL_ERROR),
    (
        "a block that is not continued",
        [frames.frame(frames.HEADERS, 0, 1, ANSWER), frames.window_update(0, 1)],
        Code.PROTOCOL_ERROR,
    ),
    (
        "a block without end",
        [frames.frame(frames.HEADERS, 0, 1, b"")]
        + [frames.frame(frames.CONTINUATION, 0, 1, bytes(1_000))] * (HEADER_LIST_BYTES_MAX // 1_000 + 1),
        Code.ENHANCE_YOUR_CALM,
    ),
    ("a frame too large", [frames.frame(frames.DATA, 0, 1, bytes(frames.FRAME_BYTES_MAX + 1))], Code.FRAME_SIZE_ERROR),
    ("a window of nothing", [frames.window_update(1, 0)], Code.PROTOCOL_ERROR),
    ("a connection's window beyond the largest", [frames.window_update(0, frames.WINDOW_MAX)], Code.FLOW_CONTROL_ERROR),
    ("a stream's window beyond the largest", [frames.window_update(1, frames.WINDOW_MAX)], Code.FLOW_CONTROL_ERROR),
    (
        "initial windows beyond the largest",
        [frames.settings((frames.INITIAL_WINDOW_SIZE, 1 << 31))],
        Code.FLOW_CONTROL_ERROR,
    ),
    ("a ping of 7 bytes", [frames.frame(frames.PING, 0, 0, bytes(7))], Code.FRAME_SIZE_ERROR),
    ("a GOAWAY of 7 bytes", [frames.frame(frames.GOAWAY, 0, 0, bytes(7))], Code.FRAME_SIZE_ERROR),
    ("a reset of 3 bytes", [frames.frame(frames.RST_STREAM, 0, 1, bytes(3))], Code.FRAME_SIZE_ERROR),
    ("settings without end", [frames.settings()] * (LIMITS.settings + 1), Code.ENHANCE_YOUR_CALM),
    ("pings whose answers are not read", [frames.frame(frames.PING, 0, 0, bytes(8))] * 20_000, Code.ENHANCE_YOUR_CALM),
]


@pytest.mark.parametrize(("said", "code"), [attack[1:] for attack in ATTACKS], ids=[attack[0] for attack in ATTACKS])
def test_a_server_that_breaks_the_protocol_is_told_why_and_left(said: list[bytes], code: Code) -> None:
    server = Server()
    for frame in said:
        server.client.receive(frame)
    assert server.refusal()[0] == code


def test_a_server_that_does_not_begin_with_settings_is_left() -> None:
    for said in (frames.frame(frames.PING, 0, 0, bytes(8)), b"HTTP/1.1 400 Bad Request\r\n\r\n"):
        server = Server(begin=False)
        server.client.receive(said)
        assert server.refusal()[0] in (Code.PROTOCOL_ERROR, Code.FRAME_SIZE_ERROR)


def test_a_large_message_in_single_bytes_is_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server()
    server.answer()
    looked_at: list[int] = []
    take_messages = server.client._take_messages

    def counted(data: bytes) -> None:
        looked_at.append(len(data))
        take_messages(data)

    monkeypatch.setattr(server.client, "_take_messages", counted)
    data = prefixed(bytes(MESSAGE_BYTES_MAX))
    for at in range(len(data)):
        server.send(frames.DATA, 0, 1, data[at : at + 1])
    assert server.messages == [bytes(MESSAGE_BYTES_MAX)]
    assert sum(looked_at) < 2 * MESSAGE_BYTES_MAX


FRAMES = st.lists(
    st.tuples(
        st.integers(0, 12),
        st.integers(0, 255) | st.sampled_from([0, 1, 4, 5]),
        st.integers(0, 3),
        st.binary(max_size=40),
    ),
    max_size=30,
)


@settings(max_examples=300, deadline=None)
@given(FRAMES, st.integers(1, 60), st.randoms(use_true_random=False))
def test_no_frames_of_a_server_do_more_than_end_the_call(
    said: list[tuple[int, int, int, bytes]], size: int, rng: random.Random
) -> None:
    server = Server(begin=False)
    blocks = [ANSWER, OK_TRAILERS, error_answer(8, "x"), Encoder().encode([(":status", "200"), ("x", "y" * 30)])]
    data = frames.settings()
    for kind, flags, stream, payload in said:
        if kind in (10, 11, 12):  # what is right, so that there are answers and messages
            if kind == 10:
                data += frames.frame(frames.HEADERS, 4 | flags & 1, 1, blocks[len(payload) % 4])
            else:
                data += frames.frame(frames.DATA, 0, 1, prefixed(payload))
        else:
            data += frames.frame(kind, flags, stream, payload)
    output = b""
    for at in range(0, len(data), size):
        server.client.receive(data[at : at + size])
        if rng.random() < 0.2:
            server.client.send(bytes(rng.randrange(100)))
        output += server.client.take_output()
        assert len(server.ends) == server.client.closing
    found = parse(output)
    assert all(each.stream == 1 for each in found if each.kind == frames.DATA)
    server.client.lost()
    assert len(server.ends) == 1 and server.client.take_output() == b""
