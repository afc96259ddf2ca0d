"""Worker processes: calls return, raise, hang and die, and no process outlives its worker."""

import asyncio
import operator
import os
import signal
import time
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

import psutil
import pytest

from isochrone.drills.swarm.workers_os import Worker, WorkerFailed


def run(scenario: Callable[[Worker[Any]], Coroutine[None, None, None]], timeout_s: float = 60.0) -> None:
    """Run a scenario with a worker, and see that nothing stays."""

    async def main() -> None:
        async with Worker[Any](timeout_s) as worker:
            await scenario(worker)

    asyncio.run(main())
    assert [process for process in psutil.Process().children() if process.status() != psutil.STATUS_ZOMBIE] == []


def test_calls_are_made_in_one_other_process() -> None:
    async def scenario(worker: Worker[Any]) -> None:
        pid = await worker.call(os.getpid)
        assert pid != os.getpid()
        assert await worker.call(partial(operator.add, 2, 3)) == 5
        assert await worker.call(partial(bytes, 3_000_000)) == bytes(3_000_000)
        assert await worker.call(partial(print, "what a call prints is no answer")) is None
        assert await worker.call(os.getpid) == pid
        assert os.getsid(pid) == pid, "Ctrl-C must not reach it"

    run(scenario)


def test_a_call_that_raises_tells_where_and_the_worker_goes_on() -> None:
    async def scenario(worker: Worker[Any]) -> None:
        pid = await worker.call(os.getpid)
        with pytest.raises(WorkerFailed, match="ZeroDivisionError"):
            await worker.call(partial(operator.truediv, 1, 0))
        assert await worker.call(os.getpid) == pid

    run(scenario)


def test_a_call_that_takes_its_process_with_it_is_told_and_the_next_one_has_a_new_process() -> None:
    async def scenario(worker: Worker[Any]) -> None:
        with pytest.raises(WorkerFailed, match="ended with status 7"):
            await worker.call(partial(os._exit, 7))
        pid = await worker.call(os.getpid)
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(WorkerFailed, match="ended with status -9"):
            await worker.call(os.getpid)
        assert await worker.call(os.getpid) != pid

    run(scenario)


def test_a_call_that_does_not_end_is_killed() -> None:
    async def scenario(worker: Worker[Any]) -> None:
        with pytest.raises(WorkerFailed, match="did not end within 1 s"):
            await worker.call(partial(time.sleep, 3600))

    run(scenario, timeout_s=1.0)


def test_cancellation_kills_the_process_under_way() -> None:
    async def scenario(worker: Worker[Any]) -> None:
        await worker.call(os.getpid)
        task = asyncio.ensure_future(worker.call(partial(time.sleep, 3600)))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await worker.call(partial(operator.add, 2, 3)) == 5

    run(scenario)
