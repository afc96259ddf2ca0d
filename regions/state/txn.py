"""Multi-key transactions within a group: compare, then one branch or the other.

As in etcd, all compares on the way down through nested transactions look at the state before the transaction, and
everything that could fail is checked before the first operation runs.
"""

from collections.abc import Iterator, Sequence
from typing import TypeVar

from isochrone.errors import InvalidRequest
from isochrone.regions.state.kv import (
    READ_BYTES_MAX,
    apply_compact,
    apply_delete,
    apply_increment,
    apply_put,
    apply_range,
    check_delete,
    check_increment,
    check_lease,
    check_present,
    check_range,
    run_delete,
    run_increment,
    run_put,
    run_range,
)
from isochrone.regions.state.locks import holds_token
from isochrone.regions.state.model import ApplyContext, GroupData, Handlers, Happening
from isochrone.wire.commands import Operation
from isochrone.wire.fence_gates import gate_token
from isochrone.wire.kv import (
    TXN,
    Compact,
    Compare,
    DeleteRange,
    Increment,
    KvOperation,
    PackedResult,
    Put,
    Range,
    Relation,
    Target,
    Txn,
)
from isochrone.wire.records import RECORD_HEAD_BYTES, record_lease, record_value, record_versions

Comparable = TypeVar("Comparable", int, bytes)
TXN_RECORDS_MAX = 2_000_000
"""About how many keys a transaction may look at in ranges: longer, and it would hold up all that comes after it."""
_ANY_SIZE = 1 << 40
"""Bytes. What a transaction reads is limited before it begins; nothing may stop it then."""


class _Budget:
    """What a transaction may still read: bytes of its results, and records that are looked at on the way."""

    __slots__ = ("_bytes", "_records")

    def __init__(self) -> None:
        self._bytes = READ_BYTES_MAX
        self._records = TXN_RECORDS_MAX

    def spend(self, size_bytes: int, records: int = 0) -> None:
        """Raises `InvalidRequest` when there is not so much left."""
        self._bytes -= size_bytes
        self._records -= records
        if self._bytes < 0:
            raise InvalidRequest(f"what the transaction reads would exceed {READ_BYTES_MAX} bytes")
        if self._records < 0:
            raise InvalidRequest(f"the transaction would look at more than {TXN_RECORDS_MAX} keys")


def apply_txn(context: ApplyContext, operation: Operation) -> PackedResult:
    """Handler of `Txn`."""
    assert isinstance(operation, Txn)
    budget = _Budget()
    way = list(_way(context.data, operation, budget))
    _check(context.data, list(_chosen(operation, iter(way))), budget)
    if not way[0] and _refuses_token(context.data, operation):
        context.happened.append(Happening.TOKEN_REFUSED)
    return _run(context, operation, iter(way))


def _refuses_token(data: GroupData, txn: Txn) -> bool:
    budget = _Budget()  # What is only counted must not be what makes a transaction fail.
    tokens = [compare for compare in txn.compares if compare.target in (Target.TOKEN, Target.LOCK)]
    return not all(_holds(data, compare, budget) for compare in tokens)


def _way(data: GroupData, txn: Txn, budget: _Budget) -> Iterator[bool]:
    """Which branch is taken by the transaction and by those nested in that branch, in order."""
    holds = all(_holds(data, compare, budget) for compare in txn.compares)
    yield holds
    for operation in _branch(txn, holds):
        if isinstance(operation, Txn):
            yield from _way(data, operation, budget)


def _branch(txn: Txn, holds: bool) -> tuple[KvOperation, ...]:
    return txn.success if holds else txn.failure


def _holds(data: GroupData, compare: Compare, budget: _Budget) -> bool:
    if compare.target is Target.LOCK:
        data.keyspace_of(compare.key)
        token = compare.number if holds_token(data, compare.key, compare.number) else 0
        return _related(token, compare.number, compare.relation)
    found = False
    for state, start, end in data.parts(compare.key, compare.range_end):
        if not compare.range_end:
            return _fits(state.history.current(compare.key), compare)
        for record in state.history.between(start, end):
            found = True
            budget.spend(0, 1)
            if not _fits(record, compare):
                return False
    return found or _fits(None, compare)


def _fits(record: bytes | None, compare: Compare) -> bool:
    if compare.target is Target.VALUE:
        return record is not None and _related(record_value(record), compare.value, compare.relation)
    if compare.target is Target.TOKEN:
        held = gate_token(None if record is None else record_value(record), compare.value)
        return _related(held, compare.number, compare.relation)
    return _related(_number(record, compare.target), compare.number, compare.relation)


def _related(held: Comparable, given: Comparable, relation: Relation) -> bool:
    match relation:
        case Relation.EQUAL:
            return held == given
        case Relation.NOT_EQUAL:
            return held != given
        case Relation.GREATER:
            return held > given
        case Relation.LESS:
            return held < given
        case Relation.NOT_GREATER:
            return held <= given


def _number(record: bytes | None, target: Target) -> int:
    if record is None:
        return 0
    created, modified, version = record_versions(record)
    match target:
        case Target.VERSION:
            return version
        case Target.CREATE:
            return created
        case Target.MOD:
            return modified
        case _:
            return record_lease(record)


def _chosen(txn: Txn, way: Iterator[bool]) -> Iterator[KvOperation]:
    """What is done on the way, in order."""
    for operation in _branch(txn, next(way)):
        if isinstance(operation, Txn):
            yield from _chosen(operation, way)
        else:
            yield operation


def _check(data: GroupData, operations: Sequence[KvOperation], budget: _Budget) -> None:
    """Raise what the state has against these operations: against the writes first, as in etcd.

    Reads see the transaction's own writes, so those count as if they were read, too.
    """
    for operation in operations:
        match operation:
            case Put():
                check_present(data, operation)
                check_lease(data, operation)
                held = data.keyspace_of(operation.key).history.current(operation.key) if operation.prev_kv else None
                size_bytes = len(operation.key) + len(operation.value) + RECORD_HEAD_BYTES
                budget.spend(size_bytes + len(held or b""))
            case Increment():
                check_increment(data, operation)
            case DeleteRange():
                check_delete(data, operation)
                told = Range(operation.key, operation.range_end, count_only=not operation.prev_kv)
                if operation.range_end or operation.prev_kv:
                    _read(data, told, budget)
    for operation in operations:
        if isinstance(operation, Range):
            check_range(data, operation)
            _read(data, operation, budget)


def _read(data: GroupData, request: Range, budget: _Budget) -> None:
    *_, count, _, records = run_range(data, request)
    assert isinstance(records, list) and isinstance(count, int)
    budget.spend(sum(map(len, records)), count)


def _run(context: ApplyContext, txn: Txn, way: Iterator[bool]) -> PackedResult:
    holds = next(way)
    results: list[PackedResult] = []
    for operation in _branch(txn, holds):
        match operation:
            case Put():
                results.append(run_put(context, operation))
            case DeleteRange():
                results.append(run_delete(context, operation))
            case Increment():
                results.append(run_increment(context, operation))
            case Range():
                results.append(run_range(context.data, operation, _ANY_SIZE))
            case Txn():
                results.append(_run(context, operation, way))
    return (TXN, context.data.revision, context.timestamp, holds, results)


KV_HANDLERS: Handlers = {
    Put: apply_put,
    DeleteRange: apply_delete,
    Increment: apply_increment,
    Range: apply_range,
    Txn: apply_txn,
    Compact: apply_compact,
}
"""The key-value family, for registration."""
