"""Leases that renew themselves, and end what is done under them before they end.

::

    async with client.lease("app/", ttl_s=10) as lease:
        await client.execute("app/worker", Put(b"app/worker", b"alive", lease=lease.identity))

**The deadline.** A lease lives at the group for its time to live from some moment after a renewal was *sent*. So the
holder counts from there, by a clock that goes on while the machine is suspended, less what clocks may differ in rate
and a margin. At that deadline the body of `async with` is cancelled, whatever else happens, and `LeaseLost` is raised.
No message is needed for that, so it holds in any partition. A body whose clean-up takes time asks for a *grace*: it is
cancelled so much before the deadline.

**Loss is final.** An answer that comes after the body was told to end changes nothing any more. A body that went on
past the deadline, because the process stood still, or that kept its cancellation to itself, and then ends well still
ends with `LeaseLost`.

**Renewals** are sent at a third of the time to live, and again after a while if they fail, until the deadline. One
whose deadline no alarm can be set to (no descriptor is free) counts as failed.

**One task** enters and leaves a lease, and runs the body: it is the one that is cancelled. When it ends without
leaving, as that does in which `asyncio.wait_for` enters, the lease is lost at once: nobody could end the body.

**Other tasks** that hold something on the lease (locks of a session, say) are cancelled with the body, or when the body
ends before them; they get `LeaseLost` from what they hold.

HAZARD: the body is cancelled by the event loop. What blocks the loop, or goes on in other threads and processes, is not
stopped; only a fencing token makes a resource refuse it.
"""

import asyncio
import math
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Protocol, Self, final

from isochrone.client.answers import expect
from isochrone.client.owed import Owed
from isochrone.client.results import Executed, Queried
from isochrone.client.telemetry import LEASES_LOST
from isochrone.errors import Indeterminate, InvalidRequest, IsochroneError, LeaseLost, LeaseNotFound, Rejected
from isochrone.probes import probe
from isochrone.wire.commands import Operation, Query
from isochrone.wire.leases import LeaseGrant, LeaseGrantResult, LeaseKeepAlive, LeaseKeepAliveResult, LeaseRevoke

CLOCK_RATE_MAX = 500e-6
"""By so much the rate of any clock may differ from that of true time: a holder's, and its leader's."""
CLOCK_SHARE = (1 - CLOCK_RATE_MAX) / (1 + CLOCK_RATE_MAX)
"""What the slowest clock of a holder shows of a time that the fastest leader takes for the whole."""
MARGIN_S = 0.05
"""The deadline lies so much before the end: what is cancelled needs a moment to notice."""
RETRY_S_MAX = 1.0
REVOKE_TIMEOUT_S = 2.0
PAYING_SHARE = 0.1
"""Of the time to live: so long may be waited, before the next renewal, for the answer to what is owed."""


class Caller(Protocol):
    """What leases and locks need of a client."""

    async def execute(self, key: bytes | str, operation: Operation, *, timeout_s: float | None = None) -> Executed:
        """See `Client.execute`."""

    async def query(self, key: bytes | str, query: Query, *, timeout_s: float | None = None) -> Queried:
        """See `Client.query`."""


class LeaseClock(Protocol):
    """Tells how long a lease lives: a clock that goes on while the machine is suspended."""

    def __call__(self) -> float:
        """Seconds."""

    def call_at(self, when_s: float, callback: Callable[[], None]) -> Callable[[], None]:
        """Call back in the running loop at a time of this clock, or soon after. Returns what cancels that."""


@final
class LoopClock:
    """The time of the loop, where nothing is ever suspended."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()

    def __call__(self) -> float:
        """Seconds."""
        return self._loop.time()

    def call_at(self, when_s: float, callback: Callable[[], None]) -> Callable[[], None]:
        """See `LeaseClock`."""
        return self._loop.call_at(when_s, callback).cancel


@final
class Body:
    """The task that runs under a lease. It takes no further step once it is cancelled.

    As `asyncio.timeout`, but that it cancels at once, not in a later turn of the loop: a process that has stood still
    finds the body's own timers due as well, and it must not go on by them first.
    """

    def __init__(self) -> None:
        task = asyncio.current_task()
        assert task is not None, "a lease is entered by a task"
        self.task = task
        self._cancelling = task.cancelling()
        self._is_cancelled = False
        self._has_ended = False

    def cancel(self) -> None:
        """Cancel it, unless it has ended or is cancelled already."""
        if not self._has_ended and not self._is_cancelled:
            self._is_cancelled = True
            self.task.cancel()

    def end(self, kind: type[BaseException] | None) -> bool:
        """It has ended, by an error of this kind if by any. Whether that was because of `cancel`, and nothing else."""
        self._has_ended = True
        if not self._is_cancelled:
            return False
        return self.task.uncancel() <= self._cancelling and kind is asyncio.CancelledError


@final
class Lease:
    """A lease while its `async with` lasts; see the module. Enter it once.

    Entering raises what `Client.execute` raises. Leaving revokes the lease, as far as the group answers in time.
    """

    def __init__(
        self,
        caller: Caller,
        key: bytes | str,
        ttl_s: float,
        clock: LeaseClock,
        rng: random.Random,
        grace_s: float = 0.0,
    ) -> None:
        """Made by `Client.lease`."""
        if not 0 < ttl_s < math.inf:
            raise InvalidRequest(f"a time to live of {ttl_s} s; a finite time above 0 is needed")
        if not 0 <= grace_s <= ttl_s / 2:
            raise InvalidRequest(f"a grace of {grace_s} s needs a time to live at least twice as long, not {ttl_s} s")
        self._caller = caller
        self._key = key
        self._ttl_s = ttl_s
        self._clock = clock
        self._rng = rng
        self._grace_s = grace_s
        self._loop = asyncio.get_running_loop()
        self._deadline = 0.0
        self._cancel_alarm: Callable[[], None] = _nothing
        self._body: Body | None = None
        self._guarded: dict[Body, None] = {}
        """What other tasks do under the lease."""
        self._renewing: asyncio.Task[None] | None = None
        self._sent_at = 0.0
        self._is_gone = False
        """The group has said so."""
        self._was_entered = False
        self._is_deserted = False
        """The task that had entered it has ended without leaving it."""
        self._has_ended = False
        self.identity = 0
        """The lease's id in its group, once entered."""
        self.lost = asyncio.Event()
        """Set when the body is told to end: the lease may have ended, or will when the grace is over."""
        self.lock_names: dict[bytes, None] = {}
        """Locks on this lease that are entered; see `Lock`."""
        self.owed = Owed(caller)

    @property
    def remaining_s(self) -> float:
        """Time for which the lease is sure to live, 0 if it may have ended."""
        return max(0.0, self._deadline - self._clock())

    async def __aenter__(self) -> Self:
        if self._was_entered:
            # A second one would take the renewals from the first, whose body goes on.
            raise InvalidRequest("a lease, and a lock with one of its own, is entered once; make another one")
        self._was_entered = True
        sent_at = self._clock()
        ttl_ms = round(self._ttl_s * 1000)
        granted = expect(LeaseGrantResult, (await self._caller.execute(self._key, LeaseGrant(0, ttl_ms))).result)
        self.identity = granted.lease
        self._extend(sent_at, granted.ttl_ms)
        self._body = Body()
        self._body.task.add_done_callback(self._desert)
        self._renewing = self._loop.create_task(self._renew())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        assert self._body is not None and self._renewing is not None, "a lease is left only when it was entered"
        self._renewing.cancel()
        self._cancel_alarm()
        self._body.task.remove_done_callback(self._desert)
        late = not self.remaining_s
        told_to_end = self._body.end(kind)
        self._has_ended = True
        for body in self._guarded:
            body.cancel()
        try:
            if told_to_end:
                raise self._loss() from None
        finally:
            # Only now: before its end, the body's cancellation would break off whatever is awaited here.
            await asyncio.gather(self._renewing, return_exceptions=True)
            if late and not self.lost.is_set():
                probe("client.body_ended_late")
                self.lost.set()
            if remaining_s := self.remaining_s:
                await self._revoke(remaining_s)
        if error is None and self.lost.is_set():
            # The body ended well all the same: it stood still, kept its cancellation to itself, or could not know.
            raise self._loss()
        return None

    def guard(self) -> "Body | None":
        """Cancel the calling task, too, when the lease is lost or left, until `unguard`.

        None if it is the task that has entered the lease, which is cancelled anyway.

        Raises:
            LeaseLost: the lease is lost or has been left already.
            InvalidRequest: it was not entered.
        """
        if self._body is None:
            raise InvalidRequest("the lease, or the session, is to be entered first")
        if self._has_ended or self.lost.is_set():
            raise self._loss()
        body = Body()
        if body.task is self._body.task:
            return None
        self._guarded[body] = None
        return body

    def unguard(self, body: "Body | None", kind: type[BaseException] | None) -> None:
        """What `guard` has begun has ended, by an error of this kind if by any.

        Raises:
            LeaseLost: it was cancelled for that, or ended well although the lease is lost.
        """
        if body is None:
            return
        del self._guarded[body]
        if body.end(kind) or (kind is None and (self._has_ended or self.lost.is_set())):
            probe("client.other_task_lost_its_lease")
            raise self._loss() from None

    def _loss(self) -> LeaseLost:
        if self._has_ended and not self.lost.is_set():
            return LeaseLost(f"lease {self.identity} was given up by the task that had entered it")
        if self._is_gone:
            return LeaseLost(f"lease {self.identity} was revoked, or has expired")
        if self._is_deserted:
            return LeaseLost(
                f"lease {self.identity} was given up: the task that had entered it has ended, so its loss could end "
                "nothing (does `wait_for` enter it? `asyncio.timeout` lets the calling task do so)"
            )
        since_s = self._clock() - self._sent_at
        return LeaseLost(
            f"lease {self.identity} was renewed {since_s:.1f} s ago for the last time, for {self._ttl_s:g} s"
        )

    def _extend(self, sent_at: float, ttl_ms: int) -> None:
        """The group lets the lease live for `ttl_ms` from some moment after the question was sent.

        Raises:
            OSError: no alarm can be set for that; all is as before.
        """
        ttl_s = ttl_ms / 1000
        deadline = sent_at + ttl_s * CLOCK_SHARE - MARGIN_S
        self._set_alarm(deadline)
        self._sent_at, self._ttl_s, self._deadline = sent_at, ttl_s, deadline

    def _set_alarm(self, deadline: float) -> None:
        before = self._cancel_alarm
        self._cancel_alarm = self._clock.call_at(deadline - self._grace_s, self._time_out)
        before()  # Only now: if no other one can be had, it still ends the body.

    def _body_left_s(self) -> float:
        return max(0.0, self._deadline - self._grace_s - self._clock())

    def _time_out(self) -> None:
        if self._body_left_s():  # It came a little early.
            try:
                self._set_alarm(self._deadline)
            except OSError:
                probe("client.lease_alarm_not_set")
            else:
                return
        self._lose()

    def _desert(self, _: "asyncio.Task[None]") -> None:
        assert self._body is not None
        self._body.end(None)
        probe("client.lease_deserted")
        self._is_deserted = True
        self._lose()

    async def _renew(self) -> None:
        """Renew until cancelled, or until the lease is lost."""
        wait_s = self._ttl_s / 3
        while True:
            # This waits, and a lease that is lost ends it at once.
            try:
                async with asyncio.timeout(wait_s):
                    await self.lost.wait()
            except TimeoutError:
                pass
            left_s = self._body_left_s()
            if not left_s or self.lost.is_set():
                return self._lose()
            sent_at = self._clock()
            try:
                answer = await self._caller.query(self._key, LeaseKeepAlive(self.identity), timeout_s=left_s)
            except LeaseNotFound:
                self._is_gone = True
                self._deadline = min(self._deadline, self._clock())
                return self._lose()
            except IsochroneError:
                wait_s = self._retry_s()
                continue
            if not self._body_left_s() or self.lost.is_set():
                probe("client.renewed_too_late")
                return self._lose()
            if isinstance(answer.result, LeaseKeepAliveResult):
                try:
                    self._extend(sent_at, answer.result.ttl_ms)
                except OSError:
                    probe("client.lease_alarm_not_set_anew")
                    wait_s = self._retry_s()
                    continue
                await self.owed.pay_all(self._ttl_s * PAYING_SHARE)
            wait_s = max(0.0, self._sent_at + self._ttl_s / 3 - self._clock())

    def _retry_s(self) -> float:
        return min(RETRY_S_MAX, self._ttl_s / 10) * self._rng.uniform(0.5, 1.0)

    def _lose(self) -> None:
        if self.lost.is_set():
            return
        self.lost.set()
        LEASES_LOST.add(1)
        if self._body is not None:
            self._body.cancel()
        for body in self._guarded:
            body.cancel()

    async def _revoke(self, remaining_s: float) -> None:
        timeout_s = min(REVOKE_TIMEOUT_S, remaining_s)
        try:
            await self._caller.execute(self._key, LeaseRevoke(self.identity), timeout_s=timeout_s)
        except LeaseNotFound:
            probe("client.lease_was_gone_at_its_end")
            self._is_gone = True
            self.lost.set()
        except (Rejected, Indeterminate, InvalidRequest):
            return  # It ends by itself. (The request is wrong if the client was closed before.)


@contextmanager
def guarded(lease: Lease) -> Iterator[None]:
    """`Lease.guard` for a block. Raises what that and `Lease.unguard` raise."""
    body = lease.guard()
    try:
        yield
    except BaseException as error:
        lease.unguard(body, type(error))
        raise
    lease.unguard(body, None)


def _nothing() -> None:
    """There is no alarm to cancel."""
