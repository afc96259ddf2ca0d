"""A record: one version of one key, in the one form that it has everywhere.

A replica makes a record once, when it applies the write. The same bytes are the row in its store, the state in its
memory, the event that watchers get and the item in the answer to a read. Nothing but the reader at the end takes it
apart.

Layout, big-endian: mod revision (8 bytes), place among the writes of that revision (4), 1 for a set key or 0 for a
tombstone (1), create revision (8), version (8), commit timestamp (8), lease (8), key length (2), key, value. The first
12 bytes order records as they were written. A tombstone has create revision and version 0, and no value.
"""

import struct
from dataclasses import dataclass
from typing import cast

from isochrone.ids import Revision, Timestamp
from isochrone.records import quickly_made

_HEAD = struct.Struct(">QIBQQQQH")
_U64 = struct.Struct(">Q")
_LINEAGE = struct.Struct(">QQ8xQ")
_LINEAGE_AT = 13
_KEY_AT = _HEAD.size
_TIMESTAMP_AT = 29
_LEASE_AT = 37
_NO_LEASE = bytes(8)
RECORD_HEAD_BYTES = _HEAD.size
ORDER_BYTES = 12
"""So many first bytes of a record order it among all others."""
LIVE_AT = 12
"""Where a record has 1 if it sets its key, and 0 if not: for code that looks at very many; else `record_is_live`."""


@quickly_made
@dataclass(frozen=True, slots=True)
class KeyValue:
    """One version of one key."""

    key: bytes
    value: bytes
    create_revision: Revision
    """Revision at which the key was last created; 0 for a tombstone."""
    mod_revision: Revision
    version: int
    """How many times the key was set since it was created; 1 for the first, 0 for a tombstone."""
    timestamp: Timestamp
    """Commit timestamp of the change."""
    lease: int = 0
    """The lease that the key hangs on; 0 for none."""


def set_record(
    key: bytes, value: bytes, revision: int, place: int, created: int, version: int, timestamp: int, lease: int
) -> bytes:
    """The record of a key that was set."""
    return _HEAD.pack(revision, place, 1, created, version, timestamp, lease, len(key)) + key + value


def tombstone_record(key: bytes, *, revision: int, place: int, timestamp: int) -> bytes:
    """The record of a key that was removed."""
    return _HEAD.pack(revision, place, 0, 0, 0, timestamp, 0, len(key)) + key


def record_is_live(record: bytes) -> bool:
    """Whether the record sets its key."""
    return record[LIVE_AT] == 1


def record_key(record: bytes) -> bytes:
    """The key."""
    return record[_KEY_AT : _KEY_AT + int.from_bytes(record[_KEY_AT - 2 : _KEY_AT], "big")]


def record_value(record: bytes) -> bytes:
    """The value."""
    return record[_KEY_AT + int.from_bytes(record[_KEY_AT - 2 : _KEY_AT], "big") :]


def record_without_value(record: bytes) -> bytes:
    """The same record with an empty value."""
    return record[: _KEY_AT + int.from_bytes(record[_KEY_AT - 2 : _KEY_AT], "big")]


def record_revision(record: bytes) -> int:
    """The mod revision."""
    return int.from_bytes(record[:8], "big")


def record_timestamp(record: bytes) -> int:
    """The commit timestamp."""
    return cast("int", _U64.unpack_from(record, _TIMESTAMP_AT)[0])


def record_lease(record: bytes) -> int:
    """The lease, 0 for none."""
    lease = record[_LEASE_AT : _LEASE_AT + 8]
    return 0 if lease == _NO_LEASE else int.from_bytes(lease, "big")


def record_lineage(record: bytes) -> tuple[int, int, int]:
    """What the key's next version needs of this one: create revision, version and lease."""
    created, version, lease = _LINEAGE.unpack_from(record, _LINEAGE_AT)
    return created, version, lease


def record_versions(record: bytes) -> tuple[int, int, int]:
    """Create revision, mod revision and version."""
    revision, _, _, created, version, _, _, _ = _HEAD.unpack_from(record)
    return created, revision, version


def decode_record(record: bytes) -> KeyValue:
    """Take a record apart."""
    revision, _, _, created, version, timestamp, lease, key_bytes = _HEAD.unpack_from(record)
    value_at = _KEY_AT + key_bytes
    return KeyValue(
        record[_KEY_AT:value_at],
        record[value_at:],
        Revision(created),
        Revision(revision),
        version,
        Timestamp(timestamp),
        lease,
    )
