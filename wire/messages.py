"""Message dataclasses: log entries, Raft messages and the envelope in which they travel.

Everything here is frozen. An entry is encoded once, when the leader appends it (`wire.entries`); the same bytes go to
the log and to every peer.
"""

from dataclasses import dataclass, field
from enum import IntEnum

from isochrone.ids import (
    ClusterId,
    GroupId,
    Incarnation,
    KeyspaceId,
    LogIndex,
    NodeId,
    ReplicaRole,
    StoreId,
    Term,
    Timestamp,
)
from isochrone.records import quickly_made

PROTOCOL_VERSION = 2
"""Version of the peer and session protocols. A handshake with another major version is refused."""
FEATURE_LEVEL = 1
"""What this release can read in logs and messages; the lower of two peers' levels governs what they send."""


class EntryKind(IntEnum):
    """What an entry's data is."""

    NOOP = 0
    """Empty; the barrier that each new leader appends."""
    COMMANDS = 1
    """A batch of commands for one keyspace, for the state machine."""
    CONFIGURATION = 2
    """Who belongs to the group from this entry on (`wire.configurations`); in force as soon as it is in a log."""
    HOUSEKEEPING = 3
    """A batch of commands of the leader itself (`wire.leases.Housekeeping`); no client can cause one."""


@quickly_made
@dataclass(frozen=True, slots=True)
class Entry:
    """One log entry.

    It holds a batch of `count` commands and so a range of timestamps: command number i has timestamp + i. Every
    timestamp in an entry exceeds every timestamp before it in its log.
    """

    index: LogIndex
    term: Term
    kind: EntryKind
    timestamp: Timestamp
    count: int
    """How many timestamps the entry takes: the number of its commands, at least 1."""
    keyspace: KeyspaceId
    """Keyspace of the commands; empty for the kinds that belong to none."""
    trace: bytes
    """Trace context of the command that is traced (W3C trace id, span id and flags, 25 bytes), else empty."""
    data: bytes
    encoded: bytes = field(default=b"", compare=False, repr=False)
    """The stored and sent form: CRC32C of the body, then the body."""

    @property
    def last_timestamp(self) -> Timestamp:
        """The largest timestamp that the entry takes."""
        return Timestamp(self.timestamp + self.count - 1)


@dataclass(frozen=True, slots=True, order=True)
class Member:
    """One replica of a group: a node with one particular store."""

    node: NodeId
    store: StoreId
    role: ReplicaRole


@dataclass(frozen=True, slots=True)
class QuorumSizes:
    """How many voters make a quorum; 0 stands for a majority."""

    commit: int = 0
    """Voters that commit an entry, confirm a read, and keep a leader in office."""
    election: int = 0
    """Voters that elect a leader."""


MAJORITY = QuorumSizes()


@dataclass(frozen=True, slots=True)
class Configuration:
    """Who belongs to a group.

    `outgoing` is empty unless the configuration is joint; then decisions need a quorum of both halves.
    """

    members: tuple[Member, ...]
    outgoing: tuple[Member, ...] = ()
    """The voters of the configuration that a joint one leaves. A voter that is to be demoted stands here as a voter
    and among `members` as a learner."""
    quorums: QuorumSizes = MAJORITY
    """Of `members`."""
    outgoing_quorums: QuorumSizes = MAJORITY
    auto_leave: bool = False
    """Whoever leads when a joint configuration is committed leaves it at once; otherwise an operator does."""

    @property
    def joint(self) -> bool:
        """Whether two halves decide."""
        return bool(self.outgoing)


@quickly_made
@dataclass(frozen=True, slots=True)
class HardState:
    """What a replica may not forget: one record, written atomically."""

    term: Term = Term(0)
    vote: NodeId | None = None
    commit: LogIndex = LogIndex(0)
    """Highest index known to be committed; may lag, as it can be learned again."""


@dataclass(frozen=True, slots=True)
class VoteRequest:
    """Asks for a vote, or with `pre` only whether one would be given."""

    term: Term
    last_index: LogIndex
    last_term: Term
    pre: bool
    transfer: bool
    """Sent at the leader's own wish: voters do not hold on to it."""


@dataclass(frozen=True, slots=True)
class VoteResponse:
    """Answer to a `VoteRequest`. A granted pre-vote carries the request's term, a refusal the voter's."""

    term: Term
    granted: bool
    pre: bool


@quickly_made
@dataclass(frozen=True, slots=True)
class AppendRequest:
    """Replicates entries after `(previous_index, previous_term)`; empty ones probe or carry a commit index."""

    term: Term
    previous_index: LogIndex
    previous_term: Term
    entries: tuple[Entry, ...]
    commit: LogIndex
    truncate_to: LogIndex
    """Entries up to and including this index may be dropped: committed, and durable on every full voter."""


@quickly_made
@dataclass(frozen=True, slots=True)
class AppendResponse:
    """Answer to an `AppendRequest`.

    Accepted: `index` is the last index known to match, durably. Refused: `index` and `hint_term` say where the
    follower's log may still match (largest index up to the probed one whose term is not above the leader's
    there), and `rejected_index` repeats the probed index so that stale refusals can be told apart.

    `wants_news`: somebody waits at the follower for what is committed, so it is to be told at once; else it hears with
    the next request or heartbeat.
    """

    term: Term
    accepted: bool
    index: LogIndex
    hint_term: Term
    rejected_index: LogIndex
    wants_news: bool = True


@quickly_made
@dataclass(frozen=True, slots=True)
class Heartbeat:
    """Renews leadership; `round` is the ReadIndex round that an answer confirms.

    Round 0 only tells a commit index and wants no answer.
    """

    term: Term
    commit: LogIndex
    """Never above what the receiver is known to hold."""
    round: int
    truncate_to: LogIndex


@quickly_made
@dataclass(frozen=True, slots=True)
class HeartbeatResponse:
    """Answer to a `Heartbeat`; repeats its round."""

    term: Term
    round: int


@dataclass(frozen=True, slots=True)
class TimeoutNow:
    """The leader asks the receiver to campaign at once."""

    term: Term


@dataclass(frozen=True, slots=True)
class Quiesce:
    """The leader sleeps from now on, and a receiver that is where it is may do so too; wants no answer."""

    term: Term
    last_index: LogIndex
    """Of the leader's log; all of it is committed."""


@dataclass(frozen=True, slots=True)
class SnapshotId:
    """One attempt to send one snapshot. No two attempts share an id, so their chunks never mix."""

    term: Term
    """Of the leader that sends it. There is one leader in a term, and it leads once."""
    attempt: int
    """Rises with each attempt of that leader."""
    index: LogIndex
    """The snapshot reflects the log up to here."""
    index_term: Term


@dataclass(frozen=True, slots=True)
class SnapshotChunk:
    """A piece of a snapshot, with all that is needed to install it once its last piece is there."""

    id: SnapshotId
    configuration: Configuration
    """As of `id.index`."""
    timestamp: Timestamp
    """No timestamp in the log up to `id.index` is larger."""
    with_state: bool
    """False: for a witness, which gets index, term and configuration only."""
    position: int
    """Bytes of the snapshot before this chunk."""
    data: bytes
    """Whole rows (`wire.rows`)."""
    checksum: int
    """CRC32C of the snapshot from its beginning to the end of this chunk."""
    last: bool

    @property
    def end(self) -> int:
        """Bytes of the snapshot up to the end of this chunk."""
        return self.position + len(self.data)


@dataclass(frozen=True, slots=True)
class InstallSnapshot:
    """A chunk for a replica that needs entries which the leader's log no longer holds.

    When all of the snapshot is durable, or if it tells nothing new, the answer is an accepting `AppendResponse`.
    """

    term: Term
    chunk: SnapshotChunk


@dataclass(frozen=True, slots=True)
class SnapshotResponse:
    """Answer to a chunk that is not the last one, or that does not follow what the receiver holds."""

    term: Term
    attempt: int
    position: int
    """Bytes of the snapshot that the receiver holds durably."""


RaftMessage = (
    VoteRequest
    | VoteResponse
    | AppendRequest
    | AppendResponse
    | Heartbeat
    | HeartbeatResponse
    | TimeoutNow
    | Quiesce
    | InstallSnapshot
    | SnapshotResponse
)


@quickly_made
@dataclass(frozen=True, slots=True)
class GroupMessage:
    """A Raft message and the group that it belongs to."""

    group: GroupId
    message: RaftMessage


@dataclass(frozen=True, slots=True)
class NodeHeartbeat:
    """Says for all quiescent groups that sender and receiver share that the sender's node lives.

    `count` and `checksum` are a digest of the quiescent groups that the sender leads with the receiver as a member.
    """

    count: int
    checksum: int
    mismatch: bool
    """The receiver's last digest was not what the sender sleeps under: the receiver is to wake what it leads."""


PeerMessage = GroupMessage | NodeHeartbeat
"""What travels between nodes: about one group, or about the nodes themselves."""


@dataclass(frozen=True, slots=True)
class PeerHello:
    """First frame of a peer stream. The receiver refuses another cluster, protocol, or an outdated incarnation."""

    protocol_version: int
    feature_level: int
    cluster: ClusterId
    node: NodeId
    store: StoreId
    incarnation: Incarnation


@quickly_made
@dataclass(frozen=True, slots=True)
class Envelope:
    """What the host receives from a peer: who sent it, as which store and incarnation, and the messages."""

    sender: NodeId
    store: StoreId
    incarnation: Incarnation
    messages: tuple[PeerMessage, ...]
