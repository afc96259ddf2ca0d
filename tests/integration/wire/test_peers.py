"""Two transports over real gRPC streams on loopback."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import grpc
import grpc.aio
import msgpack
import pytest
from wire_nodes import free_addresses, peer_hello, until, wire_node

from isochrone.errors import Unavailable
from isochrone.ids import GroupId, Incarnation, LogIndex, NodeId, Term, Timestamp, ZoneId
from isochrone.wire import peers_grpc
from isochrone.wire.admin_grpc import CHANNEL_OPTIONS
from isochrone.wire.codec import encode_frame, encode_hello
from isochrone.wire.entries import make_entry
from isochrone.wire.messages import AppendRequest, EntryKind, GroupMessage, TimeoutNow
from isochrone.wire.peers_grpc import QUEUE_BYTES_MAX
from isochrone.wire.shaping import LinkShape
from isochrone.wire.streams_grpc import PEER_METHOD, SERVICE

A, B = NodeId("a"), NodeId("b")
LINK = (ZoneId("a"), ZoneId("b"))


def message(number: int) -> GroupMessage:
    return GroupMessage(GroupId("g"), TimeoutNow(Term(number)))


def append(data: bytes) -> GroupMessage:
    entry = make_entry(index=LogIndex(1), term=Term(1), kind=EntryKind.COMMANDS, timestamp=Timestamp(1), data=data)
    request = AppendRequest(Term(1), LogIndex(0), Term(0), (entry,), LogIndex(0), LogIndex(0))
    return GroupMessage(GroupId("g"), request)


def test_ten_thousand_messages_take_few_grpc_messages() -> None:
    async def scenario() -> None:
        a, b = free_addresses(2)
        async with wire_node(peer_hello("b"), {"a": a}, b) as right, wire_node(peer_hello("a"), {"b": b}, a) as left:
            left.transport.send(B, [message(0)])
            await until(lambda: bool(right.received))
            for number in range(1, 10_000):
                left.transport.send(B, [message(number)])
                if number % 10 == 0:
                    await asyncio.sleep(0)
            await until(lambda: len(right.terms) == 10_000)
            assert right.terms == list(range(10_000))
            counters = left.transport.counters()
            assert counters["peer_messages_written"] == 10_000
            assert counters["peer_messages_dropped"] == 0
            # Ten messages a turn, and one gRPC message for every turn.
            assert counters["peer_grpc_messages_written"] <= 1_001

    asyncio.run(scenario())


def test_a_restarted_peer_is_found_again_and_known_by_its_new_incarnation() -> None:
    async def scenario() -> None:
        a, b = free_addresses(2)
        async with wire_node(peer_hello("a"), {"b": b}, a) as left:
            async with wire_node(peer_hello("b", incarnation=1), {"a": a}, b) as right:
                left.transport.send(B, [message(1)])
                right.transport.send(A, [message(2)])
                await until(lambda: bool(right.received and left.received))
            await until(lambda: not left.transport.counters()["peer_bytes_waiting"])
            async with wire_node(peer_hello("b", incarnation=2), {"a": a}, b) as right:
                restarted = time.monotonic()
                right.transport.send(A, [message(3)])

                def answered() -> bool:
                    left.transport.send(B, [message(4)])
                    return bool(right.received) and left.terms == [2, 3]

                await until(answered)
                assert time.monotonic() - restarted < 10
                assert [envelope.incarnation for envelope in left.received] == [1, 2]
                assert left.transport.counters()["peer_streams_opened"] == 2

    asyncio.run(scenario())


def test_a_peer_that_connects_is_connected_to_at_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(peers_grpc, "_BACKOFF_S_MIN", 3600.0)
    monkeypatch.setattr(peers_grpc, "_BACKOFF_S_MAX", 3600.0)

    async def scenario() -> None:
        a, b = free_addresses(2)
        async with wire_node(peer_hello("a"), {"b": b}, a) as left:
            await until(lambda: "no stream from a to b" in caplog.text)
            async with wire_node(peer_hello("b"), {"a": a}, b):
                await until(lambda: left.transport.counters()["peer_streams_opened"] == 1)

    with caplog.at_level(logging.WARNING):
        asyncio.run(scenario())


def test_what_waited_when_a_stream_broke_is_dropped_with_it() -> None:
    async def never_reads(_: object, context: Any) -> None:
        await context.read()
        await context.write(encode_hello(peer_hello("b")))
        await asyncio.Event().wait()

    async def scenario() -> None:
        a, b = free_addresses(2)
        async with wire_node(peer_hello("a"), {"b": b}, a) as left:
            async with peer_server(never_reads, b):
                await until(lambda: left.transport.counters()["peer_streams_opened"] == 1)
                for _ in range(20):
                    left.transport.send(B, [append(bytes(1 << 20))])
                    await asyncio.sleep(0)
                await until(lambda: left.transport.counters()["peer_bytes_waiting"] > 8 << 20)
            await until(lambda: left.transport.counters()["peer_bytes_waiting"] == 0)
            assert left.transport.counters()["peer_messages_dropped"] > 8
            async with wire_node(peer_hello("b"), {"a": a}, b) as right:
                left.transport.send(B, [message(77)])
                await until(lambda: bool(right.received))
                assert right.terms == [77]

    asyncio.run(scenario())


@asynccontextmanager
async def peer_server(handler: Any, address: str) -> AsyncIterator[str]:
    """A peer whose handler of peer streams is the test's own. Yields its address."""
    server = grpc.aio.server(options=CHANNEL_OPTIONS)
    handlers = {"Peer": grpc.stream_stream_rpc_method_handler(handler)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    port = server.add_insecure_port(address)
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)


def test_a_replaced_process_is_refused_and_reads_why(caplog: pytest.LogCaptureFixture) -> None:
    why = "a knows incarnation 7 of b; 6 has been replaced"

    def is_told(pair: str) -> bool:
        lines = [record.getMessage() for record in caplog.records]
        return any(line.startswith(f"no stream from {pair}") and line.endswith(why) for line in lines)

    async def scenario() -> None:
        a, b = free_addresses(2)
        async with wire_node(peer_hello("a"), {"b": b}, a) as left:
            left.highest_seen[B] = Incarnation(7)
            async with wire_node(peer_hello("b", incarnation=6), {"a": a}, b) as zombie:
                zombie.transport.send(A, [message(1)])
                await until(lambda: is_told("b to a") and is_told("a to b"))
                assert left.transport.counters()["peer_streams_refused"] >= 1
                assert left.transport.counters()["peer_streams_opened"] == 0
            assert left.received == []

    with caplog.at_level(logging.WARNING):
        asyncio.run(scenario())


def test_another_cluster_and_another_node_are_refused(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        a, b, c = free_addresses(3)
        stranger = peer_hello("b", cluster="other")
        async with (
            wire_node(peer_hello("a"), {"b": b, "d": c}, a) as left,
            wire_node(stranger, {"a": a}, b) as foreign,
            wire_node(peer_hello("c"), {}, c),
        ):
            await until(lambda: "a belongs to cluster c, b to other" in caplog.text)
            await until(lambda: "b belongs to cluster other, a to c" in caplog.text)
            await until(lambda: "c answers at its address" in caplog.text)
            foreign.transport.send(A, [message(1)])
            assert left.transport.counters()["peer_streams_accepted"] == 0
            assert left.received == foreign.received == []

    with caplog.at_level(logging.WARNING):
        asyncio.run(scenario())


@asynccontextmanager
async def raw_stream(address: str, hello: bytes) -> AsyncIterator[Any]:
    """A peer stream in the hands of the test."""
    async with grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS) as channel:
        call = channel.stream_stream(PEER_METHOD)()
        await call.write(hello)
        yield call
        call.cancel()


async def status_of(call: Any) -> tuple[grpc.StatusCode, str]:
    """How a stream ends."""
    try:
        while await call.read() is not grpc.aio.EOF:
            pass
    except grpc.aio.AioRpcError:
        pass
    return await call.code(), await call.details()


DAMAGED = bytearray(encode_frame(Incarnation(1), [append(b"some data")]))
DAMAGED[-8] ^= 1


@pytest.mark.parametrize(
    ("frame", "text"),
    [
        (b"\xc1", "malformed peer frame of 1 bytes"),
        (msgpack.packb([1, [2, "g", "no term", True, True]]), "malformed peer frame of 16 bytes"),
        (encode_frame(Incarnation(1), [message(1)])[:-1], "end within one"),
        (encode_frame(Incarnation(2), [message(1)]), "another incarnation than its stream"),
        (bytes(DAMAGED), "does not match its checksum"),
    ],
)
def test_bytes_that_are_no_frame_end_the_stream_and_only_it(frame: bytes, text: str) -> None:
    async def scenario() -> None:
        a, c = free_addresses(2)
        async with wire_node(peer_hello("a"), {"c": c}, a) as node, wire_node(peer_hello("c"), {"a": a}, c) as other:
            async with raw_stream(a, encode_hello(peer_hello("b"))) as call:
                await call.write(encode_frame(Incarnation(1), [message(1)]))
                await call.write(frame)
                code, details = await status_of(call)
                assert code is grpc.StatusCode.INVALID_ARGUMENT
                assert text in details
            assert node.terms == [1]
            other.transport.send(A, [message(2)])
            await until(lambda: node.terms == [1, 2])
            assert node.transport.counters()["peer_frames_malformed"] == 1

    asyncio.run(scenario())


def test_a_stream_without_a_hello_is_refused() -> None:
    async def scenario() -> None:
        async with wire_node(peer_hello("a"), {}) as node, raw_stream(node.address, b"hello") as call:
            code, details = await status_of(call)
            assert (code, details) == (
                grpc.StatusCode.FAILED_PRECONDITION,
                "the first frame of a peer stream is not a hello",
            )

    asyncio.run(scenario())


def test_a_newer_stream_of_a_peer_ends_the_older_one() -> None:
    async def scenario() -> None:
        async with wire_node(peer_hello("a"), {}) as node:
            hello = peer_hello("b")
            newer = replace(hello, incarnation=Incarnation(2))
            async with raw_stream(node.address, encode_hello(hello)) as first:
                await first.read()
                async with raw_stream(node.address, encode_hello(newer)) as second:
                    await second.read()
                    await first.write(encode_frame(hello.incarnation, [message(1)]))
                    code, details = await status_of(first)
                    assert (code, details) == (grpc.StatusCode.ABORTED, "a newer stream has taken over")
                    await second.write(encode_frame(newer.incarnation, [message(2)]))
                    await until(lambda: node.terms == [2])

    asyncio.run(scenario())


def test_frames_take_the_delay_of_their_link() -> None:
    async def scenario() -> None:
        a, b = free_addresses(2)
        links = {LINK: LinkShape(delay_ms=40)}
        async with (
            wire_node(peer_hello("b"), {"a": a}, b) as right,
            wire_node(peer_hello("a"), {"b": b}, a, links) as left,
        ):
            left.transport.send(B, [message(0)])
            await until(lambda: bool(right.received))
            for number in range(1, 4):
                sent = time.monotonic()
                left.transport.send(B, [message(number)])
                await until(lambda number=number: right.terms[-1] == number)
                assert time.monotonic() - sent >= 0.040

    asyncio.run(scenario())


def test_a_cut_link_passes_nothing_and_heals_without_a_new_stream() -> None:
    async def scenario() -> None:
        a, b = free_addresses(2)
        async with wire_node(peer_hello("b"), {"a": a}, b) as right, wire_node(peer_hello("a"), {"b": b}, a) as left:
            left.transport.send(B, [message(1)])
            await until(lambda: right.terms == [1])
            left.shaper.set_links({LINK: LinkShape(cut=True)})
            left.transport.send(B, [message(2)])
            right.transport.send(A, [message(3)])
            await until(lambda: left.terms == [3])
            await until(lambda: left.shaper.counters()["shaper_frames_cut"] == 1)
            left.shaper.set_links({LINK: LinkShape()})
            left.transport.send(B, [message(4)])
            await until(lambda: right.terms == [1, 4])
            assert left.transport.counters()["peer_streams_opened"] == 1

    asyncio.run(scenario())


def test_a_peer_that_stops_reading_costs_bounded_memory_and_gets_the_newest() -> None:
    """A stopped process sends no reset: its stream stays up and takes nothing."""
    reading = asyncio.Event()
    taken: list[bytes] = []

    async def stopped_peer(_: object, context: Any) -> None:
        await context.read()
        await context.write(encode_hello(peer_hello("b")))
        await reading.wait()
        while (data := await context.read()) is not grpc.aio.EOF:
            taken.append(data)

    async def scenario() -> None:
        async with (
            peer_server(stopped_peer, "127.0.0.1:0") as address,
            wire_node(peer_hello("a"), {"b": address}) as node,
        ):
            await until(lambda: node.transport.counters()["peer_streams_opened"] == 1)
            megabyte = bytes(1 << 20)
            for _ in range((QUEUE_BYTES_MAX >> 20) + 16):
                node.transport.send(B, [append(megabyte)])
                await asyncio.sleep(0)
            node.transport.send(B, [append(b"the newest")])
            await until(lambda: node.transport.counters()["peer_messages_dropped"] > 0)
            assert node.transport.counters()["peer_bytes_waiting"] <= QUEUE_BYTES_MAX
            reading.set()
            await until(lambda: bool(taken) and b"the newest" in taken[-1])

    asyncio.run(scenario())


def test_a_port_in_use_is_one_clear_sentence() -> None:
    async def scenario() -> None:
        async with wire_node(peer_hello("a"), {}) as node:
            with pytest.raises(Unavailable) as caught:
                async with wire_node(peer_hello("b"), {}, node.address):
                    pass
            assert str(caught.value) == f"cannot listen on {node.address}: Address already in use"

    asyncio.run(scenario())


def test_nothing_is_left_running() -> None:
    async def scenario() -> None:
        a, b = free_addresses(2)
        async with wire_node(peer_hello("a"), {"b": b}, a) as left, wire_node(peer_hello("b"), {"a": a}, b) as right:
            left.transport.send(B, [message(1)])
            await until(lambda: bool(right.received))
        own = asyncio.current_task()
        mine = [task for task in asyncio.all_tasks() if task is not own and "isochrone" in repr(task.get_coro())]
        assert mine == []

    asyncio.run(scenario())
