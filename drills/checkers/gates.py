"""Barriers: whoever passes one found it open, and whoever is told that it stayed closed did not find it open.

A barrier is closed while its key is there. Its waiters look at it from when they ask until they are told.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from isochrone.drills.checkers.versions import Life
from isochrone.drills.verdict import Check, Verdict

NAME = "barriers"


@dataclass(frozen=True, slots=True, kw_only=True)
class GateWait:
    """One who waited at a barrier. Times are true ones."""

    key: bytes
    """Of the barrier: there while it is closed."""
    asked_ns: int
    told_ns: int
    passed: bool
    """Else he was told that it stayed closed."""


def check_gates(waits: Iterable[GateWait], closed: Mapping[bytes, Sequence[Life]]) -> Check:
    """Judge what waiters were told; `closed`: when each barrier was. Unknown if nobody passed, or none was closed."""
    passed = waited = 0
    for wait in waits:
        lives = closed.get(wait.key, ())
        if wait.passed and any(life.spans(wait.asked_ns, wait.told_ns) for life in lives):
            return Check(NAME, Verdict.FALSE, f"barrier {wait.key!r} was passed while it was closed.")
        if not wait.passed and not any(life.touches(wait.asked_ns, wait.told_ns) for life in lives):
            return Check(NAME, Verdict.FALSE, f"barrier {wait.key!r} was open, and somebody waited there in vain.")
        passed += wait.passed
        waited += any(life.spans(wait.asked_ns, wait.asked_ns) for life in lives)
    if not passed or not waited:
        return Check(NAME, Verdict.UNKNOWN, "nobody passed a barrier that had been closed.")
    return Check(NAME, Verdict.TRUE, f"{passed} passed barriers, none a closed one; {waited} found one closed.")
