"""One simulated machine: its disk and clock, which stay, and the node's processes, which come and go.

A process is the production host and client service, on the simulated ports. It is started, killed, paused and replaced
from outside; it ends by itself only when its host does. A host that stops because its disk failed is expected to; one
that stops for any other reason has found, or is, a fault in Isochrone.
"""

import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, final

from isochrone.drills.sim.clock import SimClock
from isochrone.drills.sim.disk import SimDisk, SimStore
from isochrone.drills.sim.loop import Group, SimLoop
from isochrone.drills.sim.network import Endpoint, Link, Network
from isochrone.drills.sim.sessions import Stream
from isochrone.errors import IsochroneError, StorageError
from isochrone.ids import GroupId, NodeId, RegionId, StoreId, Term, ZoneId, is_later_store
from isochrone.node.service import ClientService
from isochrone.ports import StoreIdentity
from isochrone.regions.host import Host
from isochrone.regions.loading import GroupSettings
from isochrone.regions.replica import Replica
from isochrone.regions.state.families import HANDLERS
from isochrone.wire.messages import Configuration, Envelope, PeerMessage
from isochrone.wire.session import KeyspaceRoute, NodeHello, Place, ReadRequest, ReadsRequest, SessionMessage
from isochrone.wire.status import NodeStatus


@dataclass(frozen=True, slots=True)
class NodeSettings:
    """What all processes of a node are made of."""

    hello: NodeHello
    routes: tuple[KeyspaceRoute, ...]
    places: Mapping[NodeId, Place]
    groups: Mapping[GroupId, GroupSettings]
    offset_max_ns: int


class Watcher(Protocol):
    """Who is told what becomes of processes."""

    def process_started(self, machine: "Machine", store: SimStore) -> None:
        """A process is about to load what the disk holds."""

    def process_serves(self, machine: "Machine", process: "Process") -> None:
        """The process has loaded its groups."""

    def leader_changed(self, machine: "Machine", group: GroupId, term: Term) -> None:
        """A replica of the current process has another leader, or none."""

    def sends(self, machine: "Machine", to: NodeId, messages: Sequence[PeerMessage]) -> None:
        """The current process sends to a peer."""

    def process_ended(self, machine: "Machine", error: BaseException) -> None:
        """A host has stopped by itself."""

    def refused_to_start(self, machine: "Machine", error: StorageError) -> None:
        """A disk was not one to start from."""

    def store_replaced(self, machine: "Machine") -> None:
        """The machine has another store now, with which it is another replica of every group."""

    def replica_added(self, machine: "Machine", process: "Process", replica: Replica) -> None:
        """The current process has a replica of one more group."""


@final
class Process:
    """One incarnation of a node."""

    def __init__(self, machine: "Machine", store: SimStore, group: Group, rng: random.Random) -> None:
        settings = machine.settings
        self.group = group
        self.store = store
        self._identity = store.identity
        self._machine = machine
        self._loop = machine.loop
        self._receive: Callable[[Envelope], None] | None = None
        self._streams: dict[Stream, None] = {}
        self._started = False
        self.joining: dict[GroupId, None] = {}
        """Groups of which a replica is being made."""
        self.service = ClientService(machine.name, settings.routes, settings.places)
        self.host = Host(
            store,
            self,
            machine.clock,
            settings.groups,
            handlers=HANDLERS,
            rng=rng,
            offset_max_ns=settings.offset_max_ns,
            leader_changed=self._leader_changed,
        )
        self.service.attach(self.host)

    async def run(self) -> None:
        """The life of the process."""
        try:
            await self.host.start()
            self._started = True
            self._machine.serves(self)
            await self.host.closed()
        except Exception as error:
            self._machine.ended(self, error)

    def _leader_changed(self, group: GroupId, term: Term, leader: NodeId | None) -> None:
        self._machine.leader_changed(self, group, term)
        self.service.leader_changed(group, term, leader)

    # ---- the transport port

    def start(self, receive: Callable[[Envelope], None]) -> None:
        """See `ports.Transport`."""
        self._receive = receive

    def send(self, to: NodeId, messages: Sequence[PeerMessage]) -> None:
        """See `ports.Transport`."""
        identity = self._identity
        envelope = Envelope(identity.node, identity.store, identity.incarnation, tuple(messages))
        self._machine.send(self, to, envelope, self.host.stores.get(to))

    def deliver(self, envelope: Envelope, store: StoreId | None) -> None:
        """A frame of a peer has arrived; `store`: whose, by what its sender knew, as its stream would have checked."""
        own = self.store.identity.store
        if self._receive is not None and (store is None or store == own or is_later_store(own, store)):
            self._loop.run_in(self.group, self._receive, envelope)

    # ---- clients

    @property
    def serving(self) -> bool:
        """Whether clients are answered."""
        return self._started and self.group.alive and self._machine.process is self

    def opened(self, stream: Stream) -> None:
        """A client has connected."""
        self._streams[stream] = None
        self._loop.run_in(self.group, self._greet, stream)

    def _greet(self, stream: Stream) -> None:
        stream.to_client.send(self._machine.settings.hello)
        self.service.opened(stream.to_client)

    def received(self, stream: Stream, messages: list[SessionMessage]) -> None:
        """A client has sent."""
        if stream in self._streams:
            self._loop.run_in(self.group, self._serve, stream, messages)
            if self._machine.stalls and any(isinstance(message, ReadRequest | ReadsRequest) for message in messages):
                self._machine.stall()

    def _serve(self, stream: Stream, messages: list[SessionMessage]) -> None:
        for message in messages:
            self.service.received(stream.to_client, message)

    def closed(self, stream: Stream) -> None:
        """A client has gone."""
        if stream in self._streams:
            del self._streams[stream]
            self._loop.run_in(self.group, self.service.closed, stream.to_client)

    def reset_streams(self) -> None:
        """End the streams of all clients."""
        for stream in self._streams:
            stream.reset()
        self._streams.clear()


@final
class Machine:
    """See the module."""

    def __init__(
        self,
        loop: SimLoop,
        network: Network,
        endpoint: Endpoint,
        settings: NodeSettings,
        disk: SimDisk,
        clock: SimClock,
        rng: random.Random,
        watcher: Watcher,
    ) -> None:
        self.loop = loop
        self.name = NodeId(endpoint.name)
        self.endpoint = endpoint
        self.settings = settings
        self.disk = disk
        self.clock = clock
        self.process: Process | None = None
        self.stalls = False
        """The process is to be stopped in the midst of its next turn that serves a read."""
        self.zombies: list[Process] = []
        """Processes that were replaced and go on."""
        self.peers: dict[NodeId, Machine] = {}
        """All other machines."""
        self.counters: Counter[str] = Counter()
        """Those of the hosts that have ended."""
        self._network = network
        self._rng = rng
        self._watcher = watcher
        self._links: dict[NodeId, Link] = {}
        self._starts = 0
        self._last: Process | None = None
        """Whose writes the disk may still owe."""

    # ---- what faults do

    def start(self) -> None:
        """Start a process, unless one runs."""
        if self.process is not None:
            return
        self._starts += 1
        self.clock.release()
        group = Group(f"{self.name}/{self._starts}")
        try:
            store = self.loop.call_as(self._last.group if self._last else group, self.disk.open)
        except StorageError as error:
            self._watcher.refused_to_start(self, error)
            return
        rng = random.Random(self._rng.random())
        self.process = self._last = self.loop.call_as(group, Process, self, store, group, rng)
        self._watcher.process_started(self, store)
        self.loop.spawn_in(group, self.process.run(), f"{group.name} node")

    def kill(self, keep: int = 0) -> None:
        """SIGKILL; of the batches that are not synced the first `keep` survive.

        Clients are told by resets, where those get through.
        """
        process, self.process = self.process, None
        if process is not None:
            self.disk.keep = keep
            self._end(process)
            process.reset_streams()

    def _end(self, process: Process) -> None:
        self.loop.kill(process.group)
        self.counters.update(process.host.counters)

    def give_store(self, identity: StoreIdentity) -> None:
        """Put an empty store in, in place of the one that is gone, and start."""
        self.kill()
        self.disk.format(identity, {})
        self.disk.missing = None
        self._watcher.store_replaced(self)
        self.start()

    def add_replica(
        self, group: GroupId, configuration: Configuration, done: Callable[[IsochroneError | None], None]
    ) -> None:
        """Let the current process make an empty replica of a group, if there is one that serves."""
        process = self.process
        if process is not None and process.serving and group not in process.joining:
            process.joining[group] = None
            joining = self._add_replica(process, group, configuration, done)
            self.loop.spawn_in(process.group, joining, f"{self.name} joins")

    async def _add_replica(
        self,
        process: Process,
        group: GroupId,
        configuration: Configuration,
        done: Callable[[IsochroneError | None], None],
    ) -> None:
        known = process.host.replicas.get(group)
        try:
            await process.host.add_replica(group, configuration)
        except IsochroneError as error:
            done(error)
            return
        finally:
            del process.joining[group]
        replica = process.host.replicas[group]
        if process is self.process and replica is not known:
            self._watcher.replica_added(self, process, replica)
        done(None)

    def pause(self) -> bool:
        """SIGSTOP; returns whether there was a process to stop."""
        if self.process is None or self.process.group.paused:
            return False
        self.loop.pause(self.process.group)
        return True

    def resume(self) -> None:
        """SIGCONT."""
        if self.process is not None:
            self.loop.resume(self.process.group)

    def stall(self) -> None:
        """Stop the process as `pause` does, in the midst of the turn that it is about to have, if there is one.

        What that turn is to serve has arrived, and nothing that arrives later comes before it; so it does no harm that
        it really runs when the process goes on, if only its first look at the clock shows the time of the stop.
        """
        if self.process is not None and self.loop.is_ready(self.process.group) and self.pause():
            self.stalls = False
            self.clock.hold()

    def end_stall(self) -> None:
        """End a stall, or the wait for one."""
        self.stalls = False
        self.resume()

    def replace(self, *, hangs: bool) -> None:
        """A new process takes disk and address over; the old one goes on without, until it writes or even then."""
        if self.process is not None:
            old, self.process = self.process, None
            old.store.hangs_once_lost = hangs
            self.zombies.append(old)
            old.reset_streams()
            self.start()

    def end_zombies(self) -> None:
        """Kill those that were replaced."""
        zombies, self.zombies = self.zombies, []
        for process in zombies:
            self._end(process)

    def resume_disk(self) -> None:
        """The disk hangs no more."""
        owed = self.disk.resume()
        if owed and self.process is not None:
            self.loop.run_in(self.process.group, self.disk.release, owed)

    def serves(self, process: Process) -> None:
        """A process has loaded its groups."""
        if process is self.process:
            self._watcher.process_serves(self, process)

    def leader_changed(self, process: Process, group: GroupId, term: Term) -> None:
        """A replica of a process has another leader, or none."""
        if process is self.process:
            self._watcher.leader_changed(self, group, term)

    def ended(self, process: Process, error: BaseException) -> None:
        """A process has stopped by itself."""
        self._end(process)
        if process is self.process:
            self.process = None
            process.reset_streams()
            self._watcher.process_ended(self, error)
        elif not isinstance(error, StorageError):
            self._watcher.process_ended(self, error)

    # ---- frames

    def send(self, process: Process, to: NodeId, envelope: Envelope, store: StoreId | None) -> None:
        """A process of this machine sends to a peer."""
        if process is self.process:
            self._watcher.sends(self, to, envelope.messages)
        link = self._links.get(to)
        if link is None:
            link = self._links[to] = self._network.link(self.name, to)
        link.send(self.peers[to].deliver, (envelope, store), stream=False)

    def deliver(self, frame: tuple[Envelope, StoreId | None]) -> None:
        """A peer's frame has arrived. Streams of peers may still lead to a process that was replaced."""
        if self.process is not None:
            self.process.deliver(*frame)
        for zombie in self.zombies:
            zombie.deliver(*frame)

    # ---- questions

    def status(self) -> NodeStatus | None:
        """What the node says of itself; None when nobody answers."""
        process = self.process
        if process is None or process.group.paused or not process.serving:
            return None
        hello, identity = self.settings.hello, process.store.identity
        return NodeStatus(
            node=self.name,
            region=RegionId(hello.region),
            zone=ZoneId(hello.zone),
            store=identity.store,
            incarnation=identity.incarnation,
            pid=self._starts,
            groups=process.host.group_statuses(),
            counters=dict(process.host.counters),
        )
