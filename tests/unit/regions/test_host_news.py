"""When a follower hears of a commit: at once if somebody waits there, else with what it is told anyway."""

import asyncio
from collections.abc import Awaitable, Callable

from host_cluster import GROUP, KEYSPACE, HostCluster
from virtual_time import run_virtual

from isochrone.client import Client
from isochrone.ids import NodeId, ReplicaRole
from isochrone.regions.host import Host
from isochrone.regions.replica import READERS_NS
from isochrone.regions.watch_hub import WatchRequest
from isochrone.wire.kv import ALL, Range

FULL, WITNESS = ReplicaRole.FULL, ReplicaRole.WITNESS


def in_cluster(test: Callable[[HostCluster, Client, Host, Host], Awaitable[None]]) -> None:
    """Run a test with a leader that two followers acknowledge to, one of them a witness; and that one's host."""

    async def main() -> None:
        cluster = HostCluster({"a": FULL, "b": FULL, "w": WITNESS})
        await cluster.start_all()
        await cluster.until(lambda: cluster.leader() == "a")
        client = await cluster.client()
        await client.put("k/x", "0")
        hosts = [cluster.processes[NodeId(name)].host for name in "ab"]
        assert hosts[0] is not None
        assert hosts[1] is not None
        await test(cluster, client, hosts[0], hosts[1])
        await cluster.stop_all()

    run_virtual(main())


def test_writes_cost_no_message_more_where_nobody_reads_or_watches() -> None:
    async def test(cluster: HostCluster, client: Client, leader: Host, follower: Host) -> None:
        for number in range(5):
            await client.put("k/x", str(number))
        behind = leader.replicas[GROUP].revision - follower.replicas[GROUP].revision
        assert behind == 1, "each write told of the one before"
        await asyncio.sleep(1)
        assert leader.replicas[GROUP].revision == follower.replicas[GROUP].revision

    in_cluster(test)


def test_who_watches_a_follower_is_told_at_once() -> None:
    async def test(cluster: HostCluster, client: Client, leader: Host, follower: Host) -> None:
        times: list[float] = []
        loop = asyncio.get_running_loop()
        watch = follower.watch(GROUP, WatchRequest(b"k/", ALL), lambda: times.append(loop.time()))
        for number in range(5):
            await client.put("k/x", str(number))
            answered = loop.time()
            await asyncio.sleep(0.015)
            assert times, "no later than the news take"
            assert times.pop() <= answered + 0.011
            while watch.take() is not None:
                pass

    in_cluster(test)


def test_who_begins_to_watch_hears_at_once_of_what_was_written_just_before() -> None:
    async def test(cluster: HostCluster, client: Client, leader: Host, follower: Host) -> None:
        await client.put("k/x", "1")
        await client.put("k/x", "2")
        assert follower.replicas[GROUP].revision < leader.replicas[GROUP].revision
        ready: list[str] = []
        follower.watch(GROUP, WatchRequest(b"k/", ALL), lambda: ready.append("ready"))
        await asyncio.sleep(0.025)
        assert ready, "a question and its answer take 20 ms; a heartbeat would come later"

    in_cluster(test)


def test_who_reads_at_a_follower_again_reads_what_was_written_meanwhile() -> None:
    async def test(cluster: HostCluster, client: Client, leader: Host, follower: Host) -> None:
        def read() -> None:
            follower.read_applied(GROUP, KEYSPACE, [Range(b"k/x")])

        read()
        for number in range(3):
            await client.put("k/x", str(number))
            await asyncio.sleep(0.015)
            assert follower.replicas[GROUP].revision == leader.replicas[GROUP].revision
        await asyncio.sleep(READERS_NS / 1e9)
        await client.put("k/x", "later")
        await client.put("k/x", "last")
        await asyncio.sleep(0.015)
        assert follower.replicas[GROUP].revision < leader.replicas[GROUP].revision, (
            "who does not come back, is forgotten"
        )
        read()
        await asyncio.sleep(0.025)
        assert follower.replicas[GROUP].revision == leader.replicas[GROUP].revision

    in_cluster(test)
