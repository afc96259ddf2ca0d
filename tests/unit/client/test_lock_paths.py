"""Lock modes, conversions and hierarchies of the SDK; waits that end by default."""

import asyncio
import math
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager

import pytest
from host_cluster import HostCluster
from virtual_time import run_virtual

from isochrone.client import FOREVER, Client, HeldSession, LockMode
from isochrone.errors import Deadlock, InvalidRequest, LeaseLost, LockHeld, LockOrder
from isochrone.ids import ReplicaRole
from isochrone.wire.locks import LockQuery, LockQueryResult

FULL = ReplicaRole.FULL


def with_clients(test: Callable[[HostCluster, Client, Client], Awaitable[None]]) -> None:
    async def main() -> None:
        cluster = HostCluster({"a": FULL, "b": FULL, "c": FULL})
        await cluster.start_all()
        await cluster.until(lambda: cluster.leader() is not None)
        await test(cluster, await cluster.client(timeout_s=5.0), await cluster.client(timeout_s=5.0))
        await cluster.stop_all()

    run_virtual(main())


def now() -> float:
    return asyncio.get_running_loop().time()


async def modes(client: Client, name: str) -> list[LockMode]:
    """In which modes a lock is held."""
    found = (await client.query(name, LockQuery(name.encode()))).result
    assert isinstance(found, LockQueryResult)
    return [request.mode for request in found.requests if request.token]


async def is_held(client: Client, name: str, mode: LockMode) -> bool:
    """Whether somebody excludes a mode."""
    try:
        async with client.lock(name, wait_s=0, mode=mode):
            return False
    except LockHeld:
        return True


def test_waits_end_with_the_clients_deadline_unless_another_one_is_given() -> None:
    async def test(_: HostCluster, first: Client, second: Client) -> None:
        async with first.lock("k/lock"):
            began = now()
            with pytest.raises(LockHeld, match="in 5 s"):
                await second.lock("k/lock").__aenter__()
            assert 5 <= now() - began < 6
            waiting = asyncio.create_task(second.lock("k/lock", wait_s=FOREVER).__aenter__())
            await asyncio.sleep(500)
            assert not waiting.done()
        await waiting
        for wait_s in (-1, math.nan):
            with pytest.raises(InvalidRequest, match="FOREVER"):
                first.lock("k/lock", wait_s=wait_s)

    with_clients(test)


def test_a_wait_that_is_broken_off_leaves_neither_a_wait_nor_a_grant() -> None:
    async def test(_: HostCluster, first: Client, second: Client) -> None:
        async with second.session("k/") as session:
            for pause_s in (0.0, 0.01, 0.02, 0.03, 0.05, 0.08, 0.1):
                entering = asyncio.create_task(session.lock("k/lock").__aenter__())
                await asyncio.sleep(pause_s)
                entering.cancel()
                await asyncio.gather(entering, return_exceptions=True)
                if not entering.cancelled():
                    await entering.result().__aexit__(None, None, None)
                assert await modes(first, "k/lock") == []
            async with session.lock("k/lock", wait_s=0):
                pass

    with_clients(test)


def test_a_lock_is_converted_to_a_stronger_mode_before_others_that_wait() -> None:
    async def hold(client: Client) -> None:
        async with client.lock("k/lock", wait_s=30):
            pass

    async def test(_: HostCluster, first: Client, second: Client) -> None:
        async with first.session("k/") as session, session.lock("k/lock", mode=LockMode.S) as lock:
            before = lock.token
            async with second.lock("k/lock", mode=LockMode.IS):
                waiting = asyncio.create_task(hold(second))
                await asyncio.sleep(1)
                await lock.convert(LockMode.IX, wait_s=0)
                assert lock.mode is LockMode.SIX and lock.token > before, "S and IX together"
                with pytest.raises(LockHeld):
                    await lock.convert(LockMode.X, wait_s=1)
                assert lock.mode is LockMode.SIX and await modes(first, "k/lock") == [LockMode.IS, LockMode.SIX]
            await lock.convert(LockMode.X)
            assert not waiting.done()
            with pytest.raises(InvalidRequest, match="convert"):
                await session.lock("k/lock", mode=LockMode.S).__aenter__()
        await waiting
        assert await modes(first, "k/lock") == []

    with_clients(test)


def test_of_two_that_share_a_lock_and_both_want_it_whole_one_is_told() -> None:
    """L6."""

    async def test(_: HostCluster, first: Client, second: Client) -> None:
        ends: list[str] = []

        async def upgrade(client: Client) -> None:
            async with client.lock("k/lock", mode=LockMode.S) as lock:
                await asyncio.sleep(1)
                try:
                    await lock.convert(LockMode.X, wait_s=10)
                    ends.append("converted")
                except Deadlock:
                    assert lock.mode is LockMode.S and lock.remaining_s > 0, "it is held as before"
                    ends.append("deadlock")

        await asyncio.gather(upgrade(first), upgrade(second))
        assert ends == ["deadlock", "converted"]

    with_clients(test)


def test_a_path_takes_intentions_on_its_way_down_and_gives_them_up_on_its_way_up() -> None:
    async def test(_: HostCluster, first: Client, second: Client) -> None:
        async with first.session("k/") as one, second.session("k/") as two:
            with pytest.raises(LockOrder):
                await one.lock("k/db/t", hierarchical=True).__aenter__()
            async with one.lock_path("k/db/t/1") as row:
                assert row.token and await modes(first, "k/db/t") == await modes(first, "k/db") == [LockMode.IX]
                async with two.lock_path("k/db/t/2", wait_s=0), two.lock_path("k/db/u", mode=LockMode.S, wait_s=0):
                    assert await modes(first, "k/db") == [LockMode.IX, LockMode.IX]
                for name, mode in (("k/db/t/1", LockMode.S), ("k/db/t", LockMode.S), ("k/db", LockMode.X)):
                    with pytest.raises(LockHeld):
                        await two.lock_path(name, mode=mode, wait_s=0).__aenter__()
                assert await modes(first, "k/db") == await modes(first, "k/db/t") == [LockMode.IX], "nothing is left"
                async with two.lock_path("k/db/t", mode=LockMode.IS, wait_s=0):
                    pass
            for name in ("k/db", "k/db/t", "k/db/t/1"):
                assert await modes(first, name) == []
            with pytest.raises(InvalidRequest, match="empty level"):
                one.lock_path("k/db//1")

    with_clients(test)


def test_paths_of_one_session_share_their_upper_levels() -> None:
    async def test(_: HostCluster, first: Client, second: Client) -> None:
        async with first.session("k/") as session:
            async with session.lock_path("k/db/t/1", mode=LockMode.S):
                assert await modes(second, "k/db/t") == [LockMode.IS]
                async with session.lock_path("k/db/t/2"):
                    assert await modes(second, "k/db/t") == [LockMode.IX], "converted"
                assert await modes(second, "k/db/t/2") == [] and await modes(second, "k/db/t") == [LockMode.IX]
            assert await modes(second, "k/db") == []

            async def work(number: int) -> None:
                for turn in range(4):
                    async with session.lock_path(f"k/db/t{turn % 2}/{number}"):
                        await asyncio.sleep(0.1 * number)

            await asyncio.gather(*(work(number) for number in range(4)))
            for name in ("k/db", "k/db/t0", "k/db/t1"):
                assert not await is_held(second, name, LockMode.X)

    with_clients(test)


def test_a_path_is_waited_for_no_longer_than_wanted_and_lost_with_its_session() -> None:
    async def test(cluster: HostCluster, first: Client, second: Client) -> None:
        async def hold() -> None:
            async with first.session("k/", ttl_s=4) as session, session.lock_path("k/db/t/1"):
                await asyncio.sleep(100)

        holding = asyncio.create_task(hold())
        await asyncio.sleep(1)
        async with second.session("k/") as session:
            began = now()
            with pytest.raises(LockHeld):
                await session.lock_path("k/db/t", wait_s=2).__aenter__()
            assert 2 <= now() - began < 3
            cluster.cut |= {pair for node in "abc" for pair in (("client-0", node), (node, "client-0"))}
            async with session.lock_path("k/db/t", wait_s=30):
                assert holding.done()
        with pytest.raises(LeaseLost):
            await holding
        cluster.heal()

    with_clients(test)


def test_other_tasks_of_a_session_are_told_of_its_loss_and_of_its_end() -> None:
    async def test(cluster: HostCluster, first: Client, second: Client) -> None:
        ended_at: dict[str, float] = {}

        async def hold(name: str, held: AbstractAsyncContextManager[object]) -> None:
            try:
                async with held:
                    await asyncio.sleep(1000)
            finally:
                ended_at[name] = now()

        def start(session: HeldSession) -> list[asyncio.Task[None]]:
            return [
                asyncio.create_task(hold("lock", session.lock("k/lock"))),
                asyncio.create_task(hold("path", session.lock_path("k/db/t"))),
                asyncio.create_task(hold("same path", session.lock_path("k/db/u"))),
                asyncio.create_task(hold("leader", session.election("k/leader", "me"))),
                asyncio.create_task(hold("waiting", session.lock("k/taken", wait_s=FOREVER))),
                asyncio.create_task(
                    hold("barrier", first.recipes.double_barrier("k/b", 2, lease=session.lease, wait_s=FOREVER))
                ),
            ]

        async with second.lock("k/taken"):
            tasks: list[asyncio.Task[None]] = []
            lost_at: list[float] = []

            async def lose() -> None:
                async with first.session("k/", ttl_s=4) as session:
                    tasks.extend(start(session))
                    await asyncio.sleep(5)
                    assert not ended_at
                    cluster.cut |= {pair for node in "abc" for pair in (("client-0", node), (node, "client-0"))}
                    try:
                        await asyncio.sleep(1000)
                    finally:
                        lost_at.append(now())
                        await asyncio.sleep(3)  # The others do not wait for this.

            with pytest.raises(LeaseLost):
                await lose()
            assert {type(each) for each in await asyncio.gather(*tasks, return_exceptions=True)} == {LeaseLost}
            assert len(ended_at) == 6 and max(ended_at.values()) - lost_at[0] < 0.1, "at once, without asking anybody"
            cluster.heal()
            await asyncio.sleep(1)
            ended_at.clear()
            async with first.session("k/", ttl_s=4) as session:
                tasks = start(session)
                await asyncio.sleep(5)
                assert not ended_at
            ends = await asyncio.gather(*tasks, return_exceptions=True)
            assert {type(each) for each in ends} == {LeaseLost} and "given up" in str(ends[0])
            with pytest.raises(LeaseLost):
                await session.lock("k/lock").__aenter__()
            with pytest.raises(InvalidRequest, match="entered first"):
                await first.session("k/").lock("k/lock").__aenter__()
            async with (
                second.lock("k/lock", wait_s=0),
                second.session("k/") as other,
                other.lock_path("k/db", wait_s=0),
            ):
                pass

    with_clients(test)
