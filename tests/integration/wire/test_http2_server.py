"""Our server for gRPC against a client that is not ours: grpc's own."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
import grpc.aio
import pytest

from isochrone.errors import Unavailable
from isochrone.wire.http2 import frames
from isochrone.wire.http2.calls import Call, Methods, StreamMethod, UnaryMethod
from isochrone.wire.http2.limits import Limits
from isochrone.wire.http2.server_os import Http2Server

MESSAGE_BYTES_MAX = 2 << 20
UNLIMITED = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


class Doubler:
    """Sends every message back twice, and its number at the end."""

    def __init__(self, call: Call) -> None:
        self.call = call
        self.count = 0

    def message(self, message: bytes) -> None:
        self.count += 1
        self.call.send(message)
        self.call.send(message)

    def ended(self) -> None:
        self.call.send(b"%d" % self.count)
        self.call.finish()

    def cancelled(self) -> None:
        """Nothing to undo."""


class Kept:
    """Calls that nobody answers, and whether they were given up."""

    def __init__(self) -> None:
        self.calls: asyncio.Queue[Call] = asyncio.Queue()
        self.cancelled_by_client = asyncio.Event()

    def open(self, call: Call) -> "Kept":
        self.calls.put_nowait(call)
        return self

    def message(self, message: bytes) -> None:
        """Nothing to do."""

    def ended(self) -> None:
        """Nothing to do."""

    def cancelled(self) -> None:
        self.cancelled_by_client.set()


@asynccontextmanager
async def serving(
    methods: Methods, limits: Limits | None = None
) -> AsyncIterator[tuple[Http2Server, grpc.aio.Channel, int]]:
    server = Http2Server(methods, message_bytes_max=MESSAGE_BYTES_MAX, limits=limits)
    port = await server.start("127.0.0.1", 0)
    try:
        async with asyncio.timeout(60), grpc.aio.insecure_channel(f"127.0.0.1:{port}", UNLIMITED) as channel:
            yield server, channel, port
    finally:
        await server.stop()


ECHO = {"/t/Echo": UnaryMethod(lambda call, message: call.answer(message))}


def test_many_calls_at_a_time_of_many_sizes() -> None:
    async def run() -> None:
        rng = random.Random(1)
        sizes = [rng.choice((0, 1, 100, 16_379, 16_384, 65_535, 70_000, 300_000)) for _ in range(300)]
        async with serving(ECHO) as (_, channel, _):
            call = channel.unary_unary("/t/Echo")
            requests = [rng.randbytes(size) for size in sizes]
            assert await asyncio.gather(*map(call, requests)) == requests
            large = rng.randbytes(MESSAGE_BYTES_MAX)
            assert await call(large) == large

    asyncio.run(run())


def test_streams_go_both_ways() -> None:
    async def run() -> None:
        async with serving({"/t/Double": StreamMethod(Doubler)}) as (_, channel, _):
            sent = [b"%d" % number * 5000 for number in range(200)]
            received = [each async for each in channel.stream_stream("/t/Double")(iter(sent))]
            assert received == [each for one in sent for each in (one, one)] + [b"200"]

    asyncio.run(run())


def test_an_error_has_its_code_and_its_text_whatever_is_in_it() -> None:
    text = 'etcdserver: 100 % of "ключ"\n'
    methods = {"/t/Fail": UnaryMethod(lambda call, _: call.fail(grpc.StatusCode.OUT_OF_RANGE.value[0], text))}

    async def run() -> None:
        async with serving(methods) as (_, channel, _):
            for path, code, details in (
                ("/t/Fail", grpc.StatusCode.OUT_OF_RANGE, text),
                ("/t/None", grpc.StatusCode.UNIMPLEMENTED, "unknown method /t/None"),
            ):
                with pytest.raises(grpc.aio.AioRpcError) as error:
                    await channel.unary_unary(path)(b"")
                assert (error.value.code(), error.value.details()) == (code, details)
            with pytest.raises(grpc.aio.AioRpcError) as error:
                await channel.unary_unary("/t/Fail")(bytes(MESSAGE_BYTES_MAX + 1))
            assert error.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            with pytest.raises(grpc.aio.AioRpcError) as error:
                await channel.unary_unary("/t/Fail")(bytes(100), compression=grpc.Compression.Gzip)
            assert error.value.code() is grpc.StatusCode.UNIMPLEMENTED

    asyncio.run(run())


def test_a_call_that_is_cancelled_or_runs_out_of_time_is_told_to_its_handler() -> None:
    async def run() -> None:
        kept = Kept()
        async with serving({"/t/Wait": StreamMethod(kept.open)}) as (_, channel, _):
            waiting = channel.stream_stream("/t/Wait")()
            assert (await kept.calls.get()).timeout_ns is None
            waiting.cancel()
            await kept.cancelled_by_client.wait()
            kept.cancelled_by_client.clear()
            with pytest.raises(grpc.aio.AioRpcError) as error:
                await channel.unary_unary("/t/Wait")(b"", timeout=0.2)
            assert error.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            timeout_ns = (await kept.calls.get()).timeout_ns
            assert timeout_ns is not None and 0 < timeout_ns < 3 * 10**8
            await kept.cancelled_by_client.wait()

    asyncio.run(run())


def test_answers_may_come_later_and_stopping_waits_for_them() -> None:
    async def run() -> None:
        asked: asyncio.Queue[Call] = asyncio.Queue()
        methods = {"/t/Later": UnaryMethod(lambda call, _: asked.put_nowait(call))}
        async with serving(methods) as (server, channel, _):
            calls = [asyncio.ensure_future(channel.unary_unary("/t/Later")(b"")) for _ in range(3)]
            under_way = [await asked.get() for _ in calls]
            stopping = asyncio.create_task(server.stop(grace_s=30.0))
            await asyncio.sleep(0)
            for number, call in enumerate(under_way):
                assert not stopping.done()
                call.answer(b"%d" % number)
            assert sorted(await asyncio.gather(*calls)) == [b"0", b"1", b"2"]
            await stopping

    asyncio.run(run())


def test_stopping_without_grace_ends_what_is_under_way() -> None:
    async def run() -> None:
        kept = Kept()
        async with serving({"/t/Wait": StreamMethod(kept.open)}) as (server, channel, _):
            call = channel.unary_unary("/t/Wait")(b"")
            await kept.calls.get()
            await server.stop()
            assert kept.cancelled_by_client.is_set()
            with pytest.raises(grpc.aio.AioRpcError) as error:
                await call
            assert error.value.code() is grpc.StatusCode.UNAVAILABLE

    asyncio.run(run())


def test_a_client_that_does_not_read_loses_its_connection_and_others_are_served() -> None:
    async def run() -> None:
        limits = Limits(backlog_bytes=4 << 20)
        async with serving(ECHO, limits) as (_, channel, port):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(frames.PREFACE + frames.settings())

            async def ping() -> None:
                for number in range(10_000):  # whose answers nobody reads
                    writer.write(frames.frame(frames.PING, 0, 0, bytes(8)) * 4000)
                    await writer.drain()
                    assert await channel.unary_unary("/t/Echo")(b"%d" % number) == b"%d" % number

            with pytest.raises(ConnectionError):
                await ping()
            assert await channel.unary_unary("/t/Echo")(b"still here") == b"still here"
            writer.transport.abort()

    asyncio.run(run())


def test_a_port_in_use_is_told() -> None:
    async def run() -> None:
        async with serving(ECHO) as (_, _, port):
            with pytest.raises(Unavailable, match=f"cannot listen on 127.0.0.1:{port}"):
                await Http2Server(ECHO, message_bytes_max=1).start("127.0.0.1", port)

    asyncio.run(run())
