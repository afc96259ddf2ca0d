"""What the state machine holds, in memory and as rows of the store.

Everything is kept by keyspace, so that a keyspace can move to another group; what the group has besides is its
revision, its last timestamp and how far it is compacted. A row is written for every change, in the order of the
changes; together the rows rebuild the state.

A command of one keyspace may touch keys of others in the same group: `GroupData.keyspace_of` finds them.
"""

import heapq
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import repeat

from isochrone.errors import InvalidRequest
from isochrone.ids import GroupId, KeyspaceId, Revision, Term, Timestamp
from isochrone.regions.state.history import History
from isochrone.regions.state.lock_table import LockTable
from isochrone.wire.commands import Operation
from isochrone.wire.kv import ALL, PackedResult
from isochrone.wire.locks import LockEnd, LockMode

TABLE_GROUP = 0
"""One row, in the keyspace of no name: revision, last timestamp, and how far the group is compacted."""
TABLE_SCRUBBED = 1
"""One row: how far what is compacted has been forgotten. It stands before the records, as their restoring needs it."""
TABLE_RECORDS = 2
"""Every version of every key, by its place among all writes."""
TABLE_SESSIONS = 3
TABLE_RESULTS = 4
"""What the commands of one entry in one session resulted in, by session and the entry's last timestamp."""
TABLE_LEASES = 5
TABLE_LOCKS = 6

FIRST_REVISION = Revision(1)
"""Revision of a group without writes, as in etcd."""
NOT_COMPACTED = Revision(-1)


@dataclass(slots=True)
class Session:
    """A client's session: what it needs for each of its commands to take effect once."""

    ttl_ns: int
    last_used: Timestamp
    acknowledged: int = 0
    results: dict[int, bytes] = field(default_factory=dict)
    """What came of every sequence above `acknowledged` that has been applied: a result or a refusal, encoded."""
    results_bytes: int = 0
    result_rows: deque[tuple[int, Timestamp]] = field(default_factory=deque)
    """The stored rows of results, in their order: the last sequence in each, and its timestamp."""

    def forget_results(self, first: int) -> int:
        """Forget the results from a sequence on up to `acknowledged`; returns how many bytes they had.

        Their rows stay until `superfluous_rows` tells them.
        """
        results, mark = self.results, self.acknowledged
        gone: Sequence[int] = range(first, mark + 1)
        if len(gone) > len(results) + 1:  # Whatever number a client names, the work stays within what is stored.
            gone = [sequence for sequence in results if sequence <= mark]
        forgotten_bytes = sum(map(len, map(results.pop, gone, repeat(b""))))
        self.results_bytes -= forgotten_bytes
        return forgotten_bytes

    def superfluous_rows(self) -> Iterator[Timestamp]:
        """Take the oldest rows of results that hold nothing any more. One that does keeps those after it: at most as
        many as there may be sequences under way, since no sequence lies further above the mark.
        """
        rows = self.result_rows
        while rows and rows[0][0] <= self.acknowledged:
            yield rows.popleft()[1]

    @property
    def expires_after(self) -> Timestamp:
        """Last timestamp at which the session lives, unless it is used again."""
        return Timestamp(self.last_used + self.ttl_ns)

    def expired(self, now: Timestamp) -> bool:
        """Whether the session was unused for longer than its time to live."""
        return now > self.expires_after


@dataclass(slots=True)
class SessionUse:
    """What the commands of one entry do in one session."""

    session: Session
    forgotten: int
    """Results up to this sequence are forgotten. Those above it up to the mark are when the entry ends, all at once."""
    results: dict[int, bytes] = field(default_factory=dict)
    """Of the commands that ran."""


@dataclass(slots=True)
class Lease:
    """A promise to keep keys as long as somebody renews it. How much of its time is left, only the leader knows."""

    keyspace: KeyspaceId
    """Where it was granted. It may hold keys of the group's other keyspaces, too."""
    ttl_ms: int
    checkpoint_ms: int | None = None
    """Time that was left when last noted in the log; None means that it may be anything up to the time to live. Below
    zero it says how much was used of the extra time that a new leader gives."""
    generation: int = 0
    """Raised by every renewal that is logged; an expiry decided before one does nothing."""


class LeaseChange(StrEnum):
    """What happened to a lease."""

    GRANTED = "granted"
    RENEWED = "renewed"
    CHECKPOINTED = "checkpointed"
    KEPT = "kept"
    """An expiry was applied that no longer stood."""
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class LeaseEvent:
    """A change of a lease, for the leader that measures its time."""

    change: LeaseChange
    lease: int


class Happening(StrEnum):
    """What is worth counting. Nothing depends on it."""

    SESSION_EXPIRED = "session_expired"
    COMMAND_REPEATED = "command_repeated"
    """A command came again, and was answered with the stored result."""
    LEASE_EXPIRED = "lease_expired"
    """Its time was over, and its owner had not revoked it."""
    LOCK_GRANTED = "lock_granted"
    """At once; a `LockNotice` tells of those that had to wait."""
    TOKEN_REFUSED = "token_refused"
    """A transaction did not happen because of a fencing token that is out of date."""


@dataclass(frozen=True, slots=True)
class LockNotice:
    """A request for a lock waits no longer."""

    name: bytes
    lease: int
    request: int
    end: LockEnd
    token: int
    mode: LockMode
    waited_ns: int = 0
    """By the timestamps of the log; those of two leaders may differ by the error of their clocks."""


@dataclass(frozen=True, slots=True)
class LockMoment:
    """At this timestamp time alone moves the lock; 0 for never. It replaces what was said of the lock before."""

    name: bytes
    timestamp: int


@dataclass(slots=True)
class KeyspaceState:
    """The state of one keyspace."""

    keyspace: KeyspaceId
    prefix: bytes
    history: History = field(default_factory=History)
    token: int = 1 << 32
    """The last fencing token given out: `epoch * 2**32 + counter`."""
    sessions: dict[int, Session] = field(default_factory=dict)
    results_bytes: int = 0
    """Of the results of all sessions."""
    expiries: list[tuple[Timestamp, int]] = field(default_factory=list, compare=False)
    """An index into `sessions`: a heap of (a time before which it does not expire, id), some of sessions now gone."""

    def add_session(self, number: int, session: Session) -> None:
        """Take in a session."""
        self.sessions[number] = session
        heapq.heappush(self.expiries, (session.expires_after, number))
        if len(self.expiries) > 2 * len(self.sessions):
            # Most are of sessions that were closed long before their time.
            self.expiries = [(session.expires_after, number) for number, session in self.sessions.items()]
            heapq.heapify(self.expiries)

    def expired_sessions(self, now: Timestamp) -> Iterator[int]:
        """Sessions that have expired. Cheap however many live: each is looked at about once in its time to live."""
        while self.expiries and self.expiries[0][0] < now:
            number = heapq.heappop(self.expiries)[1]
            session = self.sessions.get(number)
            if session is None:
                continue
            if session.expired(now):
                yield number
            else:
                heapq.heappush(self.expiries, (session.expires_after, number))


class GroupData:
    """The state of one group."""

    __slots__ = (
        "_ordered",
        "_prefixes",
        "attached",
        "compacted",
        "compacted_timestamp",
        "group",
        "keyspaces",
        "leases",
        "locks",
        "revision",
        "timestamp",
    )

    def __init__(self, group: GroupId, keyspaces: Iterable[KeyspaceId]) -> None:
        self.group = group
        self._ordered = [KeyspaceState(name, name.encode()) for name in sorted(keyspaces, key=str.encode)]
        self._prefixes = [state.prefix for state in self._ordered]
        self.keyspaces = {state.keyspace: state for state in self._ordered}
        self.leases: dict[int, Lease] = {}
        """Of all keyspaces: an id means one lease in the group."""
        self.attached: dict[int, dict[bytes, None]] = {}
        """Keys by the lease that they hang on. That is not in the lease's row: each key's record names its lease."""
        self.locks = LockTable()
        self.revision = FIRST_REVISION
        self.timestamp = Timestamp(0)
        """The last one of the entries applied."""
        self.compacted = NOT_COMPACTED
        """Reads below this revision are refused."""
        self.compacted_timestamp = Timestamp(0)
        """Reads below this timestamp are refused: it is the largest one up to the compacted revision."""

    def keyspace(self, name: KeyspaceId) -> KeyspaceState:
        """A keyspace by name. Raises `InvalidRequest`."""
        try:
            return self.keyspaces[name]
        except KeyError:
            raise InvalidRequest(f"group {self.group} holds no keyspace {name!r}") from None

    def keyspace_of(self, key: bytes) -> KeyspaceState:
        """The keyspace that a key lies in. Raises `InvalidRequest`."""
        place = bisect_right(self._prefixes, key)  # Prefixes do not overlap, so at most the one before can fit.
        if place and key.startswith(self._prefixes[place - 1]):
            return self._ordered[place - 1]
        raise InvalidRequest(f"key {key[:64]!r} lies in no keyspace of group {self.group}")

    def attach(self, key: bytes, before: int, after: int) -> None:
        """A key that hung on one lease hangs on another now; 0 for none."""
        if before == after:
            return
        if before:
            keys = self.attached[before]
            del keys[key]
            if not keys:
                del self.attached[before]
        if after:
            self.attached.setdefault(after, {})[key] = None

    def parts(self, key: bytes, range_end: bytes) -> list[tuple[KeyspaceState, bytes, bytes | None]]:
        """The pieces of a range, each within a keyspace, in order of the keys. Raises for a key outside all."""
        if not range_end:
            return [(self.keyspace_of(key), key, key + b"\0")]
        if range_end == ALL:
            return [(state, key, None) for state in self._ordered]
        return [(state, key, range_end) for state in self._ordered] if key < range_end else []


class ApplyContext:
    """What a command handler may use: the group, and where its own effects go. Time is the entry's, never the clock's.

    A handler checks first and changes then: once it has changed anything it must not raise.
    """

    __slots__ = (
        "_placed",
        "data",
        "events",
        "happened",
        "home",
        "lease_events",
        "lock_moments",
        "lock_notices",
        "rows",
        "term",
        "timestamp",
        "used_sessions",
    )

    def __init__(self, data: GroupData, term: Term, home: KeyspaceState) -> None:
        """For the commands of one entry. `home` is the keyspace that it names; a leader's own commands name none."""
        self.data = data
        self.home = home
        self.term = term
        """Of the entry."""
        self.timestamp = Timestamp(0)
        self.rows: dict[tuple[KeyspaceId, int, bytes], bytes | None] = {}
        """Changed rows; None deletes."""
        self.events: list[bytes] = []
        """Records of what was written, in order."""
        self.lease_events: list[LeaseEvent] = []
        self.lock_notices: list[LockNotice] = []
        self.lock_moments: list[LockMoment] = []
        self.happened: list[Happening] = []
        self.used_sessions: dict[int, SessionUse] = {}
        """Sessions of `home` whose rows are to be written when the entry is done."""
        self._placed = 0

    def begin(self, timestamp: Timestamp) -> None:
        """The next command begins."""
        self.timestamp = self.data.timestamp = timestamp
        self._placed = 0

    def place(self) -> tuple[Revision, int]:
        """Revision of the command under way, and the place of its next write in it. The first write raises it."""
        data, placed = self.data, self._placed
        if not placed:
            data.revision = Revision(data.revision + 1)
        self._placed = placed + 1
        return data.revision, placed

    def keyspace_of(self, key: bytes) -> KeyspaceState:
        """The keyspace that a client's key lies in, which need not be `home`. Raises `InvalidRequest`."""
        home = self.home
        return home if key.startswith(home.prefix) else self.data.keyspace_of(key)


Handler = Callable[[ApplyContext, Operation], PackedResult]
"""Applies one kind of operation. Deterministic; changes the state and records the rows that it changed."""

Handlers = Mapping[type[object], Handler]
"""A command family: handlers by type of operation. The host takes families by registration."""
