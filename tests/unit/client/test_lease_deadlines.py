"""The deadline of a lease against lost, late and refused renewals, pauses, suspended machines and clocks that drift."""

import asyncio
import random
from collections.abc import Callable

import pytest
from virtual_time import VirtualLoop, run_virtual

from isochrone.client import leases
from isochrone.client.leases import CLOCK_RATE_MAX, CLOCK_SHARE, MARGIN_S, Lease
from isochrone.client.results import Executed, Queried
from isochrone.errors import DeadlineExceeded, InvalidRequest, IsochroneError, LeaseLost, LeaseNotFound, Unavailable
from isochrone.ids import GroupId, NodeId, Revision, Timestamp
from isochrone.wire.commands import Operation, Query
from isochrone.wire.leases import LeaseGrantResult, LeaseKeepAliveResult, LeaseRevoke, LeaseRevokeResult

TTL_S = 9.0
GROUP, NODE, REVISION, TIMESTAMP = GroupId("g"), NodeId("n"), Revision(1), Timestamp(1)


def now() -> float:
    return asyncio.get_running_loop().time()


def stop_process(seconds: float) -> None:
    """The process stands still: all clocks go on, and nothing runs."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    loop._jumping.now += seconds


class Group:
    """Answers as a group would that keeps one lease; `fate` decides on each renewal, by its number."""

    def __init__(self, fate: Callable[[int], float | IsochroneError | None], drift: float = 0.0) -> None:
        self.fate = fate
        self.ttl_s = TTL_S / (1 + drift)
        self.next_identity = 7
        self.grant_s = 0.0
        """Time from the question for a lease until its answer."""
        self.asked_at: list[float] = []
        self.revoked_at: float | None = None
        self.is_revoked = False
        """By somebody else."""
        self.ends_at = 0.0
        """When the group may end the lease: it counts from the arrival of the question."""

    async def execute(self, key: bytes | str, operation: Operation, *, timeout_s: float | None = None) -> Executed:
        if isinstance(operation, LeaseRevoke):
            assert timeout_s is not None and timeout_s > 0, "no call without time"
            if self.is_revoked:
                raise LeaseNotFound("requested lease not found")
            self.revoked_at = now()
            revoked = LeaseRevokeResult(REVISION, TIMESTAMP)
            return Executed(result=revoked, group=GROUP, replica=NODE, session=1, sequence=2)
        self.ends_at = now() + self.ttl_s
        await asyncio.sleep(self.grant_s)
        granted = LeaseGrantResult(REVISION, TIMESTAMP, self.next_identity, round(TTL_S * 1000))
        return Executed(result=granted, group=GROUP, replica=NODE, session=1, sequence=1)

    async def query(self, key: bytes | str, query: Query, *, timeout_s: float | None = None) -> Queried:
        """A delay until the answer, an error, or None: the answer is lost."""
        assert timeout_s is not None and timeout_s > 0, "no renewal without a deadline"
        self.asked_at.append(now())
        fate = self.fate(len(self.asked_at))
        if isinstance(fate, IsochroneError):
            raise fate
        self.ends_at = now() + self.ttl_s
        if fate is None or fate > timeout_s:
            await asyncio.sleep(timeout_s)
            raise DeadlineExceeded("no answer")
        await asyncio.sleep(fate)
        renewed = LeaseKeepAliveResult(REVISION, TIMESTAMP, 7, round(TTL_S * 1000))
        return Queried(result=renewed, group=GROUP, replica=NODE)


class Clock:
    """A holder's clock: it drifts, and goes on while the machine is suspended."""

    def __init__(self, drift: float = 0.0) -> None:
        self.began = now()
        self.drift = drift
        self.suspended_s = 0.0
        self.alarms: dict[asyncio.TimerHandle, tuple[float, Callable[[], None]]] = {}

    def __call__(self) -> float:
        return self.began + (now() - self.began) * (1 + self.drift) + self.suspended_s

    def call_at(self, when_s: float, callback: Callable[[], None]) -> Callable[[], None]:
        handle = asyncio.get_running_loop().call_later((when_s - self()) / (1 + self.drift), callback)
        self.alarms[handle] = when_s, callback
        return handle.cancel

    def suspend(self, seconds: float) -> None:
        """The machine sleeps: timers of the loop stand still, those of this clock run out."""
        self.suspended_s += seconds
        for handle, (when_s, callback) in self.alarms.items():
            if not handle.cancelled() and when_s <= self():
                handle.cancel()
                asyncio.get_running_loop().call_soon(callback)


def lease_of(group: Group, *, clock: Clock | None = None, grace_s: float = 0.0) -> Lease:
    return Lease(group, "k/", TTL_S, clock or Clock(), random.Random(1), grace_s)


async def ended_at(lease: Lease) -> float:
    """When the body of a lease was told to end, which must be the lease's doing."""
    at = 0.0

    async def hold() -> None:
        nonlocal at
        async with lease:
            try:
                await asyncio.sleep(300)
            finally:
                at = now()
                assert lease.lost.is_set(), "who looks while it cleans up sees it"

    with pytest.raises(LeaseLost):
        await hold()
    return at


def test_renewals_are_sent_at_a_third_of_the_time_to_live() -> None:
    async def main() -> None:
        group = Group(lambda _: 0.5)
        began = now()
        async with lease_of(group) as lease:
            await asyncio.sleep(31)
            assert not lease.lost.is_set()
        assert [at - began for at in group.asked_at] == pytest.approx([3, 6, 9, 12, 15, 18, 21, 24, 27, 30])
        assert group.revoked_at == began + 31

    run_virtual(main())


def test_the_deadline_counts_from_when_the_last_answered_renewal_was_sent() -> None:
    async def main() -> None:
        group = Group(lambda number: 2.5 if number == 1 else None)
        began = now()
        at = await ended_at(lease_of(group))
        assert at == pytest.approx(began + 3 + TTL_S * CLOCK_SHARE - MARGIN_S)
        assert at < group.ends_at and group.revoked_at is None

    run_virtual(main())


def test_the_deadline_of_a_new_lease_counts_from_when_it_was_asked_for() -> None:
    async def main() -> None:
        group = Group(lambda _: Unavailable("cut off"))
        group.grant_s = 2.5
        began = now()
        assert await ended_at(lease_of(group)) == pytest.approx(began + TTL_S * CLOCK_SHARE - MARGIN_S)

    run_virtual(main())


@pytest.mark.parametrize("error", [Unavailable("elections"), DeadlineExceeded("silence")])
def test_renewals_that_fail_are_repeated_until_the_deadline(error: IsochroneError) -> None:
    """Leaders change for longer than a third of the time to live; the last moment is soon enough."""

    async def main() -> None:
        group = Group(lambda number: error if 1 <= number <= 5 else 0.1)
        async with lease_of(group) as lease:
            await asyncio.sleep(40)
            assert not lease.lost.is_set()
        gaps = [after - before for before, after in zip(group.asked_at, group.asked_at[1:], strict=False)]
        assert all(0.4 <= gap <= 0.9 for gap in gaps[:5]), "at a tenth of the time to live, jittered"

    run_virtual(main())


def test_renewals_that_fail_for_good_end_the_body_at_the_deadline_and_then_stop() -> None:
    async def main() -> None:
        group = Group(lambda _: Unavailable("no leader"))
        began = now()
        at = await ended_at(lease_of(group))
        assert at == pytest.approx(began + TTL_S * CLOCK_SHARE - MARGIN_S)
        asked = len(group.asked_at)
        await asyncio.sleep(60)
        assert len(group.asked_at) == asked

    run_virtual(main())


def test_a_lease_that_is_gone_ends_the_body_at_once() -> None:
    async def main() -> None:
        group = Group(lambda _: LeaseNotFound("gone"))
        began = now()
        lease = lease_of(group, grace_s=2)
        assert await ended_at(lease) == pytest.approx(began + 3)
        assert lease.remaining_s == 0, "no grace is left of a lease that is gone"

    run_virtual(main())


def test_a_process_that_stood_still_past_the_deadline_does_not_end_well() -> None:
    """L1: the body did all its work, but part of it after the deadline."""

    async def main() -> None:
        group = Group(lambda _: 0.1)
        with pytest.raises(LeaseLost):
            async with lease_of(group):
                stop_process(20)
        assert group.revoked_at is None

    run_virtual(main())


def test_an_answer_that_waited_through_a_pause_revives_nothing() -> None:
    async def main() -> None:
        group = Group(lambda number: 1.0 if number == 1 else None)
        lease = lease_of(group)

        async def pause() -> None:
            await asyncio.sleep(3.5)  # The first renewal is under way.
            stop_process(5.8)

        pausing = asyncio.create_task(pause())
        began = now()
        assert await ended_at(lease) - began == pytest.approx(9.3)
        await pausing

    run_virtual(main())


def test_a_suspended_machine_counts_the_time_that_its_loop_does_not() -> None:
    async def main() -> None:
        clock = Clock()
        lease = lease_of(Group(lambda _: 0.1), clock=clock)
        asyncio.get_running_loop().call_later(4, clock.suspend, 60.0)
        began = now()
        assert await ended_at(lease) - began == pytest.approx(4), "when it wakes up"
        assert lease.remaining_s == 0

    run_virtual(main())


@pytest.mark.parametrize("drift", [-CLOCK_RATE_MAX, CLOCK_RATE_MAX])
@pytest.mark.parametrize("leader_drift", [-CLOCK_RATE_MAX, CLOCK_RATE_MAX])
def test_drifting_clocks_end_the_body_before_the_group_ends_the_lease(
    drift: float, leader_drift: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """L7: both clocks are as wrong as allowed. Of a time to live of minutes, the margin would not make up for that."""
    monkeypatch.setattr(leases, "MARGIN_S", 0.0)

    async def main() -> None:
        group = Group(lambda number: 0.0 if number < 10 else Unavailable("cut off"), leader_drift)
        assert await ended_at(lease_of(group, clock=Clock(drift))) <= group.ends_at + 1e-9

    run_virtual(main())


def test_with_a_grace_the_body_has_time_to_clean_up() -> None:
    async def main() -> None:
        group = Group(lambda _: Unavailable("cut off"))
        lease = lease_of(group, grace_s=2.0)
        left_s = 0.0

        async def hold() -> None:
            nonlocal left_s
            async with lease:
                try:
                    await asyncio.sleep(300)
                finally:
                    left_s = lease.remaining_s
                    await asyncio.sleep(1.9)

        with pytest.raises(LeaseLost):
            await hold()
        assert left_s == pytest.approx(2.0)
        assert group.revoked_at is not None, "it still lives, so it is given up"
        with pytest.raises(InvalidRequest):
            lease_of(group, grace_s=TTL_S)

    run_virtual(main())


def test_a_body_that_refuses_to_end_is_told_so_afterwards() -> None:
    async def main() -> None:
        lease = lease_of(Group(lambda _: Unavailable("cut off")))

        async def hold() -> None:
            async with lease:
                try:
                    await asyncio.sleep(300)
                except asyncio.CancelledError:
                    await asyncio.sleep(5)

        with pytest.raises(LeaseLost):
            await hold()

    run_virtual(main())


def test_a_body_that_keeps_its_cancellation_to_itself_within_the_grace_is_told_so_afterwards() -> None:
    async def main() -> None:
        lease = lease_of(Group(lambda _: Unavailable("cut off")), grace_s=2.0)

        async def hold() -> None:
            async with lease:
                try:
                    await asyncio.sleep(300)
                except asyncio.CancelledError:
                    assert lease.remaining_s > 0

        with pytest.raises(LeaseLost):
            await hold()

    run_virtual(main())


def test_a_body_takes_no_further_step_after_its_process_stood_still() -> None:
    """Its own timers are due as well when the process goes on."""

    async def main() -> None:
        lease = lease_of(Group(lambda _: 0.01))
        began, steps = now(), list[float]()

        async def hold() -> None:
            async with lease:
                while True:
                    steps.append(now() - began)
                    await asyncio.sleep(0.5)

        asyncio.get_running_loop().call_later(4.25, stop_process, 20.0)
        with pytest.raises(LeaseLost):
            await hold()
        assert max(steps) < 4.25

    run_virtual(main())


def test_a_lease_that_was_gone_when_its_body_ended_was_lost() -> None:
    """Somebody revoked it, and no renewal has told yet."""

    async def main() -> None:
        group = Group(lambda _: 0.01)
        group.is_revoked = True
        lease = lease_of(group)

        async def hold() -> None:
            async with lease:
                await asyncio.sleep(1)

        with pytest.raises(LeaseLost, match="was revoked"):
            await hold()
        with pytest.raises(ZeroDivisionError):
            async with lease_of(group):
                raise ZeroDivisionError

    run_virtual(main())


class ExhaustedClock(Clock):
    """Has alarms until no descriptor is free."""

    is_exhausted = False

    def call_at(self, when_s: float, callback: Callable[[], None]) -> Callable[[], None]:
        if self.is_exhausted:
            raise OSError(24, "no timer can be had")
        return super().call_at(when_s, callback)


def test_a_body_ends_in_time_though_no_further_alarm_can_be_set() -> None:
    """A process without free descriptors still hears answers: none of them extends what nothing would end."""

    async def main() -> None:
        clock = ExhaustedClock()
        lease = lease_of(Group(lambda _: 0.01), clock=clock)
        began = now()
        asyncio.get_running_loop().call_later(4, setattr, clock, "is_exhausted", True)
        assert await ended_at(lease) - began == pytest.approx(3 + TTL_S * CLOCK_SHARE - MARGIN_S)

    run_virtual(main())


class EarlyClock(ExhaustedClock):
    """Its alarms come too early."""

    early_s = 0.5

    def call_at(self, when_s: float, callback: Callable[[], None]) -> Callable[[], None]:
        return super().call_at(when_s - self.early_s, callback)


def test_a_body_ends_with_an_alarm_that_came_early_if_no_other_one_can_be_set() -> None:
    async def main() -> None:
        clock = EarlyClock()
        lease = lease_of(Group(lambda _: 0.01), clock=clock)
        began = now()
        asyncio.get_running_loop().call_later(4, setattr, clock, "is_exhausted", True)
        assert await ended_at(lease) - began == pytest.approx(3 + TTL_S * CLOCK_SHARE - MARGIN_S - clock.early_s)

    run_virtual(main())


def test_a_lease_goes_on_once_alarms_can_be_set_again() -> None:
    async def main() -> None:
        clock = ExhaustedClock()
        loop = asyncio.get_running_loop()
        loop.call_later(4, setattr, clock, "is_exhausted", True)
        loop.call_later(8, setattr, clock, "is_exhausted", False)
        async with lease_of(Group(lambda _: 0.01), clock=clock) as lease:
            await asyncio.sleep(60)
            assert not lease.lost.is_set()

    run_virtual(main())


def test_a_lease_is_entered_once() -> None:
    """Else the second entry would take the renewals from the first, whose body goes on."""

    async def main() -> None:
        group = Group(lambda _: 0.01)
        lease = lease_of(group)
        async with lease:
            first = lease.identity
            group.next_identity = 8
            with pytest.raises(InvalidRequest, match="entered once"):
                await lease.__aenter__()
            assert lease.identity == first
        with pytest.raises(InvalidRequest, match="entered once"):
            await lease.__aenter__()
        asked = len(group.asked_at)
        await asyncio.sleep(60)
        assert len(group.asked_at) == asked, "nothing goes on"

    run_virtual(main())


def test_a_lease_whose_task_has_ended_without_leaving_it_is_renewed_no_more() -> None:
    """`wait_for` enters in a task of its own: nobody could cancel the body, and nobody might ever leave."""

    async def main() -> None:
        group = Group(lambda _: 0.01)
        lease = lease_of(group)
        await asyncio.wait_for(lease.__aenter__(), 5)
        await asyncio.sleep(0)
        assert lease.lost.is_set()
        await asyncio.sleep(60)
        assert not group.asked_at
        with pytest.raises(LeaseLost, match="the task that had entered it has ended"):
            await lease.__aexit__(None, None, None)

    run_virtual(main())


def test_a_deadline_that_passes_while_a_lease_is_given_up_is_no_error_of_its_own() -> None:
    """The clock goes on between two looks at it."""

    async def main() -> None:
        clock = Clock()
        lease = lease_of(Group(lambda _: 0.01), clock=clock)
        await lease.__aenter__()
        looks = iter((0.001, 0.001, -0.001, -0.001, -0.001))
        deadline = lease._deadline
        clock.__class__ = type("Ticking", (Clock,), {"__call__": lambda _: deadline - next(looks)})
        await lease.__aexit__(None, None, None)

    run_virtual(main())
