"""The lock family: locks with queues, fencing tokens and lock-delay, and the keys that recipes are made of.

What decides, decides here, by entry timestamps: who is granted, who has waited too long, who breaks a deadlock. A lock
that only time can move tells when (`LockMoment`), and the leader logs a tick then, which does what is due.

Every grant has a token, larger than all before it in its keyspace: `epoch * 2**32 + counter`. The epoch rises when the
counter is full, and when it is asked for (`RaiseTokenEpoch`): by whoever has restored the keyspace from a copy, or
moves it. So tokens are never used twice, and later ones are larger.
"""

import struct

import msgpack

from isochrone.errors import Deadlock, InvalidRequest, LeaseNotFound, LockHeld, LockNotHeld, LockOrder, QueueFull
from isochrone.ids import NS_PER_MS
from isochrone.probes import probe
from isochrone.regions.state.kv import READ_BYTES_MAX, remove_key, set_key
from isochrone.regions.state.lock_table import (
    Ghost,
    Lock,
    Request,
    covers,
    joined,
    needed_above,
    parent_of,
)
from isochrone.regions.state.model import (
    TABLE_LOCKS,
    ApplyContext,
    GroupData,
    Handlers,
    Happening,
    KeyspaceState,
    LockMoment,
    LockNotice,
)
from isochrone.wire.commands import Operation
from isochrone.wire.kv import PackedResult
from isochrone.wire.locks import (
    KEY_RESULT,
    LOCK_QUERY_RESULT,
    LOCK_RESULT,
    RAISE_TOKEN_EPOCH,
    TOKEN_COUNTER_BITS,
    TOKEN_EPOCH_MAX,
    LockAcquire,
    LockEnd,
    LockMode,
    LockQuery,
    LockRelease,
    LockWait,
    LockWithdraw,
    PutSequential,
    RaiseTokenEpoch,
    TakeFirst,
)
from isochrone.wire.pack import pack
from isochrone.wire.records import record_key, record_lease, record_value

WAITING_MAX = 2_000
"""Most requests that wait for one lock; beyond, `QueueFull`. A search for a cycle may have to look at all of them."""
LOCKS_PER_LEASE_MAX = 10_000
"""Most locks that one lease holds or waits for; beyond, `QueueFull`."""

_NAME = struct.Struct(">H")
_TICKET = struct.Struct(">Q")
_TOKEN_KEY = _NAME.pack(0)


# ---- operations


def apply_acquire(context: ApplyContext, operation: Operation) -> PackedResult:
    """Handler of `LockAcquire`."""
    assert isinstance(operation, LockAcquire)
    data, name, lease = context.data, operation.name, operation.lease
    state = data.keyspace_of(name)
    if lease not in data.leases:
        raise LeaseNotFound("requested lease not found")
    _pass_time(context, state, name)
    lock = data.locks.locks.get(name) or Lock()
    held, waiting = lock.held.get(lease), lock.waiting_of(lease)
    if held is not None and (held.request == operation.request or (waiting is None and _adds_nothing(held, operation))):
        return _result(context, LockEnd.GRANTED, held)
    if waiting is not None:
        if waiting.request != operation.request:
            raise InvalidRequest(f"lease {lease} waits for lock {name[:64]!r} already, by request {waiting.request}")
        return _result(context, LockEnd.WAITING, waiting)
    request = _new_request(context, operation, held)
    if request.hierarchical:
        _check_parent(data, state, request, name)
    free = lock.admits(lease, request.mode) and not (lock.converting or (held is None and lock.queued))
    _check_room(data, lock, name, operation, free=free)
    data.locks.locks[name] = lock
    data.locks.enter(name, request, _parent(state, name, request))
    if free:
        context.happened.append(Happening.LOCK_GRANTED)
        _grant(context, state, name, request)
    else:
        data.locks.wait(name, request)
        _write_row(context, state, name, request)
    _end_cycles(context, name, request)
    _note_moment(context, name)
    return _result(context, LockEnd.GRANTED if request.token else LockEnd.WAITING, request)


def _adds_nothing(held: Request, operation: LockAcquire) -> bool:
    return (
        covers(held.mode, operation.mode)
        and (held.hierarchical or not operation.hierarchical)
        and (held.announce or not operation.announce)
    )


def _new_request(context: ApplyContext, operation: LockAcquire, held: Request | None) -> Request:
    """A conversion adds to what its lease holds, and takes nothing from it."""
    waits_ms = operation.wait_ms
    announces_before = held is not None and held.announce and not operation.announce
    return Request(
        lease=operation.lease,
        request=operation.request,
        mode=operation.mode if held is None else joined(held.mode, operation.mode),
        ticket=context.timestamp,
        deadline=context.timestamp + waits_ms * NS_PER_MS if waits_ms > 0 else 0,
        delay_ms=max(operation.delay_ms, held.delay_ms if held else 0),
        hierarchical=operation.hierarchical or (held is not None and held.hierarchical),
        announce=operation.announce or announces_before,
        value=held.value if held is not None and announces_before else operation.value,
        converts=held is not None,
    )


def _check_room(data: GroupData, lock: Lock, name: bytes, operation: LockAcquire, *, free: bool) -> None:
    if not free and not operation.wait_ms:
        raise LockHeld(f"lock {name[:64]!r} is held or waited for in a mode that excludes {operation.mode.name}")
    if not free and lock.waiting_count >= WAITING_MAX:
        raise QueueFull(f"{lock.waiting_count} requests wait for lock {name[:64]!r} already")
    owned = data.locks.owners.get(operation.lease, {})
    if len(owned) >= LOCKS_PER_LEASE_MAX and name not in owned:
        raise QueueFull(f"lease {operation.lease} has {len(owned)} locks already")


def _parent(state: KeyspaceState, name: bytes, request: Request) -> bytes | None:
    """The lock that a request rests on."""
    return parent_of(name, state.prefix) if request.hierarchical else None


def _check_parent(data: GroupData, state: KeyspaceState, request: Request, name: bytes) -> None:
    parent = parent_of(name, state.prefix)
    if parent is None:
        return
    above = data.locks.locks.get(parent)
    held = above.held.get(request.lease) if above else None
    if held is None or not covers(held.mode, needed_above(request.mode)):
        needed = needed_above(request.mode).name
        raise LockOrder(f"lock {name[:64]!r} needs {parent[:64]!r} held in {needed} first, by the same lease")


def _end_cycles(context: ApplyContext, name: bytes, request: Request) -> None:
    """End the youngest request of every cycle of waits that a request closes, be it granted or waiting.

    The youngest is the one of the lease that has begun last with what it now holds or waits for.
    """
    table = context.data.locks
    while cycle := table.cycle(name, request.lease):
        probe("locks.deadlock")
        at, victim = max(cycle, key=lambda item: (table.started(item[1].lease), item[1].lease, item[1].ticket))
        state = context.data.keyspace_of(at)
        _end_waiting(context, state, at, victim, LockEnd.DEADLOCK)
        if victim is request:
            raise Deadlock(f"waiting for lock {name[:64]!r} would close a cycle of {len(cycle)} waits")
        _advance(context, state, at)


def apply_release(context: ApplyContext, operation: Operation) -> PackedResult:
    """Handler of `LockRelease`."""
    assert isinstance(operation, LockRelease)
    data, name, lease = context.data, operation.name, operation.lease
    state = data.keyspace_of(name)
    lock = data.locks.locks.get(name)
    held = lock.held.get(lease) if lock else None
    if lock is None or held is None or operation.token not in (0, held.token):
        raise LockNotHeld(f"lock {name[:64]!r} is not held by lease {lease} with this token")
    if (lease, name) in data.locks.below:
        raise LockOrder(f"what lies below lock {name[:64]!r} is to be given up first; lease {lease} has locks there")
    converting = lock.waiting_of(lease)
    if converting is not None:
        _end_waiting(context, state, name, converting, LockEnd.WITHDRAWN)
    _give_up(context, state, name, held, clean=True)
    _advance(context, state, name)
    _note_moment(context, name)
    return _result(context, LockEnd.WITHDRAWN, held)


def apply_withdraw(context: ApplyContext, operation: Operation) -> PackedResult:
    """Handler of `LockWithdraw`."""
    assert isinstance(operation, LockWithdraw)
    data, name, lease = context.data, operation.name, operation.lease
    state = data.keyspace_of(name)
    _pass_time(context, state, name)
    lock = data.locks.locks.get(name)
    waiting = lock.waiting_of(lease) if lock else None
    if waiting is not None and waiting.request == operation.request:
        _end_waiting(context, state, name, waiting, LockEnd.WITHDRAWN)
        _advance(context, state, name)
        _note_moment(context, name)
        return _result(context, LockEnd.WITHDRAWN, waiting)
    held = lock.held.get(lease) if lock else None
    if held is None or held.request != operation.request:
        raise LockNotHeld(f"lease {lease} neither waits for lock {name[:64]!r} by this request nor holds it by that")
    return _result(context, LockEnd.GRANTED, held)


def end_lease_locks(context: ApplyContext, lease: int, *, clean: bool) -> None:
    """A lease has ended: what it held is free, after the lock-delay if that was not its owner's wish."""
    data = context.data
    for name in sorted(data.locks.owners.get(lease, ())):
        state, lock = data.keyspace_of(name), data.locks.locks[name]
        waiting, held = lock.waiting_of(lease), lock.held.get(lease)
        if waiting is not None:
            _end_waiting(context, state, name, waiting, LockEnd.LEASE_ENDED)
        if held is not None:
            _give_up(context, state, name, held, clean=clean)
        _advance(context, state, name)
        _note_moment(context, name)


def tick_lock(context: ApplyContext, name: bytes) -> None:
    """Do what time has made due at a lock."""
    _pass_time(context, context.data.keyspace_of(name), name)
    _note_moment(context, name)


# ---- how a lock moves


def _pass_time(context: ApplyContext, state: KeyspaceState, name: bytes) -> None:
    lock = context.data.locks.locks.get(name)
    if lock is None or not (moment := lock.next_moment()) or moment > context.timestamp:
        return
    for ghost in [ghost for ghost in lock.ghosts if ghost.until <= context.timestamp]:
        lock.ghosts.remove(ghost)
        context.rows[state.keyspace, TABLE_LOCKS, _row_key(name, ghost.ticket)] = None
    for request in lock.late(context.timestamp):
        _end_waiting(context, state, name, request, LockEnd.TIMED_OUT)
    _advance(context, state, name)


def _advance(context: ApplyContext, state: KeyspaceState, name: bytes) -> None:
    """Grant in order, as far as possible."""
    lock = context.data.locks.locks.get(name)
    while lock is not None and (request := lock.first) is not None and lock.admits(request.lease, request.mode):
        context.data.locks.end_wait(name, request)
        _grant(context, state, name, request)
        context.lock_notices.append(_notice(context, name, request, LockEnd.GRANTED))
    if lock is not None and lock.idle:
        del context.data.locks.locks[name]


def _grant(context: ApplyContext, state: KeyspaceState, name: bytes, request: Request) -> None:
    lock = context.data.locks.locks[name]
    before = lock.drop(request.lease)
    if before is not None:
        _forget(context, state, name, before)
    request.token = _next_token(context, state)
    request.converts = False
    lock.hold(request)
    _write_row(context, state, name, request)
    if request.announce:
        set_key(context, state, name, request.value, request.lease, state.history.current(name))


def _give_up(context: ApplyContext, state: KeyspaceState, name: bytes, held: Request, *, clean: bool) -> None:
    lock = context.data.locks.locks[name]
    lock.drop(held.lease)
    _forget(context, state, name, held)
    if not clean and held.delay_ms:
        probe("locks.delay")
        ghost = Ghost(held.mode, context.timestamp + held.delay_ms * NS_PER_MS, held.ticket)
        lock.ghosts.append(ghost)
        lock.ghosts.sort(key=lambda ghost: ghost.ticket)
        context.rows[state.keyspace, TABLE_LOCKS, _row_key(name, ghost.ticket)] = pack((int(ghost.mode), ghost.until))
    announced = state.history.current(name) if held.announce else None
    if announced is not None and record_lease(announced) == held.lease:
        remove_key(context, state, name, announced)


def _end_waiting(context: ApplyContext, state: KeyspaceState, name: bytes, request: Request, end: LockEnd) -> None:
    context.data.locks.end_wait(name, request)
    _forget(context, state, name, request)
    context.lock_notices.append(_notice(context, name, request, end))


def _forget(context: ApplyContext, state: KeyspaceState, name: bytes, request: Request) -> None:
    """A request neither holds the lock nor waits for it any more."""
    context.rows[state.keyspace, TABLE_LOCKS, _row_key(name, request.ticket)] = None
    context.data.locks.leave(name, request, _parent(state, name, request))


def _notice(context: ApplyContext, name: bytes, request: Request, end: LockEnd) -> LockNotice:
    waited_ns = context.timestamp - request.ticket
    return LockNotice(name, request.lease, request.request, end, request.token, request.mode, waited_ns)


def _next_token(context: ApplyContext, state: KeyspaceState) -> int:
    token = state.token + 1
    if token & ((1 << TOKEN_COUNTER_BITS) - 1) == 0:
        token += 1  # the counter was full: the sum has raised the epoch, whose counters begin at 1
    _set_token(context, state, token)
    return token


def _set_token(context: ApplyContext, state: KeyspaceState, token: int) -> None:
    state.token = token
    context.rows[state.keyspace, TABLE_LOCKS, _TOKEN_KEY] = pack(token)


def _note_moment(context: ApplyContext, name: bytes) -> None:
    lock = context.data.locks.locks.get(name)
    context.lock_moments.append(LockMoment(name, lock.next_moment() if lock else 0))


def _result(context: ApplyContext, end: LockEnd, request: Request) -> PackedResult:
    token = request.token if end is LockEnd.GRANTED else 0
    return (LOCK_RESULT, context.data.revision, context.timestamp, int(end), token, int(request.mode))


# ---- tokens


def apply_raise_token_epoch(context: ApplyContext, operation: Operation) -> PackedResult:
    """Handler of `RaiseTokenEpoch`."""
    assert isinstance(operation, RaiseTokenEpoch)
    state = context.data.keyspace_of(operation.key)
    before = state.token >> TOKEN_COUNTER_BITS
    epoch = max(before, operation.above) + 1
    if epoch > TOKEN_EPOCH_MAX:
        raise InvalidRequest(f"the tokens of keyspace {state.keyspace!r} have epoch {before}: none above is left")
    _set_token(context, state, epoch << TOKEN_COUNTER_BITS)
    return (RAISE_TOKEN_EPOCH, context.data.revision, context.timestamp, epoch, before)


# ---- keys for recipes


def apply_put_sequential(context: ApplyContext, operation: Operation) -> PackedResult:
    """Handler of `PutSequential`: the number is the revision, so it rises with every key that is made."""
    assert isinstance(operation, PutSequential)
    data = context.data
    number = data.revision + 1
    while data.keyspace_of(key := b"%s%020d" % (operation.prefix, number)).history.current(key) is not None:
        number += 1  # somebody has put it there under the number's name
    state = data.keyspace_of(key)
    if operation.lease and operation.lease not in data.leases:
        raise LeaseNotFound("requested lease not found")
    set_key(context, state, key, operation.value, operation.lease, state.history.current(key))
    return (KEY_RESULT, data.revision, context.timestamp, key, operation.value)


def apply_take_first(context: ApplyContext, operation: Operation) -> PackedResult:
    """Handler of `TakeFirst`."""
    assert isinstance(operation, TakeFirst)
    data = context.data
    for state, start, end in data.parts(operation.key, operation.range_end):
        record = next(state.history.between(start, end), None)
        if record is not None:
            key = record_key(record)
            remove_key(context, state, key, record)
            return (KEY_RESULT, data.revision, context.timestamp, key, record_value(record))
    return (KEY_RESULT, data.revision, context.timestamp, None, b"")


# ---- queries


def answer_wait(data: GroupData, query: LockWait) -> PackedResult | None:
    """How a request stands; None while it waits.

    Raises `LockNotHeld` if it neither waits nor was granted. HAZARD: the lease may hold the lock all the same, by an
    earlier request and in a weaker mode: a conversion that has failed is not to be taken for that.
    """
    data.keyspace_of(query.name)
    lock = data.locks.locks.get(query.name)
    waiting = lock.waiting_of(query.lease) if lock else None
    if waiting is not None and waiting.request == query.request:
        return None
    held = lock.held.get(query.lease) if lock else None
    if held is None or held.request != query.request:
        name = query.name[:64]
        raise LockNotHeld(f"lease {query.lease} neither waits for lock {name!r} by this request nor holds it by that")
    return (LOCK_RESULT, data.revision, data.timestamp, int(LockEnd.GRANTED), held.token, int(held.mode))


def answer_query(data: GroupData, query: LockQuery) -> PackedResult:
    """Holders by token, then those that wait, in order."""
    data.keyspace_of(query.name)
    lock = data.locks.locks.get(query.name) or Lock()
    requests = sorted(lock.held.values(), key=lambda request: request.token) + lock.waiting
    size_bytes = sum(len(request.value) for request in requests)
    if size_bytes > READ_BYTES_MAX:
        raise InvalidRequest(f"what is to be told of lock {query.name[:64]!r} exceeds {READ_BYTES_MAX} bytes")
    views = [
        (request.lease, request.request, int(request.mode), request.token, request.ticket, request.value)
        for request in requests
    ]
    until = max((ghost.until for ghost in lock.ghosts), default=0)
    return (LOCK_QUERY_RESULT, data.revision, data.timestamp, views, until)


def holds_token(data: GroupData, name: bytes, token: int) -> bool:
    """Whether a token is that of somebody who holds the lock now."""
    lock = data.locks.locks.get(name)
    return lock is not None and any(held.token == token for held in lock.held.values())


# ---- rows


def _row_key(name: bytes, ticket: int) -> bytes:
    return _NAME.pack(len(name)) + name + _TICKET.pack(ticket)


def _write_row(context: ApplyContext, state: KeyspaceState, name: bytes, request: Request) -> None:
    row = pack(
        (
            int(request.mode),
            request.deadline,
            request.lease,
            request.request,
            request.delay_ms,
            request.hierarchical,
            request.announce,
            request.value,
            request.token,
            request.converts,
        )
    )
    context.rows[state.keyspace, TABLE_LOCKS, _row_key(name, request.ticket)] = row


def restore_lock_row(data: GroupData, state: KeyspaceState, key: bytes, value: bytes) -> None:
    """Take over a row; rows of one lock come in the order of their tickets, as they waited."""
    if key == _TOKEN_KEY:
        state.token = msgpack.unpackb(value)
        return
    (length,) = _NAME.unpack_from(key)
    name = key[_NAME.size : _NAME.size + length]
    (ticket,) = _TICKET.unpack_from(key, _NAME.size + length)
    mode, until, *rest = msgpack.unpackb(value)
    lock = data.locks.locks.setdefault(name, Lock())
    if not rest:
        lock.ghosts.append(Ghost(LockMode(mode), until, ticket))
        return
    lease, number, delay_ms, hierarchical, announce, text, token, converts = rest
    request = Request(
        lease, number, LockMode(mode), ticket, until, delay_ms, hierarchical, announce, text, token, converts
    )
    if token:
        lock.hold(request)
    else:
        data.locks.wait(name, request)
    data.locks.enter(name, request, _parent(state, name, request))


LOCK_HANDLERS: Handlers = {
    LockAcquire: apply_acquire,
    LockRelease: apply_release,
    LockWithdraw: apply_withdraw,
    PutSequential: apply_put_sequential,
    TakeFirst: apply_take_first,
    RaiseTokenEpoch: apply_raise_token_epoch,
}
"""The lock family, for registration."""
