"""The timeline: one lane per region with a dot per operation, and one bar per keyspace for who answered."""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

from isochrone.drills.history import Operation, Outcome
from isochrone.drills.record import DrillRecord
from isochrone.drills.report.svg import line, picture, rect, text
from isochrone.drills.results import Results

WIDTH, LEFT, RIGHT = 1100.0, 142.0, 16.0
HEAD, LANE, GAP, BAR = 40.0, 118.0, 28.0, 22.0
LATENCY_MIN_MS, LATENCY_MAX_MS = 1.0, 10_000.0
SILENCE_S = 2.0
"""A bar of the leader lane is broken where no write was acknowledged for so long."""


@dataclass(frozen=True, slots=True)
class _Scale:
    """From seconds of the drill to places in the picture."""

    start_s: float
    end_s: float

    def x(self, time_s: float) -> float:
        share = (time_s - self.start_s) / max(self.end_s - self.start_s, 1e-9)
        return LEFT + min(max(share, 0.0), 1.0) * (WIDTH - LEFT - RIGHT)


def region_colour(record: DrillRecord, region: str) -> str:
    """The colour of a region, the same in every picture."""
    names: list[str] = [each.id for each in record.topology.regions]
    return f"var(--r{names.index(region) % 6})" if region in names else "var(--soft)"


def short_city(city: str) -> str:
    """The first of several names: `Ashburn / Washington DC` is too long for a picture."""
    return city.partition(" / ")[0]


def draw_timeline(record: DrillRecord, results: Results) -> str:
    """The picture, or nothing when no operation was recorded."""
    shaped_ns = record.shaped_ns
    if shaped_ns is None or record.workload_start_ns is None:
        return ""
    operations = [item for item in record.operations if not item.final and item.invoke_ns >= shaped_ns]
    if not operations:
        return ""
    first = min(operation.invoke_ns for operation in operations)
    last = max(operation.invoke_ns for operation in operations)
    scale = _Scale(record.seconds(first), record.seconds(last))
    regions = [client.region for client in record.drill.workload.clients]
    lanes_bottom = HEAD + len(regions) * (LANE + GAP)
    keyspaces = list(record.drill.workload.keyspaces)
    bottom = lanes_bottom + 30 + len(keyspaces) * BAR
    parts = _faults(record, results, scale, HEAD - 8, bottom)
    for number, region in enumerate(regions):
        top = HEAD + number * (LANE + GAP)
        parts += _lane(record, results, scale, region, top)
        parts += _dots(record, [item for item in operations if item.region == region], scale, top)
    parts.append(text(0, lanes_bottom + 20, "Who acknowledged writes", "label"))
    for number, keyspace in enumerate(keyspaces):
        parts += _leaders(record, operations, scale, keyspace, lanes_bottom + 28 + number * BAR)
    parts += _recoveries(results, scale, lanes_bottom + 20, bottom)
    parts += _time_axis(scale, bottom)
    return picture(WIDTH, bottom + 22, "Latency and outcome of every operation over time, by region", parts)


def _y(latency_ms: float, top: float) -> float:
    bounded = min(max(latency_ms, LATENCY_MIN_MS), LATENCY_MAX_MS)
    share = math.log10(bounded / LATENCY_MIN_MS) / math.log10(LATENCY_MAX_MS / LATENCY_MIN_MS)
    return top + LANE - share * LANE


def _lane(record: DrillRecord, results: Results, scale: _Scale, region: str, top: float) -> list[str]:
    city = next((short_city(each.city) for each in record.topology.regions if each.id == region), "")
    parts = [
        text(0, top + 14, region, "label"),
        text(0, top + 30, city, "soft"),
        rect(0, top + 38, 26, 4, fill=region_colour(record, region)),
    ]
    for fault in results.faults:
        if fault.region == region:
            left, right = scale.x(fault.start_s), scale.x(fault.end_s if fault.end_s is not None else scale.end_s)
            parts.append(rect(left, top, right - left, LANE, "lost"))
            parts.append(text((left + right) / 2, top + LANE / 2, "region lost", "fault-text halo", "middle"))
    for exponent, label in enumerate(("1 ms", "10 ms", "100 ms", "1 s", "10 s")):
        y = _y(10.0**exponent, top)
        parts.append(line(LEFT, y, WIDTH - RIGHT, y, "grid"))
        parts.append(text(LEFT - 6, y + 3.5, label, "soft tiny", "end"))
    return parts


def _dots(record: DrillRecord, operations: Iterable[Operation], scale: _Scale, top: float) -> list[str]:
    """One path for each keyspace and outcome: a dot is a stroke of no length with round ends."""
    points: dict[tuple[Outcome, str], list[str]] = defaultdict(list)
    for item in operations:
        x, y = scale.x(record.seconds(item.invoke_ns)), _y(item.latency_ms, top)
        points[item.outcome, item.keyspace].append(f"M{x:.1f} {y:.1f}h0")
    order = {Outcome.OK: 0, Outcome.FAIL: 1, Outcome.INFO: 2}
    return [
        f'<path class="dots {outcome}" data-keyspace="{escape(keyspace)}" d="{"".join(found)}"/>'
        for (outcome, keyspace), found in sorted(points.items(), key=lambda each: (order[each[0][0]], each[0][1]))
    ]


def _faults(record: DrillRecord, results: Results, scale: _Scale, top: float, bottom: float) -> list[str]:
    parts: list[str] = []
    for fault in results.faults:
        left, right = scale.x(fault.start_s), scale.x(fault.end_s if fault.end_s is not None else scale.end_s)
        parts.append(rect(left, top, right - left, bottom - top, "fault"))
        parts += [line(x, top - 6, x, bottom, "fault-edge") for x in (left, right)]
        parts.append(text(left + 4, top - 12, fault.description, "fault-text"))
    if record.drill.workload.warm_up_s:
        parts.append(text(scale.x(scale.start_s) + 2, top - 12, "warm-up", "soft"))
        parts.append(line(scale.x(0), top - 6, scale.x(0), bottom, "axis"))
    return parts


def _recoveries(results: Results, scale: _Scale, label_y: float, bottom: float) -> list[str]:
    """Where writes came back after an outage that can be seen: the keyspaces that took longest."""
    parts: list[str] = []
    for fault in results.faults:
        known = {name: time for name, time in fault.recovery_time_s.items() if time is not None}
        if known and max(known.values()) >= 0.5:
            name = max(known, key=lambda each: known[each])
            x = scale.x(fault.start_s + known[name])
            parts.append(line(x, HEAD - 8, x, bottom, "recovered"))
            parts.append(text(x + 5, label_y, f"{name} writes again: {known[name]:.2f} s", "recovered-text halo"))
    return parts


def _leaders(
    record: DrillRecord, operations: Sequence[Operation], scale: _Scale, keyspace: str, top: float
) -> list[str]:
    """Stretches of time in which one node acknowledged a keyspace's writes."""
    writes = [
        (record.seconds(item.complete_ns), item.replica)
        for item in operations
        if item.keyspace == keyspace and item.is_write and item.outcome is Outcome.OK and item.replica
    ]
    stretches: list[tuple[float, float, str]] = []
    for time_s, node in sorted(writes):
        if stretches and stretches[-1][2] == node and time_s - stretches[-1][1] < SILENCE_S:
            stretches[-1] = (stretches[-1][0], time_s, node)
        else:
            stretches.append((time_s, time_s, node))
    region_of = {str(node.id): node.region for node in record.topology.nodes}
    parts = [text(LEFT - 6, top + 13, keyspace, "", "end")]
    for start_s, end_s, node in stretches:
        left, right = scale.x(start_s), scale.x(end_s)
        fill = region_colour(record, region_of.get(node, ""))
        parts.append(rect(left, top + 2, max(right - left, 2.0), BAR - 7, rx="3", fill=fill))
        if right - left > 6.5 * len(node):
            parts.append(f'<text x="{left + 6:.1f}" y="{top + 13:.1f}" class="tiny node">{escape(node)}</text>')
    return parts


def _time_axis(scale: _Scale, bottom: float) -> list[str]:
    step = next((step for step in (1, 2, 5, 10, 20, 60, 120, 300) if (scale.end_s - scale.start_s) / step <= 14), 600)
    first = math.ceil(scale.start_s / step) * step
    parts = [line(LEFT, bottom, WIDTH - RIGHT, bottom, "axis")]
    for time_s in range(first, math.floor(scale.end_s) + 1, step):
        parts.append(line(scale.x(time_s), bottom, scale.x(time_s), bottom + 4, "axis"))
        parts.append(text(scale.x(time_s), bottom + 17, f"{time_s} s", "soft", "middle"))
    return parts
