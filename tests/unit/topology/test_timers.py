"""Derived timers and what makes one's own unsafe."""

import pytest

from isochrone.topology.timers import Timers, derive_timers, timer_faults


@pytest.mark.parametrize(
    ("tail_rtt_ms", "across_regions", "expected"),
    [
        (0.95, False, Timers(100, 1000)),
        (120.0, False, Timers(120, 1200)),
        (20.0, True, Timers(100, 1000)),
        (208.678, True, Timers(209, 1045)),
        (275.0, True, Timers(275, 1375)),
    ],
)
def test_derived(tail_rtt_ms: float, across_regions: bool, expected: Timers) -> None:
    assert derive_timers(tail_rtt_ms, across_regions) == expected
    assert timer_faults(expected, tail_rtt_ms, across_regions) == []


def test_a_slower_heartbeat_raises_the_derived_election_timeout() -> None:
    assert derive_timers(100.0, True, heartbeat_ms=400) == Timers(400, 2000)


@pytest.mark.parametrize(
    ("timers", "tail_rtt_ms", "across_regions", "fields"),
    [
        (Timers(208, 5000), 208.2, True, ["heartbeat_ms"]),
        (Timers(209, 5000), 208.2, True, []),
        (Timers(300, 1499), 208.2, True, ["election_timeout_ms"]),
        (Timers(300, 1500), 208.2, True, []),
        (Timers(50, 100), 208.2, True, ["heartbeat_ms", "election_timeout_ms"]),
        (Timers(50, 499), 50.0, False, ["election_timeout_ms"]),
        (Timers(50, 500), 50.0, False, []),
        (Timers(20, 100), 0.95, False, []),
    ],
)
def test_unsafe_settings(timers: Timers, tail_rtt_ms: float, across_regions: bool, fields: list[str]) -> None:
    assert [field for field, _, _ in timer_faults(timers, tail_rtt_ms, across_regions)] == fields
