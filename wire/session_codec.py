"""The frames of the session protocol: how its messages become bytes, and what is let in of those that come.

A frame is a msgpack array of messages `[tag, field, …]`: what has gathered in one turn of the sender's loop. Frames
are self-delimiting, so a stream joins those that wait while its previous write is pending.
"""

from collections.abc import Iterable
from typing import Any

import msgpack

from isochrone.wire.codec import FRAME_BYTES_MAX, MalformedFrame
from isochrone.wire.pack import pack
from isochrone.wire.session import (
    QUERIES_MAX,
    WRITE_BYTES_MAX,
    WRITE_COMMANDS_MAX,
    Answer,
    ClientHello,
    DirectoryRequest,
    DirectoryResponse,
    KeyspaceRoute,
    LeaderChanged,
    NodeHello,
    Ping,
    Pong,
    ReadRequest,
    ReadsAnswer,
    ReadsRequest,
    Refusal,
    SessionMessage,
    WatchCancel,
    WatchCreate,
    WatchEnded,
    WatchEvents,
    WatchProgress,
    WriteAnswer,
    WriteRequest,
)

FRAME_MESSAGES_MAX = 1 << 18
"""Most messages that come together. Many more than an outbox joins; a flood of tiny ones would hold the node up."""

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
