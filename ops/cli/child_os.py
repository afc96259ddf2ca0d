"""A child process that runs while something is held, and is stopped in time when that is lost.

The child gets a process group of its own, so that what it starts is stopped with it. It is asked by SIGTERM; what is
left of its group is killed when the child has ended then, at the latest when the time given is over. What a child that
ends by itself leaves behind goes on.

HAZARD: if this process is killed or stopped itself (SIGKILL, SIGSTOP), the child goes on. Only a fencing token, given
with each write, makes a resource refuse it then.
"""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence

from isochrone.errors import InvalidRequest

KILL_S = 0.2
"""The child is killed so long before the end of what it needs: a kill takes a moment."""


async def run_child(command: Sequence[str], environment: Mapping[str, str], left_s: Callable[[], float]) -> int:
    """Run a command to its end. Returns its exit status as shells tell it: 128 + the signal that ended it.

    When cancelled it stops the child within `left_s()`, and returns by the cancellation when no process of the
    child's group is left.

    Args:
        command: the program and its arguments.
        environment: added to that of this process.
        left_s: for how long the child may still run, asked when it is to be stopped.

    Raises:
        InvalidRequest: the program cannot be started.
    """
    # A process group in the background that reads from the terminal would be stopped by it.
    stdin = subprocess.DEVNULL if sys.stdin is None or sys.stdin.isatty() else None
    try:
        process = await asyncio.create_subprocess_exec(
            *command, env={**os.environ, **environment}, stdin=stdin, process_group=0
        )
    except OSError as error:
        raise InvalidRequest(f"{command[0]} cannot be started: {error.strerror}") from error
    try:
        status = await process.wait()
    except asyncio.CancelledError:
        await _stop(process, left_s())
        raise
    return status if status >= 0 else 128 - status


async def _stop(process: asyncio.subprocess.Process, left_s: float) -> None:
    try:
        _signal_group(process, signal.SIGTERM)
        _signal_group(process, signal.SIGCONT)
        async with asyncio.timeout(max(0.0, left_s - KILL_S)):
            await process.wait()
    except TimeoutError:
        pass
    finally:
        _signal_group(process, signal.SIGKILL)
        await process.wait()


def _signal_group(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        return  # Nobody is left in it.
