"""Session streams on loopback: the node's service and the client's connection."""

import asyncio
import logging
import socket
import time
from typing import Any

import grpc
import grpc.aio
import pytest
from raw_server import raw_server
from wire_nodes import WireNode, free_addresses, peer_hello, until, wire_node

from isochrone.errors import ConnectionLost, IsochroneError, Unavailable
from isochrone.ids import ClusterId, GroupId, KeyspaceId, NodeId, ZoneId
from isochrone.wire import session_client_grpc, sessions_grpc
from isochrone.wire.admin_grpc import CHANNEL_OPTIONS
from isochrone.wire.http2 import frames
from isochrone.wire.http2.calls import prefixed
from isochrone.wire.http2.frames import Code
from isochrone.wire.http2.headers import ANSWER
from isochrone.wire.messages import PROTOCOL_VERSION
from isochrone.wire.session import ClientHello, NodeHello, Pong, SessionMessage, WriteAnswer, WriteRequest
from isochrone.wire.session_client_grpc import GrpcSessionConnection, connect
from isochrone.wire.session_codec import encode_session_frame
from isochrone.wire.sessions_grpc import SESSION_BYTES_MAX
from isochrone.wire.shaper_os import Shaper
from isochrone.wire.shaping import LinkShape
from isochrone.wire.streams_grpc import SESSION_METHOD

HELLO = ClientHello(PROTOCOL_VERSION, "r", "client-zone", "tester")


def request(number: int, command: bytes = b"command") -> WriteRequest:
    return WriteRequest((number,), GroupId("g"), KeyspaceId("k"), 1000, b"", (command,))


class Client:
    """A connection and what it has told."""

    def __init__(self) -> None:
        self.answers: list[SessionMessage] = []
        self.ends: list[IsochroneError | None] = []
        self.connection: GrpcSessionConnection

    async def connect(self, node: WireNode, shaper: Shaper | None = None) -> "Client":
        self.connection = await connect(node.address, HELLO, self.answers.append, self.ends.append, shaper=shaper)
        return self


def test_requests_are_answered_in_order_and_in_few_grpc_messages() -> None:
    async def scenario() -> None:
        async with wire_node(peer_hello("a"), {}) as node:
            client = await Client().connect(node)
            assert client.connection.node.node == "a"
            for number in range(5000):
                client.connection.send(request(number))
                if number % 10 == 0:
                    await asyncio.sleep(0)
            await until(lambda: len(client.answers) == 5000)
            assert client.answers == [
                WriteAnswer((number,), node.hello.node, 0, (b"command",)) for number in range(5000)
            ]
            assert client.connection.counters()["session_messages_written"] == 5000
            assert client.connection.counters()["session_grpc_messages_written"] <= 501
            await client.connection.close()
            await client.connection.close()
            assert client.ends == [None]
            await until(lambda: node.sessions.closed_count == 1)
            assert node.sessions.opened_count == 1

    asyncio.run(scenario())


def test_a_session_that_the_node_ends_is_a_lost_connection() -> None:
    async def scenario() -> None:
        async with wire_node(peer_hello("a"), {}) as node:
            client = await Client().connect(node)
            address = node.address
        await until(lambda: bool(client.ends))
        assert node.sessions.closed_count == 1
        (end,) = client.ends
        assert isinstance(end, ConnectionLost)
        assert f"connection to a at {address}" in str(end)
        client.connection.send(request(1))
        await client.connection.close()
        assert len(client.ends) == 1

    asyncio.run(scenario())


def greeting(*messages: SessionMessage) -> bytes:
    """What a server says first: whatever follows comes in the same read."""
    answer = frames.settings() + frames.frame(frames.HEADERS, frames.END_HEADERS, 1, ANSWER)
    return answer + frames.frame(frames.DATA, 0, 1, prefixed(encode_session_frame(list(messages))))


def test_what_a_node_says_right_after_its_hello_keeps_its_order() -> None:
    async def talks(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        hello = NodeHello(PROTOCOL_VERSION, ClusterId("c"), NodeId("a"), "r", "z")
        more = [frames.frame(frames.DATA, 0, 1, prefixed(encode_session_frame([Pong(number)]))) for number in (3, 4)]
        writer.write(greeting(hello, Pong(1), Pong(2)) + b"".join(more) + frames.go_away(0, Code.NO_ERROR))

    async def scenario() -> None:
        heard: list[object] = []
        async with raw_server(talks) as address:
            connection = await connect(address, HELLO, heard.append, lambda end: heard.append(type(end)))
            assert heard == [Pong(1), Pong(2), Pong(3), Pong(4), ConnectionLost]
            await connection.close()

    asyncio.run(scenario())


def test_a_node_that_does_not_read_is_given_up_but_not_from_within_a_send(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_client_grpc, "CONNECTION_BYTES_MAX", 1 << 20)

    async def does_not_read(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(greeting(NodeHello(PROTOCOL_VERSION, ClusterId("c"), NodeId("a"), "r", "z")))

    async def scenario() -> None:
        async with raw_server(does_not_read) as address:
            ends: list[IsochroneError | None] = []
            connection = await connect(address, HELLO, lambda _: None, ends.append)
            for number in range(100):
                connection.send(request(number, bytes(1 << 16)))
                assert ends == []
            await until(lambda: bool(ends))
            assert "the node reads too slowly" in str(ends)
            await connection.close()

    asyncio.run(scenario())


def test_who_could_not_connect_hears_nothing_of_an_end() -> None:
    async def is_no_node(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(greeting(Pong(1), Pong(2)) + frames.go_away(0, Code.NO_ERROR))

    async def scenario() -> None:
        client = Client()
        async with raw_server(is_no_node) as address:
            with pytest.raises(Unavailable, match="it does not answer with a hello"):
                await connect(address, HELLO, client.answers.append, client.ends.append)
        assert (client.answers, client.ends) == ([], [])

    asyncio.run(scenario())


def test_a_client_that_does_not_read_is_cut_off(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async with (
            wire_node(peer_hello("a"), {}, copies=8) as node,
            grpc.aio.insecure_channel(node.address, options=CHANNEL_OPTIONS) as channel,
        ):
            call = channel.stream_stream(SESSION_METHOD)()
            await call.write(encode_session_frame([HELLO]))
            other = await Client().connect(node)
            megabyte = bytes(1 << 20)
            # Eight answers of a megabyte to each request, and nobody who reads them.
            for number in range((SESSION_BYTES_MAX >> 20) // 8 + 2):
                await call.write(encode_session_frame([request(number, megabyte)]))
            await until(lambda: node.server.counters()["sessions_given_up"] == 1)
            await until(lambda: node.sessions.closed_count == 1)
            other.connection.send(request(1))
            await until(lambda: len(other.answers) == 8)
            await other.connection.close()

    with caplog.at_level(logging.WARNING):
        asyncio.run(scenario())
    assert "client tester reads too slowly" in caplog.text


def test_malformed_bytes_end_the_session() -> None:
    async def scenario() -> None:
        async with (
            wire_node(peer_hello("a"), {}) as node,
            grpc.aio.insecure_channel(node.address, options=CHANNEL_OPTIONS) as channel,
        ):
            call = channel.stream_stream(SESSION_METHOD)()
            await call.write(encode_session_frame([HELLO]))
            await call.read()
            await call.write(b"\xc1")
            assert await ending(call) == (grpc.StatusCode.INVALID_ARGUMENT, "malformed session frame of 1 bytes")
            await until(lambda: node.sessions.closed_count == 1)
            assert node.server.counters()["sessions_malformed"] == 1

    asyncio.run(scenario())


async def ending(call: Any) -> tuple[grpc.StatusCode, str]:
    try:
        while await call.read() is not grpc.aio.EOF:
            pass
    except grpc.aio.AioRpcError:
        pass
    return await call.code(), await call.details()


def test_both_ways_take_the_delays_of_their_links() -> None:
    there, back = (ZoneId("client-zone"), ZoneId("a")), (ZoneId("a"), ZoneId("client-zone"))

    async def scenario(shaper: Shaper) -> None:
        async with wire_node(peer_hello("a"), {}, links={back: LinkShape(delay_ms=30)}) as node:
            shaper.set_links({there: LinkShape(delay_ms=20)})
            client = await Client().connect(node, shaper)
            sent = time.monotonic()
            client.connection.send(request(1))
            await until(lambda: bool(client.answers))
            assert time.monotonic() - sent >= 0.050
            shaper.set_links({there: LinkShape(cut=True)})
            client.connection.send(request(2))
            await until(lambda: shaper.counters()["shaper_frames_cut"] == 1)
            assert client.ends == []
            await client.connection.close()
            assert node.sessions.received_count == 1

    async def run() -> None:
        import random

        shaper = Shaper(random.Random(1))
        try:
            await scenario(shaper)
        finally:
            shaper.close()

    asyncio.run(run())


def test_nobody_there_is_unavailable_and_says_where() -> None:
    async def scenario() -> None:
        (address,) = free_addresses(1)
        with pytest.raises(Unavailable, match=f"node at {address}: .*[Rr]efused"):
            await connect(address, HELLO, print, print)

    asyncio.run(scenario())


def test_another_protocol_version_is_refused_with_the_reason() -> None:
    async def scenario() -> None:
        async with wire_node(peer_hello("a"), {}) as node:
            hello = ClientHello(PROTOCOL_VERSION + 1, "r", "z", "me")
            with pytest.raises(Unavailable, match="this node speaks protocol version 2, the client 3"):
                await connect(node.address, hello, print, print)
            assert node.sessions.opened_count == node.sessions.closed_count == 0

    asyncio.run(scenario())


def test_connecting_to_a_stopped_process_can_be_given_up() -> None:
    async def scenario() -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            address = f"127.0.0.1:{silent.getsockname()[1]}"
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await connect(address, HELLO, print, print)

    asyncio.run(scenario())


def test_whoever_asks_without_reading_the_answers_is_cut_off_within_one_message() -> None:
    async def scenario() -> None:
        async with (
            wire_node(peer_hello("a"), {}, copies=8) as node,
            grpc.aio.insecure_channel(node.address, options=CHANNEL_OPTIONS) as channel,
        ):
            call = channel.stream_stream(SESSION_METHOD)()
            await call.write(encode_session_frame([HELLO]))
            await call.write(encode_session_frame([request(number, bytes(100_000)) for number in range(150)]))
            await until(lambda: node.server.counters()["sessions_given_up"] == 1)
            assert node.sessions.closed_count == 1

    asyncio.run(scenario())


def test_sessions_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions_grpc, "SESSIONS_MAX", 2)

    async def scenario() -> None:
        async with wire_node(peer_hello("a"), {}) as node:
            clients = [await Client().connect(node) for _ in range(2)]
            with pytest.raises(Unavailable, match="2 sessions are open already"):
                await Client().connect(node)
            await clients[0].connection.close()
            await until(lambda: node.server.counters()["sessions_open"] == 1)
            late = await Client().connect(node)
            for client in (clients[1], late):
                await client.connection.close()

    asyncio.run(scenario())


def test_a_session_that_is_left_behind_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions_grpc, "IDLE_TIMEOUT_S", 0.2)

    async def scenario() -> None:
        async with wire_node(peer_hello("a"), {}) as node:
            silent = await Client().connect(node)
            await until(lambda: len(silent.ends) == 1)
            (end,) = silent.ends
            assert isinstance(end, ConnectionLost) and "has said nothing for 0.2 s" in str(end)
            assert node.server.counters()["sessions_open"] == 0
            await silent.connection.close()

    asyncio.run(scenario())
