"""The clock of one simulated node: virtual time with an offset and a rate of its own.

An *honest* clock knows how wrong it is: its interval always holds true time, and grows beyond the configured bound when
it must; wider than `BOUND_NS_MAX` it counts as unsynchronised, as in production. A *lying* clock states the configured
bound whatever it shows. HAZARD: what rests on clock intervals may break under a lying clock, and nothing else may.

`monotonic` runs at the node's rate and is never stepped.

A client that holds locks measures by a clock of another kind (`HolderClock`).
"""

from collections.abc import Callable
from typing import final

from isochrone.clocks.interval import Interval
from isochrone.drills.sim.loop import START_S, SimLoop
from isochrone.errors import ClockUnsynchronized
from isochrone.ids import NS_PER_MS, NS_PER_S, Nanos, Timestamp

EPOCH_NS = 1_700_000_000 * NS_PER_S
"""True wall time at the start of a world."""
BOUND_NS_MAX = 1_000 * NS_PER_MS
"""A wider interval is refused, as by a node's system clock."""


class SimClock:
    """The `Clock` port of one node; outlives its processes, as a machine's clock does."""

    def __init__(self, loop: SimLoop, bound_ns: int, *, honest: bool) -> None:
        self._loop = loop
        self._bound_ns = bound_ns
        self._honest = honest
        self._rate = 1.0
        self._since_s = START_S
        """Since when the present rate holds."""
        self._gained_ns = 0.0
        """What rates have added to `monotonic` until then."""
        self.offset_ns = 0
        """What steps have added to the wall clock."""
        self._held: Nanos | None = None

    def monotonic(self) -> Nanos:
        """See the port."""
        if self._held is not None:
            held, self._held = self._held, None
            return held
        if self._rate == 1.0:
            return Nanos(round(self._loop.now_s * 1e9 + self._gained_ns))
        return Nanos(round(self._loop.now_s * 1e9 + self._drift_ns()))

    def now(self) -> Interval:
        """See the port."""
        error_ns = self.offset_ns + round(self._drift_ns())
        bound_ns = max(self._bound_ns, abs(error_ns)) if self._honest else self._bound_ns
        if bound_ns > BOUND_NS_MAX:
            raise ClockUnsynchronized(f"the clock bound is {bound_ns / NS_PER_MS:.1f} ms")
        wall = EPOCH_NS + round((self._loop.now_s - START_S) * 1e9) + error_ns
        return Interval(Timestamp(wall - bound_ns), Timestamp(wall + bound_ns))

    def hold(self) -> None:
        """The next reading of `monotonic` is the one of now: whoever took it was stopped before it could use it."""
        self._held = self.monotonic()

    def release(self) -> None:
        """Nobody is left who took a reading earlier."""
        self._held = None

    def step(self, offset_ns: int) -> None:
        """Set how far the wall clock is ahead of true time, drift apart."""
        self.offset_ns = offset_ns

    def run_at(self, rate: float) -> None:
        """Run at `rate` times the speed of true time from now on."""
        self._gained_ns = self._drift_ns()
        self._since_s = self._loop.now_s
        self._rate = rate

    def synchronise(self) -> None:
        """Show true time again, at its speed. `monotonic` keeps what it gained."""
        self.run_at(1.0)
        self.offset_ns = -round(self._gained_ns)

    def _drift_ns(self) -> float:
        return self._gained_ns + (self._loop.now_s - self._since_s) * 1e9 * (self._rate - 1.0)


@final
class HolderClock:
    """The SDK's `LeaseClock` of one process: it runs at a rate of its own, and goes on while the process stands still.

    What it calls back belongs to whoever asked for it, so it waits while that one is stopped.
    """

    def __init__(self, loop: SimLoop, rate: float) -> None:
        self._loop = loop
        self._rate = rate

    def __call__(self) -> float:
        """Seconds."""
        return START_S + (self._loop.now_s - START_S) * self._rate

    def call_at(self, when_s: float, callback: Callable[[], None]) -> Callable[[], None]:
        """See `client.leases.LeaseClock`."""
        cancel: Callable[[], None] = self._loop.call_later(max(0.0, when_s - self()) / self._rate, callback).cancel
        return cancel

    def true_ns(self, shown_s: float) -> int:
        """How long it takes in truth until so much has passed here."""
        return round(shown_s / self._rate * NS_PER_S)
