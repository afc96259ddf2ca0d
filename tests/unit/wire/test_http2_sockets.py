"""When the bytes of a call leave its socket, and in which order."""

import asyncio
from collections.abc import Callable

from http2_client import parse

from isochrone.wire.http2 import frames
from isochrone.wire.http2.calls import PREFIX_BYTES
from isochrone.wire.http2.client_os import EARLY_BYTES, ClientStream
from isochrone.wire.http2.limits import Limits


class Transport(asyncio.BaseTransport):
    """What a loop that is not asyncio's own may give a protocol: no `asyncio.Transport`, but all of its methods."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def is_closing(self) -> bool:
        return False

    @property
    def messages(self) -> list[bytes]:
        """What has left on the call's stream, without the prefixes of messages that fit into a frame."""
        sent = parse(b"".join(self.written).removeprefix(frames.PREFACE))
        return [frame.payload[PREFIX_BYTES:] for frame in sent if frame.kind == frames.DATA]


def in_a_turn(scenario: Callable[[ClientStream, Transport], None]) -> Transport:
    """Run a scenario in one turn of the loop, on a call that is open; returns what has left some turns later."""

    async def main() -> Transport:
        transport = Transport()
        stream = ClientStream("h:1", "/t/T", limits=Limits(), message_bytes_max=1 << 20, quiet_s=60)
        stream.connection_made(transport)
        stream.data_received(frames.settings((frames.INITIAL_WINDOW_SIZE, 1 << 24)) + frames.window_update(0, 1 << 24))
        scenario(stream, transport)
        for _ in range(3):
            await asyncio.sleep(0)
        stream.connection_lost(None)
        return transport

    return asyncio.run(main())


def test_a_large_message_leaves_at_once_with_what_was_sent_before_and_a_small_one_with_its_turn() -> None:
    large = bytes(EARLY_BYTES)

    def scenario(stream: ClientStream, transport: Transport) -> None:
        stream.send(b"a")
        assert transport.messages == []
        stream.send(large)
        assert transport.messages == [b"a", large]
        stream.send(b"b")
        assert transport.messages == [b"a", large]

    assert in_a_turn(scenario).messages == [b"a", large, b"b"]


def test_what_is_sent_because_the_socket_is_drained_does_not_overtake_what_drained_it() -> None:
    small, large = b"s", bytes(EARLY_BYTES)

    def scenario(stream: ClientStream, transport: Transport) -> None:
        stream.send(small)
        stream.call_when_drained(lambda: stream.send(large))
        stream.write_now()

    assert in_a_turn(scenario).messages == [small, large]


def test_a_large_message_waits_for_a_socket_that_takes_no_more() -> None:
    large = bytes(EARLY_BYTES)

    def scenario(stream: ClientStream, transport: Transport) -> None:
        stream.pause_writing()
        stream.send(large)
        assert transport.messages == [] and stream.backlog_bytes >= EARLY_BYTES
        stream.resume_writing()
        assert transport.messages == [large]

    assert in_a_turn(scenario).messages == [large]
