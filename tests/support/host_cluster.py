"""A cluster of production hosts on memory stores, with the production SDK in front, in virtual time.

Links between zones have delays and can be cut; nodes crash with any suffix of their unsynced writes lost,
restart with a raised incarnation, and can be frozen like a stopped process.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from isochrone.client import Client
from isochrone.client.connection import Closed, Connection, Received
from isochrone.clocks.interval import Interval
from isochrone.errors import ConnectionLost, Unavailable
from isochrone.ids import (
    ClusterId,
    GroupId,
    Incarnation,
    KeyspaceId,
    Nanos,
    NodeId,
    ReplicaRole,
    StoreId,
    Timestamp,
)
from isochrone.node.service import ClientService
from isochrone.ports import StoreIdentity
from isochrone.regions.host import Host
from isochrone.regions.loading import GroupSettings
from isochrone.regions.office import DEFAULT_COMPACTION
from isochrone.regions.raft.config import RaftConfig
from isochrone.regions.state.families import HANDLERS
from isochrone.regions.storage.memory import MemoryStore
from isochrone.wire.messages import Configuration, Envelope, Member, PeerMessage
from isochrone.wire.session import ClientHello, KeyspaceRoute, NodeHello, Place, SessionMessage

GROUP = GroupId("g")
KEYSPACE = KeyspaceId("k/")
CLUSTER = ClusterId("cluster")
MS = 1_000_000


class VirtualClock:
    """The loop's time, wrong by some parts per million, plus an offset of the wall clock."""

    def __init__(self, offset_ms: float = 0.0) -> None:
        self.offset_ms = offset_ms
        self.ppm = 0
        self.held: Nanos | None = None
        """What the process believes the time to be while it is stopped: its last reading."""

    def monotonic(self) -> Nanos:
        if self.held is not None:
            return self.held
        return Nanos(round(asyncio.get_running_loop().time() * 1e3 * (1_000_000 + self.ppm)))

    def now(self) -> Interval:
        wall = 10**18 + self.monotonic() + round(self.offset_ms * MS)
        return Interval(Timestamp(wall - MS), Timestamp(wall + MS))


class LinkedTransport:
    """The `Transport` port of one node of the cluster."""

    def __init__(self, cluster: "HostCluster", identity: StoreIdentity) -> None:
        self._cluster = cluster
        self._identity = identity
        self.receive: Callable[[Envelope], None] | None = None

    def start(self, receive: Callable[[Envelope], None]) -> None:
        self.receive = receive

    def send(self, to: NodeId, messages: Sequence[PeerMessage]) -> None:
        identity = self._identity
        self._cluster.sent.update([(identity.node, type(getattr(item, "message", item))) for item in messages])
        kept = tuple(item for item in messages if not self._cluster.lose(identity.node, to, item))
        envelope = Envelope(identity.node, identity.store, identity.incarnation, kept)
        self._cluster.carry(identity.node, to, lambda: self._cluster.deliver(to, envelope))


@dataclass
class Process:
    """One node."""

    store: MemoryStore
    clock: VirtualClock
    transport: LinkedTransport | None = None
    host: Host | None = None
    service: ClientService | None = None
    streams: list["Stream"] = field(default_factory=list)
    frozen: bool = False
    backlog: list[Callable[[], None]] = field(default_factory=list)


class Stream:
    """Both ends of one session stream."""

    def __init__(
        self, cluster: "HostCluster", client: str, node: NodeHello, received: Received, closed: Closed
    ) -> None:
        self._cluster, self._client, self.node = cluster, client, node
        self._received, self._closed = received, closed
        self.ended = False
        self.to_node = self
        self.answering = _Answering(self)

    def send(self, message: SessionMessage) -> None:
        def arrive() -> None:
            process = self._cluster.processes[self.node.node]
            if not self.ended and process.service is not None:
                process.service.received(self.answering, message)

        self._cluster.carry(self._client, self.node.node, arrive)

    def push(self, message: SessionMessage) -> None:
        def arrive() -> None:
            if not self.ended:
                self._received(message)

        self._cluster.carry(self.node.node, self._client, arrive)

    def end(self, reason: Exception | None) -> None:
        if not self.ended:
            self.ended = True
            process = self._cluster.processes[self.node.node]
            if process.service is not None and self in process.streams:
                process.streams.remove(self)
                process.service.closed(self.answering)
            self._closed(reason)

    async def close(self) -> None:
        self.end(None)


class _Answering:
    """The node's end of a stream."""

    backlog_bytes = 0

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    def call_when_drained(self, resume: Callable[[], None]) -> None:
        resume()

    def send(self, message: SessionMessage) -> None:
        self._stream.push(message)


def place_of(node: NodeId) -> Place:
    return node, "r", f"z-{node}"


class HostCluster:
    """See the module. Use inside `run_virtual`."""

    def __init__(
        self,
        roles: dict[str, ReplicaRole],
        seed: int = 1,
        delay_ms: float = 10.0,
        more_groups: int = 0,
        **raft: Any,
    ) -> None:
        self.rng = random.Random(seed)
        self.raft, self.roles = raft, roles
        self.delay_ms = delay_ms
        self.compaction = DEFAULT_COMPACTION
        self.loss = 0.0
        self.cut: set[tuple[str, str]] = set()
        self.lose: Callable[[str, str, PeerMessage], bool] = lambda _source, _target, _message: False
        """Loses single messages."""
        self._arrivals: dict[tuple[str, str], float] = {}
        self.quiesce_after_ns: Nanos | None = Nanos(1000 * MS)
        self.sent: Counter[tuple[str, type]] = Counter()
        """Messages by their sender and class."""
        self.groups = [GROUP, *(GroupId(f"g{number}") for number in range(more_groups))]
        """All with the same members; clients know of the first only."""
        members = tuple(Member(NodeId(name), StoreId(f"s-{name}"), role) for name, role in roles.items())
        self.configuration = Configuration(members)
        self.routes = (
            KeyspaceRoute(
                KEYSPACE,
                KEYSPACE.encode(),
                GROUP,
                tuple((member.node, *place_of(member.node), member.role) for member in members),
            ),
        )
        self.places = {member.node: place_of(member.node) for member in members}
        self.processes = {
            member.node: Process(
                MemoryStore(
                    StoreIdentity(CLUSTER, member.node, member.store, Incarnation(1)),
                    dict.fromkeys(self.groups, self.configuration),
                ),
                VirtualClock(),
            )
            for member in members
        }
        self.clients: list[Client] = []

    def new_process(self, name: str) -> Member:
        """A node that has no replica of the group yet; returns the learner that it may become. `start` it."""
        member = Member(NodeId(name), StoreId(f"s-{name}"), ReplicaRole.LEARNER)
        self.places[member.node] = place_of(member.node)
        store = MemoryStore(StoreIdentity(CLUSTER, member.node, member.store, Incarnation(1)), {})
        self.processes[member.node] = Process(store, VirtualClock())
        return member

    # ---- life

    async def start(self, name: str) -> None:
        node = NodeId(name)
        process = self.processes[node]
        assert process.host is None
        process.transport = LinkedTransport(self, process.store.identity)
        process.service = ClientService(node, self.routes, self.places)
        process.host = Host(
            process.store,
            process.transport,
            process.clock,
            {group: self._settings(node, group) for group in self.groups},
            handlers=HANDLERS,
            rng=random.Random(self.rng.random()),
            offset_max_ns=250 * MS,
            leader_changed=process.service.leader_changed,
        )
        process.service.attach(process.host)
        await process.host.start()

    def _settings(self, node: NodeId, group: GroupId) -> GroupSettings:
        raft = RaftConfig(
            group=group,
            node=node,
            heartbeat_ns=Nanos(100 * MS),
            election_timeout_ns=Nanos(1000 * MS),
            quiesce_after_ns=self.quiesce_after_ns,
            **self.raft,
        )
        keyspace = KEYSPACE if group == GROUP else KeyspaceId(f"{group}/")
        first = node == next(iter(self.processes))
        return GroupSettings(raft=raft, keyspaces=(keyspace,), campaign_first=first, compaction=self.compaction)

    async def start_all(self) -> None:
        for name in self.processes:
            await self.start(name)

    async def crash(self, name: str, keep: int = 0) -> None:
        """Stop at once, without a word; of the writes held back the first `keep` survive."""
        process = self.processes[NodeId(name)]
        host, process.host, process.transport = process.host, None, None
        process.service = None
        process.store = process.store.crash(keep)
        for stream in process.streams:
            stream.end(ConnectionLost(f"{name} crashed"))
        process.streams.clear()
        assert host is not None
        with suppress(TimeoutError):
            async with asyncio.timeout(0):  # so far that it does nothing any more: the write under way never ends
                await host.stop()

    async def stop_all(self) -> None:
        for client in self.clients:
            await client.close()
        for process in self.processes.values():
            if process.host is not None:
                process.store.release()
                await process.host.stop()

    def freeze(self, name: str) -> None:
        """Nothing reaches or leaves the node, as while a process is stopped; what arrives waits."""
        self.processes[NodeId(name)].frozen = True

    def thaw(self, name: str) -> None:
        process = self.processes[NodeId(name)]
        process.frozen = False
        backlog, process.backlog = process.backlog, []
        for action in backlog:
            action()

    # ---- links

    def carry(self, source: str, target: str, arrive: Callable[[], None]) -> None:
        if (source, target) in self.cut or self.rng.random() < self.loss:
            return

        def deliver() -> None:
            if (source, target) in self.cut:
                return
            process = self.processes.get(NodeId(target))
            if process is not None and process.frozen:
                process.backlog.append(arrive)
            else:
                arrive()

        # The loop keeps no order among timers of the same time; a link does.
        loop = asyncio.get_running_loop()
        at = max(loop.time() + self.delay_ms / 1000, self._arrivals.get((source, target), 0.0) + 1e-9)
        self._arrivals[source, target] = at
        loop.call_at(at, deliver)

    def deliver(self, node: NodeId, envelope: Envelope) -> None:
        process = self.processes[node]
        if process.transport is not None and process.transport.receive is not None:
            process.transport.receive(envelope)

    def isolate(self, *names: str) -> None:
        everyone = [*self.processes, *(f"client-{number}" for number in range(len(self.clients) + 1))]
        others = [name for name in everyone if name not in names]
        self.cut |= {pair for a in names for b in others for pair in ((a, b), (b, a))}

    def heal(self) -> None:
        self.cut.clear()
        self.loss = 0.0

    # ---- clients

    async def client(self, **options: float) -> Client:
        name = f"client-{len(self.clients)}"

        async def connector(address: str, hello: ClientHello, received: Received, closed: Closed) -> Connection:
            await asyncio.sleep(2 * self.delay_ms / 1000)
            process = self.processes[NodeId(address)]
            if process.service is None or process.frozen or (name, address) in self.cut:
                raise Unavailable(f"{address} does not answer")
            node = NodeHello(1, CLUSTER, NodeId(address), "r", f"z-{address}")
            stream = Stream(self, name, node, received, closed)
            process.streams.append(stream)
            process.service.opened(stream.answering)
            return stream

        client = await Client.connect(
            list(self.processes), region="r", zone="z", connector=connector, rng=random.Random(7), **options
        )
        self.clients.append(client)
        return client

    # ---- questions

    def leader(self, group: GroupId = GROUP) -> str | None:
        """The live leader of the highest term that clients can use."""
        leading = [
            (host.replicas[group].core.term, name)
            for name, process in self.processes.items()
            if (host := process.host) is not None
            and group in host.replicas
            and host.replicas[group].core.status().match
        ]
        return max(leading)[1] if leading else None

    async def until(self, condition: Callable[[], bool], limit_s: float = 30.0) -> None:
        end = asyncio.get_running_loop().time() + limit_s
        while not condition():
            assert asyncio.get_running_loop().time() < end, "the condition never held"
            await asyncio.sleep(0.01)
