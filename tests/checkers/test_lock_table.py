"""The look at a lock table finds each way in which it can be wrong, and takes what is right."""

import pytest

from isochrone.drills.checkers.lock_table import LockView, Waiting, check_lock_tables, deadlocked, excludes, faults_of
from isochrone.drills.verdict import Verdict
from isochrone.regions.state.lock_table import compatible
from isochrone.wire.locks import LockMode

IS, IX, S, SIX, X = LockMode


def test_the_table_of_modes_is_symmetric_and_that_of_the_product() -> None:
    for held in LockMode:
        for asked in LockMode:
            assert excludes(held, asked) == excludes(asked, held) == (not compatible(held, asked))


GOOD = {
    "a": LockView(
        {1: IX, 2: IX}, [Waiting(1, X, converts=True, since=9), Waiting(3, S, since=5), Waiting(4, S, since=7)]
    ),
    "b": LockView({}, [Waiting(5, X, since=8)], [S]),
    "c": LockView({3: IS, 4: S}, []),
}


def test_a_table_that_is_right_has_no_faults() -> None:
    assert list(faults_of(GOOD)) == []


@pytest.mark.parametrize(
    ("lock", "fault"),
    [
        (LockView({1: S, 2: IX}, []), "lock l is held by 1 in S and by 2 in IX"),
        (LockView({1: S}, [Waiting(2, S)]), "2 waits for lock l, and nothing excludes it"),
        (LockView({}, [Waiting(2, X)]), "2 waits for lock l, and nothing excludes it"),
        (LockView({1: X}, [Waiting(3, X, since=5), Waiting(2, X, since=4)]), "2 waits for lock l behind 3"),
        (
            LockView({1: IX, 2: IX}, [Waiting(3, X, since=5), Waiting(2, X, converts=True, since=6)]),
            "2 waits for lock l behind 3",
        ),
        (
            LockView({1: S, 2: S}, [Waiting(1, X, converts=True, since=5), Waiting(2, X, converts=True, since=6)]),
            "leases 1, 2 wait for each other",
        ),
    ],
)
def test_what_is_wrong_is_found(lock: LockView, fault: str) -> None:
    (found, *_) = faults_of({"l": lock})
    assert found.startswith(fault)
    assert check_lock_tables(1, 0, [found]).verdict is Verdict.FALSE


def test_a_cycle_over_locks_and_through_a_queue_is_found_with_those_behind_it() -> None:
    table = {
        "a": LockView({1: X}, [Waiting(2, X)]),
        "b": LockView({3: S}, [Waiting(4, X, since=1), Waiting(1, S, since=2)]),
        "c": LockView({2: X}, [Waiting(3, IS)]),
        "d": LockView({6: X}, [Waiting(5, X)]),
    }
    assert deadlocked(table) == [1, 2, 3, 4]


def test_who_only_waits_for_another_to_be_granted_is_in_no_cycle() -> None:
    table = {
        "a": LockView({3: X}, [Waiting(1, S, since=1), Waiting(2, S, since=2)]),
        "b": LockView({2: X}, [Waiting(1, S)]),
    }
    assert deadlocked(table) == []


def test_nobody_looked_is_no_verdict() -> None:
    assert check_lock_tables(0, 0, []).verdict is Verdict.UNKNOWN
    assert check_lock_tables(3, 1, []).reason == "looked at 3 times, 1 deadlocks had a victim."
