"""What clients of a metrics endpoint can do to it."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from etcd_cluster import free_ports

from isochrone.errors import Unavailable
from isochrone.node import metric_catalogue as metrics
from isochrone.node.metric_readings import Reading
from isochrone.node.metrics_os import CLIENTS_MAX, REQUEST_BYTES_MAX, MetricsEndpoint

REQUEST = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"


def with_endpoint(test: Callable[[MetricsEndpoint, int], Awaitable[None]]) -> None:
    async def main() -> None:
        (port,) = free_ports(1)
        readings = [Reading(metrics.STORE_SIZE, (), 4096)]
        endpoint = MetricsEndpoint(f"127.0.0.1:{port}", lambda: readings, {"node": "n-1"})
        await endpoint.start()
        try:
            await asyncio.wait_for(test(endpoint, port), 30)
        finally:
            await endpoint.stop()

    asyncio.run(main())


async def ask(port: int, sent: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(sent)
    answer = await reader.read()
    writer.close()
    return answer


def test_clients_that_say_nothing_keep_no_others_out_for_long() -> None:
    async def test(endpoint: MetricsEndpoint, port: int) -> None:
        silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(CLIENTS_MAX)]
        assert await ask(port, b"") == b"", "one too many"
        silent[0][1].close()
        await silent[0][1].wait_closed()
        while not (answer := await ask(port, REQUEST)):
            pass
        head, _, text = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 OK\r\n") and b"Content-Length: %d\r\n" % len(text) in head
        assert b'isochrone_store_size_bytes{node="n-1"} 4096.0\n' in text
        for _, writer in silent[1:]:
            writer.close()

    with_endpoint(test)


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", b"404 Not Found"),
        (b"GET /metricsx HTTP/1.1\r\n\r\n", b"404 Not Found"),
        (b"\r\n\r\n", b"404 Not Found"),
        (b"\x00\xff\r\n\r\n", b"404 Not Found"),
        (b"POST /metrics HTTP/1.1\r\n\r\n", b"405 Method Not Allowed"),
        (b"GET /metrics?x=y HTTP/1.0\r\nAccept: */*\r\n\r\n", b"200 OK"),
    ],
)
def test_what_is_not_a_scrape_is_refused(sent: bytes, status: bytes) -> None:
    async def test(_: MetricsEndpoint, port: int) -> None:
        assert (await ask(port, sent)).startswith(b"HTTP/1.1 " + status + b"\r\n")

    with_endpoint(test)


def test_a_request_without_an_end_is_cut_off() -> None:
    async def test(_: MetricsEndpoint, port: int) -> None:
        try:
            answer = await ask(port, b"x" * (REQUEST_BYTES_MAX + 20_000))
        except ConnectionError:
            answer = b""
        assert answer == b""
        assert await ask(port, REQUEST)

    with_endpoint(test)


def test_an_endpoint_that_stops_cuts_off_whoever_is_there() -> None:
    async def test(endpoint: MetricsEndpoint, port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        assert await ask(port, REQUEST), "a later client was served, so the first was accepted"
        await endpoint.stop()
        assert await reader.read() == b""
        writer.close()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", port)

    with_endpoint(test)


def test_an_address_in_use_is_told() -> None:
    async def test(_: MetricsEndpoint, port: int) -> None:
        second = MetricsEndpoint(f"127.0.0.1:{port}", list, {})
        with pytest.raises(Unavailable, match=f"cannot listen on 127.0.0.1:{port}: "):
            await second.start()
        await second.stop()

    with_endpoint(test)
