"""The stored form of everything but log entries (those are stored as `wire.entries` encodes them).

One environment holds these databases:

- `meta`: small records, each a CRC32C (4 bytes, big-endian) and a msgpack value. The key is a kind, then what it is
  about; see the `*_key` functions. The checksum covers the key too, so a record under a wrong key is noticed.
- `log/N`: entries of group number N, by index (8 bytes, big-endian, so the order of bytes is that of indexes).
- `rows`: rows by group number, generation (`snapshot_bounds`), keyspace, table and key, in that order; each a CRC32C
  and the value. That checksum covers the key, too.

Groups are numbered as they are made. A keyspace ends with 00 01 and a 00 within it is written 00 FF, which keeps the
order of keyspaces and makes no key the beginning of another keyspace's.

LMDB allows keys of 511 bytes. A longer row key is cut, a digest takes the place of what was cut off, and the cut part
stands before the value; only such keys have exactly 511 bytes. Rows under cut keys may be out of order among
themselves, so readers sort.
"""

import hashlib
import struct
from collections.abc import Iterable, Iterator
from typing import cast

import google_crc32c
import msgpack

from isochrone.errors import StorageError
from isochrone.ids import GroupId, KeyspaceId, LogIndex, NodeId
from isochrone.ports import Row
from isochrone.wire.pack import pack

FORMAT_VERSION = 3
STORE_KEY = b"store"
INCARNATION_KEY = b"incarnation"

KEY_BYTES_MAX = 511
_DIGEST_BYTES = 32
_CUT = KEY_BYTES_MAX - _DIGEST_BYTES

_NUMBER = struct.Struct(">I")
_INDEX = struct.Struct(">Q")
_GENERATION = struct.Struct(">II")
_CRC = struct.Struct(">I")
_TAIL = struct.Struct(">H")

index_key = _INDEX.pack
"""Key of an entry in its group's log."""


def index_of(key: bytes) -> LogIndex:
    """Back from `index_key`."""
    return LogIndex(_INDEX.unpack(key)[0])


def log_name(number: int) -> bytes:
    """Name of the database that holds the log of a group."""
    return b"log/%d" % number


def peer_key(node: NodeId) -> bytes:
    """Record: the highest incarnation seen of a peer."""
    return b"peer/" + node.encode()


def group_key(number: int) -> bytes:
    """Record: name of a group, and its configuration as of the entry before the first one held."""
    return b"group/" + _NUMBER.pack(number)


def hard_state_key(number: int) -> bytes:
    """Record: term, vote and commit of a group."""
    return b"hard/" + _NUMBER.pack(number)


def applied_key(number: int) -> bytes:
    """Record: index up to which a group's rows reflect its log."""
    return b"applied/" + _NUMBER.pack(number)


def truncated_key(number: int) -> bytes:
    """Record: index and term of the entry before the first one held."""
    return b"truncated/" + _NUMBER.pack(number)


def generation_key(number: int) -> bytes:
    """Record: generation of a group's rows in force, the highest one ever used, and the base timestamp."""
    return b"generation/" + _NUMBER.pack(number)


def staged_key(number: int) -> bytes:
    """Record: the snapshot that is staged."""
    return b"staged/" + _NUMBER.pack(number)


def run_prefix(number: int) -> bytes:
    """What the keys of a group's term runs begin with."""
    return b"run/" + _NUMBER.pack(number)


def run_key(number: int, first: LogIndex) -> bytes:
    """Record: term of the run of entries that starts at `first`."""
    return run_prefix(number) + _INDEX.pack(first)


def number_of(key: bytes) -> int:
    """The group number in a `group_key`."""
    return int(_NUMBER.unpack(key[-4:])[0])


def configuration_prefix(number: int) -> bytes:
    """What the keys of the configurations in a group's log begin with."""
    return b"configuration/" + _NUMBER.pack(number)


def configuration_key(number: int, index: LogIndex) -> bytes:
    """Record: the configuration that the entry at `index` holds."""
    return configuration_prefix(number) + _INDEX.pack(index)


def encode_record(key: bytes, value: object) -> bytes:
    """A value of plain types, as stored under `key`."""
    body = pack(value)
    return _CRC.pack(_checksum(key, body)) + body


def decode_record(key: bytes, stored: bytes) -> object:
    """Back from `encode_record`.

    Raises:
        StorageError: the record is damaged.
    """
    body = stored[_CRC.size :]
    if len(stored) < _CRC.size or _CRC.unpack_from(stored)[0] != _checksum(key, body):
        raise StorageError(f"record {key!r} does not match its checksum")
    return cast("object", msgpack.unpackb(body, use_list=False))


def rows_prefix(number: int, generation: int) -> bytes:
    """What the keys of one generation of a group's rows begin with."""
    return _GENERATION.pack(number, generation)


def generation_of(stored_key: bytes) -> tuple[int, int]:
    """Group number and generation of a row."""
    number, generation = _GENERATION.unpack_from(stored_key)
    return number, generation


def table_prefix(prefix: bytes, keyspace: KeyspaceId, table: int) -> bytes:
    """What the keys of the rows of a table begin with, after their `rows_prefix`."""
    return b"%b%b\0\1%c" % (prefix, keyspace.encode().replace(b"\0", b"\0\xff"), table)


def row_key(prefix: bytes, keyspace: KeyspaceId, table: int, key: bytes) -> bytes:
    """The whole key of a row after its `rows_prefix`. It may be longer than what LMDB allows."""
    return table_prefix(prefix, keyspace, table) + key


def order_of(stored_key: bytes) -> bytes:
    """What of a stored key tells the order of rows; those for which it is equal must be sorted by their whole keys."""
    return stored_key[:_CUT]


def stored_row_key(key: bytes) -> bytes:
    """The key under which the row with this whole key is stored."""
    if len(key) < KEY_BYTES_MAX:
        return key
    return key[:_CUT] + hashlib.sha256(key).digest()


def encode_row(key: bytes, value: bytes) -> bytes:
    """The stored form of a row's value: CRC32C over stored key and the rest; the part of the key cut off; the value."""
    if len(key) < KEY_BYTES_MAX:
        return _CRC.pack(google_crc32c.value(key + value)) + value
    body = _TAIL.pack(len(key) - _CUT) + key[_CUT:] + value
    return _CRC.pack(_checksum(stored_row_key(key), body)) + body


def decode_row(group: GroupId, stored_key: bytes, stored: bytes) -> Row:
    """A row from its stored key and value.

    Raises:
        StorageError: the row is damaged.
    """
    body = _checked(group, stored_key, stored)
    key, value = stored_key, body
    if len(stored_key) == KEY_BYTES_MAX:
        start = _TAIL.size + _TAIL.unpack_from(body)[0]
        key, value = stored_key[:_CUT] + body[_TAIL.size : start], body[start:]
    end = key.index(b"\0\1", _GENERATION.size)
    keyspace = key[_GENERATION.size : end].replace(b"\0\xff", b"\0").decode()
    return Row(group, KeyspaceId(keyspace), key[end + 2], key[end + 3 :], value)


def decode_rows(group: GroupId, items: Iterable[tuple[bytes, bytes]]) -> Iterator[Row]:
    """Rows from stored keys and values, for less than `decode_row` for each if many of a table follow one another.

    Raises:
        StorageError: a row is damaged.
    """
    head, before = b"", None
    for stored_key, stored in items:
        if before is not None and stored_key.startswith(head) and len(stored_key) < KEY_BYTES_MAX:
            key = stored_key[len(head) :]
            yield Row(group, before.keyspace, before.table, key, _checked(group, stored_key, stored))
            continue
        row = decode_row(group, stored_key, stored)
        if len(stored_key) < KEY_BYTES_MAX:
            head, before = stored_key[: len(stored_key) - len(row.key)], row
        yield row


def _checked(group: GroupId, stored_key: bytes, stored: bytes) -> bytes:
    """What stands behind the checksum of a row."""
    body = stored[_CRC.size :]
    if len(stored) < _CRC.size or _CRC.unpack_from(stored)[0] != _checksum(stored_key, body):
        raise StorageError(f"group {group}: the row under {stored_key!r} does not match its checksum")
    return body


def _checksum(key: bytes, body: bytes) -> int:
    return int(google_crc32c.value(key + body))
