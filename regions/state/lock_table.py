"""Locks as data: modes, who holds what, who waits, and for whom. The rules of fairness and deadlock are here.

**Order.** Those that wait are granted strictly in order: nobody overtakes, even if what it wants would be compatible.
Conversions stand before all others, in their own order, since nobody behind them could be granted before them anyway.

**Deadlock.** A request waits for the holders that exclude it and for whoever stands before it. A cycle can only close
when a request begins to wait, and then leads through it; so it is looked for then, from there, on every replica alike.
"""

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


@dataclass(slots=True)
class Ghost:
    """What a lost holder still excludes."""

    mode: LockMode
    until: int
    ticket: int


@dataclass(slots=True)
class Lock:
    """One lock that is held, waited for or delayed."""

    held: dict[int, Request] = field(default_factory=dict)
    """By lease."""
    waiting: list[Request] = field(default_factory=list)
    """In the order in which they are to be granted."""
    ghosts: list[Ghost] = field(default_factory=list)

    @property
    def idle(self) -> bool:
        """Whether nothing is to be known of it."""
        return not (self.held or self.waiting or self.ghosts)

    def admits(self, lease: int, mode: LockMode) -> bool:
        """Whether nobody else excludes a mode now. Says nothing of whose turn it is."""
        return all(compatible(held.mode, mode) for held in self.held.values() if held.lease != lease) and all(
            compatible(ghost.mode, mode) for ghost in self.ghosts
        )

    def enqueue(self, request: Request) -> None:
        """Let a request wait at its place."""
        place = len(self.waiting)
        if request.converts:
            place = next((at for at, other in enumerate(self.waiting) if not other.converts), place)
        self.waiting.insert(place, request)

    def waiting_of(self, lease: int) -> Request | None:
        """The request of a lease that waits."""
        return next((request for request in self.waiting if request.lease == lease), None)

    def blockers(self, request: Request) -> list[int]:
        """Leases that a waiting request waits for: holders that exclude it, and the one before it in the queue.

        Who stands further ahead is found through that one.
        """
        found = [held.lease for held in self.held.values() if not compatible(held.mode, request.mode)]
        for ahead in reversed(self.waiting[: self.waiting.index(request)]):
            if ahead.lease != request.lease:
                found.append(ahead.lease)
                break
        return sorted(lease for lease in found if lease != request.lease)

    def next_moment(self) -> int:
        """Earliest timestamp at which time alone changes something; 0 for never."""
        moments = [ghost.until for ghost in self.ghosts]
        moments += [request.deadline for request in self.waiting if request.deadline]
        return min(moments, default=0)


@dataclass(slots=True)
class LockTable:
    """All locks of a group."""

    locks: dict[bytes, Lock] = field(default_factory=dict)
    owners: dict[int, dict[bytes, None]] = field(default_factory=dict)
    """Names that a lease holds or waits for."""

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
        cause: dict[tuple[bytes, int], tuple[bytes, int] | None] = {(name, request.lease): None}
        stack = [(name, request)]
        while stack:
            at, waits = stack.pop()
            for lease in self.locks[at].blockers(waits):
                if lease == request.lease:
                    return self._path(cause, (at, waits.lease))
                for other in sorted(self.owners.get(lease, ())):
                    further = self.locks[other].waiting_of(lease)
                    if further is not None and (other, lease) not in cause:
                        cause[other, lease] = (at, waits.lease)
                        stack.append((other, further))
        return []

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
