"""A child process is stopped by the clock of the lease that it runs under, not by that of the event loop."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from wire_nodes import until

from isochrone.ops.cli.child_os import KILL_S, run_child
from isochrone.ops.cli.signals_os import Diversion

PATIENCE_S = 30.0
STUBBORN = 'trap "echo asked" TERM; echo began; while true; do sleep 0.01; done'


class HandClock:
    """Stands still until an alarm is rung by hand."""

    def __init__(self, error: OSError | None = None) -> None:
        self.alarms: dict[float, Callable[[], None]] = {}
        self._error = error

    def __call__(self) -> float:
        return 1000.0

    def call_at(self, when_s: float, callback: Callable[[], None]) -> Callable[[], None]:
        if self._error is not None:
            raise self._error
        self.alarms[when_s] = callback
        return lambda: self.alarms.pop(when_s, None) and None


def lines_of(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").split() if path.exists() else []


def run(path: Path, clock: HandClock, left_s: float, then: Callable[["asyncio.Task[int]"], Awaitable[None]]) -> None:
    """Cancel a child that ends by SIGKILL only, do something then, and see it gone."""

    async def main() -> None:
        command = ["sh", "-c", f"exec > {path}; echo $$ > {path.with_suffix('.pid')}; {STUBBORN}"]
        running = asyncio.ensure_future(run_child(command, {}, lambda: left_s, Diversion(), clock))
        await until(lambda: lines_of(path) == ["began"])
        running.cancel()
        await then(running)
        async with asyncio.timeout(PATIENCE_S):
            with pytest.raises(asyncio.CancelledError):
                await running
        with pytest.raises(ProcessLookupError):
            os.kill(int(lines_of(path.with_suffix(".pid"))[0]), 0)
        assert clock.alarms == {}

    asyncio.run(main())


def test_a_child_is_killed_when_its_clock_says_so_and_not_before(tmp_path: Path) -> None:
    clock = HandClock()

    async def then(running: "asyncio.Task[int]") -> None:
        await until(lambda: lines_of(tmp_path / "said") == ["began", "asked"])
        (alarm,) = clock.alarms
        assert alarm == clock() + 0.3 - KILL_S
        await asyncio.sleep(0.3)  # By the loop's clock all of the time is over: that must not count.
        assert not running.done()
        clock.alarms[alarm]()

    run(tmp_path / "said", clock, 0.3, then)


def test_a_child_for_which_no_alarm_can_be_set_is_killed_at_once(tmp_path: Path) -> None:
    async def then(_: "asyncio.Task[int]") -> None:
        """It is over."""

    run(tmp_path / "said", HandClock(OSError(24, "Too many open files")), 1000.0, then)
