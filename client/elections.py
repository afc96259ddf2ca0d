"""Elections: one leader at a time, whom everybody can see, and who knows when it is one no longer.

::

    async with client.election("app/leader", "10.0.0.7:80", ttl_s=10) as leadership:
        await serve(leadership.token)

    async for leader in client.observe("app/leader"):
        print(leader.value if leader else "nobody leads")

An election is a lock whose name is also a key: who holds the lock is announced there, and the key hangs on the lease
of the holder. What `locks` and `leases` say of deadlines and tokens holds for leaders.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self, final

from isochrone.client.answers import as_bytes, expect, shown
from isochrone.client.leases import Caller, Lease
from isochrone.client.locks import Lock
from isochrone.client.watches import Watcher, WatchGap
from isochrone.errors import LockNotHeld
from isochrone.ids import Revision
from isochrone.wire.kv import Compare, Put, Range, RangeResult, Relation, Target, Txn, TxnResult
from isochrone.wire.records import KeyValue


@dataclass(frozen=True, slots=True)
class Leader:
    """Who leads: what it proclaims, its lease, and the revision at which it was elected or has spoken last."""

    value: bytes
    lease: int
    elected_revision: Revision
    """Two terms of office never have the same one."""
    revision: Revision


class Observer(Caller, Protocol):
    """What observing an election needs of a client."""

    def watch(self, key: bytes | str, *, start_revision: int = 0) -> Watcher:
        """See `Client.watch`."""


@final
class Election:
    """A candidacy, and leadership while its `async with` lasts. Entering waits to be elected, as for a lock."""

    def __init__(self, caller: Caller, lock: Lock) -> None:
        """Made by `Client.election`; the lock announces its holder."""
        self._caller = caller
        self._lock = lock

    @property
    def name(self) -> bytes:
        """The election's name, and the key that shows who leads."""
        return self._lock.name

    @property
    def token(self) -> int:
        """The fencing token of this term of office: larger than those of all before it."""
        return self._lock.token

    @property
    def lease(self) -> Lease:
        """On which the leadership hangs; its `lost` tells when the body is told to end."""
        return self._lock.lease

    @property
    def remaining_s(self) -> float:
        """Time for which this client is sure to lead."""
        return self._lock.remaining_s

    async def proclaim(self, value: bytes | str, *, timeout_s: float | None = None) -> Revision:
        """Announce something else, without a new election.

        Raises:
            LockNotHeld: this client does not lead any more; nothing was announced.
        """
        holds = Compare(self.name, Target.LOCK, Relation.EQUAL, self.token)
        announce = Put(self.name, as_bytes(value), self.lease.identity)
        executed = await self._caller.execute(self.name, Txn((holds,), (announce,)), timeout_s=timeout_s)
        done = expect(TxnResult, executed.result)
        if not done.succeeded:
            raise LockNotHeld(f"election {shown(self.name)} has another leader than token {self.token}")
        return done.revision

    async def __aenter__(self) -> Self:
        await self._lock.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        """Resign."""
        return await self._lock.__aexit__(kind, error, traceback)


async def observe(client: Observer, name: bytes | str) -> AsyncGenerator[Leader | None, None]:
    """Who leads now, then whenever that changes: None while nobody does.

    Only where what happened is compacted before it could be told, leaders are left out. The first answer is
    linearizable; later ones come in order, from the nearest replica.
    """
    key = as_bytes(name)
    found = expect(RangeResult, (await client.query(key, Range(key))).result)
    yield _leader(found.items)
    async with aclosing(_changes(client, key, found.revision + 1)) as changes:
        async for leader in changes:
            yield leader


async def _changes(client: Observer, key: bytes, start_revision: int) -> AsyncGenerator[Leader | None, None]:
    async with client.watch(key, start_revision=start_revision) as watcher:
        async for told in watcher:
            match told:
                case WatchGap(_, items):
                    yield _leader(items)
                case _:
                    yield _leader(() if told.deleted else (told.item,))


def _leader(items: tuple[KeyValue, ...]) -> Leader | None:
    if not items:
        return None
    item = items[0]
    return Leader(item.value, item.lease, item.create_revision, item.mod_revision)
