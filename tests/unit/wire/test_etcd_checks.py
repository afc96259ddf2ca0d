"""Requests that are wrong in themselves, and the errors that etcd has for them."""

import pytest
from google.protobuf.message import Message

from isochrone.wire.etcd.checks_grpc import OPERATIONS_MAX, REQUEST_BYTES_MAX, refusal_of
from isochrone.wire.etcd.errors import EtcdError
from isochrone.wire.etcd.generated import rpc_pb2 as pb


def put(key: bytes) -> pb.RequestOp:
    return pb.RequestOp(request_put=pb.PutRequest(key=key))


def delete(key: bytes, range_end: bytes = b"") -> pb.RequestOp:
    return pb.RequestOp(request_delete_range=pb.DeleteRangeRequest(key=key, range_end=range_end))


def read(key: bytes) -> pb.RequestOp:
    return pb.RequestOp(request_range=pb.RangeRequest(key=key))


def either(then: list[pb.RequestOp], otherwise: list[pb.RequestOp]) -> pb.RequestOp:
    return pb.RequestOp(request_txn=pb.TxnRequest(success=then, failure=otherwise))


def transaction(*success: pb.RequestOp) -> pb.TxnRequest:
    return pb.TxnRequest(success=success)


WRONG = [
    (pb.RangeRequest(range_end=b"x"), EtcdError.EMPTY_KEY),
    (pb.DeleteRangeRequest(), EtcdError.EMPTY_KEY),
    (pb.PutRequest(value=b"v"), EtcdError.EMPTY_KEY),
    (pb.PutRequest(key=b"k", value=b"v", ignore_value=True), EtcdError.VALUE_PROVIDED),
    (pb.PutRequest(key=b"k", lease=1, ignore_lease=True), EtcdError.LEASE_PROVIDED),
    (pb.PutRequest(key=b"k", value=bytes(REQUEST_BYTES_MAX)), EtcdError.REQUEST_TOO_LARGE),
    (pb.LeaseGrantRequest(TTL=9_000_000_001), EtcdError.LEASE_TTL_TOO_LARGE),
    (pb.CompactionRequest(revision=-1), EtcdError.COMPACTED),
    (pb.TxnRequest(compare=[pb.Compare()]), EtcdError.EMPTY_KEY),
    (pb.TxnRequest(failure=[put(b"")]), EtcdError.EMPTY_KEY),
    (transaction(pb.RequestOp()), EtcdError.KEY_NOT_FOUND),
    (transaction(*[read(b"k")] * (OPERATIONS_MAX + 1)), EtcdError.TOO_MANY_OPERATIONS),
    (pb.TxnRequest(compare=[pb.Compare(key=b"k")] * (OPERATIONS_MAX + 1)), EtcdError.TOO_MANY_OPERATIONS),
    (transaction(*[read(b"k")] * 127, either([read(b"k")], [])), EtcdError.TOO_MANY_OPERATIONS),
    (transaction(put(b"k"), put(b"k")), EtcdError.DUPLICATE_KEY),
    (transaction(put(b"k"), delete(b"k")), EtcdError.DUPLICATE_KEY),
    (transaction(delete(b"a", b"m"), put(b"k")), EtcdError.DUPLICATE_KEY),
    (transaction(either([put(b"k")], []), either([], [put(b"k")])), EtcdError.DUPLICATE_KEY),
    (transaction(either([either([put(b"k")], [])], []), put(b"k")), EtcdError.DUPLICATE_KEY),
    (transaction(either([], [delete(b"k")]), put(b"k")), EtcdError.DUPLICATE_KEY),
    (transaction(put(b"j"), delete(b"k"), either([put(b"k")], [])), EtcdError.DUPLICATE_KEY),
    (pb.TxnRequest(failure=[put(b"k"), put(b"k")]), EtcdError.DUPLICATE_KEY),
]


@pytest.mark.parametrize(("request_", "error"), WRONG, ids=range(len(WRONG)))
def test_wrong_requests(request_: Message, error: EtcdError) -> None:
    assert refusal_of(request_) is error


RIGHT = [
    pb.RangeRequest(key=b"k", limit=-1, revision=-1),
    pb.PutRequest(key=b"k", ignore_value=True, ignore_lease=True),
    pb.PutRequest(key=b"k", value=bytes(REQUEST_BYTES_MAX - 100)),
    pb.LeaseGrantRequest(TTL=9_000_000_000),
    pb.TxnRequest(),
    transaction(*[read(b"k")] * OPERATIONS_MAX),
    pb.TxnRequest(success=[put(b"k")], failure=[put(b"k")]),
    transaction(delete(b"k"), delete(b"k"), read(b"k")),
    transaction(delete(b"a", b"k"), put(b"k")),
    transaction(either([put(b"k")], [put(b"k"), put(b"l")]), put(b"m")),
    transaction(delete(b"a", b"\0"), put(b"k")),
]


@pytest.mark.parametrize("request_", RIGHT, ids=range(len(RIGHT)))
def test_requests_that_may_be_tried(request_: Message) -> None:
    assert refusal_of(request_) is None
