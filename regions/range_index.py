"""Finds the ranges that hold a key, among as many as watchers may have, without looking at those that do not.

Ranges are kept in blocks, in order of their starts. Of a block whose starts all lie at or below the key, those that
hold it are the ones that end above it, which a list in order of the ends tells; at most one block is looked through.
So a key costs a step for each block and one for each range that holds it.
"""

from bisect import bisect_left, bisect_right, insort
from typing import final

from isochrone.wire.kv import ALL, KEY_BYTES_MAX

BLOCK = 256
"""A block is split when it has twice as many ranges."""
_NO_END = b"\xff" * (KEY_BYTES_MAX + 1)
"""Above all keys."""

_Range = tuple[bytes, bytes]


class _Block:
    __slots__ = ("by_end", "by_start")

    def __init__(self, by_start: list[_Range]) -> None:
        self.by_start = by_start
        self.by_end = sorted((end, start) for start, end in by_start)


@final
class RangeIndex:
    """See the module. A range is known by its key and its end, as `wire.kv` has them; each is there once."""

    def __init__(self) -> None:
        self._blocks: list[_Block] = []
        self._firsts: list[_Range] = []
        """A lower bound of each block."""

    def add(self, start: bytes, range_end: bytes) -> None:
        """Add a range that is not there."""
        item = (start, _end(range_end))
        if not self._blocks:
            self._blocks, self._firsts = [_Block([])], [(b"", b"")]
        at = bisect_right(self._firsts, item) - 1
        block = self._blocks[at]
        insort(block.by_start, item)
        insort(block.by_end, (item[1], start))
        if len(block.by_start) >= 2 * BLOCK:
            upper = _Block(block.by_start[BLOCK:])
            self._blocks[at : at + 1] = [_Block(block.by_start[:BLOCK]), upper]
            self._firsts.insert(at + 1, upper.by_start[0])

    def remove(self, start: bytes, range_end: bytes) -> None:
        """Remove a range that is there."""
        item = (start, _end(range_end))
        at = bisect_right(self._firsts, item) - 1
        block = self._blocks[at]
        del block.by_start[bisect_left(block.by_start, item)]
        del block.by_end[bisect_left(block.by_end, (item[1], start))]
        if not block.by_start and at:
            del self._blocks[at], self._firsts[at]

    def holding(self, key: bytes) -> list[_Range]:
        """The ranges that hold a key, each as key and end."""
        found: list[_Range] = []
        for block in self._blocks:
            by_start = block.by_start
            if not by_start:
                continue
            if by_start[0][0] > key:
                break
            if by_start[-1][0] <= key:
                above = bisect_right(block.by_end, key, key=_first)
                found.extend([(start, end) for end, start in block.by_end[above:]])
            else:
                found.extend([item for item in by_start if item[0] <= key < item[1]])
        return [(start, ALL if end == _NO_END else end) for start, end in found]


def _end(range_end: bytes) -> bytes:
    return _NO_END if range_end == ALL else range_end


def _first(item: _Range) -> bytes:
    return item[0]
