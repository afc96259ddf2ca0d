"""One case gives one trace: again in this process, under other hash seeds, and with imports in another order."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from isochrone.drills.sim.options import Mode
from isochrone.drills.sim.run_os import draw_case, run_case

REPOSITORY = Path(__file__).parents[2]
CASES = ((Mode.SWARM, 3), (Mode.SWARM, 14), (Mode.SWARM, 27), (Mode.LITE, 4), (Mode.LITE, 8), (Mode.PERF, 1))
DURATION_MS = 8_000
PROGRAM = """
import sys
for name in sys.argv[1].split(","):
    __import__(name)
from isochrone.drills.sim.options import Mode
from isochrone.drills.sim.run_os import draw_case, run_case
for word in sys.argv[3:]:
    mode, seed = word.split("-")
    case = draw_case(int(seed), Mode(mode), duration_ms=int(sys.argv[2]))
    print(run_case(case.options, case.schedule).trace_hash)
"""


def hashes_here() -> list[str]:
    cases = [draw_case(seed, mode, duration_ms=DURATION_MS) for mode, seed in CASES]
    return [run_case(case.options, case.schedule).trace_hash for case in cases]


def hashes_elsewhere(hash_seed: str, imports: str) -> list[str]:
    words = [f"{mode}-{seed}" for mode, seed in CASES]
    command = [sys.executable, "-c", PROGRAM, imports, str(DURATION_MS), *words]
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    return subprocess.run(
        command, capture_output=True, text=True, check=True, env=environment, cwd=REPOSITORY
    ).stdout.split()


@pytest.fixture(scope="module")
def expected() -> list[str]:
    return hashes_here()


def test_the_cases_have_faults_of_many_kinds() -> None:
    """Else equal hashes would say little."""
    schedules = [draw_case(seed, mode, duration_ms=DURATION_MS).schedule for mode, seed in CASES]
    kinds = {fault.kind for schedule in schedules for fault in schedule}
    assert len(kinds) >= 6, "draw other seeds"
    assert any(draw_case(seed, mode).options.coordination for mode, seed in CASES), "draw other seeds"


def test_again_in_one_process(expected: list[str]) -> None:
    assert len(set(expected)) == len(CASES)
    assert hashes_here() == expected


@pytest.mark.parametrize(
    ("hash_seed", "imports"),
    [("1", "isochrone"), ("4242", "isochrone.client,isochrone.drills.runner,isochrone.regions.state.kv")],
)
def test_in_another_process(expected: list[str], hash_seed: str, imports: str) -> None:
    assert hashes_elsewhere(hash_seed, imports) == expected


def test_another_seed_or_option_is_another_trace() -> None:
    case = draw_case(1, Mode.LITE)
    other = draw_case(2, Mode.LITE)
    traces = {
        run_case(case.options, case.schedule).trace_hash,
        run_case(case.options, case.schedule[:-1]).trace_hash,
        run_case(other.options, case.schedule[:-1]).trace_hash,
    }
    assert len(traces) == 3
