"""`report.json`: everything a drill found, for programs.

The first keys are what a script looks at: `verdict` ("true", "false" or "unknown"), `exit_status`,
`acknowledged_writes_lost` and `recovery_time_s` by keyspace. In a `simulated` drill all times but `elapsed_s` are
virtual, and neither a software term nor latencies are told. Times are seconds from the start of the workload.
"""

from dataclasses import asdict, dataclass
from typing import Any

from isochrone.drills.measure import LatencyRow
from isochrone.drills.record import DrillRecord
from isochrone.drills.results import Results
from isochrone.topology.model import Topology

FORMAT = 1


@dataclass(frozen=True, slots=True)
class Surroundings:
    """When and where a drill ran, and what ran."""

    started_at: str
    """UTC, ISO 8601."""
    elapsed_s: float
    """The whole drill, from the start to the report."""
    versions: dict[str, str]
    machine: dict[str, str]


def to_figures(record: DrillRecord, results: Results, surroundings: Surroundings) -> dict[str, Any]:
    """The contents of `report.json`, as plain types."""
    return {
        "verdict": results.verdict.value,
        "exit_status": int(results.exit_status),
        "acknowledged_writes_lost": results.acknowledged_writes_lost,
        "acknowledged_writes": results.acknowledged_writes,
        "recovery_time_s": results.recovery_time_s,
        "checks": [asdict(check) for check in results.checks],
        "faults": [asdict(fault) for fault in results.faults],
        "operations": results.counts,
        "software_ms": record.software_ms,
        "latency": [_latency(row) for row in results.latencies],
        "phases": [
            {"name": phase.name, "start_s": record.seconds(phase.start_ns), "end_s": record.seconds(phase.end_ns)}
            for phase in record.phases
        ],
        "interrupted": record.interrupted,
        "no_progress": record.no_progress,
        "crash": record.crash,
        "drill": record.drill.model_dump(mode="json", by_alias=True, exclude_none=True),
        "seed": record.seed,
        "simulated": None if record.simulated is None else asdict(record.simulated),
        "topology": _topology(record.topology),
        "started_at": surroundings.started_at,
        "elapsed_s": round(surroundings.elapsed_s, 1),
        "versions": surroundings.versions,
        "machine": surroundings.machine,
        "format": FORMAT,
    }


def _latency(row: LatencyRow) -> dict[str, Any]:
    figures = {"expected_ms": row.expected_ms, "difference_ms": row.difference_ms, "within": row.within}
    return asdict(row) | figures


def _topology(topology: Topology) -> dict[str, Any]:
    return {
        "name": topology.name,
        "latencies": topology.latencies,
        "regions": {region.id: list(region.zones) for region in topology.regions},
        "keyspaces": {
            keyspace.id: {"home": keyspace.home, "goal": keyspace.goal.value, "group": keyspace.group}
            for keyspace in topology.keyspaces
        },
        "groups": {
            group.id: {
                "replicas": {replica.node: replica.role.value for replica in group.replicas},
                "heartbeat_ms": group.heartbeat_ms,
                "election_timeout_ms": group.election_timeout_ms,
            }
            for group in topology.groups
        },
    }
