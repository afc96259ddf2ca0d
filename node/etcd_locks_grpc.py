"""etcd's Lock and Election services, by the recipe of etcd's own clients, so that both can queue for one name.

Who asks puts the key `<name>/<lease in hex>` on its lease, and holds the name once no key below it is older. A caller
that gives up while it waits withdraws its key; one that gives up before its key is known to be there leaves it to the
lease, as in etcd: it may be the key of a lock that it holds.
"""

import asyncio
from collections.abc import Coroutine
from typing import TypeVar, final

from google.protobuf.message import Message

from isochrone.errors import InvariantViolation, IsochroneError, KeyNotFound
from isochrone.node.etcd_calls_grpc import TIMEOUT_S, fail, outside, parsed
from isochrone.node.etcd_group import GroupAccess
from isochrone.node.etcd_work_grpc import Begin, Refused, working
from isochrone.regions.watch_hub import WatchRequest
from isochrone.wire.commands import Operation, Query, Result
from isochrone.wire.etcd.answers_grpc import Speaker, key_value
from isochrone.wire.etcd.errors import Status
from isochrone.wire.etcd.generated import rpc_pb2, v3election_pb2, v3lock_pb2
from isochrone.wire.http2.calls import Call, Methods
from isochrone.wire.kv import (
    Compare,
    DeleteRange,
    Put,
    Range,
    RangeResult,
    Relation,
    SortOrder,
    SortTarget,
    Target,
    Txn,
    TxnResult,
    prefix_end,
)
from isochrone.wire.leases import LeaseGrant, LeaseGrantResult

BACKLOG_BYTES_MAX = 4 << 20
"""Observers rest while more waits for the client."""
SESSION_TTL_MS = 60_000
"""Of the lease that is made for whoever names none, as in etcd."""
NO_LEADER = Status("UNKNOWN", "election: no leader")
NOT_LEADER = Status("UNKNOWN", "election: not leader")
_LOCK, _ELECTION = "/v3lockpb.Lock/", "/v3electionpb.Election/"
_R = TypeVar("_R")


@final
class LockCalls:
    """The Lock and Election services of an endpoint."""

    def __init__(self, access: GroupAccess, speaker: Speaker) -> None:
        self._access = access
        self._speaker = speaker

    def methods(self) -> Methods:
        """By path."""
        work: dict[str, Begin] = {
            f"{_ELECTION}Observe": self._observe,
            f"{_LOCK}Lock": self._lock,
            f"{_LOCK}Unlock": self._unlock,
            f"{_ELECTION}Campaign": self._campaign,
            f"{_ELECTION}Proclaim": self._proclaim,
            f"{_ELECTION}Leader": self._leader,
            f"{_ELECTION}Resign": self._resign,
        }
        return {path: working(begin) for path, begin in work.items()}

    # ---- the calls: what is to be done for a request; None if it is refused

    def _lock(self, call: Call, data: bytes) -> Coroutine[None, None, Message] | None:
        request = parsed(call, v3lock_pb2.LockRequest, data)
        if request is None or not self._serves(call, request.name):
            return None

        async def work() -> Message:
            key, _, _, revision = await self._acquire(request.name, request.lease, b"")
            return v3lock_pb2.LockResponse(header=self._header(revision), key=key)

        return work()

    def _unlock(self, call: Call, data: bytes) -> Coroutine[None, None, Message] | None:
        request = parsed(call, v3lock_pb2.UnlockRequest, data)
        if request is None or not self._serves(call, request.key):
            return None

        async def work() -> Message:
            result = await self._ask(request.key, DeleteRange(request.key))
            return v3lock_pb2.UnlockResponse(header=self._header(result.revision))

        return work()

    def _campaign(self, call: Call, data: bytes) -> Coroutine[None, None, Message] | None:
        request = parsed(call, v3election_pb2.CampaignRequest, data)
        if request is None or not self._serves(call, request.name):
            return None

        async def work() -> Message:
            key, lease, created, revision = await self._acquire(request.name, request.lease, request.value)
            leader = v3election_pb2.LeaderKey(name=request.name, key=key, rev=created, lease=lease)
            return v3election_pb2.CampaignResponse(header=self._header(revision), leader=leader)

        return work()

    def _proclaim(self, call: Call, data: bytes) -> Coroutine[None, None, Message] | None:
        request = parsed(call, v3election_pb2.ProclaimRequest, data)
        if request is None or not self._serves(call, request.leader.key):
            return None
        leader = request.leader

        async def work() -> Message:
            result = await self._as_leader(leader, Put(leader.key, request.value, leader.lease))
            if not result.succeeded:
                raise Refused(NOT_LEADER)
            return v3election_pb2.ProclaimResponse(header=self._header(result.revision))

        return work()

    def _leader(self, call: Call, data: bytes) -> Coroutine[None, None, Message] | None:
        request = parsed(call, v3election_pb2.LeaderRequest, data)
        if request is None or not self._serves(call, request.name):
            return None

        async def work() -> Message:
            found = _expect(RangeResult, await self._ask(request.name, _first_below(request.name)))
            if not found.items:
                raise Refused(NO_LEADER)
            return v3election_pb2.LeaderResponse(header=self._header(found.revision), kv=key_value(found.items[0]))

        return work()

    def _resign(self, call: Call, data: bytes) -> Coroutine[None, None, Message] | None:
        request = parsed(call, v3election_pb2.ResignRequest, data)
        if request is None or not self._serves(call, request.leader.key):
            return None

        async def work() -> Message:
            result = await self._as_leader(request.leader, DeleteRange(request.leader.key))
            return v3election_pb2.ResignResponse(header=self._header(result.revision))

        return work()

    def _observe(self, call: Call, data: bytes) -> Coroutine[None, None, None] | None:
        request = parsed(call, v3election_pb2.LeaderRequest, data)
        if request is None or not self._serves(call, request.name):
            return None
        return self._tell_leaders(call, request.name)

    async def _tell_leaders(self, call: Call, name: bytes) -> None:
        """Tell who leads, and again whenever that or what is proclaimed has changed, as long as the client listens."""
        below, changed = name + b"/", asyncio.Event()
        told: tuple[bytes, int] | None = None
        wanted = WatchRequest(below, prefix_end(below))
        watch = self._access.host.watch(self._access.group, wanted, changed.set)
        try:
            while True:
                changed.clear()
                while (batch := watch.take()) is not None:
                    if batch.compacted is not None:  # then that one is gone; whatever it missed is read below
                        watch = self._access.host.watch(self._access.group, wanted, changed.set)
                found = _expect(RangeResult, await self._ask(name, _first_below(name)))
                if found.items and (found.items[0].key, found.items[0].mod_revision) != told:
                    told = found.items[0].key, found.items[0].mod_revision
                    header = self._header(found.revision)
                    answer = v3election_pb2.LeaderResponse(header=header, kv=key_value(found.items[0]))
                    call.send(answer.SerializeToString())
                if call.backlog_bytes > BACKLOG_BYTES_MAX:
                    drained = asyncio.Event()
                    call.call_when_drained(drained.set)
                    await drained.wait()
                await changed.wait()
        finally:
            watch.cancel()

    # ---- the recipe

    async def _acquire(self, name: bytes, lease: int, value: bytes) -> tuple[bytes, int, int, int]:
        """Queue and wait; returns the key, its lease, its create revision, and the revision of now."""
        if not lease:
            lease = _expect(LeaseGrantResult, await self._ask(name, LeaseGrant(0, SESSION_TTL_MS))).lease
        key = name + b"/%x" % lease
        absent = Compare(key, Target.CREATE, Relation.EQUAL, 0)
        entered = _expect(TxnResult, await self._ask(key, Txn((absent,), (Put(key, value, lease),), (Range(key),))))
        created, present = int(entered.revision), entered.results[0]
        if isinstance(present, RangeResult):
            created = present.items[0].create_revision
        try:
            revision = await self._wait_for_older(name, created)
        except BaseException:
            self._access.ask(key, DeleteRange(key), TIMEOUT_S, _whatever)
            raise
        if not await self._is_there(key, created):
            raise KeyNotFound(f"the lease ended while {key[:64]!r} waited")
        if value and isinstance(present, RangeResult) and present.items[0].value != value:
            revision = int((await self._ask(key, Put(key, value, lease))).revision)
        return key, lease, created, revision

    async def _wait_for_older(self, name: bytes, created: int) -> int:
        """Wait until no key below the name is older; returns the revision at which that was so."""
        below = name + b"/"
        older = Range(
            below,
            prefix_end(below),
            limit=1,
            sort_order=SortOrder.DESCEND,
            sort_target=SortTarget.CREATE,
            keys_only=True,
            max_create_revision=created - 1,
        )
        while True:
            found = _expect(RangeResult, await self._ask(below, older))
            if not found.items:
                return found.revision
            await self._wait_for_deletion(found.items[0].key, found.revision + 1)

    async def _wait_for_deletion(self, key: bytes, revision: int) -> None:
        """Wait until a key may have been deleted, at this revision or later."""
        ready = asyncio.Event()
        wanted = WatchRequest(key, start_revision=revision, puts=False)
        watch = self._access.host.watch(self._access.group, wanted, ready.set)
        try:
            while True:
                batch = watch.take()
                if batch is None:
                    await ready.wait()
                    ready.clear()
                elif batch.events or batch.compacted is not None:
                    return
        finally:
            watch.cancel()

    async def _is_there(self, key: bytes, created: int) -> bool:
        found = _expect(RangeResult, await self._ask(key, Range(key)))
        return bool(found.items) and found.items[0].create_revision == created

    async def _as_leader(self, leader: v3election_pb2.LeaderKey, change: Put | DeleteRange) -> TxnResult:
        """Do something if this is still the leader's key."""
        holds = Compare(leader.key, Target.CREATE, Relation.EQUAL, leader.rev)
        return _expect(TxnResult, await self._ask(leader.key, Txn((holds,), (change,))))

    async def _ask(self, key: bytes, question: Operation | Query) -> Result:
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()

        def told(outcome: Result | IsochroneError) -> None:
            if future.done():
                return  # whoever asked was cancelled
            if isinstance(outcome, IsochroneError):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)

        self._access.ask(key, question, TIMEOUT_S, told)
        return await future

    def _serves(self, call: Call, key: bytes) -> bool:
        refusal = outside(self._access, key)
        if refusal is not None:
            fail(call, refusal)
        return refusal is None

    def _header(self, revision: int) -> rpc_pb2.ResponseHeader:
        return self._speaker.header(revision, self._access.term)


def _first_below(name: bytes) -> Range:
    below = name + b"/"
    return Range(below, prefix_end(below), limit=1, sort_order=SortOrder.ASCEND, sort_target=SortTarget.CREATE)


def _expect(kind: type[_R], result: object) -> _R:
    if not isinstance(result, kind):
        raise InvariantViolation(f"a {type(result).__name__} came for a {kind.__name__}")
    return result


def _whatever(_: Result | IsochroneError) -> None:
    """The key goes with its lease at the latest."""
