"""Clients that only take up room: they come in crowds, say nothing, or stop half way."""

import asyncio
import socket
from contextlib import suppress

import pytest

from isochrone.wire.http2 import frames
from isochrone.wire.http2.calls import UnaryMethod
from isochrone.wire.http2.server_os import Http2Server

ECHO = {"/t/Echo": UnaryMethod(lambda call, message: call.answer(message))}
PATIENCE_S = 20.0


async def closed(reader: asyncio.StreamReader) -> bool:
    """Whether the server hangs up."""
    try:
        async with asyncio.timeout(PATIENCE_S):
            while await reader.read(1 << 16):
                pass
    except ConnectionError:
        pass
    return True


@pytest.mark.parametrize("said", [b"", frames.PREFACE[:10], frames.PREFACE, frames.PREFACE + frames.settings()[:5]])
def test_who_does_not_say_hello_is_cut_off_and_nobody_else(said: bytes) -> None:
    async def main() -> None:
        server = Http2Server(ECHO, message_bytes_max=1_000, greeting_timeout_s=0.05)
        port = await server.start("127.0.0.1", 0)
        silent, out = await asyncio.open_connection("127.0.0.1", port)
        polite, polite_out = await asyncio.open_connection("127.0.0.1", port)
        polite_out.write(frames.PREFACE + frames.settings())
        out.write(said)
        assert await closed(silent)
        polite_out.write(frames.frame(frames.PING, 0, 0, b"are you?"))
        async with asyncio.timeout(PATIENCE_S):
            await polite.readuntil(b"are you?")
        out.close()
        polite_out.close()
        await server.stop()

    asyncio.run(main())


def test_a_crowd_is_bounded_and_makes_room_when_it_goes() -> None:
    async def main() -> None:
        server = Http2Server(ECHO, message_bytes_max=1_000, connections_max=2)
        port = await server.start("127.0.0.1", 0)
        held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(2)]
        for reader, _ in held:
            assert await reader.readexactly(frames.HEADER_BYTES)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        assert await closed(reader)
        writer.close()
        held[0][1].close()
        async with asyncio.timeout(PATIENCE_S):
            while True:  # until the server has seen it go
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                greeting = await reader.read(frames.HEADER_BYTES)
                writer.close()
                if greeting:
                    break
        held[1][1].close()
        await server.stop()

    asyncio.run(main())


def test_who_was_accepted_just_before_a_stop_is_cut_off_too(monkeypatch: pytest.MonkeyPatch) -> None:
    make = Http2Server._connected

    async def main() -> None:
        accepted = asyncio.Event()

        def connected(server: Http2Server) -> asyncio.Protocol:
            accepted.set()
            return make(server)

        monkeypatch.setattr(Http2Server, "_connected", connected)
        server = Http2Server(ECHO, message_bytes_max=1_000, greeting_timeout_s=2 * PATIENCE_S)
        port = await server.start("127.0.0.1", 0)
        with socket.create_connection(("127.0.0.1", port)) as late:
            await accepted.wait()
            await server.stop()
            late.setblocking(False)
            with suppress(ConnectionError):
                async with asyncio.timeout(PATIENCE_S):
                    while await asyncio.get_running_loop().sock_recv(late, 1_000):
                        pass

    asyncio.run(main())
