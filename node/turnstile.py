"""Long work in steps, so that nobody waits for more than a step: one step in each turn of the event loop, in order.

Watches that start in the past read a piece of the history in each step. Whatever a client asks for, what else the node
has to do gets its turn between two steps.

A driver without tasks of its own.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import final


@final
class Turnstile:
    """See the module. One for all clients of a kind."""

    def __init__(self) -> None:
        self._waiting: deque[Callable[[], None]] = deque()

    def __len__(self) -> int:
        """How many steps wait for their turn."""
        return len(self._waiting)

    def add(self, step: Callable[[], None]) -> None:
        """Take a step later, after those that were added before. It may add the next one."""
        self._waiting.append(step)
        if len(self._waiting) == 1:
            asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        step = self._waiting[0]
        try:
            step()
        finally:
            self._waiting.popleft()
            if self._waiting:
                asyncio.get_running_loop().call_soon(self._turn)
