"""The session protocol between the SDK and a node: messages and their frames.

One bidirectional stream for each (client, node). The client opens it with `ClientHello`; the node answers
`NodeHello`, which tells the leaders that it knows, and later pushes `LeaderChanged` whenever one of its groups
changes leader, so that clients need not poll. Requests are answered in any order; `request` ties an answer to
its request.

Links may lose frames without a reset, so a client that has heard nothing for a while sends a `Ping`. The node
answers at once: first a `LeaderChanged` for each of its groups, as at the start of a stream (a lost push is made
good that way), then the `Pong`. A client that gets no sign of life opens the stream anew.

A frame is a msgpack array of messages `[tag, field, …]`: what has gathered while the previous write was pending.
"""

from collections.abc import Iterable
from dataclasses import astuple, dataclass
from typing import Any

import msgpack

from isochrone.ids import ClusterId, GroupId, KeyspaceId, NodeId, Term
from isochrone.wire.codec import MalformedFrame
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


@dataclass(frozen=True, slots=True)
class NodeHello:
    """Answer to `ClientHello`."""

    protocol_version: int
    cluster: ClusterId
    node: NodeId
    region: str
    zone: str


@dataclass(frozen=True, slots=True)
class KeyspaceRoute:
    """Where the keys of one keyspace live: its group and the group's replicas with their addresses."""

    keyspace: KeyspaceId
    prefix: bytes
    group: GroupId
    replicas: tuple[tuple[NodeId, str, str, str, str], ...]
    """(node, address, region, zone, role) of each replica."""


@dataclass(frozen=True, slots=True)
class DirectoryRequest:
    """Asks for the routes of all keyspaces."""

    request: int


@dataclass(frozen=True, slots=True)
class DirectoryResponse:
    """The routes of all keyspaces."""

    request: int
    routes: tuple[KeyspaceRoute, ...]


@dataclass(frozen=True, slots=True)
class WriteRequest:
    """A command for a group's leader. `command` is encoded by `wire.commands`."""

    request: int
    group: GroupId
    keyspace: KeyspaceId
    timeout_ms: int
    """What is left of the client's deadline; a node never proposes a command later than that."""
    trace: bytes
    command: bytes


@dataclass(frozen=True, slots=True)
class ReadRequest:
    """A linearizable query for a group's leader. `query` is encoded by `wire.commands`."""

    request: int
    group: GroupId
    keyspace: KeyspaceId
    timeout_ms: int
    query: bytes


@dataclass(frozen=True, slots=True)
class Answer:
    """A result, and the replica and revision that it comes from."""

    request: int
    node: NodeId
    revision: int
    payload: bytes
    """An encoded `CommandResult`, or an encoded `KeyValue` or None."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """An error. `error` names a class in `isochrone.errors`, which says whether the request may have had effect."""

    request: int
    node: NodeId
    error: str
    text: str
    leader: NodeId | None
    """For `NotLeader`: who leads, if known."""


@dataclass(frozen=True, slots=True)
class Ping:
    """Asks for a sign of life, and for the leaders that the node knows."""

    request: int


@dataclass(frozen=True, slots=True)
class Pong:
    """Answer to a `Ping`; it follows a `LeaderChanged` for each group of the node."""

    request: int


SessionMessage = (
    ClientHello
    | NodeHello
    | LeaderChanged
    | DirectoryRequest
    | DirectoryResponse
    | WriteRequest
    | ReadRequest
    | Answer
    | Refusal
    | Ping
    | Pong
)

_TAG_BY_TYPE: dict[type[Any], int] = {
    ClientHello: 1,
    NodeHello: 2,
    LeaderChanged: 3,
    DirectoryRequest: 4,
    DirectoryResponse: 5,
    WriteRequest: 6,
    ReadRequest: 7,
    Answer: 8,
    Refusal: 9,
    Ping: 10,
    Pong: 11,
}
_TYPE_BY_TAG = {tag: cls for cls, tag in _TAG_BY_TYPE.items()}


def encode_session_frame(messages: Iterable[SessionMessage]) -> bytes:
    """Encode messages as one frame."""
    return pack([_pack(message) for message in messages])


def decode_session_frame(data: bytes) -> tuple[SessionMessage, ...]:
    """Parse a frame. Raises `MalformedFrame`."""
    try:
        return tuple(_unpack(fields) for fields in msgpack.unpackb(data, use_list=False))
    except (ValueError, TypeError, KeyError, IndexError, msgpack.UnpackException) as error:
        raise MalformedFrame(f"malformed session frame of {len(data)} bytes") from error


def _pack(message: SessionMessage) -> tuple[object, ...]:
    tag = _TAG_BY_TYPE[type(message)]
    match message:
        case WriteRequest(request, group, keyspace, timeout_ms, trace, command):
            return (tag, request, group, keyspace, timeout_ms, trace, command)
        case Answer(request, node, revision, payload):
            return (tag, request, node, revision, payload)
        case _:
            return (tag, *astuple(message))


def _unpack(fields: tuple[Any, ...]) -> SessionMessage:
    cls = _TYPE_BY_TAG[fields[0]]
    if cls is DirectoryResponse:
        return DirectoryResponse(fields[1], tuple(KeyspaceRoute(*route) for route in fields[2]))
    message: SessionMessage = cls(*fields[1:])
    return message
