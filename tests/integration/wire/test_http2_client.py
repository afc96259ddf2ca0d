"""A call over a real socket, to servers that are not what they should be, and to grpc's own."""

import asyncio
import socket
from contextlib import suppress
from functools import partial
from typing import Any

import grpc
import grpc.aio
import pytest
from raw_server import raw_server
from wire_nodes import free_addresses, until

from isochrone.wire.http2 import frames
from isochrone.wire.http2.calls import CANCELLED, RESOURCE_EXHAUSTED, UNAVAILABLE, prefixed
from isochrone.wire.http2.client_os import CallFailed, ClientStream, open_stream
from isochrone.wire.http2.headers import ANSWER
from isochrone.wire.http2.limits import Limits

MESSAGE_BYTES_MAX = 1 << 20
GREETED = (
    frames.settings()
    + frames.frame(frames.HEADERS, frames.END_HEADERS, 1, ANSWER)
    + frames.frame(frames.DATA, 0, 1, prefixed(b"hello"))
)


class Told:
    """A call, and what came of it."""

    def __init__(self) -> None:
        self.messages: list[bytes] = []
        self.ends: list[CallFailed] = []
        self.stream: ClientStream

    async def open(self, address: str, quiet_s: float = 60.0) -> "Told":
        self.stream, first = await open_stream(
            address,
            "/t.T/Stream",
            b"greeting",
            limits=Limits(),
            message_bytes_max=MESSAGE_BYTES_MAX,
            quiet_s=quiet_s,
        )
        self.messages.append(first)
        self.stream.listen(self.messages.append, self.ends.append)
        return self


async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(GREETED)


async def is_over(told: Told) -> CallFailed:
    """How the call ended. Told once, and the socket is closed."""
    await until(lambda: bool(told.ends))
    told.stream.send(b"late")
    await told.stream.close()
    await told.stream.close()
    (end,) = told.ends
    return end


def test_a_call_of_grpcs_own_server_goes_both_ways_and_ends_with_its_status() -> None:
    async def doubler(_: object, context: Any) -> None:
        while (data := await context.read()) != b"end":
            await context.write(data * 2)
        await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "enough: 100 %")

    async def scenario() -> None:
        server = grpc.aio.server(
            options=[("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
        )
        handlers = {"Stream": grpc.stream_stream_rpc_method_handler(doubler)}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("t.T", handlers),))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        try:
            told = await Told().open(f"127.0.0.1:{port}")
            sent = [b"", b"x" * 500_000, b"y"]
            for message in sent:
                told.stream.send(message)
            await until(lambda: len(told.messages) == 4)
            assert told.messages == [b"greeting" * 2] + [message * 2 for message in sent]
            told.stream.send(b"end")
            end = await is_over(told)
            assert (end.code, str(end)) == (RESOURCE_EXHAUSTED, "enough: 100 %")
        finally:
            await server.stop(None)

    asyncio.run(scenario())


def test_a_server_that_is_silent_is_lost_and_one_that_answers_pings_is_not() -> None:
    async def answers_pings(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(GREETED)
        await reader.readuntil(frames.frame(frames.PING, 0, 0, bytes(8)))
        writer.write(frames.frame(frames.PING, frames.ACK, 0, bytes(8)))

    async def scenario() -> None:
        began = asyncio.get_running_loop().time()
        async with raw_server(greet) as silent, raw_server(answers_pings) as alive:
            lost, kept = await Told().open(silent, quiet_s=0.4), await Told().open(alive, quiet_s=0.4)
            end = await is_over(lost)
            assert (end.code, str(end)) == (CANCELLED, "it has been silent, and does not answer a ping")
            assert kept.ends == [], "it has answered the first ping"
            await is_over(kept)
            assert asyncio.get_running_loop().time() - began >= 1.2

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("said", "text"),
    [
        (b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n", "it breaks the protocol: a frame of"),
        (frames.frame(frames.PING, 0, 0, bytes(8)), "it breaks the protocol: a connection begins with settings"),
        (frames.settings() + frames.frame(frames.GOAWAY, 0, 0, bytes(8) + b"full"), "the server goes away: full"),
        (b"", "the connection was closed"),
    ],
)
def test_who_is_no_server_of_grpc_is_left(said: bytes, text: str) -> None:
    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(said)
        writer.write_eof()

    async def scenario() -> None:
        async with raw_server(peer) as address:
            told = Told()
            with pytest.raises(CallFailed, match=text) as failed:
                await told.open(address)
            assert failed.value.code == UNAVAILABLE
            assert told.ends == []

    asyncio.run(scenario())


def test_a_connection_that_breaks_ends_the_call_once() -> None:
    async def breaks(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(GREETED)
        await writer.drain()
        writer.transport.abort()

    async def scenario() -> None:
        async with raw_server(breaks) as address:
            end = await is_over(await Told().open(address))
            assert end.code == UNAVAILABLE

    asyncio.run(scenario())


def test_a_server_that_does_not_read_is_not_written_to_without_end() -> None:
    async def scenario() -> None:
        async with raw_server(greet) as address:
            told = await Told().open(address)
            for _ in range(80):
                told.stream.send(bytes(MESSAGE_BYTES_MAX))
            end = await is_over(told)
            assert str(end) == "it breaks the protocol: what is sent is not taken"
            assert told.stream.backlog_bytes < 65 << 20

    asyncio.run(scenario())


def test_whoever_listens_says_when_it_hears_enough() -> None:
    async def talks(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(GREETED + frames.frame(frames.DATA, 0, 1, prefixed(b"a") + prefixed(b"b")))

    async def scenario() -> None:
        ends: list[CallFailed] = []
        async with raw_server(talks) as address:
            stream, first = await open_stream(
                address,
                "/t.T/Stream",
                b"greeting",
                limits=Limits(),
                message_bytes_max=MESSAGE_BYTES_MAX,
                quiet_s=60,
            )
            assert first == b"hello"
            stream.listen(lambda message: f"not {message!r}", ends.append)
            assert [str(end) for end in ends] == ["not b'a'"]
            await stream.close()

    asyncio.run(scenario())


def test_what_came_before_anybody_listened_is_heard_in_order_and_then_the_end() -> None:
    async def talks(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        more = frames.frame(frames.DATA, 0, 1, prefixed(b"a") + prefixed(b"b"))
        writer.write(GREETED + more + frames.frame(frames.RST_STREAM, 0, 1, bytes(4)))

    async def scenario() -> None:
        async with raw_server(talks) as address:
            told = await Told().open(address)
            assert told.messages == [b"hello", b"a", b"b"]
            assert [end.code for end in told.ends] == [UNAVAILABLE]
            await is_over(told)

    asyncio.run(scenario())


def test_one_who_fails_to_send_what_it_gathered_holds_nobody_else_up() -> None:
    async def scenario() -> None:
        faults: list[str] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: faults.append(str(context["exception"])))

        def fail() -> None:
            raise ValueError("no bytes for this")

        async with raw_server(greet) as address:
            told = await Told().open(address)
            sent: list[int] = []
            for number in (1, 2):
                told.stream.call_before_output(fail)
                told.stream.call_before_output(partial(sent.append, number))
                await asyncio.sleep(0)
            told.stream.send(b"late")
            await asyncio.sleep(0)
            assert (faults, told.stream.backlog_bytes) == (["no bytes for this"] * 2, 0)
            assert sent == [1, 2]
            await told.stream.close()

    asyncio.run(scenario())


def test_a_call_that_is_given_up_before_it_is_open_leaves_nothing() -> None:
    async def scenario() -> None:
        closed: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

        async def silent(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
            with suppress(ConnectionError):
                await reader.read()
            closed.set_result(b"")

        async with raw_server(silent) as address:
            told = Told()
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await told.open(address)
            await until(closed.done)
            assert told.ends == []

    asyncio.run(scenario())


def test_nobody_there_is_told_in_the_words_of_the_system() -> None:
    async def scenario() -> None:
        (address,) = free_addresses(1)
        with pytest.raises(CallFailed, match=r"^Connection refused$"):
            await Told().open(address)
        with socket.create_server(("127.0.0.1", 0)) as full, pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await Told().open(f"127.0.0.1:{full.getsockname()[1]}")

    asyncio.run(scenario())


def test_what_is_no_name_of_a_host_is_nobodys() -> None:
    async def scenario() -> None:
        for host in ("a..b", "x" * 64):
            with pytest.raises(CallFailed, match=rf"^{host} is no name of a host$"):
                await Told().open(f"{host}:7001")

    asyncio.run(scenario())
