"""Nodes of the transport alone: a server, a transport and a shaper each, on loopback."""

import asyncio
import random
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from isochrone.ids import ClusterId, Incarnation, NodeId, RegionId, StoreId, Term, ZoneId
from isochrone.wire.budget import Budget
from isochrone.wire.handshake import peer_refusal
from isochrone.wire.messages import FEATURE_LEVEL, PROTOCOL_VERSION, Envelope, PeerHello
from isochrone.wire.operations import Operation
from isochrone.wire.peers_grpc import GrpcTransport, PeerAddress
from isochrone.wire.server_grpc import NodeServer
from isochrone.wire.session import NodeHello, SessionMessage, WriteAnswer, WriteRequest
from isochrone.wire.sessions_grpc import Session
from isochrone.wire.shaper_os import Shaper
from isochrone.wire.shaping import LinkShape
from isochrone.wire.status import NodeStatus

DEADLINE_S = 20.0


async def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition that other processes or gRPC's thread bring about."""
    async with asyncio.timeout(DEADLINE_S):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.002)


def peer_hello(node: str, *, cluster: str = "c", incarnation: int = 1) -> PeerHello:
    return PeerHello(
        PROTOCOL_VERSION,
        FEATURE_LEVEL,
        ClusterId(cluster),
        NodeId(node),
        StoreId(f"store-{node}"),
        Incarnation(incarnation),
    )


@dataclass
class EchoSessions:
    """Answers each write with its own command, `copies` times."""

    node: NodeId
    copies: int = 1
    opened_count: int = 0
    closed_count: int = 0
    received_count: int = 0
    open: list[Session] = field(default_factory=list)

    def opened(self, session: Session) -> None:
        self.opened_count += 1
        self.open.append(session)

    def received(self, session: Session, message: SessionMessage) -> None:
        self.received_count += 1
        assert isinstance(message, WriteRequest)
        for _ in range(self.copies):
            session.send(WriteAnswer(message.requests, self.node, 0, message.commands))

    def closed(self, session: Session) -> None:
        self.closed_count += 1
        self.open.remove(session)


@dataclass
class WireNode:
    """What one node has of `wire`."""

    hello: PeerHello
    address: str
    transport: GrpcTransport
    server: NodeServer
    shaper: Shaper
    sessions: EchoSessions
    received: list[Envelope] = field(default_factory=list)
    highest_seen: dict[NodeId, Incarnation] = field(default_factory=dict)
    on_stop: Callable[[], None] = lambda: None
    on_operation: Callable[[Operation], Awaitable[None]] | None = None

    def accept(self, hello: PeerHello) -> str | None:
        refusal = peer_refusal(self.hello, hello, {}, self.highest_seen)
        if refusal is None:
            self.highest_seen[hello.node] = hello.incarnation
        return refusal

    def status(self) -> NodeStatus:
        counters = self.transport.counters() | self.server.counters() | self.shaper.counters()
        return NodeStatus(
            self.hello.node,
            RegionId("r"),
            ZoneId(self.hello.node),
            self.hello.store,
            self.hello.incarnation,
            pid=0,
            groups=(),
            counters=counters,
        )

    async def operate(self, operation: Operation) -> None:
        assert self.on_operation is not None
        await self.on_operation(operation)

    def set_links(self, links: Mapping[tuple[ZoneId, ZoneId], LinkShape]) -> None:
        self.shaper.set_links(links)

    def request_stop(self) -> None:
        self.on_stop()

    @property
    def terms(self) -> list[Term]:
        """Terms of the messages received, in order."""
        return [item.message.term for envelope in self.received for item in envelope.messages]


@asynccontextmanager
async def wire_node(
    hello: PeerHello,
    peers: Mapping[str, str],
    address: str = "127.0.0.1:0",
    links: Mapping[tuple[ZoneId, ZoneId], LinkShape] | None = None,
    copies: int = 1,
    budget: Budget | None = None,
) -> AsyncIterator[WireNode]:
    """Run one node whose zone is named like itself. `peers` maps names to addresses."""
    shaper = Shaper(random.Random(hello.node))
    shaper.set_links(links or {})
    addresses = {NodeId(name): PeerAddress(where, ZoneId(name)) for name, where in peers.items()}
    transport = GrpcTransport(
        hello,
        ZoneId(hello.node),
        addresses,
        shaper=shaper,
        accept=lambda other: node.accept(other),
        rng=random.Random(1),
    )
    sessions = EchoSessions(hello.node, copies)
    node_hello = NodeHello(PROTOCOL_VERSION, hello.cluster, hello.node, "r", hello.node)
    node = WireNode(hello, address, transport, None, shaper, sessions)  # type: ignore[arg-type]
    node.server = NodeServer(
        node_hello, shaper=shaper, transport=transport, sessions=sessions, admin=node, budget=budget
    )
    try:
        node.address = await node.server.start(address)
        transport.start(node.received.append)
        yield node
    finally:
        await transport.close()
        await node.server.stop()
        shaper.close()


def free_addresses(count: int) -> list[str]:
    """Addresses on loopback whose ports were free a moment ago."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    addresses = [f"127.0.0.1:{item.getsockname()[1]}" for item in sockets]
    for item in sockets:
        item.close()
    return addresses
