"""The admin channel on loopback."""

import asyncio
import socket

import pytest
from wire_nodes import free_addresses, peer_hello, until, wire_node

from isochrone.errors import ConnectionLost, DeadlineExceeded, InvalidRequest, NotLeader, Unavailable
from isochrone.ids import GroupId, NodeId, ZoneId
from isochrone.wire.admin_grpc import AdminClient, decode_links, encode_links
from isochrone.wire.operations import MoveLeader, Operation
from isochrone.wire.shaping import LinkShape

LINK = (ZoneId("a"), ZoneId("b"))


def test_status_and_links() -> None:
    async def scenario() -> None:
        async with wire_node(peer_hello("a"), {}) as node, AdminClient(node.address) as admin:
            assert await admin.status(5) == node.status()
            shape = LinkShape(delay_ms=12.5, jitter_ms=1, loss=0.1, cut=True)
            await admin.set_links({LINK: shape}, 5)
            assert node.shaper.links() == {LINK: shape}

    asyncio.run(scenario())


def test_a_node_that_stops_at_once_still_answers() -> None:
    async def scenario() -> None:
        async with wire_node(peer_hello("a"), {}) as node, AdminClient(node.address) as admin:
            stopping: list[asyncio.Task[None]] = []
            node.on_stop = lambda: stopping.append(asyncio.create_task(node.server.stop()))
            await admin.stop(5)
            await until(lambda: bool(stopping))
            await stopping[0]
            with pytest.raises(Unavailable):
                await admin.status(5)

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "shape",
    [LinkShape(delay_ms=-1), LinkShape(jitter_ms=float("nan")), LinkShape(loss=1.5), LinkShape(delay_ms=float("inf"))],
)
def test_impossible_links_are_refused_and_change_nothing(shape: LinkShape) -> None:
    async def scenario() -> None:
        async with wire_node(peer_hello("a"), {}) as node, AdminClient(node.address) as admin:
            with pytest.raises(InvalidRequest, match=r"link a to b: .* is impossible"):
                await admin.set_links({(LINK[1], LINK[0]): LinkShape(5), LINK: shape}, 5)
            assert node.shaper.links() == {}

    asyncio.run(scenario())


def test_links_come_back_as_they_were() -> None:
    links = {LINK: LinkShape(1.5, 2.5, 0.25, True), (LINK[1], LINK[0]): LinkShape()}
    assert decode_links(encode_links(links)) == links


@pytest.mark.parametrize(
    "data", [b"", b"\xc1", b"\x01", b"\x91\x01", b"\x91\x95\x01\x02\x03\x04\x05", b"\x91\x96\x01\x02\x03\x04\x05\xc3"]
)
def test_malformed_links_are_refused(data: bytes) -> None:
    with pytest.raises(InvalidRequest, match="malformed links"):
        decode_links(data)


def test_nobody_there_is_unavailable_and_says_where() -> None:
    async def scenario() -> None:
        (address,) = free_addresses(1)
        async with AdminClient(address) as admin:
            with pytest.raises(Unavailable, match=f"node at {address} does not answer"):
                await admin.status(5)

    asyncio.run(scenario())


def test_a_stopped_node_is_noticed_at_the_deadline() -> None:
    async def scenario() -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            address = f"127.0.0.1:{silent.getsockname()[1]}"
            async with AdminClient(address) as admin:
                with pytest.raises(DeadlineExceeded, match=rf"node at {address} did not answer Status within 0\.1 s"):
                    await admin.status(0.1)

    asyncio.run(scenario())


OPERATION = MoveLeader(GroupId("g"), NodeId("b"))


def test_an_operation_arrives_whole_and_its_error_comes_back_as_it_was() -> None:
    asked: list[Operation] = []

    async def refuse(operation: Operation) -> None:
        asked.append(operation)
        if len(asked) == 2:
            raise NotLeader(operation.group, NodeId("c"))

    async def scenario() -> None:
        async with wire_node(peer_hello("a"), {}) as node, AdminClient(node.address) as admin:
            node.on_operation = refuse
            await admin.operate(OPERATION, 5)
            with pytest.raises(NotLeader) as refused:
                await admin.operate(OPERATION, 5)
            assert refused.value.leader == "c"

    asyncio.run(scenario())
    assert asked == [OPERATION, OPERATION]


def test_an_operation_that_was_never_sent_is_rejected_and_one_without_an_answer_is_indeterminate() -> None:
    async def scenario() -> None:
        (nobody,) = free_addresses(1)
        async with AdminClient(nobody) as admin:
            with pytest.raises(Unavailable, match="does not answer"):
                await admin.operate(OPERATION, 5)
        began = asyncio.Event()

        async def never(_: Operation) -> None:
            began.set()
            await asyncio.Event().wait()

        async with wire_node(peer_hello("a"), {}) as node, AdminClient(node.address) as admin:
            node.on_operation = never
            with pytest.raises(DeadlineExceeded, match=r"did not answer within 0\.2 s"):
                await admin.operate(OPERATION, 0.2)
            began.clear()
            answer = asyncio.create_task(admin.operate(OPERATION, 20))
            await began.wait()
            await node.server.stop()
            with pytest.raises(ConnectionLost, match="broke before it answered"):
                await answer

    asyncio.run(scenario())
