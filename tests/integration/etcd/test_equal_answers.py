"""The same random conversation with two servers of etcd's API gives equal answers."""

import asyncio
import random
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from etcd_cluster import EtcdCluster
from etcd_conversation import converse, differences, text_of
from etcd_nodes import etcd_nodes
from etcd_requests import Call, CreateWatch, Request, random_requests

from isochrone.wire.etcd.checks_grpc import refusal_of
from isochrone.wire.etcd.errors import EtcdError
from isochrone.wire.etcd.generated import rpc_pb2 as pb
from isochrone.wire.kv import ALL

pytestmark = pytest.mark.interop
REQUESTS = 400


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """A fresh etcd."""
    with EtcdCluster(tmp_path, members=1) as cluster:
        yield cluster.leader.address


@pytest.fixture
def other_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Another one."""
    with EtcdCluster(tmp_path_factory.mktemp("other"), members=1) as cluster:
        yield cluster.leader.address


@pytest.mark.parametrize("seed", range(4))
def test_two_stores_give_equal_answers(seed: int, address: str, other_address: str) -> None:
    requests = random_requests(random.Random(seed), REQUESTS)
    ours, theirs = (asyncio.run(converse(each, requests)) for each in (address, other_address))
    assert "\n\n".join(differences(ours, theirs)) == ""


def answered_otherwise_here(request: Request) -> bool:
    """Whether we answer a request otherwise than etcd 3.4, on purpose.

    1. etcd does not see that a deletion without end meets a key that the same transaction puts; we refuse it.
    2. In a transaction etcd takes a revision below 0 for one that is compacted; to us it is the present one, as alone.
    3. etcd sorts by another target than the key, where no order is named, only the first keys up to the limit; we sort
       all of them.
    4. A store of etcd's has all keys; an endpoint of ours has those of its group. (A watch of no key is one of the key
       of one zero byte.)
    """
    if isinstance(request, CreateWatch):
        return not request.request.key and not request.request.range_end
    if not isinstance(request, Call):
        return False
    match request.request:
        case pb.TxnRequest() as transaction:
            return any(map(_is_odd, _operations(transaction)))
        case pb.RangeRequest() as asked:
            return _sorts_a_part(asked)
    return False


def _operations(transaction: pb.TxnRequest) -> Iterator[pb.RequestOp]:
    for operation in (*transaction.success, *transaction.failure):
        yield operation
        if operation.HasField("request_txn"):
            yield from _operations(operation.request_txn)


def _is_odd(operation: pb.RequestOp) -> bool:
    asked = operation.request_range
    return operation.request_delete_range.range_end == ALL or asked.revision < 0 or _sorts_a_part(asked)


def _sorts_a_part(asked: pb.RangeRequest) -> bool:
    return bool(asked.sort_target and asked.limit > 0 and not asked.sort_order)


@pytest.mark.parametrize("seed", range(2))
def test_our_nodes_give_etcds_answers(seed: int, address: str, tmp_path: Path) -> None:
    drawn = random_requests(random.Random(seed), 3 * REQUESTS)
    requests = [request for request in drawn if not answered_otherwise_here(request)]
    assert len(requests) > 2 * REQUESTS
    theirs = asyncio.run(converse(address, requests))
    with etcd_nodes(tmp_path) as (_, leader):
        ours = asyncio.run(converse(leader, requests))
    assert "\n\n".join(differences(ours, theirs)) == ""


def test_a_conversation_meets_what_it_should(address: str) -> None:
    exchanges = asyncio.run(converse(address, random_requests(random.Random(100), 4 * REQUESTS)))
    text = "\n".join(map(str, exchanges))
    for said in (
        "mvcc: required revision has been compacted",
        "mvcc: required revision is a future revision",
        "key is not provided",
        "key not found",
        "value is provided",
        "lease is provided",
        "duplicate key given in txn request",
        "too many operations in txn request",
        "request is too large",
        "requested lease not found",
        "lease already exists",
        "too large lease TTL",
        "duplicate watch ID",
        "compact_revision",
        "prev_kv",
        "more: true",
        "response_txn",
        "type: DELETE",
    ):
        assert said in text, said
    known = {f"{error.value.code}: {error.value.text}" for error in EtcdError}
    refusals = [each.answer for each in exchanges if re.match("[A-Z_]+: ", each.answer)]
    assert set(refusals) <= known, "codes and texts are the published ones"
    told = [line for exchange in exchanges for line in exchange.told]
    assert len(told) > 1000, "watchers are told of events"


IN_ITSELF = {
    EtcdError.EMPTY_KEY,
    EtcdError.VALUE_PROVIDED,
    EtcdError.LEASE_PROVIDED,
    EtcdError.TOO_MANY_OPERATIONS,
    EtcdError.DUPLICATE_KEY,
    EtcdError.REQUEST_TOO_LARGE,
    EtcdError.LEASE_TTL_TOO_LARGE,
}
"""The errors that do not depend on what the store holds."""


def test_requests_that_are_wrong_in_themselves_are_told_as_etcd_tells_them(address: str) -> None:
    requests = random_requests(random.Random(200), 3 * REQUESTS)
    answers = [exchange.answer for exchange in asyncio.run(converse(address, requests))]
    texts = {f"{error.value.code}: {error.value.text}": error for error in EtcdError}
    refused = 0
    for request, answer in zip(requests, answers, strict=True):
        if isinstance(request, Call):
            ours, theirs = refusal_of(request.request), texts.get(answer)
            refused += ours is not None
            if ours is not None or theirs in IN_ITSELF:
                assert ours is theirs, f"{request.path} {text_of(request.request)}"
    assert refused > 30
