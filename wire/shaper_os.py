"""The link shaper: holds each frame back until its link would have delivered it.

**Theory of operation.** Everything that decides (which link, lost or not, when, still valid) runs in the event loop's
thread; one helper thread only waits. `submit` asks the link's `LinkSchedule` for the arrival time and puts the frame
on a heap; the thread sleeps until the first arrival, takes all that is due and hands it to the loop by
`call_soon_threadsafe`. asyncio's own timers are no use here: they are rounded up to a millisecond, the thread's
condition wakes within some tens of microseconds.

Invariants:

1. FIFO per directed link: arrival times of a link never fall, equal times leave in order of submission, and a frame
   takes the short way (no delay, delivered at once) only when no earlier frame of its link is on its way.
2. A frame that was submitted before a cut began is never delivered, even when its time had come and the loop had not
   yet run it: the generation is compared in the loop's thread, where `set_links` runs too.
3. Frames within a zone, and on links that nobody has shaped, pass at once; without shaped links the thread never
   starts.

HAZARD: frames on their way are not bounded by the shaper, as a real link is not bounded by its sender; what bounds
them is the flow control of whoever sends.
"""

import asyncio
import heapq
import logging
import random
import threading
import time
from collections.abc import Callable, Mapping
from typing import final

from isochrone.ids import NS_PER_S, Nanos, ZoneId
from isochrone.wire.shaping import LinkSchedule, LinkShape

logger = logging.getLogger(__name__)

Link = tuple[ZoneId, ZoneId]
Deliver = Callable[[], None]


class _State:
    """One directed link, and how many of its frames are on their way."""

    __slots__ = ("in_flight", "schedule")

    def __init__(self, shape: LinkShape) -> None:
        self.schedule = LinkSchedule(shape)
        self.in_flight = 0


_Frame = tuple[Nanos, int, int, _State, Deliver]
"""(due, sequence, generation, link, callback). The sequence is unique, so comparison ends there."""


@final
class Shaper:
    """Delays, loses and cuts frames between zones.

    All methods belong to the thread of the loop that was running when the shaper was made; callbacks run there too.
    """

    def __init__(self, rng: random.Random) -> None:
        """Draw jitter and loss from `rng`. Must be called in a running loop."""
        self._loop = asyncio.get_running_loop()
        self._rng = rng
        self._links: dict[Link, _State] = {}
        self._sequence = 0
        self._heap: list[_Frame] = []
        self._closed = False
        self._changed = threading.Condition()
        """Guards the heap and `_closed`; notified when the first arrival becomes an earlier one."""
        self._thread: threading.Thread | None = None
        self._passed = 0
        self._lost = 0
        self._cut = 0
        self._delayed = 0
        self._lateness_ns_sum = 0
        self._lateness_ns_max = 0

    def set_links(self, links: Mapping[Link, LinkShape]) -> None:
        """Change the links named; the others stay as they are. A cut takes the frames that are on their way."""
        for link, shape in links.items():
            state = self._links.get(link)
            if state is None:
                self._links[link] = _State(shape)
            else:
                state.schedule.reshape(shape)

    def links(self) -> dict[Link, LinkShape]:
        """The links as they are now; links that were never set are left out."""
        return {link: state.schedule.shape for link, state in self._links.items()}

    def submit(self, source_zone: ZoneId, target_zone: ZoneId, deliver: Deliver) -> None:
        """Send a frame: `deliver` is called once, when it arrives, or never.

        On a link without delay it is called before `submit` returns. It must not block and must not raise.
        """
        state = self._links.get((source_zone, target_zone))
        if state is None or source_zone == target_zone:
            self._passed += 1
            deliver()
            return
        schedule = state.schedule
        now = Nanos(time.monotonic_ns())
        due = schedule.arrival(now, self._rng)
        if due is None:
            if schedule.shape.cut:
                self._cut += 1
            else:
                self._lost += 1
        elif due <= now and not state.in_flight:
            self._passed += 1
            deliver()
        else:
            state.in_flight += 1
            self._sequence += 1
            self._push((due, self._sequence, schedule.generation, state, deliver))

    def counters(self) -> dict[str, int]:
        """Frames passed, lost and cut since the start, and how late delayed ones arrived, in microseconds."""
        return {
            "shaper_frames_passed": self._passed,
            "shaper_frames_lost": self._lost,
            "shaper_frames_cut": self._cut,
            "shaper_lateness_us_mean": self._lateness_ns_sum // max(self._delayed, 1) // 1000,
            "shaper_lateness_us_max": self._lateness_ns_max // 1000,
        }

    def close(self) -> None:
        """Stop the thread and forget the frames on their way. Must be called before the loop is closed."""
        with self._changed:
            self._closed = True
            self._heap.clear()
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()

    def _push(self, frame: _Frame) -> None:
        with self._changed:
            if self._closed:
                return
            heapq.heappush(self._heap, frame)
            if self._heap[0] is frame:
                self._changed.notify()
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="link-shaper", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        """Body of the thread: wait for the first arrival, hand over all that is due, again."""
        while due := self._wait():
            try:
                self._loop.call_soon_threadsafe(self._arrive, due)
            except RuntimeError:
                logger.error("the event loop was closed before the link shaper; %d frames are dropped", len(due))
                return

    def _wait(self) -> list[_Frame]:
        """Sleep until frames are due and take them, in order. Empty when the shaper was closed."""
        with self._changed:
            while not self._closed:
                now = time.monotonic_ns()
                due: list[_Frame] = []
                while self._heap and self._heap[0][0] <= now:
                    due.append(heapq.heappop(self._heap))
                if due:
                    return due
                self._changed.wait((self._heap[0][0] - now) / NS_PER_S if self._heap else None)
            return []

    def _arrive(self, frames: list[_Frame]) -> None:
        """Deliver frames that are due, unless a cut has taken them. In the loop's thread."""
        for due, _, generation, state, deliver in frames:
            state.in_flight -= 1
            if generation != state.schedule.generation:
                self._cut += 1
                continue
            lateness_ns = time.monotonic_ns() - due
            self._delayed += 1
            self._lateness_ns_sum += lateness_ns
            self._lateness_ns_max = max(self._lateness_ns_max, lateness_ns)
            self._passed += 1
            deliver()
