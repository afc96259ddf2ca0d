"""The SDK's client: linearizable key-value calls, routed to whoever can answer them.

The life of a write: `Client` checks it and finds its keyspace's group in the directory; `writer` gives it a place in
the keyspace's session; `dispatch` sends it to the group's leader, again if need be, as `attempts` decides; the answer
becomes a result that says where it comes from.

**Deadlines.** Every call has one. It bounds everything: finding a leader, opening a session, waiting for a place, and
all attempts. Waiting for others (`wait_s`) is limited by the client's deadline as well, unless another limit is given;
`FOREVER` is one, and has to be asked for. Only what is iterated over waits without one: watches, and what is made of
them; `asyncio.timeout` is for those.

**Errors.** `Rejected` (with `Unavailable`: nothing was sent, or every attempt was refused) and `InvalidRequest` mean
that the call surely had no effect; `Indeterminate` that it may have had. A read has no effect either way; it raises
`DeadlineExceeded` when it was sent and not answered in time, so that both kinds of call report a silent group alike.
"""

import asyncio
import math
import random
from collections.abc import AsyncGenerator, Awaitable, Sequence
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Self, final

from isochrone.client import telemetry
from isochrone.client.answers import as_bytes, expect, wait_limit_s
from isochrone.client.connection import Connector
from isochrone.client.dispatch import Dispatcher
from isochrone.client.elections import Election, Leader, observe
from isochrone.client.endpoints import check_endpoints
from isochrone.client.held_together import HeldSession
from isochrone.client.kv import Kv
from isochrone.client.lease_calls import Leases
from isochrone.client.leases import Lease, LeaseClock, LoopClock
from isochrone.client.listing import list_all
from isochrone.client.locks import Lock
from isochrone.client.reads import Reads
from isochrone.client.recipes import Recipes
from isochrone.client.results import (
    Executed,
    Provenance,
    Queried,
    ReadResult,
    Statistics,
    WriteResult,
    Written,
    read_result,
    write_result,
)
from isochrone.client.routing import Route
from isochrone.client.watches import Watcher
from isochrone.client.writer import Writer
from isochrone.errors import InvalidRequest
from isochrone.ids import GroupId, KeyspaceId
from isochrone.wire.commands import (
    Operation,
    Query,
    check_operation,
    check_query,
    decode_result,
    encode_query,
)
from isochrone.wire.kv import (
    Compare,
    DeleteRange,
    KvOperation,
    Put,
    Range,
    RangeResult,
    Relation,
    Target,
    Txn,
    check_key,
    prefix_end,
)
from isochrone.wire.locks import LockAcquire, LockMode
from isochrone.wire.messages import PROTOCOL_VERSION
from isochrone.wire.session import Answer, ClientHello, ReadRequest, WatchCreate

if TYPE_CHECKING:
    from isochrone.wire.shaper_os import Shaper

LOCK_TTL_S = 30.0
"""Time to live of leases and locks that name none."""
CLOSE_TIMEOUT_S = 1.0
"""How long closing a client may take to tell groups that its sessions are over."""


@final
class Client:
    """A connection to a cluster. Use it as an async context manager, or `close` it; from one event loop only.

    Keys and values are bytes; text is encoded as UTF-8.
    """

    def __init__(self, dispatcher: Dispatcher, timeout_s: float, rng: random.Random, clock: LeaseClock) -> None:
        """Made by `connect`."""
        self._clock = clock
        self._dispatcher = dispatcher
        self._timeout_s = timeout_s
        self._rng = rng
        self._loop = asyncio.get_running_loop()
        self._writers: dict[KeyspaceId, Writer] = {}
        self._reads = Reads(dispatcher)
        self._closed = False
        self.kv = Kv(self)
        """Ranges, transactions, increments: all that can be done to keys."""
        self.leases = Leases(self)
        """Leases by their ids, for tools; programs use `lease` or `session`."""
        self.recipes = Recipes(self, rng)
        """Membership, barriers, queues."""

    @classmethod
    async def connect(
        cls,
        endpoints: Sequence[str],
        *,
        region: str,
        zone: str = "",
        name: str = "",
        timeout_s: float = 10.0,
        shaper: "Shaper | None" = None,
        connector: Connector | None = None,
        rng: random.Random | None = None,
        clock: LeaseClock | None = None,
    ) -> "Client":
        """Connect to a cluster through any of its nodes.

        Args:
            endpoints: addresses (`host:port`) of some nodes; the others are learned from the first that answers.
            region: where this process runs.
            zone: the zone in it; in a local deployment links are shaped by it.
            name: for the logs and metrics of nodes.
            timeout_s: deadline of connecting, of calls that name none, and of waits for others (for a lock, an
                election, a barrier, an item) that name none.
            shaper: in a local deployment, shapes what this client sends.
            connector: opens streams; gRPC unless given.
            rng: for the jitter of delays; seeded by the operating system unless given.
            clock: for the deadlines of leases; it goes on while the machine is suspended, unless given.

        Raises:
            InvalidRequest: no endpoint was given, one is no address, or the timeout is not positive.
            Unavailable: no endpoint answered in time.
        """
        if not endpoints:
            raise InvalidRequest("no endpoint was given")
        _check_timeout(timeout_s)
        over_grpc = connector is None
        if over_grpc:
            check_endpoints(endpoints)
        if connector is None or rng is None:
            # Loaded only here: all else of the SDK runs without gRPC, as in the simulation.
            from isochrone.client.boot_clock_os import BootClock
            from isochrone.client.connect_grpc import grpc_connector, system_random

            connector = connector or grpc_connector(shaper)
            rng = rng or system_random()
            clock = clock or BootClock()
        dispatcher = Dispatcher(connector, ClientHello(PROTOCOL_VERSION, region, zone, name), rng)
        try:
            await dispatcher.start(endpoints, timeout_s)
        except BaseException:
            await dispatcher.close()
            raise
        client = cls(dispatcher, timeout_s, rng, clock or LoopClock())
        if over_grpc:
            telemetry.count(client)
        return client

    async def put(self, key: bytes | str, value: bytes | str, *, timeout_s: float | None = None) -> WriteResult:
        """Set a key.

        Raises:
            Rejected: surely not applied; safe to try again.
            InvalidRequest: the key or value is too large, or the key lies in no keyspace; not applied.
            Indeterminate: may have been applied, or may yet be: until a write is applied that this client began to the
                same keyspace after this call and all older ones had ended.
        """
        key = as_bytes(key)
        return write_result(await self._write(key, Put(key, as_bytes(value)), timeout_s))

    async def delete(self, key: bytes | str, *, timeout_s: float | None = None) -> WriteResult:
        """Remove a key; `succeeded` is False if it was absent. Raises as `put` does."""
        key = as_bytes(key)
        return write_result(await self._write(key, DeleteRange(key), timeout_s))

    async def compare_and_set(
        self,
        key: bytes | str,
        expected: bytes | str | None,
        value: bytes | str | None,
        *,
        timeout_s: float | None = None,
    ) -> WriteResult:
        """Set a key to `value` (None: remove it) if it now holds `expected` (None: if it is absent).

        If it does not, `succeeded` is False and `previous` is what it holds. Raises as `put` does.
        """
        key = as_bytes(key)
        if expected is None:
            compare = Compare(key, Target.VERSION, Relation.EQUAL, 0)
        else:
            compare = Compare(key, Target.VALUE, Relation.EQUAL, value=as_bytes(expected))
        change: KvOperation = DeleteRange(key) if value is None else Put(key, as_bytes(value))
        return write_result(await self._write(key, Txn((compare,), (change,), (Range(key),)), timeout_s))

    async def get(self, key: bytes | str, *, timeout_s: float | None = None) -> ReadResult:
        """The state of a key, linearizable: it shows every write that ended before this call began.

        Raises:
            Unavailable: the group could not be asked, or refused, until the deadline.
            DeadlineExceeded: the group was asked and did not answer in time.
            InvalidRequest: the key is too large or lies in no keyspace.
        """
        key = as_bytes(key)
        return read_result(key, await self.query(key, Range(key), timeout_s=timeout_s))

    async def execute(self, key: bytes | str, operation: Operation, *, timeout_s: float | None = None) -> Executed:
        """Execute any operation once, in the keyspace of `key`; what it touches must lie in that keyspace's group.

        Raises as `put` does, and whatever the operation can be refused with.
        """
        result, group, replica, session, sequence = await self._write(as_bytes(key), operation, timeout_s)
        return Executed(result, group, replica, session, sequence)

    async def query(self, key: bytes | str, query: Query, *, timeout_s: float | None = None) -> Queried:
        """Ask the leader of the group of `key` any query. Raises as `get` does, and what the query is refused with.

        A `LockWait` lasts as long as the wait, at most until the deadline.
        """
        check_query(query)
        route = self._dispatcher.route(as_bytes(key))
        if isinstance(query, Range):
            found = await self._reads.ask(route, query, self._timeout(timeout_s), applied=False)
            return Queried(decode_result(found.payload), route.group, found.replica)
        deadline = self._loop.time() + self._timeout(timeout_s)
        make = partial(_read_request, route.group, route.keyspace, encode_query(query))
        answer = await self._dispatcher.execute(route.group, deadline, make, Answer)
        return Queried(decode_result(answer.payload), route.group, answer.node)

    async def query_nearest(self, key: bytes | str, query: Query, *, timeout_s: float | None = None) -> Queried:
        """Ask the nearest replica any query that does not need the leader. Raises as `query` does.

        The answer is what that replica has applied, as of the result's revision and commit timestamp. It may be old,
        all the more at a replica that is cut off from its group, and older than what another replica told before.
        `age_s` tells how old at most, where that can be known.
        """
        check_query(query)
        route = self._dispatcher.route(as_bytes(key))
        found = await self._reads.ask(route, query, self._timeout(timeout_s), applied=True)
        return Queried(
            result=decode_result(found.payload),
            group=route.group,
            replica=found.replica,
            provenance=Provenance.STALE,
            age_s=found.age_s,
        )

    def lease(self, key: bytes | str, *, ttl_s: float = LOCK_TTL_S, grace_s: float = 0.0) -> Lease:
        """A lease in the group of `key` while `async with` lasts, renewed until then; see `Lease`.

        If it is lost, its body is cancelled `grace_s` before the lease may end.

        Raises:
            InvalidRequest: the key lies in no keyspace, or the grace is more than half the time to live.
        """
        self._dispatcher.route(as_bytes(key))
        return Lease(self, key, ttl_s, self._clock, self._rng, grace_s)

    def lock(
        self,
        name: bytes | str,
        *,
        ttl_s: float = LOCK_TTL_S,
        grace_s: float = 0.0,
        lease: Lease | None = None,
        wait_s: float | None = None,
        mode: LockMode = LockMode.X,
        delay_s: float = 0.0,
        hierarchical: bool = False,
        announce: bool = False,
        value: bytes | str = b"",
    ) -> Lock:
        """A lock while `async with` lasts; see `Lock`.

        Args:
            name: the lock's; it must lie in a keyspace.
            ttl_s: so long after its holder has gone silent, the lock is free; for a lock with a lease of its own.
            grace_s: so long before its deadline the body is cancelled; for a lock with a lease of its own.
            lease: the lease that it hangs on, entered already. Locks that are held together should share one: then
                deadlocks among them are seen.
            wait_s: how long to wait for it: 0 not at all, `FOREVER` as long as it takes, the client's deadline if not
                given. Each call that is made has the client's deadline beside.
            mode: shared, exclusive, or an intention.
            delay_s: if the holder goes silent, the lock stays closed for so long after it is free.
            hierarchical: only with the lock above held, and given up before it; see `HeldSession.lock_path`.
            announce: put `value` at the key of the lock's name while it is held: an election.
            value: for people, and for `announce`.

        Raises:
            InvalidRequest: the name lies in no keyspace, or a time is none.
        """
        name = as_bytes(name)
        self._dispatcher.route(name)
        if not 0 <= delay_s < math.inf:
            raise InvalidRequest(f"a lock-delay of {delay_s} s; a finite time from 0 is needed")
        acquire = LockAcquire(
            name,
            lease=0,
            request=0,
            mode=mode,
            delay_ms=round(delay_s * 1000),
            hierarchical=hierarchical,
            announce=announce,
            value=as_bytes(value),
        )
        owns_lease = lease is None
        lease = lease or Lease(self, name, ttl_s, self._clock, self._rng, grace_s)
        return Lock(self, acquire, lease, owns_lease, self.wait_limit_s(wait_s), self._clock, self._rng, self.region)

    def election(
        self,
        name: bytes | str,
        value: bytes | str,
        *,
        ttl_s: float = LOCK_TTL_S,
        grace_s: float = 0.0,
        lease: Lease | None = None,
        wait_s: float | None = None,
    ) -> Election:
        """A candidacy, and the leadership while `async with` lasts; see `Election`. The arguments are those of `lock`.

        `value` is what everybody sees of the leader, at the key `name`.
        """
        lock = self.lock(name, ttl_s=ttl_s, grace_s=grace_s, lease=lease, wait_s=wait_s, announce=True, value=value)
        return Election(self, lock)

    def observe(self, name: bytes | str) -> AsyncGenerator[Leader | None, None]:
        """Who leads an election, now and whenever that changes."""
        return observe(self, name)

    def session(self, key: bytes | str, *, ttl_s: float = LOCK_TTL_S, grace_s: float = 0.0) -> HeldSession:
        """One lease for all that is held together in the group of `key`; see `HeldSession`. As for `lease`."""
        return HeldSession(self, self.lease(key, ttl_s=ttl_s, grace_s=grace_s))

    def wait_limit_s(self, wait_s: float | None) -> float:
        """How long to wait for others: what was asked for, else the client's deadline. Raises `InvalidRequest`."""
        return wait_limit_s(wait_s, self._timeout_s)

    def watch(
        self,
        key: bytes | str,
        *,
        range_end: bytes | str = b"",
        prefix: bool = False,
        start_revision: int = 0,
        prev_kv: bool = False,
        puts: bool = True,
        deletes: bool = True,
    ) -> Watcher:
        """Watch a key, all keys with a prefix, or a range within a keyspace's group; see `Watcher` for what it yields.

        Args:
            key: the key, the prefix, or the start of the range; it must lie in a keyspace.
            range_end: end of the range, not included.
            prefix: watch everything that begins with `key`.
            start_revision: the first revision of interest; 0 for whatever is written after a node has answered.
            prev_kv: tell what each key was before.
            puts: tell of keys that are set.
            deletes: tell of keys that are removed.

        Raises:
            InvalidRequest: the key lies in no keyspace or is too large, or the start is no revision.
        """
        key, end = as_bytes(key), as_bytes(range_end)
        check_key(key)
        if self._closed or not 0 <= start_revision < 1 << 63 or (prefix and end):
            raise InvalidRequest("a watch needs an open client, a start from 0 to 2**63 - 1, and one end")
        route = self._dispatcher.route(key)
        end = prefix_end(key) if prefix else end
        create = WatchCreate(0, route.group, key, end, start_revision, prev_kv, puts, deletes)
        return Watcher(self._dispatcher, create, partial(list_all, self._list, key, end), self._rng)

    async def _list(self, query: Range) -> RangeResult:
        return expect(RangeResult, (await self.query(query.key, query)).result)

    def keyspace_of(self, key: bytes | str) -> bytes:
        """The prefix of the keyspace in which a key lies. Raises `InvalidRequest` if there is none."""
        return self._dispatcher.route(as_bytes(key)).prefix

    def keyspace_prefixes(self) -> tuple[bytes, ...]:
        """The prefixes of all keyspaces, in order: every key begins with one of them."""
        return self._dispatcher.directory.prefixes

    @property
    def region(self) -> str:
        """Where this process runs, as said when it connected."""
        return self._dispatcher.region

    def statistics(self) -> Statistics:
        """What this client has done so far."""
        dispatcher = self._dispatcher
        return Statistics(
            attempts=dispatcher.attempts,
            retransmissions=dispatcher.retransmissions,
            reconnects=dispatcher.reconnects,
            leader_changes=dispatcher.leader_changes,
            sessions_opened=sum(writer.sessions_opened for writer in list(self._writers.values())),
            errors=dict(dispatcher.errors),
        )

    async def close(self) -> None:
        """End all calls under way, sessions and connections. Calls get the error that fits what is known of them."""
        if self._closed:
            return
        self._closed = True
        self._dispatcher.abandon_calls("the client was closed")
        try:
            await asyncio.gather(*(writer.close(CLOSE_TIMEOUT_S) for writer in self._writers.values()))
        finally:
            await self._dispatcher.close()
            telemetry.closed(self)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    def _write(self, key: bytes, operation: Operation, timeout_s: float | None) -> Awaitable[Written]:
        check_operation(operation)
        deadline = self._loop.time() + self._timeout(timeout_s)
        route = self._dispatcher.route(key)
        return self._writer(route).write(route.group, operation, deadline)

    def _writer(self, route: Route) -> Writer:
        writer = self._writers.get(route.keyspace)
        if writer is None:
            writer = self._writers[route.keyspace] = Writer(self._dispatcher, route.keyspace, self._rng)
        return writer

    def _timeout(self, timeout_s: float | None) -> float:
        if self._closed:
            raise InvalidRequest("the client is closed")
        if timeout_s is None:
            return self._timeout_s
        _check_timeout(timeout_s)
        return timeout_s


def _read_request(group: GroupId, keyspace: KeyspaceId, query: bytes, request: int, timeout_ms: int) -> ReadRequest:
    return ReadRequest(request, group, keyspace, timeout_ms, query)


def _check_timeout(timeout_s: float) -> None:
    if not 0 < timeout_s < math.inf:
        raise InvalidRequest(f"timeout is {timeout_s} s; a finite time above 0 is needed")
