"""Numbers at both ends, enums that do not exist and messages that are too large: a real etcd says the same."""

from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from etcd_asking import Asking, with_endpoint
from etcd_cluster import EtcdCluster
from google.protobuf import message_factory
from google.protobuf.message import Message
from host_cluster import HostCluster
from wild_messages import method

from isochrone.wire.etcd.generated import rpc_pb2 as pb
from isochrone.wire.http2.calls import Methods

pytestmark = pytest.mark.interop

LARGEST, SMALLEST = (1 << 63) - 1, -(1 << 63)
KV, LEASE = "/etcdserverpb.KV/", "/etcdserverpb.Lease/"
Question = tuple[str, Message]
Told = tuple[str, str, str]
"""Code, text, and the answer without its header."""


def questions() -> Iterator[Question]:
    """What is asked, in order. Left out is what `docs/etcd.md` lists as different."""
    yield KV + "Put", pb.PutRequest(key=b"k/a", value=b"1")
    yield KV + "Put", pb.PutRequest(key=b"k/b", value=b"1")
    yield KV + "Put", pb.PutRequest(key=b"k/a", value=b"2")
    for key, end in ((b"k/a", b""), (b"k/none", b""), (b"k/", b"k0")):
        for target in (-1, 0, 3, 4, 5, 99):
            for result in (-1, 0, 1, 2, 3, 4, 99):
                compare = pb.Compare(key=key, range_end=end, target=target, result=result)  # type: ignore[arg-type]
                yield KV + "Txn", pb.TxnRequest(compare=[compare])
    for order in (-1, 0, 1, 2, 3, 99):
        for target in (0, 1, 2, 3):
            yield KV + "Range", pb.RangeRequest(key=b"k/", range_end=b"k0", sort_order=order, sort_target=target)  # type: ignore[arg-type]
    for number in (SMALLEST, -1, LARGEST):
        for field in (
            "limit",
            "revision",
            "min_mod_revision",
            "max_mod_revision",
            "min_create_revision",
            "max_create_revision",
        ):
            request = pb.RangeRequest(key=b"k/", range_end=b"k0")
            setattr(request, field, number)
            yield KV + "Range", request
        yield KV + "Put", pb.PutRequest(key=b"k/a", lease=number)
        put = pb.RequestOp(request_put=pb.PutRequest(key=b"k/a", lease=number))
        yield KV + "Txn", pb.TxnRequest(success=[put])
        yield LEASE + "LeaseRevoke", pb.LeaseRevokeRequest(ID=number)
        yield LEASE + "LeaseTimeToLive", pb.LeaseTimeToLiveRequest(ID=number, keys=True)
        yield KV + "Compact", pb.CompactionRequest(revision=number)
    yield LEASE + "LeaseGrant", pb.LeaseGrantRequest(ID=LARGEST, TTL=60)
    yield LEASE + "LeaseGrant", pb.LeaseGrantRequest(ID=LARGEST, TTL=60)
    yield LEASE + "LeaseGrant", pb.LeaseGrantRequest(ID=5, TTL=LARGEST)
    for kilobytes in (1_600, 2_047, 2_048, 3_000):
        yield KV + "Put", pb.PutRequest(key=b"k/a", value=bytes(kilobytes << 10))


def told_by_etcd(address: str) -> list[Told]:
    channel = grpc.insecure_channel(address)
    answers: list[Told] = []
    for path, request in questions():
        answer = message_factory.GetMessageClass(method(path).output_type)
        ask = channel.unary_unary(
            path, request_serializer=lambda said: said.SerializeToString(), response_deserializer=answer.FromString
        )
        try:
            answers.append(("0", "", plain(ask(request, timeout=10))))
        except grpc.RpcError as error:
            answers.append((str(error.code().value[0]), error.details(), ""))
    channel.close()
    return answers


def told_by_us() -> list[Told]:
    answers: list[Told] = []

    async def test(methods: Methods, _: HostCluster) -> None:
        for path, request in questions():
            asking = Asking(methods)
            status = await asking.ask(path, request)
            kind = message_factory.GetMessageClass(method(path).output_type)
            (message,) = asking.answers(1) or (b"",)
            answers.append((*status, "" if status[0] != "0" else plain(kind.FromString(message))))

    with_endpoint(test)
    return answers


def plain(answer: Message) -> str:
    answer.ClearField("header")
    return str(answer)


def test_a_real_etcd_says_the_same(tmp_path: Path) -> None:
    with EtcdCluster(tmp_path, members=1) as cluster:
        theirs = told_by_etcd(cluster.leader.address)
    ours = told_by_us()
    asked = list(questions())
    differences = [
        f"{asked[at][0]} {str(asked[at][1])[:200]}: {ours[at]} here, {theirs[at]} there"
        for at in range(len(asked))
        if ours[at] != theirs[at]
    ]
    assert differences == []
