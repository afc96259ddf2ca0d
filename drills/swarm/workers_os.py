"""Worker processes that call functions, one at a time each.

A worker reads a pickled call from its standard input and writes what came of it to its standard output; whatever the
call prints goes to standard error. It ends when its input ends, so it does not outlive a parent that was killed by
more than the call under way. It has a session of its own: Ctrl-C reaches the parent alone, which then ends its
workers by their process ids.
"""

import asyncio
import faulthandler
import os
import pickle
import sys
import traceback
from collections.abc import Callable
from typing import BinaryIO, Generic, Self, TypeVar, final

from isochrone.errors import InvariantViolation

T = TypeVar("T")

_LENGTH_BYTES = 8


class WorkerFailed(Exception):
    """A call raised, took too long, or took its process with it. The text says which, with the traceback if any."""


@final
class Worker(Generic[T]):
    """A process that makes calls for this one. Used as an asynchronous context manager; started at the first call."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stop()

    async def call(self, function: Callable[[], T]) -> T:
        """Make a call in the worker. `function` must be picklable: a function of a module, or a `partial` of one.

        Raises:
            WorkerFailed: see there. The next call starts a new process if need be.
        """
        process = self._process = self._process or await _started()
        try:
            async with asyncio.timeout(self._timeout_s):
                returned, value = await _exchange(process, function)
        except TimeoutError:
            await self._stop()
            raise WorkerFailed(f"did not end within {self._timeout_s:g} s, and was killed") from None
        except (asyncio.IncompleteReadError, BrokenPipeError, ConnectionResetError):
            status = await process.wait()
            self._process = None
            raise WorkerFailed(f"the worker process ended with status {status}") from None
        except BaseException:
            # Whatever the worker does now is of no interest, and its answer must not be taken for the next call's.
            await self._stop()
            raise
        if not returned:
            raise WorkerFailed(str(value))
        result: T = value
        return result

    async def _stop(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        if process.returncode is None:
            process.kill()
        if process.stdout is not None:
            await process.stdout.read()  # To its end: only then asyncio has let go of the pipe.
        await process.wait()


async def _started() -> asyncio.subprocess.Process:
    starting = asyncio.get_running_loop().create_task(_start())
    try:
        return await asyncio.shield(starting)
    except asyncio.CancelledError:
        # asyncio cannot undo half a start cleanly: who is cancelled meanwhile waits until the process is there.
        process = await starting
        process.kill()
        await process.communicate()
        raise


async def _start() -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-P",  # Not the working directory: its folders are rooms, which must not be imported by their bare names.
        "-m",
        __name__,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        start_new_session=True,
    )


async def _exchange(process: asyncio.subprocess.Process, function: Callable[[], T]) -> tuple[bool, T]:
    if process.stdin is None or process.stdout is None:
        raise InvariantViolation("a worker was started without pipes")
    process.stdin.write(_framed(pickle.dumps(function)))
    await process.stdin.drain()
    length = int.from_bytes(await process.stdout.readexactly(_LENGTH_BYTES))
    returned: bool
    returned, value = pickle.loads(await process.stdout.readexactly(length))
    return returned, value


def _framed(payload: bytes) -> bytes:
    return len(payload).to_bytes(_LENGTH_BYTES) + payload


def _serve(calls: BinaryIO, answers: BinaryIO) -> None:
    """The worker's life."""
    while header := calls.read(_LENGTH_BYTES):
        function = pickle.loads(calls.read(int.from_bytes(header)))
        try:
            answer = (True, function())
        except Exception:
            answer = (False, traceback.format_exc())
        answers.write(_framed(pickle.dumps(answer)))
        answers.flush()


def _main() -> None:
    faulthandler.enable()
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    _serve(sys.stdin.buffer, answers)


if __name__ == "__main__":
    _main()
