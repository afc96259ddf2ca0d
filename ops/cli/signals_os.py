"""Signals that end a command: each gives it the time to stop what it started. Or they go to a child instead."""

import asyncio
import signal
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TypeVar, final

T = TypeVar("T")

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Ctrl-C; the end of a service or a time limit; the end of the terminal."""


FORWARDED = (
    *ENDING,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGTSTP,
    signal.SIGCONT,
    signal.SIGWINCH,
)
"""What a child is told of. A stop (Ctrl-Z) stops the child alone: whoever holds a lock for it has to go on."""


@final
class Diversion:
    """Where signals go instead of ending the command, while `to` is set."""

    def __init__(self) -> None:
        self.to: Callable[[signal.Signals], None] | None = None


@final
class Interrupted(Exception):
    """A signal ended the work, which has stopped what it had started."""

    def __init__(self, number: signal.Signals) -> None:
        super().__init__(f"ended by {number.name}; what was started is stopped")
        self.exit_status = 128 + number
        """As shells tell the end by a signal."""


def run_until_signal(work: Coroutine[None, None, T], diversion: Diversion | None = None) -> T:
    """Run a coroutine. A signal cancels it, so that it can stop what it started; later ones have no effect.

    With a diversion, all of `FORWARDED` go there while it leads somewhere.

    Raises:
        Interrupted: a signal came, and the coroutine let itself be cancelled.
    """
    received: list[signal.Signals] = []

    async def run() -> T:
        task = asyncio.ensure_future(work)

        def on_signal(number: signal.Signals) -> None:
            if diversion is not None and diversion.to is not None:
                diversion.to(number)
                return
            if number not in ENDING:
                return  # It is the child's, and there is none now.
            if not received:
                task.cancel()
            received.append(number)

        loop = asyncio.get_running_loop()
        for number in ENDING if diversion is None else FORWARDED:
            loop.add_signal_handler(number, on_signal, number)
        return await task

    try:
        return asyncio.run(run())
    except asyncio.CancelledError:
        if not received:
            raise
        raise Interrupted(received[0]) from None


@contextmanager
def ended_by_signal(end: Callable[[], None] | None = None) -> Iterator[None]:
    """Let a signal end the synchronous work of the block. Must be entered in the main thread.

    The first signal calls `end`, which makes the work end soon, by `CancelledError` or otherwise. Without `end`, and if
    a second signal comes, the work sees a `KeyboardInterrupt`. Further signals have no effect.

    Raises:
        Interrupted: a signal came, and the work was ended by it.
    """
    received: list[signal.Signals] = []

    def on_signal(number: int, _: FrameType | None) -> None:
        received.append(signal.Signals(number))
        if end is not None and len(received) == 1:
            end()
        elif len(received) == (1 if end is None else 2):
            raise KeyboardInterrupt

    before = {number: signal.signal(number, on_signal) for number in ENDING}
    try:
        yield
    except (KeyboardInterrupt, asyncio.CancelledError):
        if not received:
            raise
        raise Interrupted(received[0]) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def run_command(work: Coroutine[None, None, T], diversion: Diversion | None = None) -> T:
    """Run a command's coroutine; a signal ends the command, with the exit status that shells give for it."""
    try:
        return run_until_signal(work, diversion)
    except Interrupted as end:
        raise SystemExit(end.exit_status) from None
