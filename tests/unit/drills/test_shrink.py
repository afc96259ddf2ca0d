"""The shrinker on made-up cases: it ends, keeps what is needed, and never returns a case that does not fail."""

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import pytest

from isochrone.drills.swarm.shrink import Pass, Shrinker, drop_items, lower_number, shrink


@dataclass(frozen=True)
class Case:
    """Faults and a duration."""

    faults: tuple[int, ...]
    duration: int = 100


def with_faults(case: Case, faults: tuple[int, ...]) -> Case:
    return replace(case, faults=faults)


def with_duration(case: Case, duration: int) -> Case:
    return replace(case, duration=duration)


DROP: Pass[Case] = partial(drop_items, items_of=lambda case: case.faults, with_items=with_faults)
LOWER: Pass[Case] = partial(lower_number, number_of=lambda case: case.duration, with_number=with_duration, floor=1)


def shrunk(case: Case, reproduces: Callable[[Case], bool], attempts_max: int = 10_000) -> tuple[Shrinker[Case], bool]:
    shrinker = Shrinker(case, reproduces, lambda: shrinker.attempts < attempts_max)
    return shrinker, shrink(shrinker, (LOWER, DROP))


def needs(faults: set[int], duration: int = 1) -> Callable[[Case], bool]:
    return lambda case: faults <= set(case.faults) and case.duration >= duration


@pytest.mark.parametrize("needed", [set(), {0}, {39}, {17}, {3, 21}, {0, 39}, {5, 6, 7}, set(range(0, 40, 4))])
def test_only_the_faults_that_are_needed_stay_and_in_their_order(needed: set[int]) -> None:
    shrinker, complete = shrunk(Case(tuple(range(40))), needs(needed))
    assert (shrinker.best, complete) == (Case(tuple(sorted(needed)), 1), True)


@pytest.mark.parametrize("duration", [1, 2, 37, 99, 100])
def test_the_duration_is_lowered_as_far_as_it_goes(duration: int) -> None:
    shrinker, complete = shrunk(Case((1,)), needs({1}, duration))
    assert (shrinker.best, complete) == (Case((1,), duration), True)


def test_one_fault_of_many_is_found_in_few_attempts() -> None:
    shrinker, _ = shrunk(Case(tuple(range(64))), needs({41}))
    assert shrinker.attempts < 30


def test_passes_are_repeated_while_one_opens_the_way_for_another() -> None:
    def reproduces(case: Case) -> bool:
        # As long as fault 9 is there, the case must be long.
        return 4 in case.faults and case.duration >= (80 if 9 in case.faults else 10)

    shrinker, complete = shrunk(Case((4, 9)), reproduces)
    assert (shrinker.best, complete) == (Case((4,), 10), True)


def test_no_case_is_tried_twice_and_the_result_always_fails() -> None:
    for seed in range(50):
        rng = random.Random(seed)
        verdicts: dict[Case, bool] = {}

        def reproduces(case: Case, rng: random.Random = rng, verdicts: dict[Case, bool] = verdicts) -> bool:
            assert case not in verdicts
            verdicts[case] = rng.random() < 0.3  # Fails by chance: not monotonous, as real faults are.
            return verdicts[case]

        first = Case(tuple(range(12)))
        shrinker, complete = shrunk(first, reproduces)
        assert complete
        assert shrinker.best == first or verdicts[shrinker.best]
        assert set(shrinker.best.faults) <= set(first.faults)


def test_when_attempts_run_out_the_smallest_case_so_far_is_kept() -> None:
    whole, _ = shrunk(Case(tuple(range(40))), needs({3, 21}))
    for attempts_max in range(whole.attempts):
        shrinker, complete = shrunk(Case(tuple(range(40))), needs({3, 21}), attempts_max)
        assert not complete
        assert shrinker.attempts == attempts_max
        assert {3, 21} <= set(shrinker.best.faults)
