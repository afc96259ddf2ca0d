"""Bookkeeping of one session: which sequences are in use, and which the group may forget.

Invariants:
1. A sequence is given out once. It stays in use until `end`: answered, refused for good, or given up.
2. `acknowledged` is the largest mark such that no sequence up to it is in use. The group forgets the results up to
   it and refuses later copies of these commands, so a command that was given up cannot take effect after it.
3. No sequence given out exceeds `acknowledged` + `SESSION_IN_FLIGHT_MAX`.

This module is pure.
"""

from isochrone.errors import check
from isochrone.wire.commands import SESSION_IN_FLIGHT_MAX


class Session:
    """The client's half of one session."""

    __slots__ = ("_ended", "_last", "acknowledged", "identity")

    def __init__(self, identity: int) -> None:
        self.identity = identity
        """The session's id, assigned by its group."""
        self.acknowledged = 0
        self._last = 0
        self._ended: set[int] = set()

    def begin(self) -> int | None:
        """Give out the next sequence; None while the session is full."""
        if self._last >= self.acknowledged + SESSION_IN_FLIGHT_MAX:
            return None
        self._last += 1
        return self._last

    def end(self, sequence: int) -> None:
        """A sequence is no longer in use: nothing more will be sent under it."""
        check(self.acknowledged < sequence <= self._last, "a sequence ends that is not in use")
        if sequence != self.acknowledged + 1:
            self._ended.add(sequence)
            return
        self.acknowledged = sequence
        while self._ended and self.acknowledged + 1 in self._ended:
            self.acknowledged += 1
            self._ended.remove(self.acknowledged)
