"""Rows of a group's state as bytes: what the chunks of a snapshot hold.

Each row is one msgpack value `[keyspace, table, key, value]`; rows follow one another, and a chunk holds whole rows.
"""

from collections.abc import Iterator
from typing import cast

import msgpack

from isochrone.ids import KeyspaceId
from isochrone.wire.pack import pack

_FIELD_TYPES = (str, int, bytes, bytes)
TABLE_MAX = 255


def encode_row(keyspace: KeyspaceId, table: int, key: bytes, value: bytes) -> bytes:
    """One row."""
    return pack((keyspace, table, key, value))


def decode_rows(data: bytes) -> Iterator[tuple[KeyspaceId, int, bytes, bytes]]:
    """The rows in `data`: keyspace, table, key and value of each. Raises `ValueError` if it is anything else."""
    unpacker = msgpack.Unpacker(use_list=False, max_buffer_size=max(1, len(data)))
    unpacker.feed(data)
    whole_bytes = 0
    try:
        for row in unpacker:
            if type(row) is not tuple or tuple(map(type, row)) != _FIELD_TYPES or not 0 <= row[1] <= TABLE_MAX:
                raise ValueError("a row of a snapshot has fields of wrong types")
            whole_bytes = unpacker.tell()
            yield cast("tuple[KeyspaceId, int, bytes, bytes]", row)
    except msgpack.UnpackException as error:
        raise ValueError("the rows of a snapshot are malformed") from error
    if whole_bytes != len(data):
        raise ValueError(f"the rows of a snapshot end at byte {whole_bytes} of {len(data)}")
