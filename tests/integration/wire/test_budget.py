"""Crowds that stop reading, each client within its bounds: what is kept for all is bounded, and who reads is served."""

import asyncio
import socket
from contextlib import AsyncExitStack

from http2_client import prefixed
from wire_nodes import WireNode, peer_hello, until, wire_node

from isochrone.errors import IsochroneError
from isochrone.ids import GroupId, KeyspaceId
from isochrone.wire.budget import Budget
from isochrone.wire.http2 import frames
from isochrone.wire.http2.calls import UnaryMethod
from isochrone.wire.http2.headers import request_block
from isochrone.wire.http2.server_os import Http2Server
from isochrone.wire.messages import PROTOCOL_VERSION
from isochrone.wire.session import ClientHello, SessionMessage, WriteRequest
from isochrone.wire.session_client_grpc import connect
from isochrone.wire.session_codec import encode_session_frame
from isochrone.wire.streams_grpc import SESSION_METHOD

BYTES_MAX = 24 << 20
CROWD = 16
ANSWER_BYTES, ANSWERS = 256 << 10, 32
"""Of each client in a crowd: 8 MiB, a quarter of what one client may leave there; 128 MiB of all."""
UNCOUNTED_BYTES = 64 << 10
"""Of each connection at most."""
HELLO = ClientHello(PROTOCOL_VERSION, "r", "z", "crowd")


def request(number: int, size_bytes: int) -> WriteRequest:
    return WriteRequest((number,), GroupId("g"), KeyspaceId("k"), 1000, b"", (bytes(size_bytes),))


class Deaf:
    """A client that says all that it has to say, and never reads. Half of them grant the largest windows."""

    def __init__(self, port: int, *, windows: bool) -> None:
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.socket.connect(("127.0.0.1", port))
        self.socket.setblocking(False)
        said = frames.settings((frames.INITIAL_WINDOW_SIZE, frames.WINDOW_MAX)) if windows else frames.settings()
        self._said = frames.PREFACE + said + (frames.window_update(0, 1 << 30) if windows else b"")

    def open(self, stream: int, path: str, message: bytes, *, end: bool) -> None:
        self._said += frames.frame(frames.HEADERS, frames.END_HEADERS, stream, request_block("a", path))
        self.message(stream, message, end=end)

    def message(self, stream: int, message: bytes, *, end: bool = False) -> None:
        data = prefixed(message)
        for at in range(0, len(data), frames.FRAME_BYTES_MAX):
            piece = data[at : at + frames.FRAME_BYTES_MAX]
            flags = frames.END_STREAM if end and at + len(piece) == len(data) else 0
            self._said += frames.frame(frames.DATA, flags, stream, piece)

    async def say(self) -> None:
        try:
            await asyncio.get_running_loop().sock_sendall(self.socket, self._said)
        except ConnectionError:
            pass  # It was cut off already.


def really_kept_bytes(node: WireNode, server: Http2Server) -> int:
    """What is there, wherever it was counted."""
    sockets = [*node.server._server._sockets, *server._sockets]
    written = sum(each._transport.get_write_buffer_size() for each in sockets if each._transport)
    waiting = sum(session.outbox.backlog_bytes for session in node.sessions.open)
    return written + waiting + sum(each.connection.backlog_bytes for each in sockets)


def test_crowds_that_do_not_read_are_cut_off_as_far_as_needed_and_who_reads_is_served() -> None:
    async def main() -> None:
        budget, kept = Budget(BYTES_MAX), [0]
        methods = {"/t/Blob": UnaryMethod(lambda call, _: call.answer(bytes(ANSWER_BYTES)))}
        server = Http2Server(methods, message_bytes_max=1 << 20, budget=budget)
        port = await server.start("127.0.0.1", 0)
        async with AsyncExitStack() as stack, wire_node(peer_hello("a"), {}, copies=8, budget=budget) as node:
            stack.push_async_callback(server.stop)
            sessions_port = int(node.address.rpartition(":")[2])
            answers: list[SessionMessage] = []
            ends: list[IsochroneError | None] = []
            reader = await connect(node.address, HELLO, answers.append, ends.append)
            crowd = [Deaf(port, windows=number % 2 == 0) for number in range(CROWD // 2)]
            for deaf in crowd:
                stack.callback(deaf.socket.close)
                for number in range(ANSWERS):
                    deaf.open(2 * number + 1, "/t/Blob", b"", end=True)
            for number in range(CROWD // 2):
                deaf = Deaf(sessions_port, windows=number % 2 == 0)
                stack.callback(deaf.socket.close)
                deaf.open(1, SESSION_METHOD, encode_session_frame([HELLO]), end=False)
                for _ in range(ANSWERS // 8):
                    deaf.message(1, encode_session_frame([request(1, ANSWER_BYTES)]))
                crowd.append(deaf)
            for deaf in crowd:
                await deaf.say()
                reader.send(request(2, 1000))
                await asyncio.sleep(0.01)
                kept.append(really_kept_bytes(node, server))
            assert max(kept) <= BYTES_MAX + (8 << 20) + CROWD * UNCOUNTED_BYTES, [each >> 20 for each in kept]
            await until(lambda: len(answers) == 8 * CROWD)
            await until(lambda: really_kept_bytes(node, server) <= BYTES_MAX)
            left_bytes = really_kept_bytes(node, server)
            assert left_bytes > BYTES_MAX // 2, "no more were cut off than needed"
            assert 0 < budget.cut_off < CROWD
            assert ends == []
            await reader.close()
            # Of those that are left nobody is forgotten, nor of those that are gone anything kept.
            for deaf in crowd:
                deaf.socket.close()
            await until(lambda: budget.kept_bytes == 0 and not server._sockets)

    asyncio.run(main())
