"""Leases through hosts: renewals are confirmed by a quorum, expiries are logged, leaders change; groups may sleep."""

import asyncio
from collections.abc import Awaitable, Callable

from host_asker import Asker
from host_cluster import GROUP, KEYSPACE, HostCluster
from virtual_time import run_virtual

from isochrone.errors import Indeterminate, LeaseNotFound, NotLeader, Unavailable
from isochrone.ids import GroupId, KeyspaceId, NodeId, ReplicaRole
from isochrone.wire.kv import Put, Range
from isochrone.wire.leases import (
    LeaseGrant,
    LeaseKeepAlive,
    LeaseKeepAliveResult,
    LeaseTimeToLive,
    LeaseTimeToLiveResult,
)

FULL = ReplicaRole.FULL
TTL_MS = 10_000


def with_lease(test: Callable[[HostCluster, Asker], Awaitable[None]]) -> None:
    """Lease 5 holds the key k/x, in a group of three."""

    async def main() -> None:
        cluster = HostCluster({"a": FULL, "b": FULL, "c": FULL})
        await cluster.start_all()
        await cluster.until(lambda: cluster.leader() is not None)
        asker = Asker(cluster)
        assert (await asker.write(LeaseGrant(5, TTL_MS))).error is None
        assert (await asker.write(Put(b"k/x", b"1", lease=5))).error is None
        await test(cluster, asker)
        await cluster.stop_all()

    run_virtual(main())


def test_a_lease_ends_by_itself_even_while_its_group_sleeps() -> None:
    async def test(cluster: HostCluster, asker: Asker) -> None:
        await asyncio.sleep(TTL_MS / 1000 - 0.5)
        assert await asker.value(b"k/x") == b"1"
        await asyncio.sleep(1)
        assert await asker.value(b"k/x") is None
        try:
            await asker.get(LeaseKeepAlive(5))
        except LeaseNotFound:
            return
        raise AssertionError("the lease was renewed")

    with_lease(test)


def test_renewals_keep_a_lease_and_cost_no_entry() -> None:
    async def test(cluster: HostCluster, asker: Asker) -> None:
        last = asker.host().replicas[GROUP].core.status().last
        for _ in range(10):
            await asyncio.sleep(TTL_MS / 3000)
            renewed = await asker.get(LeaseKeepAlive(5))
            assert isinstance(renewed, LeaseKeepAliveResult) and renewed.ttl_ms == TTL_MS
            left = await asker.get(LeaseTimeToLive(5))
            assert isinstance(left, LeaseTimeToLiveResult) and TTL_MS - 100 <= left.remaining_ms <= TTL_MS
        assert asker.host().replicas[GROUP].core.status().last == last
        assert await asker.value(b"k/x") == b"1"

    with_lease(test)


def test_a_leader_that_is_cut_off_renews_nothing() -> None:
    async def test(cluster: HostCluster, asker: Asker) -> None:
        old = cluster.leader()
        assert old is not None
        cluster.isolate(old)
        answer = asker.read(LeaseKeepAlive(5), old)
        await asyncio.sleep(5)
        assert answer.done() and isinstance(answer.result().error, NotLeader)
        assert cluster.leader() != old

    with_lease(test)


def test_leaders_that_change_faster_than_the_time_to_live_let_a_lease_end() -> None:
    """etcd#17132, through hosts."""

    async def test(cluster: HostCluster, asker: Asker) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        while await asker.value(b"k/x") is not None:
            assert loop.time() - began < 4 * TTL_MS / 1000
            await asyncio.sleep(3)
            old = cluster.leader()
            assert old is not None
            target = next(name for name in cluster.processes if name != old)
            cluster.processes[NodeId(old)].host.administration.transfer_leadership(GROUP, target, lambda _: None)  # type: ignore[union-attr]
            await asyncio.sleep(0.5)
            await cluster.until(lambda: cluster.leader() is not None)
        assert loop.time() - began >= TTL_MS / 1000

    with_lease(test)


def test_a_leader_that_was_stopped_beyond_the_time_to_live_ends_nothing() -> None:
    """etcd#15247, through hosts: it wakes and finds the time to live long over, but the new leader was renewed."""

    async def test(cluster: HostCluster, asker: Asker) -> None:
        old = cluster.leader()
        assert old is not None
        cluster.freeze(old)
        await cluster.until(lambda: cluster.leader() not in (None, old) or len(cluster.sent) == 0, limit_s=30)
        end = asyncio.get_running_loop().time() + 2.5 * TTL_MS / 1000
        while asyncio.get_running_loop().time() < end:
            await asker.get(LeaseKeepAlive(5))
            await asyncio.sleep(1)
        cluster.thaw(old)
        await asyncio.sleep(2)
        await asker.get(LeaseKeepAlive(5))
        assert await asker.value(b"k/x") == b"1"

    with_lease(test)


def test_without_its_regions_lease_a_node_neither_proposes_nor_reveals() -> None:
    async def test(cluster: HostCluster, asker: Asker) -> None:
        serves = [True]
        replica = asker.host().replicas[GROUP]

        def region_lease(group: GroupId, keyspace: KeyspaceId) -> bool:
            assert (group, keyspace) == (GROUP, KEYSPACE)
            return serves[0]

        replica._region_lease = region_lease
        under_way = asker.write(Put(b"k/x", b"2"))
        await asyncio.sleep(0.001)
        last = replica.core.status().last
        serves[0] = False
        refused, read = asker.write(Put(b"k/x", b"3")), asker.read(Range(b"k/x"))
        renewal = asker.read(LeaseKeepAlive(5))
        await asyncio.sleep(1)
        assert isinstance(under_way.result().error, Indeterminate)
        for answer, error in ((refused, Unavailable), (read, Unavailable), (renewal, Indeterminate)):
            assert isinstance(answer.result().error, error)
            assert answer.result().payload == b""
        assert replica.core.status().last == last
        serves[0] = True
        assert await asker.value(b"k/x") == b"2"

    with_lease(test)
