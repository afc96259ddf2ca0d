"""The hybrid logical clock."""

import random
import subprocess
import time

import pytest

from isochrone.clocks.hlc import HybridLogicalClock
from isochrone.clocks.system_os import SystemClock, kernel_bound_ns, require_boot_clock
from isochrone.errors import ClockUnsynchronized
from isochrone.ids import Timestamp


def test_timestamps_rise_whatever_the_physical_clock_does() -> None:
    rng = random.Random(5)
    clock = HybridLogicalClock(offset_max_ns=1_000)
    last = 0
    for _ in range(2_000):
        count = rng.randrange(1, 5)
        first = clock.now(Timestamp(rng.randrange(10_000)), count)
        assert first > last
        last = first + count - 1


def test_it_follows_physical_time_when_that_is_ahead() -> None:
    clock = HybridLogicalClock(0)
    assert clock.now(Timestamp(500)) == 500
    assert clock.now(Timestamp(500)) == 501
    assert clock.now(Timestamp(900)) == 900


def test_what_was_observed_is_exceeded() -> None:
    clock = HybridLogicalClock(100)
    clock.observe(Timestamp(1_050), Timestamp(1_000))
    assert clock.now(Timestamp(1_000)) == 1_051


def test_a_timestamp_from_far_ahead_is_refused_and_not_adopted() -> None:
    clock = HybridLogicalClock(100)
    with pytest.raises(ClockUnsynchronized):
        clock.observe(Timestamp(1_101), Timestamp(1_000))
    assert clock.now(Timestamp(1_000)) == 1_000


def test_a_restart_with_the_clock_stepped_back_goes_on_above_the_mark() -> None:
    clock = HybridLogicalClock(100)
    high_water = clock.now(Timestamp(20_000))
    restarted = HybridLogicalClock(100)
    restarted.restore(high_water)
    assert restarted.now(Timestamp(10_000)) > high_water


def test_the_system_clock_gives_an_interval_of_the_bound_around_its_offset_time() -> None:
    plain = SystemClock(lambda: 1_000, bound_max_ns=2_000).now()
    ahead = SystemClock(lambda: 1_000, bound_max_ns=2_000, offset_ms=3_600_000).now()
    assert plain.latest - plain.earliest == 2_000
    assert 3_599_000_000_000 < ahead.latest - plain.latest < 3_601_000_000_000


def test_a_bound_that_is_too_wide_is_refused() -> None:
    with pytest.raises(ClockUnsynchronized, match="at most"):
        SystemClock(lambda: 3_000, bound_max_ns=2_000).now()


def test_leases_need_a_clock_that_goes_on_during_a_suspension(monkeypatch: pytest.MonkeyPatch) -> None:
    require_boot_clock()
    monkeypatch.delattr(time, "CLOCK_BOOTTIME")
    with pytest.raises(ClockUnsynchronized, match="CLOCK_BOOTTIME"):
        require_boot_clock()


def test_reading_the_kernel_s_bound_starts_no_program(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(*_: object, **__: object) -> None:
        raise AssertionError("a clock is read for every batch: it must not start a program")

    monkeypatch.setattr(subprocess, "Popen", start)
    try:
        assert 0 <= kernel_bound_ns() < 16_000_000_000
    except ClockUnsynchronized as error:
        assert "not synchronised" in str(error)  # noqa: PT017
