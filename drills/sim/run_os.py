"""Runs one case from its start to its verdict: what the command line, the swarm and the tests call.

`run_case` is synchronous and depends on nothing but its arguments and the topology file, so it can be called in a
worker process. Only `wall_s` and `cpu_s` of its result differ between two runs of the same case.
"""

import gc
import logging
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

from isochrone import probes
from isochrone.drills.checkers.durability import check_durability
from isochrone.drills.checkers.linearizability import check_linearizability
from isochrone.drills.history import Outcome
from isochrone.drills.sim.case import Case, SimResult, SimVerdict
from isochrone.drills.sim.loop import START_S, SimulationStuck
from isochrone.drills.sim.options import Mode, SimOptions, draw_options
from isochrone.drills.sim.schedule import Schedule, check_schedule, draw_schedule
from isochrone.drills.sim.variants import varied
from isochrone.drills.sim.world import World
from isochrone.drills.verdict import Verdict, guarded
from isochrone.node.files_os import load_served_topology
from isochrone.topology import Problem, Topology, TopologyError

TOPOLOGIES = Path(__file__).parent / "topologies"
"""Topologies that ship with the simulator, by name."""
LITE = "three-zones"
CHECK_STEPS_MAX = 2_000_000


def shipped_topologies() -> list[str]:
    """Names of the topologies that ship with the simulator."""
    return sorted(path.stem for path in TOPOLOGIES.glob("*.yaml"))


@lru_cache(maxsize=8)
def find_topology(name: str) -> Topology:
    """A shipped topology by its name, or one from a file.

    Raises:
        TopologyError: there is none, it is wrong, or it asks for what no node can serve.
    """
    shipped = shipped_topologies()
    if name in shipped:
        return load_served_topology(TOPOLOGIES / f"{name}.yaml")
    if not Path(name).exists():
        allowed = f"a topology file, or one that ships with the simulator: {', '.join(shipped)}"
        raise TopologyError((Problem(name, "document", "no such file", allowed),))
    return load_served_topology(Path(name))


def draw_case(seed: int, mode: Mode, topology: str | None = None, duration_ms: int | None = None) -> Case:
    """The case of a seed. Without a topology, lite runs on three zones and a swarm draws one of those shipped.

    Raises:
        InvalidRequest: the topology or the duration cannot be.
    """
    names = shipped_topologies()
    if topology is None:
        topology = {Mode.LITE: LITE, Mode.PERF: "three-regions"}.get(mode) or names[seed % len(names)]
    options = draw_options(seed, mode, topology, duration_ms)
    return Case(options, draw_schedule(options, varied(find_topology(topology), options)))


def check_case(options: SimOptions, schedule: Schedule) -> Topology:
    """The topology of a case that can run.

    Raises:
        InvalidRequest: the schedule cannot run on the topology, or the topology is wrong.
    """
    topology = varied(find_topology(options.topology), options)
    check_schedule(schedule, options, topology)
    return topology


def run_case(options: SimOptions, schedule: Schedule, made: Callable[[World], None] | None = None) -> SimResult:
    """Run a case. `made` is given the world before it runs, for whoever wants to look into it; it must not touch it.

    Raises:
        InvalidRequest: it cannot run: see `check_case`.
    """
    topology = check_case(options, schedule)
    case = Case(options, schedule)
    with _quiet():
        probes.start_counting()
        wall_s, cpu_s = time.perf_counter(), time.process_time()
        try:
            world = World(options, topology, schedule)
            if made is not None:
                made(world)
            verdict, reason = _run(world)
            trace_hash, counters = world.trace_hash(), world.counters()
        finally:
            reached = probes.stop_counting()
        wall_s, cpu_s = time.perf_counter() - wall_s, time.process_time() - cpu_s
    return SimResult(
        case=case,
        verdict=verdict,
        reason=reason,
        trace_hash=trace_hash,
        virtual_s=world.loop.now_s - START_S,
        wall_s=wall_s,
        cpu_s=cpu_s,
        events=world.loop.steps,
        counters=counters,
        probes=dict(sorted(reached.items())),
    )


def _run(world: World) -> tuple[SimVerdict, str]:
    stuck = None
    try:
        world.loop.run(world.run())
    except SimulationStuck as error:
        stuck = f"{error} (in the phase {world.outline.phase})"
    except Exception as error:
        return SimVerdict.CRASHED, "".join(traceback.format_exception(error)).rstrip()
    finally:
        leaked = world.leaked_tasks()
        world.loop.close()
    found = world.watch.found()
    if found:
        return SimVerdict.VIOLATION, _first_of(found)
    if stuck is not None:
        return SimVerdict.NO_PROGRESS, stuck
    checks = [
        guarded("durable", lambda: check_durability(world.outline.operations).as_check()),
        guarded("linearizable", lambda: check_linearizability(world.outline.operations, CHECK_STEPS_MAX).as_check()),
    ]
    if world.options.coordination:
        checks += world.coordination.checks(world.schedule)
    broken = [check for check in checks if check.verdict is Verdict.FALSE]
    if broken:
        return SimVerdict.VIOLATION, _first_of([f"{check.name}: {check.reason}" for check in broken])
    if world.outline.no_progress is not None:
        return SimVerdict.NO_PROGRESS, world.outline.no_progress
    unread = sum(1 for item in world.outline.operations if item.final and item.outcome is not Outcome.OK)
    if unread:
        return SimVerdict.NO_PROGRESS, f"the core matches and takes writes, but {unread} final reads were not answered"
    if leaked:
        return SimVerdict.VIOLATION, f"tasks are left behind: {'; '.join(leaked)}"
    if checks[1].verdict is Verdict.UNKNOWN:
        return SimVerdict.UNKNOWN, checks[1].reason
    return SimVerdict.HOLDS, "; ".join(f"{check.name}: {check.reason}" for check in checks)


def _first_of(found: list[str]) -> str:
    return found[0] if len(found) == 1 else f"{found[0]}\n({len(found) - 1} more were found)"


@contextmanager
def _quiet() -> Iterator[None]:
    """No log lines of a thousand simulated nodes, and few looks of the garbage collector at what lives long."""
    level, thresholds = logging.root.manager.disable, gc.get_threshold()
    logging.disable(logging.CRITICAL)
    gc.set_threshold(200_000, 20, 50)
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)
        logging.disable(level)
