"""What all clients of a node together may make it keep; whoever makes it keep most is cut off first.

Each connection is bounded by itself, but ten thousand of them, each within its bound, could still fill the memory. So
whoever keeps something for a client (answers that are not taken, requests that are not whole or wait for their turn)
counts it as a `Share` of the node's budget. When all together are beyond that, the largest share is given up, then the
next, until they are within it: who reads what it asked for makes the node keep next to nothing, and is not among them.

Small amounts are not counted: see `Endpoint.count`. This module is pure.
"""

from collections.abc import Callable
from operator import attrgetter
from typing import final

BYTES_MAX = 512 << 20
"""Most bytes that a node keeps for all of its clients."""

_kept_bytes = attrgetter("kept_bytes")


@final
class Budget:
    """See the module."""

    __slots__ = ("bytes_max", "cut_off", "kept_bytes", "shares")

    def __init__(self, bytes_max: int = BYTES_MAX) -> None:
        self.bytes_max = bytes_max
        self.kept_bytes = 0
        """In all shares."""
        self.cut_off = 0
        """Shares that were given up since all together were too much."""
        self.shares: dict[Share, None] = {}
        """Those that keep anything."""

    def relieve(self) -> None:
        """Give the largest shares up until what is left is within the budget."""
        while self.kept_bytes > self.bytes_max:
            largest = max(self.shares, key=_kept_bytes)
            self.cut_off += 1
            largest.give_up()


@final
class Share:
    """What is kept for one client in one place."""

    __slots__ = ("_budget", "_cut_off", "_ended", "kept_bytes")

    def __init__(self, budget: Budget, cut_off: Callable[[], None]) -> None:
        """Keep nothing yet. `cut_off` is called once, if this share is given up: it drops what is kept, now or soon."""
        self._budget = budget
        self._cut_off = cut_off
        self._ended = False
        self.kept_bytes = 0

    def set(self, kept_bytes: int) -> None:
        """So much is kept now. May give up shares, this one included; without effect after its end."""
        budget, more_bytes = self._budget, kept_bytes - self.kept_bytes
        if self._ended or not more_bytes:
            return
        self.kept_bytes = kept_bytes
        budget.kept_bytes += more_bytes
        if not kept_bytes:
            del budget.shares[self]
        elif kept_bytes == more_bytes:
            budget.shares[self] = None
        if budget.kept_bytes > budget.bytes_max and more_bytes > 0:
            budget.relieve()

    def end(self) -> None:
        """Nothing is kept any more, nor will be. Idempotent."""
        self.set(0)
        self._ended = True

    def give_up(self) -> None:
        """End it, and have the client cut off."""
        self.end()
        self._cut_off()
