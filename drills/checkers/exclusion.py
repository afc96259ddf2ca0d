"""Lock exclusion, by the order of fencing tokens as a guarded resource sees it.

A *hold* is what one holder of a lock knew of it; a *guarded write* is what reached the resource under an exclusive
lock, in the order in which it came. What must hold:

1. a token is one grant's: no two holders of a lock have the same;
2. tokens follow real time: a hold that was granted before another was asked for has the smaller token;
3. the resource accepts no smaller token after a larger one. So the intervals in which it sees holders do not overlap;
4. the resource refuses nothing else: it takes what no larger token has forbidden;
5. where clocks keep their bound: no two holders whose modes exclude each other are sure of the lock at one time.
   HAZARD: a clock beyond its bound breaks this rule and no other; only the tokens protect the resource then;
6. where a lock-delay is longer than clocks can be wrong over a time to live, rule 5 holds for whoever asked for one.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from isochrone.drills.checkers.lock_table import excludes
from isochrone.drills.verdict import Check, Verdict
from isochrone.wire.locks import LockMode

NAME = "lock exclusion"


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """One grant of a lock, as its holder knew it. Times are true ones."""

    lock: str
    holder: str
    lease: int
    """On which the lock hung."""
    token: int
    mode: LockMode = LockMode.X
    asked_ns: int
    """When the holder began to ask."""
    granted_ns: int
    """When it knew of the grant."""
    sure_until_ns: int
    """Until then, at least, it was sure to hold the lock, by its own clock, and used it."""
    delayed: bool = False
    """It asked for a lock-delay, should it be lost."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardedWrite:
    """A write that reached the resource."""

    lock: str
    holder: str
    token: int
    at_ns: int
    accepted: bool


@dataclass(frozen=True, slots=True)
class ExclusionResult:
    """What was found."""

    holds: int
    handovers: int
    """How often a lock was granted to another than the one before."""
    refused: int
    """Writes that the resource refused for their token."""
    broken: tuple[str, ...]

    @property
    def verdict(self) -> Verdict:
        """Unknown if no lock ever changed its holder."""
        if self.broken:
            return Verdict.FALSE
        return Verdict.TRUE if self.handovers else Verdict.UNKNOWN

    def as_check(self) -> Check:
        """As one line of a report."""
        if self.broken:
            return Check(NAME, Verdict.FALSE, f"{self.broken[0]} ({len(self.broken)} in all)")
        if not self.handovers:
            return Check(NAME, Verdict.UNKNOWN, "no lock went from one holder to another.")
        reason = f"{self.holds} holds, {self.handovers} handovers, {self.refused} late writes refused by token."
        return Check(NAME, Verdict.TRUE, reason)


def check_exclusion(
    holds: Iterable[Hold], writes: Sequence[GuardedWrite], *, clocks_keep_bound: bool, delays_suffice: bool = True
) -> ExclusionResult:
    """Judge what holders knew and what the resource saw; `writes` are in the order in which they reached it.

    Args:
        holds: of all locks.
        writes: to all resources.
        clocks_keep_bound: rule 5 holds.
        delays_suffice: rule 6 holds.
    """
    by_lock: dict[str, list[Hold]] = {}
    for hold in holds:
        by_lock.setdefault(hold.lock, []).append(hold)
    broken: list[str] = []
    handovers = 0
    for each in by_lock.values():
        each.sort(key=lambda hold: hold.token)
        handovers += sum(a.holder != b.holder for a, b in pairwise(each))
        broken += _shared_tokens(each)
        broken += _tokens_against_time(each)
        if clocks_keep_bound or delays_suffice:
            broken += _overlaps(each, of_delayed_only=not clocks_keep_bound)
    broken += _resource_faults(writes)
    refused = sum(not write.accepted for write in writes)
    return ExclusionResult(sum(map(len, by_lock.values())), handovers, refused, tuple(broken))


def _shared_tokens(by_token: Sequence[Hold]) -> Iterator[str]:
    for a, b in pairwise(by_token):
        if a.token == b.token and (a.holder, a.lease) != (b.holder, b.lease):
            yield f"token {a.token} of lock {a.lock} was given to {a.holder} and to {b.holder}"


def _tokens_against_time(by_token: Sequence[Hold]) -> Iterator[str]:
    """Looking at larger tokens first: none may have been known before a smaller one was asked for."""
    earliest: Hold | None = None
    for hold in reversed(by_token):
        if earliest is not None and earliest.granted_ns <= hold.asked_ns and earliest.token > hold.token:
            yield (
                f"token {hold.token} of lock {hold.lock} was given to {hold.holder}, who asked when "
                f"{earliest.holder} had the larger token {earliest.token} already"
            )
        if earliest is None or hold.granted_ns < earliest.granted_ns:
            earliest = hold


def _overlaps(holds: Iterable[Hold], *, of_delayed_only: bool) -> Iterator[str]:
    live: list[Hold] = []
    # Who learns of a grant when its lease may have ended already, because he stood still, was never sure.
    sure = [hold for hold in holds if hold.sure_until_ns > hold.granted_ns]
    for hold in sorted(sure, key=lambda hold: (hold.granted_ns, hold.token)):
        live = [other for other in live if other.sure_until_ns > hold.granted_ns]
        for other in live:
            if of_delayed_only and not other.delayed:
                continue
            if (other.holder, other.lease) != (hold.holder, hold.lease) and excludes(other.mode, hold.mode):
                over_ms = (min(other.sure_until_ns, hold.sure_until_ns) - hold.granted_ns) / 1e6
                yield (
                    f"{_described(other)} and {_described(hold)} were both sure to hold lock {hold.lock}, "
                    f"for {over_ms:.1f} ms"
                )
        live.append(hold)


def _described(hold: Hold) -> str:
    mode = "" if hold.mode is LockMode.X else f", mode {hold.mode.name}"
    return f"{hold.holder} (token {hold.token}{mode})"


def _resource_faults(writes: Iterable[GuardedWrite]) -> Iterator[str]:
    largest: dict[str, GuardedWrite] = {}
    for write in writes:
        before = largest.get(write.lock)
        behind = before is not None and write.token < before.token
        if behind and write.accepted:
            assert before is not None
            yield (
                f"the resource of lock {write.lock} accepted token {write.token} of {write.holder} after the larger "
                f"token {before.token} of {before.holder}"
            )
        elif not behind and not write.accepted:
            yield f"the resource of lock {write.lock} refused token {write.token}, and had seen no larger one"
        elif not behind:
            if before is not None and write.token == before.token and write.holder != before.holder:
                yield f"the resource of lock {write.lock} saw {before.holder} and {write.holder} with one token"
            largest[write.lock] = write
