"""The SDK's recipes in simulated runs: they hold under faults, and the runs are worth it."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache

import pytest

from isochrone.drills.sim.case import SimResult, SimVerdict
from isochrone.drills.sim.options import Mode
from isochrone.drills.sim.run_os import draw_case, run_case
from isochrone.drills.sim.world import World
from isochrone.drills.verdict import Check, Verdict

SEEDS = range(16)
RARE = (
    "client.barrier_left_unheard",
    "client.claim_asked_for_by_its_session",
    "client.claim_lost_the_race",
    "client.other_task_lost_its_lease",
)


@lru_cache(maxsize=len(SEEDS))
def run(seed: int) -> tuple[SimResult, dict[str, Check]]:
    """A seed's run, and what its checks said."""
    case = draw_case(seed, Mode.LITE)
    worlds: list[World] = []
    result = run_case(replace(case.options, coordination=True, recipes=True), case.schedule, worlds.append)
    return result, {check.name: check for check in worlds[0].coordination.checks(case.schedule)}


def ran() -> Iterator[tuple[SimResult, dict[str, Check]]]:
    """One run after the other, each made but once."""
    return map(run, SEEDS)


def test_runs_come_to_their_end() -> None:
    for result, _ in ran():
        assert result.verdict is SimVerdict.HOLDS, f"seed {result.case.options.seed}: {result.reason}"


@pytest.mark.parametrize(
    ("name", "judged"),
    [
        ("lock exclusion", 14),
        ("membership", 14),
        ("barriers", 6),
        ("double barriers", 14),
        ("queue recipe", 9),
        ("work queues", 10),
    ],
)
def test_each_check_holds_and_has_something_to_judge(name: str, judged: int) -> None:
    verdicts: Counter[Verdict] = Counter()
    for result, checks in ran():
        verdicts[checks[name].verdict] += 1
        assert checks[name].verdict is not Verdict.FALSE, f"seed {result.case.options.seed}: {checks[name].reason}"
    assert verdicts[Verdict.TRUE] >= judged, verdicts


def test_the_runs_reach_what_is_rare() -> None:
    reached: Counter[str] = Counter()
    for result, _ in ran():
        reached.update(result.probes)
    assert [name for name in RARE if not reached[name]] == []


def test_a_seed_repeats_its_run_and_recipes_are_part_of_its_trace() -> None:
    case = draw_case(SEEDS[0], Mode.LITE)
    again = run_case(replace(case.options, coordination=True, recipes=True), case.schedule)
    assert again.trace_hash == run(SEEDS[0])[0].trace_hash
    without = run_case(replace(case.options, coordination=True, recipes=False), case.schedule)
    assert without.trace_hash != again.trace_hash
