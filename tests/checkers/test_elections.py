"""The elections check finds a leader who is announced beside another."""

import pytest

from isochrone.drills.checkers.elections import Announced, check_elections, observation_faults
from isochrone.drills.verdict import Verdict
from isochrone.ids import Revision, Timestamp
from isochrone.wire.records import KeyValue


def announced(leader: str, revision: int, lease: int, version: int = 1, key: bytes = b"e") -> KeyValue:
    return KeyValue(key, leader.encode(), Revision(1), Revision(revision), version, Timestamp(revision), lease)


def gone(revision: int) -> KeyValue:
    return KeyValue(b"e", b"", Revision(0), Revision(revision), 0, Timestamp(revision))


LEADERS = [announced("a", 2, 1), announced("proclaimed", 3, 1, 2), announced("x", 4, 9, key=b"f"), gone(5)]


def test_leaders_one_after_another_hold() -> None:
    check = check_elections([*LEADERS, announced("b", 6, 2)])
    assert (check.verdict, check.reason) == (Verdict.TRUE, "3 leaders of 2 elections, one at a time.")


def test_a_leader_beside_another_is_found() -> None:
    check = check_elections([announced("a", 2, 1), announced("b", 3, 2, 2)])
    assert check.verdict is Verdict.FALSE
    assert check.reason == "b'b' was announced as leader of b'e' at revision 3, while b'a' was."


def test_a_leader_without_a_lease_is_found() -> None:
    assert check_elections([announced("a", 2, 0)]).verdict is Verdict.FALSE


def test_a_single_leader_proves_nothing() -> None:
    assert check_elections([announced("a", 2, 1), gone(3)]).verdict is Verdict.UNKNOWN


TERMS = [announced("a", 2, 1), announced("b", 3, 1, 2), gone(5), announced("c", 5, 2), gone(7), announced("d", 9, 3)]
A, B, C, D = (Announced(item.value, item.lease, item.mod_revision) for item in TERMS if item.version)


@pytest.mark.parametrize(
    ("seen", "compacted"),
    [
        ([A, B, None, C, None, D], 0),
        ([None, C, None], 0),
        ([], 0),
        ([A, C, None], 4),
        ([A, None, D], 8),
        ([B, None, D], 5),
        ([D, D], 11),
    ],
)
def test_observers_see_each_change_but_those_that_are_compacted(seen: list[Announced | None], compacted: int) -> None:
    assert list(observation_faults(seen, TERMS, compacted)) == []


@pytest.mark.parametrize(
    ("seen", "compacted", "fault"),
    [
        ([A, C], 0, "b'c' at revision 5 was seen to lead out of order, after revision 2"),
        ([A, B, A], 9, "b'a' at revision 2 was seen to lead out of order"),
        ([B, B, None], 0, "b'b' at revision 3 was seen to lead out of order"),
        ([A, None], 0, "nobody was seen to lead out of order, after revision 2"),
        ([B, None, D], 4, "b'd' at revision 9 was seen to lead out of order, after revision 5"),
        ([B, None, B], 5, "b'b' at revision 3 was seen to lead out of order"),
        ([C, D], 6, "b'd' at revision 9 was seen to lead out of order"),
        (
            [Announced(b"x", 1, Revision(2))],
            0,
            "b'x' was seen to lead at revision 2, and was never announced",
        ),
        ([D, None], 0, "nobody was seen to lead out of order, after revision 9"),
    ],
)
def test_what_an_observer_should_not_see_is_found(seen: list[Announced | None], compacted: int, fault: str) -> None:
    (found,) = observation_faults(seen, TERMS, compacted)
    assert found.startswith(fault)
