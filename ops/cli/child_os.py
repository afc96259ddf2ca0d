"""A child process that runs while something is held, and is stopped in time when that is lost.

The child gets a process group of its own, so that what it starts is stopped with it. It is asked by SIGTERM; what is
left of its group is killed when the child has ended then, at the latest when the time given is over, by a clock that
goes on while the machine is suspended. What a child that ends by itself leaves behind goes on. Signals go to the
child's group: whether it ends then, and when, is up to it, and what it needs is held until it has ended.

HAZARD: if this process is killed or stopped itself (SIGKILL, SIGSTOP), the child goes on. Only a fencing token, given
with each write, makes a resource refuse it then.
"""

import asyncio
import os
import platform
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import final

from isochrone.client.leases import LeaseClock
from isochrone.ops.cli.signals_os import Diversion

NOT_EXECUTABLE_STATUS = 126
NOT_FOUND_STATUS = 127
"""Exit statuses for commands that cannot be started, as shells have them."""
KILL_S = 0.2
"""The child is killed so long before the end of what it needs: a kill takes a moment."""


@final
class CannotStart(Exception):
    """The program cannot be started."""

    def __init__(self, program: str, error: OSError) -> None:
        super().__init__(f"{program} cannot be started: {error.strerror}")
        self.exit_status = NOT_FOUND_STATUS if isinstance(error, FileNotFoundError) else NOT_EXECUTABLE_STATUS


def this_process() -> str:
    """Host and process id, for those who want to know who holds something."""
    return f"{platform.node()}:{os.getpid()}"


async def run_child(
    command: Sequence[str],
    environment: Mapping[str, str],
    left_s: Callable[[], float],
    diversion: Diversion,
    clock: LeaseClock,
) -> int:
    """Run a command to its end. Returns its exit status as shells tell it: 128 + the signal that ended it.

    When cancelled it stops the child within `left_s()`, and returns by the cancellation when no process of the
    child's group is left.

    Args:
        command: the program and its arguments.
        environment: added to that of this process.
        left_s: for how long the child may still run, asked when it is to be stopped.
        diversion: through which signals come to the child.
        clock: by which that time runs out.

    Raises:
        CannotStart: see there.
    """
    # A process group in the background that reads from the terminal would be stopped by it.
    stdin = subprocess.DEVNULL if sys.stdin is None or sys.stdin.isatty() else None
    try:
        process = await asyncio.create_subprocess_exec(
            *command, env={**os.environ, **environment}, stdin=stdin, process_group=0
        )
    except OSError as error:
        raise CannotStart(command[0], error) from error
    diversion.to = partial(_signal_group, process)
    try:
        status = await process.wait()
    except asyncio.CancelledError:
        await _stop(process, left_s(), clock)
        raise
    finally:
        diversion.to = None
    return status if status >= 0 else 128 - status


async def _stop(process: asyncio.subprocess.Process, left_s: float, clock: LeaseClock) -> None:
    kill = partial(_signal_group, process, signal.SIGKILL)
    try:
        cancel_alarm = clock.call_at(clock() + left_s - KILL_S, kill)
    except OSError:  # No descriptor is free, so nobody would call in time.
        kill()
        await process.wait()
        return
    try:
        _signal_group(process, signal.SIGTERM)
        _signal_group(process, signal.SIGCONT)
        await process.wait()
    finally:
        cancel_alarm()
        kill()
        await process.wait()


def _signal_group(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        return  # Nobody is left in it.
