"""When the leader is to log a tick for which lock: what only time moves must be moved by somebody.

Moments are timestamps of the log; the leader waits for them by its own clock, from when it applied what set them. A
tick that comes early does nothing but say the moment again.
"""

import heapq
from collections.abc import Iterable

from isochrone.ids import Nanos, Timestamp
from isochrone.regions.state.model import LockMoment

SLACK = 64
"""So many entries may be out of date beside as many as hold."""


class LockTimers:
    """See the module."""

    def __init__(self) -> None:
        self._due: dict[bytes, Nanos] = {}
        self._heap: list[tuple[Nanos, bytes]] = []
        """Some of it out of date: `_due` says what holds."""

    def clear(self) -> None:
        """Forget everything."""
        self._due.clear()
        self._heap.clear()

    def note(self, moments: Iterable[LockMoment], timestamp: Timestamp, now: Nanos) -> None:
        """Take moments, as of a timestamp that is now."""
        for moment in moments:
            if moment.timestamp:
                self.set(moment.name, Nanos(now + max(0, moment.timestamp - timestamp)))
            else:
                self._due.pop(moment.name, None)

    def set(self, name: bytes, at: Nanos) -> None:
        """A lock is to be ticked at a time of the leader's clock, if it is not to be ticked sooner."""
        if name in self._due and self._due[name] <= at:
            return
        self._due[name] = at
        heapq.heappush(self._heap, (at, name))
        if len(self._heap) > 2 * len(self._due) + SLACK:
            self._heap = [(at, name) for name, at in self._due.items()]
            heapq.heapify(self._heap)

    @property
    def next_deadline(self) -> Nanos | None:
        """When to ask `due` again, or earlier than need be."""
        return self._heap[0][0] if self._heap else None

    def due(self, now: Nanos, count_max: int) -> list[bytes]:
        """Locks to be ticked now; each is named once."""
        names: list[bytes] = []
        while self._heap and self._heap[0][0] <= now and len(names) < count_max:
            at, name = heapq.heappop(self._heap)
            if self._due.get(name) == at:
                del self._due[name]
                names.append(name)
        return names
