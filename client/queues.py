"""Queues: each item goes to one consumer. Two kinds, which differ in what becomes of an item whose consumer dies.

::

    jobs = client.recipes.queue("app/mails")             # at most once
    await jobs.put("to: ada")
    item = await jobs.take(wait_s=30)

    jobs = client.recipes.work_queue("app/reports")      # at least once
    async with jobs.claim(ttl_s=30) as claim:
        await make_report(claim.value, fencing_token=claim.token)

- `Queue`: taking removes the item, in one step. **At most once**: an answer that is lost is asked for again and tells
  the same item, so none is taken twice or by two; but an item whose consumer dies, or whose `take` ends
  `Indeterminate`, does **not** come back.
- `WorkQueue`: a claim hides the item, and removes it when its body ends well. **At least once**: an item whose body
  fails, or whose consumer dies or falls silent for the time to live, **comes back** at its place. So what is done with
  an item must bear to be done twice; a claim has a fencing token for that, which grows from claim to claim.

Order: smaller priorities first, and among equals in the order of `put`, across all producers. Claims are handed out in
that order, but end in any.

An item lies at `NAME/items/PRIORITY/NUMBER`, a claim is a lock at `NAME/claims/PRIORITY/NUMBER` that is announced
there. One name is for one kind of queue.
"""

import asyncio
import math
from contextlib import AsyncExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Self, final

from isochrone.client.answers import as_bytes, expect, shown
from isochrone.client.leases import Lease
from isochrone.client.locks import Lock
from isochrone.client.views import RecipeClient
from isochrone.client.watches import Watcher, WatchEvent, WatchGap
from isochrone.errors import InvalidRequest, LeaseLost, LockHeld, NotInTime, Unavailable
from isochrone.ids import Revision
from isochrone.probes import probe
from isochrone.wire.kv import Compare, DeleteRange, Range, RangeResult, Relation, Target, Txn, TxnResult, prefix_end
from isochrone.wire.locks import KeyResult, PutSequential, TakeFirst
from isochrone.wire.records import KeyValue

PRIORITY_DEFAULT = 500
PRIORITY_MAX = 999
CLAIM_TTL_S = 30.0


@dataclass(frozen=True, slots=True)
class QueueItem:
    """What was taken from a queue."""

    key: bytes
    """It lay there; no two items ever have the same one."""
    value: bytes


class _Items:
    """Where the items of a queue lie."""

    def __init__(self, client: RecipeClient, name: bytes) -> None:
        self.client = client
        self.name = name
        self.items = name + b"/items/"
        self.claims = name + b"/claims/"

    async def put(self, value: bytes, priority: int, timeout_s: float | None) -> bytes:
        if not 0 <= priority <= PRIORITY_MAX:
            raise InvalidRequest(f"a priority is 0 (first) to {PRIORITY_MAX}, not {priority}")
        operation = PutSequential(b"%s%03d/" % (self.items, priority), value)
        made = expect(KeyResult, (await self.client.execute(self.name, operation, timeout_s=timeout_s)).result)
        return made.key or b""

    async def read(self, query: Range) -> RangeResult:
        return expect(RangeResult, (await self.client.query(query.key, query)).result)

    async def count(self) -> int:
        return (await self.read(Range(self.items, prefix_end(self.items), count_only=True))).count


@final
class Queue:
    """Items that go to at most one consumer, once; see the module. `Client.recipes.queue` makes one."""

    def __init__(self, client: RecipeClient, name: bytes) -> None:
        self._items = _Items(client, name)

    async def put(
        self, value: bytes | str, *, priority: int = PRIORITY_DEFAULT, timeout_s: float | None = None
    ) -> bytes:
        """Add an item behind all others of its priority; 0 is taken first, 999 last. Returns its key."""
        return await self._items.put(as_bytes(value), priority, timeout_s)

    async def take(self, *, wait_s: float | None = None) -> QueueItem | None:
        """Remove the first item, waiting until there is one; None if none came. `wait_s` 0: do not wait.

        If this raises an `Indeterminate`, or is cancelled from outside, an item may have been removed that nobody gets.
        """
        items, loop = self._items, asyncio.get_running_loop()
        until = loop.time() + items.client.wait_limit_s(wait_s)
        taken = await self._take_first()
        if taken.key is not None or wait_s == 0:
            return _item(taken)
        async with items.client.watch(items.items, prefix=True, start_revision=taken.revision + 1) as watcher:
            while True:
                # Only the waiting has a limit: an item that is on its way is not let go.
                try:
                    async with asyncio.timeout_at(None if math.isinf(until) else until):
                        while _revision(await _next(watcher)) <= taken.revision:
                            probe("client.queue_news_is_old")
                except TimeoutError:
                    return None
                taken = await self._take_first()
                if taken.key is not None:
                    return _item(taken)

    async def count(self) -> int:
        """How many items there are; linearizable."""
        return await self._items.count()

    async def _take_first(self) -> KeyResult:
        operation = TakeFirst(self._items.items, prefix_end(self._items.items))
        return expect(KeyResult, (await self._items.client.execute(self._items.name, operation)).result)


async def _next(watcher: Watcher) -> WatchEvent | WatchGap:
    async for told in watcher:
        return told
    raise Unavailable("the client was closed")


def _revision(told: WatchEvent | WatchGap) -> Revision:
    return told.revision if isinstance(told, WatchGap) else told.item.mod_revision


def _item(taken: KeyResult) -> QueueItem | None:
    return None if taken.key is None else QueueItem(taken.key, taken.value)


@final
class WorkQueue:
    """Items that are worked on until that has succeeded; see the module. `Client.recipes.work_queue` makes one."""

    def __init__(self, client: RecipeClient, name: bytes) -> None:
        self._items = _Items(client, name)

    async def put(
        self, value: bytes | str, *, priority: int = PRIORITY_DEFAULT, timeout_s: float | None = None
    ) -> bytes:
        """Add an item behind all others of its priority; 0 is claimed first, 999 last. Returns its key."""
        return await self._items.put(as_bytes(value), priority, timeout_s)

    def claim(
        self,
        *,
        consumer: bytes | str = b"",
        ttl_s: float = CLAIM_TTL_S,
        grace_s: float = 0.0,
        lease: Lease | None = None,
        wait_s: float | None = None,
    ) -> "Claim":
        """The first item that nobody has claimed, while `async with` lasts; see `Claim`.

        Args:
            consumer: told to whoever looks at the claim.
            ttl_s: so long after its consumer has gone silent the item comes back; for a claim with a lease of its own.
            grace_s: see `Client.lock`.
            lease: on which the claim hangs, entered already.
            wait_s: how long to wait for an item: 0 not at all, the client's deadline if not given.
        """
        client = self._items.client
        owns_lease = lease is None
        lease = lease or client.lease(self._items.name, ttl_s=ttl_s, grace_s=grace_s)
        return Claim(self._items, as_bytes(consumer), lease, owns_lease, client.wait_limit_s(wait_s))

    async def count(self) -> int:
        """How many items there are, claimed or not; linearizable."""
        return await self._items.count()


@final
class Claim:
    """An item, while `async with` lasts. Enter it once.

    Entering raises `NotInTime` if there was nothing to claim. If the body ends well the item is removed; if it raises,
    the item is there for others at once. A body whose claim may have ended is cancelled, and `LeaseLost` is raised.
    """

    def __init__(self, items: _Items, consumer: bytes, lease: Lease, owns_lease: bool, wait_s: float) -> None:
        self._items = items
        self._consumer = consumer
        self._lease = lease
        self._owns_lease = owns_lease
        self._wait_s = wait_s
        self._stack = AsyncExitStack()
        self._lock: Lock | None = None
        self._item: KeyValue | None = None

    @property
    def key(self) -> bytes:
        """Where the item lies."""
        return self._claimed()[0].key

    @property
    def value(self) -> bytes:
        """The item."""
        return self._claimed()[0].value

    @property
    def token(self) -> int:
        """The fencing token of the claim: larger than those of all before it."""
        return self._claimed()[1].token

    @property
    def lease(self) -> Lease:
        """On which the claim hangs."""
        return self._lease

    @property
    def remaining_s(self) -> float:
        """Time for which the item is sure to be nobody else's."""
        return self._lease.remaining_s

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            if self._owns_lease:
                await stack.enter_async_context(self._lease)
            self._item, self._lock = await self._wait()
            stack.push_async_exit(self._lock)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        try:
            if error is None:
                await self._finish()
        except BaseException as failure:
            await self._stack.__aexit__(type(failure), failure, failure.__traceback__)
            raise
        return await self._stack.__aexit__(kind, error, traceback)

    async def _finish(self) -> None:
        """Remove the item, if it is still ours."""
        item, lock = self._claimed()
        ours = Compare(lock.name, Target.LOCK, Relation.EQUAL, lock.token)
        done = await self._items.client.execute(item.key, Txn((ours,), (DeleteRange(item.key),)))
        if not expect(TxnResult, done.result).succeeded:
            raise LeaseLost(f"the claim of {shown(item.key)} had ended; another consumer gets the item, or has had it")

    async def _wait(self) -> tuple[KeyValue, Lock]:
        """Claim an item as soon as there is one that nobody has."""
        until = asyncio.get_running_loop().time() + self._wait_s
        while True:
            claimed, seen = await self._claim_first()
            if claimed is not None:
                return claimed
            try:
                async with asyncio.timeout_at(None if math.isinf(until) else until):
                    await self._change_after(seen)
            except TimeoutError:
                raise NotInTime(f"no item of {shown(self._items.name)} within {self._wait_s:g} s") from None

    async def _change_after(self, revision: Revision) -> None:
        prefix = self._items.name + b"/"
        async with self._items.client.watch(prefix, prefix=True, start_revision=revision + 1) as watcher:
            await _next(watcher)

    async def _claim_first(self) -> tuple[tuple[KeyValue, Lock] | None, Revision]:
        """Claim the first item that nobody has, and the revision as of which there was none."""
        items = self._items
        claims = await items.read(Range(items.claims, prefix_end(items.claims), keys_only=True))
        taken = {item.key[len(items.claims) :]: None for item in claims.items}
        while True:
            # One more than are taken: one of them is nobody's.
            limit = len(taken) + 1
            found = await items.read(Range(items.items, prefix_end(items.items), limit, keys_only=True))
            free = [item for item in found.items if item.key[len(items.items) :] not in taken]
            if not free:
                return None, claims.revision
            for item in free:
                name = item.key[len(items.items) :]
                if claimed := await self._claim(item, items.claims + name):
                    return claimed, claims.revision
                taken[name] = None  # Another one was faster; perhaps there are more behind it.

    async def _claim(self, item: KeyValue, name: bytes) -> tuple[KeyValue, Lock] | None:
        """Claim an item; None if another one was faster."""
        if name in self._lease.lock_names:
            probe("client.claim_asked_for_by_its_session")
            return None
        client = self._items.client
        lock = client.lock(name, lease=self._lease, wait_s=0, announce=True, value=self._consumer)
        try:
            await lock.__aenter__()
        except LockHeld:
            probe("client.claim_lost_the_race")
            return None
        try:
            found = await self._items.read(Range(item.key))
        except BaseException as error:
            await lock.__aexit__(type(error), error, error.__traceback__)
            raise
        if found.items:
            return found.items[0], lock
        probe("client.claimed_what_was_done")
        await lock.__aexit__(None, None, None)
        return None

    def _claimed(self) -> tuple[KeyValue, Lock]:
        if self._item is None or self._lock is None:
            raise InvalidRequest("a claim is used within its `async with`")
        return self._item, self._lock
