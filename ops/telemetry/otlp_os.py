"""Pushes a node's metrics by OTLP over gRPC, where OpenTelemetry's own environment variables ask for it.

`OTEL_EXPORTER_OTLP_ENDPOINT` (or `OTEL_EXPORTER_OTLP_METRICS_ENDPOINT`) turns it on, `OTEL_METRIC_EXPORT_INTERVAL` (in
milliseconds) says how often, `OTEL_RESOURCE_ATTRIBUTES` and `OTEL_SERVICE_NAME` whose metrics they are; the exporter
reads the others. The exporter is an extra: `pip install isochrone[otlp]`.

What is pushed is read in the node's loop; it is sent from a thread. A collector that does not answer costs the node
nothing but its metrics, and the exporter logs it.
"""

import asyncio
import os
import time
from collections.abc import Callable, Iterable, Mapping
from typing import final

from opentelemetry.sdk.metrics.export import MetricExporter
from opentelemetry.sdk.resources import Resource

from isochrone.errors import InvalidRequest
from isochrone.node.metric_readings import Reading
from isochrone.ops.telemetry.metrics_data import metrics_data

INTERVAL_MS = 60_000.0
"""As in OpenTelemetry's specification."""
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT")


@final
class OtlpPush:
    """Pushes until it is cancelled."""

    def __init__(self, exporter: MetricExporter, interval_s: float) -> None:
        self._exporter = exporter
        self._interval_s = interval_s
        self._begun_ns = time.time_ns()
        self._resource = Resource.create({"service.name": "isochrone"})

    async def run(self, read: Callable[[], Iterable[Reading]], common: Mapping[str, str]) -> None:
        """Push what `read` tells, again and again; `common` are attributes of all of it."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                await asyncio.sleep(self._interval_s)
                data = metrics_data(read(), common, self._begun_ns, time.time_ns(), self._resource)
                await loop.run_in_executor(None, self._exporter.export, data)
        finally:
            self._exporter.shutdown()  # also ends an export that waits for the collector


def push_from_environment() -> OtlpPush | None:
    """What the environment asks for; None if it asks for nothing.

    Raises:
        InvalidRequest: the interval is no positive number, or the exporter is not installed.
    """
    if not any(os.environ.get(name) for name in _ENDPOINTS):
        return None
    text = os.environ.get("OTEL_METRIC_EXPORT_INTERVAL", "") or str(INTERVAL_MS)
    try:
        interval_s = float(text) / 1000
    except ValueError:
        interval_s = 0.0
    if not 0 < interval_s < float("inf"):
        raise InvalidRequest(f"OTEL_METRIC_EXPORT_INTERVAL: found {text!r}; allowed: a positive number of milliseconds")
    try:
        from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
    except ImportError as error:
        raise InvalidRequest("OTLP is asked for, but its exporter is missing: pip install isochrone[otlp]") from error
    return OtlpPush(OTLPMetricExporter(), interval_s)
