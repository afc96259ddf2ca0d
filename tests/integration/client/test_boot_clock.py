"""Alarms on the kernel's clock that goes on during a suspension."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack

from small_topology import eventually

from isochrone.client.boot_clock_os import BootClock


def test_alarms_run_out_in_order_and_not_early_and_leave_nothing_open() -> None:
    async def main() -> None:
        clock = BootClock()
        open_before = len(os.listdir("/proc/self/fd"))
        told: list[tuple[str, float]] = []
        done = asyncio.Event()
        began = clock()
        assert abs(began - time.clock_gettime(time.CLOCK_BOOTTIME)) < 1

        def tell(name: str) -> None:
            told.append((name, clock() - began))
            if name == "last":
                done.set()

        clock.call_at(began + 0.3, lambda: tell("last"))
        clock.call_at(began + 0.1, lambda: tell("first"))
        clock.call_at(began - 5, lambda: tell("past"))
        cancel = clock.call_at(began + 0.2, lambda: tell("cancelled"))
        cancel()
        cancel()
        async with asyncio.timeout(20):
            await done.wait()
        assert [name for name, _ in told] == ["past", "first", "last"]
        assert told[1][1] >= 0.1 and told[2][1] >= 0.3
        assert len(os.listdir("/proc/self/fd")) == open_before

    asyncio.run(main())


STANDS_STILL = """
import asyncio
from isochrone.client.boot_clock_os import BootClock

async def main():
    clock = BootClock()
    print("ready", flush=True)
    input()
    deadline = clock() + 1.0
    print(deadline, flush=True)

    async def work():
        while True:
            print("step", clock() - deadline, flush=True)
            await asyncio.sleep(0.02)

    working = asyncio.ensure_future(work())
    clock.call_at(deadline, working.cancel)
    await asyncio.gather(working, return_exceptions=True)

asyncio.run(main())
"""
PHASES_S = (0.0, 0.005, 0.01, 0.015, 0.019)
"""Where between two steps the process is stopped."""


def now() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def test_what_an_alarm_cancels_takes_no_further_step_after_the_process_stood_still() -> None:
    command = [sys.executable, "-c", STANDS_STILL]
    with ExitStack() as stack:
        workers = [
            stack.enter_context(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
            for _ in PHASES_S
        ]
        for worker in workers:
            stack.callback(worker.kill)
            assert line_of(worker) == "ready"
        deadlines = [stopped(worker, phase_s) for worker, phase_s in zip(workers, PHASES_S, strict=True)]
        eventually(lambda: now() > max(deadlines), "all deadlines have passed")
        for worker in workers:
            worker.send_signal(signal.SIGCONT)
            output, _ = worker.communicate(timeout=30)
            steps = [float(line.split()[1]) for line in output.splitlines()]
            assert worker.returncode == 0
            assert max(steps, default=-1.0) < 0, "it worked on beyond the deadline"


def stopped(worker: "subprocess.Popen[str]", phase_s: float) -> float:
    """Let it begin, and stop it before its deadline, which is returned."""
    assert worker.stdin is not None
    worker.stdin.write("\n")
    worker.stdin.flush()
    deadline = float(line_of(worker))
    assert line_of(worker).startswith("step")
    time.sleep(phase_s)
    worker.send_signal(signal.SIGSTOP)
    assert now() < deadline, "it was to be stopped in time"
    return deadline


def line_of(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()
