"""The operating system's clocks.

`monotonic` is `CLOCK_BOOTTIME` where there is one: it goes on while the machine is suspended. The bound of the
wall clock comes from the configuration, or from the kernel's NTP state (`adjtimex`, Linux). In local mode an
offset can be injected, to rehearse a clock that is wrong.
"""

import ctypes
import time
from collections.abc import Callable

from isochrone.clocks.interval import Interval
from isochrone.errors import ClockUnsynchronized
from isochrone.ids import NS_PER_MS, Nanos, Timestamp

_BOOT_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)

_LIBC = ctypes.CDLL(None, use_errno=True)
"""What the process has loaded, the C library among it. Searching for it by name would run a program each time."""

_KERNEL_MAXERROR_US = 16_000_000
"""Where the kernel's error estimate saturates: it then says nothing (kernel/time/ntp.c)."""


class _Timex(ctypes.Structure):
    """The head of `struct timex` on 64-bit Linux; the rest is padding that the kernel may fill."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("rest", ctypes.c_long * 32),
    )


def require_boot_clock() -> None:
    """Refuse a system whose monotonic clock stands still while the machine is suspended; leases rest on it.

    Raises:
        ClockUnsynchronized: there is no `CLOCK_BOOTTIME`.
    """
    if not hasattr(time, "CLOCK_BOOTTIME"):
        raise ClockUnsynchronized(
            "this system has no clock that goes on while it is suspended (CLOCK_BOOTTIME), on which lease_reads rest"
        )


def kernel_bound_ns() -> int:
    """The kernel's bound on the error of the wall clock.

    Raises:
        ClockUnsynchronized: the kernel knows no bound, or this is not Linux.
    """
    if not hasattr(_LIBC, "adjtimex"):
        raise ClockUnsynchronized("this system has no adjtimex; configure a clock bound instead")
    timex = _Timex()
    if _LIBC.adjtimex(ctypes.byref(timex)) < 0:
        raise ClockUnsynchronized(f"adjtimex failed with errno {ctypes.get_errno()}")
    if timex.maxerror >= _KERNEL_MAXERROR_US:
        raise ClockUnsynchronized(
            "the kernel clock is not synchronised (its maximum error is 16 s); run chrony or configure a clock bound"
        )
    return int(timex.maxerror) * 1_000


class SystemClock:
    """The `Clock` port on the operating system's clocks."""

    def __init__(self, bound_ns: Callable[[], int], *, bound_max_ns: int, offset_ms: float = 0.0) -> None:
        """Take the bound from `bound_ns` at each reading.

        Args:
            bound_ns: half the width of the interval; may raise `ClockUnsynchronized`.
            bound_max_ns: a wider bound counts as unsynchronised.
            offset_ms: added to the wall clock; for rehearsing wrong clocks.
        """
        self._bound_ns = bound_ns
        self._bound_max_ns = bound_max_ns
        self._offset_ns = round(offset_ms * NS_PER_MS)

    def monotonic(self) -> Nanos:
        """See the port."""
        return Nanos(time.clock_gettime_ns(_BOOT_CLOCK))

    def now(self) -> Interval:
        """See the port."""
        bound = self._bound_ns()
        if bound > self._bound_max_ns:
            allowed_ms = self._bound_max_ns / NS_PER_MS
            raise ClockUnsynchronized(
                f"the clock bound is {bound / NS_PER_MS:.1f} ms; at most {allowed_ms:.1f} ms is allowed"
            )
        wall = time.time_ns() + self._offset_ns
        return Interval(Timestamp(wall - bound), Timestamp(wall + bound))
