"""Leases: operations, queries and results of clients, and what the leader logs about leases on its own.

The leader's commands travel in entries of kind `HOUSEKEEPING`, which no client can cause. What they say is judged when
they are applied: one that was decided under an earlier term, or before a renewal that is logged, does nothing.
"""

from dataclasses import dataclass
from typing import TypeAlias, cast

import msgpack

from isochrone.errors import InvalidRequest
from isochrone.ids import Revision, Term, Timestamp
from isochrone.records import quickly_made
from isochrone.wire.forms import Form, by_class, by_tag
from isochrone.wire.kv import PackedResult
from isochrone.wire.pack import pack

LEASE_TTL_MS_MIN = 1_000
"""A shorter time to live is raised to this one."""
LEASE_TTL_MS_MAX = 9_000_000_000_000


@quickly_made
@dataclass(frozen=True, slots=True)
class LeaseGrant:
    """Make a lease. With `lease` 0 the group chooses the id."""

    lease: int
    ttl_ms: int


@quickly_made
@dataclass(frozen=True, slots=True)
class LeaseRevoke:
    """End a lease now: its keys are removed at one revision, its locks are released."""

    lease: int


@quickly_made
@dataclass(frozen=True, slots=True)
class LeaseKeepAlive:
    """Query: let the lease live its whole time from now on. Only the leader can answer."""

    lease: int


@quickly_made
@dataclass(frozen=True, slots=True)
class LeaseTimeToLive:
    """Query: how much time a lease has left, and its keys if `keys` is set. Only the leader can answer."""

    lease: int
    keys: bool = False


@quickly_made
@dataclass(frozen=True, slots=True)
class LeaseList:
    """Query: the ids of all leases of the group."""


@quickly_made
@dataclass(frozen=True, slots=True)
class LeaseGrantResult:
    """What a `LeaseGrant` did."""

    revision: Revision
    timestamp: Timestamp
    lease: int
    ttl_ms: int


@quickly_made
@dataclass(frozen=True, slots=True)
class LeaseRevokeResult:
    """What a `LeaseRevoke` did."""

    revision: Revision
    timestamp: Timestamp


@quickly_made
@dataclass(frozen=True, slots=True)
class LeaseKeepAliveResult:
    """The lease lives for `ttl_ms` from some moment after the question was asked."""

    revision: Revision
    timestamp: Timestamp
    lease: int
    ttl_ms: int


@quickly_made
@dataclass(frozen=True, slots=True)
class LeaseTimeToLiveResult:
    """`remaining_ms` is -1 and `ttl_ms` 0 for a lease that does not exist."""

    revision: Revision
    timestamp: Timestamp
    lease: int
    ttl_ms: int
    remaining_ms: int
    keys: tuple[bytes, ...]


@quickly_made
@dataclass(frozen=True, slots=True)
class LeaseListResult:
    """Ids of leases, in order."""

    revision: Revision
    timestamp: Timestamp
    leases: tuple[int, ...]


LeaseResult: TypeAlias = (
    LeaseGrantResult | LeaseRevokeResult | LeaseKeepAliveResult | LeaseTimeToLiveResult | LeaseListResult
)


@quickly_made
@dataclass(frozen=True, slots=True)
class LeaseExpire:
    """End a lease whose time has run out, unless this was decided under another term or before a logged renewal."""

    lease: int
    term: Term
    generation: int


@quickly_made
@dataclass(frozen=True, slots=True)
class LeaseCheckpoint:
    """Note how much time a lease has left, so that the next leader does not begin anew."""

    lease: int
    term: Term
    remaining_ms: int
    """Below zero: so much of the extra time that a new leader gives has been used."""


@quickly_made
@dataclass(frozen=True, slots=True)
class LeaseRenew:
    """Forget what was noted of a lease's remaining time: it has all of it."""

    lease: int


@quickly_made
@dataclass(frozen=True, slots=True)
class CompactByRule:
    """Compact what is older than `age_ms` by the entry's timestamp, and all but the last `revisions`; 0: no limit."""

    age_ms: int
    revisions: int


@quickly_made
@dataclass(frozen=True, slots=True)
class LockTick:
    """Do what time has made due at a lock: end waits, and a lock-delay."""

    name: bytes


LeaseHousekeeping: TypeAlias = LeaseExpire | LeaseCheckpoint | LeaseRenew
Housekeeping: TypeAlias = LeaseHousekeeping | CompactByRule | LockTick
"""What a leader logs on its own."""

LEASE_GRANT, LEASE_REVOKE, LEASE_KEEP_ALIVE, LEASE_TIME_TO_LIVE, LEASE_LIST = range(20, 25)
LEASE_EXPIRE, LEASE_CHECKPOINT, LEASE_RENEW, COMPACT_BY_RULE, LOCK_TICK = range(25, 30)
"""Tags of operations and of their results. Tags are never given a second meaning."""
LEASE_FORMS = (
    Form(LEASE_GRANT, LeaseGrant, int, int),
    Form(LEASE_REVOKE, LeaseRevoke, int),
    Form(LEASE_KEEP_ALIVE, LeaseKeepAlive, int),
    Form(LEASE_TIME_TO_LIVE, LeaseTimeToLive, int, bool),
    Form(LEASE_LIST, LeaseList),
)
_HOUSEKEEPING_FORMS = (
    Form(LEASE_EXPIRE, LeaseExpire, int, int, int),
    Form(LEASE_CHECKPOINT, LeaseCheckpoint, int, int, int),
    Form(LEASE_RENEW, LeaseRenew, int),
    Form(COMPACT_BY_RULE, CompactByRule, int, int),
    Form(LOCK_TICK, LockTick, bytes),
)
_BY_TAG = by_tag(_HOUSEKEEPING_FORMS)
_BY_CLASS = by_class(_HOUSEKEEPING_FORMS)


def check_lease(operation: LeaseGrant | LeaseRevoke) -> None:
    """Raise `InvalidRequest` for an operation that no state could accept."""
    match operation:
        case LeaseGrant(lease, ttl_ms):
            if lease < 0:
                raise InvalidRequest(f"lease {lease} is negative")
            if not 0 < ttl_ms <= LEASE_TTL_MS_MAX:
                raise InvalidRequest("too large lease TTL" if ttl_ms > 0 else f"lease TTL is {ttl_ms} ms")
        case LeaseRevoke():
            return


def unpack_lease_result(packed: PackedResult) -> LeaseResult:
    """Take a packed result apart."""
    tag, revision, timestamp, *rest = packed
    revision, timestamp = Revision(cast("int", revision)), Timestamp(cast("int", timestamp))
    match tag, rest:
        case 20, [int(lease), int(ttl_ms)]:
            return LeaseGrantResult(revision, timestamp, lease, ttl_ms)
        case 21, []:
            return LeaseRevokeResult(revision, timestamp)
        case 22, [int(lease), int(ttl_ms)]:
            return LeaseKeepAliveResult(revision, timestamp, lease, ttl_ms)
        case 23, [int(lease), int(ttl_ms), int(remaining_ms), tuple(keys)]:
            return LeaseTimeToLiveResult(revision, timestamp, lease, ttl_ms, remaining_ms, keys)
        case 24, [tuple(leases)]:
            return LeaseListResult(revision, timestamp, leases)
    raise InvalidRequest(f"unknown or malformed result {tag!r}")


def encode_housekeeping(command: Housekeeping) -> bytes:
    """Encode a command of the leader."""
    return pack(_BY_CLASS[type(command)].pack(command))


def decode_housekeeping(data: bytes) -> Housekeeping:
    """Parse a command of the leader. Raises `InvalidRequest`."""
    try:
        tag, *values = msgpack.unpackb(data, use_list=False)
        return cast("Housekeeping", _BY_TAG[tag].unpack(tuple(values)))
    except (ValueError, TypeError, KeyError, msgpack.UnpackException) as error:
        raise InvalidRequest(f"malformed command of a leader, {len(data)} bytes") from error
