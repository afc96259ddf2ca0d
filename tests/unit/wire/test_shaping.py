"""The pure half of link shaping."""

import random

from hypothesis import given
from hypothesis import strategies as st

from isochrone.ids import NS_PER_MS, Nanos
from isochrone.wire.shaping import LinkSchedule, LinkShape

DELAYS = st.floats(0, 500)


@given(
    st.lists(st.tuples(st.integers(0, 5 * NS_PER_MS), DELAYS, DELAYS), max_size=30),
    st.integers(),
)
def test_arrivals_never_fall_behind_an_earlier_frame(steps: list[tuple[int, float, float]], seed: int) -> None:
    rng = random.Random(seed)
    schedule = LinkSchedule(LinkShape())
    now = 1
    arrivals = []
    for gap, delay_ms, jitter_ms in steps:
        now += gap
        schedule.reshape(LinkShape(delay_ms, jitter_ms))
        arrival = schedule.arrival(Nanos(now), rng)
        assert arrival is not None
        assert arrival >= now + round(delay_ms * NS_PER_MS)
        arrivals.append(arrival)
    assert arrivals == sorted(arrivals)


def test_jitter_comes_on_top_of_the_delay() -> None:
    rng = random.Random(1)
    arrivals = [LinkSchedule(LinkShape(10, 5)).arrival(Nanos(0), rng) for _ in range(200)]
    spread = [arrival / NS_PER_MS for arrival in arrivals if arrival is not None]
    assert len(spread) == 200
    assert 10 <= min(spread) < 11
    assert 14 < max(spread) <= 15


def test_loss_takes_about_its_share() -> None:
    rng = random.Random(1)
    schedule = LinkSchedule(LinkShape(loss=0.25))
    lost = [schedule.arrival(Nanos(0), rng) for _ in range(4000)].count(None)
    assert 900 < lost < 1100


def test_a_cut_passes_nothing_and_raises_the_generation_once() -> None:
    schedule = LinkSchedule(LinkShape(10))
    schedule.reshape(LinkShape(10, cut=True))
    schedule.reshape(LinkShape(20, cut=True))
    assert schedule.generation == 1
    assert schedule.arrival(Nanos(0), random.Random(1)) is None
    schedule.reshape(LinkShape(10))
    assert schedule.generation == 1
    assert schedule.arrival(Nanos(0), random.Random(1)) == 10 * NS_PER_MS
