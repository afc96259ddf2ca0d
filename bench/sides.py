"""The sides of the comparison: what each can be measured at, by the same names.

A side is a table of measures; one that a side lacks is left out of its rows. etcd and our endpoint of its API take the
same measures from the same code; the SDK takes those of `sdk_loads`.
"""

import asyncio
import shutil
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import grpc.aio
from etcd_cluster import EtcdCluster, require
from figures import Load
from h2load import Target, run_h2load
from loads import closed_loop, etcd_locks, etcd_watches
from nodes import running_nodes
from sdk_loads import Operation, sdk_calls, sdk_locks, sdk_watches

from isochrone.client import Client
from isochrone.wire.etcd.generated import rpc_pb2

ETCD, SDK, SDK_WITNESS, ENDPOINT = "etcd", "SDK, 3 full", "SDK, 2 full + witness", "endpoint"
"""The sides: three members of etcd; ours by the SDK, as three full voters and as two and a witness; and the three full
ones by etcd's API."""
KEY, VALUE = b"bench/0123456789", bytes(range(100))
WRITES, LINEARIZABLE, SERIALIZABLE = "writes", "linearizable reads", "serializable reads"
ALIKE = "writes, clients alike"
"""Both driven by a Python client that awaits each call: the other measures give etcd a client in C."""
WATCHES, LOCKS, CONTENDED = "watch events", "locks, each its own", "locks, all one"
IN_FLIGHT = {
    WRITES: (1, 16, 64, 256, 512, 1000, 2000, 4000),  # far enough that no side's best is the last
    ALIKE: (1, 64),
    LINEARIZABLE: (1, 64, 256),
    SERIALIZABLE: (1, 64, 256),
    WATCHES: (1, 4, 16),
    LOCKS: (1, 64),
    CONTENDED: (16,),
}
"""Every measure, with the numbers of operations under way at which it is taken."""
RANGE, PUT = "/etcdserverpb.KV/Range", "/etcdserverpb.KV/Put"


@dataclass(frozen=True, slots=True)
class Side:
    """One system under load, running."""

    name: str
    measures: Mapping[str, Callable[[int], Load]]
    """By name; each takes the number of operations under way."""
    etcd_address: str
    """Where it speaks etcd's API, or "" if that is not to be checked."""


Sides = Sequence[Side]
WITNESS_MEASURES = (WRITES, ALIKE)
"""What a group with a witness is measured at besides: a witness takes part in writes alone."""


@contextmanager
def etcd_sides(directory: Path, seconds: int, runner: asyncio.Runner) -> Iterator[Sides]:
    """Three members of etcd; everything goes to the leader, which is what is best for etcd."""
    require("etcd", "h2load")
    with EtcdCluster(directory) as cluster:
        leader = cluster.leader
        pids = {"leader" if member is leader else member.name: member.process.pid for member in cluster.members}
        yield [Side(ETCD, etcd_measures(leader.address, pids, seconds, runner), leader.address)]


@contextmanager
def isochrone_sides(directory: Path, seconds: int, runner: asyncio.Runner) -> Iterator[Sides]:
    """Three nodes of ours as plain processes: driven by the SDK in this process, then by etcd's API at the leader."""
    with running_nodes(directory, runner) as (nodes, leader):
        pids, addresses = nodes.pids(leader), list(nodes.addresses.values())
        yield [
            Side(SDK, sdk_measures(addresses, pids, seconds, runner), ""),
            Side(
                ENDPOINT,
                etcd_measures(nodes.etcd_addresses[leader], pids, seconds, runner),
                nodes.etcd_addresses[leader],
            ),
        ]


@contextmanager
def witness_sides(directory: Path, seconds: int, runner: asyncio.Runner) -> Iterator[Sides]:
    """As `isochrone_sides`, with a witness for the third full voter: the same durability, a state less to keep."""
    with running_nodes(directory, runner, witness=True) as (nodes, leader):
        measures = sdk_measures(list(nodes.addresses.values()), nodes.pids(leader), seconds, runner)
        yield [Side(SDK_WITNESS, {name: measures[name] for name in WITNESS_MEASURES}, "")]


def etcd_measures(
    address: str, pids: Mapping[str, int], seconds: int, runner: asyncio.Runner
) -> dict[str, Callable[[int], Load]]:
    """Everything that can be measured of whatever speaks etcd's API here; without h2load, what needs none."""
    put = rpc_pb2.PutRequest(key=KEY, value=VALUE).SerializeToString()
    read = rpc_pb2.RangeRequest(key=KEY).SerializeToString()
    stale = rpc_pb2.RangeRequest(key=KEY, serializable=True).SerializeToString()

    def unary(path: str, request: bytes) -> Callable[[int], Load]:
        return lambda in_flight: run_h2load(Target(address, path, request), in_flight, seconds, pids)

    def locks(contended: bool) -> Callable[[int], Load]:
        return lambda in_flight: runner.run(etcd_locks(address, in_flight, seconds, pids, contended=contended))

    by_h2load = {WRITES: unary(PUT, put), LINEARIZABLE: unary(RANGE, read), SERIALIZABLE: unary(RANGE, stale)}
    return {
        **(by_h2load if shutil.which("h2load") else {}),
        ALIKE: lambda in_flight: runner.run(_etcd_puts(address, in_flight, seconds, pids)),
        WATCHES: lambda in_flight: runner.run(etcd_watches(address, in_flight, seconds, pids, VALUE)),
        LOCKS: locks(False),
        CONTENDED: locks(True),
    }


def sdk_measures(
    addresses: list[str], pids: Mapping[str, int], seconds: int, runner: asyncio.Runner
) -> dict[str, Callable[[int], Load]]:
    """Everything that can be measured through the SDK. A serializable read is one of the nearest replica."""

    def calls(operation: Callable[[Client], Operation]) -> Callable[[int], Load]:
        return lambda in_flight: runner.run(sdk_calls(addresses, in_flight, seconds, pids, operation))

    def locks(contended: bool) -> Callable[[int], Load]:
        return lambda in_flight: runner.run(sdk_locks(addresses, in_flight, seconds, pids, contended=contended))

    def stale(client: Client) -> Callable[[], Awaitable[object]]:
        return partial(client.kv.range_nearest, KEY)

    write = calls(lambda client: partial(client.put, KEY, VALUE))
    return {
        WRITES: write,
        ALIKE: write,
        LINEARIZABLE: calls(lambda client: partial(client.get, KEY)),
        SERIALIZABLE: calls(stale),
        WATCHES: lambda in_flight: runner.run(sdk_watches(addresses, in_flight, seconds, pids, VALUE)),
        LOCKS: locks(False),
        CONTENDED: locks(True),
    }


async def _etcd_puts(address: str, in_flight: int, seconds: int, pids: Mapping[str, int]) -> Load:
    """Written as applications do, by what a generated stub makes: like the SDK it encodes and decodes each call."""
    async with grpc.aio.insecure_channel(address) as channel:
        put = channel.unary_unary(
            PUT,
            request_serializer=rpc_pb2.PutRequest.SerializeToString,
            response_deserializer=rpc_pb2.PutResponse.FromString,
        )

        async def write() -> None:
            await put(rpc_pb2.PutRequest(key=KEY, value=VALUE))

        return await closed_loop([write] * in_flight, seconds, pids)
