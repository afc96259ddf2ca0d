"""The stored and sent form of a log entry: CRC32C (4 bytes, big-endian) of the body, then the body in msgpack.

An entry is encoded once, by the leader that appends it; followers keep the bytes that they received, so the checksum
covers the whole way from the leader's memory to every disk.
"""

import struct
from typing import cast

import google_crc32c
import msgpack

from isochrone.errors import StorageError
from isochrone.ids import KeyspaceId, LogIndex, Term, Timestamp
from isochrone.wire.messages import Entry, EntryKind
from isochrone.wire.pack import pack

_CRC = struct.Struct(">I")

_Body = tuple[int, int, int, int, int, str, bytes, bytes]
_BODY_TYPES = (int, int, int, int, int, str, bytes, bytes)


class CorruptEntry(StorageError):
    """An entry's bytes do not match their checksum, or do not have the form of an entry."""


def make_entry(
    *,
    index: LogIndex,
    term: Term,
    kind: EntryKind,
    timestamp: Timestamp,
    count: int = 1,
    keyspace: KeyspaceId = KeyspaceId(""),
    trace: bytes = b"",
    data: bytes = b"",
) -> Entry:
    """Build an entry with its encoded form."""
    body = pack((index, term, int(kind), timestamp, count, keyspace, trace, data))
    encoded = _CRC.pack(google_crc32c.value(body)) + body
    return Entry(index, term, kind, timestamp, count, keyspace, trace, data, encoded)


def decode_entry(encoded: bytes) -> Entry:
    """Parse an entry's encoded form.

    Raises:
        CorruptEntry: the bytes were damaged on their way or on disk.
    """
    body = encoded[4:]
    if len(encoded) < 5 or _CRC.unpack_from(encoded)[0] != google_crc32c.value(body):
        raise CorruptEntry(f"log entry of {len(encoded)} bytes does not match its checksum")
    try:
        fields = cast("_Body", msgpack.unpackb(body, use_list=False))
        if tuple(map(type, fields)) != _BODY_TYPES:
            raise TypeError("fields of an entry")
        index, term, kind, timestamp, count, keyspace, trace, data = fields
        return Entry(
            LogIndex(index),
            Term(term),
            EntryKind(kind),
            Timestamp(timestamp),
            count,
            KeyspaceId(keyspace),
            trace,
            data,
            encoded,
        )
    except (ValueError, TypeError) as error:
        raise CorruptEntry("log entry has a valid checksum but not the form of an entry") from error
