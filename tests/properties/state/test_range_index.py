"""The index of watched ranges finds what a look at each of them would find."""

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from isochrone.regions import range_index
from isochrone.regions.range_index import RangeIndex
from isochrone.wire.kv import ALL, in_range

BLOCK = 4


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 1 << 32))
def test_the_index_finds_what_a_look_at_each_range_finds(seed: int) -> None:
    rng, index, there = random.Random(seed), RangeIndex(), set[tuple[bytes, bytes]]()
    before, range_index.BLOCK = range_index.BLOCK, BLOCK
    try:
        for _ in range(120):
            item = (
                rng.randbytes(rng.randrange(1, 3)),
                ALL if rng.random() < 0.1 else rng.randbytes(rng.randrange(1, 3)),
            )
            if there and rng.random() < 0.4:
                item = rng.choice(sorted(there))
            if item in there:
                index.remove(*item)
                there.remove(item)
            else:
                index.add(*item)
                there.add(item)
            for key in (rng.randbytes(1), rng.randbytes(2), item[0], item[1], b"\xff" * 3):
                assert sorted(index.holding(key)) == sorted(each for each in there if in_range(key, *each)), key
    finally:
        range_index.BLOCK = before
