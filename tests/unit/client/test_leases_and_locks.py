"""Leases and locks of the SDK: renewed in time, given up before they are lost, exclusive by time and by token."""

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import closing

import pytest
from host_cluster import HostCluster
from virtual_time import run_virtual

from isochrone.client import FOREVER, Client, Dialect, FenceGate, WatchEvent
from isochrone.errors import Deadlock, ForeignToken, InvalidRequest, LeaseLost, LockHeld, StaleToken
from isochrone.ids import ReplicaRole
from isochrone.wire.fence_gates import fenced
from isochrone.wire.kv import Put, TxnResult
from isochrone.wire.leases import LeaseRevoke
from isochrone.wire.locks import LockMode, LockQuery, LockQueryResult

FULL = ReplicaRole.FULL


def with_clients(test: Callable[[HostCluster, Client, Client], Awaitable[None]]) -> None:
    async def main() -> None:
        cluster = HostCluster({"a": FULL, "b": FULL, "c": FULL})
        await cluster.start_all()
        await cluster.until(lambda: cluster.leader() is not None)
        first = await cluster.client(timeout_s=20.0)
        second = await cluster.client(timeout_s=20.0)
        await test(cluster, first, second)
        await cluster.stop_all()

    run_virtual(main())


def now() -> float:
    return asyncio.get_running_loop().time()


def cut_client(cluster: HostCluster, number: int) -> None:
    cluster.cut |= {pair for node in "abc" for pair in ((f"client-{number}", node), (node, f"client-{number}"))}


async def until_gone(client: Client, key: str) -> float:
    """When the key is removed."""
    async with client.watch(key, puts=False) as watcher:
        await anext(watcher)
    return now()


# ---- leases


@pytest.mark.parametrize("ttl_s", [0.0, -1.0, float("inf"), float("nan")])
def test_a_time_to_live_that_is_none_is_refused(ttl_s: float) -> None:
    async def test(_: HostCluster, client: Client, __: Client) -> None:
        with pytest.raises(InvalidRequest, match=r"time to live of .* a finite time above 0 is needed"):
            client.lock("k/lock", ttl_s=ttl_s)
        with pytest.raises(InvalidRequest, match="a finite time above 0 is needed"):
            await client.leases.grant("k/", ttl_s)

    with_clients(test)


@pytest.mark.parametrize("delay_s", [-1.0, float("inf"), float("nan")])
def test_a_lock_delay_that_is_no_time_is_refused(delay_s: float) -> None:
    async def test(_: HostCluster, client: Client, __: Client) -> None:
        with pytest.raises(InvalidRequest, match=r"a lock-delay of .* a finite time from 0 is needed"):
            client.lock("k/lock", delay_s=delay_s)

    with_clients(test)


def test_numbers_beyond_64_bits_are_refused_and_the_session_goes_on() -> None:
    async def test(_: HostCluster, client: Client, __: Client) -> None:
        for _number in range(3):
            with pytest.raises(InvalidRequest, match="a number has more than 64 bits"):
                await client.kv.increment("k/n", 1 << 64)
            with pytest.raises(InvalidRequest, match="a number has more than 64 bits"):
                await client.kv.range("k/n", revision=1 << 64)
            with pytest.raises(InvalidRequest, match="a start from 0"):
                client.watch("k/n", start_revision=1 << 63)
            assert (await client.kv.increment("k/n", 1)).value > 0

    with_clients(test)


def test_a_lease_lives_as_long_as_its_body_and_no_longer() -> None:
    async def test(_: HostCluster, client: Client, other: Client) -> None:
        async with client.lease("k/", ttl_s=3) as lease:
            await client.execute("k/x", Put(b"k/x", b"1", lease=lease.identity))
            await asyncio.sleep(30)
            assert 1.5 < lease.remaining_s < 3 and not lease.lost.is_set()
            assert (await other.get("k/x")).value == b"1"
        assert (await other.get("k/x")).value is None, "leaving revokes it"

    with_clients(test)


def test_a_lease_outlives_its_leader() -> None:
    async def test(cluster: HostCluster, client: Client, other: Client) -> None:
        async with client.lease("k/", ttl_s=6) as lease:
            await client.execute("k/x", Put(b"k/x", b"1", lease=lease.identity))
            old = cluster.leader()
            assert old is not None
            await cluster.crash(old)
            await asyncio.sleep(20)
            assert (await other.get("k/x")).value == b"1"

    with_clients(test)


def test_a_body_that_cannot_renew_is_cancelled_before_the_group_ends_the_lease() -> None:
    async def test(cluster: HostCluster, client: Client, other: Client) -> None:
        began = cancelled_at = 0.0

        async def hold() -> None:
            nonlocal began, cancelled_at
            async with client.lease("k/", ttl_s=3) as lease:
                await client.execute("k/x", Put(b"k/x", b"1", lease=lease.identity))
                await asyncio.sleep(5)
                cut_client(cluster, 0)
                began = now()
                try:
                    await asyncio.sleep(60)
                finally:
                    cancelled_at = now()
                    assert lease.remaining_s == pytest.approx(0, abs=0.01)

        gone = asyncio.create_task(until_gone(other, "k/x"))
        with pytest.raises(LeaseLost):
            await hold()
        assert cancelled_at - began <= 3
        assert cancelled_at < await gone
        cluster.heal()

    with_clients(test)


def test_a_lease_that_was_revoked_elsewhere_ends_its_body() -> None:
    async def test(_: HostCluster, client: Client, other: Client) -> None:
        lease = client.lease("k/", ttl_s=3)

        async def hold() -> None:
            async with lease:
                await other.execute("k/", LeaseRevoke(lease.identity))
                await asyncio.sleep(60)

        with pytest.raises(LeaseLost):
            await hold()
        assert lease.lost.is_set() and lease.remaining_s == 0

    with_clients(test)


def test_an_error_of_the_body_is_its_own() -> None:
    async def test(_: HostCluster, client: Client, other: Client) -> None:
        with pytest.raises(ZeroDivisionError):
            async with client.lease("k/", ttl_s=3):
                raise ZeroDivisionError
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1), client.lease("k/", ttl_s=30):
                await asyncio.sleep(60)
        with pytest.raises(InvalidRequest):
            client.lease("nowhere/")

    with_clients(test)


# ---- locks


def test_holders_of_a_lock_follow_one_another_with_rising_tokens() -> None:
    async def test(cluster: HostCluster, first: Client, second: Client) -> None:
        inside, tokens = 0, list[int]()

        async def work(client: Client, times: int) -> None:
            nonlocal inside
            for _ in range(times):
                async with client.lock("k/lock", ttl_s=5) as lock:
                    inside += 1
                    assert inside == 1
                    tokens.append(lock.token)
                    await asyncio.sleep(0.7)
                    inside -= 1

        tasks = [asyncio.create_task(work(client, 4)) for client in (first, second, first)]
        await asyncio.sleep(3)
        old = cluster.leader()
        assert old is not None
        await cluster.crash(old)
        await asyncio.gather(*tasks)
        assert len(tokens) == 12 and tokens == sorted(set(tokens))

    with_clients(test)


def test_a_lock_is_not_waited_for_longer_than_wanted() -> None:
    async def test(_: HostCluster, first: Client, second: Client) -> None:
        async with first.lock("k/lock"):
            for wait_s in (0.0, 2.0):
                began = now()
                with pytest.raises(LockHeld):
                    async with second.lock("k/lock", wait_s=wait_s):
                        raise AssertionError
                assert wait_s <= now() - began < wait_s + 1
            async with (
                second.lock("k/other", wait_s=0, mode=LockMode.S),
                first.lock("k/other", wait_s=0, mode=LockMode.S),
            ):
                pass
        async with second.lock("k/lock", wait_s=0):
            pass

    with_clients(test)


def test_a_holder_that_is_cut_off_stops_before_another_starts_and_cannot_write_after() -> None:
    """L1, L7: exclusive by time; and by token, should the body go on nevertheless."""

    async def test(cluster: HostCluster, first: Client, second: Client) -> None:
        stopped_at = 0.0

        async def hold() -> int:
            nonlocal stopped_at
            token = 0
            try:
                async with first.lock("k/lock", ttl_s=4) as lock:
                    token = lock.token
                    await asyncio.sleep(100)
            except LeaseLost:
                stopped_at = now()
            return token

        holding = asyncio.create_task(hold())
        await asyncio.sleep(2)
        cut_client(cluster, 0)
        async with second.lock("k/lock", ttl_s=4) as lock:
            assert 0 < stopped_at < now()
            guarded = await second.execute("k/", fenced(b"k/gate", b"k/lock", lock.token, Put(b"k/data", b"second")))
            assert isinstance(guarded.result, TxnResult) and guarded.result.succeeded
            cluster.heal()
            stale = await first.execute("k/", fenced(b"k/gate", b"k/lock", await holding, Put(b"k/data", b"first")))
            assert isinstance(stale.result, TxnResult) and not stale.result.succeeded
        assert (await second.get("k/data")).value == b"second"

    with_clients(test)


def test_a_holder_that_lost_its_lock_cannot_write_to_a_database_either() -> None:
    """L1 with tokens as they are granted, and with that of another lock."""

    async def test(cluster: HostCluster, first: Client, second: Client) -> None:
        fence = FenceGate(Dialect.SQLITE)
        with closing(sqlite3.connect(":memory:")) as database:
            fence.create_table(database.cursor())
            lost = first.lock("k/lock", ttl_s=4)

            async def hold_and_lose() -> None:
                async with lost:
                    fence.advance(database.cursor(), "data", lost.name, lost.token)
                    database.commit()
                    cut_client(cluster, 0)
                    await asyncio.sleep(100)

            with pytest.raises(LeaseLost):
                await hold_and_lose()
            async with second.lock("k/lock", ttl_s=4) as lock, second.lock("k/other", ttl_s=4) as other:
                fence.advance(database.cursor(), "data", lock.name, lock.token)
                database.commit()
                with pytest.raises(StaleToken):
                    fence.advance(database.cursor(), "data", lost.name, lost.token)
                assert other.token > lock.token
                with pytest.raises(ForeignToken):
                    fence.advance(database.cursor(), "data", other.name, other.token)
                fence.advance(database.cursor(), "data", lock.name, lock.token)
            with pytest.raises(InvalidRequest):
                fence.advance(database.cursor(), "data", lock.name, second.lock("k/lock").token)

    with_clients(test)


def test_after_a_lost_holder_the_lock_stays_closed_for_its_delay() -> None:
    async def test(cluster: HostCluster, first: Client, second: Client) -> None:
        async def hold() -> None:
            with pytest.raises(LeaseLost):
                async with first.lock("k/lock", ttl_s=3, delay_s=6):
                    await asyncio.sleep(100)

        holding = asyncio.create_task(hold())
        await asyncio.sleep(1)
        cut_client(cluster, 0)
        began = now()
        async with second.lock("k/lock", ttl_s=3):
            assert now() - began >= 7
        await holding
        cluster.heal()

    with_clients(test)


def test_of_two_that_wait_for_each_other_one_fails_and_the_other_goes_on() -> None:
    async def test(_: HostCluster, first: Client, second: Client) -> None:
        ends: list[str] = []

        async def both(client: Client, one: str, two: str) -> None:
            try:
                async with client.lease("k/") as lease, client.lock(one, lease=lease):
                    await asyncio.sleep(1)
                    async with client.lock(two, lease=lease):
                        ends.append("both")
            except Deadlock:
                ends.append("deadlock")

        async with asyncio.timeout(20):
            await asyncio.gather(both(first, "k/a", "k/b"), both(second, "k/b", "k/a"))
        assert sorted(ends) == ["both", "deadlock"]

    with_clients(test)


def test_locks_on_one_lease_are_given_up_one_by_one() -> None:
    async def test(_: HostCluster, first: Client, second: Client) -> None:
        async with first.lease("k/") as lease:
            async with first.lock("k/a", lease=lease), first.lock("k/b", lease=lease):
                pass
            async with second.lock("k/a", wait_s=0), second.lock("k/b", wait_s=0):
                waiting = asyncio.create_task(first.lock("k/a", lease=lease).__aenter__())
                await asyncio.sleep(1)
                waiting.cancel()
                await asyncio.gather(waiting, return_exceptions=True)
            async with second.lock("k/a", wait_s=0):
                assert not lease.lost.is_set()

    with_clients(test)


@pytest.mark.parametrize("shares_lease", [False, True])
def test_a_lock_that_is_entered_again_is_refused_and_stays_held(shares_lease: bool) -> None:
    async def test(_: HostCluster, first: Client, second: Client) -> None:
        async with first.lease("k/", ttl_s=3) as lease:

            async def hold() -> None:
                lock = first.lock("k/a", lease=lease) if shares_lease else first.lock("k/a", ttl_s=3)
                async with lock:
                    token = lock.token
                    with pytest.raises(InvalidRequest):
                        await lock.__aenter__()
                    await asyncio.sleep(10)
                    assert lock.token == token and lock.remaining_s > 0
                    with pytest.raises(LockHeld):
                        await second.lock("k/a", wait_s=0).__aenter__()

            await asyncio.create_task(hold())
            async with second.lock("k/a", wait_s=0):
                pass

    with_clients(test)


def test_what_is_granted_while_its_asker_gives_up_is_given_up_too() -> None:
    async def test(_: HostCluster, first: Client, second: Client) -> None:
        async with first.lease("k/") as lease:
            held = await second.lock("k/a").__aenter__()
            waiting = asyncio.create_task(first.lock("k/a", lease=lease).__aenter__())
            await asyncio.sleep(1)
            releasing = asyncio.create_task(second.leases.revoke("k/", held.lease.identity))
            await asyncio.sleep(0.001)
            waiting.cancel()  # The release is on its way, and comes before this.
            await releasing
            with pytest.raises(LeaseLost):
                await held.__aexit__(None, None, None)
            with pytest.raises(asyncio.CancelledError):
                await waiting
            async with second.lock("k/a", wait_s=0):
                assert not lease.lost.is_set()

    with_clients(test)


def test_giving_up_a_conversion_leaves_the_weaker_hold() -> None:
    async def test(_: HostCluster, first: Client, second: Client) -> None:
        async with (
            second.lock("k/a", mode=LockMode.S),
            first.lease("k/") as lease,
            first.lock("k/a", lease=lease, mode=LockMode.S) as shared,
        ):
            with pytest.raises(LockHeld):
                await shared.convert(LockMode.X, wait_s=0.5)
            waiting = asyncio.create_task(shared.convert(LockMode.X))
            await asyncio.sleep(1)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            view = (await first.query("k/a", LockQuery(b"k/a"))).result
            assert isinstance(view, LockQueryResult)
            assert shared.token in [item.token for item in view.requests]

    with_clients(test)


def test_an_election_can_be_watched() -> None:
    async def test(cluster: HostCluster, first: Client, second: Client) -> None:
        seen: list[bytes] = []

        async def observe() -> None:
            async with second.watch("k/leader") as watcher:
                async for told in watcher:
                    assert isinstance(told, WatchEvent)
                    seen.append(told.item.value)

        async def campaign(client: Client, name: str) -> None:
            async with client.lock("k/leader", ttl_s=3, announce=True, value=name):
                await asyncio.sleep(2)

        observing = asyncio.create_task(observe())
        await asyncio.sleep(1)
        await asyncio.gather(*(campaign(client, name) for client, name in ((first, "x"), (second, "y"), (first, "z"))))
        await asyncio.sleep(1)
        assert sorted(value for value in seen if value) == [b"x", b"y", b"z"]
        assert (await first.get("k/leader")).value is None
        observing.cancel()
        await asyncio.gather(observing, return_exceptions=True)

    with_clients(test)


def test_a_lock_outlives_leaders_that_change_faster_than_its_time_to_live() -> None:
    async def test(cluster: HostCluster, first: Client, second: Client) -> None:
        held, entered_at = True, 0.0

        async def contend() -> None:
            nonlocal entered_at
            async with second.lock("k/lock", ttl_s=8, wait_s=FOREVER):
                assert not held, "two hold it"
                entered_at = now()

        async with first.lock("k/lock", ttl_s=8) as lock:
            contending = asyncio.create_task(contend())
            leaders: list[str] = []
            for _ in range(5):
                await cluster.until(lambda: cluster.leader() is not None)
                leader = cluster.leader()
                assert leader is not None
                leaders.append(leader)
                await cluster.crash(leader)
                await asyncio.sleep(5)
                await cluster.start(leader)
            assert not lock.lease.lost.is_set() and lock.remaining_s > 0
            assert len(set(leaders)) > 1
            held = False
        left_at = now()
        await contending
        assert entered_at - left_at < 5, "a lock that is released is not waited out"

    with_clients(test)
