"""etcd's requests as operations and queries of a group's state.

What is wrong in a request itself is refused before, by `checks_grpc.refusal_of`. Times to live are seconds there and
milliseconds here; a revision below 1 means the present one, a limit below 1 none. An order that etcd 3.4 does not know
is none; a comparison by a relation that it does not know holds, but for a value that is not there, and one of a target
that it does not know compares 0 with 0, all as in etcd.
"""

from collections.abc import Iterable, Iterator

from isochrone.wire.etcd.generated import rpc_pb2 as pb
from isochrone.wire.kv import (
    Compact,
    Compare,
    DeleteRange,
    KvOperation,
    Put,
    Range,
    Relation,
    SortOrder,
    SortTarget,
    Target,
    Txn,
)
from isochrone.wire.leases import LeaseGrant

MS_PER_S = 1_000
ALWAYS, NEVER, EXISTS = (Relation.NOT_EQUAL, -1), (Relation.EQUAL, -1), (Relation.GREATER, 0)
"""Of the version of any key, or of no key."""


def range_of(request: pb.RangeRequest) -> Range:
    """A read. Whether it may be stale (`serializable`) is for whoever asks."""
    order, target = int(request.sort_order), SortTarget(int(request.sort_target))
    if not SortOrder.NONE <= order <= SortOrder.DESCEND:
        order, target = SortOrder.NONE, SortTarget.KEY
    return Range(
        request.key,
        request.range_end,
        limit=max(request.limit, 0),
        revision=max(request.revision, 0),
        sort_order=SortOrder(order),
        sort_target=target,
        keys_only=request.keys_only,
        count_only=request.count_only,
        min_mod_revision=request.min_mod_revision,
        max_mod_revision=request.max_mod_revision,
        min_create_revision=request.min_create_revision,
        max_create_revision=request.max_create_revision,
    )


def put_of(request: pb.PutRequest) -> Put:
    """A put."""
    return Put(
        request.key,
        request.value,
        request.lease,
        prev_kv=request.prev_kv,
        ignore_value=request.ignore_value,
        ignore_lease=request.ignore_lease,
    )


def delete_of(request: pb.DeleteRangeRequest) -> DeleteRange:
    """A deletion."""
    return DeleteRange(request.key, request.range_end, request.prev_kv)


def txn_of(request: pb.TxnRequest) -> Txn:
    """A transaction, and those inside it."""
    return Txn(
        tuple([_compare(each) for each in request.compare]),
        tuple([_operation(each) for each in request.success]),
        tuple([_operation(each) for each in request.failure]),
    )


def compact_of(request: pb.CompactionRequest) -> Compact:
    """A compaction. `physical` changes nothing: what is compacted is never revealed again, whenever it leaves disks."""
    return Compact(request.revision)


def grant_of(request: pb.LeaseGrantRequest) -> LeaseGrant:
    """A lease. A time to live below the least one is raised, be it negative, as in etcd."""
    return LeaseGrant(request.ID, max(request.TTL, 1) * MS_PER_S)


def _operation(operation: pb.RequestOp) -> KvOperation:
    match operation.WhichOneof("request"):
        case "request_range":
            return range_of(operation.request_range)
        case "request_put":
            return put_of(operation.request_put)
        case "request_delete_range":
            return delete_of(operation.request_delete_range)
        case _:
            return txn_of(operation.request_txn)


def _compare(compare: pb.Compare) -> Compare:
    relation, kind = int(compare.result), int(compare.target)
    if not Target.VERSION <= kind <= Target.LEASE:
        equal = relation == Relation.EQUAL or not Relation.EQUAL <= relation <= Relation.NOT_EQUAL
        return Compare(compare.key, Target.VERSION, *(ALWAYS if equal else NEVER), range_end=compare.range_end)
    target = Target(kind)
    if not Relation.EQUAL <= relation <= Relation.NOT_EQUAL:
        holds = EXISTS if target is Target.VALUE else ALWAYS
        return Compare(compare.key, Target.VERSION, *holds, range_end=compare.range_end)
    number = {
        Target.VERSION: compare.version,
        Target.CREATE: compare.create_revision,
        Target.MOD: compare.mod_revision,
        Target.LEASE: compare.lease,
    }
    return Compare(
        compare.key,
        target,
        Relation(relation),
        number=number.get(target, 0),
        value=compare.value if target is Target.VALUE else b"",
        range_end=compare.range_end,
    )


def ranges_of(operation: KvOperation) -> Iterator[tuple[bytes, bytes]]:
    """Every key and range that an operation names, as `(key, range_end)`."""
    match operation:
        case Txn(compares, success, failure):
            for compare in compares:
                yield compare.key, compare.range_end
            yield from _all_ranges((*success, *failure))
        case Range() | DeleteRange():
            yield operation.key, operation.range_end
        case _:
            yield operation.key, b""


def _all_ranges(operations: Iterable[KvOperation]) -> Iterator[tuple[bytes, bytes]]:
    for operation in operations:
        yield from ranges_of(operation)
