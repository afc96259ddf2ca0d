"""The session protocol between the SDK and a node: its messages.

One bidirectional stream for each (client, node). The client opens it with `ClientHello`; the node answers
`NodeHello`, which tells the leaders that it knows, and later pushes `LeaderChanged` whenever one of its groups
changes leader, so that clients need not poll. Requests are answered in any order; `request` ties an answer to
its request.

Links may lose frames without a reset, so a client that has heard nothing for a while sends a `Ping`. The node
answers at once: first a `LeaderChanged` for each of its groups, as at the start of a stream (a lost push is made
good that way), then the `Pong`. A client that gets no sign of life opens the stream anew.

A watch is a conversation of its own within the stream: `WatchCreate`, then batches that are numbered. A lost batch
shows in the next one's number, or in the `WatchProgress` before the next `Pong`; the client then watches anew from what
it was told last.

How they become bytes is the business of `wire.session_codec`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from isochrone.ids import ClusterId, GroupId, KeyspaceId, NodeId, Term
from isochrone.records import quickly_made

QUERIES_MAX = 512
"""Most queries of one `ReadsRequest`."""
WRITE_COMMANDS_MAX = 512
"""Most commands of one `WriteRequest`."""
TIMEOUT_MS_MAX = 3_600_000
"""A request with a longer deadline counts as one with this; a client that waits longer sends it again."""
WRITE_BYTES_MAX = 1 << 20
"""Most bytes of the commands of one `WriteRequest`, if it has more than one."""


@dataclass(frozen=True, slots=True)
class ClientHello:
    """First message of a client. Region and zone say where it runs; links are shaped by them."""

    protocol_version: int
    region: str
    zone: str
    client: str
    """A name for logs and metrics."""


@dataclass(frozen=True, slots=True)
class LeaderChanged:
    """A node's view of who leads a group; None while it knows no leader. A higher term is newer."""

    group: GroupId
    term: Term
    leader: NodeId | None
    version: int = 0
    """Of the group's route at that node (`KeyspaceRoute.version`). A client that knows an older one asks for it."""


@dataclass(frozen=True, slots=True)
class NodeHello:
    """Answer to `ClientHello`."""

    protocol_version: int
    cluster: ClusterId
    node: NodeId
    region: str
    zone: str


Place = tuple[str, str, str]
"""Address (`host:port`), region and zone of a node."""


@dataclass(frozen=True, slots=True)
class KeyspaceRoute:
    """Where the keys of one keyspace live: its group and the group's replicas with their addresses."""

    keyspace: KeyspaceId
    prefix: bytes
    group: GroupId
    replicas: tuple[tuple[NodeId, str, str, str, str], ...]
    """(node, address, region, zone, role) of each replica."""
    version: int = 0
    """A log index as of which the replicas are those of the group's last final configuration; a higher one is newer.
    0: those of the topology."""


@dataclass(frozen=True, slots=True)
class DirectoryRequest:
    """Asks for the routes of all keyspaces."""

    request: int


@dataclass(frozen=True, slots=True)
class DirectoryResponse:
    """The routes of all keyspaces."""

    request: int
    routes: tuple[KeyspaceRoute, ...]


@quickly_made
@dataclass(frozen=True, slots=True)
class WriteRequest:
    """Commands for a group's leader: those that a client began in one turn of its loop, so each costs little.

    One alone may have as many bytes as a command may; several have at most `WRITE_BYTES_MAX` together.
    """

    requests: tuple[int, ...]
    """One for each command."""
    group: GroupId
    keyspace: KeyspaceId
    timeout_ms: int
    """What is left of the client's deadline; a node never proposes the commands later than that."""
    trace: bytes
    """The trace context of the first of them that has one, or empty."""
    commands: tuple[bytes, ...]
    """Encoded by `wire.commands`."""


@quickly_made
@dataclass(frozen=True, slots=True)
class WriteAnswer:
    """Results of commands of one `WriteRequest`, and the replica and revision that they come from."""

    requests: tuple[int, ...]
    node: NodeId
    revision: int
    payloads: tuple[bytes, ...]
    """For each request an encoded `commands.Result`."""


@quickly_made
@dataclass(frozen=True, slots=True)
class ReadRequest:
    """A linearizable query for a group's leader. `query` is encoded by `wire.commands`."""

    request: int
    group: GroupId
    keyspace: KeyspaceId
    timeout_ms: int
    query: bytes


@quickly_made
@dataclass(frozen=True, slots=True)
class ReadsRequest:
    """Queries that wait for nothing, to be answered from one state: those that a client began in one turn of its loop.

    Linearizable ones for a group's leader, or, if `applied`, for any replica: answered from what it has applied, which
    may be old.
    """

    request: int
    group: GroupId
    keyspace: KeyspaceId
    timeout_ms: int
    applied: bool
    queries: tuple[bytes, ...]
    """At most `QUERIES_MAX`, encoded by `wire.commands`."""


@quickly_made
@dataclass(frozen=True, slots=True)
class ReadsAnswer:
    """Results of the first queries of a `ReadsRequest`: of all, or of as many as fit. The rest is asked for again."""

    request: int
    node: NodeId
    revision: int
    age_ms: int | None
    """If `applied`: they show every write that was acknowledged so long before they were made, or longer; None if that
    is not known."""
    payloads: tuple[bytes, ...]
    """Encoded `commands.Result`s, empty for a query that failed."""
    errors: tuple[tuple[int, str, str], ...]
    """Place, class and text of the error of each query that failed; none of them says whom else to ask."""


@quickly_made
@dataclass(frozen=True, slots=True)
class Answer:
    """A result, and the replica and revision that it comes from."""

    request: int
    node: NodeId
    revision: int
    payload: bytes
    """An encoded `commands.Result`."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """An error. `error` names a class in `isochrone.errors`, which says whether the request may have had effect."""

    request: int
    node: NodeId
    error: str
    text: str
    leader: NodeId | None
    """For `NotLeader`: who leads, if known."""
    stored: bool = False
    """The group has stored it as what came of the command: every copy of the command ends with it."""


@dataclass(frozen=True, slots=True)
class Ping:
    """Asks for a sign of life, and for the leaders that the node knows."""

    request: int


@dataclass(frozen=True, slots=True)
class Pong:
    """Answer to a `Ping`; it follows a `LeaderChanged` for each group of the node."""

    request: int


@dataclass(frozen=True, slots=True)
class WatchCreate:
    """Watch a group at this node, which need not lead it. Answered by what the watch is told, or by `WatchEnded`."""

    watch: int
    """A number of the client's choice, used once in a stream."""
    group: GroupId
    key: bytes
    range_end: bytes
    start_revision: int
    """0 for whatever is written from now on."""
    prev_kv: bool
    puts: bool
    deletes: bool


@dataclass(frozen=True, slots=True)
class WatchCancel:
    """Watch no more; wants no answer."""

    watch: int


@quickly_made
@dataclass(frozen=True, slots=True)
class WatchEvents:
    """What was written, in order, for one or more watches of the stream."""

    watches: tuple[tuple[int, int], ...]
    """The number of each watch, and of this batch among those that it was told: from 1 on, so that a lost one is
    noticed."""
    revision: int
    """Of the group when the batch was made."""
    fragment: bool
    """More of the last record's revision follows."""
    records: tuple[bytes, ...]
    """See `wire.records`."""
    previous: tuple[bytes | None, ...]
    """For each record the version before it, if that was asked for; else empty."""


@dataclass(frozen=True, slots=True)
class WatchProgress:
    """A watch exists, and `sequence` batches were sent. Told when it begins, and before each `Pong`."""

    watch: int
    sequence: int
    revision: int
    """Everything up to this revision is in those batches; 0 if there is more to come."""


@dataclass(frozen=True, slots=True)
class WatchEnded:
    """The node watches no more. `error` names a class in `isochrone.errors`."""

    watch: int
    error: str
    text: str
    compacted: int
    """If what the watch was to see is compacted: the revision from which on it can be seen; else 0."""


SessionMessage = (
    ClientHello
    | NodeHello
    | LeaderChanged
    | DirectoryRequest
    | DirectoryResponse
    | WriteRequest
    | WriteAnswer
    | ReadRequest
    | ReadsRequest
    | Answer
    | ReadsAnswer
    | Refusal
    | Ping
    | Pong
    | WatchCreate
    | WatchCancel
    | WatchEvents
    | WatchProgress
    | WatchEnded
)


class ClientSession(Protocol):
    """One connected client, as its node sees it."""

    def send(self, message: SessionMessage) -> None:
        """Queue a message; never blocks."""

    @property
    def backlog_bytes(self) -> int:
        """About how many bytes wait for the client."""

    def call_when_drained(self, resume: Callable[[], None]) -> None:
        """Call back once when little waits for the client, after some of it has gone out. The last caller counts."""
