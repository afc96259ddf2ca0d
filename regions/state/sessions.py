"""Sessions of clients: a command runs once, however often it comes.

A command runs only in a live session and stores its result under its sequence, in the same apply as its effect. A
repeated sequence returns the stored result. A sequence at or below the client's acknowledged mark is refused: its
result is forgotten. A command of an unknown or expired session never runs.
"""

import struct
from typing import cast

import msgpack

from isochrone.errors import Indeterminate, InvalidRequest, QueueFull, SessionExpired
from isochrone.ids import NS_PER_MS
from isochrone.probes import probe
from isochrone.regions.state.model import (
    TABLE_RESULTS,
    TABLE_SESSIONS,
    ApplyContext,
    Happening,
    KeyspaceState,
    Session,
)
from isochrone.wire.commands import (
    CLOSE_SESSION,
    OPEN_SESSION,
    SESSION_IN_FLIGHT_MAX,
    Command,
    OpenSession,
)
from isochrone.wire.kv import PackedResult
from isochrone.wire.pack import pack

SESSIONS_MAX = 100_000
"""Most live sessions of one keyspace; opening more is refused with `QueueFull`."""

RESULTS_BYTES_MAX = 16 << 20
"""From so many bytes of unacknowledged results on a session is refused more."""
KEYSPACE_RESULTS_BYTES_MAX = 512 << 20
"""From so many on in all sessions of a keyspace, each of them is."""

_U64 = struct.Struct(">Q")
_RESULT_KEY = struct.Struct(">QQ")


def open_session(context: ApplyContext, operation: OpenSession) -> PackedResult:
    """Open a session of the entry's keyspace."""
    state = context.home
    _forget_expired(context)
    if len(state.sessions) >= SESSIONS_MAX:
        raise QueueFull(f"keyspace {state.keyspace!r} has {SESSIONS_MAX} sessions")
    # A timestamp is unique within the log, and stays so when the keyspace moves: the target starts above it.
    number = int(context.timestamp)
    state.add_session(number, Session(operation.ttl_ms * NS_PER_MS, context.timestamp))
    context.used_sessions[state.keyspace, number] = None
    return (OPEN_SESSION, context.data.revision, context.timestamp, number)


def live_session(context: ApplyContext, command: Command) -> Session:
    """The command's session. Raises what keeps the command from running there."""
    state = context.home
    session = state.sessions.get(command.session)
    if session is not None and session.expired(context.timestamp):
        probe("state.session_expired")
        context.happened.append(Happening.SESSION_EXPIRED)
        _forget_session(state, command.session, context)
        session = None
    if session is None:
        raise SessionExpired(f"session {command.session} of keyspace {state.keyspace!r} is unknown or has expired")
    if command.sequence <= session.acknowledged:
        probe("state.sequence_below_the_mark")
        raise Indeterminate(f"sequence {command.sequence} was acknowledged; its result is forgotten")
    return session


def acknowledge(context: ApplyContext, command: Command, session: Session) -> None:
    """Forget the results that the client needs no more, and note that the session was used."""
    if command.acknowledged >= command.sequence:
        raise InvalidRequest("a command cannot acknowledge its own sequence")
    keyspace = context.home.keyspace
    if command.acknowledged > session.acknowledged:
        gap = range(session.acknowledged + 1, command.acknowledged + 1)
        # Whatever number a client names, the work stays within what is stored.
        for sequence in gap if len(gap) <= len(session.results) + 1 else list(session.results):
            if sequence in gap and (forgotten := session.forget_result(sequence)) is not None:
                context.home.results_bytes -= forgotten
                context.rows[keyspace, TABLE_RESULTS, result_row_key(command.session, sequence)] = None
        session.acknowledged = command.acknowledged
    session.last_used = context.timestamp
    context.used_sessions[keyspace, command.session] = None


def check_room(context: ApplyContext, command: Command, session: Session) -> None:
    """Raise `QueueFull` if the session may not have another result."""
    if len(session.results) >= SESSION_IN_FLIGHT_MAX:
        raise QueueFull(f"session {command.session} has {len(session.results)} unacknowledged results")
    if session.results_bytes >= RESULTS_BYTES_MAX:
        raise QueueFull(f"session {command.session} has {session.results_bytes} bytes of unacknowledged results")
    state = context.home
    if state.results_bytes >= KEYSPACE_RESULTS_BYTES_MAX:
        _forget_expired(context)
    if state.results_bytes >= KEYSPACE_RESULTS_BYTES_MAX:
        probe("state.results_of_a_keyspace_full")
        raise QueueFull(f"keyspace {state.keyspace!r} has {state.results_bytes} bytes of unacknowledged results")


def store_result(context: ApplyContext, command: Command, session: Session, result: bytes) -> None:
    """Keep a command's result for those who ask again."""
    session.add_result(command.sequence, result)
    context.home.results_bytes += len(result)
    context.rows[context.home.keyspace, TABLE_RESULTS, result_row_key(command.session, command.sequence)] = result


def close_session(context: ApplyContext, command: Command) -> PackedResult:
    """Forget the command's session."""
    _forget_session(context.home, command.session, context)
    return (CLOSE_SESSION, context.data.revision, context.timestamp, 0)


def _forget_expired(context: ApplyContext) -> None:
    for number in context.home.expired_sessions(context.timestamp):
        context.happened.append(Happening.SESSION_EXPIRED)
        _forget_session(context.home, number, context)


def _forget_session(state: KeyspaceState, number: int, context: ApplyContext) -> None:
    session = state.sessions.pop(number)
    state.results_bytes -= session.results_bytes
    context.used_sessions.pop((state.keyspace, number), None)
    context.rows[state.keyspace, TABLE_SESSIONS, session_row_key(number)] = None
    for sequence in session.results:
        context.rows[state.keyspace, TABLE_RESULTS, result_row_key(number, sequence)] = None


def write_session_rows(context: ApplyContext) -> None:
    """The rows of the sessions that the entry's commands used: one for each, however many commands there were."""
    for keyspace, number in context.used_sessions:
        session = context.data.keyspaces[keyspace].sessions[number]
        context.rows[keyspace, TABLE_SESSIONS, session_row_key(number)] = encode_session_row(session)


def session_row_key(session: int) -> bytes:
    """Row key of a session."""
    return _U64.pack(session)


def parse_session_row_key(key: bytes) -> int:
    """Back from a session's row key."""
    return cast("int", _U64.unpack(key)[0])


def encode_session_row(session: Session) -> bytes:
    """A session's row, without its results, which have rows of their own."""
    return pack((session.ttl_ns, session.last_used, session.acknowledged))


def decode_session_row(value: bytes) -> Session:
    """Back from a session's row."""
    ttl_ns, last_used, acknowledged = msgpack.unpackb(value)
    return Session(ttl_ns, last_used, acknowledged)


def result_row_key(session: int, sequence: int) -> bytes:
    """Row key of a stored result."""
    return _RESULT_KEY.pack(session, sequence)


def parse_result_row_key(key: bytes) -> tuple[int, int]:
    """Back from a result's row key: session and sequence."""
    session, sequence = _RESULT_KEY.unpack(key)
    return session, sequence
