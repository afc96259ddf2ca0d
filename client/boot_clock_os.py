"""Deadlines on a clock that goes on while the machine is suspended.

A loop's timers stand still during a suspension. On Linux the kernel keeps one on `CLOCK_BOOTTIME` (timerfd): it runs
out while the machine sleeps, and is there when the loop runs again.

A process that was stopped (SIGSTOP) and goes on finds its wait for descriptors interrupted: the loop then runs the
timers that are due before it looks at any descriptor. So an alarm is a timer of the loop besides: it comes in the same
turn as others that are due, and before what they wake.
"""

import asyncio
import ctypes
import os
import struct
import time
from collections.abc import Callable
from typing import final

_ABSOLUTE = 1
_FLAGS = os.O_NONBLOCK | os.O_CLOEXEC
_SPEC = struct.Struct("@qqqq")
"""`struct itimerspec` where `time_t` and `long` have 64 bits: interval, then value, each in seconds and nanoseconds."""
_NS_PER_S = 1_000_000_000


@final
class BootClock:
    """See the module, and `LeaseClock`. Where the system has no such clock, the loop's timers must do."""

    def __call__(self) -> float:
        """Seconds."""
        return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))

    def call_at(self, when_s: float, callback: Callable[[], None]) -> Callable[[], None]:
        """See `LeaseClock`.

        Raises:
            OSError: the kernel refuses: no descriptor is free.
        """
        cancel_kernel: Callable[[], None] | None = None

        def cancel() -> None:
            timer.cancel()
            if cancel_kernel is not None:
                cancel_kernel()

        def ran_out() -> None:
            cancel()
            callback()

        timer = asyncio.get_running_loop().call_later(max(0.0, when_s - self()), ran_out)
        if hasattr(time, "CLOCK_BOOTTIME"):
            try:
                cancel_kernel = _call_at(when_s, ran_out)
            except OSError:
                timer.cancel()
                raise
        return cancel


def _call_at(when_s: float, callback: Callable[[], None]) -> Callable[[], None]:
    loop = asyncio.get_running_loop()
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = libc.timerfd_create(time.CLOCK_BOOTTIME, _FLAGS)
    if descriptor < 0:
        raise OSError(ctypes.get_errno(), "no timer on CLOCK_BOOTTIME can be had")

    def cancel() -> None:
        nonlocal descriptor
        if descriptor >= 0:
            loop.remove_reader(descriptor)
            os.close(descriptor)
            descriptor = -1

    def ran_out() -> None:
        cancel()
        callback()

    # A time of 0 would disarm it; one that has passed makes it run out at once.
    seconds, nanoseconds = divmod(max(1, round(when_s * _NS_PER_S)), _NS_PER_S)
    if libc.timerfd_settime(descriptor, _ABSOLUTE, _SPEC.pack(0, 0, seconds, nanoseconds), None) < 0:
        error = OSError(ctypes.get_errno(), "the timer on CLOCK_BOOTTIME cannot be set")
        os.close(descriptor)
        raise error
    loop.add_reader(descriptor, ran_out)
    return cancel
