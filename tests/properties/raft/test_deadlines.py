"""The heap of deadlines against the plainest thing that could be right: a dictionary looked through each time."""

import random

import pytest

from isochrone.ids import GroupId, Nanos
from isochrone.regions.deadlines import Deadlines

GROUPS = [GroupId(f"g{number}") for number in range(8)]


@pytest.mark.parametrize("seed", range(20))
def test_every_group_comes_due_exactly_when_a_scan_finds_it(seed: int) -> None:
    rng = random.Random(seed)
    deadlines, now = Deadlines(), 0
    plain: dict[GroupId, int] = {}
    for _ in range(2_000):
        match rng.randrange(4):
            case 0:
                now += rng.randrange(20)
                due = sorted((time, group) for group, time in plain.items() if time <= now)
                assert deadlines.due(Nanos(now)) == [group for _, group in due]
                for _, group in due:
                    del plain[group]
            case 1:
                group = rng.choice(GROUPS)
                deadlines.set(group, None)
                plain.pop(group, None)
            case _:
                group, time = rng.choice(GROUPS), now + rng.randrange(-3, 40)
                deadlines.set(group, Nanos(time))
                plain[group] = time
        earliest = deadlines.earliest
        assert not plain or (earliest is not None and earliest <= min(plain.values()))


def test_deadlines_that_only_move_on_cost_one_look_each() -> None:
    deadlines = Deadlines()
    for time in range(100, 10_000):
        deadlines.set(GROUPS[0], Nanos(time))
    assert deadlines.earliest == 100
    assert deadlines.due(Nanos(9_998)) == []
    assert deadlines.earliest == 9_999


def test_deadlines_that_only_come_nearer_do_not_pile_up() -> None:
    deadlines = Deadlines()
    for time in range(100_000, 0, -1):
        deadlines.set(GROUPS[0], Nanos(time))
    assert deadlines.due(Nanos(100_000)) == [GROUPS[0]]
    assert deadlines.earliest is None
