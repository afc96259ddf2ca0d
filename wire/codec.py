"""Peer frames: Raft messages to bytes and back.

A frame on a peer stream is a msgpack value `[incarnation, message, …]`; a message is `[tag, group, field, …]`.
Entries inside append requests travel in their stored form (`wire.entries`). Frames are self-delimiting, so a
stream may join several into one gRPC message. The sender's name and store are known from the stream's
`PeerHello`.
"""

from collections.abc import Iterable
from typing import Any

import msgpack

from isochrone.errors import InvalidRequest
from isochrone.ids import ClusterId, GroupId, Incarnation, NodeId, StoreId
from isochrone.wire.entries import decode_entry
from isochrone.wire.messages import (
    AppendRequest,
    AppendResponse,
    GroupMessage,
    Heartbeat,
    HeartbeatResponse,
    PeerHello,
    RaftMessage,
    TimeoutNow,
    VoteRequest,
    VoteResponse,
)
from isochrone.wire.pack import pack

_TAG_BY_TYPE: dict[type[Any], int] = {
    VoteRequest: 1,
    VoteResponse: 2,
    AppendRequest: 3,
    AppendResponse: 4,
    Heartbeat: 5,
    HeartbeatResponse: 6,
    TimeoutNow: 7,
}
_TYPE_BY_TAG = {tag: cls for cls, tag in _TAG_BY_TYPE.items()}

FRAME_BYTES_MAX = 64 << 20


class MalformedFrame(InvalidRequest):
    """Bytes from a stream that are not a frame of this protocol: the sender's fault."""


def encode_hello(hello: PeerHello) -> bytes:
    """Encode the first frame of a peer stream."""
    return pack(
        (
            hello.protocol_version,
            hello.feature_level,
            hello.cluster,
            hello.node,
            hello.store,
            hello.incarnation,
        )
    )


def decode_hello(data: bytes) -> PeerHello:
    """Parse the first frame of a peer stream. Raises `MalformedFrame`."""
    try:
        version, level, cluster, node, store, incarnation = msgpack.unpackb(data)
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise MalformedFrame("the first frame of a peer stream is not a hello") from error
    return PeerHello(version, level, ClusterId(cluster), NodeId(node), StoreId(store), Incarnation(incarnation))


def encode_frame(incarnation: Incarnation, messages: Iterable[GroupMessage]) -> bytes:
    """Encode messages to one peer as one frame."""
    return pack([incarnation, *(_pack(item.group, item.message) for item in messages)])


def decode_frames(data: bytes) -> list[tuple[Incarnation, tuple[GroupMessage, ...]]]:
    """Parse one or more joined frames.

    Raises:
        MalformedFrame: the bytes are not frames of this protocol.
        CorruptEntry: an entry inside does not match its checksum.
    """
    unpacker = msgpack.Unpacker(use_list=True, max_buffer_size=FRAME_BYTES_MAX)
    frames = []
    try:
        unpacker.feed(data)
        for incarnation, *messages in unpacker:
            frames.append((Incarnation(incarnation), tuple(_unpack(item) for item in messages)))
    except (ValueError, TypeError, KeyError, msgpack.UnpackException, msgpack.BufferFull) as error:
        raise MalformedFrame(f"malformed peer frame of {len(data)} bytes") from error
    return frames


def _pack(group: GroupId, message: RaftMessage) -> tuple[Any, ...]:
    tag = _TAG_BY_TYPE[type(message)]
    match message:
        case AppendRequest(term, previous_index, previous_term, entries, commit, truncate_to):
            encoded = [entry.encoded for entry in entries]
            return (tag, group, term, previous_index, previous_term, encoded, commit, truncate_to)
        case AppendResponse(term, accepted, index, hint_term, rejected_index):
            return (tag, group, term, accepted, index, hint_term, rejected_index)
        case Heartbeat(term, commit, round_, truncate_to):
            return (tag, group, term, commit, round_, truncate_to)
        case HeartbeatResponse(term, round_):
            return (tag, group, term, round_)
        case VoteRequest(term, last_index, last_term, pre, transfer):
            return (tag, group, term, last_index, last_term, pre, transfer)
        case VoteResponse(term, granted, pre):
            return (tag, group, term, granted, pre)
        case TimeoutNow(term):
            return (tag, group, term)


def _unpack(fields: list[Any]) -> GroupMessage:
    tag, group, *rest = fields
    cls = _TYPE_BY_TAG[tag]
    if cls is AppendRequest:
        rest[3] = tuple(decode_entry(encoded) for encoded in rest[3])
    return GroupMessage(GroupId(group), cls(*rest))
