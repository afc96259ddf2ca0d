"""The session protocol between the SDK and a node: messages and their frames.

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

A frame is a msgpack array of messages `[tag, field, …]`: what has gathered in one turn of the sender's loop. Frames
are self-delimiting, so a stream joins those that wait while its previous write is pending.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import msgpack

from isochrone.ids import ClusterId, GroupId, KeyspaceId, NodeId, Term
from isochrone.records import quickly_made
from isochrone.wire.codec import FRAME_BYTES_MAX, MalformedFrame
from isochrone.wire.pack import pack


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


FRAME_MESSAGES_MAX = 1 << 18
"""Most messages that come together. Many more than an outbox joins; a flood of tiny ones would hold the node up."""

QUERIES_MAX = 512
"""Most queries of one `ReadsRequest`."""
WRITE_COMMANDS_MAX = 512
"""Most commands of one `WriteRequest`."""
TIMEOUT_MS_MAX = 3_600_000
"""A request with a longer deadline counts as one with this; a client that waits longer sends it again."""
WRITE_BYTES_MAX = 1 << 20
"""Most bytes of the commands of one `WriteRequest`, if it has more than one."""

_NODE_OR_NONE = (str, type(None))
_INT_OR_NONE = (int, type(None))
_FORMS: dict[int, tuple[type[Any], tuple[type | tuple[type, ...], ...]]] = {
    1: (ClientHello, (int, str, str, str)),
    2: (NodeHello, (int, str, str, str, str)),
    3: (LeaderChanged, (str, int, _NODE_OR_NONE, int)),
    4: (DirectoryRequest, (int,)),
    5: (DirectoryResponse, (int, tuple)),
    6: (WriteRequest, (tuple, str, str, int, bytes, tuple)),
    7: (ReadRequest, (int, str, str, int, bytes)),
    8: (Answer, (int, str, int, bytes)),
    9: (Refusal, (int, str, str, str, _NODE_OR_NONE, bool)),
    10: (Ping, (int,)),
    11: (Pong, (int,)),
    12: (WatchCreate, (int, str, bytes, bytes, int, bool, bool, bool)),
    13: (WatchCancel, (int,)),
    14: (WatchEvents, (tuple, int, bool, tuple, tuple)),
    15: (WatchProgress, (int, int, int)),
    16: (WatchEnded, (int, str, str, int)),
    19: (WriteAnswer, (tuple, str, int, tuple)),
    20: (ReadsRequest, (int, str, str, int, bool, tuple)),
    21: (ReadsAnswer, (int, str, int, _INT_OR_NONE, tuple, tuple)),
}
"""Class and types of the fields by tag. Tags are never given a second meaning."""
_ROUTE_FORM = (str, bytes, str, tuple, int)
_REPLICA_FORM = (str, str, str, str, str)


def encode_session_frame(messages: Iterable[SessionMessage]) -> bytes:
    """Encode messages as one frame."""
    return pack([_pack(message) for message in messages])


def session_message_bytes(message: SessionMessage) -> int:
    """About how many bytes a message takes in a frame."""
    match message:
        case WriteRequest(commands=payloads) | WriteAnswer(payloads=payloads):
            return 64 + sum(map(len, payloads)) + 16 * len(payloads)
        case ReadsRequest(queries=payloads):
            return 64 + sum(map(len, payloads)) + 8 * len(payloads)
        case ReadsAnswer(payloads=payloads, errors=errors):
            return 64 + sum(map(len, payloads)) + 8 * len(payloads) + 256 * len(errors)
        case ReadRequest(query=payload) | Answer(payload=payload):
            return 64 + len(payload)
        case WatchEvents(watches, _, _, records, previous):
            told = sum(map(len, records)) + sum(len(record) for record in previous if record is not None)
            return 64 + 10 * len(watches) + told
        case WatchCreate(key=key, range_end=range_end):
            return 64 + len(key) + len(range_end)
        case DirectoryResponse(routes=routes):
            return 64 + 1024 * len(routes)
        case _:
            return 128


def decode_session_frames(data: bytes) -> list[SessionMessage]:
    """Parse one or more joined frames into their messages, in order. Raises `MalformedFrame`."""
    unpacker = msgpack.Unpacker(use_list=False, max_buffer_size=FRAME_BYTES_MAX, max_array_len=FRAME_MESSAGES_MAX)
    messages: list[SessionMessage] = []
    whole_bytes = 0
    try:
        unpacker.feed(data)
        for frame in unpacker:
            if len(messages) + len(frame) > FRAME_MESSAGES_MAX:
                raise ValueError(f"more than {FRAME_MESSAGES_MAX} messages")
            messages.extend([_unpack(*fields) for fields in frame])
            whole_bytes = unpacker.tell()
    except (ValueError, TypeError, KeyError, msgpack.UnpackException) as error:
        raise MalformedFrame(f"malformed session frame of {len(data)} bytes") from error
    if whole_bytes != len(data):
        raise MalformedFrame(f"session frames of {len(data)} bytes end within one: the last whole one at {whole_bytes}")
    return messages


def _pack(message: SessionMessage) -> tuple[object, ...]:
    match message:
        case WriteRequest(requests, group, keyspace, timeout_ms, trace, commands):
            return (6, requests, group, keyspace, timeout_ms, trace, commands)
        case WriteAnswer(requests, node, revision, payloads):
            return (19, requests, node, revision, payloads)
        case Answer(request, node, revision, payload):
            return (8, request, node, revision, payload)
        case ReadRequest(request, group, keyspace, timeout_ms, query):
            return (7, request, group, keyspace, timeout_ms, query)
        case ReadsRequest(request, group, keyspace, timeout_ms, applied, queries):
            return (20, request, group, keyspace, timeout_ms, applied, queries)
        case ReadsAnswer(request, node, revision, age_ms, payloads, errors):
            return (21, request, node, revision, age_ms, payloads, errors)
        case Refusal(request, node, error, text, leader, stored):
            return (9, request, node, error, text, leader, stored)
        case WatchEvents(watches, revision, fragment, records, previous):
            return (14, watches, revision, fragment, records, previous)
        case WatchProgress(watch, sequence, revision):
            return (15, watch, sequence, revision)
        case WatchEnded(watch, error, text, compacted):
            return (16, watch, error, text, compacted)
        case WatchCreate(watch, group, key, range_end, start_revision, prev_kv, puts, deletes):
            return (12, watch, group, key, range_end, start_revision, prev_kv, puts, deletes)
        case WatchCancel(watch):
            return (13, watch)
        case LeaderChanged(group, term, leader, version):
            return (3, group, term, leader, version)
        case Ping(request):
            return (10, request)
        case Pong(request):
            return (11, request)
        case DirectoryRequest(request):
            return (4, request)
        case DirectoryResponse(request, routes):
            return (5, request, [_pack_route(route) for route in routes])
        case ClientHello(protocol_version, region, zone, client):
            return (1, protocol_version, region, zone, client)
        case NodeHello(protocol_version, cluster, node, region, zone):
            return (2, protocol_version, cluster, node, region, zone)


def _pack_route(route: KeyspaceRoute) -> tuple[object, ...]:
    return (route.keyspace, route.prefix, route.group, route.replicas, route.version)


def _unpack(tag: int, *fields: Any) -> SessionMessage:
    cls, types = _FORMS[tag]
    _check_types(fields, types)
    if cls is DirectoryResponse:
        request, routes = fields
        return DirectoryResponse(request, tuple([_unpack_route(*route) for route in routes]))
    if cls is WriteRequest:
        _check_several(fields[0], fields[5])
        if len(fields[5]) > 1 and sum(map(len, fields[5])) > WRITE_BYTES_MAX:
            raise ValueError("too many bytes of commands in one request")
    if cls is ReadsRequest:
        _check_blobs(fields[5], QUERIES_MAX)
    if cls is ReadsAnswer:
        _check_blobs(fields[4], QUERIES_MAX)
        for error in fields[5]:
            _check_types(error, (int, str, str))
    if cls is WriteAnswer:
        _check_several(fields[0], fields[3])
    if cls is WatchEvents:
        _check_watches(fields[0])
        _check_records(*fields[3:])
    message: SessionMessage = cls(*fields)
    return message


def _check_watches(watches: tuple[object, ...]) -> None:
    for pair in watches:
        if not isinstance(pair, tuple):
            raise TypeError("watches of a batch")
        _check_types(pair, (int, int))


def _check_several(requests: tuple[object, ...], contents: tuple[object, ...]) -> None:
    if not 0 < len(requests) == len(contents) <= WRITE_COMMANDS_MAX:
        raise ValueError("numbers of requests and contents")
    if set(map(type, requests)) != {int} or set(map(type, contents)) != {bytes}:
        raise TypeError("requests or contents")


def _check_blobs(blobs: tuple[object, ...], count_max: int) -> None:
    if not 0 < len(blobs) <= count_max or set(map(type, blobs)) != {bytes}:
        raise TypeError("queries, or their results")


def _check_records(records: tuple[object, ...], previous: tuple[object, ...]) -> None:
    if not all(isinstance(record, bytes) for record in records) or len(previous) not in (0, len(records)):
        raise TypeError("records of a watch")
    if not all(isinstance(record, bytes | None) for record in previous):
        raise TypeError("earlier versions of a watch")


def _unpack_route(*fields: Any) -> KeyspaceRoute:
    _check_types(fields, _ROUTE_FORM)
    for replica in fields[3]:
        _check_types(replica, _REPLICA_FORM)
    return KeyspaceRoute(*fields)


def _check_types(values: tuple[object, ...], types: tuple[type | tuple[type, ...], ...]) -> None:
    for value, expected in zip(values, types, strict=True):
        if not isinstance(value, expected):
            raise TypeError(f"{type(value).__name__} where {expected} belongs")
