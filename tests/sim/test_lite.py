"""Lite seeds: short runs of three nodes under faults. A failure prints the case, to be replayed and kept."""

from collections import Counter
from pathlib import Path

import pytest

from isochrone.drills.sim.case import SimVerdict, case_from_text, case_to_text
from isochrone.drills.sim.options import Mode
from isochrone.drills.sim.run_os import draw_case, run_case
from isochrone.drills.sim.schedule import FaultKind

SEEDS, BATCHES = 240, 12
KEPT = sorted(Path(__file__).parent.glob("seeds/*.json"))


@pytest.mark.parametrize("batch", range(BATCHES))
def test_lite_seeds_hold(batch: int) -> None:
    verdicts: Counter[SimVerdict] = Counter()
    for seed in range(batch, SEEDS, BATCHES):
        case = draw_case(seed, Mode.LITE)
        result = run_case(case.options, case.schedule)
        verdicts[result.verdict] += 1
        if result.verdict is not SimVerdict.HOLDS:
            print(f"lite seed {seed}: {result.verdict}: {result.reason}\n{case_to_text(case)}")
        assert result.verdict in (SimVerdict.HOLDS, SimVerdict.UNKNOWN), (
            f"{result.reason}\nreplay it with: isochrone sim run --mode lite --seed {seed}"
        )
    assert verdicts[SimVerdict.UNKNOWN] <= 1, "a checker that cannot decide proves nothing"


def test_lite_seeds_reach_every_kind_of_fault() -> None:
    kinds = {fault.kind for seed in range(SEEDS) for fault in draw_case(seed, Mode.LITE).schedule}
    assert kinds == set(FaultKind)


@pytest.mark.parametrize("path", KEPT, ids=lambda path: path.stem)
def test_a_kept_case_holds(path: Path) -> None:
    case = case_from_text(path.read_text(encoding="utf-8"))
    assert case.story, "a case that is kept tells its story"
    result = run_case(case.options, case.schedule)
    assert result.verdict is SimVerdict.HOLDS, f"{case.story}\n{result.reason}"
