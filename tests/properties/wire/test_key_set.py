"""A set of keys made of intervals holds what a plain set would."""

from hypothesis import given
from hypothesis import strategies as st

from isochrone.wire.key_set import KeySet

KEYS = st.integers(0, 12)
INTERVALS = st.lists(st.tuples(KEYS, st.none() | KEYS), max_size=12)


@given(INTERVALS, INTERVALS)
def test_a_set_of_keys_is_one(first: list[tuple[int, int | None]], second: list[tuple[int, int | None]]) -> None:
    sets = []
    for intervals in (first, second):
        held = KeySet()
        for start, end in intervals:
            held.add(bytes([start]), None if end is None else bytes([end]))
        sets.append(held)
    sets[0].update(sets[1])
    expected = {key for start, end in first + second for key in range(start, 14 if end is None else end)}
    assert {key for key in range(14) if bytes([key]) in sets[0]} == expected
