"""Locks as a group's state has them, at one moment: nobody beside whom he excludes, nobody overtaken, nobody stuck.

What must hold after every entry that was applied:

1. holders of a lock do not exclude each other;
2. whoever stands first in a queue is excluded by a holder, or by the delay after a lost one: else he would hold it;
3. conversions stand before all others, and each kind stands in the order of asking;
4. nobody waits for good: of every cycle of waits a victim was told.

The modes' table is written out here once more, so that a slip in the product's own is seen.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from isochrone.drills.verdict import Check, Verdict
from isochrone.wire.locks import LockMode

NAME = "lock table"

_EXCLUDES = {
    LockMode.IS: {LockMode.X},
    LockMode.IX: {LockMode.S, LockMode.SIX, LockMode.X},
    LockMode.S: {LockMode.IX, LockMode.SIX, LockMode.X},
    LockMode.SIX: {LockMode.IX, LockMode.S, LockMode.SIX, LockMode.X},
    LockMode.X: set(LockMode),
}


def excludes(held: LockMode, asked: LockMode) -> bool:
    """Whether a holder of one mode keeps others from the other."""
    return asked in _EXCLUDES[held]


@dataclass(frozen=True, slots=True)
class Waiting:
    """One who waits."""

    lease: int
    mode: LockMode
    converts: bool = False
    since: int = 0


@dataclass(frozen=True, slots=True)
class LockView:
    """One lock."""

    held: Mapping[int, LockMode]
    """By lease."""
    waiting: Sequence[Waiting]
    """In the order in which they are to be granted."""
    delayed: Sequence[LockMode] = ()
    """Of lost holders, whom it still remembers."""


def faults_of(table: Mapping[str, LockView]) -> Iterator[str]:
    """What is wrong with a group's locks."""
    for name, lock in table.items():
        holders = list(lock.held.items())
        for place, (lease, mode) in enumerate(holders):
            for other, beside in holders[:place]:
                if excludes(beside, mode) or excludes(mode, beside):
                    yield f"lock {name} is held by {other} in {beside.name} and by {lease} in {mode.name}"
        if lock.waiting and _is_free(lock.held, lock.waiting[0], lock.delayed):
            yield f"{lock.waiting[0].lease} waits for lock {name}, and nothing excludes it"
        for ahead, behind in pairwise(lock.waiting):
            if (not ahead.converts, ahead.since) >= (not behind.converts, behind.since):
                yield f"{behind.lease} waits for lock {name} behind {ahead.lease}, and should stand before it"
    stuck = deadlocked(table)
    if stuck:
        yield f"leases {', '.join(map(str, stuck))} wait for each other, and none was told"


def deadlocked(table: Mapping[str, LockView]) -> list[int]:
    """Leases that wait for good, though everybody who waits for nothing gives up all that he has, again and again."""
    held = {name: dict(lock.held) for name, lock in table.items()}
    queues = {name: list(lock.waiting) for name, lock in table.items()}
    while True:
        waiting = {request.lease for queue in queues.values() for request in queue}
        before = sum(map(len, held.values())), sum(map(len, queues.values()))
        for name, queue in queues.items():
            held[name] = {lease: mode for lease, mode in held[name].items() if lease in waiting}
            while queue and _is_free(held[name], queue[0]):
                request = queue.pop(0)
                held[name][request.lease] = request.mode
        if before == (sum(map(len, held.values())), sum(map(len, queues.values()))):
            return sorted(waiting)


def _is_free(held: Mapping[int, LockMode], asked: Waiting, delayed: Iterable[LockMode] = ()) -> bool:
    return not any(excludes(mode, asked.mode) for lease, mode in held.items() if lease != asked.lease) and not any(
        excludes(mode, asked.mode) for mode in delayed
    )


def check_lock_tables(looked_at: int, deadlocks: int, faults: Sequence[str]) -> Check:
    """What came of looking at locks so often; `deadlocks`: how many victims were told. Unknown if nobody looked."""
    if faults:
        return Check(NAME, Verdict.FALSE, f"{faults[0]} ({len(faults)} in all)")
    if not looked_at:
        return Check(NAME, Verdict.UNKNOWN, "no lock was ever touched.")
    return Check(NAME, Verdict.TRUE, f"looked at {looked_at} times, {deadlocks} deadlocks had a victim.")
