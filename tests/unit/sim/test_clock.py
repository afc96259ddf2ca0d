"""Simulated clocks: offset, rate, and what honest and lying ones say of themselves."""

import asyncio
import random

import pytest

from isochrone.drills.sim.clock import EPOCH_NS, SimClock
from isochrone.drills.sim.loop import START_S, SimLoop
from isochrone.errors import ClockUnsynchronized

MS = 1_000_000


def after(seconds: float, *, honest: bool, rate: float = 1.0) -> SimClock:
    """A clock that has run for a while."""
    loop = SimLoop(random.Random(1), steps_max=100)
    clock = SimClock(loop, 5 * MS, honest=honest)
    clock.run_at(rate)

    async def main() -> None:
        await asyncio.sleep(seconds)

    loop.run(main())
    return clock


def test_an_undisturbed_clock_shows_true_time_within_its_bound() -> None:
    clock = after(10, honest=True)
    now = clock.now()
    assert (now.earliest, now.latest) == (EPOCH_NS + 10_000 * MS - 5 * MS, EPOCH_NS + 10_000 * MS + 5 * MS)
    assert clock.monotonic() == round((START_S + 10) * 1e9)


@pytest.mark.parametrize("rate", [0.999, 1.002])
@pytest.mark.parametrize("step_ms", [-90, 0, 90])
def test_an_honest_interval_holds_true_time_whatever_happens(rate: float, step_ms: int) -> None:
    clock = after(30, honest=True, rate=rate)
    clock.step(step_ms * MS)
    now = clock.now()
    assert now.earliest <= EPOCH_NS + 30_000 * MS <= now.latest
    assert now.latest - now.earliest > 10 * MS


def test_an_honest_clock_that_is_too_wrong_refuses_and_a_lying_one_does_not() -> None:
    honest, lying = after(1, honest=True), after(1, honest=False)
    for clock in (honest, lying):
        clock.step(2_000 * MS)
    with pytest.raises(ClockUnsynchronized, match=r"2000\.0 ms"):
        honest.now()
    assert lying.now().earliest > EPOCH_NS + 1_000 * MS + 1_900 * MS


def test_monotonic_time_runs_at_the_rate_and_is_never_stepped() -> None:
    clock = after(100, honest=False, rate=1.01)
    before = clock.monotonic()
    assert before == pytest.approx((START_S + 101) * 1e9, rel=1e-12)
    clock.step(-5_000 * MS)
    clock.synchronise()
    assert clock.monotonic() == before
    now = clock.now()
    assert now.earliest <= EPOCH_NS + 100_000 * MS <= now.latest
