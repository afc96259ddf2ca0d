"""Commands and queries: what clients ask of a group's state machine, and what it answers.

A client encodes a command once; the leader puts the bytes into an entry without decoding them, and every
replica decodes them when it applies the entry. A command carries its version, so that replicas of two
neighbouring releases can apply the same log.

**Sessions.** A write that may be sent again names a session (assigned by `OpenSession` in the same keyspace), a
sequence number that rises by one with every new operation, and `acknowledged`: all sequences up to it have been
answered or given up, and their stored results may be forgotten. A retry repeats session and sequence and takes
effect at most once. A command of session 0 is sent once and never again; it takes effect at most once, too, and leaves
nothing behind that remembers it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias, cast

import msgpack

from isochrone.errors import Indeterminate, InvalidRequest
from isochrone.ids import Revision, Timestamp
from isochrone.records import quickly_made
from isochrone.wire.forms import Form, by_class, by_tag
from isochrone.wire.kv import (
    KEY_BYTES_MAX,
    KV_FORMS,
    PUT,
    TXN,
    VALUE_BYTES_MAX,
    Compact,
    CompactResult,
    DeleteRange,
    Increment,
    KvResult,
    PackedResult,
    Put,
    Range,
    Txn,
    check_kv,
    check_put,
    pack_put,
    pack_txn,
    unpack_kv_result,
    unpack_put,
    unpack_txn,
)
from isochrone.wire.leases import (
    LEASE_FORMS,
    LeaseGrant,
    LeaseKeepAlive,
    LeaseList,
    LeaseResult,
    LeaseRevoke,
    LeaseTimeToLive,
    check_lease,
    unpack_lease_result,
)
from isochrone.wire.locks import (
    LOCK_FORMS,
    LOCK_RESULT_TAGS,
    LockAcquire,
    LockOperation,
    LockOutcome,
    LockQuery,
    LockRelease,
    LockWait,
    LockWithdraw,
    PutSequential,
    RaiseTokenEpoch,
    TakeFirst,
    check_lock,
    unpack_lock_result,
)
from isochrone.wire.pack import pack

COMMAND_VERSION = 2

COMMAND_BYTES_MAX = KEY_BYTES_MAX + 2 * VALUE_BYTES_MAX + 1024
"""Most bytes of an encoded command, so of a transaction too."""
SESSION_IN_FLIGHT_MAX = 4096
"""Most sequences above the acknowledged mark that a session may use; bounds its stored results."""


@quickly_made
@dataclass(frozen=True, slots=True)
class OpenSession:
    """Open a session that expires when unused for `ttl_ms` (by entry timestamps). The result is the session's id.

    `nonce` makes two attempts of one opening distinguishable in a trace; it has no effect.
    """

    nonce: bytes
    ttl_ms: int


@quickly_made
@dataclass(frozen=True, slots=True)
class CloseSession:
    """Forget the session and its stored results at once."""


Operation: TypeAlias = (
    OpenSession
    | CloseSession
    | Put
    | DeleteRange
    | Increment
    | Range
    | Txn
    | Compact
    | LeaseGrant
    | LeaseRevoke
    | LockOperation
)
Query: TypeAlias = Range | LeaseKeepAlive | LeaseTimeToLive | LeaseList | LockWait | LockQuery


@quickly_made
@dataclass(frozen=True, slots=True)
class Command:
    """An operation, and the place in its session that makes it take effect once."""

    session: int
    """Session id; 0 for none."""
    sequence: int
    acknowledged: int
    operation: Operation


@quickly_made
@dataclass(frozen=True, slots=True)
class SessionResult:
    """What `OpenSession` and `CloseSession` did."""

    revision: Revision
    timestamp: Timestamp
    session: int
    """The new session's id; 0 after `CloseSession`."""


Result: TypeAlias = SessionResult | KvResult | CompactResult | LeaseResult | LockOutcome

OPEN_SESSION, CLOSE_SESSION = 0, 1
"""Tags of operations and of their results."""
_FORMS = (
    Form(OPEN_SESSION, OpenSession, bytes, int),
    Form(CLOSE_SESSION, CloseSession),
    *KV_FORMS,
    *LEASE_FORMS,
    *LOCK_FORMS,
)
_BY_TAG = by_tag(_FORMS)
_BY_CLASS = by_class(_FORMS)
_NUMBER_MAX = (1 << 63) - 1
_QUERIES = (Range, LeaseKeepAlive, LeaseTimeToLive, LeaseList, LockWait, LockQuery)


def encode_command(command: Command) -> bytes:
    """Encode a command; the version comes first. Raises `InvalidRequest` for a number of more than 64 bits."""
    match operation := command.operation:
        case Put():  # first, as most are
            body = pack_put(operation)
        case Txn():
            body = pack_txn(operation)
        case _:
            body = _BY_CLASS[type(operation)].pack(operation)
    return _packed((COMMAND_VERSION, command.session, command.sequence, command.acknowledged, *body))


def decode_command(data: bytes) -> Command:
    """Parse a command.

    Raises:
        InvalidRequest: the bytes are not a command that this release knows.
    """
    if len(data) > COMMAND_BYTES_MAX:
        raise InvalidRequest(f"command has {len(data)} bytes; at most {COMMAND_BYTES_MAX} are allowed")
    try:
        fields = msgpack.unpackb(data, use_list=False)
        version, session, sequence, acknowledged, tag = fields[:5]
        if version != COMMAND_VERSION:
            raise InvalidRequest(f"command version {version!r} is not known; this release knows {COMMAND_VERSION}")
        if not (
            type(session) is type(sequence) is type(acknowledged) is int
            and 0 <= session <= _NUMBER_MAX
            and 0 <= sequence <= _NUMBER_MAX
            and 0 <= acknowledged <= _NUMBER_MAX
        ):
            raise InvalidRequest("session, sequence and acknowledged mark must be integers of 63 bits")
        operation = unpack_put(fields[5:]) if tag == PUT else _operation(tag, fields[5:])
        return Command(session, sequence, acknowledged, operation)
    except (ValueError, TypeError, KeyError, msgpack.UnpackException) as error:
        raise InvalidRequest(f"malformed command of {len(data)} bytes") from error


def _operation(tag: int, values: tuple[object, ...]) -> Operation:
    if tag == TXN:
        return unpack_txn(values)
    return cast("Operation", _BY_TAG[tag].unpack(values))


def encode_batch(commands: list[bytes]) -> bytes:
    """The data of a `COMMANDS` entry: encoded commands, in order."""
    return pack(commands)


def decode_batch(data: bytes) -> list[bytes]:
    """Split the data of a `COMMANDS` entry into its encoded commands."""
    return cast("list[bytes]", msgpack.unpackb(data))


encode_result: Callable[[PackedResult], bytes] = pack
"""Encode the result of a command or query."""


def unpack_result(data: bytes) -> PackedResult:
    """A result as it was before `encode_result`, for who knows what it must be; `decode_result` checks it."""
    return cast("PackedResult", msgpack.unpackb(data, use_list=False))


def decode_result(data: bytes) -> Result:
    """Parse a result.

    Raises:
        Indeterminate: the bytes are not a result that this release knows, so nobody can tell what was done.
    """
    try:
        packed: PackedResult = msgpack.unpackb(data, use_list=False)
        return _RESULTS.get(packed[0], unpack_kv_result)(packed)
    except (InvalidRequest, ValueError, TypeError, KeyError, IndexError, msgpack.UnpackException) as error:
        raise Indeterminate(f"malformed result of {len(data)} bytes") from error


def _unpack_session_result(packed: PackedResult) -> SessionResult:
    _, revision, timestamp, session = packed
    return SessionResult(cast("Revision", revision), cast("Timestamp", timestamp), cast("int", session))


_RESULTS: Mapping[object, Callable[[PackedResult], Result]] = {
    **dict.fromkeys((OPEN_SESSION, CLOSE_SESSION), _unpack_session_result),
    **dict.fromkeys([form.tag for form in LEASE_FORMS], unpack_lease_result),
    **dict.fromkeys(LOCK_RESULT_TAGS, unpack_lock_result),
}
"""What takes results apart, by tag; all others are those of key-value operations."""


def encode_query(query: Query) -> bytes:
    """Encode a query. Raises `InvalidRequest` for a number of more than 64 bits."""
    return _packed((COMMAND_VERSION, *_BY_CLASS[type(query)].pack(query)))


def _packed(fields: tuple[object, ...]) -> bytes:
    try:
        return pack(fields)
    except OverflowError:
        raise InvalidRequest("a number has more than 64 bits") from None


def decode_query(data: bytes) -> Query:
    """Parse a query.

    Raises:
        InvalidRequest: the bytes are not a query that this release knows.
    """
    try:
        version, tag, *values = msgpack.unpackb(data, use_list=False)
        query = _operation(tag, tuple(values))
    except (ValueError, TypeError, KeyError, msgpack.UnpackException) as error:
        raise InvalidRequest(f"malformed query of {len(data)} bytes") from error
    if version != COMMAND_VERSION or not isinstance(query, _QUERIES):
        raise InvalidRequest(f"unknown query {tag!r} of version {version!r}")
    return query


def check_operation(operation: Operation) -> None:
    """Raise `InvalidRequest` for an operation that no state could accept."""
    match operation:
        case Put():  # first, as most are
            check_put(operation)
        case OpenSession(_, ttl_ms):
            if not 1_000 <= ttl_ms <= 86_400_000:
                raise InvalidRequest(f"session ttl is {ttl_ms} ms; allowed are 1000 to 86400000")
        case CloseSession():
            return
        case LeaseGrant() | LeaseRevoke():
            check_lease(operation)
        case LockAcquire() | LockRelease() | LockWithdraw() | PutSequential() | TakeFirst() | RaiseTokenEpoch():
            check_lock(operation)
        case _:
            check_kv(operation)


def check_answerable_anywhere(queries: Sequence[Query]) -> None:
    """Raise `InvalidRequest` if only the leader can answer one of these queries."""
    for query in queries:
        if isinstance(query, LeaseKeepAlive | LeaseTimeToLive | LockWait):
            raise InvalidRequest(f"only the leader can answer a {type(query).__name__}")


def check_query(query: Query) -> None:
    """Raise `InvalidRequest` for a query that no state could answer."""
    match query:
        case Range():
            check_kv(query)
        case LockWait() | LockQuery():
            check_lock(query)
        case _:
            return
