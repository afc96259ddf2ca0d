"""The elections check finds a leader who is announced beside another."""

from isochrone.drills.checkers.elections import check_elections
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
