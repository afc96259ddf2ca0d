"""The key-value command family, and reads: what etcd's KV service does, on the keyspaces of one group.

Each operation comes in two parts: `check_…` raises whatever the state has against it, `run_…` does it and cannot fail.
A transaction checks all operations on its way before it runs the first.
"""

from isochrone.errors import FutureRevision, InvalidRequest, KeyNotFound, LeaseNotFound, RevisionCompacted
from isochrone.ids import NS_PER_MS, Revision, Timestamp
from isochrone.regions.state.model import FIRST_REVISION, TABLE_RECORDS, ApplyContext, GroupData, KeyspaceState
from isochrone.wire.commands import Operation
from isochrone.wire.kv import (
    COMPACT,
    DELETE,
    INCREMENT,
    NUMBER_MAX,
    PUT,
    RANGE,
    Compact,
    DeleteRange,
    Increment,
    PackedResult,
    Put,
    Range,
    SortOrder,
    SortTarget,
    decimal,
)
from isochrone.wire.leases import CompactByRule
from isochrone.wire.records import (
    ORDER_BYTES,
    record_key,
    record_lease,
    record_lineage,
    record_value,
    record_versions,
    record_without_value,
    set_record,
    tombstone_record,
)

READ_BYTES_MAX = 8 << 20
"""Most bytes of records in one answer; a larger range is refused, and can be read in pieces by `limit`."""


# ---- reading


def check_range(data: GroupData, request: Range) -> None:
    """Raise if the range cannot be read: a key in no keyspace, a revision that is compacted or not yet there."""
    if not request.range_end:
        data.keyspace_of(request.key)
    if request.timestamp:
        check_timestamp(data, request.timestamp)
    elif request.revision > 0:
        check_revision(data, request.revision)


def check_revision(data: GroupData, revision: int) -> None:
    """Raise if the state as of a revision cannot be read."""
    if revision > data.revision:
        raise FutureRevision(f"required revision {revision} is a future revision; the group is at {data.revision}")
    if revision < data.compacted:
        raise RevisionCompacted(f"required revision {revision} has been compacted; reads go back to {data.compacted}")


def check_timestamp(data: GroupData, timestamp: int) -> None:
    """Raise if the state as of a timestamp cannot be read."""
    if timestamp > data.timestamp:
        raise FutureRevision(f"timestamp {timestamp} lies ahead of what is applied: {data.timestamp}")
    if timestamp < data.compacted_timestamp:
        raise RevisionCompacted(
            f"timestamp {timestamp} has been compacted; reads go back to {data.compacted_timestamp}, "
            f"which is revision {data.compacted}"
        )


def run_range(data: GroupData, request: Range, bytes_max: int = READ_BYTES_MAX) -> PackedResult:
    """Read a range that `check_range` has let pass. Raises `InvalidRequest` for an answer that is too large."""
    if not request.range_end and not request.revision and not request.timestamp:
        return _packed_range(data, request, *_read_one(data, request), bytes_max)
    parts = data.parts(request.key, request.range_end)
    revisions = [_revision_of(data, state, request) for state, _, _ in parts]
    pieces = [(state.history, start, end, as_of) for (state, start, end), as_of in zip(parts, revisions, strict=True)]
    if request.count_only:
        count = sum(history.count_between(start, end, as_of) for history, start, end, as_of in pieces)
        return _packed_range(data, request, count, [], bytes_max)
    needs_all = _filters(request) or request.sort_order is not SortOrder.NONE or request.sort_target
    most = 0 if needs_all or request.limit <= 0 else request.limit + 1
    records: list[bytes] = []
    size_bytes = 0
    for history, start, end, as_of in pieces:
        if most and len(records) >= most:
            break
        for record in history.between(start, end, as_of):
            records.append(record_without_value(record) if request.keys_only and not needs_all else record)
            size_bytes += len(records[-1])
            if not needs_all and size_bytes > bytes_max:
                raise _too_large(bytes_max)
            if most and len(records) >= most:
                break
    count = len(records)
    if most and count >= most:
        count = sum(history.count_between(start, end, as_of) for history, start, end, as_of in pieces)
    return _packed_range(data, request, count, _arrange(request, records), bytes_max)


def _read_one(data: GroupData, request: Range) -> tuple[int, list[bytes]]:
    record = data.keyspace_of(request.key).history.current(request.key)
    if record is None or request.count_only:
        return int(record is not None), []
    return 1, _arrange(request, [record])


def _revision_of(data: GroupData, state: KeyspaceState, request: Range) -> int | None:
    """The revision at which to read a keyspace; None for the present."""
    if request.timestamp:
        found = state.history.revision_at(request.timestamp)
        return found if found is not None else max(data.compacted, 0)
    return request.revision if request.revision > 0 else None


def _packed_range(data: GroupData, request: Range, count: int, records: list[bytes], bytes_max: int) -> PackedResult:
    more = 0 < request.limit < len(records)
    if more:
        records = records[: request.limit]
    if request.keys_only:
        records = [record_without_value(record) for record in records]
    if sum(map(len, records)) > bytes_max:
        raise _too_large(bytes_max)
    return (RANGE, data.revision, data.timestamp, count, more, records)


def _too_large(bytes_max: int) -> InvalidRequest:
    return InvalidRequest(f"the answer would exceed {bytes_max} bytes; read the range in pieces")


def _filters(request: Range) -> bool:
    return bool(
        request.min_mod_revision
        or request.max_mod_revision
        or request.min_create_revision
        or request.max_create_revision
    )


def _arrange(request: Range, records: list[bytes]) -> list[bytes]:
    """Filter and sort."""
    if _filters(request):
        records = [record for record in records if _within(request, *record_versions(record)[:2])]
    descending = request.sort_order is SortOrder.DESCEND
    if request.sort_target is not SortTarget.KEY:
        # Equals stay in the order of their keys, also when descending, as in etcd (there only for short ranges).
        records.sort(key=lambda record: _sort_key(request.sort_target, record), reverse=descending)
    elif descending:
        records.reverse()
    return records


def _within(request: Range, created: int, modified: int) -> bool:
    return not (
        (request.min_mod_revision and modified < request.min_mod_revision)
        or (request.max_mod_revision and modified > request.max_mod_revision)
        or (request.min_create_revision and created < request.min_create_revision)
        or (request.max_create_revision and created > request.max_create_revision)
    )


def _sort_key(target: SortTarget, record: bytes) -> int | bytes:
    created, modified, version = record_versions(record)
    match target:
        case SortTarget.VERSION:
            return version
        case SortTarget.CREATE:
            return created
        case SortTarget.MOD:
            return modified
        case SortTarget.VALUE:
            return record_value(record)
        case SortTarget.KEY:
            return record_key(record)


# ---- writing


def check_lease(data: GroupData, operation: Put) -> None:
    """Raise if the lease of a put is unknown."""
    if operation.lease and operation.lease not in data.leases:
        raise LeaseNotFound("requested lease not found")


def check_present(data: GroupData, operation: Put) -> None:
    """Raise if the key of a put lies in no keyspace, or nothing is there to keep."""
    state = data.keyspace_of(operation.key)
    if (operation.ignore_value or operation.ignore_lease) and state.history.current(operation.key) is None:
        raise KeyNotFound("key not found")


def run_put(context: ApplyContext, operation: Put) -> PackedResult:
    """Set the key."""
    key, value, lease = operation.key, operation.value, operation.lease
    state = context.keyspace_of(key)
    held = state.history.current(key)
    if held is not None and operation.ignore_value:
        value = record_value(held)
    if held is not None and operation.ignore_lease:
        lease = record_lease(held)
    set_key(context, state, key, value, lease, held)
    return (PUT, context.data.revision, context.timestamp, held if operation.prev_kv else None)


def check_delete(data: GroupData, operation: DeleteRange) -> None:
    """Raise if the key lies in no keyspace, or what is to be returned is too large."""
    if not operation.range_end:
        data.keyspace_of(operation.key)
    elif operation.prev_kv:
        run_range(data, Range(operation.key, operation.range_end))


def run_delete(context: ApplyContext, operation: DeleteRange) -> PackedResult:
    """Remove what is in the range."""
    found: list[bytes] = []
    for state, start, end in context.data.parts(operation.key, operation.range_end):
        here = list(state.history.between(start, end))
        for record in here:
            remove_key(context, state, record_key(record), record)
        found.extend(here)
    previous = found if operation.prev_kv else []
    return (DELETE, context.data.revision, context.timestamp, len(found), previous)


def check_increment(data: GroupData, operation: Increment) -> None:
    """Raise if the key holds no number, or the sum is out of 64 bits."""
    held = data.keyspace_of(operation.key).history.current(operation.key)
    number = 0 if held is None else decimal(record_value(held))
    if number is None:
        raise InvalidRequest(f"key {operation.key[:64]!r} does not hold a decimal number of 64 bits")
    if abs(number + operation.delta) > NUMBER_MAX:
        raise InvalidRequest(f"{number} + {operation.delta} is out of the range of 64 bits")


def run_increment(context: ApplyContext, operation: Increment) -> PackedResult:
    """Add to the key's number."""
    state = context.data.keyspace_of(operation.key)
    held = state.history.current(operation.key)
    number = ((decimal(record_value(held)) or 0) if held is not None else 0) + operation.delta
    set_key(context, state, operation.key, b"%d" % number, record_lease(held) if held is not None else 0, held)
    return (INCREMENT, context.data.revision, context.timestamp, number)


def set_key(
    context: ApplyContext, state: KeyspaceState, key: bytes, value: bytes, lease: int, held: bytes | None
) -> None:
    """Write the next version of a key; `held` is the present one."""
    revision, place = context.place()
    created, version, lease_before = record_lineage(held) if held is not None else (revision, 0, 0)
    if lease != lease_before:
        context.data.attach(key, lease_before, lease)
    record = set_record(key, value, revision, place, created, version + 1, context.timestamp, lease)
    _write(context, state, key, record)


def remove_key(context: ApplyContext, state: KeyspaceState, key: bytes, held: bytes) -> None:
    """Write a tombstone for a key; `held` is the present version."""
    revision, place = context.place()
    context.data.attach(key, record_lease(held), 0)
    _write(context, state, key, tombstone_record(key, revision=revision, place=place, timestamp=context.timestamp))


def _write(context: ApplyContext, state: KeyspaceState, key: bytes, record: bytes) -> None:
    state.history.append(key, record)
    context.rows[state.keyspace, TABLE_RECORDS, record[:ORDER_BYTES]] = record
    context.events.append(record)


# ---- compaction


def check_compact(data: GroupData, operation: Compact) -> None:
    """Raise if the group cannot be compacted there: it is already, or has not come so far."""
    if operation.revision <= data.compacted:
        raise RevisionCompacted(f"required revision {operation.revision} has been compacted, up to {data.compacted}")
    if operation.revision > data.revision:
        raise FutureRevision(f"required revision {operation.revision} is ahead of the group's, {data.revision}")


def run_compact(context: ApplyContext, operation: Compact) -> PackedResult:
    """Refuse older reads from now on. What they would need is forgotten bit by bit by the entries that follow."""
    data = context.data
    for state in data.keyspaces.values():
        timestamp = state.history.timestamp_at(operation.revision)
        if timestamp is not None:
            data.compacted_timestamp = max(data.compacted_timestamp, Timestamp(timestamp))
    data.compacted = Revision(operation.revision)
    return (COMPACT, data.revision, context.timestamp)


def compact_by_rule(context: ApplyContext, command: CompactByRule) -> None:
    """Compact as far as a rule allows: never the present, and nothing if that far is compacted already."""
    data = context.data
    limits = []
    if command.revisions:
        limits.append(data.revision - command.revisions)
    if command.age_ms:
        oldest = context.timestamp - command.age_ms * NS_PER_MS
        limits.append(max((state.history.revision_at(oldest) or 0 for state in data.keyspaces.values()), default=0))
    target = max(limits, default=0)
    if max(data.compacted, FIRST_REVISION) < target <= data.revision:
        run_compact(context, Compact(target))


# ---- the family


def apply_put(context: ApplyContext, operation: Operation) -> PackedResult:
    """Handler of `Put`."""
    assert isinstance(operation, Put)
    if operation.lease:
        check_lease(context.data, operation)  # etcd's order; within a transaction it is the other one
    if operation.ignore_value or operation.ignore_lease:
        check_present(context.data, operation)
    return run_put(context, operation)  # before it changes anything, it finds the keyspace or raises


def apply_delete(context: ApplyContext, operation: Operation) -> PackedResult:
    """Handler of `DeleteRange`."""
    assert isinstance(operation, DeleteRange)
    check_delete(context.data, operation)
    return run_delete(context, operation)


def apply_increment(context: ApplyContext, operation: Operation) -> PackedResult:
    """Handler of `Increment`."""
    assert isinstance(operation, Increment)
    check_increment(context.data, operation)
    return run_increment(context, operation)


def apply_range(context: ApplyContext, operation: Operation) -> PackedResult:
    """Handler of `Range` in the log: a read that is ordered among the writes of its session."""
    assert isinstance(operation, Range)
    check_range(context.data, operation)
    return run_range(context.data, operation)


def apply_compact(context: ApplyContext, operation: Operation) -> PackedResult:
    """Handler of `Compact`."""
    assert isinstance(operation, Compact)
    check_compact(context.data, operation)
    return run_compact(context, operation)
