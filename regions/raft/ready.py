"""What a `RaftNode` asks its host to do, with the durability contract as types.

The host may send `Ready.messages` at once. It must make `Ready.append` durable, in the order in which the works
were handed out, before it sends that work's `release` and calls `persisted` with its token. There is no other
way to get at those messages, so the order cannot be mistaken.
"""

from dataclasses import dataclass
from enum import StrEnum

from isochrone.ids import KeyspaceId, LogIndex, Nanos, NodeId, Term, Timestamp
from isochrone.records import quickly_made
from isochrone.wire.messages import Configuration, Entry, EntryKind, HardState, RaftMessage, SnapshotChunk


@quickly_made
@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message and whom it is for."""

    to: NodeId
    message: RaftMessage


@quickly_made
@dataclass(frozen=True, slots=True)
class AppendToken:
    """Names one `AppendWork` when it has ended."""

    term: Term
    """Term of the replica when the work was handed out."""
    last_index: LogIndex
    """Everything up to here is durable once this work is."""
    epoch: int
    """Of the log; a report under an older epoch was overtaken."""


@quickly_made
@dataclass(frozen=True, slots=True)
class AppendWork:
    """Something to make durable, and the messages that may leave only then."""

    token: AppendToken
    hard_state: HardState | None
    entries: tuple[Entry, ...]
    """They replace everything from the first one's index on."""
    truncate_to: LogIndex | None
    """Drop entries up to and including this one."""
    release: tuple[Outgoing, ...]
    chunk: SnapshotChunk | None = None
    """A piece of a snapshot, which comes before everything else in this work; see `ports.LogWrite`."""
    discard_staged: bool = False


@dataclass(frozen=True, slots=True)
class Fetch:
    """Entries that a peer needs and memory no longer holds: read them, then call `fetched`."""

    peer: NodeId
    first: LogIndex
    last: LogIndex
    bytes_max: int


@dataclass(frozen=True, slots=True)
class SnapshotRead:
    """Rows for a peer that needs a snapshot: read the next ones of this attempt, then call `snapshot_read`.

    The first read of an attempt opens a snapshot of the store, which is kept until the attempt ends.
    """

    attempt: int
    bytes_max: int


@dataclass(frozen=True, slots=True)
class SnapshotPart:
    """What such a read gives, and what the snapshot is."""

    index: LogIndex
    index_term: Term
    configuration: Configuration
    data: bytes
    last: bool


@quickly_made
@dataclass(frozen=True, slots=True)
class ReadReady:
    """The reads named by `contexts` may be answered from state that reflects the log up to `index`."""

    contexts: tuple[int, ...]
    index: LogIndex
    lease: Term | None = None
    """If set, they rest on the leader's lease in this term. After the state was read, ask `RaftNode.lease_holds` with
    the clock read anew; if it does not, do not answer, but ask again with `read_index(…, leased=False)`."""


class EventName(StrEnum):
    """Names of trace events: the one vocabulary of people, checkers and telemetry."""

    BECAME_FOLLOWER = "became_follower"
    BECAME_PRE_CANDIDATE = "became_pre_candidate"
    GAVE_WAY = "gave_way"
    BECAME_CANDIDATE = "became_candidate"
    BECAME_LEADER = "became_leader"
    LEADER_CHANGED = "leader_changed"
    QUORUM_LOST = "quorum_lost"
    VOTE_GRANTED = "vote_granted"
    VOTE_REFUSED = "vote_refused"
    VOTE_IGNORED = "vote_ignored"
    SUFFIX_REPLACED = "suffix_replaced"
    APPEND_REFUSED = "append_refused"
    STALE_WRITE_REPORT = "stale_write_report"
    WITNESS_ARMED = "witness_armed"
    TRANSFER_BEGUN = "transfer_begun"
    TRANSFER_GIVEN_UP = "transfer_given_up"
    HANDED_BACK = "handed_back"
    RELAY_HANDED_OVER = "relay_handed_over"
    QUIESCED = "quiesced"
    WOKE = "woke"
    CANNOT_FEED = "cannot_feed"
    SNAPSHOT_BEGUN = "snapshot_begun"
    SNAPSHOT_GIVEN_UP = "snapshot_given_up"
    SNAPSHOT_INSTALLED = "snapshot_installed"
    CHUNK_DAMAGED = "chunk_damaged"
    STALE_MESSAGE = "stale_message"
    CONFIGURATION_CHANGED = "configuration_changed"
    CONFIGURATION_ROLLED_BACK = "configuration_rolled_back"
    REMOVED_LEADER = "removed_leader"
    NO_STATE = "no_state"


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened, for traces and counters. Nothing depends on it."""

    name: EventName
    term: Term
    index: LogIndex
    peer: NodeId | None = None


@quickly_made
@dataclass(frozen=True, slots=True)
class Ready:
    """Everything that has gathered since the last call."""

    messages: tuple[Outgoing, ...]
    append: AppendWork | None
    committed: tuple[Entry, ...]
    """To apply, in order. Call `applied` afterwards. Always empty on a witness."""
    reads: tuple[ReadReady, ...]
    refused_reads: tuple[int, ...]
    """Contexts of reads that can no longer be answered here: this replica does not lead any more."""
    fetches: tuple[Fetch, ...]
    events: tuple[Event, ...]
    snapshot_reads: tuple[SnapshotRead, ...] = ()
    snapshot_ends: tuple[int, ...] = ()
    """Attempts whose snapshot of the store, if one is open, is not needed any more."""
    load: bool = False
    """The rows of an installed snapshot are durable: load the state machine anew, then call `snapshot_loaded`."""


NOTHING_READY = Ready((), None, (), (), (), (), ())
"""What most answers of peers lead to: nothing to do."""


@dataclass(frozen=True, slots=True)
class Slumber:
    """That a replica sleeps, and whom its node must watch meanwhile (see `quiescence`)."""

    leader: NodeId
    term: Term
    watched: tuple[NodeId, ...]
    """On the leader: every other member but those in `absent`. On a follower: the leader."""
    heartbeat_ns: Nanos
    """The watched must be heard this often."""
    election_timeout_ns: Nanos
    """When one of them was not heard for this long, the replica is to wake."""
    absent: tuple[NodeId, ...] = ()
    """On the leader: learners that it sleeps without. Their silence is no news, but they are told of the sleep: as
    soon as one of them hears that, it disagrees."""


@quickly_made
@dataclass(frozen=True, slots=True)
class Proposal:
    """Commands to append as one entry."""

    keyspace: KeyspaceId
    data: bytes
    count: int
    """How many commands `data` holds, so how many timestamps the entry takes."""
    timestamp: Timestamp
    """Lower bound for the entry's timestamp: the host's hybrid logical clock."""
    trace: bytes = b""
    kind: EntryKind = EntryKind.COMMANDS
