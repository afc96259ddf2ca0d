"""Ports: what the drivers ask of the world, kept small so that the simulation can stand in for it.

Each port's docstring is its contract; one contract suite runs against every implementation.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from isochrone.clocks.interval import Interval
from isochrone.ids import (
    ClusterId,
    GroupId,
    Incarnation,
    KeyspaceId,
    LogIndex,
    Nanos,
    NodeId,
    StoreId,
    Term,
    Timestamp,
)
from isochrone.records import quickly_made
from isochrone.wire.messages import (
    Configuration,
    Entry,
    Envelope,
    HardState,
    PeerMessage,
    SnapshotChunk,
    SnapshotId,
)

_NO_TIMESTAMP = Timestamp(0)


class Clock(Protocol):
    """Time. `monotonic` drives timers; `now` stamps entries.

    Safety rests on neither, save where a group asks for lease reads: they trust the rate of `monotonic`.
    """

    def monotonic(self) -> Nanos:
        """Nanoseconds on a clock that never goes back and counts suspended time (`CLOCK_BOOTTIME`)."""

    def now(self) -> Interval:
        """An interval around true time.

        Raises:
            ClockUnsynchronized: the source knows no bound, or one wider than allowed.
        """


class Transport(Protocol):
    """Messages between nodes: unordered across peers, lossy, possibly repeated."""

    def send(self, to: NodeId, messages: Sequence[PeerMessage]) -> None:
        """Queue messages to a peer. Never blocks, never raises; what cannot be delivered is dropped and counted.

        Messages of one call stay together and in order, and calls to one peer are delivered in order while a stream
        to it lasts. Queues are bounded by bytes; the oldest messages of a full queue are dropped.
        """

    def start(self, receive: Callable[[Envelope], None]) -> None:
        """Begin to deliver: `receive` is called in the loop's thread, and must not block."""


@quickly_made
@dataclass(frozen=True, slots=True)
class Row:
    """A write to the state of a group: `value` None deletes. Rows are kept by group, keyspace and table."""

    group: GroupId
    keyspace: KeyspaceId
    table: int
    """Number of a table of the state machine, 0 to 255."""
    key: bytes
    value: bytes | None


@quickly_made
@dataclass(frozen=True, slots=True)
class LogWrite:
    """A change to one group's log and hard state."""

    group: GroupId
    hard_state: HardState | None = None
    entries: tuple[Entry, ...] = ()
    """Contiguous. They replace everything from the first one's index on."""
    truncate_to: LogIndex | None = None
    """Drop entries up to and including this one. The rows that come from them are in this batch or an earlier one."""
    chunk: SnapshotChunk | None = None
    """Stage this piece of a snapshot, before everything else in this write.

    The last piece switches: the snapshot takes the place of the group's rows, and of its log up to the snapshot's
    index. What follows in the log is kept only if the entry at that index is held, with its very term. Such a batch has
    no rows and no applied index of the group.
    """
    discard_staged: bool = False
    """What is staged is not wanted any more. Such a write has no chunk."""


@quickly_made
@dataclass(frozen=True, slots=True)
class WriteBatch:
    """What one durable commit holds: the work of every group of the node."""

    logs: tuple[LogWrite, ...] = ()
    rows: tuple[Row, ...] = ()
    applied: Mapping[GroupId, LogIndex] = field(default_factory=dict)
    """Index up to which the rows of a group reflect its log. Never above what the log holds after this batch."""
    incarnations: Mapping[NodeId, Incarnation] = field(default_factory=dict)
    """Highest incarnation seen of peers."""


@dataclass(frozen=True, slots=True)
class TermRun:
    """A maximal run of entries of one term: it starts at `first`."""

    first: LogIndex
    term: Term


@dataclass(frozen=True, slots=True)
class LoggedConfiguration:
    """A configuration and the log entry that brought it."""

    index: LogIndex
    configuration: Configuration


@dataclass(frozen=True, slots=True)
class StagedSnapshot:
    """How much of a snapshot is staged: chunks that are durable, and not in force before the last one is."""

    id: SnapshotId
    position: int
    """Bytes staged."""
    checksum: int
    """CRC32C of what is staged."""
    generation: int
    """Of its rows."""


@quickly_made
@dataclass(frozen=True, slots=True)
class StoredGroup:
    """What a store holds of one group."""

    configuration: Configuration
    """As of `truncated_index`; with nothing truncated, the one that the replica was made with."""
    hard_state: HardState
    truncated_index: LogIndex
    """The entry before the first one held; 0 when nothing was truncated."""
    truncated_term: Term
    last_index: LogIndex
    term_runs: tuple[TermRun, ...]
    """Runs of the entries held, in order."""
    applied: LogIndex
    configurations: tuple[LoggedConfiguration, ...] = ()
    """Those of the entries held, in order; the last one is in force, whether it is committed or not."""
    entry_bytes: Sequence[int] = ()
    """Encoded bytes of each entry held, in order. Only `load` gives them."""
    base_timestamp: Timestamp = _NO_TIMESTAMP
    """No timestamp in what a snapshot brought is larger."""
    staged: StagedSnapshot | None = None
    generation: int = 0
    """Each snapshot that was begun has its rows under a number of its own. This is the number of those in force."""
    generations: int = 0
    """The highest such number that was ever used."""

    @property
    def effective_configuration(self) -> Configuration:
        """The configuration in force."""
        return self.configurations[-1].configuration if self.configurations else self.configuration


_STARTS_BITS = 32
"""Low bits of an incarnation, which count the starts on one store; the bits above count the stores."""


@dataclass(frozen=True, slots=True)
class StoreIdentity:
    """Whose data this is."""

    cluster: ClusterId
    node: NodeId
    store: StoreId
    incarnation: Incarnation
    """Already raised and durable when the store is open."""


class SnapshotReader(Protocol):
    """A group's state at one moment, read piece by piece while the group goes on."""

    @property
    def index(self) -> LogIndex:
        """The state reflects the log up to here."""

    @property
    def index_term(self) -> Term: ...

    @property
    def configuration(self) -> Configuration:
        """As of `index`."""

    async def read(self, bytes_max: int) -> tuple[bytes, bool] | None:
        """The next rows (`wire.rows`), as many as fit into `bytes_max` but at least one; and whether they are the last.

        All pieces together have the rows ordered by keyspace, table and key.

        None: too much has changed since that moment, and what is left can no longer be read.

        Raises:
            StorageError: a row is corrupt, or the store cannot be used any more.
        """

    def close(self) -> None:
        """Read no more. Idempotent."""


def first_incarnation(replacements: int) -> Incarnation:
    """Where the count of a node's starts begins on a store that so many others came before, above all of theirs."""
    return Incarnation(replacements << _STARTS_BITS)


WriteDone = Callable[[Exception | None], None]
"""Takes the end of a write: None if it is durable, or why it is not."""


class Store(Protocol):
    """Durable logs and state of all groups of one node.

    Atomicity: a batch is visible after a crash as a whole or not at all.
    Order: batches become durable in the order in which `write` was called; one batch may not overtake another.
    Durability: when a write's `done` is called with None, the batch survives loss of power. Nothing before that is
    promised.
    Reads see every batch whose `done` was called.
    Refusals: a full store is noticed before the commit, is a `StorageError` and leaves the store as it was. So
    does a batch that breaks a rule of the log (a hole, a falling term, …), as `InvariantViolation`: the caller's
    fault. Every write called before the refusal was told is refused with it.
    Errors: any other failed write is fatal: it is a `StorageError`, as is every later call; the batch may or may
    not be there after a restart. A failed sync is never tried again. Corrupt data is a `StorageError` that
    says where; it is never repaired.
    Configurations: those of the entries held are known without reading the log (`StoredGroup.configurations`).
    At the start: `commit` is at least `applied`, and the log has no hole.
    """

    @property
    def identity(self) -> StoreIdentity: ...

    @property
    def groups(self) -> tuple[GroupId, ...]:
        """The groups held, in order of name: those bootstrapped into this store, and those made since."""

    @property
    def incarnations(self) -> Mapping[NodeId, Incarnation]:
        """Highest incarnation of each peer, as stored when the store was opened."""

    async def load(self, group: GroupId) -> StoredGroup:
        """A group's log bounds, hard state and sizes of entries. Takes time in proportion to the log's length."""

    async def read_entries(self, group: GroupId, first: LogIndex, last: LogIndex, bytes_max: int) -> tuple[Entry, ...]:
        """Entries `first..last`, both included, as far as they are held and fit into `bytes_max`; at least `first`.

        Raises:
            StorageError: `first` is not held, or an entry is corrupt.
        """

    async def read_rows(self, group: GroupId) -> Sequence[Row]:
        """All rows of a group, ordered by keyspace, table and key."""

    async def open_snapshot(self, group: GroupId) -> SnapshotReader:
        """Begin to read a group's state as of its `applied` now. Costs nothing in proportion to the state's size."""

    def write(self, batch: WriteBatch, done: WriteDone) -> None:
        """Make a batch durable; never blocks, never raises. See the class for what is promised.

        `done` is called once, in the loop's thread and perhaps before this returns; it must not raise. It is told the
        error, or None. What a store refuses when it is called may be told before what still waits.
        """

    async def create_group(self, group: GroupId, configuration: Configuration) -> None:
        """Make an empty replica of a group; durable when this returns. Nothing happens if the same one is held.

        Raises:
            StorageError: the store holds the group as made with another configuration, or too many groups.
        """

    async def close(self) -> None:
        """Wait for writes under way, then release the data directory."""
