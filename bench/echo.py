"""What a unary call costs a Python gRPC server that does nothing: the ceiling of every endpoint built on it.

Each server takes `/bench.Echo/Echo` as bytes and gives a fixed answer of the size of etcd's to a write. h2load sends it
a write's bytes. So nothing of protobuf or of Isochrone is in the figures.

    .venv/bin/python bench/echo.py                       # all servers whose libraries are here
    .venv/bin/python bench/echo.py serve aio 9000        # one of them, until it is ended
"""

import argparse
import asyncio
import importlib.util
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial

import grpc
import grpc.aio
from etcd_cluster import free_ports, wait_until
from figures import Load, table
from h2load import Target, run_h2load

from isochrone.wire.http2.calls import UnaryMethod
from isochrone.wire.http2.server_os import Http2Server

SERVICE, METHOD = "bench.Echo", "Echo"
PATH = f"/{SERVICE}/{METHOD}"
ANSWER = bytes(29)
"""As long as etcd's answer to a write."""
IN_FLIGHT = (1, 64, 256)
READY_S_MAX = 20.0
STREAMS_MAX = 1000


def serve_aio(port: int) -> None:
    """grpc.aio, on which nodes would otherwise stand."""

    async def echo(_: bytes, __: object) -> bytes:
        return ANSWER

    async def run() -> None:
        server = grpc.aio.server()
        server.add_generic_rpc_handlers((_handlers(echo),))
        server.add_insecure_port(f"127.0.0.1:{port}")
        await server.start()
        await server.wait_for_termination()

    asyncio.run(run())


def serve_aio_uvloop(port: int) -> None:
    """grpc.aio on uvloop."""
    import uvloop

    uvloop.install()
    serve_aio(port)


def serve_threads(port: int, threads: int) -> None:
    """grpc's other server: a pool of threads, no event loop."""

    def echo(_: bytes, __: object) -> bytes:
        return ANSWER

    server = grpc.server(ThreadPoolExecutor(threads))
    server.add_generic_rpc_handlers((_handlers(echo),))
    server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    server.wait_for_termination()


def serve_grpclib(port: int) -> None:
    """grpclib: HTTP/2 in Python, on the event loop's own transports."""
    import grpclib.const
    import grpclib.server

    class Bytes:
        """A codec that leaves bytes as they are."""

        __content_subtype__ = "proto"

        def encode(self, message: bytes, _: object) -> bytes:
            return message

        def decode(self, data: bytes, _: object) -> bytes:
            return data

    async def echo(stream: "grpclib.server.Stream[bytes, bytes]") -> None:
        await stream.recv_message()
        await stream.send_message(ANSWER)

    class Echo:
        """The service, as grpclib wants it."""

        def __mapping__(self) -> dict[str, grpclib.const.Handler]:
            return {PATH: grpclib.const.Handler(echo, grpclib.const.Cardinality.UNARY_UNARY, bytes, bytes)}

    async def run() -> None:
        server = grpclib.server.Server([Echo()], codec=Bytes())  # type: ignore[arg-type]
        await server.start("127.0.0.1", port)
        await server.wait_closed()

    asyncio.run(run())


def serve_grpclib_uvloop(port: int) -> None:
    """grpclib on uvloop."""
    import uvloop

    uvloop.install()
    serve_grpclib(port)


def serve_http2(port: int) -> None:
    """Our own server, for calls of gRPC alone."""

    async def run() -> None:
        server = Http2Server({PATH: UnaryMethod(lambda call, _: call.answer(ANSWER))}, message_bytes_max=1 << 20)
        await server.start("127.0.0.1", port)
        await asyncio.Event().wait()

    asyncio.run(run())


SERVERS: dict[str, tuple[Callable[[int], None], tuple[str, ...]]] = {
    "aio": (serve_aio, ()),
    "aio-uvloop": (serve_aio_uvloop, ("uvloop",)),
    "threads-1": (partial(serve_threads, threads=1), ()),
    "threads-4": (partial(serve_threads, threads=4), ()),
    "grpclib": (serve_grpclib, ("grpclib",)),
    "http2": (serve_http2, ()),
    "grpclib-uvloop": (serve_grpclib_uvloop, ("grpclib", "uvloop")),
}
"""Servers by name, and what each needs beside grpcio."""


def available(name: str) -> bool:
    """Whether the libraries of a server are installed here."""
    return all(importlib.util.find_spec(library) is not None for library in SERVERS[name][1])


@contextmanager
def running(name: str) -> Iterator[tuple[str, int]]:
    """Run a server in a process of its own; its address and pid."""
    (port,) = free_ports(1)
    process = subprocess.Popen([sys.executable, __file__, "serve", name, str(port)])
    try:
        wait_until(lambda: _answers(f"127.0.0.1:{port}"), READY_S_MAX, f"the echo server {name} answers")
        yield f"127.0.0.1:{port}", process.pid
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


def ceiling(name: str, request: bytes, in_flights: tuple[int, ...], seconds: int) -> list[Load]:
    """Load one server with each number of calls in flight."""
    with running(name) as (address, pid):
        return [run_h2load(Target(address, PATH, request), each, seconds, {"server": pid}) for each in in_flights]


def _handlers(echo: Callable[..., object]) -> grpc.GenericRpcHandler:
    return grpc.method_handlers_generic_handler(SERVICE, {METHOD: grpc.unary_unary_rpc_method_handler(echo)})


def _answers(address: str) -> bool:
    with grpc.insecure_channel(address) as channel:
        try:
            channel.unary_unary(PATH)(b"", timeout=1.0)
        except grpc.RpcError:
            return False
        return True


def main() -> None:
    """Serve, or load every server in turn and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", choices=SERVERS, help="a server to load; all unless given")
    parser.add_argument("--seconds", type=int, default=5, help="of each point, after a second of warming up")
    commands = parser.add_subparsers(dest="command")
    serve = commands.add_parser("serve")
    serve.add_argument("name", choices=SERVERS)
    serve.add_argument("port", type=int)
    arguments = parser.parse_args()
    if arguments.command == "serve":
        SERVERS[arguments.name][0](arguments.port)
        return
    rows = []
    for name in arguments.only or SERVERS:
        if not available(name):
            print(f"{name}: left out, needs {', '.join(SERVERS[name][1])}", flush=True)
            continue
        for load in ceiling(name, bytes(120), IN_FLIGHT, arguments.seconds):
            cells = (f"{load.per_s:,.0f}", f"{load.p50_ms:.2f}", f"{load.p99_ms:.2f}", f"{load.cpu_us['server']:.0f}")
            rows.append((name, str(load.in_flight), *cells))
            print(*rows[-1], flush=True)
    print(table(("server", "in flight", "calls/s", "p50 ms", "p99 ms", "CPU us"), rows))


if __name__ == "__main__":
    main()
