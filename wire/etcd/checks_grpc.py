"""What is wrong with a request in itself, by etcd's rules and in etcd's order.

Only what the request says is looked at; what depends on the store (leases that do not exist, revisions that are
compacted or yet to come, keys that are not there) is judged when it is applied. The rules are those of etcd 3.4, and a
random conversation with it holds them against its answers.
"""

from collections.abc import Iterable

from google.protobuf.message import Message

from isochrone.wire.etcd.errors import EtcdError
from isochrone.wire.etcd.generated import rpc_pb2 as pb
from isochrone.wire.key_set import KeySet
from isochrone.wire.kv import TXN_PARTS_MAX, SortTarget

REQUEST_BYTES_MAX = 3 << 19
OPERATIONS_MAX = 128
"""In each list of a transaction. Transactions inside one share what it leaves of them."""
LEASE_TTL_S_MAX = 9_000_000_000


class _Refused(Exception):
    def __init__(self, error: EtcdError) -> None:
        super().__init__(error.value.text)
        self.error = error


def refusal_of(request: Message) -> EtcdError | None:
    """The error with which a request must be refused whatever the store holds; None if it may be tried."""
    try:
        _check(request)
    except _Refused as refused:
        return refused.error
    return EtcdError.REQUEST_TOO_LARGE if request.ByteSize() > REQUEST_BYTES_MAX else None


def _check(request: Message) -> None:
    match request:
        case pb.RangeRequest():
            _check_range(request)
        case pb.DeleteRangeRequest():
            _check_key(request.key)
        case pb.PutRequest():
            _check_put(request)
        case pb.TxnRequest():
            _check_transaction(request, OPERATIONS_MAX)
            if _parts(request) > TXN_PARTS_MAX:
                raise _Refused(EtcdError.TOO_MANY_OPERATIONS)
            for operations in (request.success, request.failure):
                _written(operations)
        case pb.LeaseGrantRequest():
            if request.TTL > LEASE_TTL_S_MAX:
                raise _Refused(EtcdError.LEASE_TTL_TOO_LARGE)
        case pb.CompactionRequest():
            if request.revision < 0:  # a store begins compacted at -1
                raise _Refused(EtcdError.COMPACTED)


def _check_key(key: bytes) -> None:
    if not key:
        raise _Refused(EtcdError.EMPTY_KEY)


def _check_range(request: pb.RangeRequest) -> None:
    _check_key(request.key)
    # As in 3.6. One request of this kind is the end of an etcd 3.4.
    if not SortTarget.KEY <= request.sort_target <= SortTarget.VALUE:
        raise _Refused(EtcdError.INVALID_SORT_OPTION)


def _check_put(request: pb.PutRequest) -> None:
    _check_key(request.key)
    if request.ignore_value and request.value:
        raise _Refused(EtcdError.VALUE_PROVIDED)
    if request.ignore_lease and request.lease:
        raise _Refused(EtcdError.LEASE_PROVIDED)


def _check_transaction(request: pb.TxnRequest, operations_max: int) -> None:
    count = max(len(request.compare), len(request.success), len(request.failure))
    if count > operations_max:
        raise _Refused(EtcdError.TOO_MANY_OPERATIONS)
    for compare in request.compare:
        _check_key(compare.key)
    for operation in (*request.success, *request.failure):
        match operation.WhichOneof("request"):
            case "request_range":
                _check_range(operation.request_range)
            case "request_put":
                _check_put(operation.request_put)
            case "request_delete_range":
                _check_key(operation.request_delete_range.key)
            case "request_txn":
                _check_transaction(operation.request_txn, operations_max - count)
            case _:
                raise _Refused(EtcdError.KEY_NOT_FOUND)


def _parts(request: pb.TxnRequest) -> int:
    """How many compares and operations a transaction has, with those inside it."""
    operations = (*request.success, *request.failure)
    inside = [each.request_txn for each in operations if each.WhichOneof("request") == "request_txn"]
    return len(request.compare) + len(operations) + sum(map(_parts, inside))


def _written(operations: Iterable[pb.RequestOp]) -> tuple[set[bytes], KeySet]:
    """What these operations may put and delete.

    Refuses a key that is put twice, or put and deleted: in one revision a key has one value.
    """
    operations = list(operations)
    deletes = KeySet()
    for each in operations:
        if each.WhichOneof("request") == "request_delete_range":
            deletion = each.request_delete_range
            # etcd does not see here that an end of one zero byte means no end, so such a deletion is in nobody's way.
            deletes.add(deletion.key, deletion.range_end or deletion.key + b"\0")
    puts: set[bytes] = set()
    for each in operations:
        if each.WhichOneof("request") == "request_txn":
            puts_then, deletes_then = _written(each.request_txn.success)
            puts_else, deletes_else = _written(each.request_txn.failure)
            # Only one of both runs, so they may put the same keys.
            if not puts.isdisjoint(puts_then | puts_else) or any(key in deletes for key in puts_then | puts_else):
                raise _Refused(EtcdError.DUPLICATE_KEY)
            puts |= puts_then | puts_else
            deletes.update(deletes_then)
            deletes.update(deletes_else)
    for each in operations:
        if each.WhichOneof("request") == "request_put":
            key = each.request_put.key
            if key in puts or key in deletes:
                raise _Refused(EtcdError.DUPLICATE_KEY)
            puts.add(key)
    return puts, deletes
