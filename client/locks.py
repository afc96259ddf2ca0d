"""Locks: held while a body runs, with a fencing token, and given up before they can be lost.

::

    async with client.lock("app/report", ttl_s=30) as lock:
        await client.execute("app/gate", fenced(b"app/gate", lock.token, Put(b"app/data", b"mine")))

A lock hangs on a lease (`leases`), one of its own unless it is given one, so what is said there of deadlines holds:
when it cannot be renewed, the body is cancelled before the group may give the lock to another. Whoever writes under an
older token is refused where writes are fenced: with `fenced` in a group, with `FenceGate` in a SQL database (`fences`).

Locks on one lease have one owner: only so can a deadlock among several be seen, and a hierarchy be kept.

An election is a lock that announces its holder (`announce`): whoever watches the key sees each leader.
"""

import random
from types import TracebackType
from typing import Self, final

from isochrone.client.answers import expect
from isochrone.client.leases import Caller, Lease, LeaseClock
from isochrone.errors import (
    DeadlineExceeded,
    Deadlock,
    Indeterminate,
    LeaseLost,
    LeaseNotFound,
    LockHeld,
    LockNotHeld,
    Rejected,
    Unavailable,
)
from isochrone.probes import probe
from isochrone.wire.locks import (
    WAIT_FOREVER,
    LockAcquire,
    LockEnd,
    LockRelease,
    LockResult,
    LockWait,
    LockWithdraw,
)

ASK_AGAIN_S = 60.0
"""A wait is asked for anew after so long, so that no lost question lasts."""
GRACE_S = 2.0
"""The group ends a wait that has a limit; so long after it the client ends it itself."""


@final
class Lock:
    """A lock while its `async with` lasts; see the module. Enter it once.

    Entering raises `LockHeld` if it was not granted in the time given, `Deadlock`, or what `Client.execute` raises.
    """

    def __init__(
        self,
        caller: Caller,
        acquire: LockAcquire,
        lease: Lease,
        owns_lease: bool,
        wait_s: float | None,
        clock: LeaseClock,
        rng: random.Random,
    ) -> None:
        """Made by `Client.lock`.

        Args:
            caller: the client.
            acquire: what is wanted; its lease, request and wait do not count.
            lease: on which the lock hangs; entered already, unless the lock owns it.
            owns_lease: the lease begins and ends with the lock.
            wait_s: how long to wait; None for as long as it takes.
            clock: see `Lease`.
            rng: draws request numbers.
        """
        self._caller = caller
        self._acquire = acquire
        self._wait_s = wait_s
        self._clock = clock
        self._rng = rng
        self._lease = lease
        self._owns_lease = owns_lease
        self.token = 0
        """The fencing token of this grant: larger than those of all before it."""

    @property
    def name(self) -> bytes:
        """The lock's name."""
        return self._acquire.name

    @property
    def lease(self) -> Lease:
        """The lease that the lock hangs on."""
        return self._lease

    @property
    def remaining_s(self) -> float:
        """Time for which the lock is sure to be held, 0 if it may be lost."""
        return self._lease.remaining_s

    async def __aenter__(self) -> Self:
        request = self._rng.getrandbits(62) | 1
        if self._owns_lease:
            await self._lease.__aenter__()
        try:
            self.token = await self._granted(request)
        except BaseException as error:
            if self._owns_lease:
                await self._lease.__aexit__(type(error), error, error.__traceback__)
            elif not isinstance(error, Deadlock | LockHeld):
                await self._withdraw(request)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        if self._owns_lease:
            # The lease's end releases the lock, in one step and without a delay: it is the owner's wish.
            return await self._lease.__aexit__(kind, error, traceback)
        await self._give_up(LockRelease(self.name, self._lease.identity, self.token))
        return None

    async def _withdraw(self, request: int) -> None:
        """Wait no longer, and give up what was granted meanwhile."""
        withdrawn = await self._give_up(LockWithdraw(self.name, self._lease.identity, request))
        if withdrawn is not None and withdrawn.end is LockEnd.GRANTED:
            probe("client.granted_while_it_withdrew")
            await self._give_up(LockRelease(self.name, self._lease.identity, withdrawn.token))

    async def _give_up(self, operation: LockRelease | LockWithdraw) -> LockResult | None:
        """Give the lock or the wait up, if the group answers in time; else it ends with its lease."""
        try:
            return expect(LockResult, (await self._caller.execute(self.name, operation, timeout_s=GRACE_S)).result)
        except (Rejected, Indeterminate, LockNotHeld, LeaseNotFound):
            return None

    async def _granted(self, number: int) -> int:
        """Ask for the lock and wait for it. Returns the token."""
        wanted = self._acquire
        wait_ms = WAIT_FOREVER if self._wait_s is None else round(self._wait_s * 1000)
        until = None if self._wait_s is None else self._clock() + self._wait_s
        request = LockAcquire(
            wanted.name,
            self._lease.identity,
            number,
            wanted.mode,
            wait_ms,
            wanted.delay_ms,
            wanted.hierarchical,
            wanted.announce,
            wanted.value,
        )
        result = expect(LockResult, (await self._caller.execute(wanted.name, request)).result)
        while result.end is LockEnd.WAITING:
            result = await self._ask(request, until) or result
        match result.end:
            case LockEnd.GRANTED:
                return result.token
            case LockEnd.DEADLOCK:
                raise Deadlock(f"waiting for lock {wanted.name!r} was part of a cycle")
            case LockEnd.LEASE_ENDED:
                raise LeaseLost(f"the lease ended while it waited for lock {wanted.name!r}")
            case _:
                raise LockHeld(f"lock {wanted.name!r} was not granted in {self._wait_s} s")

    async def _ask(self, request: LockAcquire, until: float | None) -> LockResult | None:
        """How the request stands once it waits no longer; None if that is not known yet."""
        left_s = ASK_AGAIN_S if until is None else until - self._clock() + GRACE_S
        if left_s <= 0:
            withdraw = LockWithdraw(request.name, request.lease, request.request)
            return expect(LockResult, (await self._caller.execute(request.name, withdraw, timeout_s=GRACE_S)).result)
        wait = LockWait(request.name, request.lease, request.request)
        try:
            answer = await self._caller.query(request.name, wait, timeout_s=min(ASK_AGAIN_S, left_s))
        except (DeadlineExceeded, Unavailable):
            return None
        except LockNotHeld as error:
            # The leader has changed meanwhile, and this one has not seen how the wait ended.
            raise LockHeld(f"lock {request.name!r} was not granted") from error
        return expect(LockResult, answer.result)
