"""Finds out that the other end of a connection is gone: a lost host sends no reset.

When nothing has come for `quiet_s`, the other end is pinged. When nothing comes for as long again, it is lost: noticed
after at most twice `quiet_s`. Whatever arrives is a sign of life, so a busy connection is never pinged. To whoever only
sends, windows come back (`endpoint.GRANT_BYTES`): the answer to a ping would have to wait for all that was sent before.
"""

import asyncio
from collections.abc import Callable
from typing import final


@final
class Keepalive:
    """Watches one connection, from `start` to `stop`."""

    __slots__ = ("_heard_at", "_loop", "_lost", "_ping", "_pinged_at", "_quiet_s", "_timer")

    def __init__(self, quiet_s: float, ping: Callable[[], None], lost: Callable[[], None]) -> None:
        self._quiet_s = quiet_s
        self._ping = ping
        self._lost = lost
        self._loop = asyncio.get_running_loop()
        self._heard_at = 0.0
        self._pinged_at: float | None = None
        """When the ping was sent that nothing has followed yet, as far as was looked."""
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin to watch."""
        self._heard_at = self._loop.time()
        self._timer = self._loop.call_at(self._heard_at + self._quiet_s, self._look)

    def heard(self) -> None:
        """Something has come."""
        self._heard_at = self._loop.time()

    def stop(self) -> None:
        """Watch no more."""
        if self._timer is not None:
            self._timer.cancel()

    def _look(self) -> None:
        now = self._loop.time()
        if self._pinged_at is not None and self._heard_at < self._pinged_at:
            self._lost()
            return
        if now < self._heard_at + self._quiet_s:
            self._pinged_at = None
            self._timer = self._loop.call_at(self._heard_at + self._quiet_s, self._look)
        else:
            self._pinged_at = now
            self._ping()
            self._timer = self._loop.call_at(now + self._quiet_s, self._look)
