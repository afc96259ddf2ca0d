"""The benchmarks' own HTTP/2 client against a real gRPC server."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
import grpc.aio
import pytest
from http2 import CallFailed, Connection, connect


async def echo(request: bytes, _: object) -> bytes:
    return request


async def refuse(_: bytes, context: "grpc.aio.ServicerContext[bytes, bytes]") -> bytes:
    await context.abort(grpc.StatusCode.NOT_FOUND, "no such thing")
    raise AssertionError


async def count(request: bytes, _: object) -> AsyncIterator[bytes]:
    for number in range(int(request)):
        yield b"%d" % number * 1000


@asynccontextmanager
async def served() -> AsyncIterator[Connection]:
    server = grpc.aio.server()
    methods = {
        "Echo": grpc.unary_unary_rpc_method_handler(echo),
        "Refuse": grpc.unary_unary_rpc_method_handler(refuse),
        "Count": grpc.unary_stream_rpc_method_handler(count),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Test", methods),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    connection = await connect(f"127.0.0.1:{port}")
    yield connection
    connection.close()
    await server.stop(None)


def test_many_calls_at_a_time_each_get_their_own_answer() -> None:
    async def run() -> None:
        async with served() as connection:
            requests = [b"%d" % number * (1 + number % 700) for number in range(500)]  # more than one window
            assert sum(map(len, requests)) > 5 * 65_535
            assert await asyncio.gather(*(connection.call("/test.Test/Echo", each) for each in requests)) == requests
            assert await connection.call("/test.Test/Echo", b"") == b""

    asyncio.run(asyncio.wait_for(run(), 30))


def test_a_refused_call_fails_and_the_connection_goes_on() -> None:
    async def run() -> None:
        async with served() as connection:
            with pytest.raises(CallFailed, match=r"/test\.Test/Refuse"):
                await connection.call("/test.Test/Refuse", b"x")
            assert await connection.call("/test.Test/Echo", b"y") == b"y"

    asyncio.run(asyncio.wait_for(run(), 30))


def test_a_stream_gives_every_message_and_its_end() -> None:
    async def run() -> None:
        async with served() as connection:
            received: list[bytes] = []
            ended: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
            stream = connection.open("/test.Test/Count", received.append, ended.set_result)
            connection.send(stream, b"3000", end=True)  # some 10 MB: more than what is granted at a time
            assert await ended is False
            assert received == [b"%d" % number * 1000 for number in range(3000)]

    asyncio.run(asyncio.wait_for(run(), 30))


def test_calls_under_way_fail_when_the_connection_breaks() -> None:
    async def run() -> None:
        async with served() as connection:
            call = connection.call("/test.Test/Echo", b"x")
            connection.close()
            with pytest.raises(CallFailed):
                await call

    asyncio.run(asyncio.wait_for(run(), 30))
