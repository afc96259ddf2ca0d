"""Key-value calls with all that they can do: ranges, history, transactions, increments, compaction.

::

    found = await client.kv.range("orders/", prefix=True, limit=100)
    done = await client.kv.txn(
        [Compare(b"orders/1", Target.VERSION, Relation.EQUAL, 0)],
        [Put(b"orders/1", b"new")],
    )

What a call touches lies in one group. Calls are linearizable unless asked otherwise, have a deadline, and raise what
`Client` says.
"""

from collections.abc import Sequence
from typing import Protocol, final

from isochrone.client.answers import as_bytes, expect, shown
from isochrone.client.leases import Caller, Lease
from isochrone.client.results import Queried, StaleRange
from isochrone.errors import ForeignToken, InvalidRequest, StaleToken
from isochrone.wire.commands import Query
from isochrone.wire.fence_gates import NO_TOKEN, fenced, gate_token
from isochrone.wire.kv import (
    Compact,
    CompactResult,
    Compare,
    DeleteRange,
    DeleteResult,
    Increment,
    IncrementResult,
    KvOperation,
    Put,
    PutResult,
    Range,
    RangeResult,
    SortOrder,
    SortTarget,
    Txn,
    TxnResult,
    prefix_end,
)
from isochrone.wire.locks import KeyResult, PutSequential


class KvCaller(Caller, Protocol):
    """What key-value calls need of a client."""

    async def query_nearest(self, key: bytes | str, query: Query, *, timeout_s: float | None = None) -> Queried:
        """See `Client.query_nearest`."""


@final
class Kv:
    """The keys of a cluster; `Client.kv` is one."""

    def __init__(self, caller: KvCaller) -> None:
        """Made by the client."""
        self._caller = caller

    async def range(
        self,
        key: bytes | str,
        *,
        range_end: bytes | str = b"",
        prefix: bool = False,
        limit: int = 0,
        revision: int = 0,
        order: SortOrder = SortOrder.NONE,
        by: SortTarget = SortTarget.KEY,
        keys_only: bool = False,
        count_only: bool = False,
        timeout_s: float | None = None,
    ) -> RangeResult:
        """Read a key, all keys with a prefix, or those from `key` to `range_end`, which is not among them.

        Args:
            key: the key, the prefix, or the start of the range.
            range_end: the end of the range.
            prefix: read everything that begins with `key`.
            limit: most items; 0 for all. `count` of the result is that of the whole range.
            revision: the state as of then; 0 for the present one.
            order: of the items.
            by: what they are sorted by.
            keys_only: leave values out.
            count_only: leave the items out.
            timeout_s: the deadline; the client's if not given.

        Raises:
            RevisionCompacted, FutureRevision: the revision cannot be read any more, or not yet.
        """
        start, end = _bounds(key, range_end, prefix)
        query = Range(
            start,
            end,
            limit,
            revision,
            sort_order=order,
            sort_target=by,
            keys_only=keys_only,
            count_only=count_only,
        )
        return expect(RangeResult, (await self._caller.query(start, query, timeout_s=timeout_s)).result)

    async def range_nearest(
        self,
        key: bytes | str,
        *,
        range_end: bytes | str = b"",
        prefix: bool = False,
        limit: int = 0,
        revision: int = 0,
        keys_only: bool = False,
        timeout_s: float | None = None,
    ) -> StaleRange:
        """Read as `range` does what the nearest replica has applied, be it old; the result tells how old it may be.

        It needs no leader. It may be older than what another replica told before; see `Client.query_nearest`.
        """
        start, end = _bounds(key, range_end, prefix)
        query = Range(start, end, limit, revision, keys_only=keys_only)
        answer = await self._caller.query_nearest(start, query, timeout_s=timeout_s)
        found = expect(RangeResult, answer.result)
        return StaleRange(found=found, group=answer.group, replica=answer.replica, age_s=answer.age_s)

    async def put(
        self,
        key: bytes | str,
        value: bytes | str,
        *,
        lease: Lease | int = 0,
        prev_kv: bool = False,
        timeout_s: float | None = None,
    ) -> PutResult:
        """Set a key, until its lease ends if it is given one. With `prev_kv` the result tells what the key was before.

        Raises:
            LeaseNotFound: there is no such lease in the key's group.
        """
        operation = Put(as_bytes(key), as_bytes(value), _identity(lease), prev_kv)
        return expect(PutResult, (await self._caller.execute(key, operation, timeout_s=timeout_s)).result)

    async def create_sequential(
        self, prefix: bytes | str, value: bytes | str, *, lease: Lease | int = 0, timeout_s: float | None = None
    ) -> bytes:
        """Make a key of its own: `prefix` and a number of 20 digits, larger than in all keys made before in the group.

        Returns the key. With a lease it is ephemeral: it goes when the lease ends. A lost answer makes no second key.

        Raises:
            LeaseNotFound: there is no such lease in the key's group.
        """
        operation = PutSequential(as_bytes(prefix), as_bytes(value), _identity(lease))
        made = expect(KeyResult, (await self._caller.execute(prefix, operation, timeout_s=timeout_s)).result)
        return made.key or b""

    async def delete(
        self,
        key: bytes | str,
        *,
        range_end: bytes | str = b"",
        prefix: bool = False,
        prev_kv: bool = False,
        timeout_s: float | None = None,
    ) -> DeleteResult:
        """Remove a key, all keys with a prefix, or a range. The result counts what was there."""
        start, end = _bounds(key, range_end, prefix)
        operation = DeleteRange(start, end, prev_kv)
        return expect(DeleteResult, (await self._caller.execute(start, operation, timeout_s=timeout_s)).result)

    async def increment(self, key: bytes | str, delta: int = 1, *, timeout_s: float | None = None) -> IncrementResult:
        """Add to a key that holds a decimal number; an absent one counts as 0. The result tells the sum."""
        operation = Increment(as_bytes(key), delta)
        return expect(IncrementResult, (await self._caller.execute(key, operation, timeout_s=timeout_s)).result)

    async def txn(
        self,
        compares: Sequence[Compare],
        then: Sequence[KvOperation],
        otherwise: Sequence[KvOperation] = (),
        *,
        timeout_s: float | None = None,
    ) -> TxnResult:
        """If all compares hold do `then`, else `otherwise`: in one step, at one revision.

        Raises:
            InvalidRequest: it names no key, too many, or keys of several groups.
            DuplicateKey: it writes a key twice.
        """
        operation = Txn(tuple(compares), tuple(then), tuple(otherwise))
        key = first_key(operation)
        if key is None:
            raise InvalidRequest("a transaction without any key has no group")
        return expect(TxnResult, (await self._caller.execute(key, operation, timeout_s=timeout_s)).result)

    async def fenced(
        self,
        gate: bytes | str,
        lock: bytes | str,
        token: int,
        *operations: KvOperation,
        timeout_s: float | None = None,
    ) -> TxnResult:
        """Do `operations` in one step, unless a later holder of the lock has been at the gate.

        Args:
            gate: a key that remembers the highest token that it let pass, and the lock of the first one. All writes
                that one lock guards name the same gate; it lies in their group.
            lock: the name of the lock or election under which this is done.
            token: of that grant.
            operations: what to do.
            timeout_s: the deadline; the client's if not given.

        Raises:
            StaleToken: the gate has seen a larger token; nothing was done, and trying again does not help.
            ForeignToken: the gate belongs to another lock, or is none; nothing was done.
            InvalidRequest: no grant has such a token.
        """
        gate, lock = as_bytes(gate), as_bytes(lock)
        change = fenced(gate, lock, token, *operations)
        done = expect(TxnResult, (await self._caller.execute(gate, change, timeout_s=timeout_s)).result)
        if done.succeeded:
            return done
        (found,) = done.results
        held = [item.value for item in found.items] if isinstance(found, RangeResult) else []
        if held and gate_token(held[0], lock) == NO_TOKEN:
            raise ForeignToken(f"the gate {shown(gate)} belongs to another lock than {shown(lock)}")
        raise StaleToken(f"the gate {shown(gate)} has seen a larger token of lock {shown(lock)} than {token}")

    async def compact(self, key: bytes | str, revision: int, *, timeout_s: float | None = None) -> CompactResult:
        """Forget what is superseded at `revision`, in the whole group of `key`."""
        return expect(CompactResult, (await self._caller.execute(key, Compact(revision), timeout_s=timeout_s)).result)


def first_key(txn: Txn) -> bytes | None:
    """A key that a transaction touches, by which its group is found; None if it touches none."""
    for part in (*txn.compares, *txn.success, *txn.failure):
        key = first_key(part) if isinstance(part, Txn) else part.key
        if key is not None:
            return key
    return None


def _identity(lease: Lease | int) -> int:
    return lease.identity if isinstance(lease, Lease) else lease


def _bounds(key: bytes | str, range_end: bytes | str, prefix: bool) -> tuple[bytes, bytes]:
    start, end = as_bytes(key), as_bytes(range_end)
    if prefix and end:
        raise InvalidRequest("a range has one end: that of a prefix, or the one given")
    return start, prefix_end(start) if prefix else end
