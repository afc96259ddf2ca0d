"""Verdicts: what a check says, and how several of them add up.

A verdict is true, false or unknown. Unknown is not a pass: a check that ran out of budget, that crashed, or that
saw too little to judge, says so, and the whole is only as good as its worst part (false before unknown before
true).
"""

import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import IntEnum, StrEnum


class Verdict(StrEnum):
    """HAZARD: every member is truthy. Compare with `is`, never test for truth."""

    TRUE = "true"
    FALSE = "false"
    UNKNOWN = "unknown"


class ExitStatus(IntEnum):
    """Exit status of a drill or a simulation."""

    HOLDS = 0
    FAILS = 1
    """An expectation or a safety check fails."""
    BAD_INPUT = 2
    """A file or an argument is wrong; nothing was started."""
    UNKNOWN = 3
    NO_PROGRESS = 4
    """Faults have ended, but the system does not serve again."""
    HARNESS_CRASHED = 5


@dataclass(frozen=True, slots=True)
class Check:
    """The outcome of one check."""

    name: str
    verdict: Verdict
    reason: str
    """Sentences with figures: what was looked at and, if it does not hold, the first thing that is wrong."""


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """The verdict on a whole: its worst part; unknown when nothing was judged."""
    seen = set(verdicts)
    if Verdict.FALSE in seen:
        return Verdict.FALSE
    if Verdict.UNKNOWN in seen or not seen:
        return Verdict.UNKNOWN
    return Verdict.TRUE


def guarded(name: str, check: Callable[[], Check]) -> Check:
    """Run a check. A crash of the check says nothing about the history, so it is unknown, with the crash as reason."""
    try:
        return check()
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        crash = f"{type(error).__name__}: {error} ({where.name}, line {where.lineno})"
        return Check(name, Verdict.UNKNOWN, f"the check itself crashed: {crash}")
