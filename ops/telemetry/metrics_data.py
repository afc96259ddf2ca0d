"""A node's metrics in OpenTelemetry's data model, as its exporters take them.

Names are those of the catalogue: whoever reads metrics both ways meets one name.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from operator import attrgetter

from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Gauge,
    HistogramDataPoint,
    Metric,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.metrics.export import Histogram as HistogramData
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from isochrone.histograms import Histogram
from isochrone.ids import NS_PER_S
from isochrone.node.metric_catalogue import CATALOGUE, Kind
from isochrone.node.metric_catalogue import Metric as Entry
from isochrone.node.metric_readings import Reading

_CUMULATIVE = AggregationTemporality.CUMULATIVE
_UNITS = {"_seconds": "s", "_bytes": "By"}
_PLACE = {metric.name: number for number, metric in enumerate(CATALOGUE)}


def metrics_data(
    readings: Iterable[Reading], common: Mapping[str, str], begun_ns: int, now_ns: int, resource: Resource
) -> MetricsData:
    """What is read `now_ns`, of a process that began to count at `begun_ns`; both in nanoseconds since the epoch.

    `common`: attributes of every data point.
    """
    ordered = sorted(readings, key=lambda reading: _PLACE[reading.metric.name])
    metrics = [
        _metric(entry, [_point(reading, common, begun_ns, now_ns) for reading in group])
        for entry, group in groupby(ordered, attrgetter("metric"))
    ]
    scope = ScopeMetrics(InstrumentationScope("isochrone.node"), metrics, "")
    return MetricsData([ResourceMetrics(resource, [scope], "")])


def _point(
    reading: Reading, common: Mapping[str, str], begun_ns: int, now_ns: int
) -> NumberDataPoint | HistogramDataPoint:
    attributes = {**common, **dict(zip(reading.metric.labels, reading.labels, strict=True))}
    value = reading.value
    if not isinstance(value, Histogram):
        return NumberDataPoint(attributes, begun_ns, now_ns, value)
    return HistogramDataPoint(
        attributes,
        begun_ns,
        now_ns,
        count=value.count,
        sum=value.total / NS_PER_S,
        bucket_counts=tuple(value.counts),
        explicit_bounds=tuple(bound / NS_PER_S for bound in value.bounds),
        min=math.inf,  # as the SDK says where neither is recorded
        max=-math.inf,
    )


def _metric(entry: Entry, points: Sequence[NumberDataPoint | HistogramDataPoint]) -> Metric:
    numbers = [point for point in points if isinstance(point, NumberDataPoint)]
    data: Sum | Gauge | HistogramData
    match entry.kind:
        case Kind.COUNTER:
            data = Sum(numbers, _CUMULATIVE, is_monotonic=True)
        case Kind.GAUGE:
            data = Gauge(numbers)
        case Kind.HISTOGRAM:
            data = HistogramData([point for point in points if isinstance(point, HistogramDataPoint)], _CUMULATIVE)
    unit = next((unit for ending, unit in _UNITS.items() if entry.name.endswith(ending)), "")
    return Metric(entry.name, entry.meaning, unit, data)
