"""A signal ends a command's work once, and the work takes the time to stop what it started."""

import asyncio
import os
import signal

import pytest

from isochrone.ops.cli.signals_os import ENDING, Interrupted, ended_by_signal, run_until_signal


@pytest.mark.parametrize("number", ENDING)
def test_a_signal_cancels_the_work_and_a_second_one_does_not_disturb_its_end(number: signal.Signals) -> None:
    stopped = []

    async def work() -> None:
        os.kill(os.getpid(), number)
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            os.kill(os.getpid(), number)
            for _ in range(10):
                await asyncio.sleep(0)
            stopped.append(True)

    with pytest.raises(Interrupted) as ended:
        run_until_signal(work())
    assert stopped == [True]
    assert ended.value.exit_status == 128 + number
    assert number.name in str(ended.value)


def test_work_that_ends_by_itself_gives_its_result() -> None:
    async def work() -> int:
        return 7

    assert run_until_signal(work()) == 7


def test_work_that_ends_in_order_although_it_was_cancelled_was_not_interrupted() -> None:
    async def work() -> str:
        os.kill(os.getpid(), signal.SIGTERM)
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            return "done"
        raise AssertionError("the signal did not arrive")

    assert run_until_signal(work()) == "done"


@pytest.mark.parametrize("number", ENDING)
def test_a_signal_ends_synchronous_work_once(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    stopped = []

    def work() -> None:
        try:
            os.kill(os.getpid(), number)
        except Exception:
            stopped.append("taken for an error of the work")
        finally:
            os.kill(os.getpid(), number)
            stopped.append("in order")

    with pytest.raises(Interrupted) as ended, ended_by_signal():
        work()
    assert stopped == ["in order"]
    assert ended.value.exit_status == 128 + number
    assert signal.getsignal(number) is before


def test_synchronous_work_that_ends_by_itself_leaves_signals_as_they_were() -> None:
    before = [signal.getsignal(number) for number in ENDING]
    with ended_by_signal():
        pass
    with pytest.raises(ZeroDivisionError), ended_by_signal():
        raise ZeroDivisionError
    assert [signal.getsignal(number) for number in ENDING] == before


def test_work_that_can_end_itself_is_asked_first_and_stopped_at_the_second_signal() -> None:
    asked = []

    def work(signals: int) -> None:
        for _ in range(signals):
            os.kill(os.getpid(), signal.SIGTERM)
        raise asyncio.CancelledError

    for signals, seen in ((1, "CancelledError()"), (2, "KeyboardInterrupt()")):
        with pytest.raises(Interrupted) as ended, ended_by_signal(lambda: asked.append("once")):
            work(signals)
        assert repr(ended.value.__context__) == seen
        assert ended.value.exit_status == 128 + signal.SIGTERM
    assert asked == ["once", "once"]
