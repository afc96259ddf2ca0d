"""Marks for rare states: a call of `probe` with the state's name says that a run came here.

In production a mark does nothing. A simulation counts them between `start_counting` and `stop_counting`, and names
those that it never reached: a fault schedule that never gets somewhere proves nothing about it. A mark's name is
`room.state`, written as a literal where it stands, so that all marks can be listed from the source (`marks_in`).

HAZARD: the counter belongs to the process, not to a run; two runs at once in one process share it.
"""

import re
from collections import Counter
from collections.abc import Iterable

_MARK = re.compile(r"\bprobe\(\s*\"([a-z0-9_.]+)\"\s*\)")

_counts: Counter[str] | None = None


def probe(name: str) -> None:
    """Note that the state `name` was reached, if anybody counts."""
    if _counts is not None:
        _counts[name] += 1


def start_counting() -> None:
    """Count marks from now on, starting at none."""
    global _counts
    _counts = Counter()


def stop_counting() -> Counter[str]:
    """What was counted since `start_counting`; nothing is counted any more."""
    global _counts
    counted, _counts = _counts, None
    return Counter() if counted is None else counted


def marks_in(sources: Iterable[str]) -> list[str]:
    """The names of all marks in the given source texts, in order, each once."""
    return sorted({name for text in sources for name in _MARK.findall(text)})
