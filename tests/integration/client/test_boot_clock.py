"""Alarms on the kernel's clock that goes on during a suspension."""

import asyncio
import os
import signal
import subprocess
import sys
import time

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
    deadline = clock() + 1.0

    async def work():
        while True:
            print("step", clock() - deadline, flush=True)
            await asyncio.sleep(0.02)

    working = asyncio.ensure_future(work())
    clock.call_at(deadline, working.cancel)
    await asyncio.gather(working, return_exceptions=True)

asyncio.run(main())
"""


def test_what_an_alarm_cancels_takes_no_further_step_after_the_process_stood_still() -> None:
    for pause_s in (0.2, 0.21, 0.22, 0.23, 0.24):
        process = subprocess.Popen([sys.executable, "-c", STANDS_STILL], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None and process.stdout.readline()
        time.sleep(pause_s)
        process.send_signal(signal.SIGSTOP)
        time.sleep(1.5)
        process.send_signal(signal.SIGCONT)
        output, _ = process.communicate(timeout=30)
        steps = [float(line.split()[1]) for line in output.splitlines()]
        assert process.returncode == 0
        assert max(steps) < 0, "it worked on beyond the deadline"
