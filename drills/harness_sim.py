"""The harness that runs drills in a simulated world: the same files, runner and checks, in virtual time.

The world's machines stand for the deployment. Each client is an endpoint of the world's network, in its own zone. What
a fault does to links, it does to those of clients first and to those of nodes then, as on real processes.
"""

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import final

from isochrone.client import Client
from isochrone.drills.convergence import leader_of
from isochrone.drills.faults import Link
from isochrone.drills.record import DrillRecord, Simulated
from isochrone.drills.runner import run_drill
from isochrone.drills.sim.loop import SimulationStuck
from isochrone.drills.sim.machine import Machine
from isochrone.drills.sim.options import Mode, SimOptions, rng_for
from isochrone.drills.sim.sessions import SimConnector
from isochrone.drills.sim.world import World
from isochrone.errors import Unavailable
from isochrone.ids import NodeId, RegionId, ZoneId
from isochrone.node.deployment import Deployment
from isochrone.topology.model import Topology
from isochrone.wire.shaping import LinkShape
from isochrone.wire.status import NodeStatus

CONNECT_TIMEOUT_S = 10.0
START_TIMEOUT_S = 90.0
POLL_PAUSE_S = 0.01


@final
class SimDeployment:
    """Stands behind `node.deployment.Deployment`."""

    def __init__(self, world: World) -> None:
        self.topology: Topology = world.topology
        self.directory = Path()
        """Never used: a simulated machine has no files."""
        self._world = world

    @property
    def addresses(self) -> Mapping[NodeId, str]:
        """A node's address is its name."""
        return {name: name for name in self._world.machines}

    async def status(self) -> tuple[NodeStatus, ...]:
        """See `Deployment`."""
        machines = self._world.machines.values()
        return tuple(status for machine in machines if (status := machine.status()) is not None)

    async def kill_node(self, node: NodeId) -> None:
        """See `Deployment`."""
        self._machine(node).kill()

    async def start_node(self, node: NodeId) -> None:
        """See `Deployment`."""
        self._machine(node).start()
        await self._wait_until_serving([self._machine(node)])

    async def pause_node(self, node: NodeId) -> None:
        """See `Deployment`."""
        self._running(node).pause()

    async def resume_node(self, node: NodeId) -> None:
        """See `Deployment`."""
        self._running(node).resume()

    async def set_links(self, links: Mapping[Link, LinkShape]) -> frozenset[NodeId]:
        """See `Deployment`. A simulated link needs nobody to answer."""
        self._world.network.reshape(links, frozenset(self._world.machines))
        return frozenset()

    async def kill_region(self, region: RegionId) -> None:
        """See `Deployment`."""
        for machine in self._in(region):
            machine.kill()

    async def start_region(self, region: RegionId) -> None:
        """See `Deployment`."""
        machines = self._in(region)
        for machine in machines:
            machine.start()
        await self._wait_until_serving(machines)

    async def stop(self) -> None:
        """See `Deployment`."""
        for machine in self._world.machines.values():
            machine.kill()

    async def start_all(self) -> None:
        """Start every machine; return when every group has a leader. Raises `Unavailable`."""
        machines = list(self._world.machines.values())
        for machine in machines:
            machine.start()
        await self._wait_until_serving(machines)
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + START_TIMEOUT_S
        while leaderless := await self._leaderless():
            if loop.time() > deadline_s:
                raise Unavailable(f"after {START_TIMEOUT_S:g} s groups have no leader: {', '.join(leaderless)}")
            await asyncio.sleep(POLL_PAUSE_S)

    async def _leaderless(self) -> list[str]:
        statuses = await self.status()
        return [group.id for group in self.topology.groups if leader_of(statuses, group.id) is None]

    async def _wait_until_serving(self, machines: list[Machine]) -> None:
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + START_TIMEOUT_S
        while silent := [machine.name for machine in machines if machine.status() is None]:
            if loop.time() > deadline_s:
                raise Unavailable(f"{', '.join(silent)} did not start in {START_TIMEOUT_S:g} s")
            await asyncio.sleep(POLL_PAUSE_S)

    def _machine(self, node: NodeId) -> Machine:
        return self._world.machines[node]

    def _running(self, node: NodeId) -> Machine:
        machine = self._machine(node)
        if machine.process is None:
            raise Unavailable(f"node {node} does not run, so it cannot be stopped or go on")
        return machine

    def _in(self, region: RegionId) -> list[Machine]:
        return [machine for machine in self._world.machines.values() if machine.endpoint.region == region]


@final
class SimHarness:
    """Stands behind `drills.runner.Harness`."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._clients: dict[str, None] = {}

    async def bring_up(self, progress: Callable[[str], None]) -> Deployment:
        """Start all machines. Raises `Unavailable` when a group elects no leader."""
        progress(f"simulating {len(self._world.machines)} nodes, seed {self._world.options.seed}")
        deployment = SimDeployment(self._world)
        await deployment.start_all()
        return deployment

    async def connect(self, deployment: Deployment, region: RegionId, zone: ZoneId) -> Client:
        """Connect an SDK client that runs in a zone, through the nodes of its region first."""
        world, name = self._world, f"client {region}"
        world.network.add(name, zone, region)
        self._clients[name] = None
        here = {node.id for node in deployment.topology.nodes if node.region == region}
        return await Client.connect(
            sorted(deployment.addresses, key=lambda node: (node not in here, node)),
            region=region,
            zone=zone,
            name=name,
            timeout_s=CONNECT_TIMEOUT_S,
            connector=SimConnector(world.network, name, world),
            rng=rng_for(world.options.seed, name),
        )

    def set_links(self, links: Mapping[Link, LinkShape]) -> None:
        """Shape what the clients send."""
        self._world.network.reshape(links, self._clients.keys())


def world_of(record: DrillRecord) -> World:
    """The world in which a drill runs: its topology, and no faults but the drill's, which also decides how long."""
    options = SimOptions(
        seed=record.seed, mode=Mode.PERF, topology=record.drill.topology, duration_ms=1_000, fault_gap_ms=0
    )
    return World(options, record.topology, ())


def simulate(record: DrillRecord, world: World, progress: Callable[[str], None]) -> None:
    """Run the drill of `record` in a world of its own, and fill the record.

    Raises:
        Exception: the harness failed; `record.phase` says where.
        asyncio.CancelledError: the world was interrupted; the record holds what there is.
    """
    record.simulated = simulated = Simulated()
    try:
        world.loop.run(run_drill(record, SimHarness(world), progress))
    except SimulationStuck as error:
        record.no_progress = str(error)
    finally:
        left = world.leaked_tasks()
        world.loop.close()
        world.outline.operations = record.operations
        simulated.trace_hash = world.trace_hash()
        simulated.violations = world.watch.found()
        if left and record.phase == "done":
            simulated.violations.append(f"tasks are left behind: {'; '.join(left)}")
