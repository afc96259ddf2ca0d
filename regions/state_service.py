"""A replica's state machine and what lives on it: answers to queries, watches, and the leader's own work.

Nothing is revealed of a keyspace that this node may not serve (`requests.RegionLease`).
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import cast, final

from isochrone.errors import Indeterminate, IsochroneError, LeaseNotFound, Unavailable
from isochrone.ids import NS_PER_MS, GroupId, KeyspaceId, Nanos, Term, Timestamp
from isochrone.regions.lessor import Renewed
from isochrone.regions.office import CompactionRule, Office
from isochrone.regions.requests import Outcome, Read, RegionLease
from isochrone.regions.state import locks
from isochrone.regions.state.machine import Applied, GroupState
from isochrone.regions.state.model import LockNotice
from isochrone.regions.watch_hub import WatchHub, WatchRequest
from isochrone.regions.watching import Watch, Watches
from isochrone.wire.commands import Query, check_answerable_anywhere, encode_result
from isochrone.wire.kv import RANGE, PackedResult, in_range
from isochrone.wire.leases import LEASE_KEEP_ALIVE, LeaseKeepAlive, LeaseTimeToLive
from isochrone.wire.locks import LOCK_RESULT, LockEnd, LockWait

ANSWERS_BYTES_TARGET = 1 << 20
"""When the answers to queries that came together have so many bytes, the rest is not answered."""
ENDS_MAX = 10_000
"""So many requests for locks that ended without a grant are remembered, for those who ask late how."""


@final
class StateService:
    """See the module."""

    def __init__(
        self,
        group: GroupId,
        machine: GroupState,
        margin_ns: int,
        compaction: CompactionRule,
        monotonic: Callable[[], Nanos],
        region_lease: RegionLease,
    ) -> None:
        """`margin_ns`: extra time for leases when the leader has changed."""
        self._group = group
        self.machine = machine
        self._margin_ns = margin_ns
        self._compaction = compaction
        self._monotonic = monotonic
        self._region_lease = region_lease
        self._watches = Watches(machine.data)
        self.office = Office[Read](machine, margin_ns, compaction)
        self._lock_waits: dict[tuple[bytes, int, int], Read] = {}
        """Who waits to hear of which request for a lock."""
        self._ended: OrderedDict[tuple[bytes, int, int], LockNotice] = OrderedDict()
        """Requests for locks that ended without a grant lately, the oldest first."""

    @property
    def is_watched(self) -> bool:
        """Whether there is any watcher."""
        return bool(self._watches.hub)

    def replaced(self, machine: GroupState) -> None:
        """The state is that of a snapshot now. Only followers install one."""
        self.machine = machine
        self.office = Office[Read](machine, self._margin_ns, self._compaction)
        self._watches.replaced(machine.data, self._monotonic())

    def applied(self, applied: Applied, office_term: Term | None) -> None:
        """An entry was applied; `office_term` is its term if this replica leads in it."""
        if applied.events and self._watches.hub:
            self._watches.applied(applied.events, self._monotonic())
        if applied.lock_notices:
            self._note_ends(applied.lock_notices)
        if office_term is None:
            return
        if self.office.term not in (None, office_term):
            self.leave_office(Unavailable("the leader lost its office, and has another one now"))
        for renewed in self.office.applied(office_term, applied, self._monotonic()):
            self._answer_renewal(renewed)

    def leave_office(self, error: IsochroneError) -> None:
        """This replica leads no more, or stops: renewals and waits for locks end with an error."""
        waits, self._lock_waits = list(self._lock_waits.values()), {}
        for read in [*self.office.end(), *waits]:
            read.done(self._failed(error))

    # ---- locks

    def wait(self, read: Read, query: LockWait) -> None:
        """Answer when a request for a lock waits no longer. Whoever asks last is answered; who asked before is told."""
        if not self._region_lease(self._group, read.keyspace):
            read.done(self._failed(self._not_served(read.keyspace)))
            return
        key = (query.name, query.lease, query.request)
        try:
            packed = self._packed_end(key) or locks.answer_wait(self.machine.data, query)
        except IsochroneError as error:
            read.done(self._failed(error))
            return
        if packed is not None:
            read.done(Outcome(encode_result(packed), self.machine.revision))
            return
        earlier = self._lock_waits.pop(key, None)
        self._lock_waits[key] = read
        if earlier is not None:
            earlier.done(self._failed(Unavailable("the same was asked again; the later question is answered")))

    def _packed_end(self, key: tuple[bytes, int, int]) -> PackedResult | None:
        """How a request ended that waits no longer and was not granted; None if that is not known here."""
        notice = self._ended.get(key)
        if notice is None:
            return None
        data = self.machine.data
        return (LOCK_RESULT, data.revision, data.timestamp, int(notice.end), notice.token, int(notice.mode))

    def _note_ends(self, notices: Sequence[LockNotice]) -> None:
        """Requests wait no longer. Every replica notes how, so that the next leader can tell, too."""
        for notice in notices:
            key = (notice.name, notice.lease, notice.request)
            if notice.end is not LockEnd.GRANTED:
                self._ended[key] = notice
                if len(self._ended) > ENDS_MAX:
                    self._ended.popitem(last=False)
            read = self._lock_waits.pop(key, None)
            if read is not None:
                self.wait(read, LockWait(*key))

    # ---- queries

    def answer(self, read: Read) -> Outcome:
        """The answer to a query that may be answered now."""
        (answer,) = self.answer_all(read.keyspace, (read.query,))
        if isinstance(answer, IsochroneError):
            return self._failed(answer)
        return Outcome(encode_result(answer), self.machine.revision)

    def answer_all(self, keyspace: KeyspaceId, queries: Sequence[Query]) -> list[PackedResult | IsochroneError]:
        """The answers to queries that may be answered now, from one state: to all, or to as many as fit."""
        if not self._region_lease(self._group, keyspace):
            return [self._not_served(keyspace)] * len(queries)
        answers: list[PackedResult | IsochroneError] = []
        left_bytes = ANSWERS_BYTES_TARGET
        for query in queries:
            if left_bytes <= 0:
                break
            remaining_ms = 0
            if isinstance(query, LeaseTimeToLive):
                remaining_ms = self.office.lessor.remaining_ms(query.lease, self._monotonic())
            try:
                answers.append(self.machine.query(keyspace, query, remaining_ms))
            except IsochroneError as error:
                answers.append(error)
            left_bytes -= answer_bytes(answers[-1])
        return answers

    def answer_applied(self, keyspace: KeyspaceId, queries: Sequence[Query]) -> Sequence[PackedResult | IsochroneError]:
        """Answer from what is applied here, which may be behind what others have acknowledged.

        Raises:
            InvalidRequest: only the leader can answer one of the queries.
        """
        check_answerable_anywhere(queries)
        return self.answer_all(keyspace, queries)

    def age_ms(self, latest: Timestamp, offset_max_ns: int) -> int | None:
        """How old at most is what is applied here: every write acknowledged so long ago is in it; None: unknown.

        Timestamps follow the log, so what is missing here was stamped later than what was applied last; and a stamp
        is ahead of true time by less than the maximum offset, which is at least the width of any node's clock interval.
        While nothing is written the figure grows, though nothing is missing: this node cannot know that.
        """
        applied = self.machine.data.timestamp
        age_ns = latest - applied + offset_max_ns
        # Below 0, or before anything was applied, it says that this clock is wrong, or nothing at all.
        return -(-age_ns // NS_PER_MS) if applied and age_ns >= 0 else None

    def renew(self, read: Read, query: LeaseKeepAlive) -> None:
        """A renewal was asked for, and a quorum has confirmed since that this replica leads."""
        for renewed in self.office.lessor.renewal_confirmed(query.lease, read, self._monotonic()):
            self._answer_renewal(renewed)

    def _answer_renewal(self, renewed: Renewed[Read]) -> None:
        read = renewed.asker
        if renewed.ttl_ms is None:
            read.done(self._failed(LeaseNotFound("requested lease not found")))
        elif not self._region_lease(self._group, read.keyspace):
            text = (
                f"this region may not serve keyspace {read.keyspace!r} now; whether the lease was renewed is not told"
            )
            read.done(self._failed(Indeterminate(text)))
        else:
            data = self.machine.data
            packed = (LEASE_KEEP_ALIVE, data.revision, data.timestamp, renewed.lease, renewed.ttl_ms)
            read.done(Outcome(encode_result(packed), self.machine.revision))

    def _failed(self, error: IsochroneError) -> Outcome:
        return Outcome(b"", self.machine.revision, error)

    def _not_served(self, keyspace: KeyspaceId) -> Unavailable:
        return Unavailable(f"this region may not serve keyspace {keyspace!r} now")

    # ---- watches

    @property
    def watch_hub(self) -> WatchHub:
        """The watchers here."""
        return self._watches.hub

    def watch(self, request: WatchRequest, ready: Callable[[], None]) -> Watch:
        """Watch what is written, as it is applied here: in order and without gaps, but not before other replicas tell.

        `ready` is called when there is something to take and was nothing before; take first without being called.

        Raises:
            InvalidRequest: no key or a negative revision.
            QueueFull: too many watchers.
        """
        identity = self._watches.open(request, ready, self._monotonic())

        def serves() -> bool:
            states = self.machine.data.keyspaces.values()
            touched = [state.keyspace for state in states if _touches(state.prefix, request)]
            return all(self._region_lease(self._group, keyspace) for keyspace in touched)

        return Watch(self._watches, identity, serves, self._monotonic)


def answer_bytes(answer: PackedResult | IsochroneError) -> int:
    """About how many bytes an answer takes: of a range, as most are, those of the records in it."""
    if isinstance(answer, IsochroneError):
        return 0
    return sum(map(len, cast("tuple[bytes, ...]", answer[5]))) if answer[0] == RANGE else len(encode_result(answer))


def _touches(prefix: bytes, request: WatchRequest) -> bool:
    """Whether a range may hold keys with a prefix."""
    return request.key.startswith(prefix) or (
        bool(request.range_end) and in_range(prefix, request.key, request.range_end)
    )
