"""How failures of simulated runs are told apart, how cases are made smaller, and what runs add up to."""

import re
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from isochrone.drills.sim.case import Case, SimResult, SimVerdict, case_from_text, case_to_text
from isochrone.drills.sim.options import Mode
from isochrone.drills.sim.run_os import draw_case, find_topology
from isochrone.drills.sim.schedule import FaultKind, check_schedule
from isochrone.drills.swarm.cases import PASSES, failure_of
from isochrone.drills.swarm.marks_os import package_marks
from isochrone.drills.swarm.out_of_reach import OUT_OF_REACH
from isochrone.drills.swarm.shrink import Shrinker, shrink
from isochrone.drills.swarm.tally import Tally, tally_to_plain

CASE = draw_case(3, Mode.SWARM, "three-zones")


def result(verdict: SimVerdict = SimVerdict.HOLDS, reason: str = "", case: Case = CASE, **more: object) -> SimResult:
    figures = {"trace_hash": "5eed", "virtual_s": 60.0, "wall_s": 3.0, "cpu_s": 2.0, "events": 1000, **more}
    return SimResult(case=case, verdict=verdict, reason=reason, **figures)  # type: ignore[arg-type]


def raised(raise_it: Callable[[], object]) -> str:
    try:
        raise_it()
    except Exception as error:
        return (
            f"node a/3: a callback raised: {''.join(traceback.format_exception(error)).rstrip()}\n(2 more were found)"
        )
    raise AssertionError


def looks_up(key: str) -> object:
    return {}[key]  # type: ignore[var-annotated]


def wraps() -> None:
    try:
        looks_up("inner")
    except KeyError as error:
        raise ValueError("outer: with: colons") from error


@pytest.mark.parametrize(
    ("verdict", "reason", "failure"),
    [
        (SimVerdict.VIOLATION, "log matching: group g, node a: entry 3", "violation: log matching"),
        (SimVerdict.VIOLATION, "durable: 1 of 9 is lost", "violation: durable"),
        (SimVerdict.VIOLATION, raised(lambda: looks_up("x")), "violation: KeyError in looks_up"),
        (SimVerdict.VIOLATION, raised(lambda: looks_up("other")), "violation: KeyError in looks_up"),
        (SimVerdict.VIOLATION, raised(wraps), "violation: ValueError in wraps"),
        (SimVerdict.CRASHED, raised(wraps), "crashed: ValueError in wraps"),
        (SimVerdict.CRASHED, "the worker: ended with status -9", "crashed: the worker"),
        (SimVerdict.NO_PROGRESS, "group g has no leader", "no progress"),
        (SimVerdict.UNKNOWN, "linearizable: out of steps", "unknown"),
        (SimVerdict.HOLDS, "durable: all 9 were found", "holds"),
    ],
)
def test_failures_have_names_without_what_varies(verdict: SimVerdict, reason: str, failure: str) -> None:
    assert failure_of(result(verdict, reason)) == failure


def shrunk(case: Case, reproduces: Callable[[Case], bool]) -> Case:
    """Shrink with a predicate; every case that is tried must be one that can run."""

    def checked(tried: Case) -> bool:
        check_schedule(tried.schedule, tried.options, find_topology(tried.options.topology))
        return reproduces(tried)

    shrinker = Shrinker(case, checked, lambda: True)
    assert shrink(shrinker, PASSES)
    return shrinker.best


def test_all_that_a_failure_does_not_need_goes() -> None:
    crash = next(fault for fault in CASE.schedule if fault.kind is FaultKind.PAUSE)
    options = replace(CASE.options, loss=0.01, shuffle=True)

    def reproduces(case: Case) -> bool:
        found = [fault for fault in case.schedule if (fault.at_ms, fault.kind) == (crash.at_ms, crash.kind)]
        return bool(found) and found[0].duration_ms >= 100 and case.options.rate_per_s >= 4 and case.options.loss > 0

    smallest = shrunk(Case(options, CASE.schedule), reproduces)
    assert smallest.schedule == (replace(crash, duration_ms=100),)
    expected = replace(
        options,
        duration_ms=crash.at_ms + 100,
        rate_per_s=4.0,
        shuffle=False,
        recipes=False,
        small_limits=False,
        small_logs=False,
        log_cap_bytes=0,
        lease_reads=False,
        prefers_one=False,
        quorum_shift=0,
        jitter=0.0,
        duplicate=0.0,
        reorder=0.0,
        sync_ms_max=options.sync_ms_min,
        clock_offset_ms_max=0.0,
        clocks_honest=True,
        fault_weights=(),
    )
    assert smallest.options == expected
    assert case_from_text(case_to_text(smallest)) == smallest


def test_a_shorter_phase_ends_and_drops_faults() -> None:
    smallest = shrunk(CASE, lambda case: case.options.duration_ms >= 30_000)
    assert smallest.options.duration_ms == 30_000
    assert smallest.schedule == ()


def test_what_is_out_of_reach_is_a_mark_and_named_with_its_test() -> None:
    marks = package_marks()
    for mark, why in OUT_OF_REACH.items():
        assert mark in marks
        named = re.search(r"\((tests/[a-z_/]+\.py)\)$", why)
        assert named and (Path(__file__).parents[3] / named[1]).is_file(), why


def test_a_tally_counts_and_the_worst_verdict_counts() -> None:
    tally = Tally()
    assert tally.worst is SimVerdict.UNKNOWN, "nothing was run"
    counters = {"fault_crash": 2, "fault_cut": 1, "operations_ok": 7, "operations_info": 1, "elections_won": 3}
    tally.add(result(counters=counters, probes={"raft.rare": 2}))
    tally.elapsed_s = 30.0
    assert tally.worst is SimVerdict.HOLDS
    order = [SimVerdict.UNKNOWN, SimVerdict.NO_PROGRESS, SimVerdict.CRASHED, SimVerdict.VIOLATION]
    for verdict in order:
        failed = result(verdict, "durable: one is lost", counters={"fault_crash": 1}, cpu_s=4.0)
        tally.add(failed)
        tally.keep(failed, f"{verdict}.json")
        assert tally.worst is verdict
    plain = tally_to_plain(tally, ["raft.rare", "raft.rarer", "state.session_expired"])
    assert (plain["verdict"], plain["runs"], plain["seeds_per_minute"]) == ("violation", 5, 10.0)
    assert plain["verdicts"] == {"violation": 1, "crashed": 1, "no progress": 1, "unknown": 1, "holds": 1}
    assert plain["faults"] == {"crash": 6, "cut": 1}
    assert plain["operations"] == {"info": 1, "ok": 7}
    assert (plain["elections"], plain["virtual_h"]) == (3, 0.083)
    why = OUT_OF_REACH["state.session_expired"]
    assert plain["probes_never_reached"] == {"raft.rarer": "", "state.session_expired": why}
    assert plain["slowest"] == {"seed": 3, "virtual_s_per_cpu_s": 15.0}
    assert [each["failure"] for each in plain["failures"]] == [  # type: ignore[attr-defined]
        "unknown",
        "no progress",
        "crashed: durable",
        "violation: durable",
    ]
