"""Key-value operations and their results, with etcd's meaning (etcd v3 API, `rpc.proto`), and how they are encoded.

A range is `[key, range_end)`. An empty `range_end` means the one key; `ALL` (one zero byte) means all keys from `key`
on. Ranges reach as far as the group's keyspaces do; a single key outside all of them is an `InvalidRequest`.

Sizes are checked here, by `check_kv`, for clients before they send and for replicas when they apply.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import TypeAlias, cast

from isochrone.errors import DuplicateKey, InvalidRequest, LeaseNotFound
from isochrone.ids import Revision, Timestamp
from isochrone.records import quickly_made
from isochrone.wire.forms import Form, by_class, by_tag
from isochrone.wire.key_set import KeySet
from isochrone.wire.records import KeyValue, decode_record

KEY_BYTES_MAX = 4096
VALUE_BYTES_MAX = 1 << 20
TXN_OPERATIONS_MAX = 128
"""Most compares, and most operations of a branch, on any way down through nested transactions."""
TXN_PARTS_MAX = 4_096
"""Most compares and operations of a transaction and all those inside it: as many as are looked at one by one."""
NUMBER_MAX = (1 << 63) - 1
ALL = b"\0"
"""`range_end` of a range without end."""


class SortOrder(IntEnum):
    """Order of the items of a range; NONE is that of the keys, or ASCEND where another target is named."""

    NONE = 0
    ASCEND = 1
    DESCEND = 2


class SortTarget(IntEnum):
    """What a range is sorted by."""

    KEY = 0
    VERSION = 1
    CREATE = 2
    MOD = 3
    VALUE = 4


class Target(IntEnum):
    """What of a key a `Compare` looks at."""

    VERSION = 0
    CREATE = 1
    MOD = 2
    VALUE = 3
    LEASE = 4
    TOKEN = 5
    """The value as that of a fence gate: a token in decimal, a blank, and the name of its lock, which is to be the
    value given. An absent key has token 0; a gate of another lock, or any other text, one above all."""
    LOCK = 6
    """The lock of that name: the token given, if it is that of one who holds the lock now, else 0."""


class Relation(IntEnum):
    """How the key must stand to the number or value given."""

    EQUAL = 0
    GREATER = 1
    LESS = 2
    NOT_EQUAL = 3
    NOT_GREATER = 4


@quickly_made
@dataclass(frozen=True, slots=True)
class Put:
    """Set a key. `ignore_value` and `ignore_lease` keep what the key has, which must exist then."""

    key: bytes
    value: bytes
    lease: int = 0
    prev_kv: bool = False
    """Return what the key was before."""
    ignore_value: bool = False
    ignore_lease: bool = False


@quickly_made
@dataclass(frozen=True, slots=True)
class DeleteRange:
    """Remove the keys of a range. Removing absent keys succeeds and says so."""

    key: bytes
    range_end: bytes = b""
    prev_kv: bool = False
    """Return what was removed."""


@quickly_made
@dataclass(frozen=True, slots=True)
class Increment:
    """Add to a key that holds a decimal number of 64 bits; an absent key counts as 0. The key keeps its lease."""

    key: bytes
    delta: int


@quickly_made
@dataclass(frozen=True, slots=True)
class Range:
    """Read the keys of a range: as they are, or as they were at a revision or at a commit timestamp."""

    key: bytes
    range_end: bytes = b""
    limit: int = 0
    """Most items returned; 0 for all. The result's `count` is that of the range all the same."""
    revision: int = 0
    """0 for the present one."""
    timestamp: int = 0
    """If not 0, read the state as of this timestamp; `revision` must be 0 then."""
    sort_order: SortOrder = SortOrder.NONE
    sort_target: SortTarget = SortTarget.KEY
    keys_only: bool = False
    count_only: bool = False
    min_mod_revision: int = 0
    max_mod_revision: int = 0
    min_create_revision: int = 0
    max_create_revision: int = 0
    """Items outside these bounds are left out, but counted; 0 for no bound."""


@quickly_made
@dataclass(frozen=True, slots=True)
class Compare:
    """A condition on a key, or on every key of a range. One on an absent key's value never holds."""

    key: bytes
    target: Target
    relation: Relation
    number: int = 0
    """For the targets that are numbers."""
    value: bytes = b""
    """For `Target.VALUE`."""
    range_end: bytes = b""


@quickly_made
@dataclass(frozen=True, slots=True)
class Txn:
    """If all compares hold, do `success`, else `failure`, all at one revision.

    Compares, those of nested transactions too, look at the state before the transaction; operations see those before
    them. No key may be written twice on any way through.
    """

    compares: tuple[Compare, ...] = ()
    success: "tuple[KvOperation, ...]" = ()
    failure: "tuple[KvOperation, ...]" = ()


@quickly_made
@dataclass(frozen=True, slots=True)
class Compact:
    """Forget versions that are superseded at `revision`. Reads below it are refused from then on."""

    revision: int


KvOperation: TypeAlias = Put | DeleteRange | Increment | Range | Txn
"""What a transaction may hold."""


@quickly_made
@dataclass(frozen=True, slots=True)
class PutResult:
    """What a `Put` did."""

    revision: Revision
    timestamp: Timestamp
    previous: KeyValue | None = None


@quickly_made
@dataclass(frozen=True, slots=True)
class DeleteResult:
    """What a `DeleteRange` did."""

    revision: Revision
    timestamp: Timestamp
    deleted: int
    previous: tuple[KeyValue, ...] = ()


@quickly_made
@dataclass(frozen=True, slots=True)
class IncrementResult:
    """What an `Increment` did."""

    revision: Revision
    timestamp: Timestamp
    value: int


@quickly_made
@dataclass(frozen=True, slots=True)
class RangeResult:
    """What a `Range` found."""

    revision: Revision
    """The group's revision when it was read."""
    timestamp: Timestamp
    count: int
    more: bool
    """Some items were left out because of the limit."""
    items: tuple[KeyValue, ...]


@quickly_made
@dataclass(frozen=True, slots=True)
class TxnResult:
    """What a `Txn` did."""

    revision: Revision
    timestamp: Timestamp
    succeeded: bool
    results: "tuple[KvResult, ...]"
    """Of the operations of the branch that was taken, in order."""


@quickly_made
@dataclass(frozen=True, slots=True)
class CompactResult:
    """What a `Compact` did."""

    revision: Revision
    timestamp: Timestamp


KvResult: TypeAlias = PutResult | DeleteResult | IncrementResult | RangeResult | TxnResult

PUT, DELETE, INCREMENT, RANGE, TXN, COMPACT = range(10, 16)
"""Tags of operations and of their results. Tags are never given a second meaning."""

_COMPARE = Form(0, Compare, bytes, Target, Relation, int, bytes, bytes)
_PUT = Form(PUT, Put, bytes, bytes, int, bool, bool, bool)
KV_FORMS = (
    _PUT,
    Form(DELETE, DeleteRange, bytes, bytes, bool),
    Form(INCREMENT, Increment, bytes, int),
    Form(RANGE, Range, bytes, bytes, int, int, int, SortOrder, SortTarget, bool, bool, int, int, int, int, required=2),
    Form(COMPACT, Compact, int),
)
_BY_TAG = by_tag(KV_FORMS)
_BY_CLASS = by_class(KV_FORMS)
_TXN_DEPTH_MAX = 16


def pack_put(put: Put) -> tuple[object, ...]:
    """A put as a tuple, as its form makes it, but for less, since most commands are puts."""
    return (PUT, put.key, put.value, put.lease, put.prev_kv, put.ignore_value, put.ignore_lease)


def pack_txn(txn: Txn) -> tuple[object, ...]:
    """A transaction as a tuple."""
    return (
        TXN,
        [_COMPARE.pack(compare)[1:] for compare in txn.compares],
        [_pack(operation) for operation in txn.success],
        [_pack(operation) for operation in txn.failure],
    )


def _pack(operation: KvOperation) -> tuple[object, ...]:
    return pack_txn(operation) if isinstance(operation, Txn) else _BY_CLASS[type(operation)].pack(operation)


def unpack_put(values: tuple[object, ...]) -> Put:
    """Back from the fields of a put, as its form does it, but for less, since most commands are puts."""
    if len(values) == 6:
        key, value, lease, prev_kv, ignore_value, ignore_lease = values
        if (
            type(key) is bytes
            and type(value) is bytes
            and type(lease) is int
            and type(prev_kv) is bool
            and type(ignore_value) is bool
            and type(ignore_lease) is bool
            and -NUMBER_MAX - 1 <= lease <= NUMBER_MAX
        ):
            return Put(key, value, lease, prev_kv, ignore_value, ignore_lease)
    return cast("Put", _PUT.unpack(values))


def unpack_txn(values: tuple[object, ...]) -> Txn:
    """Back from a tuple's fields. Raises `InvalidRequest` or `ValueError`."""
    return _unpack_txn(values, 0, [TXN_PARTS_MAX])


def _unpack_txn(values: tuple[object, ...], depth: int, room: list[int]) -> Txn:
    """`room`: how many parts may follow, here and in what is inside."""
    if depth > _TXN_DEPTH_MAX:
        raise InvalidRequest("transactions are nested too deep")
    match values:
        case [tuple(compares), tuple(success), tuple(failure)]:
            room[0] -= len(compares) + len(success) + len(failure)
            if room[0] < 0:
                raise InvalidRequest("too many operations in txn request")
            return Txn(
                tuple([cast("Compare", _COMPARE.unpack(item)) for item in compares]),
                tuple([_unpack(item, depth, room) for item in success]),
                tuple([_unpack(item, depth, room) for item in failure]),
            )
    raise InvalidRequest("malformed transaction")


def _unpack(item: tuple[object, ...], depth: int, room: list[int]) -> KvOperation:
    tag, *values = item
    if tag == TXN:
        return _unpack_txn(tuple(values), depth + 1, room)
    if tag == PUT:
        return unpack_put(tuple(values))
    if tag not in (DELETE, INCREMENT, RANGE):
        raise InvalidRequest(f"operation {tag!r} cannot be part of a transaction")
    return cast("KvOperation", _BY_TAG[tag].unpack(tuple(values)))


PackedResult: TypeAlias = tuple[object, ...]
"""A result before it is encoded: tag, revision, timestamp, and the fields of its kind. Items are records."""


def unpack_kv_result(packed: PackedResult) -> KvResult | CompactResult:
    """Take a packed result apart."""
    if packed[0] == RANGE:  # the most common by far, and the dearest to match
        return _unpack_range_result(*packed)
    if packed[0] == PUT and len(packed) == 4 and packed[3] is None:
        return PutResult(packed[1], packed[2])  # type: ignore[arg-type]  # casts would cost as much as the rest
    tag, revision, timestamp, *rest = packed
    revision, timestamp = Revision(cast("int", revision)), Timestamp(cast("int", timestamp))
    match tag, rest:
        case 10, [bytes() | None as previous]:
            return PutResult(revision, timestamp, None if previous is None else decode_record(previous))
        case 11, [int(deleted), tuple(records)]:
            return DeleteResult(revision, timestamp, deleted, tuple([decode_record(record) for record in records]))
        case 12, [int(value)]:
            return IncrementResult(revision, timestamp, value)
        case 14, [bool(succeeded), tuple(results)]:
            parts = tuple([cast("KvResult", unpack_kv_result(result)) for result in results])
            return TxnResult(revision, timestamp, succeeded, parts)
        case 15, []:
            return CompactResult(revision, timestamp)
    raise InvalidRequest(f"unknown or malformed result {tag!r}")


def _unpack_range_result(
    tag: object, revision: object = 0, timestamp: object = 0, count: object = 0, more: object = 0, records: object = 0
) -> RangeResult:
    if type(count) is not int or type(more) is not bool or type(records) is not tuple:
        raise InvalidRequest(f"unknown or malformed result {tag!r}")
    return RangeResult(
        cast("Revision", revision),
        cast("Timestamp", timestamp),
        count,
        more,
        tuple([decode_record(record) for record in records]),
    )


def check_kv(operation: KvOperation | Compact) -> None:
    """Raise `InvalidRequest` for an operation that no state could accept."""
    match operation:
        case Put():
            check_put(operation)
        case DeleteRange(key, range_end):
            check_range(key, range_end)
        case Increment(key):
            check_key(key)
        case Range():
            check_range(operation.key, operation.range_end)
            if operation.timestamp and operation.revision:
                raise InvalidRequest("a range is read at a revision or at a timestamp, not at both")
        case Txn():
            check_txn(operation, TXN_OPERATIONS_MAX)
            _check_overlaps(operation.success)
            _check_overlaps(operation.failure)
        case Compact(revision):
            if revision < 0:
                raise InvalidRequest(f"revision {revision} is negative")


def check_put(put: Put) -> None:
    """Raise an error for a put that no state could accept."""
    if not 1 <= len(put.key) <= KEY_BYTES_MAX:
        check_key(put.key)
    if len(put.value) > VALUE_BYTES_MAX:
        raise InvalidRequest(f"value has {len(put.value)} bytes; at most {VALUE_BYTES_MAX} are allowed")
    if put.ignore_value and put.value:
        raise InvalidRequest("value is provided")
    if put.ignore_lease and put.lease:
        raise InvalidRequest("lease is provided")
    if put.lease < 0:
        raise LeaseNotFound("requested lease not found")


def check_key(key: bytes) -> None:
    """Raise `InvalidRequest` for an empty or oversized key."""
    if not 1 <= len(key) <= KEY_BYTES_MAX:
        raise InvalidRequest(f"key has {len(key)} bytes; allowed are 1 to {KEY_BYTES_MAX}")


def check_range(key: bytes, range_end: bytes) -> None:
    """Raise `InvalidRequest` for an empty or oversized key, or an oversized end."""
    check_key(key)
    if len(range_end) > KEY_BYTES_MAX:
        raise InvalidRequest(f"range end has {len(range_end)} bytes; at most {KEY_BYTES_MAX} are allowed")


def check_txn(txn: Txn, operations_max: int) -> None:
    """Raise `InvalidRequest` for too many operations, or one that no state could accept."""
    count = max(len(txn.compares), len(txn.success), len(txn.failure))
    if count > operations_max:
        raise InvalidRequest("too many operations in txn request")
    for compare in txn.compares:
        check_range(compare.key, compare.range_end)
    for operation in (*txn.success, *txn.failure):
        if isinstance(operation, Txn):
            check_txn(operation, operations_max - count)
        else:
            check_kv(operation)


def _check_overlaps(operations: tuple[KvOperation, ...]) -> tuple[dict[bytes, None], KeySet]:
    """Keys put and keys deleted on any way through. Raises `DuplicateKey` where one key could be written twice.

    As in etcd: the branches of one nested transaction may overlap, since only one of them is taken.
    """
    deletes = KeySet()
    puts: dict[bytes, None] = {}

    def add(keys: dict[bytes, None], allowed: dict[bytes, None]) -> None:
        for key in keys:
            if (key in puts and key not in allowed) or key in deletes:
                raise DuplicateKey(f"key {key[:64]!r} is written twice in one transaction")
            puts[key] = None

    for operation in operations:
        if isinstance(operation, DeleteRange):
            end = operation.range_end or operation.key + b"\0"
            deletes.add(operation.key, None if end == ALL else end)
    for operation in operations:
        if isinstance(operation, Txn):
            then_puts, then_deletes = _check_overlaps(operation.success)
            else_puts, else_deletes = _check_overlaps(operation.failure)
            add(then_puts, {})
            add(else_puts, then_puts)
            deletes.update(then_deletes)
            deletes.update(else_deletes)
    for operation in operations:
        if isinstance(operation, Put | Increment):
            add({operation.key: None}, {})
    return puts, deletes


def in_range(key: bytes, start: bytes, range_end: bytes) -> bool:
    """Whether a key lies in a range."""
    if not range_end:
        return key == start
    return key >= start and (range_end == ALL or key < range_end)


def prefix_end(prefix: bytes) -> bytes:
    """`range_end` of the range of all keys with a prefix."""
    kept = prefix.rstrip(b"\xff")
    return kept[:-1] + bytes([kept[-1] + 1]) if kept else ALL


def decimal(value: bytes) -> int | None:
    """The number that a value is in decimal, None if it is none of 64 bits."""
    if not 1 <= len(value) <= 20 or not value.removeprefix(b"-").isdigit():
        return None
    number = int(value)
    return number if abs(number) <= NUMBER_MAX else None


def value_bytes(operation: object) -> int:
    """How many bytes of values an operation carries: what makes a command large, if anything does."""
    match operation:
        case Put():
            return len(operation.value)
        case Txn(compares, success, failure):
            compared = sum(len(compare.value) for compare in compares)
            return compared + sum(map(value_bytes, success)) + sum(map(value_bytes, failure))
        case _:
            return 0
