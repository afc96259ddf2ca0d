"""An event loop whose time jumps: no I/O, no waiting. When nothing is ready, time goes straight to the next timer."""

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

BEGIN_S = 1000.0
LIMIT_S = 600.0
"""How much virtual time one test may take. Heartbeats go on for ever, so what is awaited in vain has no other end."""
PASSES_MAX = 100_000
"""How often the loop may go round without time moving on."""


class _JumpingSelector(selectors.SelectSelector):
    now = BEGIN_S
    passes = 0

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None:
            raise RuntimeError("nothing will ever happen again: the test is stuck")
        if self.now > BEGIN_S + LIMIT_S:
            raise RuntimeError(f"{LIMIT_S:g} s of virtual time are over: the test waits for what does not come")
        self.passes = self.passes + 1 if timeout <= 0 else 0
        if self.passes > PASSES_MAX:
            raise RuntimeError(f"time stands still: the loop went round {PASSES_MAX} times at {self.now:g} s")
        self.now += max(0.0, timeout)
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """See the module."""

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now


def run_virtual(main: Coroutine[Any, Any, T]) -> T:
    """Like `asyncio.run`, in virtual time."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)
