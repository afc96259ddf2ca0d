"""A set of keys made of intervals, as large as a transaction can name. Asking it costs the logarithm of that."""

from bisect import bisect_left, bisect_right
from typing import final


@final
class KeySet:
    """See the module."""

    __slots__ = ("_ends", "_from", "_starts")

    def __init__(self) -> None:
        self._starts: list[bytes] = []
        self._ends: list[bytes] = []
        """The intervals in order; no two touch."""
        self._from: bytes | None = None
        """All keys from here on belong to it, too."""

    def __contains__(self, key: bytes) -> bool:
        if self._from is not None and key >= self._from:
            return True
        place = bisect_right(self._starts, key) - 1
        return place >= 0 and key < self._ends[place]

    def add(self, start: bytes, end: bytes | None) -> None:
        """Add the keys from `start` on and below `end`; None: all from there on."""
        if end is None:
            self._from = start if self._from is None else min(self._from, start)
            return
        if end <= start:
            return
        first, last = bisect_left(self._ends, start), bisect_right(self._starts, end)
        if first < last:
            start, end = min(start, self._starts[first]), max(end, self._ends[last - 1])
        self._starts[first:last] = [start]
        self._ends[first:last] = [end]

    def update(self, other: "KeySet") -> None:
        """Add all keys of another set."""
        for start, end in zip(other._starts, other._ends, strict=True):
            self.add(start, end)
        if other._from is not None:
            self.add(other._from, None)
