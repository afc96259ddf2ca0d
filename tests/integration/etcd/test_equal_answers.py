"""The same random conversation with two servers of etcd's API gives equal answers."""

import asyncio
import random
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from etcd_cluster import EtcdCluster
from etcd_conversation import converse, differences, text_of
from etcd_requests import Call, random_requests

from isochrone.wire.etcd.checks_grpc import refusal_of
from isochrone.wire.etcd.errors import EtcdError

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
