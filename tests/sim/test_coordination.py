"""Locks, leases, elections and watches in simulated runs: they hold under faults, and the runs are worth it."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache

import pytest

from isochrone.client import watches as client_watches
from isochrone.drills.sim.case import SimResult, SimVerdict
from isochrone.drills.sim.options import Mode, SimOptions
from isochrone.drills.sim.run_os import draw_case, find_topology, run_case
from isochrone.drills.sim.schedule import Fault, FaultKind, Schedule
from isochrone.drills.sim.world import World
from isochrone.drills.verdict import Check, Verdict
from isochrone.regions import watch_hub

SEEDS = range(20)
RARE = (
    "contenders.refused_by_token",
    "followers.gap",
    "watch.compacted",
    "host.asked_for_a_group_it_does_not_serve",
    "locks.delay",
    "locks.deadlock",
    "lessor.renewal_waits_for_the_log",
)


@lru_cache(maxsize=len(SEEDS))
def run(seed: int) -> tuple[SimResult, dict[str, Check]]:
    """A seed's run, and what its checks said."""
    case = draw_case(seed, Mode.LITE)
    worlds: list[World] = []
    result = run_case(replace(case.options, coordination=True), case.schedule, worlds.append)
    return result, {check.name: check for check in worlds[0].coordination.checks(case.schedule)}


def ran() -> Iterator[tuple[SimResult, dict[str, Check]]]:
    """One run after the other, each made but once."""
    return map(run, SEEDS)


def test_runs_come_to_their_end() -> None:
    for result, _ in ran():
        assert result.verdict is SimVerdict.HOLDS, f"seed {result.case.options.seed}: {result.reason}"


@pytest.mark.parametrize("name", ["lock exclusion", "lock table", "elections", "queues", "lease expiry", "watches"])
def test_each_check_holds_and_has_something_to_judge(name: str) -> None:
    verdicts: Counter[Verdict] = Counter()
    for result, checks in ran():
        verdicts[checks[name].verdict] += 1
        assert checks[name].verdict is not Verdict.FALSE, f"seed {result.case.options.seed}: {checks[name].reason}"
    assert verdicts[Verdict.TRUE] >= 3 * len(SEEDS) // 4


def test_the_runs_have_changes_of_leaders_and_reach_what_is_rare() -> None:
    won = [result.counters["elections_won"] for result, _ in ran()]
    assert sum(count >= 2 for count in won) >= len(SEEDS) // 2, won
    reached: Counter[str] = Counter()
    for result, _ in ran():
        reached.update(result.probes)
    assert [name for name in RARE if not reached[name]] == []


def test_some_runs_have_clocks_that_keep_their_bound_so_that_holders_may_not_overlap() -> None:
    kinds = [{fault.kind for fault in result.case.schedule} for result, _ in ran()]
    assert sum(FaultKind.CLOCK_RATE not in each for each in kinds) >= 3


def test_a_seed_repeats_its_run_and_the_contenders_are_part_of_its_trace() -> None:
    case = draw_case(SEEDS[0], Mode.LITE)
    again = run_case(replace(case.options, coordination=True), case.schedule)
    assert again.trace_hash == run(SEEDS[0])[0].trace_hash
    without = run_case(replace(case.options, coordination=False), case.schedule)
    assert without.trace_hash != again.trace_hash


def run_calmly(seed: int, schedule: Schedule, **options: object) -> tuple[SimResult, dict[str, Check]]:
    """A run with no faults but these; clocks and disks are good."""
    drawn = draw_case(seed, Mode.LITE).options
    calm = SimOptions(
        seed=seed, mode=Mode.LITE, topology=drawn.topology, duration_ms=20_000, rate_per_s=5.0, coordination=True
    )
    worlds: list[World] = []
    result = run_case(replace(calm, **options), schedule, worlds.append)  # type: ignore[arg-type]
    return result, {check.name: check for check in worlds[0].coordination.checks(schedule)}


def test_leaders_whose_disks_hang_and_who_wake_after_they_lost_their_office_end_no_lease() -> None:
    """L2; offices are shorter than leases live."""
    (group,) = find_topology("three-zones").groups
    schedule: list[Fault] = []
    for number in range(7):
        at_ms, zone = 1_000 + 2_500 * number, "abc"[number % 3]
        schedule.append(Fault(at_ms, 2_200, FaultKind.HANG_DISK, (f"us-east-1{zone}-1",)))
        schedule.append(Fault(at_ms + 300, 2_000, FaultKind.CUT_LEADER, (group.id,)))
    for seed in range(3):
        result, checks = run_calmly(seed, tuple(schedule))
        assert result.verdict is SimVerdict.HOLDS, f"seed {seed}: {result.reason}"
        assert result.counters["elections_won"] >= 5, "each office is shorter than most leases live"
        assert checks["lease expiry"].verdict is Verdict.TRUE


def test_clocks_beyond_their_bound_part_holders_only_with_a_lock_delay() -> None:
    """L7: the leader's clock is a tenth too fast: leases end before their holders think. Tokens hold all the same."""
    fast = tuple(Fault(0, 20_000, FaultKind.CLOCK_RATE, (f"us-east-1{zone}-1",), 100_000.0) for zone in "abc")
    bound_broken = 0
    for seed in range(3):
        drawn = draw_case(seed, Mode.LITE).options
        options = SimOptions(
            seed=seed, mode=Mode.LITE, topology=drawn.topology, duration_ms=20_000, rate_per_s=2.0, coordination=True
        )
        worlds: list[World] = []
        result = run_case(options, fast, worlds.append)
        assert result.verdict is SimVerdict.HOLDS, f"seed {seed}: {result.reason}"
        bound_broken += bool(worlds[0].coordination.exclusion(()).broken)
    assert bound_broken, "somebody without a lock-delay was still sure when another was granted"


def test_watchers_hold_with_limits_so_small_that_everybody_falls_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, limits in (
        (watch_hub, {"PENDING_EVENTS_MAX": 3, "SCAN_RECORDS_MAX": 5, "BATCH_BYTES_MAX": 120}),
        (client_watches, {"BUFFER_EVENTS_MAX": 6}),
    ):
        for name, limit in limits.items():
            monkeypatch.setattr(module, name, limit)
    reached: Counter[str] = Counter()
    for seed in (0, 3, 7, 10):
        case = draw_case(seed, Mode.LITE)
        result = run_case(replace(case.options, coordination=True, rate_per_s=40.0), case.schedule)
        assert result.verdict is SimVerdict.HOLDS, f"seed {seed}: {result.reason}"
        reached.update(result.probes)
    assert reached["watch.fell_behind"] > 20, "they could not keep up"
