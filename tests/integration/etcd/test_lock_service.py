"""etcd's Lock and Election services at a node that does not lead."""

import asyncio
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from etcd_nodes import etcd_nodes

from isochrone.wire.etcd.generated import rpc_pb2, v3election_pb2, v3lock_pb2
from isochrone.wire.etcd.services_grpc import client_call


async def use(address: str) -> None:
    async with grpc.aio.insecure_channel(address) as channel:

        async def ask(path: str, request: Any) -> Any:
            return await client_call(channel, path)(request, timeout=20)

        grant = rpc_pb2.LeaseGrantRequest(TTL=600)
        first, second, third = [(await ask("/etcdserverpb.Lease/LeaseGrant", grant)).ID for _ in range(3)]
        lock, name = "/v3lockpb.Lock/Lock", b"us/lock"
        held = await ask(lock, v3lock_pb2.LockRequest(name=name, lease=first))
        assert held.key == b"us/lock/%x" % first
        assert (await ask(lock, v3lock_pb2.LockRequest(name=name, lease=first))).key == held.key, "one lease, one lock"
        given_up = asyncio.ensure_future(ask(lock, v3lock_pb2.LockRequest(name=name, lease=second)))
        waiting = asyncio.ensure_future(ask(lock, v3lock_pb2.LockRequest(name=name, lease=third)))
        count = rpc_pb2.RangeRequest(key=b"us/lock/", range_end=b"us/lock0", count_only=True)

        async def until_queue_has(length: int) -> None:
            while True:
                if (await ask("/etcdserverpb.KV/Range", count)).count == length:
                    return
                await asyncio.sleep(0.02)

        await until_queue_has(3)
        given_up.cancel()
        await until_queue_has(2)
        assert not waiting.done()
        await ask("/v3lockpb.Lock/Unlock", v3lock_pb2.UnlockRequest(key=held.key))
        assert (await waiting).key == b"us/lock/%x" % third

        leader_of = v3election_pb2.LeaderRequest(name=b"us/office")
        with pytest.raises(grpc.aio.AioRpcError, match="election: no leader"):
            await ask("/v3electionpb.Election/Leader", leader_of)
        observed = client_call(channel, "/v3electionpb.Election/Observe")(leader_of, timeout=20)
        campaign = v3election_pb2.CampaignRequest(name=b"us/office", lease=first, value=b"one")
        elected = (await ask("/v3electionpb.Election/Campaign", campaign)).leader
        assert (await ask("/v3electionpb.Election/Leader", leader_of)).kv.value == b"one"
        assert (await observed.read()).kv.value == b"one"
        proclaim = v3election_pb2.ProclaimRequest(leader=elected, value=b"two")
        await ask("/v3electionpb.Election/Proclaim", proclaim)
        assert (await ask("/v3electionpb.Election/Leader", leader_of)).kv.value == b"two"
        told = (await observed.read()).kv
        assert (told.key, told.value) == (elected.key, b"two")
        observed.cancel()
        await ask("/v3electionpb.Election/Resign", v3election_pb2.ResignRequest(leader=elected))
        with pytest.raises(grpc.aio.AioRpcError, match="election: not leader"):
            await ask("/v3electionpb.Election/Proclaim", proclaim)
        with pytest.raises(grpc.aio.AioRpcError, match="lies outside group"):
            await ask(lock, v3lock_pb2.LockRequest(name=b"elsewhere", lease=first))


def test_locks_and_elections_through_a_follower(tmp_path: Path) -> None:
    with etcd_nodes(tmp_path) as (addresses, leader):
        follower = next(address for address in addresses if address != leader)
        asyncio.run(asyncio.wait_for(use(follower), 60))
