"""Barriers: a gate that holds everybody up, and a meeting that begins and ends together.

::

    barrier = client.recipes.barrier("app/migration")
    await barrier.close()
    ...
    await barrier.wait(wait_s=60)      # elsewhere: until `barrier.open()`

    async with client.recipes.double_barrier("app/phase-1", size=4) as meeting:
        await work()                   # all four have come
                                       # and leave when all are done

**A double barrier** has a key for each that is there, on its lease, and a key `ready` that is made when as many are
there as are needed, by one that is still there then. Who leaves removes its own key, and waits until `ready` is gone:
whoever sees nobody left removes it, under the condition that it is the one of this round. So the next round cannot
begin before all have left this one, and a round whose members have all died leaves nothing behind that matters: who
comes when nobody is there removes what they left. One that dies counts as having left.
"""

import random
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Self, final

from isochrone.client.answers import as_bytes, expect, shown
from isochrone.client.leases import Lease, guarded
from isochrone.client.views import RecipeClient, View, read_view, until
from isochrone.errors import Indeterminate, InvalidRequest, LeaseLost, LeaseNotFound, Rejected
from isochrone.ids import Revision
from isochrone.probes import probe
from isochrone.wire.kv import (
    Compare,
    DeleteRange,
    KvOperation,
    Put,
    Relation,
    Target,
    Txn,
    TxnResult,
    prefix_end,
)

GIVE_UP_TIMEOUT_S = 2.0


@final
class Barrier:
    """A gate; `Client.recipes.barrier` makes one. It is open unless it was closed."""

    def __init__(self, client: RecipeClient, name: bytes) -> None:
        self._client = client
        # A name of its own below: the view of a prefix would take in other names that begin alike.
        self._key = name + b"/closed"

    async def close(self, value: bytes | str = b"", *, lease: Lease | None = None) -> None:
        """Hold up whoever waits. With a lease it opens when the lease ends. Closing it again is no error."""
        identity = lease.identity if lease else 0
        await self._client.execute(self._key, Put(self._key, as_bytes(value), identity))

    async def open(self) -> None:
        """Let everybody go on. Opening it again is no error."""
        await self._client.execute(self._key, DeleteRange(self._key))

    async def wait(self, *, wait_s: float | None = None) -> None:
        """Wait until it is open; at once if it is. `wait_s`: the client's deadline if not given.

        Raises:
            NotInTime: it stayed closed.
        """
        limit_s = self._client.wait_limit_s(wait_s)
        await until(self._client, self._key, self._is_open, limit_s, f"the opening of {shown(self._key)}")

    def _is_open(self, view: View) -> bool:
        return all(item.key != self._key for item in view.items)


@final
class DoubleBarrier:
    """A meeting of `size` members while `async with` lasts; `Client.recipes.double_barrier` makes one. Enter it once.

    Entering waits until so many are there, and raises `NotInTime` if they do not come; then nothing is left behind.
    Leaving waits until all others leave, too, unless the body has failed. The lease may be lost as that of a lock: then
    the body is cancelled, and `LeaseLost` is raised.
    """

    def __init__(
        self,
        client: RecipeClient,
        name: bytes,
        size: int,
        value: bytes,
        lease: Lease,
        owns_lease: bool,
        wait_s: float,
        rng: random.Random,
    ) -> None:
        if size < 1:
            raise InvalidRequest(f"a barrier for {size}; at least 1 is needed")
        self._client = client
        self._prefix = name + b"/"
        self._members = name + b"/members/"
        self._ready = name + b"/ready"
        self._rng = rng
        self._key = b""
        self._size = size
        self._value = value
        self._lease = lease
        self._owns_lease = owns_lease
        self._wait_s = wait_s
        self._stack = AsyncExitStack()
        self._round = Revision(0)
        """At which `ready` was made."""

    @property
    def lease(self) -> Lease:
        """On which it hangs that this one is there."""
        return self._lease

    @property
    def remaining_s(self) -> float:
        """Time for which this one is sure to be there."""
        return self._lease.remaining_s

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            if self._owns_lease:
                await stack.enter_async_context(self._lease)
            stack.enter_context(guarded(self._lease))
            # Leases have ids of their own; one may carry several members.
            self._key = self._members + b"%d-%08x" % (self._lease.identity, self._rng.getrandbits(32))
            try:
                await self._come()
                self._round = await self._begun()
            except BaseException:
                await self._give_up()
                raise
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        try:
            if error is not None:
                await self._give_up()
            else:
                await self._execute((), DeleteRange(self._key))
                await self._ended()
        except BaseException as failure:
            await self._stack.__aexit__(type(failure), failure, failure.__traceback__)
            raise
        return await self._stack.__aexit__(kind, error, traceback)

    async def _come(self) -> None:
        """Be there; if nobody is, what an earlier round has left is removed."""
        come = Put(self._key, self._value, self._lease.identity)
        nobody = self._nobody_there()
        await self._execute((nobody,), DeleteRange(self._ready), come, otherwise=(come,))

    async def _begun(self) -> Revision:
        """Wait until enough are there. Returns the revision at which that was seen."""

        def enough(view: View) -> bool:
            if all(item.key != self._key for item in view.items):
                raise LeaseLost(f"lease {self._lease.identity} ended while it waited at {shown(self._prefix[:-1])}")
            return self._ready_at(view) > 0 or self._count(view) >= self._size

        view = await until(
            self._client, self._prefix, enough, self._wait_s, f"{self._size} at {shown(self._prefix[:-1])}"
        )
        if not self._ready_at(view):
            absent = Compare(self._ready, Target.VERSION, Relation.EQUAL, 0)
            # Else this may arrive when the round is over, and begin the next one before enough have come.
            still_there = Compare(self._key, Target.VERSION, Relation.GREATER, 0)
            await self._execute((absent, still_there), Put(self._ready, b""))
            view = await read_view(self._client, self._prefix)
        return self._ready_at(view) or view.revision

    async def _ended(self) -> None:
        """Wait until the round is over, and end it if nobody is left."""

        def over(view: View) -> bool:
            return self._ready_at(view) != self._round or not self._count(view)

        view = await until(self._client, self._prefix, over, self._wait_s, f"the end of {shown(self._prefix[:-1])}")
        if self._ready_at(view) == self._round:
            same = Compare(self._ready, Target.CREATE, Relation.EQUAL, self._round)
            await self._execute((self._nobody_there(), same), DeleteRange(self._ready))

    async def _give_up(self) -> None:
        """Be there no more, if the group answers in time; else the key goes with the lease."""
        if self._owns_lease or self._lease.lost.is_set():
            return
        try:
            await self._execute((), DeleteRange(self._key), timeout_s=GIVE_UP_TIMEOUT_S)
        except (Rejected, Indeterminate, LeaseNotFound):
            probe("client.barrier_left_unheard")

    def _nobody_there(self) -> Compare:
        return Compare(self._members, Target.VERSION, Relation.EQUAL, 0, range_end=prefix_end(self._members))

    def _count(self, view: View) -> int:
        return sum(item.key.startswith(self._members) for item in view.items)

    def _ready_at(self, view: View) -> Revision:
        return next((item.create_revision for item in view.items if item.key == self._ready), Revision(0))

    async def _execute(
        self,
        compares: tuple[Compare, ...],
        *then: KvOperation,
        otherwise: tuple[KvOperation, ...] = (),
        timeout_s: float | None = None,
    ) -> TxnResult:
        executed = await self._client.execute(self._prefix, Txn(compares, then, otherwise), timeout_s=timeout_s)
        return expect(TxnResult, executed.result)
