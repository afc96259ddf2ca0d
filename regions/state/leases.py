"""Leases as every replica knows them: which there are, what hangs on them, and what the log says of their time.

Only the leader measures time (`regions.lessor`). Here is what must survive it: the time to live, the time left as last
noted (the checkpoint), and the generation, which every logged renewal raises. A leader's commands are judged here:

- An expiry carries the term and the generation under which it was decided. One that waited in a former leader's queue
  has another term than its entry (etcd#15247); one that a renewal overtook has another generation.
- A checkpoint only ever lowers what is noted, until a renewal clears it. So time that a lease has spent under one
  leader is not given back by the next (etcd#17132).
"""

import struct
from typing import cast

import msgpack

from isochrone.errors import InvalidRequest, LeaseExists, LeaseNotFound, QueueFull
from isochrone.ids import KeyspaceId
from isochrone.probes import probe
from isochrone.regions.state.kv import READ_BYTES_MAX, remove_key
from isochrone.regions.state.locks import end_lease_locks
from isochrone.regions.state.model import (
    TABLE_LEASES,
    ApplyContext,
    GroupData,
    Handlers,
    Happening,
    Lease,
    LeaseChange,
    LeaseEvent,
)
from isochrone.wire.commands import Operation
from isochrone.wire.kv import PackedResult
from isochrone.wire.leases import (
    LEASE_GRANT,
    LEASE_LIST,
    LEASE_REVOKE,
    LEASE_TIME_TO_LIVE,
    LEASE_TTL_MS_MIN,
    LeaseCheckpoint,
    LeaseExpire,
    LeaseGrant,
    LeaseHousekeeping,
    LeaseRenew,
    LeaseRevoke,
    LeaseTimeToLive,
)
from isochrone.wire.pack import pack

LEASES_MAX = 250_000
"""Most leases of one group; granting more is refused with `QueueFull`."""

_U64 = struct.Struct(">Q")
_ID_MASK = (1 << 63) - 1


def apply_grant(context: ApplyContext, operation: Operation) -> PackedResult:
    """Handler of `LeaseGrant`."""
    assert isinstance(operation, LeaseGrant)
    data = context.data
    identity = operation.lease
    if identity in data.leases:
        raise LeaseExists("lease already exists")
    if len(data.leases) >= LEASES_MAX:
        raise QueueFull(f"group {data.group} has {LEASES_MAX} leases")
    if not identity:
        identity = context.timestamp & _ID_MASK  # unique in the log, unless a client chose it
        while identity in data.leases:
            identity += 1
    ttl_ms = max(operation.ttl_ms, LEASE_TTL_MS_MIN)
    data.leases[identity] = Lease(context.home.keyspace, ttl_ms)
    _write_row(context, identity)
    context.lease_events.append(LeaseEvent(LeaseChange.GRANTED, identity))
    return (LEASE_GRANT, data.revision, context.timestamp, identity, ttl_ms)


def apply_revoke(context: ApplyContext, operation: Operation) -> PackedResult:
    """Handler of `LeaseRevoke`."""
    assert isinstance(operation, LeaseRevoke)
    if operation.lease not in context.data.leases:
        raise LeaseNotFound("requested lease not found")
    end_lease(context, operation.lease, clean=True)
    return (LEASE_REVOKE, context.data.revision, context.timestamp)


def end_lease(context: ApplyContext, identity: int, *, clean: bool) -> None:
    """Remove the lease, its keys at one revision, and what else it holds. `clean`: its owner wanted that."""
    lease = context.data.leases[identity]
    for key in sorted(context.data.attached.get(identity, ())):
        state = context.data.keyspace_of(key)
        held = state.history.current(key)
        assert held is not None, key
        remove_key(context, state, key, held)
    del context.data.leases[identity]
    end_lease_locks(context, identity, clean=clean)
    context.rows[lease.keyspace, TABLE_LEASES, _U64.pack(identity)] = None
    context.lease_events.append(LeaseEvent(LeaseChange.ENDED, identity))


def apply_lease_command(context: ApplyContext, command: LeaseHousekeeping) -> bool:
    """Do what a leader logged on its own, if it still stands. Returns whether it did."""
    lease = context.data.leases.get(command.lease)
    if lease is None:
        return False
    match command:
        case LeaseExpire(identity, term, generation):
            if term != context.term or generation != lease.generation:
                probe("leases.expiry_overtaken")
                context.lease_events.append(LeaseEvent(LeaseChange.KEPT, identity))
                return False
            context.happened.append(Happening.LEASE_EXPIRED)
            end_lease(context, identity, clean=False)
            return True
        case LeaseCheckpoint(identity, term, remaining_ms):
            if term == context.term:
                held = lease.ttl_ms if lease.checkpoint_ms is None else lease.checkpoint_ms
                lease.checkpoint_ms = min(held, remaining_ms)
                _write_row(context, identity)
            context.lease_events.append(LeaseEvent(LeaseChange.CHECKPOINTED, identity))
            return term == context.term
        case LeaseRenew(identity):
            lease.checkpoint_ms = None
            lease.generation += 1
            _write_row(context, identity)
            context.lease_events.append(LeaseEvent(LeaseChange.RENEWED, identity))
            return True


def time_to_live(data: GroupData, query: LeaseTimeToLive, remaining_ms: int) -> PackedResult:
    """Answer a query; `remaining_ms` is what the leader measured."""
    lease = data.leases.get(query.lease)
    if lease is None:
        return (LEASE_TIME_TO_LIVE, data.revision, data.timestamp, query.lease, 0, -1, ())
    keys = sorted(data.attached.get(query.lease, ())) if query.keys else ()
    if sum(map(len, keys)) > READ_BYTES_MAX:
        raise InvalidRequest(f"the {len(keys)} keys of lease {query.lease} have more than {READ_BYTES_MAX} bytes")
    return (LEASE_TIME_TO_LIVE, data.revision, data.timestamp, query.lease, lease.ttl_ms, remaining_ms, keys)


def list_leases(data: GroupData) -> PackedResult:
    """Answer a query."""
    return (LEASE_LIST, data.revision, data.timestamp, sorted(data.leases))


def restore_lease(data: GroupData, keyspace: KeyspaceId, key: bytes, value: bytes) -> None:
    """Take over a lease's row."""
    ttl_ms, checkpoint_ms, generation = msgpack.unpackb(value)
    data.leases[cast("int", _U64.unpack(key)[0])] = Lease(keyspace, ttl_ms, checkpoint_ms, generation)


def _write_row(context: ApplyContext, identity: int) -> None:
    lease = context.data.leases[identity]
    row = pack((lease.ttl_ms, lease.checkpoint_ms, lease.generation))
    context.rows[lease.keyspace, TABLE_LEASES, _U64.pack(identity)] = row


LEASE_HANDLERS: Handlers = {LeaseGrant: apply_grant, LeaseRevoke: apply_revoke}
"""The lease family, for registration."""
