"""The replicated state machine of one group: applies entries, answers queries, survives restarts by rows.

Deterministic: equal logs give equal states, results and rows on every replica. What decides, decides here, at
apply; the leader's queues only order and wake. Time is the entry's timestamp.

**Once.** A command runs only in a live session and stores its result under its sequence, in the same apply as
its effect. A repeated sequence returns the stored result. A sequence at or below the client's acknowledged mark
is refused: its result is forgotten. A command of an unknown or expired session never runs.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from isochrone.errors import Indeterminate, InvalidRequest, IsochroneError, QueueFull, SessionExpired, StorageError
from isochrone.ids import NS_PER_MS, GroupId, KeyspaceId, Revision, Timestamp
from isochrone.ports import Row
from isochrone.probes import probe
from isochrone.records import quickly_made
from isochrone.regions.state import kv
from isochrone.regions.state.model import (
    TABLE_GROUP,
    TABLE_KEYS,
    TABLE_RESULTS,
    TABLE_SESSIONS,
    ApplyContext,
    Handlers,
    KeyspaceState,
    Session,
    decode_key_row,
    decode_session_row,
    encode_session_row,
    parse_result_row_key,
    parse_session_row_key,
    result_row_key,
    session_row_key,
)
from isochrone.wire.commands import (
    SESSION_IN_FLIGHT_MAX,
    CloseSession,
    Command,
    CommandResult,
    OpenSession,
    check_operation,
    decode_batch,
    decode_command,
    decode_query,
    encode_key_value,
    encode_result,
)
from isochrone.wire.messages import Entry, EntryKind

SESSIONS_MAX = 100_000
"""Most live sessions of one keyspace; opening more is refused with `QueueFull`."""

_NO_KEYSPACE = KeyspaceId("")
_REVISION_KEY = b"revision"


@quickly_made
@dataclass(frozen=True, slots=True)
class Applied:
    """What one entry did."""

    outcomes: tuple[bytes | IsochroneError, ...]
    """For each command, in order: its encoded result, or the error with which it was refused without effect."""
    rows: tuple[Row, ...]


class GroupState:
    """The state of one group."""

    def __init__(self, group: GroupId, keyspaces: Iterable[KeyspaceId], handlers: Handlers) -> None:
        """Start empty; `restore` brings stored rows in. `handlers` are the registered command families."""
        self.group = group
        self.revision = Revision(0)
        self._handlers = handlers
        self._keyspaces = {name: KeyspaceState(name, name.encode()) for name in keyspaces}

    def restore(self, rows: Sequence[Row]) -> None:
        """Take over stored rows before the first apply; in pieces, if their order is kept."""
        for row in rows:
            if row.value is None:
                continue
            if row.table == TABLE_GROUP:
                self.revision = Revision(int.from_bytes(row.value, "big"))
                continue
            state = self._keyspace(row.keyspace)
            if row.table == TABLE_KEYS:
                state.keys[row.key] = decode_key_row(row.key, row.value)
            elif row.table == TABLE_SESSIONS:
                state.add_session(parse_session_row_key(row.key), decode_session_row(row.value))
            elif row.table == TABLE_RESULTS:
                session, sequence = parse_result_row_key(row.key)
                state.sessions[session].results[sequence] = row.value
            else:
                raise StorageError(f"group {self.group} has a row of unknown table {row.table}")

    def apply(self, entry: Entry) -> Applied:
        """Apply one committed entry."""
        if entry.kind is not EntryKind.COMMANDS:
            return Applied((), ())
        context = ApplyContext(self.revision, entry.timestamp, {})
        outcomes: list[bytes | IsochroneError] = []
        for position, data in enumerate(decode_batch(entry.data)):
            context.timestamp = Timestamp(entry.timestamp + position)
            try:
                state = self._keyspace(entry.keyspace)
                outcomes.append(self._run(state, decode_command(data), context))
            except IsochroneError as error:
                outcomes.append(error)
        if context.revision != self.revision:
            self.revision = context.revision
            context.rows[_NO_KEYSPACE, TABLE_GROUP, _REVISION_KEY] = self.revision.to_bytes(8, "big")
        rows = tuple(Row(self.group, name, table, key, value) for (name, table, key), value in context.rows.items())
        return Applied(tuple(outcomes), rows)

    def query(self, keyspace: KeyspaceId, query: bytes) -> bytes:
        """Answer a query from the state as it is. Raises `InvalidRequest`."""
        return encode_key_value(kv.get(self._keyspace(keyspace), decode_query(query).key))

    def _keyspace(self, name: KeyspaceId) -> KeyspaceState:
        try:
            return self._keyspaces[name]
        except KeyError:
            raise InvalidRequest(f"group {self.group} holds no keyspace {name!r}") from None

    def _run(self, state: KeyspaceState, command: Command, context: ApplyContext) -> bytes:
        check_operation(command.operation)
        if isinstance(command.operation, OpenSession):
            return _open_session(state, command.operation, context)
        session = _live_session(state, command, context)
        _acknowledge(state, command, session, context)
        stored = session.results.get(command.sequence)
        if stored is not None:
            probe("state.repeated_command")
            return stored
        if len(session.results) >= SESSION_IN_FLIGHT_MAX:
            raise QueueFull(f"session {command.session} has {len(session.results)} unacknowledged results")
        if isinstance(command.operation, CloseSession):
            _forget_session(state, command.session, context)
            return encode_result(CommandResult(True, context.revision, context.timestamp))
        result = self._handle(state, command, context)
        session.results[command.sequence] = result
        context.rows[state.keyspace, TABLE_RESULTS, result_row_key(command.session, command.sequence)] = result
        return result

    def _handle(self, state: KeyspaceState, command: Command, context: ApplyContext) -> bytes:
        handler = self._handlers.get(type(command.operation))
        if handler is None:
            raise InvalidRequest(f"no command family handles {type(command.operation).__name__}")
        return encode_result(handler(state, command.operation, context))


def _open_session(state: KeyspaceState, operation: OpenSession, context: ApplyContext) -> bytes:
    for number in state.expired_sessions(context.timestamp):
        _forget_session(state, number, context)
    if len(state.sessions) >= SESSIONS_MAX:
        raise QueueFull(f"keyspace {state.keyspace!r} has {SESSIONS_MAX} sessions")
    # A timestamp is unique within the log, and stays so when the keyspace moves: the target starts above it.
    number = int(context.timestamp)
    session = Session(operation.ttl_ms * NS_PER_MS, context.timestamp)
    state.add_session(number, session)
    context.rows[state.keyspace, TABLE_SESSIONS, session_row_key(number)] = encode_session_row(session)
    return encode_result(CommandResult(True, context.revision, context.timestamp, session=number))


def _live_session(state: KeyspaceState, command: Command, context: ApplyContext) -> Session:
    session = state.sessions.get(command.session)
    if session is not None and session.expired(context.timestamp):
        probe("state.session_expired")
        _forget_session(state, command.session, context)
        session = None
    if session is None:
        raise SessionExpired(f"session {command.session} of keyspace {state.keyspace!r} is unknown or has expired")
    if command.sequence <= session.acknowledged:
        probe("state.sequence_below_the_mark")
        raise Indeterminate(f"sequence {command.sequence} was acknowledged; its result is forgotten")
    return session


def _acknowledge(state: KeyspaceState, command: Command, session: Session, context: ApplyContext) -> None:
    if command.acknowledged >= command.sequence:
        raise InvalidRequest("a command cannot acknowledge its own sequence")
    gap = range(session.acknowledged + 1, command.acknowledged + 1)
    # Whatever number a client names, the work stays within what is stored.
    for sequence in gap if len(gap) <= len(session.results) + 1 else list(session.results):
        if sequence not in gap:
            continue
        if session.results.pop(sequence, None) is not None:
            context.rows[state.keyspace, TABLE_RESULTS, result_row_key(command.session, sequence)] = None
    session.acknowledged = max(session.acknowledged, command.acknowledged)
    session.last_used = context.timestamp
    context.rows[state.keyspace, TABLE_SESSIONS, session_row_key(command.session)] = encode_session_row(session)


def _forget_session(state: KeyspaceState, number: int, context: ApplyContext) -> None:
    session = state.sessions.pop(number)
    context.rows[state.keyspace, TABLE_SESSIONS, session_row_key(number)] = None
    for sequence in session.results:
        context.rows[state.keyspace, TABLE_RESULTS, result_row_key(number, sequence)] = None
