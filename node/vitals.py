"""What a node looks at once a second: how late its event loop is, and which locks are held for too long.

A loop that is late by more than a heartbeat makes followers doubt their leader, so its lateness is the first thing to
look at when leaders change without a cause. It is measured by the beat itself: the time between when it was to come and
when it came.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Mapping
from typing import final

from isochrone.histograms import Histogram
from isochrone.ids import NS_PER_S, GroupId, Nanos
from isochrone.regions.hold_times import HoldTimes, LongHold
from isochrone.regions.replica import Replica

logger = logging.getLogger(__name__)

BEAT_S = 1.0


@final
class Vitals:
    """See the module. `begin` it in the node's loop, and `end` it with the node."""

    def __init__(self, replicas: Mapping[GroupId, Replica], warn_after_s: float) -> None:
        """`warn_after_s`: how long a lock may be held before a warning is logged; 0: as long as one likes."""
        self._replicas = replicas
        self._warn_after_ns = round(warn_after_s * NS_PER_S)
        self._hold_times: dict[GroupId, HoldTimes] = {}
        """Of the groups that this node leads."""
        self._timer: asyncio.TimerHandle | None = None
        self.loop_lag_ns = Histogram()
        self.held_too_long: Counter[GroupId] = Counter()
        """Grants that were warned about."""

    def held_too_long_now(self, group: GroupId) -> int:
        """How many holders of locks hold them for too long, as far as this node leads the group."""
        hold_times = self._hold_times.get(group)
        return 0 if hold_times is None else hold_times.long

    def begin(self) -> None:
        """Look from now on."""
        self._arm(asyncio.get_running_loop())

    def end(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()

    def _arm(self, loop: asyncio.AbstractEventLoop) -> None:
        due = loop.time() + BEAT_S
        self._timer = loop.call_at(due, self._beat, loop, due)

    def _beat(self, loop: asyncio.AbstractEventLoop, due: float) -> None:
        late_s = max(0.0, loop.time() - due)
        self.loop_lag_ns.record(round(late_s * NS_PER_S))
        if self._warn_after_ns:
            now = Nanos(round(loop.time() * NS_PER_S))
            for group, replica in self._replicas.items():
                self._look(group, replica, now)
        self._arm(loop)

    def _look(self, group: GroupId, replica: Replica, now: Nanos) -> None:
        machine = replica.machine
        if machine is None or replica.leader != replica.core.node:
            self._hold_times.pop(group, None)
            return
        hold_times = self._hold_times.setdefault(group, HoldTimes(self._warn_after_ns))
        for hold in hold_times.look(machine.data.locks.locks, now):
            self.held_too_long[group] += hold.first
            logger.warning("%s", _warning(hold))


def _warning(hold: LongHold) -> str:
    holder = f"lease {hold.lease}" + (f" ({_text(hold.value)})" if hold.value else "")
    held_s = hold.held_ns // NS_PER_S
    return f"lock {_text(hold.name)} is held for {held_s} s by {holder}, token {hold.token}; {hold.waiting} wait for it"


def _text(value: bytes) -> str:
    return repr(value[:64].decode(errors="backslashreplace"))
