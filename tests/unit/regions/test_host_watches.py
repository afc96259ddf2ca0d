"""Watches through hosts: any replica with state serves them, and all tell the same."""

import asyncio

import pytest
from host_cluster import GROUP, KEYSPACE, HostCluster
from virtual_time import run_virtual

from isochrone.errors import InvalidRequest, Unavailable
from isochrone.ids import GroupId, NodeId, ReplicaRole
from isochrone.regions.watch_hub import WatchRequest
from isochrone.regions.watching import Watch
from isochrone.wire.commands import decode_result, encode_result
from isochrone.wire.kv import ALL, Range, RangeResult
from isochrone.wire.leases import LeaseKeepAlive, LeaseTimeToLive
from isochrone.wire.locks import LockWait
from isochrone.wire.records import decode_record

FULL = ReplicaRole.FULL


def taken(watch: Watch) -> list[tuple[int, bytes, bytes]]:
    items = []
    while (batch := watch.take()) is not None:
        items += [decode_record(event.record) for event in batch.events]
    return [(item.mod_revision, item.key, item.value) for item in items]


def test_all_replicas_tell_the_same_in_the_same_order_across_a_change_of_leader() -> None:
    async def main() -> None:
        cluster = HostCluster({"a": FULL, "b": FULL, "c": FULL})
        await cluster.start_all()
        await cluster.until(lambda: cluster.leader() is not None)
        woken = dict.fromkeys("abc", 0)
        watches: dict[str, Watch] = {}

        def wake(name: str) -> None:
            woken[name] += 1

        for name in "abc":
            host = cluster.processes[NodeId(name)].host
            assert host is not None
            watches[name] = host.watch(GROUP, WatchRequest(b"k/", ALL), lambda name=name: wake(name))  # type: ignore[misc]
        client = await cluster.client()
        for number in range(5):
            await client.put("k/x", str(number))
        old = cluster.leader()
        assert old is not None
        await cluster.crash(old)
        await cluster.until(lambda: cluster.leader() not in (None, old))
        await client.delete("k/x", timeout_s=20)
        await asyncio.sleep(2)
        told = {name: taken(watch) for name, watch in watches.items() if name != old}
        first, second = told.values()
        assert first == second
        assert [value for _, _, value in first] == [b"0", b"1", b"2", b"3", b"4", b""]
        assert [revision for revision, _, _ in first] == [2, 3, 4, 5, 6, 7]
        assert all(woken[name] == 1 for name in told), "nobody took, so nobody was called again"
        await cluster.stop_all()

    run_virtual(main())


def test_a_follower_answers_from_what_it_has_applied() -> None:
    """Serializable reads: no round trip, and perhaps an older state, but one that was."""

    async def main() -> None:
        cluster = HostCluster({"a": FULL, "b": FULL, "c": FULL, "w": ReplicaRole.WITNESS})
        await cluster.start_all()
        await cluster.until(lambda: cluster.leader() is not None)
        client = await cluster.client()
        await client.put("k/x", "1")
        await asyncio.sleep(1)
        leader = cluster.leader()
        follower = next(name for name in "abc" if name != leader)
        host = cluster.processes[NodeId(follower)].host
        assert host is not None

        def value() -> bytes:
            (packed,) = host.read_applied(GROUP, KEYSPACE, (Range(b"k/x"),))
            assert isinstance(packed, tuple)
            result = decode_result(encode_result(packed))
            assert isinstance(result, RangeResult)
            return result.items[0].value

        assert value() == b"1"
        cluster.isolate(follower)
        await client.put("k/x", "2", timeout_s=20)
        assert value() == b"1"
        cluster.heal()
        await asyncio.sleep(3)
        assert value() == b"2"
        for query in (LeaseKeepAlive(1), LeaseTimeToLive(1), LockWait(b"k/l", 1, 1)):
            with pytest.raises(InvalidRequest, match="leader"):
                host.read_applied(GROUP, KEYSPACE, (query,))
        witness = cluster.processes[NodeId("w")].host
        assert witness is not None
        with pytest.raises(InvalidRequest, match="no state"):
            witness.read_applied(GROUP, KEYSPACE, (Range(b"k/x"),))
        await cluster.stop_all()

    run_virtual(main())


def test_a_node_that_serves_a_group_no_more_or_not_yet_is_no_reason_to_give_a_watch_up() -> None:
    async def main() -> None:
        cluster = HostCluster({"a": FULL, "b": FULL, "c": FULL})
        await cluster.start_all()
        host = cluster.processes[NodeId("a")].host
        assert host is not None
        replica = host.replicas.pop(GROUP)
        with pytest.raises(Unavailable, match="serves no replica of group"):
            host.watch(GROUP, WatchRequest(b"k/", ALL), lambda: None)
        host.replicas[GROUP] = replica
        with pytest.raises(InvalidRequest, match="the topology has no group elsewhere"):
            host.watch(GroupId("elsewhere"), WatchRequest(b"k/", ALL), lambda: None)
        await cluster.stop_all()

    run_virtual(main())
