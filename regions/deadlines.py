"""When each group of a node needs its next tick: a heap with lazy updates.

A follower's deadline moves on with every message of its leader, so almost every deadline that is set is replaced before
it comes. Setting one is a write into a dictionary unless it is earlier than what the heap holds for the group; the heap
catches up when the old deadline comes.

Invariants: for each group with a deadline the heap holds a time that is not after it, its *alarm*; every other item of
the group in the heap is void. So nothing is due before `earliest`, and `due` misses nothing.
"""

from heapq import heapify, heappop, heappush

from isochrone.ids import GroupId, Nanos

_VOID_MIN = 64
"""Void items that may stay in the heap of however few groups."""


class Deadlines:
    """Deadlines by group. The order in which groups come due depends on their deadlines and names only."""

    def __init__(self) -> None:
        """No group has a deadline yet."""
        self._deadlines: dict[GroupId, Nanos] = {}
        self._alarms: dict[GroupId, Nanos] = {}
        self._heap: list[tuple[Nanos, GroupId]] = []

    @property
    def earliest(self) -> Nanos | None:
        """When to look next: nothing is due before. May be earlier than the first deadline."""
        return self._heap[0][0] if self._heap else None

    def set(self, group: GroupId, deadline: Nanos | None) -> None:
        """Replace a group's deadline; None if it has none any more."""
        if deadline is None:
            self._deadlines.pop(group, None)
            return
        self._deadlines[group] = deadline
        alarm = self._alarms.get(group)
        if alarm is None or deadline < alarm:
            self._push(group, deadline)

    def _push(self, group: GroupId, alarm: Nanos) -> None:
        self._alarms[group] = alarm
        heappush(self._heap, (alarm, group))
        if len(self._heap) > 2 * len(self._alarms) + _VOID_MIN:
            self._heap = [(time, name) for name, time in self._alarms.items()]
            heapify(self._heap)

    def due(self, now: Nanos) -> list[GroupId]:
        """Groups whose deadline has come, the earliest first. They have none until it is set again."""
        if not self._heap or self._heap[0][0] > now:
            return []
        due = []
        while self._heap and self._heap[0][0] <= now:
            alarm, group = heappop(self._heap)
            if self._alarms.get(group) != alarm:
                continue
            del self._alarms[group]
            deadline = self._deadlines.get(group)
            if deadline is None:
                continue
            if deadline > now:
                self._push(group, deadline)
            else:
                del self._deadlines[group]
                due.append((deadline, group))
        return [group for _, group in sorted(due)]
