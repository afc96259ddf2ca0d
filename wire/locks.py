"""Locks, and the recipes that go with them: operations, queries and results.

A lock is a name within a keyspace; whoever asks for it does so under a lease, and loses it with the lease. A lease
holds a name in one mode at a time; asking again for more is a *conversion*. `request` is a number of the client's
choice, by which a grant is found again whose answer was lost.

An election is a lock in mode X with `announce`: who is granted it is announced as the value of the key of the same
name, which hangs on the lease. To campaign is to acquire, to proclaim is to put the key under a `Compare` with
`Target.LOCK`, to observe is to watch it, to resign is to release.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import TypeAlias, cast

from isochrone.errors import InvalidRequest
from isochrone.ids import Revision, Timestamp
from isochrone.records import quickly_made
from isochrone.wire.forms import Form
from isochrone.wire.kv import VALUE_BYTES_MAX, PackedResult, check_key

WAIT_FOREVER = -1
LOCK_WAIT_MS_MAX = 366 * 86_400_000
"""Longest wait that has an end; longer ones are for `WAIT_FOREVER`."""
LOCK_DELAY_MS_MAX = 60_000
LOCK_VALUE_BYTES_MAX = 1 << 16
"""Most bytes of the value of a request: thousands may wait, and each is kept until it is granted or ended."""
TOKEN_COUNTER_BITS = 32
TOKEN_EPOCH_MAX = 1 << 30
"""Highest epoch that can be asked for. As many above it are left for counters that are full."""


class LockMode(IntEnum):
    """Modes of a lock: intention to share or to change what lies below it, shared, both, exclusive."""

    IS = 0
    IX = 1
    S = 2
    SIX = 3
    X = 4


class LockEnd(IntEnum):
    """How a request for a lock stands."""

    GRANTED = 0
    WAITING = 1
    TIMED_OUT = 2
    DEADLOCK = 3
    WITHDRAWN = 4
    LEASE_ENDED = 5


@quickly_made
@dataclass(frozen=True, slots=True)
class LockAcquire:
    """Ask for a lock. With `wait_ms` 0 it is granted or refused at once; `WAIT_FOREVER` waits as long as the lease."""

    name: bytes
    lease: int
    request: int
    mode: LockMode = LockMode.X
    wait_ms: int = WAIT_FOREVER
    delay_ms: int = 0
    """If the lease runs out while it holds the lock, nobody is granted what it excluded for so long.

    HAZARD: by timestamps of the log, so a leader's wall clock that jumps ahead shortens it by as much.
    """
    hierarchical: bool = False
    """The lease must hold the name above (up to the last `/`) in a mode that covers this one, and gives it up later."""
    announce: bool = False
    """When granted, put `value` at the key of the lock's name, on the lease; remove it with the lock."""
    value: bytes = b""
    """For people and for `announce`."""


@quickly_made
@dataclass(frozen=True, slots=True)
class LockRelease:
    """Give a lock up. Releasing what one does not hold is an error. `token`, if not 0, must be that of the grant."""

    name: bytes
    lease: int
    token: int = 0


@quickly_made
@dataclass(frozen=True, slots=True)
class LockWithdraw:
    """Wait no longer. What was granted meanwhile stays granted, and the result says so."""

    name: bytes
    lease: int
    request: int


@quickly_made
@dataclass(frozen=True, slots=True)
class PutSequential:
    """Make a key of its own: `prefix` and a number of 20 digits above all that were given out before."""

    prefix: bytes
    value: bytes
    lease: int = 0


@quickly_made
@dataclass(frozen=True, slots=True)
class TakeFirst:
    """Remove the first key of a range and return it."""

    key: bytes
    range_end: bytes


@quickly_made
@dataclass(frozen=True, slots=True)
class RaiseTokenEpoch:
    """Let all tokens that a keyspace gives out from now on have an epoch above its own and above `above`.

    So they exceed tokens that it knows nothing of: those given out after the copy was made from which it was restored.
    """

    key: bytes
    """Any key of the keyspace."""
    above: int = 0


@quickly_made
@dataclass(frozen=True, slots=True)
class LockWait:
    """Query: answered when the request waits no longer. Only the leader can answer."""

    name: bytes
    lease: int
    request: int


@quickly_made
@dataclass(frozen=True, slots=True)
class LockQuery:
    """Query: who holds a lock, and who waits."""

    name: bytes


@quickly_made
@dataclass(frozen=True, slots=True)
class LockResult:
    """How a request stands after an operation. `token` is 0 unless it is granted."""

    revision: Revision
    timestamp: Timestamp
    end: LockEnd
    token: int
    mode: LockMode


@quickly_made
@dataclass(frozen=True, slots=True)
class LockRequestView:
    """A holder (its token is not 0), or one that waits."""

    lease: int
    request: int
    mode: LockMode
    token: int
    since: Timestamp
    value: bytes


@quickly_made
@dataclass(frozen=True, slots=True)
class LockQueryResult:
    """A lock: holders by token, then those that wait, in the order in which they are to be granted."""

    revision: Revision
    timestamp: Timestamp
    requests: tuple[LockRequestView, ...]
    delayed_until: Timestamp
    """A holder was lost uncleanly, and what it excluded is not granted before this; 0 if nothing is."""


@quickly_made
@dataclass(frozen=True, slots=True)
class KeyResult:
    """The key that was made by `PutSequential`, or taken by `TakeFirst`: None if there was none."""

    revision: Revision
    timestamp: Timestamp
    key: bytes | None
    value: bytes


@quickly_made
@dataclass(frozen=True, slots=True)
class TokenEpochResult:
    """The epoch of a keyspace's tokens, and that of the last token before."""

    revision: Revision
    timestamp: Timestamp
    epoch: int
    before: int


LockOperation: TypeAlias = LockAcquire | LockRelease | LockWithdraw | PutSequential | TakeFirst | RaiseTokenEpoch
LockOutcome: TypeAlias = LockResult | LockQueryResult | KeyResult | TokenEpochResult

LOCK_ACQUIRE, LOCK_RELEASE, LOCK_WITHDRAW, PUT_SEQUENTIAL, TAKE_FIRST, LOCK_WAIT, LOCK_QUERY = range(30, 37)
"""Tags of operations and queries. Tags are never given a second meaning."""
RAISE_TOKEN_EPOCH = 40
LOCK_RESULT, LOCK_QUERY_RESULT, KEY_RESULT = range(37, 40)
LOCK_FORMS = (
    Form(LOCK_ACQUIRE, LockAcquire, bytes, int, int, LockMode, int, int, bool, bool, bytes),
    Form(LOCK_RELEASE, LockRelease, bytes, int, int),
    Form(LOCK_WITHDRAW, LockWithdraw, bytes, int, int),
    Form(PUT_SEQUENTIAL, PutSequential, bytes, bytes, int),
    Form(TAKE_FIRST, TakeFirst, bytes, bytes),
    Form(RAISE_TOKEN_EPOCH, RaiseTokenEpoch, bytes, int),
    Form(LOCK_WAIT, LockWait, bytes, int, int),
    Form(LOCK_QUERY, LockQuery, bytes),
)
LOCK_RESULT_TAGS = frozenset((LOCK_RESULT, LOCK_QUERY_RESULT, KEY_RESULT, RAISE_TOKEN_EPOCH))


def check_lock(operation: LockOperation | LockWait | LockQuery) -> None:
    """Raise `InvalidRequest` for what no state could accept."""
    match operation:
        case PutSequential(prefix, value, _):
            check_key(prefix + bytes(20))
            _check_value(value)
        case TakeFirst(key, _):
            check_key(key)
        case RaiseTokenEpoch(key, above):
            check_key(key)
            if not 0 <= above < TOKEN_EPOCH_MAX:
                raise InvalidRequest(f"epoch {above} is not from 0 to {TOKEN_EPOCH_MAX - 1}")
        case _:
            check_key(operation.name)
    if isinstance(operation, LockAcquire):
        _check_value(operation.value, LOCK_VALUE_BYTES_MAX)
        if operation.request <= 0 or operation.lease <= 0:
            raise InvalidRequest("a lock is asked for under a lease, with a request number above 0")
        if not WAIT_FOREVER <= operation.wait_ms <= LOCK_WAIT_MS_MAX:
            raise InvalidRequest(f"wait is {operation.wait_ms} ms; allowed are 0 to {LOCK_WAIT_MS_MAX}, or for ever")
        if not 0 <= operation.delay_ms <= LOCK_DELAY_MS_MAX:
            raise InvalidRequest(f"lock-delay is {operation.delay_ms} ms; allowed are 0 to {LOCK_DELAY_MS_MAX}")


def _check_value(value: bytes, bytes_max: int = VALUE_BYTES_MAX) -> None:
    if len(value) > bytes_max:
        raise InvalidRequest(f"value has {len(value)} bytes; at most {bytes_max} are allowed")


def unpack_lock_result(packed: PackedResult) -> LockOutcome:
    """Take a packed result apart."""
    tag, revision, timestamp, *rest = packed
    revision, timestamp = Revision(cast("int", revision)), Timestamp(cast("int", timestamp))
    match tag, rest:
        case 37, [int(end), int(token), int(mode)]:
            return LockResult(revision, timestamp, LockEnd(end), token, LockMode(mode))
        case 38, [tuple(requests), int(delayed_until)]:
            return LockQueryResult(revision, timestamp, tuple(map(_view, requests)), Timestamp(delayed_until))
        case 39, [bytes() | None as key, bytes(value)]:
            return KeyResult(revision, timestamp, key, value)
        case 40, [int(epoch), int(before)]:
            return TokenEpochResult(revision, timestamp, epoch, before)
    raise InvalidRequest(f"unknown or malformed result {tag!r}")


def _view(fields: tuple[object, ...]) -> LockRequestView:
    match fields:
        case (int(lease), int(request), int(mode), int(token), int(since), bytes(value)):
            return LockRequestView(lease, request, LockMode(mode), token, Timestamp(since), value)
    raise InvalidRequest("malformed view of a lock")
