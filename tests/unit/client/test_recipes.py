"""Membership, barriers and queues of the SDK, with leaders that fail, members that die and answers that are lost."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, aclosing

import pytest
from host_cluster import HostCluster
from virtual_time import run_virtual

from isochrone.client import FOREVER, Client, MembersView
from isochrone.client.results import Executed
from isochrone.errors import Indeterminate, InvalidRequest, LeaseLost, LockHeld, NotInTime, Unavailable
from isochrone.ids import ReplicaRole
from isochrone.wire.commands import Operation
from isochrone.wire.kv import Put, Range, RangeResult, Txn
from isochrone.wire.leases import LeaseRevoke
from isochrone.wire.locks import LockRelease

FULL = ReplicaRole.FULL


def with_clients(test: Callable[[HostCluster, Client, Client], Awaitable[None]]) -> None:
    async def main() -> None:
        cluster = HostCluster({"a": FULL, "b": FULL, "c": FULL})
        await cluster.start_all()
        await cluster.until(lambda: cluster.leader() is not None)
        await test(cluster, await cluster.client(timeout_s=20.0), await cluster.client(timeout_s=20.0))
        await cluster.stop_all()

    run_virtual(main())


def now() -> float:
    return asyncio.get_running_loop().time()


def cut_client(cluster: HostCluster, number: int) -> None:
    cluster.cut |= {pair for node in "abc" for pair in ((f"client-{number}", node), (node, f"client-{number}"))}


def names(view: MembersView) -> list[bytes]:
    return [member.name for member in view.members]


# ---- membership


def test_everybody_sees_the_same_members_and_never_half_of_a_change() -> None:
    async def test(cluster: HostCluster, first: Client, second: Client) -> None:
        seen: list[list[list[bytes]]] = [[], []]

        async def watch(client: Client, into: list[list[bytes]]) -> None:
            async with aclosing(client.recipes.membership("k/m").views()) as views:
                async for view in views:
                    into += [names(view)]

        watching = [
            asyncio.create_task(watch(client, into)) for client, into in zip((first, second), seen, strict=True)
        ]
        await asyncio.sleep(1)
        members = first.recipes.membership("k/m")

        async def hold_two() -> None:
            async with (
                first.session("k/", ttl_s=5) as session,
                members.join("a", lease=session.lease),
                members.join("b", lease=session.lease),
            ):
                old = cluster.leader()
                assert old is not None
                await cluster.crash(old)
                await asyncio.sleep(10)
                assert names(await second.recipes.membership("k/m").view()) == [b"z", b"a", b"b"], "the oldest first"
                await z.proclaim("2")
                # Both go with their lease, in one step.
                await second.execute("k/", LeaseRevoke(session.lease.identity))
                await asyncio.sleep(10)

        async with members.join("z", "1", ttl_s=5) as z:
            with pytest.raises(LeaseLost, match="was revoked"):
                await hold_two()
        await asyncio.sleep(2)
        for task in watching:
            task.cancel()
        await asyncio.gather(*watching, return_exceptions=True)
        assert seen[0] == seen[1]
        assert seen[0] == [[], [b"z"], [b"z", b"a"], [b"z", b"a", b"b"], [b"z", b"a", b"b"], [b"z"], []]

    with_clients(test)


def test_a_name_is_taken_once_and_free_again_when_its_member_is_missed() -> None:
    async def test(cluster: HostCluster, first: Client, second: Client) -> None:
        async def be() -> None:
            async with first.recipes.membership("k/m").join("7", "old", ttl_s=4):
                await asyncio.sleep(100)

        being = asyncio.create_task(be())
        await asyncio.sleep(1)
        with pytest.raises(LockHeld):
            await second.recipes.membership("k/m").join("7", "new", wait_s=0).__aenter__()
        cut_client(cluster, 0)
        async with second.recipes.membership("k/m").join("7", "new", wait_s=30):
            assert being.done(), "who was cut off has stopped before"
            view = await second.recipes.membership("k/m").view()
            assert [member.value for member in view.members] == [b"new"]
        with pytest.raises(LeaseLost):
            await being
        with pytest.raises(InvalidRequest):
            second.recipes.membership("k/m").join("")
        cluster.heal()

    with_clients(test)


# ---- barriers


def test_a_closed_barrier_holds_up_whoever_waits_until_it_opens() -> None:
    async def test(_: HostCluster, first: Client, second: Client) -> None:
        barrier, passed_at = first.recipes.barrier("k/b"), 0.0
        await barrier.wait(wait_s=0)
        await barrier.close("migration")
        await barrier.close()
        with pytest.raises(NotInTime):
            await second.recipes.barrier("k/b").wait(wait_s=2)

        async def wait() -> None:
            nonlocal passed_at
            await second.recipes.barrier("k/b").wait(wait_s=FOREVER)
            passed_at = now()

        waiting = asyncio.create_task(wait())
        await asyncio.sleep(30)
        assert not waiting.done()
        opened_at = now()
        await barrier.open()
        await barrier.open()
        await waiting
        assert opened_at <= passed_at < opened_at + 1

    with_clients(test)


def test_a_barrier_opens_when_who_closed_it_is_gone() -> None:
    async def test(cluster: HostCluster, first: Client, second: Client) -> None:
        async def close() -> None:
            async with first.session("k/", ttl_s=3) as session:
                await first.recipes.barrier("k/b").close(lease=session.lease)
                await asyncio.sleep(100)

        closing = asyncio.create_task(close())
        await asyncio.sleep(1)
        cut_client(cluster, 0)
        with pytest.raises(NotInTime):
            await second.recipes.barrier("k/b").wait(wait_s=0)
        await second.recipes.barrier("k/b").wait(wait_s=20)
        await asyncio.gather(closing, return_exceptions=True)
        cluster.heal()

    with_clients(test)


def test_a_double_barrier_begins_and_ends_together_round_after_round() -> None:
    async def test(cluster: HostCluster, first: Client, second: Client) -> None:
        rounds, inside, log = 4, 0, list[tuple[int, int]]()

        async def member(client: Client, number: int) -> None:
            nonlocal inside
            for turn in range(rounds):
                await asyncio.sleep(0.3 * number * (turn % 2))
                async with client.recipes.double_barrier("k/d", 3, ttl_s=6):
                    inside += 1
                    log.append((turn, number))
                    await asyncio.sleep(0.2 * number)

        members = [asyncio.create_task(member(client, number)) for number, client in enumerate((first, second, first))]
        await asyncio.sleep(1.5)
        old = cluster.leader()
        assert old is not None
        await cluster.crash(old)
        async with asyncio.timeout(100):
            await asyncio.gather(*members)
        assert [turn for turn, _ in log] == sorted(turn for turn, _ in log), "no round begins before the last one ended"
        assert sorted(log) == [(turn, number) for turn in range(rounds) for number in range(3)]
        assert (await first.kv.range("k/d/", prefix=True)).count == 0, "nothing is left behind"

    with_clients(test)


def test_too_few_leave_nothing_behind_and_the_dead_count_as_having_left() -> None:
    async def test(cluster: HostCluster, first: Client, second: Client) -> None:
        with pytest.raises(NotInTime):
            await first.recipes.double_barrier("k/d", 2, wait_s=2).__aenter__()
        async with first.session("k/", ttl_s=5) as session:
            with pytest.raises(NotInTime):
                await first.recipes.double_barrier("k/d", 2, lease=session.lease, wait_s=2).__aenter__()
            assert (await first.kv.range("k/d/", prefix=True)).count == 0

        async def die() -> None:
            async with first.recipes.double_barrier("k/d", 2, ttl_s=4):
                await asyncio.sleep(1)
                cut_client(cluster, 0)
                await asyncio.sleep(100)

        dying = asyncio.create_task(die())
        async with second.recipes.double_barrier("k/d", 2, wait_s=20):
            await asyncio.sleep(2)
        assert (await asyncio.gather(dying, return_exceptions=True))[0].__class__ is LeaseLost
        cluster.heal()

        async def fail() -> None:
            async with second.recipes.double_barrier("k/d", 1, wait_s=20):
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await fail()
        # What the round before has left does not begin the next one.
        with pytest.raises(NotInTime):
            await second.recipes.double_barrier("k/d", 2, wait_s=2).__aenter__()

    with_clients(test)


def test_who_was_removed_while_it_began_a_round_does_not_begin_the_next_one(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(_: HostCluster, first: Client, second: Client) -> None:
        execute, arrives, on_its_way = first.execute, asyncio.Event(), list[asyncio.Task[Executed]]()

        async def held_up(operation: Operation) -> Executed:
            await arrives.wait()
            return await execute("k/d/", operation)

        async def slow(key: bytes | str, operation: Operation, *, timeout_s: float | None = None) -> Executed:
            if isinstance(operation, Txn) and any(isinstance(put, Put) and not put.lease for put in operation.success):
                on_its_way.append(asyncio.create_task(held_up(operation)))
                return await asyncio.shield(on_its_way[0])
            return await execute(key, operation, timeout_s=timeout_s)

        monkeypatch.setattr(first, "execute", slow)
        removed = asyncio.create_task(first.recipes.double_barrier("k/d", 2, value="removed").__aenter__())
        async with second.recipes.double_barrier("k/d", 2):
            (lease,) = [
                item.lease
                for item in (await second.kv.range("k/d/members/", prefix=True)).items
                if item.value == b"removed"
            ]
            await asyncio.sleep(1)
            await second.execute("k/", LeaseRevoke(lease))
        with pytest.raises(LeaseLost):
            await removed
        alone = asyncio.create_task(second.recipes.double_barrier("k/d", 2, wait_s=5).__aenter__())
        await asyncio.sleep(1)
        arrives.set()
        await on_its_way[0]
        with pytest.raises(NotInTime):
            await alone

    with_clients(test)


def test_who_was_removed_while_it_waited_does_not_begin_with_others() -> None:
    async def test(_: HostCluster, first: Client, second: Client) -> None:
        removed = asyncio.create_task(first.recipes.double_barrier("k/d", 2, ttl_s=30, wait_s=9).__aenter__())
        await asyncio.sleep(1)
        (member,) = (await second.kv.range("k/d/members/", prefix=True)).items
        await second.execute("k/", LeaseRevoke(member.lease))

        async def meet(client: Client) -> None:
            async with client.recipes.double_barrier("k/d", 2):
                await asyncio.sleep(5)

        await asyncio.gather(meet(first), meet(second))
        with pytest.raises(LeaseLost, match="ended while it waited"):
            await removed

    with_clients(test)


# ---- queues


def test_items_are_taken_by_priority_and_in_the_order_of_their_making() -> None:
    async def test(_: HostCluster, first: Client, second: Client) -> None:
        queue = first.recipes.queue("k/q")
        assert await queue.take(wait_s=0) is None
        for value, priority in (("c", 500), ("d", 500), ("a", 0), ("e", 999), ("b", 499)):
            await (first if value < "c" else second).recipes.queue("k/q").put(value, priority=priority)
        assert await queue.count() == 5
        taken = [await queue.take() for _ in range(5)]
        assert [item.value for item in taken if item] == [b"a", b"b", b"c", b"d", b"e"]
        began = now()
        assert await queue.take(wait_s=2) is None
        assert 2 <= now() - began < 3
        with pytest.raises(InvalidRequest):
            await queue.put("x", priority=1000)

    with_clients(test)


def test_each_item_is_taken_once_though_answers_are_lost_and_leaders_die() -> None:
    async def test(cluster: HostCluster, first: Client, second: Client) -> None:
        taken: list[bytes] = []

        async def consume(client: Client) -> None:
            while item := await client.recipes.queue("k/q").take(wait_s=15):
                taken.append(item.value)

        consumers = [asyncio.create_task(consume(client)) for client in (first, second, first)]
        queue = second.recipes.queue("k/q")
        for number in range(30):
            if number == 10:
                old = cluster.leader()
                assert old is not None
                await cluster.crash(old)
            if number == 20:
                # Answers to both are lost for a while; the questions arrive.
                cluster.cut |= {(node, f"client-{client}") for node in "abc" for client in (0, 1)}
                asyncio.get_running_loop().call_later(1.0, cluster.heal)
            await queue.put(str(number))
        await asyncio.gather(*consumers)
        assert sorted(taken, key=int) == [str(number).encode() for number in range(30)]

    with_clients(test)


def test_one_who_has_waited_takes_one_item() -> None:
    async def test(cluster: HostCluster, first: Client, second: Client) -> None:
        waiting = asyncio.create_task(first.recipes.queue("k/q").take(wait_s=15))
        await asyncio.sleep(1)
        assert not waiting.done()
        queue = second.recipes.queue("k/q")
        for value in ("one", "two"):
            await queue.put(value)
        for taken, value in ((await waiting, b"one"), (await queue.take(wait_s=0), b"two")):
            assert taken is not None and taken.value == value
        assert await queue.count() == 0

    with_clients(test)


def test_an_item_whose_consumer_is_gone_comes_back_from_a_claim_but_not_from_a_take() -> None:
    async def test(cluster: HostCluster, first: Client, second: Client) -> None:
        work = second.recipes.work_queue("k/w")
        await work.put("one")
        await work.put("two")
        tokens: list[int] = []

        async def die() -> None:
            async with first.recipes.work_queue("k/w").claim(ttl_s=4, consumer="first") as claim:
                assert claim.value == b"one"
                tokens.append(claim.token)
                await asyncio.sleep(100)

        dying = asyncio.create_task(die())
        await asyncio.sleep(1)
        cut_client(cluster, 0)
        async with work.claim(wait_s=0) as claim:
            assert claim.value == b"two", "the first one is claimed"
        began = now()
        async with work.claim(wait_s=30) as claim:
            assert claim.value == b"one" and claim.token > tokens[0]
            assert now() - began > 1, "its consumer might have been at work"
        with pytest.raises(LeaseLost):
            await dying
        assert await work.count() == 0
        with pytest.raises(NotInTime):
            await work.claim(wait_s=0).__aenter__()
        cluster.heal()
        # Taken and not heard of: gone.
        queue = first.recipes.queue("k/q")
        await queue.put("x")
        cluster.cut |= {(node, "client-0") for node in "abc"}
        with pytest.raises(Indeterminate):
            await queue.take(wait_s=0)
        cluster.heal()
        assert await second.recipes.queue("k/q").take(wait_s=1) is None

    with_clients(test)


def test_a_failed_body_gives_its_item_back_and_a_claim_that_was_lost_removes_nothing() -> None:
    async def test(_: HostCluster, first: Client, second: Client) -> None:
        work = first.recipes.work_queue("k/w")
        await work.put("one")

        async def fail() -> None:
            async with work.claim():
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await fail()
        async with first.session("k/", ttl_s=5) as session:

            async def lose() -> None:
                async with work.claim(lease=session.lease, wait_s=0) as claim:
                    # Somebody ends the claim behind its back.
                    await second.execute(
                        "k/", LockRelease(claim.key.replace(b"items", b"claims"), session.lease.identity)
                    )

            with pytest.raises(LeaseLost, match="claim"):
                await lose()
            assert await work.count() == 1
            async with work.claim(lease=session.lease, wait_s=0):
                pass
            assert await work.count() == 0

    with_clients(test)


def test_an_item_that_was_finished_after_it_was_seen_is_not_worked_on_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(_: HostCluster, first: Client, second: Client) -> None:
        work = first.recipes.work_queue("k/w")
        await work.put("one")
        read, finished = work._items.read, 0

        async def slow(query: Range) -> RangeResult:
            nonlocal finished
            found = await read(query)
            if query.key == b"k/w/items/" and not finished:
                async with second.recipes.work_queue("k/w").claim(wait_s=0):
                    finished += 1
            return found

        monkeypatch.setattr(work._items, "read", slow)
        with pytest.raises(NotInTime):
            await work.claim(wait_s=2).__aenter__()
        assert finished == 1

    with_clients(test)


def test_who_does_not_wait_gets_the_next_item_if_another_was_faster_at_the_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def test(_: HostCluster, first: Client, second: Client) -> None:
        work = first.recipes.work_queue("k/w")
        for value in ("one", "two", "three"):
            await work.put(value)
        async with AsyncExitStack() as faster:
            read = work._items.read

            async def slow(query: Range) -> RangeResult:
                found = await read(query)
                if query.key == b"k/w/items/" and query.limit < 3:
                    await faster.enter_async_context(second.recipes.work_queue("k/w").claim(wait_s=0))
                return found

            monkeypatch.setattr(work._items, "read", slow)
            async with work.claim(wait_s=0) as claim:
                assert claim.value == b"three"

    with_clients(test)


def test_many_consumers_share_the_work_of_a_queue() -> None:
    async def test(cluster: HostCluster, first: Client, second: Client) -> None:
        done: list[bytes] = []

        async def consume(client: Client) -> None:
            while True:
                try:
                    async with client.recipes.work_queue("k/w").claim(ttl_s=6, wait_s=6) as claim:
                        await asyncio.sleep(0.3)
                        done.append(claim.value)
                except NotInTime:
                    return

        consumers = [asyncio.create_task(consume(client)) for client in (first, second, first, second)]
        for number in range(20):
            await first.recipes.work_queue("k/w").put(str(number))
        old = cluster.leader()
        assert old is not None
        await cluster.crash(old)
        await asyncio.gather(*consumers)
        assert sorted(done, key=int) == [str(number).encode() for number in range(20)]

    with_clients(test)


def test_consumers_of_one_session_claim_different_items_at_the_same_time() -> None:
    async def test(_: HostCluster, first: Client, second: Client) -> None:
        work = first.recipes.work_queue("k/w")
        for value in ("one", "two", "three"):
            await work.put(value)
        async with first.session("k/") as session:
            values: list[bytes] = []

            async def consume() -> None:
                async with work.claim(lease=session.lease, wait_s=5) as claim:
                    values.append(claim.value)
                    await asyncio.sleep(1)

            await asyncio.gather(*(consume() for _ in range(3)))
        assert sorted(values) == [b"one", b"three", b"two"] and await work.count() == 0

    with_clients(test)


@pytest.mark.parametrize("is_work_queue", [False, True])
def test_who_waits_for_an_item_when_its_client_is_closed_is_told_so(is_work_queue: bool) -> None:
    async def test(_: HostCluster, first: Client, second: Client) -> None:
        async def wait() -> None:
            if is_work_queue:
                await first.recipes.work_queue("k/q").claim(wait_s=FOREVER).__aenter__()
            else:
                await first.recipes.queue("k/q").take(wait_s=FOREVER)

        waiting = asyncio.create_task(wait())
        await asyncio.sleep(5)
        await first.close()
        with pytest.raises(Unavailable, match="closed"):
            await waiting

    with_clients(test)
