"""A case: the options and the schedule of one run, and what came of it. Plain data, in and out of JSON."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from isochrone.drills.sim.options import SimOptions
from isochrone.drills.sim.plain import fault_from_plain, fault_to_plain, options_from_plain, options_to_plain
from isochrone.drills.sim.schedule import Schedule
from isochrone.errors import InvalidRequest


class SimVerdict(StrEnum):
    """What came of a run. HAZARD: every member is truthy; compare with `is`."""

    HOLDS = "holds"
    VIOLATION = "violation"
    """An invariant or a check does not hold, or production code raised what nobody handled."""
    UNKNOWN = "unknown"
    """A check could not decide."""
    NO_PROGRESS = "no progress"
    """Faults have ended, and the system does not serve again."""
    CRASHED = "crashed"
    """The simulator itself failed; it says nothing about the system."""


@dataclass(frozen=True, slots=True)
class Case:
    """Everything that a run depends on."""

    options: SimOptions
    schedule: Schedule
    story: str = ""
    """What the case shows, for those that are kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SimResult:
    """What came of a run."""

    case: Case
    verdict: SimVerdict
    reason: str
    """In words; for a violation the first one found and its evidence."""
    trace_hash: str
    virtual_s: float
    wall_s: float
    cpu_s: float
    events: int
    """Callbacks that ran."""
    counters: Mapping[str, int] = field(default_factory=dict)
    probes: Mapping[str, int] = field(default_factory=dict)
    """Marks for rare states that were reached, and how often."""

    @property
    def events_per_cpu_s(self) -> float:
        """How fast the simulator is."""
        return self.events / self.cpu_s if self.cpu_s else 0.0

    @property
    def speed(self) -> float:
        """Virtual seconds per second of CPU."""
        return self.virtual_s / self.cpu_s if self.cpu_s else 0.0


def case_to_text(case: Case) -> str:
    """As the text of a case file."""
    return json.dumps(_case_to_plain(case), indent=1) + "\n"


def _case_to_plain(case: Case) -> dict[str, object]:
    story: dict[str, object] = {"story": case.story} if case.story else {}
    return story | {
        "options": options_to_plain(case.options),
        "schedule": [fault_to_plain(fault) for fault in case.schedule],
    }


def case_from_text(text: str) -> Case:
    """Read a case file.

    Raises:
        InvalidRequest: it is no case.
    """
    try:
        plain = json.loads(text)
    except ValueError as error:
        raise InvalidRequest(f"not JSON: {error}") from error
    except RecursionError as error:
        raise InvalidRequest("not a case: objects or lists in too many levels of others") from error
    if not isinstance(plain, dict) or not isinstance(plain.get("options"), dict):
        raise InvalidRequest("found no options; a case is an object with options and schedule")
    schedule = plain.get("schedule")
    if not isinstance(schedule, list):
        found = "nothing" if schedule is None else f"a value of type {type(schedule).__name__}"
        raise InvalidRequest(f"schedule: found {found}; allowed: a list of faults, which may be empty")
    return Case(
        options_from_plain(plain["options"]),
        tuple(fault_from_plain(fault, f"schedule[{number}]") for number, fault in enumerate(schedule)),
        str(plain.get("story", "")),
    )


def result_to_plain(result: SimResult) -> dict[str, object]:
    """As one object for JSON."""
    return {
        "seed": result.case.options.seed,
        "verdict": result.verdict.value,
        "reason": result.reason,
        "trace_hash": result.trace_hash,
        "virtual_s": round(result.virtual_s, 3),
        "wall_s": round(result.wall_s, 3),
        "cpu_s": round(result.cpu_s, 3),
        "events": result.events,
        "events_per_cpu_s": round(result.events_per_cpu_s),
        "virtual_s_per_cpu_s": round(result.speed, 1),
        **_case_to_plain(result.case),
        "counters": dict(result.counters),
        "probes": dict(result.probes),
    }
