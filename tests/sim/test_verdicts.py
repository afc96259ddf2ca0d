"""What a run says when something is wrong: with the system, with its progress, or with the simulator itself."""

import asyncio
from collections.abc import Callable
from dataclasses import replace

import pytest

from isochrone.drills.sim.case import SimResult, SimVerdict, result_to_plain
from isochrone.drills.sim.loop import START_S
from isochrone.drills.sim.options import Mode, draw_options
from isochrone.drills.sim.run_os import run_case
from isochrone.drills.sim.schedule import Fault, FaultKind
from isochrone.drills.sim.world import World
from isochrone.ids import NodeId

OPTIONS = replace(draw_options(1, Mode.PERF, "three-zones", 3_000), rate_per_s=10.0)
NODE = NodeId("us-east-1a-1")


def run(made: Callable[[World], None] | None = None, *faults: Fault, **options: int) -> SimResult:
    return run_case(replace(OPTIONS, **options), faults, made)


def later(world: World, action: Callable[[], object]) -> None:
    world.loop.at(START_S + 1, lambda _: action(), None)


def test_a_run_without_faults_holds_and_tells_its_figures() -> None:
    result = run()
    assert result.verdict is SimVerdict.HOLDS, result.reason
    plain = result_to_plain(result)
    assert {"seed", "verdict", "trace_hash", "virtual_s", "wall_s", "options", "events_per_cpu_s"} <= plain.keys()
    assert result.virtual_s > 3
    assert result.counters["operations_ok"] > 20


def test_an_exception_in_a_node_is_a_violation_with_its_traceback() -> None:
    def break_a_node(world: World) -> None:
        def fail() -> None:
            raise KeyError("planted")

        later(world, lambda: world.loop.run_in(world.machines[NODE].process.group, fail))

    result = run(break_a_node)
    assert result.verdict is SimVerdict.VIOLATION
    assert "us-east-1a-1/1: a callback raised" in result.reason
    assert "KeyError: 'planted'" in result.reason
    assert "in fail" in result.reason


def test_a_disk_that_forgets_what_it_acknowledged_is_a_violation() -> None:
    def forget(world: World) -> None:
        disk = world.machines[NODE].disk

        def wipe_an_entry() -> None:
            store = disk.store
            group = store.groups[0]
            bounds = store._image.groups[group]
            store._image.groups[group] = replace(bounds, hard_state=replace(bounds.hard_state, vote=None))
            world.machines[NODE].kill()
            world.machines[NODE].start()

        later(world, wipe_an_entry)

    result = run(forget)
    assert result.verdict is SimVerdict.VIOLATION
    assert "one vote per term" in result.reason


def test_a_crash_of_the_simulator_is_told_from_one_of_the_system() -> None:
    def break_the_world(world: World) -> None:
        def fail() -> None:
            raise KeyError("planted")

        later(world, fail)

    result = run(break_the_world)
    assert result.verdict is SimVerdict.CRASHED
    assert "KeyError: 'planted'" in result.reason


def test_a_group_that_does_not_come_back_in_time_is_no_progress() -> None:
    fault = Fault(500, 2_500, FaultKind.LOSE_REGION, ("us-east-1",))
    result = run(None, fault, liveness_ms=1_000, timeout_ms=200)
    assert result.verdict is SimVerdict.NO_PROGRESS
    assert result.reason in ("group us-east-1.zone has no leader", "no time is left for a write to us/")
    assert run(None, fault).verdict is SimVerdict.HOLDS


def test_a_deadlock_and_a_run_without_end_are_no_progress_and_say_where_tasks_wait() -> None:
    result = run(steps_max=500)
    assert result.verdict is SimVerdict.NO_PROGRESS
    assert result.reason.startswith("more than 500 steps were taken")
    assert "root: main waits in" in result.reason
    assert result.reason.endswith("(in the phase safety)")


def test_a_task_that_is_left_behind_is_a_violation() -> None:
    def leak(world: World) -> None:
        async def wait() -> None:
            await asyncio.Event().wait()

        later(world, lambda: world.loop.spawn_in(world.loop.root, wait(), "forgotten"))

    result = run(leak)
    assert result.verdict is SimVerdict.VIOLATION
    assert result.reason.startswith("tasks are left behind: root: forgotten waits in Event.wait, line ")


@pytest.mark.parametrize(
    ("fault", "counter"),
    [
        (Fault(100, 500, FaultKind.WIPE_DISK, (NODE,)), "starts_refused"),
        (Fault(100, 500, FaultKind.OLD_DISK, (NODE,)), "starts_refused"),
        (Fault(100, 2_000, FaultKind.FAIL_SYNC, (NODE,), 1), "stopped_by_disk"),
    ],
)
def test_what_a_fault_is_for_happens(fault: Fault, counter: str) -> None:
    result = run(None, fault)
    assert result.verdict is SimVerdict.HOLDS, result.reason
    assert result.counters[counter] >= 1, result.counters
