"""A sorted set of keys for range scans: a list of short sorted lists.

Adding or removing a key costs a binary search and a move within one short list, whatever the size of the set; a scan
costs what it returns.
"""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain

_CHUNK = 512
"""Keys of a chunk after a split; it splits at twice as many."""
_FEW = 4
"""Keys to add are few, if the set has so many times as many."""


class SortedKeys:
    """See the module. Iteration must end before the set is changed."""

    __slots__ = ("_chunks", "_count", "_firsts")

    def __init__(self, keys: Iterable[bytes] = ()) -> None:
        self._count = 0
        self._chunks: list[list[bytes]] = [[]]
        self._firsts = [b""]
        """A lower bound of each chunk, and above all keys of the one before; the first one bounds from nothing."""
        self._fill(sorted(keys))

    def _fill(self, ordered: list[bytes]) -> None:
        self._count = len(ordered)
        self._chunks = [ordered[at : at + _CHUNK] for at in range(0, len(ordered), _CHUNK)] or [[]]
        self._firsts = [chunk[0] if chunk else b"" for chunk in self._chunks]

    def __len__(self) -> int:
        return self._count

    def add(self, key: bytes) -> None:
        """Add a key that is not in the set."""
        at = max(bisect_right(self._firsts, key) - 1, 0)
        chunk = self._chunks[at]
        insort(chunk, key)
        self._count += 1
        if len(chunk) >= 2 * _CHUNK:
            self._chunks.insert(at + 1, chunk[_CHUNK:])
            self._firsts.insert(at + 1, chunk[_CHUNK])
            del chunk[_CHUNK:]

    def add_all(self, keys: Sequence[bytes]) -> None:
        """Add keys that are not in the set, each once; many at a time cost less than one after the other."""
        if len(keys) * _FEW < self._count:
            for key in keys:
                self.add(key)
        else:
            self._fill(sorted(chain(*self._chunks, keys)))

    def remove(self, key: bytes) -> None:
        """Remove a key that is in the set."""
        at = max(bisect_right(self._firsts, key) - 1, 0)
        chunk = self._chunks[at]
        del chunk[bisect_left(chunk, key)]
        self._count -= 1
        if not chunk and len(self._chunks) > 1:
            del self._chunks[at]
            del self._firsts[at]

    def between(self, start: bytes, end: bytes | None) -> Iterator[bytes]:
        """Keys from `start` on and below `end` (None: all), in order."""
        at = max(bisect_right(self._firsts, start) - 1, 0)
        first = bisect_left(self._chunks[at], start)
        for number in range(at, len(self._chunks)):
            chunk = self._chunks[number]
            if end is not None and chunk and chunk[-1] >= end:
                yield from chunk[first : bisect_left(chunk, end)]
                return
            yield from chunk[first:] if first else chunk
            first = 0

    def count_between(self, start: bytes, end: bytes | None) -> int:
        """How many keys `between` would return."""
        return self._below(end) - self._below(start) if end is None or end > start else 0

    def _below(self, key: bytes | None) -> int:
        if key is None:
            return self._count
        at = max(bisect_right(self._firsts, key) - 1, 0)
        return sum(map(len, self._chunks[:at])) + bisect_left(self._chunks[at], key)
