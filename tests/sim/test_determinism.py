"""One case gives one trace: again in this process, under other hash seeds, and with imports in another order."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from isochrone.drills.sim.options import Mode
from isochrone.drills.sim.run_os import draw_case, run_case

REPOSITORY = Path(__file__).parents[2]
SEEDS = (3, 9, 14)
PROGRAM = """
import sys
for name in sys.argv[1].split(","):
    __import__(name)
from isochrone.drills.sim.options import Mode
from isochrone.drills.sim.run_os import draw_case, run_case
for seed in map(int, sys.argv[2:]):
    case = draw_case(seed, Mode.SWARM, duration_ms=8_000)
    print(run_case(case.options, case.schedule).trace_hash)
"""


def hashes_here() -> list[str]:
    cases = [draw_case(seed, Mode.SWARM, duration_ms=8_000) for seed in SEEDS]
    return [run_case(case.options, case.schedule).trace_hash for case in cases]


def hashes_elsewhere(hash_seed: str, imports: str) -> list[str]:
    command = [sys.executable, "-c", PROGRAM, imports, *map(str, SEEDS)]
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    return subprocess.run(
        command, capture_output=True, text=True, check=True, env=environment, cwd=REPOSITORY
    ).stdout.split()


@pytest.fixture(scope="module")
def expected() -> list[str]:
    return hashes_here()


def test_again_in_one_process(expected: list[str]) -> None:
    assert len(set(expected)) == len(SEEDS)
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
