"""Clock intervals: `[earliest, latest]` around true time, after TrueTime (Corbett et al., Spanner, OSDI 2012).

HAZARD: whatever relies on an interval is wrong as soon as true time lies outside it. A source that does not know its
bound must raise `ClockUnsynchronized`; it never guesses.
"""

from dataclasses import dataclass

from isochrone.ids import Timestamp
from isochrone.records import quickly_made


@quickly_made
@dataclass(frozen=True, slots=True)
class Interval:
    """True time lies between `earliest` and `latest`, both included, in nanoseconds since the Unix epoch."""

    earliest: Timestamp
    latest: Timestamp
