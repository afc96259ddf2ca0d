"""Commands and queries: what clients ask of a group's state machine, and what it answers.

A client encodes a command once; the leader puts the bytes into an entry without decoding them, and every
replica decodes them when it applies the entry. A command carries its version, so that replicas of two
neighbouring releases can apply the same log.

**Sessions.** Every write but `OpenSession` names a session (assigned by `OpenSession` in the same keyspace), a
sequence number that rises by one with every new operation, and `acknowledged`: all sequences up to it have been
answered or given up, and their stored results may be forgotten. A retry repeats session and sequence and takes
effect at most once.
"""

from dataclasses import dataclass
from typing import cast

import msgpack

from isochrone.errors import InvalidRequest
from isochrone.ids import Revision, Timestamp
from isochrone.records import quickly_made
from isochrone.wire.pack import pack

COMMAND_VERSION = 1

KEY_BYTES_MAX = 4096
VALUE_BYTES_MAX = 1 << 20
SESSION_IN_FLIGHT_MAX = 4096
"""Most sequences above the acknowledged mark that a session may use; bounds its stored results."""


@dataclass(frozen=True, slots=True)
class OpenSession:
    """Open a session that expires when unused for `ttl_ms` (by entry timestamps). The result is the session's id.

    `nonce` makes two attempts of one opening distinguishable in a trace; it has no effect.
    """

    nonce: bytes
    ttl_ms: int


@dataclass(frozen=True, slots=True)
class CloseSession:
    """Forget the session and its stored results at once."""


@quickly_made
@dataclass(frozen=True, slots=True)
class Put:
    """Set a key."""

    key: bytes
    value: bytes


@quickly_made
@dataclass(frozen=True, slots=True)
class Delete:
    """Remove a key. Removing an absent key succeeds and says so."""

    key: bytes


@quickly_made
@dataclass(frozen=True, slots=True)
class CompareAndSet:
    """Set a key to `value` (None removes it) if it now holds `expected` (None: is absent)."""

    key: bytes
    expected: bytes | None
    value: bytes | None


Operation = OpenSession | CloseSession | Put | Delete | CompareAndSet


@quickly_made
@dataclass(frozen=True, slots=True)
class Command:
    """An operation, and the place in its session that makes it take effect once."""

    session: int
    """Session id; 0 only for `OpenSession`."""
    sequence: int
    acknowledged: int
    operation: Operation


@quickly_made
@dataclass(frozen=True, slots=True)
class KeyValue:
    """The state of one key."""

    key: bytes
    value: bytes
    create_revision: Revision
    mod_revision: Revision
    version: int
    """How many times the key was set since it was created; 1 for the first."""
    timestamp: Timestamp
    """Commit timestamp of the last change."""


@quickly_made
@dataclass(frozen=True, slots=True)
class CommandResult:
    """What a command did.

    `succeeded` is False for a `CompareAndSet` whose comparison failed and for a `Delete` of an absent key;
    nothing was changed then and `revision` is the group's revision at that point.
    """

    succeeded: bool
    revision: Revision
    timestamp: Timestamp
    session: int = 0
    """The new session's id, for `OpenSession`."""
    previous: bytes | None = None
    """Value that a failed comparison found, None when the key was absent."""


@quickly_made
@dataclass(frozen=True, slots=True)
class Get:
    """Query: the state of one key."""

    key: bytes


Query = Get

_OPEN, _CLOSE, _PUT, _DELETE, _CAS = range(5)
_GET = 0


def encode_command(command: Command) -> bytes:
    """Encode a command; the version comes first."""
    match command.operation:
        case Put(key, value):
            body: tuple[object, ...] = (_PUT, key, value)
        case CompareAndSet(key, expected, value):
            body = (_CAS, key, expected, value)
        case Delete(key):
            body = (_DELETE, key)
        case OpenSession(nonce, ttl_ms):
            body = (_OPEN, nonce, ttl_ms)
        case CloseSession():
            body = (_CLOSE,)
    return pack((COMMAND_VERSION, command.session, command.sequence, command.acknowledged, *body))


def decode_command(data: bytes) -> Command:
    """Parse a command.

    Raises:
        InvalidRequest: the bytes are not a command that this release knows.
    """
    try:
        version, session, sequence, acknowledged, kind, *rest = msgpack.unpackb(data, use_list=False)
        if version != COMMAND_VERSION:
            raise InvalidRequest(f"command version {version!r} is not known; this release knows {COMMAND_VERSION}")
        if not all(isinstance(number, int) and 0 <= number < 1 << 63 for number in (session, sequence, acknowledged)):
            raise InvalidRequest("session, sequence and acknowledged mark must be integers of 63 bits")
        return Command(session, sequence, acknowledged, _operation(kind, rest))
    except (ValueError, TypeError, KeyError, msgpack.UnpackException) as error:
        raise InvalidRequest(f"malformed command of {len(data)} bytes") from error


def _operation(kind: object, rest: list[object]) -> Operation:
    match kind, rest:
        case 2, [bytes(key), bytes(value)]:
            return Put(key, value)
        case 4, [bytes(key), bytes() | None as expected, bytes() | None as value]:
            return CompareAndSet(key, expected, value)
        case 3, [bytes(key)]:
            return Delete(key)
        case 0, [bytes(nonce), int(ttl_ms)]:
            return OpenSession(nonce, ttl_ms)
        case 1, []:
            return CloseSession()
    raise InvalidRequest(f"unknown or malformed operation {kind!r}")


def encode_batch(commands: list[bytes]) -> bytes:
    """The data of a `COMMANDS` entry: encoded commands, in order."""
    return pack(commands)


def decode_batch(data: bytes) -> list[bytes]:
    """Split the data of a `COMMANDS` entry into its encoded commands."""
    return cast("list[bytes]", msgpack.unpackb(data))


def encode_result(result: CommandResult) -> bytes:
    """Encode a command's result."""
    return pack((result.succeeded, result.revision, result.timestamp, result.session, result.previous))


def decode_result(data: bytes) -> CommandResult:
    """Parse a command's result."""
    succeeded, revision, timestamp, session, previous = msgpack.unpackb(data)
    return CommandResult(succeeded, revision, timestamp, session, previous)


def encode_query(query: Query) -> bytes:
    """Encode a query."""
    return pack((COMMAND_VERSION, _GET, query.key))


def decode_query(data: bytes) -> Query:
    """Parse a query.

    Raises:
        InvalidRequest: the bytes are not a query that this release knows.
    """
    try:
        version, kind, key = msgpack.unpackb(data)
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise InvalidRequest(f"malformed query of {len(data)} bytes") from error
    if version != COMMAND_VERSION or kind != _GET or not isinstance(key, bytes):
        raise InvalidRequest(f"unknown query {kind!r} of version {version!r}")
    return Get(key)


def encode_key_value(item: KeyValue | None) -> bytes:
    """Encode the answer to a `Get`."""
    if item is None:
        return pack(None)
    return pack((item.key, item.value, item.create_revision, item.mod_revision, item.version, item.timestamp))


def decode_key_value(data: bytes) -> KeyValue | None:
    """Parse the answer to a `Get`."""
    fields = msgpack.unpackb(data)
    return None if fields is None else KeyValue(*fields)


def check_operation(operation: Operation) -> None:
    """Raise `InvalidRequest` for an operation that no state could accept: oversized or empty keys, oversized values."""
    match operation:
        case OpenSession(_, ttl_ms):
            if not 1_000 <= ttl_ms <= 86_400_000:
                raise InvalidRequest(f"session ttl is {ttl_ms} ms; allowed are 1000 to 86400000")
        case CloseSession():
            return
        case Put(key, value):
            check_key(key)
            _check_value(value)
        case Delete(key):
            check_key(key)
        case CompareAndSet(key, expected, value):
            check_key(key)
            _check_value(expected)
            _check_value(value)


def check_key(key: bytes) -> None:
    """Raise `InvalidRequest` for an empty or oversized key."""
    if not 1 <= len(key) <= KEY_BYTES_MAX:
        raise InvalidRequest(f"key has {len(key)} bytes; allowed are 1 to {KEY_BYTES_MAX}")


def _check_value(value: bytes | None) -> None:
    if value is not None and len(value) > VALUE_BYTES_MAX:
        raise InvalidRequest(f"value has {len(value)} bytes; at most {VALUE_BYTES_MAX} are allowed")
