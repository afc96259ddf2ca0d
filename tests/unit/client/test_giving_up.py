"""Locks of a session that are given up while the group is silent, while they wait, or by a command that comes late."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from host_cluster import HostCluster
from virtual_time import run_virtual

from isochrone.client import Client
from isochrone.client.results import Executed
from isochrone.errors import DeadlineExceeded, LeaseLost
from isochrone.ids import ReplicaRole
from isochrone.wire.commands import Operation
from isochrone.wire.locks import LockMode, LockQuery, LockQueryResult, LockRelease

FULL = ReplicaRole.FULL


def with_clients(test: Callable[[HostCluster, Client, Client], Awaitable[None]]) -> None:
    async def main() -> None:
        cluster = HostCluster({"a": FULL, "b": FULL, "c": FULL})
        await cluster.start_all()
        await cluster.until(lambda: cluster.leader() is not None)
        await test(cluster, await cluster.client(timeout_s=5.0), await cluster.client(timeout_s=5.0))
        await cluster.stop_all()

    run_virtual(main())


def cut_client(cluster: HostCluster, number: int) -> None:
    cluster.cut |= {pair for node in "abc" for pair in ((f"client-{number}", node), (node, f"client-{number}"))}


async def tokens(client: Client, name: str) -> list[int]:
    """Under which tokens a lock is held."""
    found = (await client.query(name, LockQuery(name.encode()))).result
    assert isinstance(found, LockQueryResult)
    return [request.token for request in found.requests if request.token]


def test_a_release_that_comes_late_does_not_end_the_next_hold_of_its_session(monkeypatch: pytest.MonkeyPatch) -> None:
    """Renewals would go on, and nobody would tell the holder."""

    async def test(_: HostCluster, first: Client, second: Client) -> None:
        execute, late = first.execute, list[LockRelease]()

        async def lose_first(key: bytes | str, operation: Operation, *, timeout_s: float | None = None) -> Executed:
            if isinstance(operation, LockRelease) and not late:
                late.append(operation)
                raise DeadlineExceeded("it is on its way")
            return await execute(key, operation, timeout_s=timeout_s)

        monkeypatch.setattr(first, "execute", lose_first)
        async with first.session("k/") as session:
            async with session.lock("k/a"):
                pass
            async with session.lock("k/a") as lock:
                await asyncio.gather(second.execute("k/", late[0]), return_exceptions=True)
                assert await tokens(second, "k/a") == [lock.token]
            assert await tokens(second, "k/a") == []

    with_clients(test)


@pytest.mark.parametrize("name", ["k/a", "k/db/orders/7"])
def test_what_a_silent_group_was_not_told_is_given_up_when_it_answers_again(name: str) -> None:
    async def test(cluster: HostCluster, first: Client, second: Client) -> None:
        async with first.session("k/", ttl_s=30) as session:
            async with session.lock_path(name):
                cut_client(cluster, 0)
            cluster.heal()
            assert await tokens(second, name) != []
            await asyncio.sleep(15)
            assert not session.lease.lost.is_set()
            async with second.session("k/") as other, other.lock_path(name, wait_s=0):
                pass
            async with session.lock_path(name, wait_s=0):
                pass

    with_clients(test)


def test_a_release_or_a_wait_that_is_cancelled_is_given_up_later() -> None:
    async def test(cluster: HostCluster, first: Client, second: Client) -> None:
        async def hold() -> None:
            async with session.lock("k/a"):
                cut_client(cluster, 0)

        async def wait() -> None:
            async with session.lock("k/b", wait_s=100):
                raise AssertionError("cancelled before")

        async with first.session("k/", ttl_s=30) as session, second.lock("k/b"):
            tasks = [asyncio.create_task(hold()), asyncio.create_task(wait())]
            await asyncio.sleep(1)
            for _ in range(2):  # The second time while it gives up.
                for task in tasks:
                    task.cancel()
                await asyncio.sleep(0.1)
            assert all(task.done() for task in tasks)
            cluster.heal()
            await asyncio.sleep(15)
            async with second.lock("k/a", wait_s=0):
                pass
            found = (await second.query("k/b", LockQuery(b"k/b"))).result
            assert isinstance(found, LockQueryResult) and len(found.requests) == 1

    with_clients(test)


def test_a_path_that_is_cancelled_while_it_waits_for_its_turn_to_leave_has_left() -> None:
    """Another path of the session waits meanwhile to have the level stronger."""

    async def test(_: HostCluster, first: Client, second: Client) -> None:
        async with first.session("k/") as session, second.lock("k/db", mode=LockMode.IX):
            leave = asyncio.Event()

            async def weak() -> None:
                async with session.lock_path("k/db", mode=LockMode.IS):
                    await leave.wait()

            async def strong() -> None:
                async with session.lock_path("k/db", wait_s=100):
                    raise AssertionError("not granted")

            leaving = asyncio.create_task(weak())
            await asyncio.sleep(1)
            converting = asyncio.create_task(strong())
            await asyncio.sleep(1)
            leave.set()
            await asyncio.sleep(1)
            assert not leaving.done()
            for task in (leaving, converting):
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
            assert len(await tokens(second, "k/db")) == 1
            async with session.lock_path("k/db", mode=LockMode.IS):
                assert len(await tokens(second, "k/db")) == 2

    with_clients(test)


def test_what_is_owed_ends_with_a_session_that_is_lost() -> None:
    async def test(cluster: HostCluster, first: Client, second: Client) -> None:
        async def hold() -> None:
            async with first.session("k/", ttl_s=6) as session:
                async with session.lock("k/a"):
                    cut_client(cluster, 0)
                await asyncio.sleep(100)

        with pytest.raises(LeaseLost):
            await hold()
        async with second.lock("k/a", wait_s=10):
            pass
        cluster.heal()

    with_clients(test)


def test_a_conversion_that_was_not_heard_of_is_given_up_with_its_lock() -> None:
    """It was granted, and its token never came."""

    async def test(cluster: HostCluster, first: Client, second: Client) -> None:
        async with first.session("k/", ttl_s=30) as session:
            async with session.lock("k/a", mode=LockMode.S) as lock:
                token = lock.token
                cluster.cut |= {(node, "client-0") for node in "abc"}
                with pytest.raises(DeadlineExceeded):
                    await lock.convert(LockMode.X)
                cluster.heal()
                assert lock.token == token and (await tokens(second, "k/a"))[0] > token
            async with second.lock("k/a", wait_s=0):
                pass

    with_clients(test)
