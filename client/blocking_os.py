"""The SDK for programs without asyncio: a loop on a thread of its own, and calls that wait for it.

::

    with BlockingClient.connect(["127.0.0.1:7001"], region="us-east-1") as client:
        client.run(lambda sdk: sdk.kv.put("orders/1", "new"))
        with client.hold(lambda sdk: sdk.lock("app/report", ttl_s=30)) as lock:
            for part in parts:
                lock.check()
                write(part, token=lock.held.token)

Calls from any thread. Each has the deadline that it has in asyncio. Closing the client ends calls of other threads with
`Unavailable`, and gives up what they hold: they are told of that as of a loss. A process that was forked makes a client
of its own.

HAZARD: nothing can cancel a thread. When what `hold` holds is lost, the body is told, by `lost` and by `check`, and
goes on if it does not look; leaving it raises `LeaseLost`. Only a fencing token makes a resource refuse what it does.
"""

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator, Sequence
from concurrent.futures import CancelledError, Future, wait
from contextlib import AbstractAsyncContextManager, contextmanager
from functools import partial
from types import TracebackType
from typing import Any, Generic, Protocol, Self, TypeVar, cast, final

from isochrone.client.client import Client
from isochrone.client.leases import Lease
from isochrone.client.watches import Watcher, WatchEvent, WatchGap
from isochrone.errors import InvalidRequest, LeaseLost, Unavailable

T = TypeVar("T")


class Holdable(Protocol):
    """A lock, an election or a session of the SDK."""

    @property
    def lease(self) -> Lease:
        """On which it hangs."""

    @property
    def remaining_s(self) -> float:
        """Time for which it is sure to be held."""


H = TypeVar("H", bound=Holdable)


@final
class Holding(Generic[H]):
    """Something held while a `with` lasts."""

    def __init__(self, held: H) -> None:
        """Made by `BlockingClient.hold`."""
        self.held = held
        """The lock, election or session; call its coroutines through `BlockingClient.run`."""
        self.lost = threading.Event()
        """Set when the body has to end, or has ended; another thread may wait for it."""

    @property
    def remaining_s(self) -> float:
        """Time for which it is sure to be held, 0 if it may be lost."""
        return self.held.remaining_s

    def check(self) -> None:
        """Call before each step that needs it held. Raises `LeaseLost` if it may be lost."""
        if self.lost.is_set() or not self.remaining_s:
            raise LeaseLost(f"lease {self.held.lease.identity} may have ended")


@final
class BlockingClient:
    """A client whose calls wait. Use it as a context manager, or `close` it."""

    def __init__(self, loop: asyncio.AbstractEventLoop, thread: threading.Thread, client: Client) -> None:
        """Made by `connect`."""
        self._loop = loop
        self._thread = thread
        self._client = client
        self._closed = False
        self._keeping: dict[asyncio.Task[None], asyncio.Event] = {}
        """What holds something, and what ends that; used on the loop's thread."""

    @classmethod
    def connect(cls, endpoints: Sequence[str], *, region: str, **options: Any) -> "BlockingClient":
        """Connect as `Client.connect` does, with its options; raises what it raises."""
        return cls.start(lambda: Client.connect(endpoints, region=region, **options))

    @classmethod
    def start(cls, connect: Callable[[], Coroutine[Any, Any, Client]]) -> "BlockingClient":
        """Run what connects, on a new loop."""
        loop = asyncio.new_event_loop()
        thread = threading.Thread(target=_serve, args=(loop,), name="isochrone-sdk", daemon=True)
        thread.start()
        try:
            client = asyncio.run_coroutine_threadsafe(connect(), loop).result()
        except BaseException:
            _stop(loop, thread)
            raise
        return cls(loop, thread, client)

    def run(self, call: Callable[[Client], Coroutine[Any, Any, T]]) -> T:
        """Wait for one call of the SDK. Raises what it raises.

        Raises:
            InvalidRequest: the client is closed, or this is the loop's own thread, which would wait for itself.
            Unavailable: the client was closed meanwhile.
        """
        self._check_caller()
        try:
            return self._run(call)
        except CancelledError:
            if not self._closed:
                raise
            raise Unavailable("the client was closed") from None

    def _run(self, call: Callable[[Client], Coroutine[Any, Any, T]]) -> T:
        async def made_there() -> T:
            return await call(self._client)

        future = asyncio.run_coroutine_threadsafe(made_there(), self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()  # A signal's handler has raised: nobody waits for it any more.
            raise

    @contextmanager
    def hold(self, make: Callable[[Client], AbstractAsyncContextManager[H]]) -> Iterator[Holding[H]]:
        """Hold a lock, an election or a session; it is renewed on the client's thread.

        Raises:
            LeaseLost: at the end, if it was lost and the body has not failed by itself.
            Unavailable: the client was closed meanwhile.
        """
        self._check_caller()
        entered: Future[Holding[H]] = Future()
        leave = asyncio.Event()
        keeping = asyncio.run_coroutine_threadsafe(self._keep(make, entered, leave), self._loop)
        keeping.add_done_callback(partial(_tell_failure, entered))
        try:
            holding = entered.result()
        except CancelledError:
            raise Unavailable("the client was closed") from None
        except BaseException:
            keeping.cancel()
            raise
        try:
            yield holding
        except BaseException:
            self._leave(keeping, leave)
            wait([keeping])  # The body's own error is told, not what may have followed from it.
            raise
        has_ended = holding.lost.is_set()
        self._leave(keeping, leave)
        try:
            keeping.result()
        except CancelledError:
            has_ended = True
        if has_ended:
            raise LeaseLost(f"lease {holding.held.lease.identity} was given up before its body ended: closed elsewhere")

    def _leave(self, keeping: "Future[None]", leave: asyncio.Event) -> None:
        """Have it given up, unless it is already."""
        try:
            self._loop.call_soon_threadsafe(leave.set)
        except RuntimeError:
            pass  # The loop is closed: whatever ran there has ended.
        if not keeping.done() and not self._thread.is_alive():
            raise InvalidRequest("what is held here belongs to the process that has forked this one")

    async def _keep(
        self,
        make: Callable[[Client], AbstractAsyncContextManager[H]],
        entered: "Future[Holding[H]]",
        leave: asyncio.Event,
    ) -> None:
        """Hold until told to leave, or until it is lost."""
        task = asyncio.current_task()
        assert task is not None
        async with make(self._client) as held:
            holding = Holding(held)
            self._keeping[task] = leave
            entered.set_result(holding)
            try:
                await leave.wait()
            finally:
                del self._keeping[task]
                holding.lost.set()

    def iterate(
        self, make: Callable[[Client], Watcher | AsyncGenerator[T, None]]
    ) -> Iterator[T | WatchEvent | WatchGap]:
        """Take from a watch or an observed election, one by one. Close the iterator to end it."""
        source = self.run(partial(_made, make))
        end = object()

        async def take(_: Client) -> object:
            return await anext(source, end)

        async def leave(_: Client) -> None:
            if isinstance(source, Watcher):
                source.close()
            else:
                await source.aclose()

        try:
            while (told := self.run(take)) is not end:
                yield cast("T", told)
        finally:
            if not self._closed:
                self.run(leave)

    def close(self) -> None:
        """Give up what is held, close the client and end its thread. Safe to call again."""
        if self._closed:
            return
        self._check_caller()
        self._closed = True
        try:
            self._run(self._end)
        finally:
            _stop(self._loop, self._thread)

    async def _end(self, client: Client) -> None:
        keeping = dict(self._keeping)
        for leave in keeping.values():
            leave.set()
        await asyncio.gather(*keeping, return_exceptions=True)
        await client.close()

    def _check_caller(self) -> None:
        # No other thread of a process lives on in one that it forks.
        if self._closed or threading.current_thread() is self._thread or not self._thread.is_alive():
            raise InvalidRequest("a blocking call needs an open client and another thread than the client's own")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
    finally:
        tasks = asyncio.all_tasks(loop)
        for task in tasks:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


def _stop(loop: asyncio.AbstractEventLoop, thread: threading.Thread) -> None:
    loop.call_soon_threadsafe(loop.stop)
    thread.join()


def _tell_failure(entered: "Future[Holding[H]]", keeping: "Future[None]") -> None:
    """Whoever waits for what could not be had gets its error."""
    if entered.done():
        return
    error = CancelledError() if keeping.cancelled() else keeping.exception()
    entered.set_exception(error or CancelledError())


async def _made(make: Callable[[Client], T], client: Client) -> T:
    return make(client)
