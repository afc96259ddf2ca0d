"""Loads that the SDK drives: calls, locks and the fan-out of watches, as `loads` has them for etcd."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import replace

from figures import Load
from loads import CALL_S_MAX, LEASE_S, LOCK_CONNECTIONS, WATCH_CONNECTIONS, WATCHERS, Deliveries, closed_loop
from nodes import REGION

from isochrone.client import Client
from isochrone.client.watches import Watcher

WATCHED = b"bench/watched"
Operation = Callable[[], Awaitable[object]]


async def sdk_calls(
    addresses: Sequence[str],
    in_flight: int,
    seconds: float,
    servers: Mapping[str, int],
    operation: Callable[[Client], Operation],
) -> Load:
    """One client, with so many calls under way."""
    async with await Client.connect(addresses, region=REGION) as client:
        return await closed_loop([operation(client)] * in_flight, seconds, servers)


async def sdk_locks(
    addresses: Sequence[str], in_flight: int, seconds: float, servers: Mapping[str, int], *, contended: bool
) -> Load:
    """Acquire and release: all callers one lock, or each its own. An operation is a pair of both calls."""

    async def make(client: Client, number: int, stack: contextlib.AsyncExitStack) -> Operation:
        name = b"bench/lock" if contended else b"bench/lock/%d" % number
        lease = await stack.enter_async_context(client.lease(name, ttl_s=LEASE_S))

        async def pair() -> None:
            async with client.lock(name, lease=lease):
                pass

        return pair

    async with contextlib.AsyncExitStack() as stack:
        clients = [await _connected(addresses, stack) for _ in range(min(in_flight, LOCK_CONNECTIONS))]
        pairs = [await make(clients[number % len(clients)], number, stack) for number in range(in_flight)]
        return await closed_loop(pairs, seconds, servers)


async def sdk_watches(
    addresses: Sequence[str], in_flight: int, seconds: float, servers: Mapping[str, int], value: bytes
) -> Load:
    """Events to `WATCHERS` watchers of one key on `WATCH_CONNECTIONS` connections, counted as by `etcd_watches`."""
    deliveries, writes = Deliveries(WATCHERS), 0
    async with contextlib.AsyncExitStack() as stack:
        writer = await _connected(addresses, stack)
        clients = [await _connected(addresses, stack) for _ in range(WATCH_CONNECTIONS)]
        watchers = [clients[number % len(clients)].watch(WATCHED) for number in range(WATCHERS)]
        await _answered(watchers)
        tasks = [asyncio.create_task(_follow(watcher, deliveries)) for watcher in watchers]

        async def write() -> None:
            nonlocal writes
            writes += 1
            number = writes
            await writer.put(WATCHED, value)
            await deliveries.reached(number)

        try:
            load = await closed_loop([write] * in_flight, seconds, servers)
        finally:
            for watcher in watchers:
                watcher.close()
            await asyncio.gather(*tasks)
    cpu_us = {name: us / WATCHERS for name, us in load.cpu_us.items()}
    return replace(load, operations=load.operations * WATCHERS, cpu_us=cpu_us)


async def _connected(addresses: Sequence[str], stack: contextlib.AsyncExitStack) -> Client:
    return await stack.enter_async_context(await Client.connect(addresses, region=REGION))


async def _answered(watchers: Sequence[Watcher]) -> None:
    async with asyncio.timeout(CALL_S_MAX):
        while not all(watcher.next_revision for watcher in watchers):  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def _follow(watcher: Watcher, deliveries: Deliveries) -> None:
    events: AsyncIterator[object] = aiter(watcher)
    async for _ in events:
        deliveries.add(1)
