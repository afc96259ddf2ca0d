"""An asyncio event loop in virtual time: seeded, without I/O or threads, and able to stop a process in mid-flight.

**Theory of operation.** What is ready runs in the order in which it became ready, as asyncio promises. When nothing
is ready, time jumps to the next timer; nothing ever waits. Timers of equal time run in an order drawn from the seed,
or in that of their creation.

Every callback belongs to a *group*, the simulated process on whose behalf it runs, and what it schedules belongs to the
same group. A paused group's callbacks wait until it is resumed, as those of a stopped process do; a killed group's
never run again, not even their `finally`: that is what SIGKILL means. The world itself runs in the group `root`.

`at` is the world's own timer: a plain callback, without a handle and in no group. It is cheap, and never shuffled.

Invariants: time never falls; the same seed and the same calls give the same order of everything.

HAZARD: whoever completes a future of another group schedules the waiter under its own group. The world must enter a
group (`run_in`) before it touches anything that belongs to it.
"""

import asyncio
import random
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context
from heapq import heappop, heappush
from typing import Any, TypeVar, final

from isochrone.drills.sim.refused import WithoutOutside

T = TypeVar("T")

START_S = 1_000.0
"""Virtual time at the start. Not 0, so that "never" and "at the start" differ."""
_RUNS, _PAUSED, _KILLED = 0, 1, 2
"""States of a group. Only one that runs is false."""
_STEPS_OF_AN_END_MAX = 100_000
"""Callbacks that the tasks which are left may take to end when the loop is closed."""


class SimulationStuck(RuntimeError):
    """Nothing can ever happen again, or too much has. The text says what every task waits for."""


@final
class Group:
    """The callbacks of one simulated process."""

    __slots__ = ("name", "parked", "state")

    def __init__(self, name: str) -> None:
        self.name = name
        self.state = _RUNS
        self.parked: list[Callable[[], object]] = []
        """What came due while the group was paused."""

    @property
    def alive(self) -> bool:
        """Whether it was not killed."""
        return self.state != _KILLED

    @property
    def paused(self) -> bool:
        """Whether it is stopped for now."""
        return self.state == _PAUSED


@final
class SimHandle:
    """What asyncio knows as a `Handle` or `TimerHandle`."""

    __slots__ = ("_args", "_callback", "_cancelled", "_context", "_when", "group")

    def __init__(
        self,
        callback: Callable[..., object],
        args: tuple[Any, ...],
        context: Context | None,
        group: Group,
        when: float,
    ) -> None:
        self._callback = callback
        self._args = args
        self._context = context
        self._cancelled = False
        self._when = when
        self.group = group

    def cancel(self) -> None:
        """Do not run it."""
        self._cancelled = True

    def cancelled(self) -> bool:
        """Whether it was cancelled."""
        return self._cancelled

    def when(self) -> float:
        """When it is due, in the loop's seconds."""
        return self._when

    def run(self) -> None:
        """Call it, unless it was cancelled."""
        if self._cancelled:
            return
        if self._context is None:
            self._callback(*self._args)
        else:
            self._context.run(self._callback, *self._args)


@final
class Failure:
    """An exception that nobody handled, and the group in which it arose."""

    __slots__ = ("error", "group", "message")

    def __init__(self, group: str, message: str, error: BaseException | None) -> None:
        self.group = group
        self.message = message
        self.error = error


class SimLoop(WithoutOutside):
    """See the module. Use `run`; a loop runs once."""

    def __init__(self, rng: random.Random, *, steps_max: int, shuffle: bool = False, ties_by_seed: bool = True) -> None:
        """Make a loop.

        Args:
            rng: orders timers of equal time, and shuffles.
            steps_max: callbacks after which a run counts as running away.
            shuffle: run what is ready in a drawn order. asyncio promises order of creation, so code may rely on that;
                what fails only here has to be looked at before it counts.
            ties_by_seed: draw the order of timers of equal time; else they run in the order of their creation.
        """
        self.root = Group("root")
        self.failures: list[Failure] = []
        self.steps = 0
        """Callbacks run so far, timers of the world included."""
        self.now_s = START_S
        self._draw = rng.random if ties_by_seed else _zero
        self._rng = rng
        self._shuffle = shuffle
        self._steps_max = steps_max
        self._ready: deque[SimHandle] = deque()
        self._heap: list[tuple[float, float, int, Callable[[Any], None], Any]] = []
        self._created = 0
        self._current = self.root
        self._killed: list[asyncio.Task[Any]] = []
        self._main: asyncio.Task[Any] | None = None
        self._running = False
        self._closed = False

    # ---- the world's own calls

    def at(self, when_s: float, callback: Callable[[Any], None], argument: Any) -> None:
        """Call `callback(argument)` at a time, in the group `root`."""
        self._created += 1
        heappush(self._heap, (when_s, self._draw(), self._created, callback, argument))

    def run_in(self, group: Group, callback: Callable[..., object], *args: Any) -> None:
        """Call something of a group now; after its pause if it is paused; never if it was killed."""
        if group.state != _RUNS:
            if group.state == _PAUSED:
                group.parked.append(lambda: callback(*args))
            return
        outer, self._current = self._current, group
        try:
            callback(*args)
        except Exception as error:
            self.failures.append(Failure(group.name, "a callback raised", error))
        finally:
            self._current = outer

    def call_as(self, group: Group, callback: Callable[..., T], *args: Any) -> T:
        """Call something now, whatever the group's state; what it schedules belongs to the group."""
        outer, self._current = self._current, group
        try:
            return callback(*args)
        finally:
            self._current = outer

    def spawn_in(self, group: Group, coroutine: Coroutine[Any, Any, None], name: str) -> None:
        """Start a task of a group."""
        self.run_in(group, lambda: self.create_task(coroutine, name=name))

    def pause(self, group: Group) -> None:
        """Stop a group's callbacks until `resume`."""
        if group.state == _RUNS:
            group.state = _PAUSED

    def resume(self, group: Group) -> None:
        """Let a paused group go on; what came due meanwhile runs now, in its order."""
        if group.state == _PAUSED:
            group.state = _RUNS
            parked, group.parked = group.parked, []
            self._ready.append(SimHandle(self._unpark, (group, parked), None, group, self.now_s))

    def _unpark(self, group: Group, parked: list[Callable[[], object]]) -> None:
        for action in parked:
            self.run_in(group, action)

    def is_ready(self, group: Group) -> bool:
        """Whether a callback of the group is about to run."""
        return any(handle.group is group and not handle.cancelled() for handle in self._ready)

    def kill(self, group: Group) -> None:
        """No callback of the group ever runs again."""
        group.state = _KILLED
        group.parked.clear()
        # Held, so that no finaliser runs at a time that depends on the garbage collector.
        self._killed.extend(task for task in asyncio.all_tasks(self) if _group_of(task) is group)

    def tasks(self) -> list[str]:
        """Every task that has not ended, with the innermost place where it waits; those of killed groups left out."""
        live = [task for task in asyncio.all_tasks(self) if _group_of(task).alive]
        return sorted(f"{_group_of(task).name}: {task.get_name()} waits in {_innermost(task)}" for task in live)

    def run(self, main: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine to its end, in the group `root`.

        Raises:
            SimulationStuck: nothing can happen any more, or `steps_max` is passed.
        """
        asyncio._set_running_loop(self)
        self._running = True
        try:
            task = self._main = self.create_task(main, name="main")
            self._run_until(task.done)
            result: T = task.result()
            return result
        finally:
            self._running = False
            asyncio._set_running_loop(None)

    def interrupt(self) -> None:
        """Cancel what `run` runs. May be called from a signal handler; the run is no longer the seed's."""
        self.at(self.now_s, self._cancel_main, None)

    def _cancel_main(self, _: None) -> None:
        if self._main is not None:
            self._main.cancel()

    def _run_until(self, done: Callable[[], bool]) -> None:
        """Run until `done`, which is asked whenever what is ready now has run. The innermost loop of every world."""
        ready, heap, root = self._ready, self._heap, self.root
        while not done():
            if not ready:
                if not heap:
                    raise SimulationStuck("deadlock: nothing is ready and no timer is set\n" + "\n".join(self.tasks()))
                if heap[0][0] > self.now_s:
                    self.now_s = heap[0][0]
            now = self.now_s
            while heap and heap[0][0] <= now:
                _, _, _, callback, argument = heappop(heap)
                self.steps += 1
                callback(argument)
            count = len(ready)
            if self._shuffle and count > 1:
                self._shuffle_ready()
            self.steps += count
            for _ in range(count):
                handle = ready.popleft()
                group = handle.group
                if group.state:
                    if group.state == _PAUSED:
                        group.parked.append(handle.run)
                    continue
                self._current = group
                try:
                    # What `handle.run` does, without the call.
                    if not handle._cancelled:
                        if handle._context is None:
                            handle._callback(*handle._args)
                        else:
                            handle._context.run(handle._callback, *handle._args)
                except Exception as error:
                    self.failures.append(Failure(group.name, "a callback raised", error))
            self._current = root
            if self.steps > self._steps_max:
                raise SimulationStuck(f"more than {self._steps_max} steps were taken\n" + "\n".join(self.tasks()))

    def _shuffle_ready(self) -> None:
        batch = list(self._ready)
        self._rng.shuffle(batch)
        self._ready.clear()
        self._ready.extend(batch)

    def _due(self, handle: SimHandle) -> None:
        if not handle._cancelled:
            self._ready.append(handle)

    # ---- what asyncio asks of a loop

    def time(self) -> float:
        return self.now_s

    def call_soon(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> Any:
        handle = SimHandle(callback, args, context, self._current, self.now_s)
        self._ready.append(handle)
        return handle

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> Any:
        handle = SimHandle(callback, args, context, self._current, when)
        self._created += 1
        heappush(self._heap, (when, self._draw(), self._created, self._due, handle))
        return handle

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> Any:
        return self.call_at(self.now_s + delay, callback, *args, context=context)

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(self, coro: Any, *, name: str | None = None, context: Context | None = None) -> Any:
        self._created += 1
        task = asyncio.Task(coro, loop=self, name=name or f"task-{self._created}", context=context)
        task.group = self._current  # type: ignore[attr-defined]
        task._log_destroy_pending = False  # type: ignore[attr-defined]
        return task

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return self._running

    def is_closed(self) -> bool:
        return self._closed

    def close(self) -> None:
        """End every task, in a stable order: cancel those that live, and drop those of killed groups.

        A dropped task's `finally` runs here, where nothing that it does has effect.
        """
        self._steps_max = self.steps + _STEPS_OF_AN_END_MAX
        asyncio._set_running_loop(self)
        try:
            self._end_living()
        finally:
            asyncio._set_running_loop(None)
        for task in sorted(self._killed, key=lambda task: task.get_name()):
            self._current = _group_of(task)
            try:
                task.get_coro().close()
            except Exception as error:
                self.failures.append(Failure(self._current.name, "a killed task raised when it was dropped", error))
        self._closed = True
        self._ready.clear()
        self._heap.clear()
        self._killed.clear()

    def _end_living(self) -> None:
        living = sorted(
            (task for task in asyncio.all_tasks(self) if _group_of(task).alive), key=lambda task: task.get_name()
        )
        for task in living:
            task.cancel()
        self._run_until(lambda: all(task.done() for task in living) or not (self._ready or self._heap))

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        self.failures.append(Failure(self._current.name, str(context.get("message")), context.get("exception")))

    def default_exception_handler(self, context: dict[str, Any]) -> None:
        self.call_exception_handler(context)


def _zero() -> float:
    return 0.0


def _group_of(task: asyncio.Task[Any]) -> Group:
    group: Group = task.group  # type: ignore[attr-defined]
    return group


def _innermost(task: asyncio.Task[Any]) -> str:
    """Where a task's chain of awaits ends."""
    coroutine: Any = task.get_coro()
    while (inner := getattr(coroutine, "cr_await", None)) is not None and hasattr(inner, "cr_frame"):
        coroutine = inner
    frame = getattr(coroutine, "cr_frame", None)
    if frame is None:
        return "no frame: it has ended or not begun"
    return f"{coroutine.__qualname__}, line {frame.f_lineno} of {frame.f_code.co_filename.rpartition('/')[2]}"
