"""One timer for all calls of a client.

Almost no call lives until the time at which something would have to be done for it, so a timer of the loop for each
would be armed and cancelled in vain. The alarm is set to the earliest time that any call has named, and whoever owns
it looks at all calls when it goes off: most of them are over by then.
"""

import asyncio
import math
from collections.abc import Callable
from typing import final

SPACING_S = 0.005
"""Time between two alarms at least, so that looking at many calls stays cheap: so late may a call be looked at."""


@final
class Alarm:
    """See the module."""

    def __init__(self, look: Callable[[float], float]) -> None:
        """`look` is called with the time when the alarm goes off, and returns the next time; infinity for none."""
        self._loop = asyncio.get_running_loop()
        self._look = look
        self._at = math.inf
        self._timer: asyncio.TimerHandle | None = None

    def set(self, at: float) -> None:
        """Go off at a time of the loop, if nothing earlier is named."""
        if at < self._at:
            self._at = at
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._loop.call_at(at, self._ring)

    def end(self) -> None:
        """Go off no more."""
        if self._timer is not None:
            self._timer.cancel()

    def _ring(self) -> None:
        self._at, self._timer = math.inf, None
        now = self._loop.time()
        following = self._look(now)
        if following < math.inf:
            self.set(max(following, now + SPACING_S))
