"""The two sides of the comparison: what each can be measured at, by the same names.

A side is a table of measures. A measure that only one side has is printed without a ratio, so that one can be added
here as soon as there is something to measure: `etcd_measures` of an endpoint of ours, or what the SDK can do.
"""

import asyncio
import json
import re
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import grpc.aio
from etcd_cluster import STOP_S_MAX, EtcdCluster, require, wait_until
from figures import Load
from h2load import Target, run_h2load
from loads import closed_loop, etcd_locks, etcd_watches

from isochrone.client import Client
from isochrone.errors import DeadlineExceeded, Unavailable
from isochrone.wire.admin_grpc import AdminClient
from isochrone.wire.etcd.generated import rpc_pb2

KEY, VALUE = b"bench/0123456789", bytes(range(100))
WRITES, LINEARIZABLE, SERIALIZABLE = "writes", "linearizable reads", "serializable reads"
ALIKE = "writes, clients alike"
"""Both driven by a Python client that awaits each call: the other measures give etcd a client in C."""
WATCHES, LOCKS, CONTENDED = "watch events", "locks, each its own", "locks, all one"
IN_FLIGHT = {
    WRITES: (1, 16, 64, 256, 512, 1000),
    ALIKE: (1, 64),
    LINEARIZABLE: (1, 64, 256),
    SERIALIZABLE: (1, 64, 256),
    WATCHES: (1, 4),
    LOCKS: (1, 64),
    CONTENDED: (16,),
}
"""Every measure, with the numbers of operations under way at which it is taken."""
RANGE, PUT = "/etcdserverpb.KV/Range", "/etcdserverpb.KV/Put"
PROGRAM = Path(sys.executable).with_name("isochrone")
NODES = ("bench-a-1", "bench-b-1", "bench-c-1")
TOPOLOGY = """
name: bench
latencies: aws
regions:
  - {name: us-east-1, zones: [bench-a, bench-b, bench-c]}
keyspaces:
  - {prefix: bench/, home: us-east-1, survive: zone}
clock: {source: bound, bound_ms: 5}
"""
READY_S_MAX = 60.0


@dataclass(frozen=True, slots=True)
class Side:
    """One system under load, running."""

    name: str
    measures: Mapping[str, Callable[[int], Load]]
    """By name; each takes the number of operations under way."""


@contextmanager
def etcd_side(directory: Path, seconds: int, runner: asyncio.Runner) -> Iterator[Side]:
    """Three members of etcd; everything goes to the leader, which is what is best for etcd."""
    require("etcd", "h2load")
    with EtcdCluster(directory) as cluster:
        leader = cluster.leader
        pids = {"leader" if member is leader else member.name: member.process.pid for member in cluster.members}
        yield Side("etcd", etcd_measures(leader.address, pids, seconds, runner))


def etcd_measures(
    address: str, pids: Mapping[str, int], seconds: int, runner: asyncio.Runner
) -> dict[str, Callable[[int], Load]]:
    """Everything that can be measured of whatever speaks etcd's API at this address."""
    put = rpc_pb2.PutRequest(key=KEY, value=VALUE).SerializeToString()
    read = rpc_pb2.RangeRequest(key=KEY).SerializeToString()
    stale = rpc_pb2.RangeRequest(key=KEY, serializable=True).SerializeToString()

    def unary(path: str, request: bytes) -> Callable[[int], Load]:
        return lambda in_flight: run_h2load(Target(address, path, request), in_flight, seconds, pids)

    def locks(contended: bool) -> Callable[[int], Load]:
        return lambda in_flight: runner.run(etcd_locks(address, in_flight, seconds, pids, contended=contended))

    return {
        WRITES: unary(PUT, put),
        ALIKE: lambda in_flight: runner.run(_grpc_aio(address, PUT, put, in_flight, seconds, pids)),
        LINEARIZABLE: unary(RANGE, read),
        SERIALIZABLE: unary(RANGE, stale),
        WATCHES: lambda in_flight: runner.run(etcd_watches(address, in_flight, seconds, pids, VALUE)),
        LOCKS: locks(False),
        CONTENDED: locks(True),
    }


@contextmanager
def isochrone_side(directory: Path, seconds: int, runner: asyncio.Runner) -> Iterator[Side]:
    """Three nodes of ours as plain processes, driven by the SDK in this process."""
    with _nodes(directory, runner) as (addresses, pids):

        def driven(operation: Callable[[Client], Callable[[], Awaitable[object]]]) -> Callable[[int], Load]:
            return lambda in_flight: runner.run(_sdk(addresses, in_flight, seconds, pids, operation))

        write = driven(lambda client: partial(client.put, KEY, VALUE))
        measures = {
            WRITES: write,
            ALIKE: write,
            LINEARIZABLE: driven(lambda client: partial(client.get, KEY)),
        }
        yield Side("isochrone", measures)


def check_perf(address: str, load: str) -> Mapping[str, float]:
    """What `etcdctl check perf` says: it loads for a minute. Keys: `writes_per_s`, `slowest_s`, `stddev_s`."""
    require("etcdctl")
    done = subprocess.run(
        ["etcdctl", f"--endpoints={address}", "check", "perf", f"--load={load}"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,  # its status says whether its own limits were met
    )
    return parse_check_perf(done.stdout)


def parse_check_perf(text: str) -> Mapping[str, float]:
    """Read the figures out of what `etcdctl check perf` printed."""
    patterns = {
        "writes_per_s": r"Throughput (?:is|too low:) (\d+)",
        "slowest_s": r"Slowest request took(?: too long:)? ([\d.]+)s",
        "stddev_s": r"Stddev(?: too high:| is) ([\d.]+)s",
    }
    found = {name: re.search(pattern, text) for name, pattern in patterns.items()}
    if missing := [name for name, match in found.items() if match is None]:
        raise ValueError(f"etcdctl check perf did not tell {', '.join(missing)}: {text[-500:]}")
    return {name: float(match[1]) for name, match in found.items() if match is not None}


async def _grpc_aio(
    address: str, path: str, request: bytes, in_flight: int, seconds: int, pids: Mapping[str, int]
) -> Load:
    async with grpc.aio.insecure_channel(address) as channel:
        call = channel.unary_unary(path)

        async def write() -> None:
            await call(request)

        return await closed_loop([write] * in_flight, seconds, pids)


async def _sdk(
    addresses: list[str],
    in_flight: int,
    seconds: int,
    pids: Mapping[str, int],
    operation: Callable[[Client], Callable[[], Awaitable[object]]],
) -> Load:
    async with await Client.connect(addresses, region="us-east-1") as client:
        call = operation(client)
        return await closed_loop([call] * in_flight, seconds, pids)


@contextmanager
def _nodes(directory: Path, runner: asyncio.Runner) -> Iterator[tuple[list[str], Mapping[str, int]]]:
    """Bootstrap and run three nodes; their addresses and pids, the leader by that name."""
    (directory / "topology.yaml").write_text(TOPOLOGY)
    root = directory / "cluster"
    command = [str(PROGRAM), "bootstrap", "topology.yaml", "--out", str(root)]
    subprocess.run(command, cwd=directory, check=True, capture_output=True, timeout=60)
    configs = {node: root / "nodes" / f"{node}.json" for node in NODES}
    addresses = {node: str(json.loads(config.read_text())["listen"]) for node, config in configs.items()}
    processes: dict[str, subprocess.Popen[bytes]] = {}
    try:
        for node, config in configs.items():
            with (directory / f"{node}.log").open("wb") as log:
                command = [str(PROGRAM), "node", "--config", str(config)]
                processes[node] = subprocess.Popen(command, cwd=directory, stdout=log, stderr=log)
        wait_until(lambda: runner.run(_leader(addresses)) is not None, READY_S_MAX, "every node knows the leader")
        leader = runner.run(_leader(addresses))
        pids = {"leader" if node == leader else node: process.pid for node, process in processes.items()}
        yield list(addresses.values()), pids
    finally:
        for process in processes.values():
            process.terminate()
        for process in processes.values():
            try:
                process.wait(STOP_S_MAX)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


async def _leader(addresses: Mapping[str, str]) -> str | None:
    """The node that all say leads, None while they differ or one does not answer."""

    async def ask(address: str) -> str | None:
        try:
            async with AdminClient(address) as admin:
                return (await admin.status(2.0)).groups[0].leader
        except (Unavailable, DeadlineExceeded):
            return None

    told = set(await asyncio.gather(*map(ask, addresses.values())))
    return told.pop() if len(told) == 1 else None
