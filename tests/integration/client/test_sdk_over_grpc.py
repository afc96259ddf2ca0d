"""The SDK with its default connector, over real streams on loopback."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from session_cluster import GROUP, KEYSPACE, Cluster, Node, lose_answer
from wire_nodes import free_addresses, peer_hello

from isochrone.client import Client
from isochrone.errors import Unavailable
from isochrone.ids import ZoneId
from isochrone.wire.peers_grpc import GrpcTransport
from isochrone.wire.server_grpc import NodeServer
from isochrone.wire.session import KeyspaceRoute, NodeHello, SessionMessage
from isochrone.wire.sessions_grpc import Session
from isochrone.wire.shaper_os import Shaper
from isochrone.wire.shaping import LinkShape


class Push:
    """A session as the test cluster's nodes see a stream."""

    def __init__(self, session: Session) -> None:
        self.push = session.send


class Sessions:
    """Hands the sessions of a real server to a node of the test cluster."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.pushes: dict[Session, Push] = {}

    def opened(self, session: Session) -> None:
        self.pushes[session] = Push(session)
        self.node.streams.append(self.pushes[session])
        self.node.tell(self.pushes[session])

    def received(self, session: Session, message: SessionMessage) -> None:
        self.node.received(self.pushes[session], message)

    def closed(self, session: Session) -> None:
        self.node.streams.remove(self.pushes.pop(session))


class Deployment:
    """Nodes a and b, each with a server. What nodes send takes no time."""

    def __init__(self, shaper: Shaper) -> None:
        self.shaper = shaper
        self.cluster = Cluster()
        self.servers: dict[str, NodeServer] = {}

    async def start(self) -> None:
        for name, address in zip("ab", free_addresses(2), strict=True):
            self.cluster[name].address = address
            await self.start_server(name)
        replicas = tuple((node.name, node.address, "r", node.name, "full") for node in self.nodes)
        self.cluster.routes = (KeyspaceRoute(KEYSPACE, KEYSPACE.encode(), GROUP, replicas),)

    @property
    def nodes(self) -> list[Node]:
        return [self.cluster["a"], self.cluster["b"]]

    async def start_server(self, name: str) -> None:
        node, hello = self.cluster[name], peer_hello(name)
        transport = GrpcTransport(
            hello, ZoneId(name), {}, shaper=self.shaper, accept=lambda _: "no peers", rng=random.Random(1)
        )
        greeting = NodeHello(1, self.cluster.identity, node.name, "r", name)
        self.servers[name] = NodeServer(
            greeting,
            shaper=self.shaper,
            transport=transport,
            sessions=Sessions(node),
            admin=None,  # type: ignore[arg-type]
        )
        await self.servers[name].start(node.address)

    async def stop(self) -> None:
        for server in self.servers.values():
            await server.stop()


@asynccontextmanager
async def deployment() -> AsyncIterator[Deployment]:
    shaper = Shaper(random.Random(1))
    running = Deployment(shaper)
    try:
        await running.start()
        yield running
    finally:
        await running.stop()
        shaper.close()


def test_calls_find_the_leader_and_survive_its_end() -> None:
    async def scenario() -> None:
        async with deployment() as running:
            cluster = running.cluster
            async with await Client.connect([cluster["b"].address], region="r", zone="client") as client:
                assert (await client.put("app/x", "1")).replica == "a"
                cluster["a"].rules.append(lose_answer)
                call = asyncio.create_task(client.put("app/x", "2"))
                while len(cluster.state.effects) < 2:  # noqa: ASYNC110
                    await asyncio.sleep(0.002)
                await running.servers.pop("a").stop()
                cluster["b"].believe(2, "b")
                assert (await call).replica == "b"
                read = await client.get("app/x")
                assert (read.value, read.version, read.replica) == (b"2", 2, "b")
                await running.start_server("a")
                cluster["a"].believe(3, "a")
                cluster["b"].believe(3, "a")
                assert (await client.put("app/x", "3")).replica == "a"
                assert client.statistics().reconnects == 1
            assert [command.operation.value for command in cluster.state.effects] == [b"1", b"2", b"3"]

    asyncio.run(scenario())


def test_what_the_client_sends_is_shaped_by_its_zone() -> None:
    async def scenario() -> None:
        async with deployment() as running:
            shaper = Shaper(random.Random(2))
            shaper.set_links({(ZoneId("client"), ZoneId("a")): LinkShape(delay_ms=60.0)})
            endpoint = running.cluster["b"].address
            try:
                async with await Client.connect([endpoint], region="r", zone="client", shaper=shaper) as client:
                    await client.put("app/x", "1")
                    begun = asyncio.get_running_loop().time()
                    await client.put("app/x", "2")
                    assert asyncio.get_running_loop().time() - begun >= 0.06
            finally:
                shaper.close()

    asyncio.run(scenario())


def test_an_endpoint_where_nobody_listens_is_named() -> None:
    async def scenario() -> None:
        [address] = free_addresses(1)
        with pytest.raises(Unavailable, match=address):
            await Client.connect([address], region="r", timeout_s=0.5)

    asyncio.run(scenario())
