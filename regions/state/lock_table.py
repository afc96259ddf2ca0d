"""Locks as data: modes, who holds what, who waits, and for whom. The rules of fairness and deadlock are here.

**Order.** Those that wait are granted strictly in order: nobody overtakes, even if what it wants would be compatible.
Conversions stand before all others, in their own order, since nobody behind them could be granted before them anyway.

**Owners.** A lease is one owner, across all locks of the group: it is taken to give nothing up before all that it waits
for is granted. Whoever waits for independent things at a time does so under several leases.

**Deadlock.** A request waits for the owners whose holds exclude it; for the requests ahead of it to be granted; and for
the owners of those to give up, if they exclude it. New waits, and conversions granted past a queue, are the only
changes that add edges, and all of these touch the owner or its request: so a cycle is looked for then, through these
two, by the state at that entry, on every replica alike. There are no phantoms, as no edge is ever remembered.

Everything here takes time that does not grow with the queue, but for the search, which looks at each request once; and
there is no search for an owner that nobody can wait for.
"""

import heapq
from collections import OrderedDict, deque
from collections.abc import Iterator
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
    converting: OrderedDict[int, Request] = field(default_factory=OrderedDict)
    """Conversions that wait, by lease, in the order in which they are to be granted; all before the others."""
    queued: OrderedDict[int, Request] = field(default_factory=OrderedDict)
    """Other requests that wait, likewise."""
    ghosts: list[Ghost] = field(default_factory=list)
    _modes: list[int] = field(default_factory=lambda: [0] * len(LockMode))
    """How many hold it in each mode."""
    _deadlines: list[tuple[int, int, int]] = field(default_factory=list, compare=False)
    """A heap of (deadline, ticket, lease) of requests that wait, some of them gone."""

    @property
    def idle(self) -> bool:
        """Whether nothing is to be known of it."""
        return not (self.held or self.converting or self.queued or self.ghosts)

    @property
    def waiting_count(self) -> int:
        """How many requests wait."""
        return len(self.converting) + len(self.queued)

    @property
    def waiting(self) -> list[Request]:
        """Who waits, in the order in which they are to be granted."""
        return [*self.converting.values(), *self.queued.values()]

    @property
    def first(self) -> Request | None:
        """Who is to be granted next."""
        return next(iter((self.converting or self.queued).values()), None)

    def admits(self, lease: int, mode: LockMode) -> bool:
        """Whether nobody else excludes a mode now. Says nothing of whose turn it is."""
        own = self.held.get(lease)
        for held, count in zip(LockMode, self._modes, strict=True):
            if count > (own is not None and own.mode is held) and not compatible(held, mode):
                return False
        return all(compatible(ghost.mode, mode) for ghost in self.ghosts)

    def hold(self, request: Request) -> None:
        """The request is granted. Its lease must not hold the lock any more."""
        self.held[request.lease] = request
        self._modes[request.mode] += 1

    def drop(self, lease: int) -> Request | None:
        """The lease holds the lock no more. Returns what it held."""
        held = self.held.pop(lease, None)
        if held is not None:
            self._modes[held.mode] -= 1
        return held

    def enqueue(self, request: Request) -> None:
        """Let a request wait at its place."""
        (self.converting if request.converts else self.queued)[request.lease] = request
        if request.deadline:
            heapq.heappush(self._deadlines, (request.deadline, request.ticket, request.lease))
            if len(self._deadlines) > 2 * self.waiting_count + _SLACK:
                self._deadlines = [(each.deadline, each.ticket, each.lease) for each in self.waiting if each.deadline]
                heapq.heapify(self._deadlines)

    def dequeue(self, request: Request) -> None:
        """The request waits no longer."""
        del (self.converting if request.converts else self.queued)[request.lease]

    def waiting_of(self, lease: int) -> Request | None:
        """The request of a lease that waits."""
        return self.converting.get(lease) or self.queued.get(lease)

    def late(self, timestamp: int) -> Iterator[Request]:
        """Requests whose deadline has come, in that order; each must be dequeued before the next is asked for."""
        while (request := self._next_late()) is not None and request.deadline <= timestamp:
            yield request

    def next_moment(self) -> int:
        """Earliest timestamp at which time alone changes something; 0 for never."""
        moments = [ghost.until for ghost in self.ghosts]
        request = self._next_late()
        if request is not None:
            moments.append(request.deadline)
        return min(moments, default=0)

    def _next_late(self) -> Request | None:
        while self._deadlines:
            _, ticket, lease = self._deadlines[0]
            request = self.waiting_of(lease)
            if request is not None and request.ticket == ticket:
                return request
            heapq.heappop(self._deadlines)
        return None


_SLACK = 64
"""So many deadlines may be out of date beside as many as hold."""

_Node = tuple[bytes, int]
"""Of the graph of waits: a request by lock and lease; with no name, all that the lease holds."""
_NO_NAME = b""


@dataclass(slots=True)
class LockTable:
    """All locks of a group."""

    locks: dict[bytes, Lock] = field(default_factory=dict)
    owners: dict[int, dict[bytes, int]] = field(default_factory=dict)
    """How many requests a lease has at which locks: one that it holds or waits for, or both."""
    waits: dict[int, dict[bytes, None]] = field(default_factory=dict)
    """At which locks a lease waits."""
    below: dict[tuple[int, bytes], int] = field(default_factory=dict)
    """How many requests a lease has that rest on its holding a lock, by the lock above."""

    def enter(self, name: bytes, request: Request, parent: bytes | None) -> None:
        """A request holds the lock or waits for it. `parent` is the lock that it rests on."""
        names = self.owners.setdefault(request.lease, {})
        names[name] = names.get(name, 0) + 1
        if parent is not None:
            self.below[request.lease, parent] = self.below.get((request.lease, parent), 0) + 1

    def leave(self, name: bytes, request: Request, parent: bytes | None) -> None:
        """A request neither holds the lock nor waits for it any more."""
        names = self.owners[request.lease]
        names[name] -= 1
        if not names[name]:
            del names[name]
            if not names:
                del self.owners[request.lease]
        if parent is not None:
            self.below[request.lease, parent] -= 1
            if not self.below[request.lease, parent]:
                del self.below[request.lease, parent]

    def wait(self, name: bytes, request: Request) -> None:
        """Let a request that has entered wait for the lock."""
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

    def cycle(self, name: bytes, lease: int) -> list[tuple[bytes, Request]]:
        """A shortest cycle of waits through a lease, or its request at a lock: what waits in it; empty for none."""
        if not self.locks[name].waiting_count or not self._anybody_waits_for(lease):
            return []
        waits = self.locks[name].waiting_of(lease) is not None
        return self._cycle_from((_NO_NAME, lease)) or (self._cycle_from((name, lease)) if waits else [])

    def _anybody_waits_for(self, lease: int) -> bool:
        """Whether a lease, or what it waits for, is in anybody's way. Most are not, however long the queue is."""
        for name in self.owners[lease]:
            lock = self.locks[name]
            mine = lock.waiting_of(lease)
            if lease in lock.held:
                if lock.waiting_count > (mine is not None):
                    return True
            elif mine is not next(reversed(lock.queued.values())):
                return True
        return False

    def _cycle_from(self, start: _Node) -> list[tuple[bytes, Request]]:
        causes: dict[_Node, _Node] = {}
        nodes, seen = deque([start]), _Seen()
        while nodes:
            node = nodes.popleft()
            for further in self._waits_for(node, seen):
                if further == start:
                    return self._path(causes, start, node)
                if further not in causes:
                    causes[further] = node
                    nodes.append(further)
        return []

    def _path(self, causes: dict[_Node, _Node], start: _Node, last: _Node) -> list[tuple[bytes, Request]]:
        path = [last]
        while path[-1] != start:
            path.append(causes[path[-1]])
        waiting = [(name, self.locks[name].waiting_of(lease)) for name, lease in reversed(path) if name]
        return [(name, request) for name, request in waiting if request is not None]

    def _waits_for(self, node: _Node, seen: "_Seen") -> Iterator[_Node]:
        """What must come first. Leaves out what another node of the same search has been told already."""
        name, lease = node
        if not name:
            for other in sorted(self.waits.get(lease, ())):
                yield other, lease
            return
        lock = self.locks[name]
        request = lock.waiting_of(lease)
        assert request is not None, node
        if request.converts or (name, request.mode) not in seen.holders:
            for other_lease, held in sorted(lock.held.items()):
                if other_lease != lease and not compatible(held.mode, request.mode):
                    yield _NO_NAME, other_lease
            if not request.converts:
                seen.holders[name, request.mode] = True
        queue = seen.queue_of(name, lock)
        place = seen.places[name][lease]
        for ahead in queue[seen.ahead.get((name, request.mode), 0) : place]:
            yield name, ahead.lease
            if not compatible(ahead.mode, request.mode):
                yield _NO_NAME, ahead.lease
        seen.ahead[name, request.mode] = max(place, seen.ahead.get((name, request.mode), 0))


class _Seen:
    """What one search has looked at: requests of one mode that wait for one lock wait for much the same."""

    __slots__ = ("_queues", "ahead", "holders", "places")

    def __init__(self) -> None:
        self.holders: dict[tuple[bytes, LockMode], bool] = {}
        """Whose holders were named."""
        self.ahead: dict[tuple[bytes, LockMode], int] = {}
        """How many of the queue were named."""
        self.places: dict[bytes, dict[int, int]] = {}
        """Places in the queue, by lease."""
        self._queues: dict[bytes, list[Request]] = {}

    def queue_of(self, name: bytes, lock: Lock) -> list[Request]:
        """Who waits for a lock, in order."""
        queue = self._queues.get(name)
        if queue is None:
            queue = self._queues[name] = lock.waiting
            self.places[name] = {request.lease: place for place, request in enumerate(queue)}
        return queue
