"""Loads that a Python client drives: closed loops of calls, etcd's locks, and the fan-out of watches.

All run in the calling process, whose own CPU time is told as `client`: where it comes near one core, the figure is a
lower bound of what the server can do.
"""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace

from figures import CpuMeter, Load, percentile
from http2 import Connection, connect

from isochrone.wire.etcd.generated import rpc_pb2, v3lock_pb2

WARM_UP_S = 1.0
CALL_S_MAX = 30.0
PUT, GRANT, WATCH = "/etcdserverpb.KV/Put", "/etcdserverpb.Lease/LeaseGrant", "/etcdserverpb.Watch/Watch"
LOCK, UNLOCK = "/v3lockpb.Lock/Lock", "/v3lockpb.Lock/Unlock"
LOCK_CONNECTIONS, WATCH_CONNECTIONS, WATCHERS = 4, 10, 1000
LEASE_S = 600


async def closed_loop(
    operations: Sequence[Callable[[], Awaitable[object]]], seconds: float, servers: Mapping[str, int]
) -> Load:
    """Run each operation again and again, one at a time each, and measure after a warm-up."""
    measuring, ended, done = False, False, 0
    latencies_ms: list[float] = []

    async def caller(operation: Callable[[], Awaitable[object]]) -> None:
        nonlocal done
        while not ended:
            began = time.perf_counter()
            await operation()
            if measuring:
                latencies_ms.append((time.perf_counter() - began) * 1000)
                done += 1

    async def clock() -> tuple[float, Mapping[str, float]]:
        nonlocal measuring, ended
        await asyncio.sleep(WARM_UP_S)
        meter, began = CpuMeter({**servers, "client": os.getpid()}), time.perf_counter()
        measuring = True
        await asyncio.sleep(seconds)
        measuring, ended = False, True
        return time.perf_counter() - began, meter.us_per(done)

    async with asyncio.timeout(WARM_UP_S + seconds + CALL_S_MAX):
        callers = asyncio.gather(*map(caller, operations))
        elapsed_s, cpu_us = await clock()
        await callers
    latencies_ms.sort()
    p50_ms, p99_ms = percentile(latencies_ms, 0.5), percentile(latencies_ms, 0.99)
    return Load(len(operations), done, elapsed_s, p50_ms, p99_ms, cpu_us)


async def etcd_locks(
    address: str, in_flight: int, seconds: float, servers: Mapping[str, int], *, contended: bool
) -> Load:
    """Acquire and release: all callers one lock, or each its own. An operation is a pair of both calls."""
    connections = [await connect(address) for _ in range(min(in_flight, LOCK_CONNECTIONS))]

    async def make(number: int) -> Callable[[], Awaitable[None]]:
        connection = connections[number % len(connections)]
        grant = rpc_pb2.LeaseGrantRequest(TTL=LEASE_S).SerializeToString()
        lease = rpc_pb2.LeaseGrantResponse.FromString(await connection.call(GRANT, grant)).ID
        name = b"bench/lock" if contended else b"bench/lock/%d" % number
        request = v3lock_pb2.LockRequest(name=name, lease=lease).SerializeToString()

        async def pair() -> None:
            key = v3lock_pb2.LockResponse.FromString(await connection.call(LOCK, request)).key
            await connection.call(UNLOCK, v3lock_pb2.UnlockRequest(key=key).SerializeToString())

        return pair

    try:
        return await closed_loop([await make(number) for number in range(in_flight)], seconds, servers)
    finally:
        for connection in connections:
            connection.close()


class Deliveries:
    """Counts the events that have reached so many watchers of one key, and tells when all have."""

    def __init__(self, watchers: int) -> None:
        self._watchers = watchers
        self._count = 0
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []

    def add(self, events: int) -> None:
        """So many events more, each to one watcher."""
        self._count += events
        while self._waiting and self._count >= self._waiting[0][0]:
            self._waiting.pop(0)[1].set_result(None)

    async def reached(self, events: int) -> None:
        """Return when all of so many events have reached every watcher."""
        if self._count < events * self._watchers:
            reached: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append((events * self._watchers, reached))
            await reached

    def fail(self, error: Exception) -> None:
        """No more will come."""
        for _, reached in self._waiting:
            if not reached.done():
                reached.set_exception(error)


class Watchers:
    """Watchers of one key on some connections, one stream each, that count what they are told."""

    def __init__(self, connections: Sequence[Connection], count: int, key: bytes) -> None:
        self._count = count
        self._created = 0
        self.deliveries = Deliveries(count)
        request = rpc_pb2.WatchRequest(create_request=rpc_pb2.WatchCreateRequest(key=key)).SerializeToString()
        for connection in connections:
            stream = connection.open(WATCH, self._received, self._ended)
            for _ in range(count // len(connections)):
                connection.send(stream, request)

    async def created(self) -> None:
        """Return when every watcher watches."""
        async with asyncio.timeout(CALL_S_MAX):
            while self._created < self._count:  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    def _received(self, data: bytes) -> None:
        response = rpc_pb2.WatchResponse.FromString(data)
        self._created += response.created
        self.deliveries.add(len(response.events))

    def _ended(self, reset: bool) -> None:
        self.deliveries.fail(ConnectionError(f"a watch stream ended (reset: {reset})"))


async def etcd_watches(address: str, in_flight: int, seconds: float, servers: Mapping[str, int], value: bytes) -> Load:
    """Events to `WATCHERS` watchers of one key, `in_flight` writes of it under way.

    An operation is an event that reached a watcher; a latency is from a write to its event's last watcher.
    """
    writer = await connect(address)
    connections = [await connect(address) for _ in range(WATCH_CONNECTIONS)]
    request = rpc_pb2.PutRequest(key=b"bench/watched", value=value).SerializeToString()
    writes = 0
    try:
        watchers = Watchers(connections, WATCHERS, b"bench/watched")
        await watchers.created()

        async def write() -> None:
            nonlocal writes
            writes += 1
            number = writes
            await writer.call(PUT, request)
            await watchers.deliveries.reached(number)

        load = await closed_loop([write] * in_flight, seconds, servers)
    finally:
        for connection in (writer, *connections):
            connection.close()
    cpu_us = {name: us / WATCHERS for name, us in load.cpu_us.items()}
    return replace(load, operations=load.operations * WATCHERS, cpu_us=cpu_us)
