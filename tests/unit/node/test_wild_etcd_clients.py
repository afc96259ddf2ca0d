"""Requests of etcd's API that say anything at all: each call ends once, with an answer or a status."""

import asyncio
import random

import pytest
from etcd_asking import Asking, with_endpoint
from host_cluster import GROUP, HostCluster
from http2_client import prefixed
from wild_messages import method, request
from wild_requests import damaged

from isochrone.ids import NodeId
from isochrone.node import etcd_calls_grpc, etcd_watches_grpc
from isochrone.node.etcd_endpoint_grpc import MESSAGE_BYTES_MAX
from isochrone.node.etcd_watches_grpc import PATH
from isochrone.wire.etcd.checks_grpc import REQUEST_BYTES_MAX
from isochrone.wire.etcd.generated import rpc_pb2 as pb
from isochrone.wire.etcd.plain import plain_put, plain_range
from isochrone.wire.http2 import frames
from isochrone.wire.http2.calls import Methods

PUT, RANGE = "/etcdserverpb.KV/Put", "/etcdserverpb.KV/Range"


@pytest.mark.parametrize("seed", range(5))
def test_wild_requests_end_in_an_answer_or_a_status(seed: int) -> None:
    async def test(methods: Methods, cluster: HostCluster) -> None:
        rng, asking, other = random.Random(seed), Asking(methods), Asking(methods)
        unary: list[tuple[int, str]] = []
        for number in range(60):
            for _ in range(6):
                path = rng.choice(list(methods))
                data = request(rng, path).SerializeToString()
                stream = asking.begin(path, damaged(rng, data) if rng.random() < 0.15 else data)
                if not (method(path).server_streaming or "/Lock" in path or "Election" in path):
                    unary.append((stream, path))
                if rng.random() < 0.05:
                    asking.client.send(frames.RST_STREAM, 0, stream, bytes(4))
                    unary = [each for each in unary if each[0] != stream]
            put = pb.PutRequest(key=b"k/other/%d" % number)
            assert await other.ask(PUT, put) == ("0", "")
            asking.read()
        await asyncio.sleep(20)
        asking.read()
        assert not asking.client.connection.closing
        assert [path for stream, path in unary if asking.status(stream) is None] == []
        asking.client.connection.lost()
        await asyncio.sleep(1)
        host = cluster.processes[NodeId("a")].host
        assert host is not None and len(host.replicas[GROUP].service._watches.hub) == 0

    with_endpoint(test)


NO_CALL = b"\xff\xff\xff\xff"


def test_what_is_no_message_is_refused() -> None:
    async def test(methods: Methods, _: HostCluster) -> None:
        asking = Asking(methods)
        for path in methods:
            stream = asking.begin(path, NO_CALL)
            await asyncio.sleep(0.1)
            asking.read()
            status = asking.status(stream)
            assert status is not None and status[0] == "13", path
            silent = asking.client.open(path, end=True)  # no message at all
            await asyncio.sleep(0.1)
            asking.read()
            assert asking.status(silent) is not None or method(path).client_streaming, path

    with_endpoint(test)


def test_sizes() -> None:
    async def test(methods: Methods, _: HostCluster) -> None:
        asking = Asking(methods)
        fits = pb.PutRequest(key=b"k/a", value=bytes(1 << 20))
        assert (await asking.ask(PUT, fits))[0] == "0"
        assert await asking.ask(PUT, pb.PutRequest(key=b"k/a", value=bytes(REQUEST_BYTES_MAX))) == (
            "3",
            "etcdserver: request is too large",
        )
        told = await asking.ask(PUT, pb.PutRequest(key=b"k/a", value=bytes(MESSAGE_BYTES_MAX)))
        assert told == (
            "8",
            f"grpc: received message larger than max ({MESSAGE_BYTES_MAX + 10} vs. {MESSAGE_BYTES_MAX})",
        )

    with_endpoint(test)


def test_watchers_of_a_stream_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(etcd_watches_grpc, "WATCHERS_MAX", 20)

    async def test(methods: Methods, _: HostCluster) -> None:
        asking = Asking(methods)
        create = pb.WatchRequest(create_request=pb.WatchCreateRequest(key=b"k/a"))
        stream = asking.begin(PATH, create.SerializeToString(), end=False)
        for _ in range(29):
            asking.client.data(stream, prefixed(create.SerializeToString()))
        await asyncio.sleep(0.1)
        asking.read()
        told = [pb.WatchResponse.FromString(each) for each in asking.answers(stream)]
        assert [each.canceled for each in told] == [False] * 20 + [True] * 10
        assert {each.cancel_reason for each in told[20:]} == {"etcdserver: too many requests"}

    with_endpoint(test)


def test_a_client_that_does_not_take_its_answers_is_not_read_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(etcd_calls_grpc, "ANSWERS_BACKLOG_BYTES_MAX", 100_000)

    async def test(methods: Methods, _: HostCluster) -> None:
        asking = Asking(methods, takes=False)
        other = Asking(methods)
        assert await other.ask(PUT, pb.PutRequest(key=b"k/a", value=bytes(90_000))) == ("0", "")
        wanted = pb.RangeRequest(key=b"k/a").SerializeToString()
        streams = [asking.begin(RANGE, wanted) for _ in range(10)]
        await asyncio.sleep(1)
        asking.client.connection.receive(frames.window_update(0, 1 << 30))
        for stream in streams:
            if asking.status(stream) is None:
                asking.client.connection.receive(frames.window_update(stream, 1 << 20))
        asking.read()
        ends = [asking.status(stream) for stream in streams]
        assert ends.count(("0", "")) == 2 and ends.count(("8", "etcdserver: too many requests")) == 8
        assert not asking.client.connection.closing

    with_endpoint(test)


def test_what_is_read_without_protobuf_is_what_protobuf_reads() -> None:
    rng = random.Random(5)
    found = 0
    for _ in range(20_000):
        key, value = rng.randbytes(rng.choice((1, 3, 60, 130))), rng.randbytes(rng.choice((0, 1, 100, 127, 128, 300)))
        data = pb.PutRequest(key=key, value=value, lease=rng.choice((0, 0, 1))).SerializeToString()
        said = damaged(rng, data) if rng.random() < 0.7 else data
        if (put := plain_put(said)) is not None:
            found += 1
            assert pb.PutRequest.FromString(said) == pb.PutRequest(key=put[0], value=put[1])
        data = pb.RangeRequest(key=key, serializable=rng.random() < 0.5).SerializeToString()
        said = damaged(rng, data) if rng.random() < 0.7 else data
        if (asked := plain_range(said)) is not None:
            found += 1
            assert pb.RangeRequest.FromString(said) == pb.RangeRequest(key=asked[0], serializable=asked[1])
    assert found > 5_000
