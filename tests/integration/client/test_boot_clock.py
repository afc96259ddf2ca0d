"""Alarms on the kernel's clock that goes on during a suspension."""

import asyncio
import os
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
