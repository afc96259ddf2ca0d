"""Hybrid logical clock (Kulkarni et al., "Logical Physical Clocks", 2014) in one integer.

A timestamp is nanoseconds since the Unix epoch; the logical part is +1 ns. Properties, who relies on them, and
what breaks:

- *Monotonic*: no two timestamps given out are equal, and each exceeds every one given out or observed before.
  Log entries rely on it. It does not rest on the physical clock: a clock that steps back only makes the logical
  part grow.
- *Close to physical time*: a timestamp is ahead of the physical clocks by at most the maximum offset. HAZARD: a
  stamp from far ahead would drag every clock that observes it along; such a stamp is refused, not adopted.

The mark that survives a restart is the largest timestamp of the logs: `restore` with it before the first use.
"""

from isochrone.errors import ClockUnsynchronized
from isochrone.ids import Timestamp


class HybridLogicalClock:
    """Gives out rising timestamps. Physical time is an argument."""

    def __init__(self, offset_max_ns: int) -> None:
        """`offset_max_ns`: how far ahead of our own physical time a remote timestamp may be."""
        self._offset_max_ns = offset_max_ns
        self._last = Timestamp(0)

    def restore(self, high_water: Timestamp) -> None:
        """Never give out a timestamp at or below `high_water`."""
        self._last = max(self._last, high_water)

    def now(self, physical: Timestamp, count: int = 1) -> Timestamp:
        """The first of `count` consecutive new timestamps."""
        first = max(physical, Timestamp(self._last + 1))
        self._last = Timestamp(first + count - 1)
        return first

    def observe(self, remote: Timestamp, physical: Timestamp) -> None:
        """Take note of a timestamp from elsewhere; later ones given out here exceed it.

        Raises:
            ClockUnsynchronized: it is further ahead of `physical` than the maximum offset, and was not adopted.
        """
        if remote > physical + self._offset_max_ns:
            ahead_ms, allowed_ms = (remote - physical) / 1e6, self._offset_max_ns / 1e6
            raise ClockUnsynchronized(
                f"a timestamp from elsewhere is {ahead_ms:.1f} ms ahead; at most {allowed_ms:.1f} ms is allowed"
            )
        self._last = max(self._last, remote)
