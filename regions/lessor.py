"""The leader's half of leases: measures their time, decides when one has run out, and when a renewal may be answered.

**Theory of operation.** What leases there are, every replica knows (`regions.state.leases`). How much time each has
left, only the leader knows, by its own clock; renewals are not logged. The lessor looks at the clock it is given and
says what to log (`due`): expiries, and checkpoints of the time left, from which a next leader goes on.

Invariants:

1. A client that was told "renewed" at some moment has its lease for the whole time to live from then on, whoever leads.
   A renewal is answered only after a quorum has confirmed, by a round begun after the question came, that nobody else
   leads (the caller sees to that), so a later leader begins its own count after that moment. It begins with the noted
   checkpoint if there is one below the time to live: so while one is noted, or on its way, a renewal is answered only
   after an entry that clears it has been applied.
2. Of a lease whose expiry is on its way no renewal is answered before the expiry was applied or has failed.
3. Time once spent is not given back (etcd#17132): a new leader notes what has passed since its office began, first
   after `CHECKPOINT_FIRST_NS`, then at twice the time, and so on, until the lease is renewed. Leaders that change
   faster than a time to live thus lengthen a lease at most by half of each office and the margin.
   What is noted goes below zero by as much of a margin as was used, so the margin too is given but once.
   A lease that is renewed in time, at a third of its life, is never noted.
4. Leaders that have lost their office expire nothing (etcd#15247): `due` names the term under which it was asked.

HAZARD: times are of a clock that counts suspended time and does not jump (`Clock.monotonic`).
"""

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from isochrone.ids import NS_PER_MS, NS_PER_S, Nanos, Term
from isochrone.probes import probe
from isochrone.regions.state.model import Lease, LeaseChange, LeaseEvent
from isochrone.wire.leases import LeaseCheckpoint, LeaseExpire, LeaseHousekeeping, LeaseRenew

CHECKPOINT_FIRST_NS = 1 * NS_PER_S
"""A lease that was not renewed for so long since an office began is noted."""
SLACK = 64
"""So many entries of the queue may be out of date beside as many as hold."""
COMMANDS_MAX = 500
"""Most commands that `due` names at once; the rest follows."""

Asker = TypeVar("Asker")


@dataclass(slots=True)
class _Watched(Generic[Asker]):
    """One lease, as its leader sees it."""

    counted_from: Nanos
    """When the time to live, or what was left of it, began to run."""
    left_ns: int
    """How much was left then."""
    extra_ns: int
    """Time beyond that before it expires: the margin after a change of leaders."""
    note_after_ns: int
    """Time since `counted_from` at which to note what is left."""
    logged: LeaseHousekeeping | None = None
    """The command about it that is on its way."""
    noted: bool = False
    """A checkpoint below the time to live is noted."""
    asked: list[Asker] = field(default_factory=list)
    """Whose renewals wait for the log."""
    queued: Nanos | None = None
    """When it is to be looked at next; what else the heap holds of it is out of date."""

    @property
    def ends(self) -> Nanos:
        return Nanos(self.counted_from + self.left_ns + self.extra_ns)

    @property
    def next(self) -> Nanos:
        return min(self.ends, Nanos(self.counted_from + self.note_after_ns))


@dataclass(frozen=True, slots=True)
class Renewed(Generic[Asker]):
    """A renewal to be answered: the lease lives for `ttl_ms`, or is no more (None)."""

    asker: Asker
    lease: int
    ttl_ms: int | None


class Lessor(Generic[Asker]):
    """See the module. Idle until `begin_office`, and again after `end_office`."""

    def __init__(self, leases: Mapping[int, Lease], margin_ns: int) -> None:
        """`leases` are those of the state machine. `margin_ns`: extra time for all when the leader has changed."""
        self._leases = leases
        self._margin_ns = margin_ns
        self._term: Term | None = None
        self._watched: dict[int, _Watched[Asker]] = {}
        self._heap: list[tuple[Nanos, int]] = []
        """Times at which leases are to be looked at. Every lease that has nothing on its way is queued."""

    @property
    def in_office(self) -> Term | None:
        """The term in which this replica leads, once it has applied everything from before."""
        return self._term

    def begin_office(self, term: Term, now: Nanos) -> None:
        """This replica leads, and has applied everything that earlier leaders committed."""
        self._term = term
        for identity, lease in self._leases.items():
            left_ms = lease.ttl_ms if lease.checkpoint_ms is None else min(lease.ttl_ms, lease.checkpoint_ms)
            self._watch(identity, now, left_ms * NS_PER_MS, self._margin_ns, CHECKPOINT_FIRST_NS)
            self._watched[identity].noted = lease.checkpoint_ms is not None

    def end_office(self) -> list[Asker]:
        """This replica leads no more. Returns whose renewals are not answered."""
        unanswered = [asker for watched in self._watched.values() for asker in watched.asked]
        self._term = None
        self._watched.clear()
        self._heap.clear()
        return unanswered

    # ---- what clients ask

    def renewal_confirmed(self, identity: int, asker: Asker, now: Nanos) -> Sequence[Renewed[Asker]]:
        """A renewal was asked for, and a quorum has confirmed since that this replica leads. What to answer now."""
        watched = self._watched.get(identity)
        if watched is None:
            return (Renewed(asker, identity, None),)
        if watched.logged is not None:
            probe("lessor.renewal_waits_for_the_log")
            watched.asked.append(asker)
            return ()
        if watched.noted:
            watched.asked.append(asker)
            self._queue(identity, now)
            return ()
        return (self._renew(identity, asker, now),)

    def remaining_ms(self, identity: int, now: Nanos) -> int:
        """Time that a lease has left; -1 for none."""
        watched = self._watched.get(identity)
        if watched is None:
            return -1
        return max(0, watched.ends - now) // NS_PER_MS

    # ---- what to log

    @property
    def next_deadline(self) -> Nanos | None:
        """When to ask `due` again, or earlier than need be; None while nothing is to come."""
        return self._heap[0][0] if self._heap else None

    def due(self, now: Nanos) -> list[LeaseHousekeeping]:
        """What to log now. Each is on its way from then on; `not_logged` takes it back."""
        commands: list[LeaseHousekeeping] = []
        while self._heap and self._heap[0][0] <= now and len(commands) < COMMANDS_MAX:
            at, identity = heapq.heappop(self._heap)
            watched = self._watched.get(identity)
            if watched is None or watched.queued != at:
                continue
            watched.queued = None
            command = self._command(identity, watched, now)
            if command is None:
                self._queue(identity, watched.next)
            else:
                watched.logged = command
                commands.append(command)
        return commands

    def _command(self, identity: int, watched: _Watched[Asker], now: Nanos) -> LeaseHousekeeping | None:
        assert self._term is not None, identity
        if watched.asked:
            return LeaseRenew(identity)
        if watched.ends <= now:
            return LeaseExpire(identity, self._term, self._leases[identity].generation)
        spent_ns = now - watched.counted_from
        if spent_ns < watched.note_after_ns:
            return None
        watched.note_after_ns = 2 * spent_ns
        return LeaseCheckpoint(identity, self._term, (watched.left_ns - spent_ns) // NS_PER_MS)

    def not_logged(self, commands: Sequence[LeaseHousekeeping], retry_at: Nanos) -> None:
        """These could not be proposed; `due` names what is still to be done from `retry_at` on."""
        for command in commands:
            watched = self._watched.get(command.lease)
            if watched is not None and watched.logged == command:
                watched.logged = None
                self._queue(command.lease, retry_at)

    # ---- what was applied

    def applied(self, events: Sequence[LeaseEvent], now: Nanos) -> list[Renewed[Asker]]:
        """Changes of leases that were applied, in order. Returns the renewals to be answered now."""
        answers: list[Renewed[Asker]] = []
        if self._term is None:
            return answers
        for event in events:
            match event.change:
                case LeaseChange.GRANTED:
                    if event.lease in self._leases:  # it may have been revoked by the same entry
                        self._watch_whole(event.lease, now)
                case LeaseChange.ENDED:
                    ended = self._watched.pop(event.lease, None)
                    answers += [Renewed(asker, event.lease, None) for asker in (ended.asked if ended else ())]
                case LeaseChange.RENEWED:
                    asked = self._settled(event.lease)
                    if event.lease in self._watched:
                        self._watched[event.lease].noted = False
                        answers += [self._renew(event.lease, asker, now) for asker in asked]
                        self._queue(event.lease, self._watched[event.lease].next)
                case LeaseChange.CHECKPOINTED | LeaseChange.KEPT:
                    answers += self._ask_again(event, now)
        return answers

    def _ask_again(self, event: LeaseEvent, now: Nanos) -> list[Renewed[Asker]]:
        asked = self._settled(event.lease)
        if event.lease not in self._watched:
            return []
        if event.change is LeaseChange.CHECKPOINTED:
            self._watched[event.lease].noted = self._leases[event.lease].checkpoint_ms is not None
        self._queue(event.lease, self._watched[event.lease].next)
        return [answer for asker in asked for answer in self.renewal_confirmed(event.lease, asker, now)]

    def _settled(self, identity: int) -> list[Asker]:
        watched = self._watched.get(identity)
        if watched is None:
            return []
        watched.logged = None
        asked, watched.asked = watched.asked, []
        return asked

    def _queue(self, identity: int, at: Nanos) -> None:
        watched = self._watched[identity]
        if watched.queued is None or at < watched.queued:
            watched.queued = at
            heapq.heappush(self._heap, (at, identity))
            if len(self._heap) > 2 * len(self._watched) + SLACK:
                queued = [(each.queued, identity) for identity, each in self._watched.items()]
                self._heap = [(at, identity) for at, identity in queued if at is not None]
                heapq.heapify(self._heap)

    def _renew(self, identity: int, asker: Asker, now: Nanos) -> Renewed[Asker]:
        watched = self._watched[identity]
        ttl_ms = self._leases[identity].ttl_ms
        watched.counted_from, watched.left_ns, watched.extra_ns = now, ttl_ms * NS_PER_MS, 0
        watched.note_after_ns = max(CHECKPOINT_FIRST_NS, watched.left_ns // 2)
        return Renewed(asker, identity, ttl_ms)

    def _watch_whole(self, identity: int, now: Nanos) -> None:
        left_ns = self._leases[identity].ttl_ms * NS_PER_MS
        self._watch(identity, now, left_ns, 0, max(CHECKPOINT_FIRST_NS, left_ns // 2))

    def _watch(self, identity: int, now: Nanos, left_ns: int, extra_ns: int, note_after_ns: int) -> None:
        watched = self._watched[identity] = _Watched[Asker](now, left_ns, extra_ns, note_after_ns)
        self._queue(identity, watched.next)
