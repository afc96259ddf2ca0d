"""Calls on streams: messages of any cut, wrong ones, and what handlers may do."""

import pytest
from http2_client import MESSAGE_BYTES_MAX, Client, prefixed

from isochrone.wire.http2 import frames
from isochrone.wire.http2.calls import Call, StreamMethod, UnaryMethod


class Recorded:
    """A streaming method that writes down what it is told."""

    def __init__(self) -> None:
        self.heard: list[bytes | str] = []
        self.call: Call | None = None

    def open(self, call: Call) -> "Recorded":
        self.call = call
        return self

    def message(self, message: bytes) -> None:
        self.heard.append(message)

    def ended(self) -> None:
        self.heard.append("ended")

    def cancelled(self) -> None:
        self.heard.append("cancelled")


def started() -> tuple[Client, list[bytes], Recorded]:
    """A client of a unary method that echoes, and of a streaming one."""
    heard: list[bytes] = []
    recorded = Recorded()

    def echo(call: Call, message: bytes) -> None:
        heard.append(message)
        call.answer(message)

    client = Client({"/t/Echo": UnaryMethod(echo), "/t/Stream": StreamMethod(recorded.open)})
    return client, heard, recorded


def status(client: Client) -> dict[str, str]:
    """The status of the one call that has ended."""
    (block,) = [each for each in client.read() if each.kind == frames.HEADERS and each.flags & frames.END_STREAM]
    return client.fields(block)


@pytest.mark.parametrize("size", range(1, 12))
def test_a_request_may_be_cut_anywhere(size: int) -> None:
    client, heard, _ = started()
    stream, data = client.open(), prefixed(b"hello")
    for at in range(0, len(data), size):
        client.data(stream, data[at : at + size])
    assert heard == []
    client.data(stream, b"", end=True)
    assert heard == [b"hello"] and status(client)["grpc-status"] == "0"


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "13"),
        (b"\0\0", "13"),
        (prefixed(b"hello")[:-1], "13"),
        (prefixed(b"hello") * 2, "13"),
        (prefixed(b"hello") + b"\0", "13"),
        (b"\x01" + prefixed(b"hello")[1:], "12"),
        (prefixed(bytes(MESSAGE_BYTES_MAX + 1))[:10], "8"),
    ],
)
def test_wrong_requests_are_refused_and_reach_no_handler(data: bytes, code: str) -> None:
    client, heard, _ = started()
    client.data(client.open(), data, end=True)
    assert heard == [] and status(client)["grpc-status"] == code
    client.call(b"x")
    assert heard == [b"x"], "and the connection goes on"


def test_a_message_that_is_too_large_is_refused_before_it_has_arrived() -> None:
    client, _, _ = started()
    stream = client.open()
    client.data(stream, prefixed(bytes(MESSAGE_BYTES_MAX + 1))[:10])
    *_, end, reset = client.read()
    told = client.fields(end)["grpc-message"]
    assert told == f"grpc: received message larger than max (100001 vs. {MESSAGE_BYTES_MAX})"
    assert (reset.kind, reset.stream) == (frames.RST_STREAM, stream)


def test_a_method_that_does_not_exist() -> None:
    client, _, _ = started()
    client.call(b"", "/t/None")
    assert status(client) == {
        ":status": "200",
        "content-type": "application/grpc",
        "grpc-status": "12",
        "grpc-message": "unknown method /t/None",
    }


def test_what_is_no_call_of_grpc_gets_a_status_of_http() -> None:
    client, _, _ = started()
    client.open(end=True, content_type="text/html")
    assert status(client)[":status"] == "415"


def test_a_streaming_method_gets_messages_as_they_come() -> None:
    client, _, recorded = started()
    stream = client.open("/t/Stream", grpc_timeout="5S")
    assert recorded.call is not None and recorded.call.timeout_ns == 5 * 10**9
    data = prefixed(b"one") + prefixed(b"two")
    client.data(stream, data[:12])
    assert recorded.heard == [b"one"]
    client.data(stream, data[12:])
    client.data(stream, b"", end=True)
    assert recorded.heard == [b"one", b"two", "ended"]
    recorded.call.send(b"later")
    recorded.call.send(b"more")
    recorded.call.finish()
    head, first, second, end = client.read()
    assert client.fields(head) == {":status": "200", "content-type": "application/grpc"}
    assert (first.payload, second.payload) == (prefixed(b"later"), prefixed(b"more"))
    assert client.fields(end) == {"grpc-status": "0"}
    recorded.call.send(b"too late")
    recorded.call.fail(13, "too late")
    assert client.read() == []


def test_a_stream_that_ends_without_a_message() -> None:
    client, _, recorded = started()
    client.open("/t/Stream", end=True)
    assert recorded.heard == ["ended"] and recorded.call is not None
    recorded.call.finish()
    assert status(client) == {":status": "200", "content-type": "application/grpc", "grpc-status": "0"}


def test_a_stream_may_fail_after_messages() -> None:
    client, _, recorded = started()
    client.open("/t/Stream")
    assert recorded.call is not None
    recorded.call.send(b"one")
    recorded.call.fail(11, "compacted")
    assert status(client) == {"grpc-status": "11", "grpc-message": "compacted"}


def test_a_torn_message_at_the_end_of_a_stream_fails_it() -> None:
    client, _, recorded = started()
    client.data(client.open("/t/Stream"), prefixed(b"one") + b"\0\0", end=True)
    assert recorded.heard == [b"one"] and status(client)["grpc-status"] == "13"


def test_a_stream_that_its_client_gives_up_is_cancelled_once() -> None:
    client, _, recorded = started()
    stream = client.open("/t/Stream")
    client.send(frames.RST_STREAM, 0, stream, bytes(4))
    client.connection.lost()
    assert recorded.heard == ["cancelled"] and recorded.call is not None
    recorded.call.send(b"x")
    recorded.call.finish()
    assert client.read() == []


def test_a_handler_may_end_a_stream_amid_its_messages() -> None:
    class Stubborn(Recorded):
        def message(self, message: bytes) -> None:
            super().message(message)
            assert self.call is not None
            self.call.fail(3, "enough")

    stubborn = Stubborn()
    client = Client({"/t/Stream": StreamMethod(stubborn.open)})
    stream = client.open("/t/Stream")
    client.data(stream, prefixed(b"one") + prefixed(b"two"))
    client.data(stream, prefixed(b"three"), end=True)
    assert stubborn.heard == [b"one"]


def test_whoever_rests_is_called_once_when_little_waits_for_the_client() -> None:
    client, _, recorded = started()
    client.open("/t/Stream")
    call = recorded.call
    assert call is not None
    called: list[int] = []
    for _ in range(3):
        call.send(bytes(1 << 20))
    call.call_when_drained(lambda: called.append(call.backlog_bytes))
    client.connection.take_output()
    assert called == [], "the client's window is full"
    client.connection.receive(frames.window_update(0, 4 << 20) + frames.window_update(1, 4 << 20))
    assert called == []
    client.connection.take_output()
    assert called == [0]
    client.connection.take_output()
    assert len(called) == 1
