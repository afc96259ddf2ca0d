"""Any operation and query through the SDK: transactions, leases, locks that are waited for, across leaders."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from host_cluster import HostCluster
from virtual_time import run_virtual

from isochrone.client import Client
from isochrone.errors import Deadlock, DuplicateKey, LeaseNotFound, LockNotHeld
from isochrone.ids import ReplicaRole
from isochrone.wire.kv import ALL, Increment, IncrementResult, Put, Range, RangeResult, Txn, TxnResult
from isochrone.wire.leases import LeaseGrant, LeaseKeepAlive, LeaseKeepAliveResult
from isochrone.wire.locks import LockAcquire, LockEnd, LockMode, LockRelease, LockResult, LockWait

FULL = ReplicaRole.FULL


def with_client(test: Callable[[HostCluster, Client], Awaitable[None]]) -> None:
    async def main() -> None:
        cluster = HostCluster({"a": FULL, "b": FULL, "c": FULL})
        await cluster.start_all()
        await cluster.until(lambda: cluster.leader() is not None)
        client = await cluster.client(timeout_s=30.0)
        await test(cluster, client)
        await cluster.stop_all()

    run_virtual(main())


def test_transactions_and_increments_take_effect_once_under_loss() -> None:
    async def test(cluster: HostCluster, client: Client) -> None:
        cluster.loss = 0.2
        for number in range(1, 21):
            txn = Txn((), (Increment(b"k/n", 1), Put(b"k/last", b"%d" % number)))
            done = (await client.execute("k/n", txn, timeout_s=60)).result
            assert isinstance(done, TxnResult)
            counted = done.results[0]
            assert isinstance(counted, IncrementResult) and counted.value == number
        cluster.loss = 0.0
        found = (await client.query("k/", Range(b"k/", ALL))).result
        assert isinstance(found, RangeResult)
        assert {item.key: item.value for item in found.items} == {b"k/n": b"20", b"k/last": b"20"}
        with pytest.raises(DuplicateKey):
            await client.execute("k/n", Txn((), (Put(b"k/a", b"1"), Put(b"k/a", b"2"))))

    with_client(test)


def test_a_lease_is_renewed_across_leaders() -> None:
    async def test(cluster: HostCluster, client: Client) -> None:
        await client.execute("k/x", LeaseGrant(5, 6_000))
        await client.execute("k/x", Put(b"k/x", b"1", lease=5))
        for round_ in range(6):
            renewed = (await client.query("k/x", LeaseKeepAlive(5), timeout_s=20)).result
            assert isinstance(renewed, LeaseKeepAliveResult) and renewed.ttl_ms == 6_000
            if round_ == 3:
                old = cluster.leader()
                assert old is not None
                await cluster.crash(old)
            await asyncio.sleep(2)
        assert (await client.get("k/x")).value == b"1"
        await asyncio.sleep(12)
        assert (await client.get("k/x")).value is None
        with pytest.raises(LeaseNotFound):
            await client.query("k/x", LeaseKeepAlive(5))

    with_client(test)


def test_a_lock_is_waited_for_across_leaders_and_found_after_lost_answers() -> None:
    async def test(cluster: HostCluster, client: Client) -> None:
        for lease in (1, 2):
            await client.execute("k/", LeaseGrant(lease, 600_000))
        held = (await client.execute("k/lock", LockAcquire(b"k/lock", 1, 1))).result
        waits = (await client.execute("k/lock", LockAcquire(b"k/lock", 2, 2))).result
        assert isinstance(held, LockResult) and isinstance(waits, LockResult) and waits.end is LockEnd.WAITING
        answer = asyncio.create_task(client.query("k/lock", LockWait(b"k/lock", 2, 2), timeout_s=120))
        cluster.loss = 0.2
        await asyncio.sleep(5)
        old = cluster.leader()
        assert old is not None
        await cluster.crash(old)
        await asyncio.sleep(5)
        cluster.loss = 0.0
        assert not answer.done()
        await client.execute("k/lock", LockRelease(b"k/lock", 1, held.token), timeout_s=30)
        granted = (await answer).result
        assert isinstance(granted, LockResult) and granted.end is LockEnd.GRANTED and granted.token > held.token
        with pytest.raises(LockNotHeld):
            await client.execute("k/lock", LockRelease(b"k/lock", 1, held.token))

    with_client(test)


def test_a_deadlock_is_an_error_of_who_closes_it_last() -> None:
    async def test(_: HostCluster, client: Client) -> None:
        for lease in (1, 2):
            await client.execute("k/", LeaseGrant(lease, 600_000))
            await client.execute("k/l", LockAcquire(b"k/l", lease, lease, LockMode.S))
        await client.execute("k/l", LockAcquire(b"k/l", 1, 11, LockMode.X))
        with pytest.raises(Deadlock):
            await client.execute("k/l", LockAcquire(b"k/l", 2, 12, LockMode.X))

    with_client(test)
