"""Figures from a history: recovery times and commit latencies against their prediction."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from isochrone.drills.history import Operation, Outcome
from isochrone.drills.record import DrillRecord, FaultRun
from isochrone.ids import NS_PER_S, NodeId, ZoneId
from isochrone.topology.model import SurvivalGoal
from isochrone.topology.predict import predicted_commit_ms

SETTLE_S = 5.0
"""After a fault's end, this long no latencies are compared with a prediction: returning replicas catch up."""
SAMPLES_MIN = 20
"""Fewer writes give no comparison."""
REGION_TOLERANCE = 0.15
"""Goal `region`: the measured p50 should lie within this fraction of the prediction."""
ZONE_TOLERANCE_MS = 3.0
"""Goal `zone`: the measured p50 should lie within so much of the prediction."""


def recovery_time_s(operations: Iterable[Operation], keyspace: str, run: FaultRun) -> float | None:
    """How long writes to a keyspace were out, as seen from outside the faulted region.

    From the fault's start (the first link cut) to the first acknowledgement of a write that was issued after the last
    one that failed; writes issued inside the faulted region do not count, nor does what was issued before the
    fault. None if no write was acknowledged so before the fault ended.
    """
    end_ns = run.end_ns
    if end_ns is None:
        return None
    outside = _writes_from_outside(operations, keyspace, run, end_ns)
    failed_ns = max((item.invoke_ns for item in outside if item.outcome is not Outcome.OK), default=run.start_ns - 1)
    acknowledged = [
        item.complete_ns
        for item in outside
        if item.outcome is Outcome.OK and item.invoke_ns > failed_ns and item.complete_ns <= end_ns
    ]
    return (min(acknowledged) - run.start_ns) / NS_PER_S if acknowledged else None


def failed_writes(operations: Iterable[Operation], keyspace: str, run: FaultRun) -> int:
    """How many writes to a keyspace that were issued outside the faulted region during the fault failed."""
    outside = _writes_from_outside(operations, keyspace, run, run.end_ns)
    return sum(1 for item in outside if item.outcome is not Outcome.OK)


def _writes_from_outside(
    operations: Iterable[Operation], keyspace: str, run: FaultRun, end_ns: int | None
) -> list[Operation]:
    return [
        item
        for item in operations
        if item.is_write
        and item.keyspace == keyspace
        and item.region != run.fault.region
        and run.start_ns <= item.invoke_ns
        and (end_ns is None or item.invoke_ns < end_ns)
    ]


def worst_recovery_time_s(record: DrillRecord, keyspace: str) -> float | None:
    """The longest recovery over all faults; None if there was no fault or writes did not recover within one."""
    times = [recovery_time_s(record.operations, keyspace, run) for run in record.faults]
    known = [time for time in times if time is not None]
    return max(known) if known and len(known) == len(times) else None


@dataclass(frozen=True, slots=True)
class LatencyRow:
    """Commit latencies of one keyspace, for clients of one region and one leader, outside faults."""

    keyspace: str
    group: str
    goal: SurvivalGoal
    region: str
    leader: str
    samples: int
    p50_ms: float
    p99_ms: float
    predicted_ms: float
    """From the round trips alone."""
    software_ms: float
    """The software term: p50 of writes with shaping off."""

    @property
    def expected_ms(self) -> float:
        """Prediction and software term."""
        return self.predicted_ms + self.software_ms

    @property
    def difference_ms(self) -> float:
        """Measured p50 above what was expected."""
        return self.p50_ms - self.expected_ms

    @property
    def within(self) -> bool:
        """Whether the p50 lies within the tolerance of the goal."""
        tolerance = REGION_TOLERANCE * self.expected_ms if self.goal is SurvivalGoal.REGION else ZONE_TOLERANCE_MS
        return abs(self.difference_ms) <= tolerance


def latency_rows(record: DrillRecord) -> list[LatencyRow]:
    """Compare commit latencies with their prediction, by keyspace, client region and leader that answered."""
    samples: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    for item in record.operations:
        shaped = record.shaped_ns is not None and item.invoke_ns >= record.shaped_ns
        acknowledged = item.is_write and item.outcome is Outcome.OK and item.replica is not None
        if shaped and acknowledged and item.keyspace in record.software_ms and not _beside_a_fault(item, record.faults):
            samples[item.keyspace, item.region, str(item.replica)].append(item.latency_ms)
    keys = sorted(key for key, found in samples.items() if len(found) >= SAMPLES_MIN)
    return [_latency_row(record, *key, samples[key]) for key in keys]


def _beside_a_fault(item: Operation, faults: Sequence[FaultRun]) -> bool:
    """Whether a fault, or what it left behind, may have slowed the operation down."""
    settle_ns = round(SETTLE_S * NS_PER_S)
    return any(
        item.complete_ns >= run.start_ns and (run.end_ns is None or item.invoke_ns <= run.end_ns + settle_ns)
        for run in faults
    )


def _latency_row(record: DrillRecord, keyspace: str, region: str, leader: str, latencies: list[float]) -> LatencyRow:
    topology = record.topology
    group = topology.group(next(each.group for each in topology.keyspaces if each.id == keyspace))
    return LatencyRow(
        keyspace=keyspace,
        group=group.id,
        goal=group.goal,
        region=region,
        leader=leader,
        samples=len(latencies),
        p50_ms=percentile(latencies, 0.5),
        p99_ms=percentile(latencies, 0.99),
        predicted_ms=predicted_commit_ms(topology, group, client_zone(record, region), NodeId(leader)),
        software_ms=record.software_ms[keyspace],
    )


def client_zone(record: DrillRecord, region: str) -> ZoneId:
    """The zone in which a region's clients run."""
    named = next(client.zone for client in record.drill.workload.clients if client.region == region)
    first = next(each.zones[0] for each in record.topology.regions if each.id == region)
    return ZoneId(named) if named else first


def percentile(values: Sequence[float], fraction: float) -> float:
    """The smallest value that at least `fraction` of all values do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, min(len(ordered) - 1, -int(-fraction * len(ordered) // 1) - 1))]
