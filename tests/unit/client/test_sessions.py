import pytest
from hypothesis import given
from hypothesis import strategies as st

from isochrone.client.sessions import Session
from isochrone.errors import InvariantViolation
from isochrone.wire.commands import SESSION_IN_FLIGHT_MAX


def test_the_mark_follows_the_oldest_sequence_in_use():
    session = Session(7)
    assert [session.begin() for _ in range(3)] == [1, 2, 3]
    session.end(2)
    session.end(3)
    assert session.acknowledged == 0
    session.end(1)
    assert session.acknowledged == 3
    assert session.begin() == 4


def test_a_session_is_full_at_the_bound_even_if_only_the_oldest_is_in_use():
    session = Session(1)
    for _ in range(SESSION_IN_FLIGHT_MAX):
        session.begin()
    for sequence in range(2, SESSION_IN_FLIGHT_MAX + 1):
        session.end(sequence)
    assert [session.begin() for _ in range(2)] == [None, None]
    session.end(1)
    assert session.begin() == SESSION_IN_FLIGHT_MAX + 1


def test_a_sequence_ends_once():
    session = Session(1)
    session.begin()
    session.end(1)
    for sequence in (0, 1, 2):
        with pytest.raises(InvariantViolation):
            session.end(sequence)


@given(st.lists(st.integers(0, 30), max_size=60))
def test_the_mark_agrees_with_a_plain_set(choices):
    session, used = Session(1), set()
    last = 0
    for choice in choices:
        if choice in used:
            used.remove(choice)
            session.end(choice)
        else:
            last = session.begin()
            used.add(last)
        assert session.acknowledged == (min(used) - 1 if used else last)
