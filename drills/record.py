"""What a run of a drill leaves behind: the history, the faults as they happened, and how far it came.

The runner fills a record as it goes, so that an interrupted run can be reported too. Times are nanoseconds of the
history's clock.
"""

from dataclasses import dataclass, field

from isochrone.drills.checkers.exclusion import GuardedWrite, Hold
from isochrone.drills.checkers.watch_order import WatchStory, Written
from isochrone.drills.faults import ResolvedFault
from isochrone.drills.history import Operation
from isochrone.drills.schema import DrillDocument
from isochrone.ids import NS_PER_S, Incarnation, NodeId
from isochrone.topology.model import Topology


@dataclass(slots=True)
class FaultRun:
    """A fault that was started."""

    fault: ResolvedFault
    start_ns: int
    """Just before the first link was cut or the first signal sent."""
    end_ns: int | None = None
    """When its end began; None while it lasts."""


@dataclass(frozen=True, slots=True)
class PhaseRun:
    """A phase of the drill that has ended."""

    name: str
    start_ns: int
    end_ns: int


@dataclass(slots=True)
class Simulated:
    """What a drill has more in a simulated world. Its figures say nothing of what software costs."""

    violations: list[str] = field(default_factory=list)
    """Invariants that did not hold while it ran, with the evidence, and exceptions that nobody handled."""
    trace_hash: str = ""
    """Over everything that happened; empty until the run has ended."""


@dataclass(slots=True)
class LockRecord:
    """What holders of locks, and watchers beside them, did and were told. Of `workload.locks`."""

    holds: list[Hold] = field(default_factory=list)
    writes: list[GuardedWrite] = field(default_factory=list)
    """As they reached a resource outside the system."""
    stories: list[WatchStory] = field(default_factory=list)
    """Of one watcher in each region."""
    written: Written | None = None
    """What one who watched everything after the run was told; None if the run did not come so far."""


@dataclass(slots=True)
class DrillRecord:
    """A run so far."""

    drill: DrillDocument
    topology: Topology
    seed: int
    simulated: Simulated | None = None
    """None on real processes."""
    operations: list[Operation] = field(default_factory=list)
    faults: list[FaultRun] = field(default_factory=list)
    locks: LockRecord = field(default_factory=LockRecord)
    software_ms: dict[str, float] = field(default_factory=dict)
    """p50 of writes under the drill's load with shaping off, by keyspace. Empty if the drill was simulated."""
    shaped_ns: int | None = None
    """From when on links are as slow as the topology says."""
    phases: list[PhaseRun] = field(default_factory=list)
    phase: str = "not started"
    """The phase that runs, or in which the run ended; `done` after the last."""
    incarnations_before: dict[NodeId, Incarnation] = field(default_factory=dict)
    """Of each node, before anything was asked of it."""
    incarnations_after: dict[NodeId, Incarnation] | None = None
    """Of each node, after the final reads; None if the run did not come so far."""
    workload_start_ns: int | None = None
    """Time 0 of the drill file."""
    no_progress: str | None = None
    """What did not come back after the faults had ended."""
    interrupted: bool = False
    crash: str | None = None
    """The harness failed: class and text of its error."""

    def seconds(self, time_ns: int) -> float:
        """A time of the history in seconds of the drill file."""
        return (time_ns - (self.workload_start_ns or 0)) / NS_PER_S
