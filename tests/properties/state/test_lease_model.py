"""Leases under any change of leaders, delay and loss: a promise is kept, and who stops renewing loses the lease."""

from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st
from state_log import StateLog

from isochrone.ids import NS_PER_MS, Nanos, Term
from isochrone.regions.lessor import Lessor, Renewed
from isochrone.wire.leases import LeaseGrant, LeaseHousekeeping, encode_housekeeping
from isochrone.wire.messages import EntryKind

TTL_MS = 10_000
MARGIN_MS = 1_500
LEASE = 7
STEP_MS = 100

OFFICES = st.lists(st.tuples(st.integers(3, 120), st.integers(0, 5)), min_size=1, max_size=12)
"""Length of each office, and how many steps its log is behind; in steps."""


class World:
    """Leaders one after the other before one log, which applies what they log some steps later, or loses it."""

    def __init__(self) -> None:
        self.log = StateLog()
        self.log.do(LeaseGrant(LEASE, TTL_MS))
        self.now_ms = 0
        self.lessor = Lessor[int](self.log.state.data.leases, MARGIN_MS * NS_PER_MS)
        self.in_flight: list[tuple[int, list[LeaseHousekeeping]]] = []
        self.promised_until_ms = TTL_MS
        self.ended_ms: int | None = None

    def begin(self, lag: int) -> None:
        self.lessor.end_office()
        self.in_flight.clear()
        self.log.term += 1
        self.lag_ms = lag * STEP_MS
        if self.ended_ms is None:
            self.lessor.begin_office(Term(self.log.term), self.now)

    @property
    def now(self) -> Nanos:
        return Nanos(self.now_ms * NS_PER_MS)

    def step(self, *, renew: bool) -> None:
        """One step of time; a renewal asks at its beginning, and is answered whenever it may be."""
        while self.in_flight and self.in_flight[0][0] <= self.now_ms:
            self.apply(self.in_flight.pop(0)[1])
        if renew:
            self.answered(self.lessor.renewal_confirmed(LEASE, self.now_ms, self.now))
        if commands := self.lessor.due(self.now):
            self.in_flight.append((self.now_ms + self.lag_ms, commands))
        self.now_ms += STEP_MS

    def apply(self, commands: list[LeaseHousekeeping]) -> None:
        self.log.log(EntryKind.HOUSEKEEPING, [encode_housekeeping(command) for command in commands])
        if self.ended_ms is None and LEASE not in self.log.state.data.leases:
            self.ended_ms = self.now_ms
            assert self.now_ms >= self.promised_until_ms, "a promise was broken"
        self.answered(self.lessor.applied(self.log.last.lease_events, self.now))

    def answered(self, answers: Sequence[Renewed[int]]) -> None:
        for answer in answers:
            if answer.ttl_ms is not None:
                assert self.ended_ms is None
                self.promised_until_ms = max(self.promised_until_ms, answer.asker + answer.ttl_ms)


@settings(max_examples=300, deadline=None)
@given(OFFICES, st.integers(1, 60), st.integers(0, 600))
def test_no_promise_is_broken_and_no_lease_outlives_its_client(
    offices: list[tuple[int, int]], every: int, silent_after: int
) -> None:
    world = World()
    step = 0
    for steps, lag in offices:
        world.begin(lag)
        for _ in range(steps):
            renews = step < silent_after and step % every == 0
            world.step(renew=renews)
            step += 1
    # The last leader stays: what nobody renews must end within one time to live, the margin, and the log's delay.
    silent_from_ms = world.now_ms
    world.begin(0)
    while world.ended_ms is None:
        assert world.now_ms <= silent_from_ms + TTL_MS + MARGIN_MS + 10 * STEP_MS
        world.step(renew=False)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(15, 60), min_size=40, max_size=60))
def test_leaders_that_change_all_the_time_do_not_keep_a_silent_lease(offices: list[int]) -> None:
    """etcd#17132: each office is shorter than the time to live, but longer than the first checkpoint takes."""
    world = World()
    for steps in offices:
        world.begin(0)
        for _ in range(steps):
            world.step(renew=False)
    assert world.ended_ms is not None and world.ended_ms <= 2.5 * TTL_MS + 2 * MARGIN_MS
