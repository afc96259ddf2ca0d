"""A cluster of one group that speaks the session protocol in virtual time, and misbehaves as a test wants."""

import asyncio
import random
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field, replace
from typing import Any

from virtual_time import run_virtual

from isochrone.client import Client, Statistics
from isochrone.client.connection import Closed, Received
from isochrone.errors import Unavailable
from isochrone.ids import ClusterId, GroupId, KeyspaceId, NodeId, Term
from isochrone.wire.commands import (
    CLOSE_SESSION,
    OPEN_SESSION,
    CloseSession,
    Command,
    OpenSession,
    decode_command,
    decode_query,
    encode_result,
)
from isochrone.wire.kv import DELETE, PUT, RANGE, TXN, DeleteRange, PackedResult, Put, Range, Target, Txn
from isochrone.wire.records import decode_record, set_record
from isochrone.wire.session import (
    Answer,
    ClientHello,
    DirectoryRequest,
    DirectoryResponse,
    KeyspaceRoute,
    LeaderChanged,
    NodeHello,
    Ping,
    Pong,
    ReadRequest,
    ReadsAnswer,
    ReadsRequest,
    Refusal,
    SessionMessage,
    WriteAnswer,
    WriteRequest,
)

DELAY_S = 0.05
GROUP = GroupId("g")
KEYSPACE = KeyspaceId("app/")


@dataclass
class State:
    """What all nodes agree on: the applied state of the group."""

    rows: dict[bytes, bytes] = field(default_factory=dict)
    """Record of each key."""
    sessions: dict[int, dict[int, PackedResult]] = field(default_factory=dict)
    marks: dict[int, int] = field(default_factory=dict)
    revision: int = 0
    opened: int = 0
    effects: list[Command] = field(default_factory=list)
    """Commands that were executed, each once."""

    def apply(self, command: Command) -> PackedResult | None:
        """The result, or None for an unknown session or a sequence that was given up."""
        match command.operation:
            case OpenSession():
                self.opened += 1
                self.sessions[self.opened] = {}
                return (OPEN_SESSION, self.revision, self.revision, self.opened)
            case CloseSession():
                self.sessions.pop(command.session, None)
                return (CLOSE_SESSION, self.revision, self.revision, 0)
        results = self.sessions.get(command.session)
        if results is None or command.sequence <= self.marks.get(command.session, 0):
            return None
        mark = self.marks[command.session] = max(command.acknowledged, self.marks.get(command.session, 0))
        for sequence in [sequence for sequence in results if sequence <= mark]:
            del results[sequence]
        if command.sequence not in results:
            results[command.sequence] = self._execute(command)
        return results[command.sequence]

    def _execute(self, command: Command) -> PackedResult:
        self.effects.append(command)
        return self._run(command.operation)

    def _run(self, operation: object) -> PackedResult:
        match operation:
            case Put(key, value):
                self._put(key, value)
                return self._result(PUT, None)
            case DeleteRange(key):
                found = self.rows.pop(key, None)
                self.revision += found is not None
                return self._result(DELETE, int(found is not None), [])
            case Range():
                return self.read(operation)
            case Txn((compare,), success, failure):
                held = decode_record(self.rows[compare.key]) if compare.key in self.rows else None
                by_value = compare.target is Target.VALUE
                holds = (held is not None and held.value == compare.value) if by_value else held is None
                return self._result(TXN, holds, [self._run(item) for item in (success if holds else failure)])
        raise AssertionError(operation)

    def read(self, query: Range) -> PackedResult:
        found = [self.rows[query.key]] if query.key in self.rows else []
        return self._result(RANGE, len(found), False, found)

    def _put(self, key: bytes, value: bytes) -> None:
        self.revision += 1
        old = decode_record(self.rows[key]) if key in self.rows else None
        self.rows[key] = set_record(
            key,
            value,
            revision=self.revision,
            place=0,
            created=old.create_revision if old else self.revision,
            version=old.version + 1 if old else 1,
            timestamp=self.revision * 10,
            lease=0,
        )

    def _result(self, tag: int, *rest: object) -> PackedResult:
        return (tag, self.revision, self.revision * 10, *rest)


class Stream:
    """One open stream, client's and node's end. `cut` loses every frame in both directions without a reset."""

    def __init__(self, node: "Node", received: Received, closed: Closed) -> None:
        self._loop = asyncio.get_running_loop()
        self._node = node
        self._received = received
        self._closed = closed
        self.node = NodeHello(1, node.cluster.identity, node.name, "r", "z")
        self.is_open = True

    def send(self, message: SessionMessage) -> None:
        self._loop.call_later(DELAY_S, self._arrive, message, not self._node.cut)

    def _arrive(self, message: SessionMessage, carried: bool) -> None:
        if carried and self.is_open and not self._node.cut:
            self._node.received(self, message)

    def push(self, message: SessionMessage) -> None:
        """Node to client."""
        self._loop.call_later(DELAY_S, self._deliver, message, not self._node.cut)

    def _deliver(self, message: SessionMessage, carried: bool) -> None:
        if carried and self.is_open and not self._node.cut:
            self._received(message)

    def reset(self) -> None:
        """The connection breaks, and both ends notice."""
        self.is_open = False
        self._node.streams.remove(self)
        self._closed(None)

    async def close(self) -> None:
        if self.is_open:
            self.is_open = False
            self._node.streams.remove(self)


Rule = Callable[["Node", Stream, WriteRequest | ReadRequest | ReadsRequest], None]
"""What a node does with one request instead of the usual."""


class Node:
    """One node. It believes `term` and `leader` until told otherwise."""

    def __init__(self, cluster: "Cluster", name: str, role: str) -> None:
        self.cluster = cluster
        self.name = NodeId(name)
        self.address = f"{name}:1"
        self.role = role
        self.streams: list[Stream] = []
        self.requests: list[WriteRequest | ReadRequest | ReadsRequest] = []
        self.rules: deque[Rule] = deque()
        self.cut = False
        self.refuses_connections = False
        self.connections_that_die_early = 0
        self.directory_requests_lost = 0
        self.tells_at_once = False
        """Its first messages come together with its greeting."""
        self.term, self.leader = Term(0), None
        self.pings = 0

    def received(self, stream: Stream, message: SessionMessage) -> None:
        match message:
            case Ping(request):
                self.pings += 1
                self.tell(stream)
                stream.push(Pong(request))
            case DirectoryRequest() if self.directory_requests_lost:
                self.directory_requests_lost -= 1
            case DirectoryRequest(request):
                stream.push(DirectoryResponse(request, self.cluster.routes))
            case WriteRequest(requests=requests, commands=commands):
                for number, command in zip(requests, commands, strict=True):
                    self._handle(stream, replace(message, requests=(number,), commands=(command,)))
            case ReadRequest() | ReadsRequest():
                self._handle(stream, message)
            case _:
                raise AssertionError(message)

    def _handle(self, stream: Stream, message: WriteRequest | ReadRequest | ReadsRequest) -> None:
        """A rule concerns one command or query."""
        self.requests.append(message)
        rule = self.rules.popleft() if self.rules else serve
        rule(self, stream, message)

    def tell(self, stream: Stream) -> None:
        stream.push(LeaderChanged(GROUP, self.term, self.leader))

    def believe(self, term: int, leader: str | None, *, push: bool = True) -> None:
        """This node learns who leads."""
        self.term, self.leader = Term(term), None if leader is None else NodeId(leader)
        if push:
            for stream in self.streams:
                self.tell(stream)

    def commands(self) -> list[Command]:
        """Writes received, without those about sessions."""
        commands = [
            decode_command(request.commands[0]) for request in self.requests if isinstance(request, WriteRequest)
        ]
        return [command for command in commands if not isinstance(command.operation, OpenSession | CloseSession)]


def serve(node: Node, stream: Stream, message: WriteRequest | ReadRequest | ReadsRequest) -> None:
    """Execute and answer, as a leader does; refuse otherwise."""
    if node.leader != node.name:
        refuse("NotLeader", node.leader)(node, stream, message)
        return
    state = node.cluster.state
    if isinstance(message, ReadsRequest):
        payloads = tuple([encode_result(state.read(decode_query(query))) for query in message.queries])
        stream.push(ReadsAnswer(message.request, node.name, state.revision, None, payloads, ()))
        return
    if isinstance(message, ReadRequest):
        payload = encode_result(state.read(decode_query(message.query)))
        stream.push(Answer(message.request, node.name, state.revision, payload))
        return
    result = state.apply(decode_command(message.commands[0]))
    if result is None:
        refuse("SessionExpired")(node, stream, message)
    else:
        stream.push(WriteAnswer(message.requests, node.name, state.revision, (encode_result(result),)))


def refuse(error: str, leader: str | None = None, *, stored: bool = False) -> Rule:
    """Refuse without executing, or tell a refusal that the group has stored."""

    def rule(node: Node, stream: Stream, message: WriteRequest | ReadRequest | ReadsRequest) -> None:
        hint = None if leader is None else NodeId(leader)
        request = message.requests[0] if isinstance(message, WriteRequest) else message.request
        stream.push(Refusal(request, node.name, error, "as the test wants", hint, stored))

    return rule


def lose_request(node: Node, stream: Stream, message: WriteRequest | ReadRequest | ReadsRequest) -> None:
    """The request never came."""


def lose_answer(node: Node, stream: Stream, message: WriteRequest | ReadRequest | ReadsRequest) -> None:
    """Execute, but the answer never arrives."""
    if isinstance(message, WriteRequest):
        node.cluster.state.apply(decode_command(message.commands[0]))


def answer_twice(node: Node, stream: Stream, message: WriteRequest | ReadRequest | ReadsRequest) -> None:
    """The answer arrives two times."""
    serve(node, stream, message)
    serve(node, stream, message)


def execute_and_refuse(error: str) -> Rule:
    """Execute, and answer with an error that leaves that open."""

    def rule(node: Node, stream: Stream, message: WriteRequest | ReadRequest | ReadsRequest) -> None:
        lose_answer(node, stream, message)
        refuse(error)(node, stream, message)

    return rule


class Cluster:
    """Nodes a, b and c of one group; c is a witness. Also the connector that clients use to reach them."""

    def __init__(self) -> None:
        self.identity = ClusterId("cluster")
        self.state = State()
        self.nodes = {name: Node(self, name, role) for name, role in [("a", "full"), ("b", "full"), ("c", "witness")]}
        self.connects = 0
        replicas = tuple((node.name, node.address, "r", "z", node.role) for node in self.nodes.values())
        self.routes = (
            KeyspaceRoute(KEYSPACE, KEYSPACE.encode(), GROUP, replicas),
            KeyspaceRoute(KeyspaceId("other/"), b"other/", GROUP, replicas),
        )
        self.elect("a", 1)

    def __getitem__(self, name: str) -> Node:
        return self.nodes[name]

    async def __call__(self, address: str, hello: ClientHello, received: Received, closed: Closed) -> Stream:
        self.connects += 1
        await asyncio.sleep(2 * DELAY_S)
        node = next((node for node in self.nodes.values() if node.address == address), None)
        if node is None or node.refuses_connections:
            raise Unavailable(f"connection to {address} refused")
        if node.cut:
            await asyncio.get_running_loop().create_future()
        stream = Stream(node, received, closed)
        node.streams.append(stream)
        if node.connections_that_die_early:
            node.connections_that_die_early -= 1
            stream.reset()
        elif node.tells_at_once:
            received(LeaderChanged(GROUP, node.term, node.leader))
        else:
            node.tell(stream)
        return stream

    def elect(self, leader: str | None, term: int, *, told: str = "abc") -> None:
        """The nodes in `told` learn who leads in a term."""
        for name in told:
            self.nodes[name].believe(term, leader)

    async def client(self, **options: Any) -> Client:
        """A client of this cluster, connected through node b."""
        options = {"endpoints": ["b:1"], "region": "r", "zone": "z", "rng": random.Random(7)} | options
        return await Client.connect(options.pop("endpoints"), connector=self, **options)


def run_scenario(scenario: Callable[[Cluster], Coroutine[Any, Any, None]]) -> None:
    """Run a scenario against a fresh cluster in virtual time; nothing may be left over or have failed unseen."""
    unseen: list[dict[str, Any]] = []

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: unseen.append(context))
        await scenario(Cluster())
        leftover = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        assert leftover == []

    run_virtual(main())
    assert unseen == []


def values(cluster: Cluster) -> list[Any]:
    """What puts set, in the order of their execution."""
    return [command.operation.value for command in cluster.state.effects]  # type: ignore[union-attr]


async def started(client: Client, cluster: Cluster) -> Statistics:
    """A session is open and all connections are up, so that what follows is only about the next call."""
    await client.put("app/start", "start")
    cluster.state.effects.clear()
    return client.statistics()


def now() -> float:
    """Virtual time, in seconds."""
    return asyncio.get_running_loop().time()
