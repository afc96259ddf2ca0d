"""Locks that are held for long: whom to warn about. Looked at by the leader, now and then; nothing depends on it.

How long a lock is held counts from when this leader first saw the grant, so a warning is never too early, and a new
leader counts anew. What announces its holder is an election: that is held as long as its leader lives, and not warned
about.

One look takes a bounded number of locks; where there are more, a round takes several looks.
"""

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from isochrone.ids import Nanos
from isochrone.regions.state.lock_table import Lock, Request

LOOKED_AT_MAX = 5_000
"""Most locks of one look."""


@dataclass(frozen=True, slots=True)
class LongHold:
    """A lock that has been held for long."""

    name: bytes
    lease: int
    """Its holder's session."""
    token: int
    value: bytes
    """What the holder said of itself."""
    held_ns: Nanos
    waiting: int
    """How many wait for it."""
    first: bool
    """Nobody was warned about this grant before."""


@dataclass(slots=True)
class _Hold:
    token: int
    since: Nanos
    warn_after_ns: int


class HoldTimes:
    """The holders of one group's locks, as a leader sees them."""

    def __init__(self, warn_after_ns: int) -> None:
        self._warn_after_ns = warn_after_ns
        self._names: deque[bytes] = deque()
        """Still to be looked at in this round."""
        self._before: dict[tuple[bytes, int], _Hold] = {}
        """Holds by lock and lease, of the round before."""
        self._round: dict[tuple[bytes, int], _Hold] = {}
        self._long = 0
        self.long = 0
        """How many holders were found to hold for too long in the last round."""

    def look(self, locks: Mapping[bytes, Lock], now: Nanos) -> list[LongHold]:
        """Those that are to be warned about now: at first after the time given, then whenever it has doubled."""
        if not self._names:
            self._names.extend(locks)
        found: list[LongHold] = []
        for _ in range(min(len(self._names), LOOKED_AT_MAX)):
            name = self._names.popleft()
            if (lock := locks.get(name)) is not None:
                found += self._look_at(name, lock, now)
        if not self._names:
            self._before, self._round = self._round, {}
            self.long, self._long = self._long, 0
        return found

    def _look_at(self, name: bytes, lock: Lock, now: Nanos) -> Iterator[LongHold]:
        for request in lock.held.values():
            if request.announce:
                continue
            hold = self._hold(name, request, now)
            held_ns = Nanos(now - hold.since)
            self._long += held_ns >= self._warn_after_ns
            if held_ns < hold.warn_after_ns:
                continue
            first = hold.warn_after_ns == self._warn_after_ns
            while hold.warn_after_ns <= held_ns:
                hold.warn_after_ns *= 2
            yield LongHold(name, request.lease, request.token, request.value, held_ns, len(lock.waiting), first)

    def _hold(self, name: bytes, request: Request, now: Nanos) -> _Hold:
        hold = self._before.get((name, request.lease))
        if hold is None or hold.token != request.token:
            hold = _Hold(request.token, now, self._warn_after_ns)
        self._round[name, request.lease] = hold
        return hold
