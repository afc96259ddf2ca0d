"""Locks and watches beside a drill's operations: holders who contend, and watchers who are told all that is written.

Each holder takes a lock, writes to what it guards, and gives it up; now and then it writes once more when the lock has
long been another's, as one would that stood still in between. A watcher in each region follows the keyspace from the
start. After the faults somebody who was not there watches it from the same start, so everything written is known; the
last that is written is a mark, at which all watchers stop.
"""

import asyncio
import random
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Protocol, final, runtime_checkable

from isochrone.client.kv import Kv
from isochrone.client.locks import Lock
from isochrone.client.results import Executed, WriteResult
from isochrone.client.watches import Watcher, WatchGap
from isochrone.drills.checkers.exclusion import Hold
from isochrone.drills.checkers.watch_order import Gap, WatchStory, Written
from isochrone.drills.guarded import Resource, guarded_put
from isochrone.drills.injector import NoProgress
from isochrone.drills.record import LockRecord
from isochrone.drills.schema import LocksSection
from isochrone.drills.workload import cancel
from isochrone.errors import Indeterminate, LeaseNotFound, LockNotHeld, Rejected
from isochrone.ids import NS_PER_S, Revision
from isochrone.wire.commands import Operation
from isochrone.wire.kv import prefix_end
from isochrone.wire.records import KeyValue

GAP_S = 0.2
"""Mean time between two locks of a holder."""
WAIT_S = 5.0
LATE_ODDS = 0.1
WRITE_TIMEOUT_S = 2.0
MARK_TIMEOUT_S = 30.0
"""For the last write, and again for all watchers to be told of it."""


@runtime_checkable
class LockClient(Protocol):
    """What holders and watchers need of the SDK's client."""

    kv: Kv

    async def put(self, key: bytes | str, value: bytes | str, *, timeout_s: float | None = None) -> WriteResult: ...

    async def execute(self, key: bytes | str, operation: Operation, *, timeout_s: float | None = None) -> Executed: ...

    def lock(self, name: bytes | str, *, ttl_s: float, wait_s: float | None = None) -> Lock: ...

    def watch(self, key: bytes | str, *, prefix: bool = False, start_revision: int = 0) -> Watcher: ...


def _mark(section: LocksSection) -> bytes:
    return f"{section.keyspace}drill/end".encode()


@final
class LockLoad:
    """See the module: `start`, then `run` and `finish`, and `stop` in any case."""

    def __init__(self, section: LocksSection, clients: Mapping[str, LockClient], record: LockRecord, seed: int) -> None:
        """`clients` by region. What comes of it is put into `record`."""
        self._section = section
        self._clients = clients
        self._record = record
        self._seed = seed
        self._resource = Resource(_now_ns)
        record.writes = self._resource.writes
        self._watching: list[asyncio.Task[None]] = []
        self._marked = False
        """The mark is written, so that watchers come to their end."""
        self._start_revision = Revision(1)

    async def start(self) -> None:
        """Begin to watch, from the present on."""
        first = next(iter(self._clients.values()))
        marked = await first.put(_mark(self._section), b"begin", timeout_s=MARK_TIMEOUT_S)
        self._start_revision = Revision(marked.revision + 1)
        for region, client in self._clients.items():
            self._watching.append(asyncio.create_task(self._watch(region, client), name=f"watcher {region}"))

    async def run(self, end_s: float) -> None:
        """Contend until the loop's time `end_s`."""
        holders = [
            asyncio.create_task(self._contend(client, f"{region}/{number}", end_s))
            for region, client in self._clients.items()
            for number in range(self._section.holders)
        ]
        try:
            await asyncio.gather(*holders)
        finally:
            await cancel(holders)

    async def finish(self) -> None:
        """Write the mark, give all the time to be told of it, and look at everything that was written.

        Raises:
            NoProgress: the mark was not taken in time, or nobody can see what was written.
        """
        client = next(iter(self._clients.values()))
        told: list[KeyValue | Gap] = []
        try:
            await client.put(_mark(self._section), b"end", timeout_s=MARK_TIMEOUT_S)
            self._marked = True
            async with asyncio.timeout(MARK_TIMEOUT_S):
                await self._follow(client, told)
        except (Rejected, Indeterminate, TimeoutError) as error:
            raise NoProgress(f"the last write to {self._section.keyspace} cannot be seen: {error!r}") from error
        with suppress(TimeoutError):  # Their stories say what they lack.
            async with asyncio.timeout(MARK_TIMEOUT_S):
                await asyncio.gather(*self._watching)
        self._record.written = Written(tuple(item for item in told if isinstance(item, KeyValue)), 0)

    async def stop(self) -> None:
        """End what watches still."""
        await cancel(self._watching)

    # ---- holders

    async def _contend(self, client: LockClient, holder: str, end_s: float) -> None:
        rng, loop = random.Random(f"{self._seed}/{holder}"), asyncio.get_running_loop()
        names = self._section.lock_names
        while (left_s := end_s - loop.time()) > 0:
            await asyncio.sleep(min(left_s, rng.expovariate(1 / GAP_S)))
            name, asked_ns = rng.choice(names), _now_ns()
            try:
                async with client.lock(name, ttl_s=self._section.ttl_s, wait_s=min(WAIT_S, max(left_s, 0.1))) as lock:
                    await self._hold(client, lock, (name, holder), asked_ns, rng)
            except (Rejected, Indeterminate, LeaseNotFound, LockNotHeld):
                continue  # A fault is in the way, or another holder.

    async def _hold(
        self, client: LockClient, lock: Lock, who: tuple[str, str], asked_ns: int, rng: random.Random
    ) -> None:
        (name, holder), granted_ns = who, _now_ns()
        write = (name, holder, lock.token)
        if rng.random() < LATE_ODDS:
            late_s = self._section.ttl_s * rng.uniform(0.5, 2.0)
            asyncio.get_running_loop().call_later(late_s, self._resource.write, write)
        sure_ns = granted_ns
        try:
            self._resource.write(write)
            sure_ns += round(lock.remaining_s * NS_PER_S)
            await client.execute(name, guarded_put(name, holder, lock.token), timeout_s=WRITE_TIMEOUT_S)
            await asyncio.sleep(rng.expovariate(1 / self._section.hold_s))
        finally:
            ended_ns = _now_ns()
            self._record.holds.append(
                Hold(
                    lock=name,
                    holder=holder,
                    lease=lock.lease.identity,
                    token=lock.token,
                    asked_ns=asked_ns,
                    granted_ns=granted_ns,
                    sure_until_ns=ended_ns if lock.remaining_s else min(ended_ns, sure_ns),
                )
            )

    # ---- watchers

    async def _watch(self, region: str, client: LockClient) -> None:
        told: list[KeyValue | Gap] = []
        try:
            await self._follow(client, told)
        finally:
            self._record.stories.append(self._story(region, told))

    async def _follow(self, client: LockClient, told: list[KeyValue | Gap]) -> None:
        """Take what is told, up to the mark."""
        mark = _mark(self._section)
        async with client.watch(self._section.keyspace, prefix=True, start_revision=self._start_revision) as watcher:
            async for item in watcher:
                if isinstance(item, WatchGap):
                    told.append(Gap(item.revision, item.items))
                    if any(each.key == mark and each.value == b"end" for each in item.items):
                        return
                else:
                    told.append(item.item)
                    if item.item.key == mark:
                        return

    def _story(self, region: str, told: Sequence[KeyValue | Gap]) -> WatchStory:
        key = self._section.keyspace.encode()
        return WatchStory(
            name=region,
            group=self._section.keyspace,
            key=key,
            range_end=prefix_end(key),
            start_revision=self._start_revision,
            told=tuple(told),
            reached_end=self._marked,
        )


def _now_ns() -> int:
    return round(asyncio.get_running_loop().time() * NS_PER_S)
