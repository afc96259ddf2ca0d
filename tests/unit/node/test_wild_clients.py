"""Clients that say anything at all: each gets its answer or its error, and nobody else notices."""

import asyncio
import random
from collections.abc import Awaitable, Callable

import msgpack
import pytest
from host_cluster import GROUP, KEYSPACE, HostCluster
from virtual_time import run_virtual
from wild_requests import command, damaged, message, query

from isochrone.errors import STATUS_BY_ERROR, InvalidRequest
from isochrone.ids import NodeId, ReplicaRole
from isochrone.node import session_watches
from isochrone.node.service import ClientService
from isochrone.regions import replica_reads, watch_hub
from isochrone.wire.codec import MalformedFrame
from isochrone.wire.commands import Command, encode_command, encode_query
from isochrone.wire.kv import KEY_BYTES_MAX, Put, Range, prefix_end
from isochrone.wire.session import (
    Answer,
    Ping,
    Pong,
    ReadRequest,
    ReadsAnswer,
    ReadsRequest,
    Refusal,
    SessionMessage,
    WatchCreate,
    WatchEnded,
    WatchEvents,
    WatchProgress,
    WriteAnswer,
    WriteRequest,
)
from isochrone.wire.session_codec import decode_session_frames, encode_session_frame, session_message_bytes

ERRORS = {cls.__name__ for cls in STATUS_BY_ERROR}
ALL_OF_K = (b"k/", prefix_end(b"k/"))


class Told:
    """A session that takes what it is told, unless it has stopped reading."""

    def __init__(self) -> None:
        self.messages: list[SessionMessage] = []
        self.backlog_bytes = 0
        self.reads = True
        self.resume: Callable[[], None] | None = None

    def send(self, sent: SessionMessage) -> None:
        assert decode_session_frames(encode_session_frame([sent])), "it must be possible to encode"
        self.messages.append(sent)
        self.backlog_bytes += 0 if self.reads else session_message_bytes(sent)

    def call_when_drained(self, resume: Callable[[], None]) -> None:
        self.resume = resume

    def answered(self) -> int:
        """How many requests were answered or refused."""
        writes = [len(each.requests) for each in self.messages if isinstance(each, WriteAnswer)]
        return sum(writes) + len(self.of(Answer, ReadsAnswer, Refusal))

    def of(self, *kinds: type[SessionMessage]) -> list[SessionMessage]:
        return [each for each in self.messages if isinstance(each, kinds)]


def with_service(test: Callable[[ClientService, HostCluster], Awaitable[None]], nodes: str = "a") -> None:
    async def main() -> None:
        cluster = HostCluster(dict.fromkeys(nodes, ReplicaRole.FULL))
        await cluster.start_all()
        await cluster.until(lambda: cluster.leader() is not None)
        leader = cluster.leader()
        assert leader is not None
        service = cluster.processes[NodeId(leader)].service
        assert service is not None
        await test(service, cluster)
        await cluster.stop_all()

    run_virtual(main())


def put(number: int, key: bytes, value: bytes = b"") -> WriteRequest:
    return WriteRequest((number,), GROUP, KEYSPACE, 1_000, b"", (encode_command(Command(0, 0, 0, Put(key, value))),))


def read(number: int, wanted: Range) -> ReadRequest:
    return ReadRequest(number, GROUP, KEYSPACE, 1_000, encode_query(wanted))


def nearest(number: int, wanted: Range) -> ReadsRequest:
    return ReadsRequest(number, GROUP, KEYSPACE, 1_000, True, (encode_query(wanted),))


def wild(rng: random.Random) -> SessionMessage | None:
    """A message of a session, rightly addressed more often than not; None for bytes that are none."""
    match rng.randrange(4):
        case 0:
            said = [command(rng, rng.randrange(3)) for _ in range(rng.randrange(1, 4))]
            said = [damaged(rng, each) if rng.random() < 0.3 else each for each in said]
            return WriteRequest((7,) * len(said), GROUP, KEYSPACE, 1_000, b"", tuple(said))
        case 1:
            asked = [query(rng) for _ in range(rng.randrange(1, 4))]
            asked = [damaged(rng, each) if rng.random() < 0.3 else each for each in asked]
            if rng.random() < 0.5:
                return ReadRequest(7, GROUP, KEYSPACE, 1_000, asked[0])
            return ReadsRequest(7, GROUP, KEYSPACE, 1_000, rng.random() < 0.5, tuple(asked))
        case _:
            try:
                (found,) = decode_session_frames(bytes(msgpack.packb([message(rng)])))
            except MalformedFrame:
                return None
            return found


@pytest.mark.parametrize("seed", range(6))
def test_wild_messages_are_answered_and_disturb_nobody(seed: int) -> None:
    async def test(service: ClientService, cluster: HostCluster) -> None:
        rng = random.Random(seed)
        told, other = Told(), Told()
        for session in (told, other):
            service.opened(session)
        for number in range(40):
            for said in filter(None, [wild(rng) for _ in range(25)]):
                service.received(told, said)
            service.received(other, put(number, b"k/other/%d" % number))
            await asyncio.sleep(rng.choice((0.0, 0.001, 0.05)))
        service.received(other, read(99, Range(b"k/other/", prefix_end(b"k/other/"), count_only=True)))
        await asyncio.sleep(10)
        assert other.answered() == 41 and not other.of(Refusal)
        refused = [each for each in told.messages if isinstance(each, Refusal)]
        assert refused and {each.error for each in refused} <= ERRORS
        for session in (told, other):
            service.closed(session)
        hubs = [process.host.replicas[GROUP].service for process in cluster.processes.values() if process.host]
        assert all(len(hub._watches.hub) == 0 for hub in hubs), "its watches ended with it"

    with_service(test)


@pytest.mark.parametrize("seed", range(4))
def test_replicas_stay_equal_under_wild_commands(seed: int) -> None:
    async def test(service: ClientService, cluster: HostCluster) -> None:
        rng, told = random.Random(seed), Told()
        service.opened(told)
        for _ in range(60):
            said = tuple([command(rng) for _ in range(20)])
            service.received(told, WriteRequest((7,) * 20, GROUP, KEYSPACE, 1_000, b"", said))
            await asyncio.sleep(0.01)
        await asyncio.sleep(5)
        assert told.answered() == 60 * 20
        states = [process.host.replicas[GROUP].machine for process in cluster.processes.values() if process.host]
        digests = {repr((each.data.revision, each.data.leases, each.data.locks)) for each in states if each}
        assert len(states) == 3 and len(digests) == 1
        first, *others = [each.data.keyspaces for each in states if each]
        assert all(each == first for each in others)

    with_service(test, "abc")


def test_a_node_without_a_replica_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(service: ClientService, _: HostCluster) -> None:
        told = Told()
        service.opened(told)
        replicas = dict(service.host.replicas)
        service.host.replicas.clear()
        service.received(told, nearest(1, Range(b"k/a")))
        service.received(told, WatchCreate(1, GROUP, b"k/a", b"", 0, False, True, True))
        service.host.replicas.update(replicas)
        assert [each.error for each in told.messages if isinstance(each, Refusal | WatchEnded)] == ["Unavailable"] * 2

    with_service(test)


def test_who_does_not_read_is_not_read_for() -> None:
    async def test(service: ClientService, _: HostCluster) -> None:
        told = Told()
        service.opened(told)
        for number in range(9):
            service.received(told, put(number, b"k/%d" % number, bytes(900_000)))
        await asyncio.sleep(1)
        told.messages.clear()
        told.reads = False
        wanted = Range(*ALL_OF_K)
        for number in range(40):  # 8 MB each
            service.received(told, read(number, wanted))
            service.received(told, nearest(number, wanted))
        await asyncio.sleep(1)
        assert len(told.of(Answer, ReadsAnswer)) <= 4, "the rest is refused, most of it before anything is read"
        assert len(told.of(Answer, ReadsAnswer, Refusal)) == 80

    with_service(test)


def test_large_answers_are_made_a_few_in_a_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(service: ClientService, _: HostCluster) -> None:
        monkeypatch.setattr(replica_reads, "ANSWERS_BYTES_MAX", 10_000)
        told, other = Told(), Told()
        for session in (told, other):
            service.opened(session)
        service.received(told, put(0, b"k/a", bytes(4_000)))
        await asyncio.sleep(1)
        turns = 0
        for number in range(30):
            service.received(told, read(number, Range(b"k/a")))
        while len(told.of(Answer)) < 30:
            before = len(told.of(Answer))
            await asyncio.sleep(0)
            assert len(told.of(Answer)) - before <= 3
            turns += 1
            assert turns < 10_000
        assert sorted(each.request for each in told.messages if isinstance(each, Answer)) == [*range(30)]

    with_service(test)


def test_oversized_watches_are_refused() -> None:
    async def test(service: ClientService, _: HostCluster) -> None:
        told = Told()
        service.opened(told)
        big = bytes([255]) * (KEY_BYTES_MAX + 1)
        for number, (key, end, revision) in enumerate(
            [(b"", b"", 0), (big, b"", 0), (b"k/", big, 0), (b"k/", b"", -1)]
        ):
            service.received(told, WatchCreate(number, GROUP, key, end, revision, False, True, True))
        ended = told.of(WatchEnded)
        assert [each.error for each in ended if isinstance(each, WatchEnded)] == [InvalidRequest.__name__] * 4

    with_service(test)


def test_a_flood_of_watches_is_bounded_and_those_from_the_past_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_watches, "WATCHES_MAX", 50)
    monkeypatch.setattr(watch_hub, "SCAN_RECORDS_MAX", 5)

    async def test(service: ClientService, _: HostCluster) -> None:
        told, other = Told(), Told()
        for session in (told, other):
            service.opened(session)
        for number in range(200):
            service.received(told, put(number, b"k/%d" % number))
        await asyncio.sleep(1)
        for number in range(60):
            service.received(told, WatchCreate(number, GROUP, b"k/no/%d" % number, b"", 1, False, True, True))
        assert [each.error for each in told.messages if isinstance(each, WatchEnded)] == ["QueueFull"] * 10
        looked: list[int] = []
        take = watch_hub.WatchHub.take
        monkeypatch.setattr(watch_hub.WatchHub, "take", lambda *said: (looked.append(1), take(*said))[1])
        service.received(other, read(1, Range(b"k/1")))
        for _ in range(1_000):
            await asyncio.sleep(0)
            if other.of(Answer):
                break
        assert 0 < len(looked) < 50, "whoever asks is answered before all of them have read on"
        await asyncio.sleep(1)
        service.received(told, put(1, b"k/no/49"))
        service.received(told, Ping(1))
        await asyncio.sleep(1)
        assert len(told.of(WatchEvents)) == 1 and len(told.of(Pong)) == 1
        told.messages.clear()
        service.received(told, Ping(2))
        assert len(told.of(WatchProgress)) == 50
        assert all(each.revision for each in told.messages if isinstance(each, WatchProgress)), "all have caught up"

    with_service(test)
