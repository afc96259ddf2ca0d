"""The blocking client: calls from threads, what is held while a block lasts, and how its loss is told."""

import os
import signal
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import pytest
from host_cluster import HostCluster

from isochrone.client import FOREVER, Client, MembersView, WatchEvent
from isochrone.client.blocking_os import BlockingClient
from isochrone.errors import InvalidRequest, LeaseLost, LockHeld, Unavailable
from isochrone.ids import ReplicaRole
from isochrone.wire.leases import LeaseRevoke

T = TypeVar("T")


@contextmanager
def blocking_client() -> Iterator[BlockingClient]:
    """A client of three hosts that run on its own loop."""
    clusters: list[HostCluster] = []

    async def connect() -> Client:
        cluster = HostCluster(dict.fromkeys("abc", ReplicaRole.FULL))
        clusters.append(cluster)
        await cluster.start_all()
        await cluster.until(lambda: cluster.leader() is not None)
        return await cluster.client(timeout_s=20.0)

    client = BlockingClient.start(connect)
    try:
        yield client
    finally:
        if not client._closed:
            client.run(lambda _: clusters[0].stop_all())
        client.close()


def test_threads_call_hold_and_watch() -> None:
    with blocking_client() as client:
        client.run(lambda sdk: sdk.put("k/a", "1"))
        assert client.run(lambda sdk: sdk.get("k/a")).value == b"1"
        watched = client.iterate(lambda sdk: sdk.watch("k/a", start_revision=1))
        first = next(watched)
        assert isinstance(first, WatchEvent) and first.item.value == b"1"
        watched.close()
        tokens: list[int] = []
        inside = 0

        def work() -> None:
            nonlocal inside
            for _ in range(3):
                with client.hold(lambda sdk: sdk.lock("k/lock")) as lock:
                    inside += 1
                    assert inside == 1
                    lock.check()
                    tokens.append(lock.held.token)
                    inside -= 1

        threads = [threading.Thread(target=work) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(tokens) == 9 and tokens == sorted(set(tokens))
        with client.hold(lambda sdk: sdk.lock("k/lock")), pytest.raises(LockHeld):
            client.hold(lambda sdk: sdk.lock("k/lock", wait_s=0)).__enter__()
    with pytest.raises(InvalidRequest):
        client.run(lambda sdk: sdk.get("k/a"))


def test_recipes_paths_and_sessions_are_held_by_threads() -> None:
    with blocking_client() as client:
        work = client.run(_made(lambda sdk: sdk.recipes.work_queue("k/w")))
        client.run(lambda sdk: work.put("one"))
        with client.hold(lambda sdk: work.claim(wait_s=5)) as claim:
            assert claim.held.value == b"one"
        assert client.run(lambda sdk: work.count()) == 0
        queue = client.run(_made(lambda sdk: sdk.recipes.queue("k/q")))
        client.run(lambda sdk: queue.put("two"))
        taken = client.run(lambda sdk: queue.take(wait_s=5))
        assert taken is not None and taken.value == b"two"
        with client.hold(lambda sdk: sdk.recipes.membership("k/m").join("me")) as member:
            client.run(lambda sdk: member.held.proclaim("here"))
            views = client.iterate(lambda sdk: sdk.recipes.membership("k/m").views())
            view = next(views)
            assert isinstance(view, MembersView) and [each.value for each in view.members] == [b"here"]
            views.close()
        with (
            client.hold(lambda sdk: sdk.recipes.double_barrier("k/b", 1)),
            client.hold(lambda sdk: sdk.session("k/")) as s,
            client.hold(lambda sdk: s.held.lock_path("k/db/t")) as path,
        ):
            path.check()


def _made(make: Callable[[Client], T]) -> Callable[[Client], Coroutine[Any, Any, T]]:
    async def there(sdk: Client) -> T:
        return make(sdk)

    return there


def test_the_loss_of_what_is_held_is_told_by_event_by_check_and_at_the_end() -> None:
    with blocking_client() as client:

        def lose() -> None:
            with client.hold(lambda sdk: sdk.session("k/", ttl_s=1.5)) as session:
                lease = session.held.lease.identity
                client.run(lambda sdk: sdk.execute("k/", LeaseRevoke(lease)))
                assert session.lost.wait(10)
                with pytest.raises(LeaseLost):
                    session.check()

        with pytest.raises(LeaseLost):
            lose()
        with pytest.raises(ZeroDivisionError), client.hold(lambda sdk: sdk.lock("k/lock")):
            raise ZeroDivisionError
        with client.hold(lambda sdk: sdk.lock("k/lock", wait_s=0)):
            pass


def test_closing_ends_what_other_threads_wait_for_and_hold() -> None:
    ends: list[object] = []
    held, waits = threading.Event(), threading.Event()

    async def take(sdk: Client) -> None:
        waits.set()
        await sdk.recipes.queue("k/q").take(wait_s=FOREVER)

    def wait(client: BlockingClient) -> None:
        try:
            client.run(take)
        except Unavailable as error:
            ends.append(error)

    def hold(client: BlockingClient) -> None:
        try:
            with client.hold(lambda sdk: sdk.lock("k/lock")) as lock:
                held.set()
                ends.append(lock.lost.wait(20))
        except LeaseLost as error:
            ends.append(error)

    with blocking_client() as client:
        threads = [threading.Thread(target=target, args=(client,), daemon=True) for target in (wait, hold)]
        for thread in threads:
            thread.start()
        assert held.wait(20) and waits.wait(20)
        with pytest.raises(LeaseLost, match="given up"), client.hold(lambda sdk: sdk.lock("k/mine")):
            client.close()
        for thread in threads:
            thread.join(20)
            assert not thread.is_alive()
    assert sorted(type(end).__name__ for end in ends) == ["LeaseLost", "Unavailable", "bool"] and True in ends


def test_a_process_that_was_forked_is_told_that_the_client_is_not_its_own() -> None:
    with blocking_client() as client, client.hold(lambda sdk: sdk.lock("k/lock")) as lock:
        child = os.fork()
        if child == 0:
            status = 1
            signal.alarm(20)
            try:
                client.run(lambda sdk: sdk.get("k/a"))
            except InvalidRequest:
                status = 0
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        lock.check()
