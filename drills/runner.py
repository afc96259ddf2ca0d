"""Runs a drill: brings a deployment up, drives the workload, makes the faults, heals, and reads everything back.

Phases, each with its name in the record:

1. *bring up* the deployment;
2. *calibrate*: the workload runs with shaping off; the p50 of its writes is the software term; then shaping on. In a
   simulation, where software takes no time, the clients only *connect*;
3. *warm up*: the workload runs, no fault does;
4. *drill*: the workload runs on, and the faults start and end at their times. If the drill has locks, holders contend
   for them in both phases (`lock_load`);
5. *heal*: all faults have ended; wait until every replica of every group matches; if they never do, read what answers;
6. *final reads*: linearizable reads of every key that was ever written to;
7. *stop* the deployment, whatever happened before.

The record grows as the run goes. A run that ends early (interrupted, crashed, no progress) leaves a record that says
where.

Waiting for the replicas to match asks for their status every quarter second: nodes do not push it.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Protocol

from isochrone.drills.convergence import leader_of, mismatch
from isochrone.drills.faults import Link, unshaped_links
from isochrone.drills.generator import Generator, KeyRing, Plan
from isochrone.drills.history import OperationKind, Outcome
from isochrone.drills.injector import FaultInjector, NoProgress
from isochrone.drills.lock_load import LockClient, LockLoad
from isochrone.drills.measure import client_zone, percentile
from isochrone.drills.record import DrillRecord, FaultRun, PhaseRun
from isochrone.drills.schema import FaultSection
from isochrone.drills.workload import KeyValueClient, Recorder, cancel, run_clients, run_together
from isochrone.ids import NS_PER_S, Incarnation, NodeId, RegionId, ZoneId
from isochrone.node.deployment import Deployment
from isochrone.wire.shaping import LinkShape
from isochrone.wire.status import NodeStatus

CALIBRATION_S = 5.0
CALIBRATION_DISCARDED_S = 1.0
"""First part of a calibration, in which clients still open sessions and connections."""
HEAL_TIMEOUT_S = 60.0
FINAL_READ_TIMEOUT_S = 10.0
FINAL_READS_IN_FLIGHT = 48
STUCK_READS_TIMEOUT_S = 30.0
"""For all final reads, where replicas do not match in time."""
STATUS_INTERVAL_S = 0.25
PROGRESS_INTERVAL_S = 2.0

Interference = Callable[[Deployment], Awaitable[None]]


class Harness(Protocol):
    """Where a drill runs: on real processes, or in a test on something that stands for them."""

    async def bring_up(self, progress: Callable[[str], None]) -> Deployment:
        """Start the deployment; returns when every group has a leader."""

    async def connect(self, deployment: Deployment, region: RegionId, zone: ZoneId) -> KeyValueClient:
        """Connect a client that runs in a zone."""

    def set_links(self, links: Mapping[Link, LinkShape]) -> None:
        """Shape what the clients send."""


@dataclass(slots=True)
class _Run:
    """The parts that the phases share."""

    record: DrillRecord
    harness: Harness
    deployment: Deployment
    progress: Callable[[str], None]
    injector: FaultInjector
    clients: dict[str, KeyValueClient] = field(default_factory=dict)
    locks: LockLoad | None = None


async def run_drill(
    record: DrillRecord,
    harness: Harness,
    progress: Callable[[str], None],
    before_final_reads: Interference | None = None,
) -> None:
    """Run the drill of `record` and fill the record.

    Whatever happens, what was started is stopped before this returns or raises. `before_final_reads` is called once
    all replicas match; a test puts its interference there.

    Raises:
        Exception: the harness failed, or bringing up did; `record.phase` says where.
        asyncio.CancelledError: interrupted; the record holds what there is.
    """
    run: _Run | None = None
    try:
        start_ns = loop_now_ns()
        record.phase = "bring up"
        deployment = await harness.bring_up(progress)
        injector = FaultInjector(deployment, harness.set_links, loop_now_ns, progress, record.faults)
        run = _Run(record, harness, deployment, progress, injector)
        record.phases.append(PhaseRun("bring up", start_ns, loop_now_ns()))
        await _run_phases(run, before_final_reads)
        record.phase = "done"
    except NoProgress as error:
        record.no_progress = str(error)
    except asyncio.CancelledError:
        record.interrupted = True
        raise
    finally:
        if run is not None:
            progress("stopping")
            await _close(run)


def loop_now_ns() -> int:
    """The running loop's clock, in nanoseconds: the clock of histories."""
    return round(asyncio.get_running_loop().time() * NS_PER_S)


async def _close(run: _Run) -> None:
    try:
        if run.locks is not None:
            await run.locks.stop()
        await asyncio.gather(*(client.close() for client in run.clients.values()))
    finally:
        await run.deployment.stop()


async def _run_phases(run: _Run, before_final_reads: Interference | None) -> None:
    recorder = Recorder(loop_now_ns, run.record.operations)
    simulated = run.record.simulated is not None
    async with _phase(run, "connect" if simulated else "calibrate"):
        run.record.incarnations_before = await _incarnations(run.deployment)
        if not simulated:
            await run.injector.set_links(unshaped_links(run.deployment.topology))
        clients = await _connect_clients(run)
        if not simulated:
            await _calibrate(run, clients, recorder)
        await run.injector.set_links(run.deployment.topology.links())
        run.record.shaped_ns = loop_now_ns()
    await _start_locks(run)
    await _drive(run, clients, recorder)
    async with _phase(run, "heal"):
        try:
            statuses = await wait_until_matching(run.deployment, run.progress)
        except NoProgress:
            await _read_what_answers(run, recorder)
            raise
    if before_final_reads is not None:
        await before_final_reads(run.deployment)
    async with _phase(run, "final reads"):
        if run.locks is not None:
            await run.locks.finish()
        await _read_everything(run, recorder, statuses)
        run.record.incarnations_after = await _incarnations(run.deployment)


@asynccontextmanager
async def _phase(run: _Run, name: str) -> AsyncIterator[None]:
    run.record.phase = name
    run.progress(name)
    start_ns = loop_now_ns()
    yield
    run.record.phases.append(PhaseRun(name, start_ns, loop_now_ns()))


async def _connect_clients(run: _Run) -> list[tuple[KeyValueClient, Generator]]:
    """One client for each region, with what it will do."""
    record, workload = run.record, run.record.drill.workload
    ring = KeyRing(workload.keys)
    clients: list[tuple[KeyValueClient, Generator]] = []
    for section in workload.clients:
        zone = client_zone(record, section.region)
        client = await run.harness.connect(run.deployment, RegionId(section.region), zone)
        run.clients[section.region] = client
        rng = random.Random(f"{record.seed}/{section.region}")
        clients.append((client, Generator(section.region, section.rate_per_s, workload, ring, rng)))
    return clients


async def _start_locks(run: _Run) -> None:
    section = run.record.drill.workload.locks
    if section is not None:
        clients = {region: client for region, client in run.clients.items() if isinstance(client, LockClient)}
        run.locks = LockLoad(section, clients, run.record.locks, run.record.seed)
        await run.locks.start()


async def _calibrate(run: _Run, clients: list[tuple[KeyValueClient, Generator]], recorder: Recorder) -> None:
    """Measure the software term of each keyspace under the drill's own load."""
    record, workload = run.record, run.record.drill.workload
    loop = asyncio.get_running_loop()
    counted_ns = loop_now_ns() + round(CALIBRATION_DISCARDED_S * NS_PER_S)
    await run_clients(clients, recorder, loop.time() + CALIBRATION_S, workload.timeout_s)
    for keyspace in workload.keyspaces:
        latencies = [
            item.latency_ms
            for item in record.operations
            if item.keyspace == keyspace
            and item.is_write
            and item.outcome is Outcome.OK
            and item.invoke_ns >= counted_ns
        ]
        if latencies:
            record.software_ms[keyspace] = percentile(latencies, 0.5)
    terms = ", ".join(f"{keyspace} {term:.1f} ms" for keyspace, term in record.software_ms.items())
    run.progress(f"software term (p50 of writes under this load, links unshaped): {terms}")


async def _drive(run: _Run, clients: list[tuple[KeyValueClient, Generator]], recorder: Recorder) -> None:
    """Warm up and drill: the workload, the faults beside it, and a line of progress now and then."""
    record, workload = run.record, run.record.drill.workload
    loop = asyncio.get_running_loop()
    warm_up_ns = loop_now_ns()
    start_s = loop.time() + workload.warm_up_s
    record.workload_start_ns = round(start_s * NS_PER_S)
    record.phase = "warm up"
    run.progress("warm up")
    end_s = start_s + workload.duration_s
    ticker = asyncio.create_task(_tick(run, recorder, start_s))
    load = [run_clients(clients, recorder, end_s, workload.timeout_s), _make_faults(run, start_s)]
    if run.locks is not None:
        load.append(run.locks.run(end_s))
    try:
        await run_together(load)
    finally:
        await cancel([ticker])
    record.phases.append(PhaseRun("warm up", warm_up_ns, record.workload_start_ns))
    record.phases.append(PhaseRun("drill", record.workload_start_ns, loop_now_ns()))


async def _tick(run: _Run, recorder: Recorder, start_s: float) -> None:
    """Show how it goes."""
    loop = asyncio.get_running_loop()
    shown = 0
    while True:
        await asyncio.sleep(PROGRESS_INTERVAL_S)
        fresh = recorder.operations[shown:]
        shown = len(recorder.operations)
        by_outcome = {outcome: sum(1 for item in fresh if item.outcome is outcome) for outcome in Outcome}
        faults = ", ".join(fault.fault.description for fault in run.injector.active) or "no fault"
        run.progress(
            f"{loop.time() - start_s:6.1f} s  {by_outcome[Outcome.OK]:4d} ok  {by_outcome[Outcome.FAIL]:3d} refused  "
            f"{by_outcome[Outcome.INFO]:3d} unknown  {recorder.in_flight:3d} in flight  {faults}"
        )


async def _make_faults(run: _Run, start_s: float) -> None:
    """Start and end the faults at their times; ends go first where times are equal."""
    loop = asyncio.get_running_loop()
    run_of: dict[int, FaultRun] = {}
    await asyncio.sleep(max(0.0, start_s - loop.time()))
    run.record.phase = "drill"
    run.progress("drill")
    for at_s, starts, number, fault in _schedule(run.record.drill.faults):
        await asyncio.sleep(max(0.0, start_s + at_s - loop.time()))
        if starts:
            run_of[number] = await run.injector.start(fault)
        else:
            await run.injector.end(run_of[number])


def _schedule(faults: list[FaultSection]) -> Iterator[tuple[float, bool, int, FaultSection]]:
    """(time, whether the fault starts, its number, the fault), in order of time."""
    events = [(fault.start_s, True, number) for number, fault in enumerate(faults)]
    events += [(fault.end_s, False, number) for number, fault in enumerate(faults)]
    for at_s, starts, number in sorted(events):
        yield at_s, starts, number, faults[number]


async def wait_until_matching(deployment: Deployment, progress: Callable[[str], None]) -> tuple[NodeStatus, ...]:
    """Wait until all replicas of all groups match. Returns what the nodes say of themselves then.

    Raises:
        NoProgress: they do not within `HEAL_TIMEOUT_S`.
    """
    loop = asyncio.get_running_loop()
    deadline_s = loop.time() + HEAL_TIMEOUT_S
    while (difference := mismatch(deployment.topology, statuses := await deployment.status())) is not None:
        if loop.time() > deadline_s:
            raise NoProgress(f"{HEAL_TIMEOUT_S:g} s after the faults: {difference}")
        await asyncio.sleep(STATUS_INTERVAL_S)
    progress("every replica of every group matches")
    return statuses


async def _incarnations(deployment: Deployment) -> dict[NodeId, Incarnation]:
    """The incarnation of every node. Raises `NoProgress` when one does not answer within `HEAL_TIMEOUT_S`."""
    loop = asyncio.get_running_loop()
    deadline_s = loop.time() + HEAL_TIMEOUT_S
    while len(statuses := await deployment.status()) < len(deployment.topology.nodes):
        if loop.time() > deadline_s:
            raise NoProgress(f"{len(statuses)} of {len(deployment.topology.nodes)} nodes answer")
        await asyncio.sleep(STATUS_INTERVAL_S)
    return {status.node: status.incarnation for status in statuses}


async def _read_everything(run: _Run, recorder: Recorder, statuses: tuple[NodeStatus, ...]) -> None:
    """Read every key of the history once, near its group's leader; keys of groups without one come last."""
    keyspace_of = {operation.key: operation.keyspace for operation in run.record.operations}
    nearest = {keyspace: _nearest_client(run, statuses, keyspace) for keyspace in run.record.drill.workload.keyspaces}
    left = iter(sorted(keyspace_of.items(), key=lambda item: (nearest[item[1]] is None, item)))

    async def read_on() -> None:
        for key, keyspace in left:
            region = nearest[keyspace] or next(iter(run.clients))
            plan = Plan(OperationKind.GET, keyspace, key)
            await recorder.perform(run.clients[region], region, plan, FINAL_READ_TIMEOUT_S, final=True)

    await run_together([read_on() for _ in range(FINAL_READS_IN_FLIGHT)])
    run.progress(f"read {len(keyspace_of)} keys")


async def _read_what_answers(run: _Run, recorder: Recorder) -> None:
    """Read as much as can be read in a while: a replica that never matches must not hide what is lost."""
    run.progress("not all replicas match; reading what can be read")
    with suppress(TimeoutError):  # What brought us here says more.
        async with asyncio.timeout(STUCK_READS_TIMEOUT_S):
            await _read_everything(run, recorder, await run.deployment.status())


def _nearest_client(run: _Run, statuses: tuple[NodeStatus, ...], keyspace: str) -> str | None:
    topology = run.deployment.topology
    group = next(each.group for each in topology.keyspaces if each.id == keyspace)
    leader = leader_of(statuses, group)
    if leader is None:
        return None
    zone = topology.node(leader).zone
    return min(run.clients, key=lambda region: topology.rtt_ms(client_zone(run.record, region), zone))
