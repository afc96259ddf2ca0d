"""What idle groups cost a node: CPU and messages, with and without quiescence.

    .venv/bin/python bench/idle_groups.py [--groups 1000] [--seconds 20]

Three nodes in three processes, each with every group; a third of the groups is led by each. Durable stores in a
temporary directory, gRPC streams on loopback, heartbeats every 100 ms, T = 1 s. Measured once all groups have elected
their leaders, and with quiescence once all of them sleep.
"""

import argparse
import asyncio
import multiprocessing
import random
import tempfile
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from isochrone.clocks.system_os import SystemClock
from isochrone.ids import (
    NS_PER_MS,
    ClusterId,
    GroupId,
    KeyspaceId,
    Nanos,
    NodeId,
    ReplicaRole,
    StoreId,
    ZoneId,
)
from isochrone.node.service import ClientService
from isochrone.regions.host import Host
from isochrone.regions.loading import GroupSettings
from isochrone.regions.raft.config import RaftConfig
from isochrone.regions.state.families import HANDLERS
from isochrone.regions.storage.directory_os import bootstrap_store, open_store
from isochrone.wire.admin_grpc import Links
from isochrone.wire.messages import FEATURE_LEVEL, PROTOCOL_VERSION, Configuration, Member, PeerHello
from isochrone.wire.peers_grpc import GrpcTransport, PeerAddress
from isochrone.wire.server_grpc import NodeServer
from isochrone.wire.session import NodeHello
from isochrone.wire.shaper_os import Shaper
from isochrone.wire.status import NodeStatus

CLUSTER = ClusterId("bench")
NODES = [NodeId("a"), NodeId("b"), NodeId("c")]
HEARTBEAT_NS, ELECTION_TIMEOUT_NS = Nanos(100 * NS_PER_MS), Nanos(1_000 * NS_PER_MS)
CLOCK_BOUND_NS = 50 * NS_PER_MS
SETTLE_S_MAX = 300.0


@dataclass(frozen=True, slots=True)
class Plan:
    """What one process is to run."""

    node: NodeId
    addresses: dict[NodeId, str]
    directory: Path
    groups: int
    quiescence: bool


@dataclass(frozen=True, slots=True)
class Sample:
    """A process's counters at one moment."""

    time_s: float
    cpu_s: float
    messages: int
    grpc_messages: int
    elections: int


class NoAdmin:
    """The benchmark asks its nodes for nothing."""

    def status(self) -> NodeStatus:
        raise AssertionError("the benchmark asks for none")

    def set_links(self, links: Links) -> None:
        raise AssertionError("the benchmark asks for none")

    def request_stop(self) -> None:
        raise AssertionError("the benchmark asks for none")


class BenchNode:
    """One node with its groups."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        members = tuple(Member(node, StoreId(node), ReplicaRole.FULL) for node in NODES)
        names = [GroupId(f"group-{number}") for number in range(plan.groups)]
        store_id = StoreId(plan.node)
        bootstrap_store(plan.directory, CLUSTER, plan.node, store_id, dict.fromkeys(names, Configuration(members)))
        self.store = open_store(plan.directory, CLUSTER, plan.node, store_id)
        self.shaper = Shaper(random.Random(1))
        hello = PeerHello(
            PROTOCOL_VERSION, FEATURE_LEVEL, CLUSTER, plan.node, store_id, self.store.identity.incarnation
        )
        peers = {node: PeerAddress(plan.addresses[node], ZoneId(node)) for node in NODES if node != plan.node}
        rng = random.Random(plan.node)
        self.transport = GrpcTransport(
            hello, ZoneId(plan.node), peers, shaper=self.shaper, accept=lambda _: None, rng=rng
        )
        service = ClientService(plan.node, ())
        self.host = Host(
            self.store,
            self.transport,
            SystemClock(lambda: CLOCK_BOUND_NS, bound_max_ns=CLOCK_BOUND_NS),
            {name: self._settings(name, number) for number, name in enumerate(names)},
            handlers=HANDLERS,
            rng=rng,
            offset_max_ns=250 * NS_PER_MS,
            leader_changed=service.leader_changed,
        )
        service.attach(self.host)
        node_hello = NodeHello(PROTOCOL_VERSION, CLUSTER, plan.node, "r", plan.node)
        self.server = NodeServer(
            node_hello, shaper=self.shaper, transport=self.transport, sessions=service, admin=NoAdmin()
        )

    def _settings(self, group: GroupId, number: int) -> GroupSettings:
        raft = RaftConfig(
            group=group,
            node=self.plan.node,
            heartbeat_ns=HEARTBEAT_NS,
            election_timeout_ns=ELECTION_TIMEOUT_NS,
            quiesce_after_ns=ELECTION_TIMEOUT_NS if self.plan.quiescence else None,
        )
        first = NODES[number % len(NODES)] == self.plan.node
        return GroupSettings(raft=raft, keyspaces=(KeyspaceId(f"{group}/"),), campaign_first=first)

    async def start(self) -> None:
        """Listen, and begin."""
        await self.server.start(self.plan.addresses[self.plan.node])
        await self.host.start()

    async def settled(self) -> None:
        """Return when every group has a leader, and sleeps if it may."""
        async with asyncio.timeout(SETTLE_S_MAX):
            while not all(  # noqa: ASYNC110  A host tells nobody that a group fell asleep.
                replica.leader is not None and replica.core.quiescent is self.plan.quiescence
                for replica in self.host.replicas.values()
            ):
                await asyncio.sleep(0.25)

    def sample(self) -> Sample:
        """The counters now."""
        counters = self.transport.counters()
        return Sample(
            time.perf_counter(),
            time.process_time(),
            counters["peer_messages_written"],
            counters["peer_grpc_messages_written"],
            self.host.counters["raft_became_leader"],
        )

    async def stop(self) -> None:
        """End in an orderly way."""
        await self.transport.close()
        await self.host.stop()
        await self.server.stop()
        await self.store.close()
        self.shaper.close()


def serve(pipe: Connection, plan: Plan) -> None:
    """One process: starts, says when all is quiet, and then gives a sample for each word until told to end."""

    async def run() -> None:
        node = BenchNode(plan)
        await node.start()
        await node.settled()
        pipe.send("settled")
        loop = asyncio.get_running_loop()
        while await loop.run_in_executor(None, pipe.recv) == "sample":
            pipe.send(node.sample())
        await node.stop()

    asyncio.run(run())


def measure(ports: list[int], groups: int, seconds: float, *, quiescence: bool) -> None:
    """Run three nodes, and print what each cost."""
    context = multiprocessing.get_context("spawn")
    addresses = {node: f"127.0.0.1:{port}" for node, port in zip(NODES, ports, strict=True)}
    with tempfile.TemporaryDirectory() as directory:
        pipes, processes = [], []
        for node in NODES:
            pipe, theirs = context.Pipe()
            plan = Plan(node, addresses, Path(directory) / node, groups, quiescence)
            process = context.Process(target=serve, args=(theirs, plan))
            process.start()
            pipes.append(pipe)
            processes.append(process)
        try:
            for pipe in pipes:
                assert pipe.recv() == "settled"
            before = samples(pipes)
            time.sleep(seconds)
            after = samples(pipes)
            for node, old, new in zip(NODES, before, after, strict=True):
                report(node, old, new, quiescence=quiescence)
        finally:
            for pipe, process in zip(pipes, processes, strict=True):
                if process.is_alive():
                    pipe.send("end")
                process.join()


def samples(pipes: list[Connection]) -> list[Sample]:
    """A sample of each process."""
    for pipe in pipes:
        pipe.send("sample")
    return [pipe.recv() for pipe in pipes]


def report(node: NodeId, old: Sample, new: Sample, *, quiescence: bool) -> None:
    """Print one node's figures."""
    elapsed_s = new.time_s - old.time_s
    print(
        f"quiescence {'on ' if quiescence else 'off'}  node {node}  CPU {(new.cpu_s - old.cpu_s) / elapsed_s:7.2%}  "
        f"{(new.messages - old.messages) / elapsed_s:9,.1f} messages/s in "
        f"{(new.grpc_messages - old.grpc_messages) / elapsed_s:7,.1f} gRPC messages/s  "
        f"elections {new.elections - old.elections}",
        flush=True,
    )


def main() -> None:
    """Measure without quiescence, then with it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--groups", type=int, default=1_000)
    parser.add_argument("--seconds", type=float, default=20.0, help="how long to measure")
    parser.add_argument("--ports", nargs=3, type=int, default=[47321, 47322, 47323], help="free ports on loopback")
    arguments = parser.parse_args()
    for quiescence in (False, True):
        measure(arguments.ports, arguments.groups, arguments.seconds, quiescence=quiescence)


if __name__ == "__main__":
    main()
