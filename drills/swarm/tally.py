"""What the runs of a swarm add up to. Pure."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from isochrone.drills.sim.case import SimResult, SimVerdict
from isochrone.drills.swarm.cases import failure_of
from isochrone.drills.swarm.out_of_reach import OUT_OF_REACH

_FAULT, _OPERATIONS = "fault_", "operations_"

WORST_FIRST = (
    SimVerdict.VIOLATION,
    SimVerdict.CRASHED,
    SimVerdict.NO_PROGRESS,
    SimVerdict.UNKNOWN,
    SimVerdict.HOLDS,
)
"""A violation comes first: that another run crashed casts no doubt on it, as each run is judged by itself."""


@dataclass(slots=True)
class KeptFailure:
    """A run that did not hold."""

    seed: int
    verdict: SimVerdict
    failure: str
    """See `failure_of`."""
    file: str
    """The case and what came of it."""
    shrunk: str | None = None
    """The smaller case, if one was looked for."""


@dataclass(slots=True)
class Tally:
    """All runs so far."""

    runs: int = 0
    elapsed_s: float = 0.0
    """Real time until the last of them ended."""
    verdicts: Counter[SimVerdict] = field(default_factory=Counter)
    virtual_s: float = 0.0
    cpu_s: float = 0.0
    """Of the runs alone; shrinking and starting workers come on top."""
    events: int = 0
    elections: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    """By kind: those that had an effect."""
    operations: Counter[str] = field(default_factory=Counter)
    """By outcome."""
    probes: Counter[str] = field(default_factory=Counter)
    """Marks for rare states, and how often they were reached."""
    slowest: SimResult | None = None
    """The run with the fewest virtual seconds per second of CPU."""
    kept: list[KeptFailure] = field(default_factory=list)

    def add(self, result: SimResult) -> None:
        """Count a run."""
        self.runs += 1
        self.verdicts[result.verdict] += 1
        self.virtual_s += result.virtual_s
        self.cpu_s += result.cpu_s
        self.events += result.events
        self.elections += result.counters.get("elections_won", 0)
        self.probes.update(result.probes)
        for name, count in result.counters.items():
            if name.startswith(_FAULT):
                self.faults[name.removeprefix(_FAULT)] += count
            elif name.startswith(_OPERATIONS):
                self.operations[name.removeprefix(_OPERATIONS)] += count
        if result.cpu_s and (self.slowest is None or result.speed < self.slowest.speed):
            self.slowest = result

    def keep(self, result: SimResult, file: str) -> KeptFailure:
        """Note that a run did not hold, and where it is kept."""
        kept = KeptFailure(result.case.options.seed, result.verdict, failure_of(result), file)
        self.kept.append(kept)
        return kept

    @property
    def seeds_per_minute(self) -> float:
        """Runs per minute of real time."""
        return self.runs * 60 / self.elapsed_s if self.elapsed_s else 0.0

    @property
    def worst(self) -> SimVerdict:
        """The verdict on the swarm; unknown if nothing ran."""
        return next((verdict for verdict in WORST_FIRST if self.verdicts[verdict]), SimVerdict.UNKNOWN)

    def never_reached(self, marks: Iterable[str]) -> dict[str, str]:
        """Those of all marks that no run reached, in order, each with why that may be so; empty: it should not."""
        return {mark: OUT_OF_REACH.get(mark, "") for mark in sorted(set(marks) - set(self.probes))}


def tally_to_plain(tally: Tally, marks: Iterable[str]) -> dict[str, object]:
    """As one object for JSON."""
    slowest = tally.slowest
    return {
        "verdict": tally.worst.value,
        "runs": tally.runs,
        "elapsed_s": round(tally.elapsed_s, 1),
        "seeds_per_minute": round(tally.seeds_per_minute, 1),
        "verdicts": {verdict.value: tally.verdicts[verdict] for verdict in WORST_FIRST if tally.verdicts[verdict]},
        "virtual_h": round(tally.virtual_s / 3600, 3),
        "cpu_s": round(tally.cpu_s, 1),
        "events": tally.events,
        "operations": dict(sorted(tally.operations.items())),
        "elections": tally.elections,
        "faults": dict(sorted(tally.faults.items())),
        "slowest": None
        if slowest is None
        else {"seed": slowest.case.options.seed, "virtual_s_per_cpu_s": round(slowest.speed, 1)},
        "probes": dict(sorted(tally.probes.items())),
        "probes_never_reached": tally.never_reached(marks),
        "failures": [
            {
                "seed": each.seed,
                "verdict": each.verdict.value,
                "failure": each.failure,
                "file": each.file,
                "shrunk": each.shrunk,
            }
            for each in tally.kept
        ],
    }
