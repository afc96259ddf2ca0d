"""Leases that renew themselves, and end what is done under them before they end.

::

    async with client.lease("app/", ttl_s=10) as lease:
        await client.execute("app/worker", Put(b"app/worker", b"alive", lease=lease.identity))

**The deadline.** A lease lives at the group for its time to live from some moment after a renewal was *sent*. So the
holder counts from there, by a clock that goes on while the machine is suspended, less what clocks may differ in rate
and a margin. At that deadline the body of `async with` is cancelled, whatever else happens, and `LeaseLost` is raised.
No message is needed for that, so it holds in any partition.

**Renewals** are sent at a third of the time to live, and again after a while if they fail, until the deadline.

HAZARD: the body is cancelled by the event loop. What blocks the loop, or goes on in other threads and processes, is not
stopped; only a fencing token makes a resource refuse it.
"""

import asyncio
import random
from collections.abc import Callable
from types import TracebackType
from typing import Protocol, Self, final

from isochrone.client.results import Executed, Queried
from isochrone.errors import Indeterminate, IsochroneError, LeaseLost, LeaseNotFound, Rejected
from isochrone.wire.commands import Operation, Query
from isochrone.wire.leases import LeaseGrant, LeaseGrantResult, LeaseKeepAlive, LeaseKeepAliveResult, LeaseRevoke

CLOCK_RATE_MAX = 500e-6
"""By so much the rates of two clocks may differ from true time."""
MARGIN_S = 0.05
"""The deadline lies so much before the end: what is cancelled needs a moment to notice."""
RETRY_S_MAX = 1.0
REVOKE_TIMEOUT_S = 2.0


class Caller(Protocol):
    """What leases and locks need of a client."""

    async def execute(self, key: bytes | str, operation: Operation, *, timeout_s: float | None = None) -> Executed:
        """See `Client.execute`."""

    async def query(self, key: bytes | str, query: Query, *, timeout_s: float | None = None) -> Queried:
        """See `Client.query`."""


@final
class Lease:
    """A lease while its `async with` lasts; see the module. Enter it once.

    Entering raises what `Client.execute` raises. Leaving revokes the lease, as far as the group answers in time.
    """

    def __init__(
        self, caller: Caller, key: bytes | str, ttl_s: float, clock: Callable[[], float], rng: random.Random
    ) -> None:
        """Made by `Client.lease`. `clock` tells seconds, also those of a suspended machine."""
        self._caller = caller
        self._key = key
        self._ttl_s = ttl_s
        self._clock = clock
        self._rng = rng
        self._loop = asyncio.get_running_loop()
        self._deadline = 0.0
        self._body: asyncio.Timeout | None = None
        self._renewing: asyncio.Task[None] | None = None
        self._sent_at = 0.0
        self.identity = 0
        """The lease's id in its group, once entered."""
        self.lost = asyncio.Event()
        """Set when the lease may have ended; its body is being cancelled then."""

    @property
    def remaining_s(self) -> float:
        """Time for which the lease is sure to live, 0 if it may have ended."""
        return 0.0 if self.lost.is_set() else max(0.0, self._deadline - self._clock())

    async def __aenter__(self) -> Self:
        self._sent_at = self._clock()
        ttl_ms = round(self._ttl_s * 1000)
        granted = (await self._caller.execute(self._key, LeaseGrant(0, ttl_ms))).result
        if not isinstance(granted, LeaseGrantResult):
            raise Indeterminate(f"a lease was asked for, and {type(granted).__name__} was answered")
        self.identity = granted.lease
        self._extend(granted.ttl_ms)
        self._body = asyncio.timeout_at(self._loop_deadline())
        await self._body.__aenter__()
        self._renewing = self._loop.create_task(self._renew())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        assert self._body is not None and self._renewing is not None, "a lease is left only when it was entered"
        self._renewing.cancel()
        await asyncio.gather(self._renewing, return_exceptions=True)
        try:
            await self._body.__aexit__(kind, error, traceback)
        except TimeoutError:
            self.lost.set()
            raise LeaseLost(f"lease {self.identity} could not be renewed in time") from None
        finally:
            if not self.lost.is_set():
                await self._revoke()
        return None

    def _extend(self, ttl_ms: int) -> None:
        """The group lets the lease live for `ttl_ms` from some moment after the last question was sent."""
        self._ttl_s = ttl_ms / 1000
        self._deadline = self._sent_at + self._ttl_s * (1 - CLOCK_RATE_MAX) - MARGIN_S
        if self._body is not None and not self._body.expired():
            self._body.reschedule(self._loop_deadline())

    def _loop_deadline(self) -> float:
        return self._loop.time() + self._deadline - self._clock()

    async def _renew(self) -> None:
        """Renew until cancelled, or until the lease is lost."""
        wait_s = self._ttl_s / 3
        while True:
            # The event is set by nobody but this task: this waits, and a lease that is lost ends it at once.
            try:
                async with asyncio.timeout(wait_s):
                    await self.lost.wait()
            except TimeoutError:
                pass
            left_s = self._deadline - self._clock()
            if left_s <= 0:
                return self._lose()
            sent_at = self._clock()
            try:
                answer = await self._caller.query(self._key, LeaseKeepAlive(self.identity), timeout_s=left_s)
            except LeaseNotFound:
                return self._lose()
            except IsochroneError:
                wait_s = min(RETRY_S_MAX, self._ttl_s / 10) * self._rng.uniform(0.5, 1.0)
                continue
            if isinstance(answer.result, LeaseKeepAliveResult):
                self._sent_at = sent_at
                self._extend(answer.result.ttl_ms)
            wait_s = max(0.0, self._sent_at + self._ttl_s / 3 - self._clock())

    def _lose(self) -> None:
        self.lost.set()
        if self._body is not None and not self._body.expired():
            self._body.reschedule(self._loop.time())

    async def _revoke(self) -> None:
        try:
            await self._caller.execute(self._key, LeaseRevoke(self.identity), timeout_s=REVOKE_TIMEOUT_S)
        except (Rejected, Indeterminate, LeaseNotFound):
            return  # It ends by itself.
