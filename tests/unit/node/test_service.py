"""What a node lets in from its clients: nothing that the group could not carry."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest
from host_cluster import GROUP, KEYSPACE, HostCluster
from virtual_time import run_virtual

from isochrone.ids import NodeId, ReplicaRole
from isochrone.node.service import BACKLOG_BYTES_MAX, QUERY_BYTES_MAX, WRITE_ANSWER_BYTES_TARGET, ClientService
from isochrone.regions.state_service import ANSWERS_BYTES_TARGET
from isochrone.wire.commands import (
    COMMAND_BYTES_MAX,
    Command,
    OpenSession,
    Query,
    SessionResult,
    decode_result,
    encode_command,
    encode_query,
)
from isochrone.wire.kv import KEY_BYTES_MAX, VALUE_BYTES_MAX, Put, Range
from isochrone.wire.leases import LeaseGrant, LeaseKeepAlive, LeaseList, LeaseTimeToLive
from isochrone.wire.locks import LockAcquire, LockQuery, LockWait
from isochrone.wire.session import (
    Answer,
    LeaderChanged,
    ReadRequest,
    ReadsAnswer,
    ReadsRequest,
    Refusal,
    SessionMessage,
    WriteAnswer,
    WriteRequest,
)

OPEN = encode_command(Command(0, 0, 0, OpenSession(b"", 10_000)))
WRITE = WriteRequest((1,), GROUP, KEYSPACE, 1_000, b"", (OPEN,))
READ = ReadRequest(1, GROUP, KEYSPACE, 1_000, encode_query(Range(b"k/" + bytes(KEY_BYTES_MAX - 2))))


class Told:
    """A session that only listens."""

    backlog_bytes = 0

    def __init__(self) -> None:
        self.messages: list[SessionMessage] = []

    def send(self, message: SessionMessage) -> None:
        if not isinstance(message, LeaderChanged):
            self.messages.append(message)


def with_service(test: Callable[[ClientService, HostCluster], Awaitable[None]]) -> None:
    async def main() -> None:
        cluster = HostCluster({"a": ReplicaRole.FULL})
        await cluster.start_all()
        await cluster.until(lambda: cluster.leader() is not None)
        service = cluster.processes[NodeId("a")].service
        assert service is not None
        await test(service, cluster)
        await cluster.stop_all()

    run_virtual(main())


@pytest.mark.parametrize("request_", [WRITE, replace(WRITE, trace=bytes(25)), READ], ids=["plain", "traced", "read"])
def test_what_is_within_the_limits_is_answered(request_: WriteRequest | ReadRequest) -> None:
    async def test(service: ClientService, _: HostCluster) -> None:
        told = Told()
        service.received(told, request_)
        await asyncio.sleep(1)
        assert [type(message) for message in told.messages] == [Answer if request_ is READ else WriteAnswer]

    with_service(test)


@pytest.mark.parametrize(
    "request_",
    [
        replace(WRITE, trace=bytes(24)),
        replace(WRITE, trace=bytes(8 << 20)),
        replace(WRITE, commands=(bytes(COMMAND_BYTES_MAX + 1),)),
        replace(WRITE, keyspace="other/"),
        replace(READ, query=bytes(QUERY_BYTES_MAX + 1)),
        replace(READ, group="other"),
    ],
    ids=["short trace", "huge trace", "huge command", "keyspace", "huge query", "group"],
)
def test_what_is_beyond_them_is_refused_and_never_logged(request_: WriteRequest | ReadRequest) -> None:
    async def test(service: ClientService, cluster: HostCluster) -> None:
        told = Told()
        host = cluster.processes[NodeId("a")].host
        assert host is not None
        last = host.replicas[GROUP].core.status().last
        service.received(told, request_)
        (refusal,) = told.messages
        assert isinstance(refusal, Refusal) and refusal.error == "InvalidRequest"
        await asyncio.sleep(1)
        assert host.replicas[GROUP].core.status().last == last

    with_service(test)


def test_a_write_s_trace_context_is_in_the_log() -> None:
    async def test(service: ClientService, cluster: HostCluster) -> None:
        trace = bytes(range(25))
        service.received(Told(), replace(WRITE, trace=trace))
        await asyncio.sleep(1)
        store = cluster.processes[NodeId("a")].store
        last = (await store.load(GROUP)).last_index
        (entry,) = await store.read_entries(GROUP, last, last, 1 << 20)
        assert entry.trace == trace

    with_service(test)


def test_a_read_is_refused_while_much_waits_for_its_client_and_a_write_is_not() -> None:
    async def test(service: ClientService, _: HostCluster) -> None:
        told = Told()
        told.backlog_bytes = BACKLOG_BYTES_MAX + 1
        service.received(told, replace(READ, request=1))
        service.received(told, replace(WRITE, requests=(2,)))
        await asyncio.sleep(1)
        refusal, answer = told.messages
        assert isinstance(refusal, Refusal) and refusal.request == 1 and refusal.error == "Unavailable"
        assert isinstance(answer, WriteAnswer) and answer.requests == (2,)

    with_service(test)


def test_commands_that_come_together_are_logged_together_and_answered_each() -> None:
    async def test(service: ClientService, cluster: HostCluster) -> None:
        told = Told()
        host = cluster.processes[NodeId("a")].host
        assert host is not None
        last = host.replicas[GROUP].core.status().last
        service.received(told, replace(WRITE, requests=(1, 2, 3), commands=(OPEN, b"malformed", OPEN)))
        await asyncio.sleep(1)
        refusal, answer = told.messages
        assert isinstance(refusal, Refusal) and refusal.request == 2 and refusal.error == "InvalidRequest"
        assert isinstance(answer, WriteAnswer) and answer.requests == (1, 3)
        first, third = (decode_result(payload) for payload in answer.payloads)
        assert isinstance(first, SessionResult) and isinstance(third, SessionResult) and first.session < third.session
        assert host.replicas[GROUP].core.status().last == last + 1

    with_service(test)


def test_a_refusal_that_the_group_has_stored_is_told_as_such_each_time() -> None:
    async def test(service: ClientService, cluster: HostCluster) -> None:
        told = Told()
        service.received(told, replace(WRITE, requests=(1,), commands=(OPEN,)))
        await asyncio.sleep(1)
        (opened,) = told.messages
        assert isinstance(opened, WriteAnswer)
        session = decode_result(opened.payloads[0])
        assert isinstance(session, SessionResult)
        put = encode_command(Command(session.session, 1, 0, Put(b"k/x", b"1", lease=7)))
        outside = encode_command(Command(0, 0, 0, Put(b"k/x", b"1", lease=7)))
        for request in (2, 3):
            service.received(told, replace(WRITE, requests=(request,), commands=(put,)))
            await asyncio.sleep(1)
        service.received(told, replace(WRITE, requests=(4,), commands=(outside,)))
        await asyncio.sleep(1)
        refusals = [message for message in told.messages if isinstance(message, Refusal)]
        assert [(refusal.request, refusal.stored) for refusal in refusals] == [(2, True), (3, True), (4, False)]
        assert {(refusal.error, refusal.text) for refusal in refusals} == {("LeaseNotFound", refusals[0].text)}

    with_service(test)


def test_results_that_are_large_together_are_told_apart() -> None:
    """A message that has outgrown a frame would be dropped, at every retry anew."""

    async def test(service: ClientService, cluster: HostCluster) -> None:
        await (await cluster.client()).put("k/x", bytes(VALUE_BYTES_MAX))
        told = Told()
        read = encode_command(Command(0, 0, 0, Range(b"k/x")))
        service.received(told, WriteRequest(tuple(range(20)), GROUP, KEYSPACE, 1_000, b"", (read,) * 19 + (b"?",)))
        await asyncio.sleep(1)
        answers = [message for message in told.messages if isinstance(message, WriteAnswer)]
        assert sorted(request for answer in answers for request in answer.requests) == list(range(19))
        assert all(sum(map(len, answer.payloads[:-1])) < WRITE_ANSWER_BYTES_TARGET for answer in answers)
        assert [message.request for message in told.messages if isinstance(message, Refusal)] == [19]

    with_service(test)


def many(*queries: Query, applied: bool = False) -> ReadsRequest:
    return ReadsRequest(7, GROUP, KEYSPACE, 1_000, applied, tuple(map(encode_query, queries)))


@pytest.mark.parametrize("applied", [False, True])
def test_queries_are_answered_together_each_with_its_own_error(applied: bool) -> None:
    async def test(service: ClientService, cluster: HostCluster) -> None:
        await (await cluster.client()).put("k/x", "1")
        told = Told()
        queries = (Range(b"k/x"), Range(b"k/x", revision=1 << 40), Range(b"k/y"))
        service.received(told, many(*queries, applied=applied))
        await asyncio.sleep(1)
        (answer,) = told.messages
        assert isinstance(answer, ReadsAnswer)
        first, refused, last = answer.payloads
        assert [getattr(decode_result(payload), "count", None) for payload in (first, last)] == [1, 0]
        ((place, error, _),) = answer.errors
        assert (refused, place, error) == (b"", 1, "FutureRevision")
        assert (answer.age_ms is not None) == applied

    with_service(test)


def test_the_first_query_s_error_is_not_that_of_all() -> None:
    async def test(service: ClientService, _: HostCluster) -> None:
        told = Told()
        service.received(told, many(Range(b"k/x", revision=1 << 40), Range(b"k/x")))
        await asyncio.sleep(1)
        (answer,) = told.messages
        assert isinstance(answer, ReadsAnswer)
        assert [place for place, _, _ in answer.errors] == [0]
        assert [bool(payload) for payload in answer.payloads] == [False, True]

    with_service(test)


@pytest.mark.parametrize(
    "request_",
    [
        many(Range(b"k/x"), LeaseKeepAlive(1)),
        many(LockWait(b"k/l", 1, 1)),
        many(LeaseTimeToLive(1), applied=True),
        replace(many(Range(b"k/x")), queries=(encode_query(Range(b"k/x")), b"?")),
        replace(many(Range(b"k/x")), queries=(encode_query(Range(b"k/x")), bytes(QUERY_BYTES_MAX + 1))),
        replace(many(Range(b"k/x")), keyspace="other/"),
    ],
    ids=["renewal", "wait", "for the leader", "malformed", "huge", "keyspace"],
)
def test_with_one_query_that_does_not_belong_there_all_are_refused(request_: ReadsRequest) -> None:
    async def test(service: ClientService, _: HostCluster) -> None:
        told = Told()
        service.received(told, request_)
        (refusal,) = told.messages
        assert isinstance(refusal, Refusal) and refusal.error == "InvalidRequest"

    with_service(test)


def test_an_answer_that_grows_large_is_told_without_the_rest() -> None:
    async def test(service: ClientService, cluster: HostCluster) -> None:
        client = await cluster.client()
        await client.put("k/x", bytes(ANSWERS_BYTES_TARGET // 2))
        told = Told()
        service.received(told, many(*[Range(b"k/x")] * 5))
        await asyncio.sleep(1)
        (answer,) = told.messages
        assert isinstance(answer, ReadsAnswer) and len(answer.payloads) == 2

    with_service(test)


def test_what_is_told_of_locks_and_leases_counts_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(service: ClientService, cluster: HostCluster) -> None:
        client = await cluster.client()
        await client.execute("k/x", LeaseGrant(7, 60_000))
        await client.execute("k/x", LockAcquire(b"k/l", lease=7, request=1, value=bytes(5_000)))
        monkeypatch.setattr("isochrone.regions.state_service.ANSWERS_BYTES_TARGET", 8_000)
        for query in (LockQuery(b"k/l"), LeaseList()):
            told = Told()
            service.received(told, many(*[query] * 500))
            await asyncio.sleep(1)
            (answer,) = told.messages
            assert isinstance(answer, ReadsAnswer)
            assert sum(map(len, answer.payloads[:-1])) < 8_000

    with_service(test)


def test_queries_are_refused_while_much_waits_for_their_client() -> None:
    async def test(service: ClientService, _: HostCluster) -> None:
        told = Told()
        told.backlog_bytes = BACKLOG_BYTES_MAX + 1
        service.received(told, many(Range(b"k/x"), Range(b"k/y"), applied=True))
        (refusal,) = told.messages
        assert isinstance(refusal, Refusal) and refusal.error == "Unavailable"

    with_service(test)
