"""Contenders: simulated processes that take locks and campaign through the SDK, and write to guarded resources.

Each is a process of its own: it can be paused in the midst of its work for longer than its leases live. When it wakes,
it goes on to write, as a real one would, and some of its writes are on their way for long. There are two resources:

- one outside the system, which knows nothing but the largest token that it took (`Resource`);
- the store itself, by transactions that a fence gate lets pass (`fenced`).
"""

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from isochrone.client import Client
from isochrone.client.connection import Closed, Connection, Received
from isochrone.client.leases import Lease
from isochrone.client.locks import Lock
from isochrone.client.results import Executed, Queried
from isochrone.drills.checkers.exclusion import GuardedWrite, Hold
from isochrone.drills.sim.loop import Group, SimLoop
from isochrone.drills.sim.network import Link
from isochrone.drills.sim.sessions import SimConnector
from isochrone.errors import Indeterminate, LeaseNotFound, LockNotHeld, Rejected
from isochrone.ids import NS_PER_MS, NS_PER_S, GroupId
from isochrone.probes import probe
from isochrone.wire.commands import Operation, Query
from isochrone.wire.kv import Put, fenced
from isochrone.wire.leases import LeaseGrant, LeaseGrantResult, LeaseKeepAlive, LeaseKeepAliveResult, LeaseRevoke
from isochrone.wire.session import ClientHello

ELECTIONS_SHARE = 0.3
GAP_S = 0.3
"""Mean time between two locks of a contender."""
LOCKS = 2
"""Locks of each keyspace."""
TTLS_S = (1.0, 1.5, 3.0)
OWN_LEASE_SHARE = 0.7
PAUSE_ODDS = 0.12
OFFLINE_ODDS = 0.12
LATE_ODDS = 0.15
GATE_TIMEOUT_S = 2.0

Expected = (Rejected, Indeterminate, LeaseNotFound, LockNotHeld)
"""What a contender may be told while faults are on."""


def lock_names(keyspace: str) -> list[str]:
    """The locks of a keyspace that contenders take; the first is an election."""
    return [f"{keyspace}leader", *(f"{keyspace}lock/{number}" for number in range(LOCKS))]


@dataclass(slots=True)
class Promises:
    """What one lease was promised. Times are true ones, in nanoseconds."""

    ttl_ns: int
    sent_ns: list[int] = field(default_factory=list)
    asked_ns: int = 0
    revoked_ns: int | None = None


class Resource:
    """A resource outside the system: it takes a write unless it has seen a larger token."""

    def __init__(self, now_ns: Callable[[], int]) -> None:
        self._now_ns = now_ns
        self._largest: dict[str, int] = {}
        self.writes: list[GuardedWrite] = []

    def write(self, what: tuple[str, str, int]) -> None:
        """`what`: the lock, its holder and the token."""
        lock, holder, token = what
        accepted = token >= self._largest.get(lock, 0)
        if accepted:
            self._largest[lock] = token
        else:
            probe("contenders.refused_by_token")
        self.writes.append(GuardedWrite(lock=lock, holder=holder, token=token, at_ns=self._now_ns(), accepted=accepted))


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
    ) -> None:
        """`links` are those of this process."""
        self.name = name
        self.group = Group(name)
        self.holds: list[Hold] = []
        self.promises: dict[tuple[GroupId, int], Promises] = {}
        self.ended = False
        self._loop = loop
        self._keyspaces = keyspaces
        self._resource = resource
        self._rng = rng
        self._links = links

    async def run(self, client: Client, end_s: float) -> None:
        """Contend until the loop's time `end_s`; then close the client."""
        self._listen_to(client)
        try:
            while self._loop.time() < end_s:
                await asyncio.sleep(self._rng.expovariate(1 / GAP_S))
                await self._contend(client)
        finally:
            await client.close()
            self.ended = True

    def _now_ns(self) -> int:
        return round(self._loop.now_s * NS_PER_S)

    async def _contend(self, client: Client) -> None:
        """Take a lock, in every third case on a lease that goes on when the lock is given up."""
        try:
            if self._rng.random() < OWN_LEASE_SHARE:
                await self._take(client, None)
                return
            async with client.lease(next(iter(self._keyspaces)), ttl_s=self._rng.choice(TTLS_S)) as lease:
                for _ in range(2):
                    await self._take(client, lease)
        except Expected:
            return

    async def _take(self, client: Client, lease: Lease | None) -> None:
        rng = self._rng
        keyspace = rng.choice(list(self._keyspaces)) if lease is None else next(iter(self._keyspaces))
        name = rng.choice(lock_names(keyspace)[1:]) if rng.random() >= ELECTIONS_SHARE else lock_names(keyspace)[0]
        announce = name == lock_names(keyspace)[0]
        asked_ns, ttl_s = self._now_ns(), rng.choice(TTLS_S)
        lock = client.lock(
            name,
            ttl_s=ttl_s,
            lease=lease,
            wait_s=rng.choice((0.0, 1.0, 4.0)),
            delay_s=rng.choice((0.0, 0.0, 0.5)),
            announce=announce,
            value=self.name,
        )
        async with lock:
            await self._use(client, lock, name, asked_ns)

    async def _use(self, client: Client, lock: Lock, name: str, asked_ns: int) -> None:
        rng, granted_ns, token = self._rng, self._now_ns(), lock.token
        sure_ns = granted_ns
        write = (name, self.name, token)
        try:
            for _ in range(rng.randrange(1, 4)):
                self._resource.write(write)
                sure_ns = self._now_ns() + round(lock.remaining_s * NS_PER_S)
                if rng.random() < LATE_ODDS:
                    self._loop.at(self._loop.now_s + rng.uniform(0.1, 5.0), self._resource.write, write)
                if rng.random() < PAUSE_ODDS:
                    self._loop.pause(self.group)
                    self._loop.at(self._loop.now_s + rng.uniform(0.2, 6.0), self._loop.resume, self.group)
                    await asyncio.sleep(0)
                    self._resource.write(write)
                if rng.random() < OFFLINE_ODDS:
                    self._go_offline(rng.uniform(0.5, 6.0))
                    await asyncio.sleep(rng.uniform(0.0, 5.0))
                change = fenced(
                    b"%s/gate" % name.encode(), token, Put(f"{name}/data".encode(), _signed(self.name, token))
                )
                await client.execute(name, change, timeout_s=GATE_TIMEOUT_S)
                await asyncio.sleep(rng.uniform(0.0, 0.8))
        finally:
            ended_ns = self._now_ns()
            self.holds.append(
                Hold(
                    lock=name,
                    holder=self.name,
                    token=token,
                    asked_ns=asked_ns,
                    granted_ns=granted_ns,
                    sure_until_ns=ended_ns if lock.remaining_s else min(ended_ns, sure_ns),
                )
            )

    def _go_offline(self, duration_s: float) -> None:
        """Nothing reaches or leaves this process for a while; it runs on, until its leases' deadlines end its work."""
        for link in self._links():
            link.cut()
            self._loop.at(self._loop.now_s + duration_s, _mend, link)

    # ---- what leases are promised

    def _listen_to(self, client: Client) -> None:
        """Note what the SDK asks about leases, and is told."""
        execute, ask = client.execute, client.query

        async def executed(key: bytes | str, operation: Operation, *, timeout_s: float | None = None) -> Executed:
            sent_ns = self._now_ns()
            if isinstance(operation, LeaseRevoke):
                promises = self.promises[self._group(key), operation.lease]
                promises.revoked_ns = promises.revoked_ns or sent_ns
            done = await execute(key, operation, timeout_s=timeout_s)
            if isinstance(operation, LeaseGrant) and isinstance(done.result, LeaseGrantResult):
                promises = Promises(done.result.ttl_ms * NS_PER_MS, [sent_ns], self._now_ns())
                self.promises[self._group(key), done.result.lease] = promises
            return done

        async def queried(key: bytes | str, query: Query, *, timeout_s: float | None = None) -> Queried:
            if not isinstance(query, LeaseKeepAlive):
                return await ask(key, query, timeout_s=timeout_s)
            sent_ns, promises = self._now_ns(), self.promises[self._group(key), query.lease]
            try:
                told = await ask(key, query, timeout_s=timeout_s)
            finally:
                promises.asked_ns = self._now_ns()
            if isinstance(told.result, LeaseKeepAliveResult):
                promises.sent_ns.append(sent_ns)
            return told

        client.execute = executed  # type: ignore[method-assign]
        client.query = queried  # type: ignore[method-assign]

    def _group(self, key: bytes | str) -> GroupId:
        text = key if isinstance(key, str) else key.decode()
        return next(group for keyspace, group in self._keyspaces.items() if text.startswith(keyspace))


def _signed(holder: str, token: int) -> bytes:
    return f"{token} {holder}".encode()


def signature(value: bytes) -> tuple[str, int]:
    """Holder and token of what a contender wrote to a guarded key."""
    token, _, holder = value.decode().partition(" ")
    return holder, int(token)


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


def _mend(link: Link) -> None:
    if link.cuts:  # Else all cuts were ended meanwhile.
        link.mend()


def _complete(future: "asyncio.Future[None]") -> None:
    if not future.done():  # Whoever waited may have been cancelled during a pause.
        future.set_result(None)
