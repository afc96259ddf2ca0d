"""A world: the machines, links and clients of one topology, in one loop, from one seed.

The phases of a run, all in virtual time:

1. *connect*: machines start, a client connects in every region (in a single region: in every zone);
2. *safety*: the workload runs, and the faults of the schedule beside it; if the options say so, clients that take locks
   and watch, too (`coordination`);
3. *liveness*: every fault ends for good. A core of the machines, drawn so that every group keeps a quorum in it, is
   healed fully and the others are stopped. The core must have a leader for every group, take a write in every
   keyspace, and match, all within `liveness_ms`;
4. *final reads*: every key is read once, and locks, leases and watches come to their end.

What the clients saw then goes to the checkers.
"""

import asyncio
import random
from collections import Counter
from dataclasses import dataclass, field, replace
from functools import partial

from isochrone.client import Client
from isochrone.drills.convergence import mismatch
from isochrone.drills.generator import Generator, KeyRing, Plan
from isochrone.drills.history import Operation, OperationKind
from isochrone.drills.schema import ClientSection, KeysSection, WorkloadSection
from isochrone.drills.sim.changes import Operator
from isochrone.drills.sim.clock import SimClock
from isochrone.drills.sim.coordination import Coordination
from isochrone.drills.sim.disk import SimDisk
from isochrone.drills.sim.faults import Injector
from isochrone.drills.sim.loop import SimLoop
from isochrone.drills.sim.machine import Machine, NodeSettings, Process
from isochrone.drills.sim.network import Network, Weather
from isochrone.drills.sim.options import SimOptions, rng_for
from isochrone.drills.sim.schedule import Schedule, changes_members, lost_nodes, unrecoverable
from isochrone.drills.sim.sessions import SimConnector
from isochrone.drills.sim.trace import Trace
from isochrone.drills.sim.variants import preferred_one
from isochrone.drills.sim.watch import Watch
from isochrone.drills.workload import KeyValueClient, Recorder, run_clients, run_together
from isochrone.errors import IsochroneError
from isochrone.ids import NS_PER_MS, NS_PER_S, ClusterId, GroupId, Incarnation, NodeId, StoreId, ZoneId
from isochrone.node.settings import first_configuration, group_settings, places, routes
from isochrone.ports import StoreIdentity
from isochrone.regions.loading import GroupSettings
from isochrone.regions.raft.config import RaftConfig
from isochrone.topology.model import NodeSpec, Topology
from isochrone.wire.messages import PROTOCOL_VERSION
from isochrone.wire.session import NodeHello

CLUSTER = ClusterId("simulated")
CONNECT_TIMEOUT_S = 30.0
FINAL_READ_TIMEOUT_S = 10.0
FINAL_READS_IN_FLIGHT = 24
LIVENESS_INTERVAL_S = 0.25


def with_small_limits(raft: RaftConfig) -> RaftConfig:
    """The settings with windows, caches and truncation steps so small that they are at their limits all the time."""
    return replace(
        raft,
        append_bytes_max=1_200,
        inflight_messages_max=4,
        inflight_bytes_max=4_000,
        cache_bytes_max=2_000,
        apply_bytes_max=500,
        truncate_entries_min=4,
    )


def with_small_logs(raft: RaftConfig) -> RaftConfig:
    """The settings with such short logs that whoever is away for long needs a snapshot, in many chunks."""
    return replace(
        raft,
        truncate_entries_min=4,
        truncate_bytes_min=1_000,
        keep_entries=12,
        keep_bytes=4_000,
        snapshot_chunk_bytes=4_000,  # a state of 300 kB goes round the world in 15 s, far within the liveness phase
    )


def with_log_cap(raft: RaftConfig, cap_bytes: int) -> RaftConfig:
    """The settings with another log cap, well above what is kept anyway."""
    return replace(
        raft,
        log_bytes_max=cap_bytes,
        keep_bytes=min(raft.keep_bytes, cap_bytes // 4),
        truncate_bytes_min=min(raft.truncate_bytes_min, cap_bytes // 4),
    )


@dataclass(slots=True)
class Outline:
    """What a run has come to."""

    operations: list[Operation] = field(default_factory=list)
    no_progress: str | None = None
    phase: str = "connect"


class World:
    """See the module. Make it, then `run` it in its loop."""

    def __init__(self, options: SimOptions, topology: Topology, schedule: Schedule) -> None:
        seed = options.seed
        self.options = options
        self.topology = topology
        self.schedule = schedule
        self.loop = SimLoop(rng_for(seed, "loop"), steps_max=options.steps_max, shuffle=options.shuffle)
        self.trace = Trace()
        self.watch = Watch(self.loop, self.trace)
        self.network = Network(self.loop, rng_for(seed, "network"), self.trace, topology)
        self.network.weather = Weather(options.jitter, 0.0, options.loss, options.duplicate, options.reorder)
        self.outline = Outline()
        self.clients: dict[str, Client] = {}
        self.machines = self._build_machines()
        self.operator = Operator(self.loop, self.machines, self.configurations)
        self.injector = Injector(self.loop, self.network, self.machines, self.operator, self.trace)
        self.coordination = Coordination(options, topology, self.loop, self.watch.truth)

    # ---- building

    def _build_machines(self) -> dict[NodeId, Machine]:
        seed, topology = self.options.seed, self.topology
        stores = {spec.id: StoreId(f"store-{spec.id}") for spec in topology.nodes}
        self.configurations = {group.id: first_configuration(group, stores) for group in topology.groups}
        machines: dict[NodeId, Machine] = {}
        for spec in topology.nodes:
            rng = rng_for(seed, f"machine {spec.id}")
            disk = SimDisk(
                rng_for(seed, f"disk {spec.id}"), sync_ms=(self.options.sync_ms_min, self.options.sync_ms_max)
            )
            disk.format(
                StoreIdentity(CLUSTER, spec.id, stores[spec.id], Incarnation(0)),
                {
                    group: configuration
                    for group, configuration in self.configurations.items()
                    if any(member.node == spec.id for member in configuration.members)
                },
            )
            endpoint = self.network.add(spec.id, spec.zone, spec.region)
            machine = Machine(
                self.loop, self.network, endpoint, self._settings(spec), disk, self._clock(rng), rng, self.watch
            )
            disk.committed = partial(self.watch.committed, machine)
            machines[spec.id] = machine
        for machine in machines.values():
            machine.peers = {name: other for name, other in machines.items() if other is not machine}
        return machines

    def _settings(self, spec: NodeSpec) -> NodeSettings:
        topology = self.topology
        addresses: dict[NodeId, str] = {node.id: node.id for node in topology.nodes}
        groups: dict[GroupId, GroupSettings] = {}
        for group in topology.groups:
            settings = group_settings(topology, spec.id, group)
            if self.options.prefers_one:
                settings = replace(settings, raft=replace(settings.raft, preferred_leaders=(preferred_one(group),)))
            if self.options.small_limits:
                settings = replace(settings, raft=with_small_limits(settings.raft))
            if self.options.small_logs:
                settings = replace(settings, raft=with_small_logs(settings.raft))
            if self.options.log_cap_bytes:
                settings = replace(settings, raft=with_log_cap(settings.raft, self.options.log_cap_bytes))
            groups[group.id] = settings
        return NodeSettings(
            NodeHello(PROTOCOL_VERSION, CLUSTER, spec.id, spec.region, spec.zone),
            routes(topology, addresses),
            places(topology, addresses),
            groups,
            round(topology.clock.offset_max_ms * NS_PER_MS),
        )

    def _clock(self, rng: random.Random) -> SimClock:
        options = self.options
        clock = SimClock(self.loop, round(self.topology.clock.bound_ms * NS_PER_MS), honest=options.clocks_honest)
        clock.step(round(rng.uniform(-1, 1) * options.clock_offset_ms_max * NS_PER_MS))
        return clock

    # ---- running

    async def run(self) -> None:
        """Run all phases; `outline` says how far it got."""
        outline = self.outline
        for machine in self.machines.values():
            machine.start()
        recorder = Recorder(self._now_ns, outline.operations)
        clients = await self._connect()
        if self.options.coordination:
            await self._connect_contenders()
        outline.phase = "safety"
        start_s = self.loop.time()
        self.injector.arm(self.schedule, start_s)
        end_s = start_s + self.options.duration_ms / 1000
        if self.options.coordination:
            self.coordination.start(self.clients, end_s)
        await run_clients(clients, recorder, end_s, self.options.timeout_ms / 1000)
        await asyncio.sleep(max(0.0, end_s - self.loop.time()))
        outline.phase = "liveness"
        outline.no_progress = await self._recover()
        self.coordination.healed_ns = self._now_ns()
        if outline.no_progress is None:
            outline.phase = "final reads"
            await self._read_everything(recorder)
            outline.phase = "coordination ends"
            outline.no_progress = await self.coordination.finish()
            outline.phase = "done"
        await self.coordination.stop()
        for client in self.clients.values():
            await client.close()

    def _now_ns(self) -> int:
        return round(self.loop.now_s * NS_PER_S)

    def _places(self) -> list[tuple[str, ZoneId]]:
        """The region and zone of each client."""
        regions = [region for region in self.topology.regions if not region.witness_site]
        if len(regions) == 1:
            return [(regions[0].id, zone) for zone in regions[0].zones]
        return [(region.id, region.zones[0]) for region in regions]

    async def _connect(self) -> list[tuple[KeyValueClient, Generator]]:
        options, places = self.options, self._places()
        workload = WorkloadSection(
            duration_s=options.duration_ms / 1000,
            timeout_s=options.timeout_ms / 1000,
            clients=[ClientSection(region=zone, rate_per_s=options.rate_per_s / len(places)) for _, zone in places],
            keyspaces={keyspace.id: 1.0 for keyspace in self.topology.keyspaces},
            keys=KeysSection(shared_share=options.shared_share),
        )
        ring = KeyRing(workload.keys)
        clients: list[tuple[KeyValueClient, Generator]] = []
        for region, zone in places:
            name = f"client {zone}"
            self.network.add(name, zone, region)
            nodes = sorted(self.topology.nodes, key=lambda node: (node.region != region, node.zone != zone, node.id))
            client = await Client.connect(
                [node.id for node in nodes],
                region=region,
                zone=zone,
                name=name,
                timeout_s=CONNECT_TIMEOUT_S,
                connector=SimConnector(self.network, name, self),
                rng=rng_for(options.seed, name),
            )
            self.clients[name] = client
            rng = rng_for(options.seed, f"workload {zone}")
            clients.append((client, Generator(zone, options.rate_per_s / len(places), workload, ring, rng)))
        return clients

    async def _connect_contenders(self) -> None:
        """A process of its own in every place of a client."""
        for region, zone in self._places():
            name = f"contender {zone}"
            self.network.add(name, zone, region)
            nodes = sorted(self.topology.nodes, key=lambda node: (node.region != region, node.zone != zone, node.id))
            await self.coordination.add_contender(name, region, zone, [node.id for node in nodes], self.network, self)

    def listener(self, address: str) -> Process | None:
        """See `sessions.Listeners`."""
        return self.machines[NodeId(address)].process

    # ---- liveness

    async def _recover(self) -> str | None:
        """Heal a core of the machines and wait until it serves; why it does not, or None."""
        core = self._draw_core()
        self.injector.heal()
        for name, machine in self.machines.items():
            if name in core:
                machine.start()
            else:
                machine.kill()
        deadline_s = self.loop.time() + self.options.liveness_ms / 1000
        reason = await self._wait_until_matching(core, deadline_s)
        if reason is None:
            reason = await self._write_everywhere(deadline_s)
        if reason is None:
            reason = await self._wait_until_matching(core, deadline_s)
        return reason

    def _draw_core(self) -> set[NodeId]:
        """The machines that are healed; in every second run, and always with a log cap, all that have their disk.

        At the cap a group serves no more until its last full voter is back, or is removed.
        """
        rng = rng_for(self.options.seed, "core")
        out = [name for name, machine in self.machines.items() if machine.disk.missing is not None]
        if rng.random() < 0.5 and not changes_members(self.schedule) and not self.options.log_cap_bytes:
            for name in rng.sample(list(self.machines), len(self.machines)):
                if (
                    rng.random() < 0.5
                    and unrecoverable(self.topology, [*lost_nodes(self.schedule), *out, name]) is None
                ):
                    out.append(name)
        return {name for name in self.machines if name not in out}

    async def _wait_until_matching(self, core: set[NodeId], deadline_s: float) -> str | None:
        topology = replace(
            self.topology,
            nodes=tuple(node for node in self.topology.nodes if node.id in core),
            groups=tuple(
                replace(group, replicas=tuple(each for each in group.replicas if each.node in core))
                for group in self.topology.groups
            ),
        )
        while True:
            statuses = [
                status for name, machine in self.machines.items() if name in core and (status := machine.status())
            ]
            reason = self.operator.restore() or mismatch(topology, statuses)
            if reason is None or self.loop.time() > deadline_s:
                return reason
            await asyncio.sleep(LIVENESS_INTERVAL_S)

    async def _write_everywhere(self, deadline_s: float) -> str | None:
        client = next(iter(self.clients.values()))
        for keyspace in self.topology.keyspaces:
            left_s = deadline_s - self.loop.time()
            if left_s <= 0:
                return f"no time is left for a write to {keyspace.id}"
            try:
                await client.put(f"{keyspace.id}progress", b"made", timeout_s=left_s)
            except IsochroneError as error:
                return f"a write to {keyspace.id} was not taken: {type(error).__name__}: {error}"
        return None

    # ---- final reads

    async def _read_everything(self, recorder: Recorder) -> None:
        left = iter(sorted({operation.key: operation.keyspace for operation in self.outline.operations}.items()))
        clients = list(self.clients.items())

        async def read_on(number: int) -> None:
            name, client = clients[number % len(clients)]
            for key, keyspace in left:
                plan = Plan(OperationKind.GET, keyspace, key)
                await recorder.perform(client, name, plan, FINAL_READ_TIMEOUT_S, final=True)

        await run_together([read_on(number) for number in range(FINAL_READS_IN_FLIGHT)])

    # ---- after the run

    def counters(self) -> dict[str, int]:
        """What happened, in numbers; those of hosts count once they have ended."""
        network = self.network
        found: Counter[str] = Counter(self.watch.counters)
        found.update({f"fault_{kind}": count for kind, count in self.injector.counters.items()})
        found.update(Counter(f"operations_{operation.outcome.value}" for operation in self.outline.operations))
        found.update({f"operator_{what}": count for what, count in self.operator.counters.items()})
        for machine in self.machines.values():
            found.update(machine.counters)
        found["frames_delivered"] = network.delivered
        found["frames_lost"] = network.lost
        found["frames_repeated"] = network.repeated
        found["frames_reordered"] = network.reordered
        return dict(sorted(found.items()))

    def leaked_tasks(self) -> list[str]:
        """Tasks that are left when everything that was started is ended: none, if all is well."""
        for machine in self.machines.values():
            machine.kill()
            machine.end_zombies()
        return self.loop.tasks()

    def trace_hash(self) -> str:
        """The hash over everything that happened, client results included."""
        for operation in self.outline.operations:
            answer = operation.outcome.value + (operation.value or "-") + (operation.error or "")
            self.trace.note(operation.complete_ns / 1e9, Trace.RESULT, 0, 0, operation.invoke_ns, operation.process)
            self.trace.text(operation.complete_ns / 1e9, Trace.RESULT, operation.key + answer)
        for write in self.coordination.resource.writes:
            text = f"{write.lock} {write.holder} {write.token} {write.accepted}"
            self.trace.text(write.at_ns / 1e9, Trace.RESULT, text)
        return self.trace.hexdigest()
