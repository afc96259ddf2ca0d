"""The contract of the `Transport` port (`isochrone.ports`), against every implementation.

To run the suite on another one, add its world to `WORLDS`: something that runs a scenario on two nodes `a` and `b`,
of which only `a` is up at first.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Protocol

import pytest
from wire_nodes import free_addresses, peer_hello, until, wire_node

from isochrone.ids import GroupId, KeyspaceId, LogIndex, NodeId, Term, Timestamp
from isochrone.ports import Transport
from isochrone.wire.entries import make_entry
from isochrone.wire.messages import AppendRequest, EntryKind, Envelope, GroupMessage, TimeoutNow

A, B = NodeId("a"), NodeId("b")


class Nodes(Protocol):
    """Two nodes, as a scenario sees them."""

    received: dict[NodeId, list[Envelope]]

    async def start(self, node: NodeId) -> Transport:
        """Bring a node up; what it receives is appended to `received`."""

    async def until(self, condition: Callable[[], bool]) -> None:
        """Let the world run until a condition holds."""


class GrpcNodes:
    """Nodes on loopback."""

    def __init__(self, stack: AsyncExitStack) -> None:
        self.received: dict[NodeId, list[Envelope]] = {}
        self._stack = stack
        self._addresses = dict(zip("ab", free_addresses(2), strict=True))

    async def start(self, node: NodeId) -> Transport:
        others = {name: address for name, address in self._addresses.items() if name != node}
        started = await self._stack.enter_async_context(wire_node(peer_hello(node), others, self._addresses[node]))
        self.received[node] = started.received
        return started.transport

    async def until(self, condition: Callable[[], bool]) -> None:
        await until(condition)


Scenario = Callable[[Nodes], Awaitable[None]]


def run_on_grpc(scenario: Scenario) -> None:
    async def run() -> None:
        async with AsyncExitStack() as stack:
            await scenario(GrpcNodes(stack))

    asyncio.run(run())


WORLDS: dict[str, Callable[[Scenario], None]] = {"grpc": run_on_grpc}


@pytest.fixture(params=WORLDS.values(), ids=WORLDS.keys())
def run(request: pytest.FixtureRequest) -> Callable[[Scenario], None]:
    runner: Callable[[Scenario], None] = request.param
    return runner


def message(number: int) -> GroupMessage:
    return GroupMessage(GroupId("g"), TimeoutNow(Term(number)))


def numbers(envelopes: list[Envelope]) -> list[int]:
    return [item.message.term for envelope in envelopes for item in envelope.messages]


def test_messages_keep_their_order_within_and_across_calls(run: Callable[[Scenario], None]) -> None:
    async def scenario(nodes: Nodes) -> None:
        await nodes.start(B)
        transport = await nodes.start(A)
        for first in range(0, 900, 3):
            transport.send(B, [message(first), message(first + 1), message(first + 2)])
            if first % 30 == 0:
                await asyncio.sleep(0)
        await nodes.until(lambda: len(numbers(nodes.received[B])) == 900)
        assert numbers(nodes.received[B]) == list(range(900))

    run(scenario)


def test_both_directions_carry_messages_of_the_sender_named(run: Callable[[Scenario], None]) -> None:
    async def scenario(nodes: Nodes) -> None:
        a, b = await nodes.start(A), await nodes.start(B)
        a.send(B, [message(1)])
        b.send(A, [message(2)])
        await nodes.until(lambda: bool(nodes.received[A] and nodes.received[B]))
        assert nodes.received[B] == [Envelope(A, peer_hello("a").store, peer_hello("a").incarnation, (message(1),))]
        assert nodes.received[A] == [Envelope(B, peer_hello("b").store, peer_hello("b").incarnation, (message(2),))]

    run(scenario)


def test_messages_to_a_node_that_is_away_are_dropped_and_later_ones_arrive(run: Callable[[Scenario], None]) -> None:
    async def scenario(nodes: Nodes) -> None:
        transport = await nodes.start(A)
        for number in range(20_000):
            transport.send(B, [message(number)])
            if number % 100 == 0:
                await asyncio.sleep(0)
        await nodes.start(B)
        last = 20_000

        def arrived() -> bool:
            nonlocal last
            last += 1
            transport.send(B, [message(last)])
            return bool(numbers(nodes.received[B])) and numbers(nodes.received[B])[-1] > 20_000

        await nodes.until(arrived)
        received = numbers(nodes.received[B])
        assert received == sorted(set(received))
        assert len(received) < 10_000

    run(scenario)


def test_unknown_nodes_and_oneself_are_no_error(run: Callable[[Scenario], None]) -> None:
    async def scenario(nodes: Nodes) -> None:
        transport = await nodes.start(A)
        await nodes.start(B)
        transport.send(NodeId("nobody"), [message(1)])
        transport.send(A, [message(2)])
        transport.send(B, [])
        transport.send(B, [message(3)])
        await nodes.until(lambda: bool(nodes.received[B]))
        assert numbers(nodes.received[B]) == [3]
        assert nodes.received[A] == []

    run(scenario)


def test_a_send_of_many_megabytes_arrives_whole(run: Callable[[Scenario], None]) -> None:
    entries = tuple(
        make_entry(
            index=LogIndex(number),
            term=Term(1),
            kind=EntryKind.COMMANDS,
            timestamp=Timestamp(number),
            keyspace=KeyspaceId("k"),
            data=bytes(1 << 20),
        )
        for number in (1, 2, 3)
    )
    request = AppendRequest(Term(1), LogIndex(0), Term(0), entries, LogIndex(0), LogIndex(0))

    async def scenario(nodes: Nodes) -> None:
        transport = await nodes.start(A)
        await nodes.start(B)
        transport.send(B, [message(0)])
        await nodes.until(lambda: bool(nodes.received[B]))
        transport.send(B, [GroupMessage(GroupId("g"), request)] * 5)
        await nodes.until(lambda: len(numbers(nodes.received[B])) == 6)
        items = [item for envelope in nodes.received[B] for item in envelope.messages]
        assert items[1:] == [GroupMessage(GroupId("g"), request)] * 5

    run(scenario)
