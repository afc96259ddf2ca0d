"""Messages per second and CPU per message of the transport, on loopback, in two processes.

`python bench/transport.py` prints one line for each scenario. Heartbeats are the smallest peer messages, so the figures
show the cost of the machinery; `turn` is how many of them one turn of the sender's loop sends.
"""

import argparse
import asyncio
import multiprocessing
import random
import time
from collections.abc import Awaitable, Callable
from multiprocessing.connection import Connection

from isochrone.errors import IsochroneError
from isochrone.ids import (
    ClusterId,
    GroupId,
    Incarnation,
    KeyspaceId,
    LogIndex,
    NodeId,
    StoreId,
    Term,
    Timestamp,
    ZoneId,
)
from isochrone.wire.admin_grpc import Links
from isochrone.wire.entries import make_entry
from isochrone.wire.messages import (
    FEATURE_LEVEL,
    PROTOCOL_VERSION,
    AppendRequest,
    EntryKind,
    Envelope,
    GroupMessage,
    Heartbeat,
    HeartbeatResponse,
    PeerHello,
)
from isochrone.wire.peers_grpc import GrpcTransport, PeerAddress
from isochrone.wire.server_grpc import NodeServer
from isochrone.wire.session import ClientHello, NodeHello, SessionMessage, WriteAnswer, WriteRequest
from isochrone.wire.session_client_grpc import connect
from isochrone.wire.sessions_grpc import Session
from isochrone.wire.shaper_os import Shaper
from isochrone.wire.shaping import LinkShape
from isochrone.wire.status import NodeStatus

GROUP = GroupId("g")


class BenchNode:
    """A node of the transport alone: it answers heartbeats and echoes writes."""

    def __init__(self, name: str, other: str, other_address: str) -> None:
        self.name = NodeId(name)
        self.other = NodeId(other)
        self.shaper = Shaper(random.Random(1))
        hello = PeerHello(PROTOCOL_VERSION, FEATURE_LEVEL, ClusterId("bench"), self.name, StoreId(name), Incarnation(1))
        peers = {self.other: PeerAddress(other_address, ZoneId(other))}
        self.transport = GrpcTransport(
            hello, ZoneId(name), peers, shaper=self.shaper, accept=lambda _: None, rng=random.Random(1)
        )
        node = NodeHello(PROTOCOL_VERSION, ClusterId("bench"), self.name, "r", name)
        self.server = NodeServer(node, shaper=self.shaper, transport=self.transport, sessions=self, admin=self)
        self.answers = 0
        self.progress = asyncio.Event()

    def receive(self, envelope: Envelope) -> None:
        replies = []
        for item in envelope.messages:
            match item.message:
                case Heartbeat(term=term, round=round_):
                    replies.append(GroupMessage(item.group, HeartbeatResponse(term, round_)))
                case AppendRequest(term=term):
                    replies.append(GroupMessage(item.group, HeartbeatResponse(term, 0)))
                case _:
                    self.answers += 1
                    self.progress.set()
        if replies:
            self.transport.send(envelope.sender, replies)

    def opened(self, session: Session) -> None:
        """See `SessionHandler`."""

    def received(self, session: Session, message: SessionMessage) -> None:
        if isinstance(message, WriteRequest):
            session.send(WriteAnswer(message.requests, self.name, 0, (b"",)))

    def closed(self, session: Session) -> None:
        """See `SessionHandler`."""

    def status(self) -> NodeStatus:
        raise AssertionError("the benchmark asks for none")

    def set_links(self, links: Links) -> None:
        self.shaper.set_links(links)

    def request_stop(self) -> None:
        raise AssertionError("the benchmark asks for none")


def serve(pipe: Connection, address: str, other_address: str) -> None:
    """The second process: answers until told to end, then says how much CPU it took."""

    async def run() -> None:
        node = BenchNode("b", "a", other_address)
        await node.server.start(address)
        node.transport.start(node.receive)
        pipe.send("up")
        loop = asyncio.get_running_loop()
        while (await loop.run_in_executor(None, pipe.recv)) == "cpu":
            pipe.send(time.process_time())
        await node.transport.close()
        await node.server.stop()
        node.shaper.close()

    asyncio.run(run())


async def timed(name: str, count: int, pipe: Connection, scenario: Callable[[], Awaitable[str]]) -> None:
    """Run a scenario of `count` messages there and as many back, and print what it took."""
    pipe.send("cpu")
    other_cpu_s = pipe.recv()
    cpu_s, began = time.process_time(), time.perf_counter()
    note = await scenario()
    elapsed_s, cpu_s = time.perf_counter() - began, time.process_time() - cpu_s
    pipe.send("cpu")
    other_cpu_s = pipe.recv() - other_cpu_s
    per_message = f"{cpu_s / count * 1e6:6.1f} + {other_cpu_s / count * 1e6:6.1f} us CPU"
    print(f"{name:42} {count / elapsed_s:9,.0f}/s  {per_message}  {note}", flush=True)


async def flood(node: BenchNode, message: GroupMessage, count: int, turn: int, window: int) -> str:
    """Send `count` messages, `turn` at a time, never more than `window` unanswered."""
    node.answers = 0
    sent = 0
    before = node.transport.counters()["peer_grpc_messages_written"]
    while node.answers < count:
        while sent < count and sent - node.answers + turn <= window:
            node.transport.send(node.other, [message] * turn)
            sent += turn
            await asyncio.sleep(0)
        node.progress.clear()
        if node.answers < count and (sent == count or sent - node.answers + turn > window):
            await node.progress.wait()
    writes = node.transport.counters()["peer_grpc_messages_written"] - before
    return f"{count / writes:.1f} messages per gRPC message"


async def sessions(address: str, count: int, window: int) -> str:
    """Echo `count` writes of 100 bytes over one session stream, `window` in flight."""
    answered = asyncio.Semaphore(window)
    connection = await connect(
        address, ClientHello(PROTOCOL_VERSION, "r", "z", "bench"), lambda _: answered.release(), ignore_end
    )
    try:
        for number in range(count):
            await answered.acquire()
            connection.send(WriteRequest((number,), GROUP, KeyspaceId("k"), 1000, b"", (bytes(100),)))
        for _ in range(window):
            await answered.acquire()
        writes = connection.counters()["session_grpc_messages_written"]
    finally:
        await connection.close()
    return f"{count / writes:.1f} messages per gRPC message"


def ignore_end(_: IsochroneError | None) -> None:
    """The connection of a scenario has ended."""


async def run(pipe: Connection, address: str, other_address: str, scale: float) -> None:
    """All scenarios, against a second process that is up."""
    node = BenchNode("a", "b", other_address)
    await node.server.start(address)
    node.transport.start(node.receive)
    heartbeat = GroupMessage(GROUP, Heartbeat(Term(5), LogIndex(1000), 7, LogIndex(900)))
    entry = make_entry(
        index=LogIndex(1), term=Term(1), kind=EntryKind.COMMANDS, timestamp=Timestamp(1), data=bytes(140)
    )
    append = GroupMessage(GROUP, AppendRequest(Term(5), LogIndex(1), Term(5), (entry,), LogIndex(1), LogIndex(0)))
    few, many = int(2000 * scale), int(60000 * scale) // 10 * 10
    await flood(node, heartbeat, 200, 1, 1)
    await timed("peer echo, 1 in flight", few, pipe, lambda: flood(node, heartbeat, few, 1, 1))
    await timed("peer echo, 256 in flight, turn 1", many, pipe, lambda: flood(node, heartbeat, many, 1, 256))
    await timed("peer echo, 2560 in flight, turn 10", many, pipe, lambda: flood(node, heartbeat, many, 10, 2560))
    await timed("appends of one entry, 256 in flight", many, pipe, lambda: flood(node, append, many, 1, 256))
    await timed("session echo, 1 in flight", few, pipe, lambda: sessions(other_address, few, 1))
    await timed("session echo, 64 in flight", many, pipe, lambda: sessions(other_address, many, 64))
    await timed("session echo, 256 in flight", many, pipe, lambda: sessions(other_address, many, 256))
    node.shaper.set_links({(ZoneId("a"), ZoneId("b")): LinkShape(delay_ms=5)})
    await timed("peer echo, 5 ms one way, 1 in flight", 200, pipe, lambda: flood(node, heartbeat, 200, 1, 1))
    await timed("peer echo, 5 ms one way, 1024 in flight", many, pipe, lambda: flood(node, heartbeat, many, 1, 1024))
    counters = node.shaper.counters()
    print(
        f"shaper lateness: mean {counters['shaper_lateness_us_mean']} us, max {counters['shaper_lateness_us_max']} us"
    )
    await node.transport.close()
    await node.server.stop()
    node.shaper.close()


def main() -> None:
    """Start the second process and run all scenarios against it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ports", nargs=2, type=int, default=(47311, 47312), help="two free ports on loopback")
    parser.add_argument("--scale", type=float, default=1.0, help="multiplies the number of messages")
    arguments = parser.parse_args()
    address, other_address = (f"127.0.0.1:{port}" for port in arguments.ports)
    context = multiprocessing.get_context("spawn")
    pipe, theirs = context.Pipe()
    process = context.Process(target=serve, args=(theirs, other_address, address))
    process.start()
    try:
        assert pipe.recv() == "up"
        asyncio.run(run(pipe, address, other_address, arguments.scale))
    finally:
        pipe.send("end")
        process.join()


if __name__ == "__main__":
    main()
