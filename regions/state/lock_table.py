"""Locks as data: modes, who holds what, who waits, and for whom. The rules of fairness and deadlock are here.

**Order.** Those that wait are granted strictly in order: nobody overtakes, even if what it wants would be compatible.
Conversions stand before all others, in their own order, since nobody behind them could be granted before them anyway.

**Deadlock.** A request waits for the holders that exclude it and for whoever stands before it. A cycle can only close
when a request begins to wait, and then leads through it; so it is looked for then, from there, on every replica alike.
"""

from bisect import bisect_left, insort
from dataclasses import dataclass, field

from isochrone.wire.locks import LockMode

_COMPATIBLE = {
    LockMode.IS: frozenset((LockMode.IS, LockMode.IX, LockMode.S, LockMode.SIX)),
    LockMode.IX: frozenset((LockMode.IS, LockMode.IX)),
    LockMode.S: frozenset((LockMode.IS, LockMode.S)),
    LockMode.SIX: frozenset((LockMode.IS,)),
    LockMode.X: frozenset[LockMode](),
}
_COVERS = {
    LockMode.IS: frozenset((LockMode.IS,)),
    LockMode.IX: frozenset((LockMode.IS, LockMode.IX)),
    LockMode.S: frozenset((LockMode.IS, LockMode.S)),
    LockMode.SIX: frozenset((LockMode.IS, LockMode.IX, LockMode.S, LockMode.SIX)),
    LockMode.X: frozenset(LockMode),
}


def compatible(held: LockMode, asked: LockMode) -> bool:
    """Whether two owners may have a lock in these modes (Gray and Reuter's table)."""
    return asked in _COMPATIBLE[held]


def covers(held: LockMode, asked: LockMode) -> bool:
    """Whether who holds one mode has all that the other gives."""
    return asked in _COVERS[held]


def joined(held: LockMode, asked: LockMode) -> LockMode:
    """The weakest mode that gives all of both."""
    return min((mode for mode in LockMode if covers(mode, held) and covers(mode, asked)), key=lambda m: len(_COVERS[m]))


def needed_above(asked: LockMode) -> LockMode:
    """The weakest mode in which a lock's parent must be held."""
    return LockMode.IS if asked in (LockMode.IS, LockMode.S) else LockMode.IX


def parent_of(name: bytes, prefix: bytes) -> bytes | None:
    """The lock above in a hierarchy: the name up to the last `/`, if that is within the keyspace."""
    parent = name.rpartition(b"/")[0]
    return parent if len(parent) > len(prefix) else None


@dataclass(slots=True)
class Request:
    """One owner's request for one lock: granted, or waiting while `token` is 0."""

    lease: int
    request: int
    mode: LockMode
    ticket: int
    """Timestamp of the command that made it: unique, and the order of waiting."""
    deadline: int
    """Timestamp at which it waits no longer; 0 for none."""
    delay_ms: int
    hierarchical: bool
    announce: bool
    value: bytes
    token: int = 0
    converts: bool = False
    """Its lease holds the lock already, in a weaker mode."""


def _turn(request: Request) -> tuple[bool, int]:
    """When it is a waiting request's turn: conversions first, each kind in the order in which they came."""
    return not request.converts, request.ticket


@dataclass(slots=True)
class Ghost:
    """What a lost holder still excludes."""

    mode: LockMode
    until: int
    ticket: int


@dataclass(slots=True)
class Lock:
    """One lock that is held, waited for or delayed. However many wait, a step costs no more than their logarithm."""

    held: dict[int, Request] = field(default_factory=dict)
    """By lease; changed by `hold` and `give_up`."""
    waiting: list[Request] = field(default_factory=list)
    """In the order in which they are to be granted; changed by `enqueue` and `dequeue`."""
    ghosts: list[Ghost] = field(default_factory=list)
    _waits: dict[int, Request] = field(default_factory=dict)
    """Those that wait, by lease."""
    _modes: list[int] = field(default_factory=lambda: [0] * len(LockMode))
    """How many hold it in each mode."""

    @property
    def idle(self) -> bool:
        """Whether nothing is to be known of it."""
        return not (self.held or self.waiting or self.ghosts)

    def admits(self, lease: int, mode: LockMode) -> bool:
        """Whether nobody else excludes a mode now. Says nothing of whose turn it is."""
        own = self.held.get(lease)
        for held, count in zip(LockMode, self._modes, strict=True):
            if count > (own is not None and own.mode is held) and not compatible(held, mode):
                return False
        return all(compatible(ghost.mode, mode) for ghost in self.ghosts)

    def hold(self, request: Request) -> None:
        """The request is granted."""
        self.held[request.lease] = request
        self._modes[request.mode] += 1

    def give_up(self, lease: int) -> Request | None:
        """A lease holds it no longer. Returns what it held."""
        held = self.held.pop(lease, None)
        if held is not None:
            self._modes[held.mode] -= 1
        return held

    def enqueue(self, request: Request) -> None:
        """Let a request wait at its place."""
        self.waiting.insert(self._place(request), request)
        self._waits[request.lease] = request

    def dequeue(self, request: Request) -> None:
        """The request waits no longer."""
        del self.waiting[self._place(request)]
        del self._waits[request.lease]

    def _place(self, request: Request) -> int:
        return bisect_left(self.waiting, _turn(request), key=_turn)

    def waiting_of(self, lease: int) -> Request | None:
        """The request of a lease that waits."""
        return self._waits.get(lease)

    def excluding(self, mode: LockMode) -> list[int]:
        """Leases that hold it in a mode which excludes this one."""
        return [held.lease for held in self.held.values() if not compatible(held.mode, mode)]

    def ahead_of(self, request: Request) -> list[int]:
        """The lease that waits just before a request. Who stands further ahead is found through that one."""
        place = self._place(request)
        return [self.waiting[place - 1].lease] if place else []

    def next_moment(self) -> int:
        """Earliest timestamp at which time alone changes something; 0 for never."""
        moments = [ghost.until for ghost in self.ghosts]
        moments += [request.deadline for request in self.waiting if request.deadline]
        return min(moments, default=0)


class _Holders:
    """Names the holders that exclude the requests of a lock, but each of them once for all that ask for one mode.

    So a search through a long queue stays linear: whoever is named again has been looked at.
    """

    def __init__(self, locks: dict[bytes, Lock]) -> None:
        self._locks = locks
        self._left: dict[tuple[bytes, LockMode], list[int]] = {}

    def excluding(self, name: bytes, request: Request) -> list[int]:
        """Leases that hold the lock, exclude the request, and were not named before; never the request's own."""
        place = (name, request.mode)
        left = self._left.get(place)
        if left is None:
            left = self._locks[name].excluding(request.mode)
        self._left[place] = [lease for lease in left if lease == request.lease]
        return [lease for lease in left if lease != request.lease]


@dataclass(slots=True)
class LockTable:
    """All locks of a group."""

    locks: dict[bytes, Lock] = field(default_factory=dict)
    owners: dict[int, dict[bytes, None]] = field(default_factory=dict)
    """Names that a lease holds or waits for."""
    waits: dict[int, dict[bytes, None]] = field(default_factory=dict)
    """Names that a lease waits for."""
    ordered: dict[int, list[bytes]] = field(default_factory=dict)
    """Names that a lease holds by the rules of the hierarchy, in order."""

    def hold(self, name: bytes, request: Request) -> None:
        """A request is granted."""
        self.locks[name].hold(request)
        if request.hierarchical:
            insort(self.ordered.setdefault(request.lease, []), name)

    def give_up(self, name: bytes, lease: int) -> Request | None:
        """A lease holds a lock no longer. Returns what it held."""
        held = self.locks[name].give_up(lease)
        if held is not None and held.hierarchical:
            names = self.ordered[lease]
            del names[bisect_left(names, name)]
            if not names:
                del self.ordered[lease]
        return held

    def ordered_below(self, name: bytes, lease: int) -> bytes | None:
        """A lock below this one that a lease holds by the rules of the hierarchy; None if there is none."""
        names, below = self.ordered.get(lease, []), name + b"/"
        place = bisect_left(names, below)
        return names[place] if place < len(names) and names[place].startswith(below) else None

    def wait(self, name: bytes, request: Request) -> None:
        """Let a request wait for a lock."""
        self.locks[name].enqueue(request)
        self.waits.setdefault(request.lease, {})[name] = None

    def end_wait(self, name: bytes, request: Request) -> None:
        """The request waits no longer."""
        self.locks[name].dequeue(request)
        names = self.waits[request.lease]
        del names[name]
        if not names:
            del self.waits[request.lease]

    def started(self, lease: int) -> int:
        """When a lease began what it now holds or waits for: the ticket of its oldest request."""
        return min(
            request.ticket
            for name in self.owners[lease]
            for request in (self.locks[name].held.get(lease), self.locks[name].waiting_of(lease))
            if request is not None
        )

    def cycle(self, name: bytes, request: Request) -> list[tuple[bytes, Request]]:
        """A cycle of waits through a request: the waiting requests in it, beginning with this one; empty for none."""
        if not self._anybody_waits_for(name, request):
            return []
        cause: dict[tuple[bytes, int], tuple[bytes, int] | None] = {(name, request.lease): None}
        holders = _Holders(self.locks)
        stack = [(name, request)]
        while stack:
            at, waits = stack.pop()
            for lease in sorted(holders.excluding(at, waits) + self.locks[at].ahead_of(waits)):
                if lease == request.lease:
                    return self._path(cause, (at, waits.lease))
                for other in sorted(self.waits.get(lease, ())):
                    further = self.locks[other].waiting_of(lease)
                    if further is not None and (other, lease) not in cause:
                        cause[other, lease] = (at, waits.lease)
                        stack.append((other, further))
        return []

    def _anybody_waits_for(self, name: bytes, request: Request) -> bool:
        """Whether the lease of a request is in anybody's way. Most are not, however long the queue that they join."""
        lock = self.locks[name]
        if lock.waiting[-1] is not request or request.lease in lock.held:
            return True
        return any(self.locks[other].waiting for other in self.owners[request.lease] if other != name)

    def _path(
        self, cause: dict[tuple[bytes, int], tuple[bytes, int] | None], last: tuple[bytes, int]
    ) -> list[tuple[bytes, Request]]:
        path: list[tuple[bytes, Request]] = []
        at: tuple[bytes, int] | None = last
        while at is not None:
            name, lease = at
            waits = self.locks[name].waiting_of(lease)
            assert waits is not None, at
            path.append((name, waits))
            at = cause[at]
        return path[::-1]

    def own(self, lease: int, name: bytes) -> None:
        """A lease holds a name or waits for it."""
        self.owners.setdefault(lease, {})[name] = None

    def disown(self, lease: int, name: bytes) -> None:
        """A lease has given up a hold or a wait; forget that it has to do with the name, if it has no more."""
        lock = self.locks[name]
        if lease in lock.held or lock.waiting_of(lease) is not None:
            return
        names = self.owners[lease]
        del names[name]
        if not names:
            del self.owners[lease]
