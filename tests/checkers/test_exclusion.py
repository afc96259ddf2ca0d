"""The exclusion check finds each way in which a lock can fail, and takes what is right."""

from dataclasses import replace

import pytest

from isochrone.drills.checkers.exclusion import GuardedWrite, Hold, check_exclusion
from isochrone.drills.verdict import Verdict
from isochrone.wire.locks import LockMode


def hold(
    holder: str, token: int, asked: int, granted: int, sure_until: int, lock: str = "l", mode: LockMode = LockMode.X
) -> Hold:
    return Hold(
        lock=lock,
        holder=holder,
        lease=token,
        token=token,
        mode=mode,
        asked_ns=asked,
        granted_ns=granted,
        sure_until_ns=sure_until,
    )


def write(holder: str, token: int, at: int, accepted: bool = True, lock: str = "l") -> GuardedWrite:
    return GuardedWrite(lock=lock, holder=holder, token=token, at_ns=at, accepted=accepted)


GOOD_HOLDS = [hold("a", 1, 0, 10, 20), hold("b", 2, 5, 30, 40), hold("a", 3, 41, 50, 60)]


def test_locks_that_follow_one_another_hold() -> None:
    writes = [write("a", 1, 15), write("b", 2, 35), write("a", 1, 36, accepted=False), write("a", 3, 55)]
    result = check_exclusion(GOOD_HOLDS, writes, clocks_keep_bound=True)
    assert result.verdict is Verdict.TRUE, result.broken
    assert (result.holds, result.handovers, result.refused) == (3, 2, 1)
    assert result.as_check().reason == "3 holds, 2 handovers, 1 late writes refused by token."


def test_who_learned_of_his_grant_too_late_was_never_sure() -> None:
    late = hold("a", 1, 0, 35, 35)
    assert check_exclusion([late, *GOOD_HOLDS[1:]], [], clocks_keep_bound=True).verdict is Verdict.TRUE
    sure = hold("a", 1, 0, 35, 36)
    assert check_exclusion([sure, *GOOD_HOLDS[1:]], [], clocks_keep_bound=True).verdict is Verdict.FALSE


def test_locks_of_different_names_have_nothing_to_do_with_each_other() -> None:
    holds = [hold("a", 1, 0, 10, 90), hold("b", 1, 0, 10, 90, lock="m"), hold("c", 2, 0, 90, 95)]
    writes = [write("c", 2, 91), write("b", 1, 92, lock="m")]
    assert check_exclusion(holds, writes, clocks_keep_bound=True).verdict is Verdict.TRUE


@pytest.mark.parametrize(
    ("holds", "reason"),
    [
        ([hold("a", 1, 0, 10, 20), hold("b", 1, 0, 30, 40)], "token 1 of lock l was given to a and to b"),
        ([hold("a", 7, 0, 10, 20), hold("b", 6, 15, 30, 40)], "token 6 of lock l was given to b, who asked when a had"),
        (
            # The one between them, whose grant came late, must not hide it.
            [hold("b", 1, 30, 60, 70), hold("c", 2, 0, 80, 90), hold("a", 3, 0, 10, 20)],
            "token 1 of lock l was given to b, who asked when a had the larger token 3",
        ),
    ],
)
def test_tokens_that_are_shared_or_fall_are_found(holds: list[Hold], reason: str) -> None:
    result = check_exclusion(holds, [], clocks_keep_bound=True)
    assert result.verdict is Verdict.FALSE
    assert reason in result.as_check().reason


def test_two_holders_who_are_sure_at_one_time_are_found_unless_clocks_broke_their_bound() -> None:
    holds = [hold("a", 1, 0, 10, 50_000_000), hold("b", 2, 0, 20_000_000, 70_000_000)]
    result = check_exclusion(holds, [], clocks_keep_bound=True)
    assert result.broken == ("a (token 1) and b (token 2) were both sure to hold lock l, for 30.0 ms",)
    assert check_exclusion(holds, [], clocks_keep_bound=False).verdict is Verdict.TRUE


def test_a_long_hold_is_not_forgotten_behind_a_short_one() -> None:
    holds = [hold("a", 1, 0, 10, 100), hold("b", 2, 0, 20, 30), hold("c", 3, 0, 99, 120)]
    assert [text.partition(" were")[0] for text in check_exclusion(holds, [], clocks_keep_bound=True).broken] == [
        "a (token 1) and b (token 2)",
        "a (token 1) and c (token 3)",
    ]


@pytest.mark.parametrize(
    ("writes", "reason"),
    [
        ([write("b", 2, 1), write("a", 1, 2)], "accepted token 1 of a after the larger token 2 of b"),
        ([write("a", 1, 1), write("b", 2, 2, accepted=False)], "refused token 2, and had seen no larger one"),
        ([write("a", 1, 1), write("b", 1, 2)], "saw a and b with one token"),
    ],
)
def test_a_resource_that_takes_or_refuses_the_wrong_writes_is_found(writes: list[GuardedWrite], reason: str) -> None:
    result = check_exclusion(GOOD_HOLDS, writes, clocks_keep_bound=True)
    assert result.verdict is Verdict.FALSE
    assert reason in result.broken[0]


def test_a_refused_write_forbids_nothing() -> None:
    writes = [write("b", 2, 1), write("a", 1, 2, accepted=False), write("b", 2, 3)]
    assert check_exclusion(GOOD_HOLDS, writes, clocks_keep_bound=True).verdict is Verdict.TRUE


def test_a_lock_that_never_changed_hands_proves_nothing() -> None:
    holds = [hold("a", 1, 0, 10, 20), hold("a", 2, 20, 30, 40)]
    assert check_exclusion(holds, [], clocks_keep_bound=True).verdict is Verdict.UNKNOWN


def test_those_whose_modes_go_together_may_be_sure_at_one_time_and_others_may_not() -> None:
    shared = [
        hold("a", 1, 0, 10, 90, mode=LockMode.S),
        hold("b", 2, 0, 20, 80, mode=LockMode.S),
        hold("c", 3, 0, 30, 70, mode=LockMode.IS),
    ]
    assert check_exclusion(shared, [], clocks_keep_bound=True).verdict is Verdict.TRUE
    intends = hold("d", 4, 0, 75, 95, mode=LockMode.IX)
    assert check_exclusion([*shared, intends], [], clocks_keep_bound=True).broken == (
        "a (token 1, mode S) and d (token 4, mode IX) were both sure to hold lock l, for 0.0 ms",
        "b (token 2, mode S) and d (token 4, mode IX) were both sure to hold lock l, for 0.0 ms",
    )


def test_a_lease_may_hold_in_two_modes_and_find_its_own_grant_again() -> None:
    weaker, converted = hold("a", 1, 0, 10, 90, mode=LockMode.S), hold("a", 2, 20, 30, 80)
    holds = [replace(weaker, lease=7), replace(converted, lease=7), replace(converted, lease=7, asked_ns=85)]
    assert check_exclusion([*holds, hold("b", 3, 0, 95, 96)], [], clocks_keep_bound=True).verdict is Verdict.TRUE


def test_a_lock_delay_that_is_long_enough_keeps_holders_apart_whatever_clocks_do() -> None:
    holds = [hold("a", 1, 0, 10, 50), hold("b", 2, 0, 20, 70)]
    delayed = [replace(holds[0], delayed=True), holds[1]]
    assert check_exclusion(holds, [], clocks_keep_bound=False).verdict is Verdict.TRUE
    assert check_exclusion(delayed, [], clocks_keep_bound=False).verdict is Verdict.FALSE
    assert check_exclusion(delayed, [], clocks_keep_bound=False, delays_suffice=False).verdict is Verdict.TRUE
