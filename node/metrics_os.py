"""Serves a node's metrics to Prometheus, and to anybody else who can read its text: `GET /metrics`.

Numbers are read at one moment, in the node's loop. The text is written in a thread, as that of a hundred groups takes
so long that a leader would miss a heartbeat; a histogram may count on meanwhile.

What clients may do is bounded: so many at a time, one request each, of a few kilobytes, within some seconds.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate, groupby
from operator import attrgetter
from typing import final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.registry import Collector

from isochrone.errors import Unavailable
from isochrone.histograms import Histogram
from isochrone.ids import NS_PER_S
from isochrone.node.metric_catalogue import CATALOGUE, Kind
from isochrone.node.metric_readings import Reading

logger = logging.getLogger(__name__)

CLIENTS_MAX = 16
"""Most requests under way; more are cut off."""
REQUEST_BYTES_MAX = 8 << 10
TIMEOUT_S = 10.0
"""Within so long a client must have asked, and taken its answer."""

_PLAIN = "text/plain; charset=utf-8"


def families(readings: Iterable[Reading], common: dict[str, str]) -> Iterator[Metric]:
    """The readings as the library's metrics, with labels that all of them have."""
    place = {metric.name: number for number, metric in enumerate(CATALOGUE)}
    ordered = sorted(readings, key=lambda reading: place[reading.metric.name])
    for metric, group in groupby(ordered, attrgetter("metric")):
        labels = (*common, *metric.labels)
        samples = [((*common.values(), *reading.labels), reading.value) for reading in group]
        match metric.kind:
            case Kind.HISTOGRAM:
                yield _histograms(HistogramMetricFamily(metric.name, metric.meaning, labels=labels), samples)
            case Kind.COUNTER:
                yield _numbers(CounterMetricFamily(metric.name, metric.meaning, labels=labels), samples)
            case Kind.GAUGE:
                yield _numbers(GaugeMetricFamily(metric.name, metric.meaning, labels=labels), samples)


_Samples = Sequence[tuple[tuple[str, ...], float | Histogram]]


def _numbers(family: CounterMetricFamily | GaugeMetricFamily, samples: _Samples) -> Metric:
    for labels, value in samples:
        assert not isinstance(value, Histogram), family.name
        family.add_metric(labels, value)
    return family


def _histograms(family: HistogramMetricFamily, samples: _Samples) -> Metric:
    for labels, value in samples:
        assert isinstance(value, Histogram), family.name
        bounds = [*(f"{bound / NS_PER_S:g}" for bound in value.bounds), "+Inf"]
        buckets = list(zip(bounds, accumulate(value.counts), strict=True))
        family.add_metric(labels, buckets, sum_value=value.total / NS_PER_S)
    return family


@final
class _Readings(Collector):
    """What the library asks for metrics."""

    def __init__(self, readings: Sequence[Reading], common: dict[str, str]) -> None:
        self._readings = readings
        self._common = common

    def collect(self) -> Iterable[Metric]:
        return families(self._readings, self._common)


def prometheus_text(readings: Sequence[Reading], common: dict[str, str]) -> bytes:
    """Readings as Prometheus takes them; `common` are labels of all."""
    return generate_latest(_Readings(readings, common))


@final
class MetricsEndpoint:
    """Serves what `read` tells."""

    def __init__(self, address: str, read: Callable[[], Iterable[Reading]], common: dict[str, str]) -> None:
        """`address`: `host:port`. `common`: labels of every metric."""
        self._address = address
        self._read = read
        self._common = common
        self._server: asyncio.Server | None = None
        self._clients: dict[asyncio.Task[None], None] = {}

    async def start(self) -> None:
        """Listen. Raises `Unavailable` if the address cannot be listened on."""
        host, _, port = self._address.rpartition(":")
        try:
            self._server = await asyncio.start_server(
                self._connected, host.strip("[]"), int(port), limit=REQUEST_BYTES_MAX
            )
        except OSError as error:
            raise Unavailable(f"cannot listen on {self._address}: {error.strerror or error}") from error
        logger.info("metrics are served at http://%s/metrics", self._address)

    async def stop(self) -> None:
        """Answer nobody any more."""
        if self._server is None:
            return
        self._server.close()
        clients = list(self._clients)
        for client in clients:
            client.cancel()
        await asyncio.gather(*clients, return_exceptions=True)
        await self._server.wait_closed()

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._clients) >= CLIENTS_MAX:
            writer.close()
            return
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._clients[task] = None
        task.add_done_callback(self._clients.pop)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(TIMEOUT_S):
                head = await reader.readuntil(b"\r\n\r\n")
                writer.write(await self._answer(head.partition(b"\r\n")[0].decode("latin-1")))
                await writer.drain()
        except (TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError):
            writer.transport.abort()  # nobody to be told: it went away, or speaks something else
        finally:
            writer.close()

    async def _answer(self, request: str) -> bytes:
        method, _, target = request.rpartition(" ")[0].partition(" ")
        if target.partition("?")[0] != "/metrics":
            return _response("404 Not Found", _PLAIN, b"metrics are at /metrics\n")
        if method != "GET":
            return _response("405 Method Not Allowed", _PLAIN, b"only GET is answered\n")
        text = await asyncio.to_thread(prometheus_text, list(self._read()), self._common)
        return _response("200 OK", CONTENT_TYPE_PLAIN_0_0_4, text)


def _response(status: str, content_type: str, body: bytes) -> bytes:
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode("latin-1") + body
