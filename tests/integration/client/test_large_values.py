"""Bursts of large values, through a real node's service and real streams: they take turns and break nothing."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import replace

from host_cluster import CLUSTER, HostCluster
from wire_nodes import free_addresses, peer_hello

from isochrone.client import Client, WatchEvent
from isochrone.ids import NodeId, ReplicaRole, ZoneId
from isochrone.wire.kv import VALUE_BYTES_MAX
from isochrone.wire.peers_grpc import GrpcTransport
from isochrone.wire.server_grpc import NodeServer
from isochrone.wire.session import NodeHello
from isochrone.wire.shaper_os import Shaper

VALUE = bytes(VALUE_BYTES_MAX)


def with_client(test: Callable[[Client], Awaitable[None]]) -> None:
    """Run a test with a client of one node that leads its group."""

    async def main() -> None:
        shaper = Shaper(random.Random(1))
        (address,) = free_addresses(1)
        cluster = HostCluster({"a": ReplicaRole.FULL}, delay_ms=0)
        (route,) = cluster.routes
        cluster.routes = (replace(route, replicas=((NodeId("a"), address, "r", "z", ReplicaRole.FULL),)),)
        await cluster.start_all()
        await cluster.until(lambda: cluster.leader() is not None)
        service = cluster.processes[NodeId("a")].service
        assert service is not None
        transport = GrpcTransport(
            peer_hello("a"), ZoneId("z"), {}, shaper=shaper, accept=lambda _: "no peers", rng=random.Random(1)
        )
        server = NodeServer(
            NodeHello(1, CLUSTER, NodeId("a"), "r", "z"),
            shaper=shaper,
            transport=transport,
            sessions=service,
            admin=None,  # type: ignore[arg-type]
        )
        await server.start(address)
        try:
            async with await Client.connect([address], region="r", zone="z", timeout_s=15) as client:
                await test(client)
                assert client.statistics().reconnects == 0
        finally:
            await server.stop()
            await cluster.stop_all()
            shaper.close()

    asyncio.run(main())


def test_a_burst_of_large_answers() -> None:
    async def test(client: Client) -> None:
        await client.put("k/x", VALUE)
        reads = await asyncio.gather(*(client.get("k/x") for _ in range(64)))
        assert {read.value for read in reads} == {VALUE}

    with_client(test)


def test_a_burst_of_large_writes() -> None:
    async def test(client: Client) -> None:
        writes = await asyncio.gather(*(client.put(f"k/{number % 4}", VALUE) for number in range(100)))
        assert sorted(write.revision for write in writes) == list(range(2, 102))

    with_client(test)


def test_a_watch_of_more_than_a_stream_holds_rests_and_goes_on() -> None:
    """Forty megabytes of history for one watch, through a real stream that is drained again and again."""

    async def test(client: Client) -> None:
        for number in range(40):
            await client.put("k/x", VALUE[:-2] + b"%02d" % number)
        async with client.watch("k/x", start_revision=1) as watcher, asyncio.timeout(30):
            told = []
            async for event in watcher:
                assert isinstance(event, WatchEvent)
                told.append(event.item.value[-2:])
                if len(told) == 40:
                    break
        assert told == [b"%02d" % number for number in range(40)]

    with_client(test)
