"""The virtual-time loop: order, groups, and what it refuses."""

import asyncio
import random
import threading

import pytest

from isochrone.drills.sim.loop import START_S, Group, SimLoop, SimulationStuck


def new_loop(seed: int = 1, **options: bool) -> SimLoop:
    return SimLoop(random.Random(seed), steps_max=10_000, **options)


def test_time_jumps_to_the_next_timer() -> None:
    loop = new_loop()

    async def main() -> list[float]:
        seen = []
        for delay_s in (3600.0, 0.25):
            await asyncio.sleep(delay_s)
            seen.append(loop.time() - START_S)
        return seen

    assert loop.run(main()) == [3600.0, 3600.25]


def test_what_is_ready_runs_in_its_order_unless_shuffled() -> None:
    def order(loop: SimLoop) -> list[int]:
        seen: list[int] = []

        async def main() -> None:
            for number in range(8):
                loop.call_soon(seen.append, number)
            await asyncio.sleep(0.001)

        loop.run(main())
        return seen

    assert order(new_loop()) == list(range(8))
    shuffled = order(new_loop(3, shuffle=True))
    assert sorted(shuffled) == list(range(8))
    assert shuffled != list(range(8))
    assert order(new_loop(3, shuffle=True)) == shuffled


def test_timers_of_equal_time_run_in_an_order_of_the_seed() -> None:
    def order(loop: SimLoop) -> list[int]:
        seen: list[int] = []

        async def main() -> None:
            for number in range(8):
                loop.at(START_S + 1, seen.append, number)
            await asyncio.sleep(2)

        loop.run(main())
        return seen

    assert order(new_loop(ties_by_seed=False)) == list(range(8))
    assert order(new_loop(1)) == order(new_loop(1))
    assert len({tuple(order(new_loop(seed))) for seed in range(5)}) > 1


def test_a_deadlock_names_what_every_task_waits_for() -> None:
    loop = new_loop()

    async def waits_for_ever() -> None:
        await asyncio.Event().wait()

    async def main() -> None:
        await asyncio.gather(loop.create_task(waits_for_ever(), name="patient"))

    with pytest.raises(SimulationStuck, match="deadlock") as stuck:
        loop.run(main())
    assert "root: patient waits in Event.wait" in str(stuck.value)
    assert "root: main waits in " in str(stuck.value)


def test_a_run_without_end_is_stopped() -> None:
    loop = new_loop()

    def again() -> None:
        loop.call_soon(again)

    async def main() -> None:
        again()
        await asyncio.Event().wait()

    with pytest.raises(SimulationStuck, match="more than 10000 steps"):
        loop.run(main())


def test_threads_and_sockets_are_refused() -> None:
    loop = new_loop()

    async def main() -> None:
        with pytest.raises(RuntimeError, match="run_in_executor: there are no threads"):
            await asyncio.to_thread(threading.get_ident)
        with pytest.raises(RuntimeError, match="create_connection"):
            await asyncio.open_connection("localhost", 1)
        with pytest.raises(RuntimeError, match="call_soon_threadsafe"):
            loop.call_soon_threadsafe(print)

    loop.run(main())


def test_a_paused_group_goes_on_where_it_was_and_a_killed_one_never() -> None:
    loop = new_loop()
    seen: list[str] = []

    async def beat(name: str) -> None:
        try:
            while True:
                await asyncio.sleep(1)
                seen.append(f"{name} {loop.time() - START_S:g}")
        finally:
            seen.append(f"{name} cleans up")

    async def main() -> None:
        paused, killed = Group("paused"), Group("killed")
        loop.spawn_in(paused, beat("paused"), "a")
        loop.spawn_in(killed, beat("killed"), "b")
        await asyncio.sleep(1.5)
        loop.pause(paused)
        loop.kill(killed)
        loop.run_in(killed, seen.append, "a frame for the dead")
        loop.run_in(paused, seen.append, "a frame that waits")
        await asyncio.sleep(2)
        assert sorted(seen) == ["killed 1", "paused 1"]
        loop.resume(paused)
        await asyncio.sleep(0.7)
        assert seen[2:] == ["a frame that waits", "paused 3.5"]

    loop.run(main())
    loop.close()
    assert "killed cleans up" in seen, "only when the loop is closed, where nothing that it does has effect"


def test_an_exception_that_nobody_handles_is_kept_with_its_group() -> None:
    loop = new_loop()

    async def main() -> None:
        def fail() -> None:
            raise ValueError("here")

        loop.run_in(Group("node"), loop.call_soon, fail)
        await asyncio.sleep(1)

    loop.run(main())
    assert [(failure.group, str(failure.error)) for failure in loop.failures] == [("node", "here")]


def test_an_interrupted_run_is_cancelled_in_order() -> None:
    loop = new_loop()
    ended: list[str] = []

    async def main() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            await asyncio.sleep(1)
            ended.append("in order")

    loop.at(START_S + 5, lambda _: loop.interrupt(), None)
    with pytest.raises(asyncio.CancelledError):
        loop.run(main())
    assert (ended, loop.time() - START_S) == (["in order"], 6.0)
