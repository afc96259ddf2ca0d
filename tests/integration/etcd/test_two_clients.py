"""Two clients at once leave etcd and our nodes in the same state, and are told of the same writes in the same order."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from etcd_cluster import EtcdCluster
from etcd_nodes import etcd_nodes

from isochrone.wire.etcd.generated import kv_pb2
from isochrone.wire.etcd.generated import rpc_pb2 as pb
from isochrone.wire.etcd.services_grpc import client_call

pytestmark = pytest.mark.interop
ROUNDS = 60
COUNTER = b"us/counter"


async def ask(channel: grpc.aio.Channel, path: str, request: Any) -> Any:
    return await client_call(channel, path)(request, timeout=20)


async def work(channel: grpc.aio.Channel, name: bytes) -> None:
    """Count together with the other one, and keep and drop keys of one's own, some of them on a lease."""
    lease = (await ask(channel, "/etcdserverpb.Lease/LeaseGrant", pb.LeaseGrantRequest(TTL=600))).ID
    for number in range(ROUNDS):
        own = b"us/%s/%03d" % (name, number)
        while not await counted(channel, own, lease if number % 4 == 0 else 0):
            pass
        if number % 3 == 0:
            await ask(channel, "/etcdserverpb.KV/DeleteRange", pb.DeleteRangeRequest(key=own))
    await ask(channel, "/etcdserverpb.Lease/LeaseRevoke", pb.LeaseRevokeRequest(ID=lease))


async def counted(channel: grpc.aio.Channel, own: bytes, lease: int) -> bool:
    """Raise the counter, unless the other one was faster."""
    held = (await ask(channel, "/etcdserverpb.KV/Range", pb.RangeRequest(key=COUNTER))).kvs
    number = int(held[0].value) if held else 0
    revision = held[0].mod_revision if held else 0
    unchanged = pb.Compare(target=pb.Compare.MOD, key=COUNTER, mod_revision=revision)
    puts = [
        pb.RequestOp(request_put=pb.PutRequest(key=COUNTER, value=b"%d" % (number + 1))),
        pb.RequestOp(request_put=pb.PutRequest(key=own, value=b"%d" % len(own), lease=lease)),
    ]
    return bool(
        (await ask(channel, "/etcdserverpb.KV/Txn", pb.TxnRequest(compare=[unchanged], success=puts))).succeeded
    )


async def told(channel: grpc.aio.Channel, revision: int) -> list[kv_pb2.Event]:
    """All events up to a revision."""
    watch = client_call(channel, "/etcdserverpb.Watch/Watch")()
    create = pb.WatchCreateRequest(key=b"us/", range_end=b"us0", start_revision=1)
    await watch.write(pb.WatchRequest(create_request=create))
    events: list[kv_pb2.Event] = []
    while not events or events[-1].kv.mod_revision < revision:
        events += (await watch.read()).events
    watch.cancel()
    return events


async def converse(addresses: Sequence[str]) -> tuple[int, list[tuple[bytes, bytes, int]]]:
    """Two clients, each at its address; the revision and the keys when both have ended."""
    options = [("grpc.enable_retries", 0)]
    async with (
        grpc.aio.insecure_channel(addresses[0], options=options) as first,
        grpc.aio.insecure_channel(addresses[1], options=options) as second,
    ):
        await asyncio.gather(work(first, b"first"), work(second, b"second"))
        held = await ask(first, "/etcdserverpb.KV/Range", pb.RangeRequest(key=b"us/", range_end=b"us0"))
        revision = held.header.revision
        async with asyncio.timeout(20):
            one, other = await asyncio.gather(told(first, revision), told(second, revision))
        assert [each.SerializeToString() for each in one] == [each.SerializeToString() for each in other]
        counts = [int(each.kv.value) for each in one if each.kv.key == COUNTER]
        assert counts == list(range(1, 2 * ROUNDS + 1)), "no write was lost, none was made twice"
        return revision, [(item.key, item.value, item.version) for item in held.kvs]


def test_two_clients_leave_the_same_state(tmp_path: Path) -> None:
    (tmp_path / "etcd").mkdir()
    with EtcdCluster(tmp_path / "etcd", members=1) as cluster:
        theirs = asyncio.run(converse(cluster.addresses * 2))
    with etcd_nodes(tmp_path) as (addresses, leader):
        follower = next(address for address in addresses if address != leader)
        ours = asyncio.run(converse([leader, follower]))
    assert ours == theirs
    assert len(theirs[1]) > ROUNDS // 2
