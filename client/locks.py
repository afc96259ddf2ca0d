"""Locks: held while a body runs, with a fencing token, and given up before they can be lost.

::

    async with client.lock("app/report", ttl_s=30) as lock:
        await client.kv.fenced("app/gate", lock.name, lock.token, Put(b"app/data", b"mine"))

A lock hangs on a lease (`leases`), one of its own unless it is given one, so what is said there of deadlines holds:
when it cannot be renewed, the body is cancelled before the group may give the lock to another, and `LeaseLost` is
raised. Whoever writes under an older token is refused where writes are fenced: with `Kv.fenced` in a group, with
`FenceGate` in a SQL database (`fences`).

Locks on one lease have one owner: only so can a deadlock among several be seen, and a hierarchy be kept. So a lease
holds a name once; who wants more of it converts (`Lock.convert`).

An election is a lock that announces its holder (`announce`): whoever watches the key sees each leader.
"""

import math
import random
from types import TracebackType
from typing import Self, final

from isochrone.client.answers import expect, shown
from isochrone.client.leases import Body, Caller, Lease, LeaseClock
from isochrone.client.telemetry import LOCK_ACQUISITION, LOCK_HOLD
from isochrone.errors import (
    DeadlineExceeded,
    Deadlock,
    Indeterminate,
    InvalidRequest,
    LeaseLost,
    LeaseNotFound,
    LockHeld,
    LockNotHeld,
    Rejected,
    Unavailable,
)
from isochrone.wire.locks import (
    WAIT_FOREVER,
    LockAcquire,
    LockEnd,
    LockMode,
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

    Entering raises `LockHeld` if it was not granted in the time given, `Deadlock`, `InvalidRequest` if its lease holds
    the name already, or what `Client.execute` raises. The body is cancelled when the lock may be lost; then `async
    with` raises `LeaseLost`.
    """

    def __init__(
        self,
        caller: Caller,
        acquire: LockAcquire,
        lease: Lease,
        owns_lease: bool,
        wait_s: float,
        clock: LeaseClock,
        rng: random.Random,
        region: str,
    ) -> None:
        """Made by `Client.lock`.

        Args:
            caller: the client.
            acquire: what is wanted; its lease, request and wait do not count.
            lease: on which the lock hangs; entered already, unless the lock owns it.
            owns_lease: the lease begins and ends with the lock.
            wait_s: how long to wait; infinite for as long as it takes.
            clock: see `Lease`.
            rng: draws request numbers.
            region: of the client, for its telemetry.
        """
        self._caller = caller
        self._acquire = acquire
        self._wait_s = wait_s
        self._clock = clock
        self._rng = rng
        self._lease = lease
        self._owns_lease = owns_lease
        self._mode = acquire.mode
        self._guard: Body | None = None
        self._labels = {"region": region}
        self._held_since = 0.0
        self._unheard: tuple[LockWithdraw, ...] = ()
        """Ends a conversion of which it is not known whether it was granted."""
        self.token = 0
        """The fencing token of this grant: larger than those of all before it. A conversion is a new grant."""

    @property
    def name(self) -> bytes:
        """The lock's name."""
        return self._acquire.name

    @property
    def mode(self) -> LockMode:
        """In which it is held."""
        return self._mode

    @property
    def lease(self) -> Lease:
        """The lease that the lock hangs on."""
        return self._lease

    @property
    def remaining_s(self) -> float:
        """Time for which the lock is sure to be held, 0 if it may be lost."""
        return self._lease.remaining_s

    async def convert(self, mode: LockMode, *, wait_s: float | None = None) -> None:
        """Hold it in a mode that gives `mode` besides what it gives now. Conversions go before others that wait.

        It is held as before meanwhile, and if this raises. `wait_s` is that of the lock unless it is given; a mode is
        never weakened.

        Raises:
            LockHeld: not granted in the time given.
            Deadlock: two that share it wait for each other to let go; this one is to let go.
        """
        wanted = self._request(mode, self._wait_s if wait_s is None else wait_s)
        try:
            result = await self._granted(wanted)
        except BaseException as error:
            if not isinstance(error, Deadlock | LockHeld):
                await self._end_conversion(LockWithdraw(self.name, wanted.lease, wanted.request))
            raise
        self.token, self._mode, self._unheard = result.token, result.mode, ()

    async def __aenter__(self) -> Self:
        if self._owns_lease:
            await self._lease.__aenter__()
            await self.take()
            return self
        guard = self._lease.guard()
        try:
            await self.take()
        except BaseException as error:
            self._lease.unguard(guard, type(error))
            raise
        self._guard = guard
        return self

    async def take(self) -> None:
        """As entering it; for what keeps it beyond one task, and cares itself for the loss of its lease."""
        asked_at = self._clock()
        await self._lease.owed.pay(self.name)
        if self.name in self._lease.lock_names:
            raise InvalidRequest(f"this lease holds or awaits lock {shown(self.name)} already; `convert` gives it more")
        self._lease.lock_names[self.name] = None
        wanted = self._request(self._mode, self._wait_s)
        try:
            result = await self._granted(wanted)
        except BaseException as error:
            await self._not_granted(wanted, error)
            raise
        self.token, self._mode = result.token, result.mode
        self._held_since = self._clock()
        LOCK_ACQUISITION.record(self._held_since - asked_at, self._labels)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        if self._owns_lease:
            LOCK_HOLD.record(self._clock() - self._held_since, self._labels)
            # The lease's end releases the lock, in one step and without a delay: it is the owner's wish.
            try:
                return await self._lease.__aexit__(kind, error, traceback)
            except LeaseLost as lost:
                raise LeaseLost(
                    f"lock {shown(self.name)} with token {self.token} may be another's now: {lost}"
                ) from lost
        try:
            self._lease.unguard(self._guard, kind)
        finally:
            # Only now: before the guard's end, its cancellation would break this off.
            await self.give_up()
        return None

    async def give_up(self) -> None:
        """Release what `take` has taken."""
        LOCK_HOLD.record(self._clock() - self._held_since, self._labels)
        try:
            if not self._lease.lost.is_set():
                release = LockRelease(self.name, self._lease.identity, self.token)
                await self._lease.owed.give_up((*self._unheard, release), GRACE_S)
        finally:
            del self._lease.lock_names[self.name]

    def _request(self, mode: LockMode, wait_s: float) -> LockAcquire:
        wanted = self._acquire
        return LockAcquire(
            wanted.name,
            self._lease.identity,
            self._rng.getrandbits(62) | 1,
            mode,
            WAIT_FOREVER if math.isinf(wait_s) else round(wait_s * 1000),
            wanted.delay_ms,
            wanted.hierarchical,
            wanted.announce,
            wanted.value,
        )

    async def _not_granted(self, wanted: LockAcquire, error: BaseException) -> None:
        """Leave nothing behind: neither a wait nor a grant that nobody knows of."""
        if self._owns_lease:
            await self._lease.__aexit__(type(error), error, error.__traceback__)
            return
        try:
            if not isinstance(error, Deadlock | LockHeld) and not self._lease.lost.is_set():
                withdraw = LockWithdraw(self.name, wanted.lease, wanted.request)
                await self._lease.owed.give_up((withdraw,), GRACE_S)
        finally:
            del self._lease.lock_names[self.name]

    async def _end_conversion(self, withdraw: LockWithdraw) -> None:
        """Learn how a conversion that is given up has ended, if the group answers in time."""
        self._unheard = (withdraw,)
        try:
            ended = expect(LockResult, (await self._caller.execute(self.name, withdraw, timeout_s=GRACE_S)).result)
            if ended.end is LockEnd.GRANTED:
                self.token, self._mode = ended.token, ended.mode
        except (Rejected, Indeterminate):
            return
        except (LockNotHeld, LeaseNotFound):
            pass  # It was not granted.
        self._unheard = ()

    async def _granted(self, wanted: LockAcquire) -> LockResult:
        """Ask for the lock and wait for it."""
        wait_s = math.inf if wanted.wait_ms == WAIT_FOREVER else wanted.wait_ms / 1000
        until = self._clock() + wait_s
        result = expect(LockResult, (await self._caller.execute(wanted.name, wanted)).result)
        while result.end is LockEnd.WAITING:
            result = await self._ask(wanted, until) or result
        match result.end:
            case LockEnd.GRANTED:
                return result
            case LockEnd.DEADLOCK:
                raise Deadlock(f"waiting for lock {shown(wanted.name)} was part of a cycle")
            case LockEnd.LEASE_ENDED:
                raise LeaseLost(f"the lease ended while it waited for lock {shown(wanted.name)}")
            case _:
                raise LockHeld(f"lock {shown(wanted.name)} was not granted in {wait_s:g} s")

    async def _ask(self, request: LockAcquire, until: float) -> LockResult | None:
        """How the request stands once it waits no longer; None if that is not known yet."""
        left_s = until - self._clock() + GRACE_S
        identity = (request.name, request.lease, request.request)
        try:
            if left_s <= 0:
                withdrawn = await self._caller.execute(request.name, LockWithdraw(*identity), timeout_s=GRACE_S)
                return expect(LockResult, withdrawn.result)
            timeout_s = min(ASK_AGAIN_S, left_s)
            answer = await self._caller.query(request.name, LockWait(*identity), timeout_s=timeout_s)
        except LockNotHeld as error:
            # The leader has changed meanwhile, and this one has not seen how the wait ended.
            raise LockHeld(f"lock {shown(request.name)} was not granted") from error
        except (DeadlineExceeded, Unavailable):
            if left_s <= 0:
                raise
            return None
        return expect(LockResult, answer.result)
