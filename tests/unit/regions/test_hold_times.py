"""Who is warned about for holding a lock for long."""

from isochrone.ids import Nanos
from isochrone.regions import hold_times
from isochrone.regions.hold_times import HoldTimes
from isochrone.regions.state.lock_table import Lock, Request
from isochrone.wire.locks import LockMode

WARN_NS = 100


def holder(lease: int, token: int, *, announce: bool = False) -> Request:
    return Request(lease, 1, LockMode.S, token, 0, 0, False, announce, b"", token)


def lock(*holders: Request) -> Lock:
    return Lock(held={each.lease: each for each in holders})


def test_a_holder_is_warned_about_after_the_time_and_whenever_that_has_doubled() -> None:
    locks = {b"a": lock(holder(1, 11)), b"b": lock()}
    times = HoldTimes(WARN_NS)
    warned = []
    for now in range(1_000, 1_501, 10):
        for hold in times.look(locks, Nanos(now)):
            assert (hold.name, hold.lease, hold.token) == (b"a", 1, 11)
            warned.append((hold.held_ns, hold.first))
        assert times.long == (now >= 1_100)
    assert warned == [(100, True), (200, False), (400, False)]


def test_each_grant_counts_anew_and_each_holder_for_itself() -> None:
    times = HoldTimes(WARN_NS)
    assert times.look({b"a": lock(holder(1, 11))}, Nanos(0)) == []
    assert times.look({b"a": lock(holder(1, 12))}, Nanos(90)) == [], "released and taken again in between"
    shared = {b"a": lock(holder(1, 12), holder(2, 13))}
    assert times.look(shared, Nanos(150)) == []
    assert [hold.lease for hold in times.look(shared, Nanos(190))] == [1]
    assert [hold.lease for hold in times.look(shared, Nanos(250))] == [2]
    assert times.long == 2
    assert times.look({}, Nanos(300)) == [] and times.long == 0


def test_elections_are_held_as_long_as_their_leader_lives() -> None:
    locks = {b"a": lock(holder(1, 11, announce=True))}
    times = HoldTimes(WARN_NS)
    assert [times.look(locks, Nanos(now)) for now in (0, 1_000)] == [[], []]
    assert times.long == 0


def test_many_locks_take_several_looks_and_none_is_missed() -> None:
    locks = {b"%05d" % number: lock(holder(1, number + 1)) for number in range(2 * hold_times.LOOKED_AT_MAX + 1)}
    times = HoldTimes(WARN_NS)
    first_round = [len(times.look(locks, Nanos(now))) for now in (0, 1, 2)]
    second_round = [len(times.look(locks, Nanos(now))) for now in (200, 201, 202)]
    assert first_round == [0, 0, 0]
    assert second_round == [hold_times.LOOKED_AT_MAX, hold_times.LOOKED_AT_MAX, 1]
    assert times.long == len(locks)
