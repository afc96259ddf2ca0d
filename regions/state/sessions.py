"""Sessions of clients: a command runs once, however often it comes.

A command runs only in a live session and stores its result under its sequence, in the same apply as its effect. A
repeated sequence returns the stored result. A sequence at or below the client's acknowledged mark is refused: its
result is forgotten. A command of an unknown or expired session never runs.

A refusal by the state is a result, too (a lock that is held, a lease that is not there), and stored as class and text.
Else a copy of the command that comes late would run in another state than the one that the client was told of. What is
refused before the command is looked at is not stored, and may be asked for again: there is no room, or no session.

Each command moves the mark at once. The results that this frees are forgotten when the entry ends, or when their bytes
would keep a command from running: nobody can tell the difference, but many together cost less.

The rows of a session are written once for each entry, however many of its commands the entry holds: one for itself,
and one with the results of them all, or a few where they are large, since a row travels in one message. A row of
results is deleted when the client has acknowledged the last of them.
"""

import struct
from typing import cast

import msgpack

from isochrone.errors import (
    ERROR_BY_NAME,
    Indeterminate,
    InvalidRequest,
    IsochroneError,
    QueueFull,
    SessionExpired,
)
from isochrone.ids import NS_PER_MS, Timestamp
from isochrone.probes import probe
from isochrone.regions.state.model import (
    TABLE_RESULTS,
    TABLE_SESSIONS,
    ApplyContext,
    Happening,
    KeyspaceState,
    Session,
    SessionUse,
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
RESULT_ROW_BYTES_TARGET = 1 << 20
"""When the results in a row have so many bytes, the next ones go into another."""
REFUSAL_TEXT_CHARS_MAX = 1024
"""The text of a refusal is cut there, for everyone who is told it."""

_REFUSED = b"\xc1"
"""Begins a stored refusal: no result begins so, as msgpack never uses it."""

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
    session = Session(operation.ttl_ms * NS_PER_MS, context.timestamp)
    state.add_session(number, session)
    context.used_sessions[number] = SessionUse(session, 0)
    return (OPEN_SESSION, context.data.revision, context.timestamp, number)


def admit(context: ApplyContext, command: Command) -> tuple[SessionUse, bytes | None]:
    """The command's session, and the command's result if it ran before. Raises what keeps the command from running.

    Notes that the session was used, and what the client has acknowledged with the command.
    """
    use = context.used_sessions.get(command.session)
    # One that was used by an earlier command of the entry lives: they are nanoseconds apart.
    session = use.session if use is not None else _live_session(context, command.session)
    sequence, acknowledged = command.sequence, command.acknowledged
    if sequence <= session.acknowledged:
        probe("state.sequence_below_the_mark")
        raise Indeterminate(f"sequence {sequence} was acknowledged; its result is forgotten")
    if acknowledged >= sequence:
        raise InvalidRequest("a command cannot acknowledge its own sequence")
    if use is None:
        use = context.used_sessions[command.session] = SessionUse(session, session.acknowledged)
    if acknowledged > session.acknowledged:
        session.acknowledged = acknowledged
    session.last_used = context.timestamp
    stored = session.results.get(sequence)
    if stored is None and (
        sequence > session.acknowledged + SESSION_IN_FLIGHT_MAX
        or session.results_bytes >= RESULTS_BYTES_MAX
        or context.home.results_bytes >= KEYSPACE_RESULTS_BYTES_MAX
    ):
        _make_room(context, command, use)
    return use, stored


def _live_session(context: ApplyContext, number: int) -> Session:
    state = context.home
    session = state.sessions.get(number)
    if session is not None and session.expired(context.timestamp):
        probe("state.session_expired")
        context.happened.append(Happening.SESSION_EXPIRED)
        _forget_session(state, number, context)
        session = None
    if session is None:
        raise SessionExpired(f"session {number} of keyspace {state.keyspace!r} is unknown or has expired")
    return session


def _make_room(context: ApplyContext, command: Command, use: SessionUse) -> None:
    """Forget what nobody needs. Raises `QueueFull` if the session may not have another result even so."""
    session, state = use.session, context.home
    if command.sequence > session.acknowledged + SESSION_IN_FLIGHT_MAX:
        # One far ahead would keep all rows of results that follow it.
        probe("state.sequence_too_far_ahead")
        raise QueueFull(
            f"sequence {command.sequence} is more than {SESSION_IN_FLIGHT_MAX} above the last one that session "
            f"{command.session} has acknowledged, {session.acknowledged}"
        )
    _forget_results(state, use)
    if session.results_bytes >= RESULTS_BYTES_MAX:
        raise QueueFull(f"session {command.session} has {session.results_bytes} bytes of unacknowledged results")
    if state.results_bytes >= KEYSPACE_RESULTS_BYTES_MAX:
        for each in context.used_sessions.values():
            _forget_results(state, each)
    if state.results_bytes >= KEYSPACE_RESULTS_BYTES_MAX:
        _forget_expired(context)
    if state.results_bytes >= KEYSPACE_RESULTS_BYTES_MAX:
        probe("state.results_of_a_keyspace_full")
        raise QueueFull(f"keyspace {state.keyspace!r} has {state.results_bytes} bytes of unacknowledged results")


def _forget_results(state: KeyspaceState, use: SessionUse) -> None:
    """Forget what the session's client has acknowledged."""
    if use.forgotten < use.session.acknowledged:
        state.results_bytes -= use.session.forget_results(use.forgotten + 1)
        use.forgotten = use.session.acknowledged


def store_result(context: ApplyContext, command: Command, use: SessionUse, result: bytes) -> None:
    """Keep a command's result for those who ask again."""
    sequence, session, size_bytes = command.sequence, use.session, len(result)
    use.results[sequence] = session.results[sequence] = result
    session.results_bytes += size_bytes
    context.home.results_bytes += size_bytes


def store_refusal(context: ApplyContext, command: Command, use: SessionUse, error: IsochroneError) -> IsochroneError:
    """Keep why a command was refused for those who ask again; returns the error that they are told, as now."""
    stored = _REFUSED + pack((type(error).__name__, str(error)[:REFUSAL_TEXT_CHARS_MAX]))
    store_result(context, command, use, stored)
    return _stored_refusal(stored)


def told_again(stored: bytes) -> bytes:
    """What a repeated command is answered with. Raises the error with which it was refused."""
    if stored.startswith(_REFUSED):
        probe("state.repeated_refusal")
        raise _stored_refusal(stored)
    return stored


def _stored_refusal(stored: bytes) -> IsochroneError:
    name, text = msgpack.unpackb(stored[len(_REFUSED) :])
    error = ERROR_BY_NAME[name](text)
    error.stored = True
    return error


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
    context.used_sessions.pop(number, None)
    context.rows[state.keyspace, TABLE_SESSIONS, session_row_key(number)] = None
    for _, timestamp in session.result_rows:
        context.rows[state.keyspace, TABLE_RESULTS, result_row_key(number, timestamp)] = None


def write_session_rows(context: ApplyContext) -> None:
    """The rows of the sessions that the entry's commands used; at the end of the entry."""
    keyspace = context.home.keyspace
    for number, use in context.used_sessions.items():
        session = use.session
        _forget_results(context.home, use)
        context.rows[keyspace, TABLE_SESSIONS, session_row_key(number)] = encode_session_row(session)
        for timestamp in session.superfluous_rows():
            context.rows[keyspace, TABLE_RESULTS, result_row_key(number, timestamp)] = None
        # A later command of the same entry may have acknowledged an earlier one.
        kept = {sequence: result for sequence, result in use.results.items() if sequence > session.acknowledged}
        pieces = _pieces(kept)
        # Each command had a timestamp, and a piece has one command at least: the last timestamps are enough for all.
        for at, results in enumerate(pieces, context.timestamp - len(pieces) + 1):
            session.result_rows.append((max(results), Timestamp(at)))
            context.rows[keyspace, TABLE_RESULTS, result_row_key(number, Timestamp(at))] = pack(results)


def _pieces(results: dict[int, bytes]) -> list[dict[int, bytes]]:
    """What goes into each row. Results that were applied one after the other stay so."""
    if sum(map(len, results.values())) < RESULT_ROW_BYTES_TARGET:
        return [results] if results else []
    pieces: list[dict[int, bytes]] = [{}]
    size_bytes = 0
    for sequence, result in results.items():
        if size_bytes >= RESULT_ROW_BYTES_TARGET:
            pieces.append({})
            size_bytes = 0
        pieces[-1][sequence] = result
        size_bytes += len(result)
    return pieces


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


def result_row_key(session: int, timestamp: Timestamp) -> bytes:
    """Row key of results of one entry in a session; its timestamp is that of one of the entry's commands."""
    return _RESULT_KEY.pack(session, timestamp)


def restore_results(state: KeyspaceState, key: bytes, value: bytes) -> None:
    """Take over a row of results, after the row of its session and those with lower keys."""
    number, timestamp = _RESULT_KEY.unpack(key)
    session = state.sessions[number]
    results = cast("dict[int, bytes]", msgpack.unpackb(value, strict_map_key=False))
    session.result_rows.append((max(results), Timestamp(timestamp)))
    for sequence, result in results.items():
        if sequence > session.acknowledged:
            session.results[sequence] = result
            session.results_bytes += len(result)
            state.results_bytes += len(result)
