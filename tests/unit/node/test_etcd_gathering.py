"""Plain puts and reads at an endpoint: asked together, answered one by one, passed on where another node leads."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest
from host_cluster import GROUP, KEYSPACE, HostCluster
from virtual_time import run_virtual

from isochrone.client.client import Client
from isochrone.errors import InvalidRequest, IsochroneError
from isochrone.ids import NodeId, ReplicaRole
from isochrone.node.etcd_gathering import Gathering
from isochrone.node.etcd_group import GroupAccess
from isochrone.regions import state_service
from isochrone.wire.commands import Result
from isochrone.wire.kv import KEY_BYTES_MAX, PUT, RANGE, PackedResult, Put, Range
from isochrone.wire.records import record_value

FULL = ReplicaRole.FULL


class Asker:
    """Asks through the gathering of one node, and keeps what each question was told."""

    def __init__(self, cluster: HostCluster, node: str) -> None:
        host = cluster.processes[NodeId(node)].host
        assert host is not None
        self.access = GroupAccess(host, NodeId(node), GROUP, [(b"k/", KEYSPACE)], cluster.client)
        self.gathering = Gathering(self.access)
        self.asked_together: list[int] = []
        read_all, write = host.read_all, host.write

        def counted_read(group: Any, keyspace: Any, queries: Sequence[Any], done: Any) -> None:
            self.asked_together.append(len(queries))
            read_all(group, keyspace, queries, done)

        def counted_write(group: Any, keyspace: Any, commands: Sequence[bytes], *rest: Any) -> None:
            self.asked_together.append(len(commands))
            write(group, keyspace, commands, *rest)

        host.read_all, host.write = counted_read, counted_write  # type: ignore[method-assign]

    def ask(self, question: Put | Range) -> "asyncio.Future[PackedResult | Result | IsochroneError]":
        answer: asyncio.Future[PackedResult | Result | IsochroneError] = asyncio.get_running_loop().create_future()
        if isinstance(question, Put):
            self.gathering.put(question, 5.0, answer.set_result, answer.set_result)
        else:
            self.gathering.read(question, 5.0, answer.set_result, answer.set_result)
        return answer


def with_cluster(names: str, test: Callable[[HostCluster, str], Awaitable[None]]) -> None:
    async def main() -> None:
        cluster = HostCluster(dict.fromkeys(names, FULL))
        await cluster.start_all()
        await cluster.until(lambda: cluster.leader() is not None)
        leader = cluster.leader()
        assert leader is not None
        await test(cluster, leader)
        await cluster.stop_all()

    run_virtual(main())


def values(answers: Sequence[object]) -> list[bytes]:
    found = []
    for answer in answers:
        assert isinstance(answer, tuple) and answer[0] == RANGE
        found.append(b"".join(map(record_value, answer[5])))
    return found


def test_what_is_asked_in_one_turn_is_asked_together() -> None:
    async def test(cluster: HostCluster, leader: str) -> None:
        asker = Asker(cluster, leader)
        put = await asyncio.gather(*(asker.ask(Put(b"k/%d" % number, b"%d" % number)) for number in range(3)))
        revisions = [answer[1] for answer in put if isinstance(answer, tuple) and answer[0] == PUT]
        assert revisions == [2, 3, 4], "each tells its own revision, not that of the last"
        read = await asyncio.gather(*(asker.ask(Range(b"k/%d" % number)) for number in (2, 0, 7)))
        assert values(read) == [b"2", b"0", b""]
        assert asker.asked_together == [3, 3]

    with_cluster("a", test)


def test_what_is_wrong_in_itself_is_refused_and_leaves_the_others() -> None:
    async def test(cluster: HostCluster, leader: str) -> None:
        asker = Asker(cluster, leader)
        long = b"k/" + bytes(KEY_BYTES_MAX)
        asked = [asker.ask(each) for each in (Put(long, b""), Range(long), Put(b"k/x", b"1"), Range(b"k/x"))]
        answers = await asyncio.gather(*asked)
        assert [isinstance(answer, InvalidRequest) for answer in answers] == [True, True, False, False]
        assert asker.asked_together == [1, 1]
        assert asker.access.refusals == {"InvalidRequest": 2}

    with_cluster("a", test)


def test_a_node_that_does_not_lead_passes_each_on() -> None:
    async def test(cluster: HostCluster, leader: str) -> None:
        other = next(name for name in "abc" if name != leader)
        await cluster.until(lambda: cluster.processes[NodeId(other)].host.replicas[GROUP].known_leader() == leader)  # type: ignore[union-attr]
        asker = Asker(cluster, other)
        put = await asker.ask(Put(b"k/x", b"1"))
        read = await asker.ask(Range(b"k/x"))
        assert not isinstance(put, tuple | IsochroneError) and put.revision == 2
        assert getattr(read, "count", None) == 1
        assert asker.asked_together == [], "they are answered elsewhere"
        await asker.access.close()

    with_cluster("abc", test)


def test_reads_that_did_not_fit_are_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(cluster: HostCluster, leader: str) -> None:
        monkeypatch.setattr(state_service, "ANSWERS_BYTES_TARGET", 1_000)
        asker = Asker(cluster, leader)
        await asyncio.gather(*(asker.ask(Put(b"k/%d" % number, b"%d" % number * 600)) for number in range(5)))
        asker.asked_together.clear()
        read = await asyncio.gather(*(asker.ask(Range(b"k/%d" % number)) for number in range(5)))
        assert values(read) == [b"%d" % number * 600 for number in range(5)]
        assert asker.asked_together == [5, 3, 1]

    with_cluster("a", test)


def test_a_read_of_what_is_here_asks_nobody() -> None:
    async def test(cluster: HostCluster, leader: str) -> None:
        client: Client = await cluster.client()
        await client.put("k/x", "1")
        asker = Asker(cluster, leader)
        assert values([asker.gathering.read_here(Range(b"k/x"))]) == [b"1"]
        assert asker.asked_together == []

    with_cluster("a", test)
