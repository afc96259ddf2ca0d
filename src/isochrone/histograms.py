"""Histograms with fixed bounds: a search and two additions for each value, so that hot paths can fill them.

Values are integers. Nothing here knows units or names; whoever publishes a histogram does (`node.metrics`).
"""

from bisect import bisect_left
from collections.abc import Sequence

from isochrone.ids import NS_PER_MS, NS_PER_S

LATENCY_BOUNDS_NS = (
    100_000,
    250_000,
    500_000,
    *(number * NS_PER_MS for number in (1, 2, 5, 10, 25, 50, 100, 250, 500)),
    *(number * NS_PER_S for number in (1, 2, 5, 10, 30, 60)),
)
"""From a tenth of a millisecond to a minute: of anything between a commit on one machine and a wait for a lock."""


class Histogram:
    """Counts of values by the smallest bound that is not below them."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[int] = LATENCY_BOUNDS_NS) -> None:
        """`bounds` rise."""
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        """By bound; the last one is of the values above all bounds."""
        self.total = 0
        """Sum of all values."""

    def record(self, value: int) -> None:
        """Count a value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    @property
    def count(self) -> int:
        """How many values were counted."""
        return sum(self.counts)
