"""Makes a failing case smaller, by delta debugging (Zeller and Hildebrandt, 2002). Pure.

A case is shrunk by passes. A pass proposes smaller cases and keeps each that still fails in the same way; what that
means is up to the predicate. Passes are repeated until none of them gets anywhere, or attempts run out. The result
always fails: it is the last case that the predicate accepted, or the one that was given.

Runs are costly and everything else is not, so no case is tried twice.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

C = TypeVar("C")
T = TypeVar("T")


class OutOfAttempts(Exception):
    """No further case may be tried."""


@dataclass(slots=True)
class Shrinker(Generic[C]):
    """The search for the smallest case so far."""

    best: C
    """The smallest case known to fail."""
    reproduces: Callable[[C], bool]
    """Whether a case fails in the same way."""
    may_try: Callable[[], bool]
    """Asked before each attempt; False ends the search. Time limits go here."""
    attempts: int = 0
    _tried: list[C] = field(default_factory=list)

    def attempt(self, candidate: C) -> bool:
        """Try a case, and keep it if it fails in the same way. Raises `OutOfAttempts`."""
        if candidate == self.best or candidate in self._tried:
            return False
        if not self.may_try():
            raise OutOfAttempts
        self.attempts += 1
        self._tried.append(candidate)
        if not self.reproduces(candidate):
            return False
        self.best = candidate
        return True


Pass = Callable[[Shrinker[C]], None]


def shrink(shrinker: Shrinker[C], passes: Sequence[Pass[C]]) -> bool:
    """Run the passes until none makes the case smaller. False if attempts ran out before that."""
    try:
        while True:
            before = shrinker.best
            for each in passes:
                each(shrinker)
            if shrinker.best == before:
                return True
    except OutOfAttempts:
        return False


def drop_items(
    shrinker: Shrinker[C], items_of: Callable[[C], tuple[T, ...]], with_items: Callable[[C, tuple[T, ...]], C]
) -> None:
    """Drop as many items as possible: all, then halves, quarters and so on, the last ones first, at last one by one."""
    length = len(items_of(shrinker.best))
    while length:
        end = len(items_of(shrinker.best))
        while end > 0:
            items = items_of(shrinker.best)
            start = max(0, end - length)
            shrinker.attempt(with_items(shrinker.best, items[:start] + items[end:]))
            end = start
        length //= 2


def lower_number(
    shrinker: Shrinker[C], number_of: Callable[[C], int], with_number: Callable[[C, int], C], floor: int
) -> None:
    """Lower a number as far as halving the distance to `floor` takes it; the floor itself is tried first."""
    failed = floor - 1
    proposed = floor
    while proposed < number_of(shrinker.best):
        if not shrinker.attempt(with_number(shrinker.best, proposed)):
            failed = proposed
        proposed = failed + max(1, (number_of(shrinker.best) - failed) // 2)
