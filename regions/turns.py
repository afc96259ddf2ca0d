"""When a host has its turns: as soon as something has happened, and when the earliest deadline has come.

Many wakes make one turn, so what happens while one callback of the loop runs is served together. One timer is armed at
most, and only moved when it would come too late: an early one costs a turn that finds nothing due.
"""

import asyncio
from collections.abc import Callable

from isochrone.ids import NS_PER_S, Nanos
from isochrone.ports import Clock

AT_ONCE = Nanos(0)
"""Before any deadline."""


class Turns:
    """Calls `turn`, in the loop's thread and never within itself; it returns when it is needed next, or None."""

    def __init__(self, clock: Clock, turn: Callable[[], Nanos | None]) -> None:
        """Nothing is called before `begin`."""
        self._clock = clock
        self._turn = turn
        self._loop: asyncio.AbstractEventLoop | None = None
        self._due = False
        self._running = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = Nanos(0)

    def begin(self) -> None:
        """Have the first turn soon, in the running loop."""
        self._loop = asyncio.get_running_loop()
        self.wake()

    def end(self) -> None:
        """Arm no timer any more."""
        self._loop = None
        if self._timer is not None:
            self._timer.cancel()

    def wake(self) -> None:
        """Have a turn as soon as what runs now has ended."""
        if not self._due and self._loop is not None:
            self._due = True
            self._loop.call_soon(self._run_due)

    def take(self) -> None:
        """Have a turn before this returns, in the place of one that is due; from within a turn, as soon as possible."""
        if self._running:
            self.wake()
        elif self._loop is not None:
            self._run()

    def _run_due(self) -> None:
        if self._due:
            self._run()

    def _run(self) -> None:
        self._due = False
        self._running = True
        at = self._turn()
        self._running = False
        if at == AT_ONCE:
            self.wake()
        elif at is not None:
            self._arm(at)

    def _arm(self, at: Nanos) -> None:
        if self._loop is None or (self._timer is not None and self._timer_at <= at):
            return
        if self._timer is not None:
            self._timer.cancel()
        delay_s = max(0, at - self._clock.monotonic()) / NS_PER_S
        self._timer = self._loop.call_later(delay_s, self._timer_fired)
        self._timer_at = at

    def _timer_fired(self) -> None:
        self._timer = None
        self.wake()
