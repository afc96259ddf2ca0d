"""A node's metrics as OpenTelemetry's exporters take them, and what the environment asks for."""

import asyncio
import threading
from collections.abc import Iterator

import pytest
from opentelemetry.sdk.metrics.export import (
    Gauge,
    HistogramDataPoint,
    Metric,
    MetricExporter,
    MetricExportResult,
    MetricsData,
    NumberDataPoint,
    Sum,
)
from opentelemetry.sdk.metrics.export import Histogram as HistogramData
from opentelemetry.sdk.resources import Resource

from isochrone.errors import InvalidRequest
from isochrone.histograms import Histogram
from isochrone.ids import NS_PER_S
from isochrone.node import metric_catalogue as metrics
from isochrone.node.metric_readings import Reading
from isochrone.ops.telemetry.metrics_data import metrics_data
from isochrone.ops.telemetry.otlp_os import OtlpPush, push_from_environment

COMMON = {"node": "n-1", "region": "r"}


def told(data: MetricsData) -> list[Metric]:
    (resource,) = data.resource_metrics
    (scope,) = resource.scope_metrics
    assert scope.scope.name == "isochrone.node"
    return list(scope.metrics)


def test_readings_keep_their_names_labels_and_kinds() -> None:
    histogram = Histogram((NS_PER_S // 2, NS_PER_S))
    for value_s in (0.1, 0.7, 9.0):
        histogram.record(round(value_s * NS_PER_S))
    readings = [
        Reading(metrics.LOOP_LAG, (), histogram),
        Reading(metrics.STORE_SIZE, (), 4096),
        Reading(metrics.ERRORS, ("etcd", "Unavailable"), 3),
    ]
    errors, lag, size = told(metrics_data(readings, COMMON, 5, 7, Resource({})))
    assert (errors.name, errors.unit, lag.unit, size.unit) == ("isochrone_errors_total", "", "s", "By")
    assert isinstance(errors.data, Sum) and errors.data.is_monotonic
    assert isinstance(lag.data, HistogramData) and isinstance(size.data, Gauge)
    (point,) = errors.data.data_points
    assert point == NumberDataPoint({**COMMON, "api": "etcd", "error": "Unavailable"}, 5, 7, 3)
    (times,) = lag.data.data_points
    assert isinstance(times, HistogramDataPoint)
    assert (times.bucket_counts, times.explicit_bounds) == ((1, 1, 1), (0.5, 1.0))
    assert (times.count, times.sum) == (3, pytest.approx(9.8))


class Collector(MetricExporter):
    """Keeps what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.taken: list[MetricsData] = []
        self.full = threading.Event()
        """Three were taken."""
        self.closed = False

    def export(self, metrics_data: MetricsData, timeout_millis: float = 0, **kwargs: object) -> MetricExportResult:
        self.taken.append(metrics_data)
        if len(self.taken) == 3:
            self.full.set()
        return MetricExportResult.SUCCESS

    def force_flush(self, timeout_millis: float = 0) -> bool:
        return True

    def shutdown(self, timeout_millis: float = 0, **kwargs: object) -> None:
        self.closed = True


def test_what_is_read_is_pushed_until_that_is_cancelled() -> None:
    collector = Collector()
    sizes = iter(range(1, 1_000))

    def read() -> Iterator[Reading]:
        yield Reading(metrics.STORE_SIZE, (), next(sizes))

    async def main() -> None:
        task = asyncio.create_task(OtlpPush(collector, 0.001).run(read, COMMON))
        assert await asyncio.to_thread(collector.full.wait, 30)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert collector.closed
    values = [told(data)[0].data.data_points[0] for data in collector.taken]
    assert [point.value for point in values if isinstance(point, NumberDataPoint)][:3] == [1, 2, 3]


def test_nothing_is_pushed_unless_the_environment_says_where_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_ENDPOINT", raising=False)
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", raising=False)
    assert push_from_environment() is None


@pytest.mark.parametrize("text", ["soon", "0", "-5", "inf", "nan"])
def test_an_interval_that_is_none_is_named(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", text)
    with pytest.raises(InvalidRequest, match=f"OTEL_METRIC_EXPORT_INTERVAL: found '{text}'"):
        push_from_environment()
