"""What a worker of a swarm does: run a seed, shrink a case. Both return plain data that can be pickled."""

import time
from dataclasses import dataclass

from isochrone.drills.sim.case import Case, SimResult
from isochrone.drills.sim.options import Mode
from isochrone.drills.sim.run_os import draw_case, run_case
from isochrone.drills.swarm.cases import PASSES, failure_of
from isochrone.drills.swarm.shrink import Shrinker, shrink
from isochrone.errors import InvalidRequest

ATTEMPTS_MAX = 1_000


@dataclass(frozen=True, slots=True)
class Shrunk:
    """What shrinking came to."""

    result: SimResult
    """Of the smallest case that fails in the same way."""
    attempts: int
    complete: bool
    """No pass makes it smaller. False if time or attempts ran out."""


class NotReproducible(Exception):
    """A case was run again and did something else: the simulator, or what it runs, is not deterministic."""


def run_seed(seed: int, mode: Mode, topology: str | None, duration_ms: int | None) -> SimResult:
    """Run the case of a seed. Raises as `draw_case` does."""
    case = draw_case(seed, mode, topology, duration_ms)
    return run_case(case.options, case.schedule)


def shrink_case(first: SimResult, limit_s: float) -> Shrunk:
    """Make the case of a failed run smaller, for at most `limit_s` and `ATTEMPTS_MAX` runs.

    Raises:
        NotReproducible: the case, run again, does something else.
    """
    failure = failure_of(first)
    again = run_case(first.case.options, first.case.schedule)
    if (failure_of(again), again.trace_hash) != (failure, first.trace_hash):
        raise NotReproducible(
            f"it first ended with {failure!r} and trace hash {first.trace_hash}, then with {failure_of(again)!r} and "
            f"{again.trace_hash}"
        )
    smallest = again
    deadline_s = time.monotonic() + limit_s

    def reproduces(case: Case) -> bool:
        nonlocal smallest
        try:
            result = run_case(case.options, case.schedule)
        except InvalidRequest:
            return False  # What cannot run, such as a phase shorter than options allow, is no smaller case.
        if failure_of(result) != failure:
            return False
        smallest = result
        return True

    shrinker = Shrinker(
        first.case, reproduces, lambda: shrinker.attempts < ATTEMPTS_MAX and time.monotonic() < deadline_s
    )
    complete = shrink(shrinker, PASSES)
    return Shrunk(smallest, shrinker.attempts, complete)
