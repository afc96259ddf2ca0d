"""Peer frames: Raft messages to bytes and back.

A frame on a peer stream is a msgpack value `[incarnation, message, …]`; a message is `[tag, group, field, …]`. What is
about the nodes themselves has the empty name for a group.
Entries inside append requests travel in their stored form (`wire.entries`). Frames are self-delimiting, so a
stream may join several into one gRPC message. The sender's name and store are known from the stream's
`PeerHello`.

What arrives is checked down to the type and range of every field, and the entries of a request to be a piece of a
log, so nothing but well-formed messages reaches the core: there a violated invariant stops the node.
"""

from collections.abc import Iterable
from typing import Any

import msgpack

from isochrone.errors import InvalidRequest
from isochrone.ids import ClusterId, GroupId, Incarnation, LogIndex, NodeId, StoreId, Term, Timestamp
from isochrone.wire.configurations import (
    check_configuration,
    configuration_from_plain,
    configuration_to_plain,
    decode_configuration,
)
from isochrone.wire.entries import decode_entry
from isochrone.wire.messages import (
    AppendRequest,
    AppendResponse,
    EntryKind,
    GroupMessage,
    Heartbeat,
    HeartbeatResponse,
    InstallSnapshot,
    NodeHeartbeat,
    PeerHello,
    PeerMessage,
    Quiesce,
    RaftMessage,
    SnapshotChunk,
    SnapshotId,
    SnapshotResponse,
    TimeoutNow,
    VoteRequest,
    VoteResponse,
)
from isochrone.wire.pack import pack
from isochrone.wire.rows import decode_rows

_FORMS: dict[int, tuple[type[Any], tuple[type, ...]]] = {
    1: (VoteRequest, (int, int, int, bool, bool)),
    2: (VoteResponse, (int, bool, bool)),
    3: (AppendRequest, (int, int, int, list, int, int)),
    4: (AppendResponse, (int, bool, int, int, int, bool)),
    5: (Heartbeat, (int, int, int, int)),
    6: (HeartbeatResponse, (int, int)),
    7: (TimeoutNow, (int,)),
    8: (Quiesce, (int, int)),
    9: (NodeHeartbeat, (int, int, bool)),
    10: (InstallSnapshot, (int, int, int, int, int, list, int, bool, int, bytes, int, bool)),
    11: (SnapshotResponse, (int, int, int)),
}
"""Class and types of the fields by tag. Tags are never given a second meaning."""
_TAG_BY_TYPE = {cls: tag for tag, (cls, _) in _FORMS.items()}

FRAME_BYTES_MAX = 16 << 20
"""Most bytes of one gRPC message: some times the largest entry, and no more than a node can unpack at leisure."""
_NUMBER_MAX = (1 << 63) - 1


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
    """Parse the first frame of a peer stream. Raises `MalformedFrame`.

    Fields that a later protocol version may have added are ignored, so that the version itself can be refused.
    """
    try:
        fields = msgpack.unpackb(data, use_list=False)
        version, level, cluster, node, store, incarnation = fields[:6]
    except (ValueError, TypeError, KeyError, msgpack.UnpackException) as error:
        raise MalformedFrame("the first frame of a peer stream is not a hello") from error
    match version, level, cluster, node, store, incarnation:
        case int(), int(), str(), str(), str(), int() if 0 <= incarnation <= _NUMBER_MAX:
            return PeerHello(version, level, ClusterId(cluster), NodeId(node), StoreId(store), Incarnation(incarnation))
    raise MalformedFrame("the hello of a peer stream has fields of wrong types or out of range")


def encode_frame(incarnation: Incarnation, messages: Iterable[PeerMessage]) -> bytes:
    """Encode messages to one peer as one frame."""
    return pack([incarnation, *map(_pack, messages)])


def decode_frames(data: bytes) -> list[tuple[Incarnation, tuple[PeerMessage, ...]]]:
    """Parse one or more joined frames.

    Raises:
        MalformedFrame: the bytes are not frames of this protocol, or end within one.
        CorruptEntry: an entry inside does not match its checksum.
    """
    unpacker = msgpack.Unpacker(use_list=True, max_buffer_size=FRAME_BYTES_MAX)
    frames = []
    whole_bytes = 0
    try:
        unpacker.feed(data)
        for incarnation, *messages in unpacker:
            if type(incarnation) is not int or not _in_range(incarnation):
                raise TypeError("incarnation")
            frames.append((Incarnation(incarnation), tuple([_unpack(*item) for item in messages])))
            whole_bytes = unpacker.tell()
    except (ValueError, TypeError, KeyError, InvalidRequest, msgpack.UnpackException) as error:
        raise MalformedFrame(f"malformed peer frame of {len(data)} bytes") from error
    if whole_bytes != len(data):
        raise MalformedFrame(f"peer frames of {len(data)} bytes end within one: the last whole one at {whole_bytes}")
    return frames


def _pack(item: PeerMessage) -> tuple[Any, ...]:
    if isinstance(item, NodeHeartbeat):
        return (_TAG_BY_TYPE[NodeHeartbeat], "", item.count, item.checksum, item.mismatch)
    return _pack_raft(item.group, item.message)


def _pack_raft(group: GroupId, message: RaftMessage) -> tuple[Any, ...]:
    tag = _TAG_BY_TYPE[type(message)]
    match message:
        case AppendRequest(term, previous_index, previous_term, entries, commit, truncate_to):
            encoded = [entry.encoded for entry in entries]
            return (tag, group, term, previous_index, previous_term, encoded, commit, truncate_to)
        case AppendResponse(term, accepted, index, hint_term, rejected_index, wants_news):
            return (tag, group, term, accepted, index, hint_term, rejected_index, wants_news)
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
        case Quiesce(term, last_index):
            return (tag, group, term, last_index)
        case InstallSnapshot(term, chunk):
            return (tag, group, term, *_pack_chunk(chunk))
        case SnapshotResponse(term, attempt, position):
            return (tag, group, term, attempt, position)


def _pack_chunk(chunk: SnapshotChunk) -> tuple[Any, ...]:
    return (
        chunk.id.term,
        chunk.id.attempt,
        chunk.id.index,
        chunk.id.index_term,
        configuration_to_plain(chunk.configuration),
        chunk.timestamp,
        chunk.with_state,
        chunk.position,
        chunk.data,
        chunk.checksum,
        chunk.last,
    )


def _unpack(tag: int, group: str, *fields: Any) -> PeerMessage:
    cls, types = _FORMS[tag]
    if type(group) is not str or tuple(map(type, fields)) != types or not all(map(_in_range, fields)):
        raise TypeError(f"fields of {cls.__name__}")
    if cls is NodeHeartbeat:
        return NodeHeartbeat(*fields)
    if cls is AppendRequest:
        term, previous_index, previous_term, entries, commit, truncate_to = fields
        decoded = tuple([decode_entry(encoded) for encoded in entries])
        request = AppendRequest(term, previous_index, previous_term, decoded, commit, truncate_to)
        _check_entries(request)
        return GroupMessage(GroupId(group), request)
    if cls is InstallSnapshot:
        return GroupMessage(GroupId(group), InstallSnapshot(fields[0], _unpack_chunk(*fields[1:])))
    return GroupMessage(GroupId(group), cls(*fields))


def _unpack_chunk(
    term: int,
    attempt: int,
    index: int,
    index_term: int,
    plain: object,
    timestamp: int,
    with_state: bool,
    position: int,
    data: bytes,
    checksum: int,
    last: bool,
) -> SnapshotChunk:
    """Raise `ValueError` or `InvalidRequest` for a chunk that no leader can have made."""
    configuration = configuration_from_plain(plain)
    check_configuration(configuration)
    if not with_state and (position or data or not last):
        raise ValueError("a snapshot without state has rows")
    for _ in decode_rows(data):
        pass  # whole and well-formed, or it raises
    return SnapshotChunk(
        SnapshotId(Term(term), attempt, LogIndex(index), Term(index_term)),
        configuration,
        Timestamp(timestamp),
        with_state,
        position,
        data,
        checksum,
        last,
    )


def _in_range(field: object) -> bool:
    return not isinstance(field, int) or 0 <= field <= _NUMBER_MAX


def _check_entries(request: AppendRequest) -> None:
    """Raise unless the entries follow one another, and the previous entry, as in a leader's log.

    Raises:
        ValueError: they do not, or one has no configuration where it should.
        InvalidRequest: one has a configuration that no group can have.
    """
    index, term, timestamp = request.previous_index, request.previous_term, 0
    for entry in request.entries:
        if entry.index != index + 1 or not term <= entry.term <= request.term:
            raise ValueError(f"entry {entry.index} of term {entry.term} after {index} of term {term}")
        if entry.timestamp <= timestamp or entry.count < 1:
            raise ValueError(f"timestamps of entry {entry.index}")
        if entry.kind is EntryKind.CONFIGURATION:
            check_configuration(decode_configuration(entry.data))
        index, term, timestamp = entry.index, entry.term, entry.last_timestamp
