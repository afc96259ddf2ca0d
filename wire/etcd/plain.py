"""The requests and answers that most of the traffic consists of, taken apart and put together without protobuf.

A put of a value and a read of one key, with nothing else asked for, have few fields, and making a message with a dozen
of them costs more than all else that such a call needs. Whatever has any other form, be it only unusual, is left to
protobuf, so nothing is decided here but what its bytes say plainly. Each answer has exactly the bytes that protobuf
gives it (a test compares them): fields in the order of their numbers, and none that has its default.

This module is pure.
"""

from typing import cast

from isochrone.errors import InvariantViolation
from isochrone.wire.kv import PUT, RANGE, PackedResult
from isochrone.wire.records import record_key, record_lease, record_value, record_versions

PLAIN_BYTES_MAX = 1 << 16
"""Larger requests are left to protobuf: there the cost of a message hardly matters."""
KEPT_ITEMS_MAX, KEPT_ITEM_BYTES_MAX = 1_024, 4_096
"""So many items are kept as they stand in answers, made of records of at most so many bytes."""
_KEY, _VALUE, _SERIALIZABLE = 0x0A, 0x12, b"\x38\x01"
"""Tags of fields 1 and 2, and field 7 of a `RangeRequest` set."""
_VARINT_MORE = 0x80
_SIGN = 1 << 64


def plain_range(data: bytes) -> tuple[bytes, bool] | None:
    """Key and `serializable` of a `RangeRequest` for one key that asks for nothing else; None for any other."""
    if not 2 < len(data) < _VARINT_MORE or data[0] != _KEY:
        return None
    end = 2 + data[1]
    rest = data[end:]
    if end > len(data) or end == 2 or rest not in (b"", _SERIALIZABLE):
        return None
    return data[2:end], bool(rest)


def plain_put(data: bytes) -> tuple[bytes, bytes] | None:
    """Key and value of a `PutRequest` that has nothing else; None for any other."""
    size = len(data)
    if not 4 < size <= PLAIN_BYTES_MAX or data[0] != _KEY or not 0 < data[1] < _VARINT_MORE:
        return None
    at = 2 + data[1]
    if at + 2 > size or data[at] != _VALUE:
        return None
    length, begin = data[at + 1], at + 2
    if length >= _VARINT_MORE:
        if begin >= size or data[begin] >= _VARINT_MORE:
            return None
        length, begin = length & 0x7F | data[begin] << 7, begin + 1
    return (data[2:at], data[begin:]) if begin + length == size else None


class PlainAnswers:
    """Puts together the answers of one endpoint.

    What was put together last is kept: many calls that end together have the same header, and keys that are read often
    are the same version time and again.
    """

    __slots__ = ("_answerer", "_header", "_header_of", "_items")

    def __init__(self, cluster_id: int, member_id: int) -> None:
        self._answerer = _number(1, cluster_id) + _number(2, member_id)
        self._header = b""
        self._header_of = (-1, -1)
        self._items: dict[bytes, bytes] = {}
        """By record."""

    def answer(self, packed: PackedResult, term: int) -> bytes:
        """The answer to a plain put or read."""
        header = self._header_at(cast("int", packed[1]), term)
        if packed[0] == PUT:
            return header
        if packed[0] != RANGE:
            raise InvariantViolation(f"a plain request had a result of tag {packed[0]!r}")
        for record in cast("tuple[bytes, ...]", packed[5]):  # one at most
            header += self._items.get(record) or self._item(record)
        return header + _number(4, cast("int", packed[3]))

    def _header_at(self, revision: int, term: int) -> bytes:
        """Field 1 of an answer."""
        if self._header_of != (revision, term):
            self._header = _bytes(1, self._answerer + _number(3, revision) + _number(4, term))
            self._header_of = (revision, term)
        return self._header

    def _item(self, record: bytes) -> bytes:
        """Field 2 of an answer."""
        created, modified, version = record_versions(record)
        value = record_value(record)
        item = _bytes(
            2,
            _bytes(1, record_key(record))
            + _number(2, created)
            + _number(3, modified)
            + _number(4, version)
            + (_bytes(5, value) if value else b"")
            + _number(6, record_lease(record)),
        )
        if len(record) <= KEPT_ITEM_BYTES_MAX:
            if len(self._items) >= KEPT_ITEMS_MAX:
                self._items.clear()
            self._items[record] = item
        return item


def _bytes(field: int, data: bytes) -> bytes:
    size = len(data)
    if size < _VARINT_MORE:
        return bytes((field << 3 | 2, size)) + data
    return bytes((field << 3 | 2,)) + _varint(size) + data


def _number(field: int, number: int) -> bytes:
    """A number; one of 64 bits with a sign below 0 travels as if it had none."""
    if not number:
        return b""
    if 0 < number < _VARINT_MORE:
        return bytes((field << 3, number))
    return bytes((field << 3,)) + _varint(number if number > 0 else number + _SIGN)


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number >= _VARINT_MORE:
        encoded.append(number & 0x7F | _VARINT_MORE)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)
