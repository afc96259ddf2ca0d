"""When locks are to be ticked."""

from isochrone.ids import Nanos, Timestamp
from isochrone.regions.lock_timers import SLACK, LockTimers
from isochrone.regions.state.model import LockMoment

NOW, STAMP = Nanos(1_000), Timestamp(50_000)


def noted(*moments: LockMoment) -> LockTimers:
    timers = LockTimers()
    timers.note(moments, STAMP, NOW)
    return timers


def test_a_moment_of_the_log_becomes_a_time_of_the_leader() -> None:
    timers = noted(LockMoment(b"a", 50_300), LockMoment(b"b", 50_100), LockMoment(b"late", 10))
    assert timers.due(Nanos(1_099), 9) == [b"late"]
    assert timers.next_deadline == 1_100
    assert timers.due(Nanos(1_300), 9) == [b"b", b"a"]
    assert timers.due(Nanos(9_999), 9) == [] and timers.next_deadline is None


def test_what_is_called_off_is_not_due_and_what_moves_is_due_at_the_earlier_time() -> None:
    timers = noted(LockMoment(b"a", 50_300), LockMoment(b"b", 50_300))
    timers.note([LockMoment(b"a", 0), LockMoment(b"b", 50_200)], STAMP, NOW)
    assert timers.due(Nanos(1_200), 9) == [b"b"]
    assert timers.due(Nanos(9_999), 9) == []


def test_only_so_many_are_due_at_once() -> None:
    timers = noted(*[LockMoment(b"%d" % number, 50_000 + number) for number in range(5)])
    assert [len(timers.due(Nanos(9_999), 2)) for _ in range(4)] == [2, 2, 1, 0]


def test_moments_that_come_and_go_leave_nothing_behind() -> None:
    timers = noted(LockMoment(b"stays", 60_000))
    for number in range(1_000):
        timers.note([LockMoment(b"a", 90_000 + number)], STAMP, NOW)
        timers.note([LockMoment(b"a", 0)], STAMP, NOW)
    assert len(timers._heap) <= SLACK + 4
    assert timers.due(Nanos(11_000), 9) == [b"stays"]
