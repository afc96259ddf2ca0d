"""Contenders: simulated processes that take locks and campaign through the SDK, and use what the locks guard.

Each is a process of its own, with a clock that is as wrong as the SDK allows for; it can be stopped in the midst of its
work for longer than its leases live (`holding`). Some take one lock at a time, others several together (`lock_plans`);
some give up while they wait.
"""

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from isochrone.client import FOREVER, Client, HeldSession
from isochrone.client.connection import Closed, Connection, Received
from isochrone.client.leases import CLOCK_RATE_MAX, Lease
from isochrone.client.results import Executed, Queried
from isochrone.drills.checkers.queues import QueueCall
from isochrone.drills.guarded import Resource
from isochrone.drills.sim.clock import HolderClock
from isochrone.drills.sim.holding import Holder
from isochrone.drills.sim.lock_plans import Plan, draw_plan, election, lone_locks
from isochrone.drills.sim.loop import Group, SimLoop
from isochrone.drills.sim.network import Link
from isochrone.drills.sim.partaking import Partaker
from isochrone.drills.sim.queueing import use_queue
from isochrone.drills.sim.sessions import SimConnector
from isochrone.drills.workload import run_together
from isochrone.errors import Indeterminate, LeaseNotFound, LockNotHeld, Rejected
from isochrone.ids import NS_PER_MS, GroupId
from isochrone.wire.commands import Operation, Query
from isochrone.wire.leases import LeaseGrant, LeaseGrantResult, LeaseKeepAlive, LeaseKeepAliveResult, LeaseRevoke
from isochrone.wire.session import ClientHello

ELECTIONS_SHARE = 0.5
GAP_S = 0.2
"""Mean time between two locks of a contender."""
TTLS_S = (1.0, 1.5, 3.0)
DELAYS_S = (0.0, 0.0, 0.5)
DELAYS_SUFFICE_RATE = 0.1
"""These lock-delays are longer than clocks which are so much (as a share) too fast are wrong over a time to live."""
SEVERAL_SHARE = 0.4
"""So often a contender takes several locks at a time."""
OWN_LEASE_SHARE = 0.2
"""So often it takes one lock after another on one lease."""
QUEUE_ODDS = 0.4
"""So often it uses a queue before."""

Expected = (Rejected, Indeterminate, LeaseNotFound, LockNotHeld)
"""What a contender may be told while faults are on."""


@dataclass(slots=True)
class Promises:
    """What one lease was promised. Times are true ones, in nanoseconds."""

    ttl_ns: int
    sent_ns: list[int] = field(default_factory=list)
    asked_ns: int = 0
    revoked_ns: int | None = None


class Contender:
    """One process; see the module. `run` it in the group `group`."""

    def __init__(
        self,
        loop: SimLoop,
        name: str,
        keyspaces: dict[str, GroupId],
        resource: Resource,
        rng: random.Random,
        links: Callable[[], Sequence[Link]],
        promises: dict[tuple[GroupId, int], Promises],
    ) -> None:
        """`links` are those of this process; `promises` is for all processes."""
        self.name = name
        self.group = Group(name)
        self.clock = HolderClock(loop, 1 + rng.choice((-1.0, 1.0, rng.uniform(-1, 1))) * CLOCK_RATE_MAX)
        self.holder = Holder(loop, name, self.group, resource, self.clock, rng, links)
        self.partaker: Partaker | None = None
        """What this process does with recipes, if anything."""
        self._promises = promises
        self.queue_calls: list[QueueCall] = []
        self.ended = False
        self._loop = loop
        self._keyspaces = keyspaces
        self._rng = rng

    def partake(
        self, keyspace: str, resource: Resource, rng: random.Random, links: Callable[[], Sequence[Link]]
    ) -> None:
        """Use the recipes of a keyspace, too. To be said before `run`."""
        holder = Holder(self._loop, self.name, self.group, resource, self.clock, rng, links)
        self.partaker = Partaker(holder, keyspace, rng)

    async def run(self, client: Client, end_s: float) -> None:
        """Contend until the loop's time `end_s`; then close the client."""
        self._listen_to(client)
        try:
            works = [self._contend_until(client, end_s)]
            if self.partaker is not None:
                works.append(self.partaker.run(client, end_s))
            await run_together(works)
        finally:
            await client.close()
            self.ended = True

    async def _contend_until(self, client: Client, end_s: float) -> None:
        while self._loop.time() < end_s:
            await asyncio.sleep(self._rng.expovariate(1 / GAP_S))
            await self._contend(client)

    async def _contend(self, client: Client) -> None:
        """Take a lock, now and then on a lease that goes on when the lock is given up, or several."""
        draw = self._rng.random()
        if self._rng.random() < QUEUE_ODDS:
            keyspace = self._rng.choice(list(self._keyspaces))
            await use_queue(client, keyspace, self._rng, self.holder.now_ns, self.queue_calls)
        try:
            if draw < SEVERAL_SHARE:
                await self._take_several(client)
            elif draw < SEVERAL_SHARE + OWN_LEASE_SHARE:
                async with client.lease(next(iter(self._keyspaces)), ttl_s=self._rng.choice(TTLS_S)) as lease:
                    for _ in range(2):
                        await self._take(client, lease)
            else:
                await self._take(client, None)
        except (*Expected, TimeoutError):
            return

    async def _take(self, client: Client, lease: Lease | None) -> None:
        rng = self._rng
        keyspace = rng.choice(list(self._keyspaces)) if lease is None else next(iter(self._keyspaces))
        announce = rng.random() < ELECTIONS_SHARE
        name = election(keyspace) if announce else rng.choice(lone_locks(keyspace))
        asked_ns, ttl_s, delay_s = self.holder.now_ns(), rng.choice(TTLS_S), rng.choice(DELAYS_S)
        lock = client.lock(
            name,
            ttl_s=ttl_s,
            lease=lease,
            wait_s=rng.choice((0.0, 1.0, 4.0)),
            delay_s=delay_s,
            announce=announce,
            value=self.name,
        )
        async with asyncio.timeout(rng.choice((None, None, None, 0.3, 2.0))):
            async with lock:
                grant = self.holder.granted(lock, name, asked_ns, mode=lock.mode, delayed=delay_s > 0)
                try:
                    await self.holder.use(client)
                finally:
                    self.holder.given_up(grant)

    async def _take_several(self, client: Client) -> None:
        """Take several locks in one session, as planned; see `lock_plans`."""
        rng, keyspace = self._rng, next(iter(self._keyspaces))
        async with client.session(keyspace, ttl_s=rng.choice(TTLS_S)) as session:
            await self._take_next(client, session, draw_plan(rng, keyspace))

    async def _take_next(self, client: Client, session: HeldSession, plan: Plan) -> None:
        if not plan:
            await self.holder.use(client)
            return
        rng, asked_ns, (want, *rest) = self._rng, self.holder.now_ns(), plan
        wait_s = rng.choice((FOREVER, FOREVER, 1.0, 4.0))
        delay_s = rng.choice(DELAYS_S)
        lock = session.lock(want.name, mode=want.mode, wait_s=wait_s, delay_s=delay_s, hierarchical=want.hierarchical)
        async with lock:
            grant = self.holder.granted(lock, want.name, asked_ns, mode=lock.mode, delayed=delay_s > 0)
            try:
                await asyncio.sleep(rng.choice((0.1, 0.5, 1.0)))
                if want.then is not None:
                    asked_ns = self.holder.now_ns()
                    await lock.convert(want.then, wait_s=wait_s)
                    self.holder.granted(lock, want.name, asked_ns, mode=lock.mode, delayed=delay_s > 0)
                await self._take_next(client, session, tuple(rest))
            finally:
                self.holder.given_up(grant)

    # ---- what leases are promised

    def _listen_to(self, client: Client) -> None:
        """Note what the SDK asks about leases, and is told."""
        execute, ask = client.execute, client.query

        async def executed(key: bytes | str, operation: Operation, *, timeout_s: float | None = None) -> Executed:
            sent_ns = self.holder.now_ns()
            if isinstance(operation, LeaseRevoke):
                promises = self._promises[self._group(key), operation.lease]
                promises.revoked_ns = promises.revoked_ns or sent_ns
            done = await execute(key, operation, timeout_s=timeout_s)
            if isinstance(operation, LeaseGrant) and isinstance(done.result, LeaseGrantResult):
                promises = Promises(done.result.ttl_ms * NS_PER_MS, [sent_ns], self.holder.now_ns())
                self._promises[self._group(key), done.result.lease] = promises
            return done

        async def queried(key: bytes | str, query: Query, *, timeout_s: float | None = None) -> Queried:
            if not isinstance(query, LeaseKeepAlive):
                return await ask(key, query, timeout_s=timeout_s)
            sent_ns, promises = self.holder.now_ns(), self._promises[self._group(key), query.lease]
            try:
                told = await ask(key, query, timeout_s=timeout_s)
            finally:
                promises.asked_ns = self.holder.now_ns()
            if isinstance(told.result, LeaseKeepAliveResult):
                promises.sent_ns.append(sent_ns)
            return told

        client.execute = executed  # type: ignore[method-assign]
        client.query = queried  # type: ignore[method-assign]

    def _group(self, key: bytes | str) -> GroupId:
        text = key if isinstance(key, str) else key.decode()
        return next(group for keyspace, group in self._keyspaces.items() if text.startswith(keyspace))


class GroupConnector:
    """The SDK's `Connector` of a client that lives in a group: what it is sent waits while the group is paused."""

    def __init__(self, loop: SimLoop, connector: SimConnector, group: Group) -> None:
        self._loop = loop
        self._connector = connector
        self._group = group

    async def __call__(self, address: str, hello: ClientHello, received: Received, closed: Closed) -> Connection:
        """See the port."""
        opened: Connection | None = None
        try:
            opened = await self._connector(address, hello, partial(self._enter, received), partial(self._enter, closed))
            return opened
        finally:
            # The stream was opened, or refused, by the network: back into the group.
            back: asyncio.Future[None] = self._loop.create_future()
            self._enter(_complete, back)
            try:
                await back
            except asyncio.CancelledError:
                if opened is not None:
                    await opened.close()
                raise

    def _enter(self, callback: Callable[..., None], *args: object) -> None:
        self._loop.run_in(self._group, callback, *args)


def _complete(future: "asyncio.Future[None]") -> None:
    if not future.done():  # Whoever waited may have been cancelled during a pause.
        future.set_result(None)
