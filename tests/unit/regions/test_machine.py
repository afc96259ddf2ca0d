"""The state machine: what commands do, that they do it once, and that rows rebuild it."""

import random

import pytest

from isochrone.errors import Indeterminate, InvalidRequest, IsochroneError, QueueFull, SessionExpired
from isochrone.ids import GroupId, KeyspaceId, LogIndex, Term, Timestamp
from isochrone.regions.state.kv import HANDLERS
from isochrone.regions.state.machine import GroupState
from isochrone.regions.state.model import Session
from isochrone.wire import commands
from isochrone.wire.commands import (
    CloseSession,
    Command,
    CommandResult,
    CompareAndSet,
    Delete,
    Get,
    OpenSession,
    Operation,
    Put,
    decode_key_value,
    decode_result,
    encode_batch,
    encode_command,
    encode_query,
)
from isochrone.wire.entries import make_entry
from isochrone.wire.messages import Entry, EntryKind

GROUP, KEYSPACE = GroupId("g"), KeyspaceId("k/")
TTL_MS = 1_000
NS_PER_MS = 1_000_000


class Machine:
    """A `GroupState` with a log in front."""

    def __init__(self) -> None:
        self.state = GroupState(GROUP, [KEYSPACE], HANDLERS)
        self.entries: list[Entry] = []
        self.now_ms = 1_000
        self.rows: dict[tuple[str, int, bytes], object] = {}

    def apply(self, *items: Command, keyspace: KeyspaceId = KEYSPACE) -> list[CommandResult | IsochroneError]:
        entry = make_entry(
            index=LogIndex(len(self.entries) + 1),
            term=Term(1),
            kind=EntryKind.COMMANDS,
            timestamp=Timestamp(self.now_ms * NS_PER_MS),
            count=len(items),
            keyspace=keyspace,
            data=encode_batch([encode_command(item) for item in items]),
        )
        self.entries.append(entry)
        applied = self.state.apply(entry)
        for row in applied.rows:
            self.rows[row.keyspace, row.table, row.key] = row
        return [decode_result(o) if isinstance(o, bytes) else o for o in applied.outcomes]

    def session(self) -> int:
        result = self.apply(Command(0, 0, 0, OpenSession(b"", TTL_MS)))[0]
        assert isinstance(result, CommandResult)
        self.now_ms += 1
        return result.session

    def run(self, session: int, sequence: int, operation: Operation, acknowledged: int = 0) -> CommandResult:
        result = self.apply(Command(session, sequence, acknowledged, operation))[0]
        self.now_ms += 1
        if isinstance(result, IsochroneError):
            raise result
        return result

    def value(self, key: bytes) -> bytes | None:
        item = decode_key_value(self.state.query(KEYSPACE, encode_query(Get(key))))
        return item.value if item else None


def test_put_get_delete_count_revisions_and_versions() -> None:
    machine = Machine()
    session = machine.session()
    assert machine.run(session, 1, Put(b"k/x", b"1")).revision == 1
    assert machine.run(session, 2, Put(b"k/x", b"2")).revision == 2
    item = decode_key_value(machine.state.query(KEYSPACE, encode_query(Get(b"k/x"))))
    assert item is not None
    assert (item.value, item.create_revision, item.mod_revision, item.version) == (b"2", 1, 2, 2)
    assert machine.run(session, 3, Delete(b"k/x")).succeeded
    gone = machine.run(session, 4, Delete(b"k/x"))
    assert not gone.succeeded and gone.revision == 3
    machine.run(session, 5, Put(b"k/x", b"3"))
    item = decode_key_value(machine.state.query(KEYSPACE, encode_query(Get(b"k/x"))))
    assert item is not None and (item.create_revision, item.version) == (4, 1)


def test_compare_and_set_in_all_its_cases() -> None:
    machine = Machine()
    session = machine.session()
    assert machine.run(session, 1, CompareAndSet(b"k/x", None, b"1")).succeeded
    failed = machine.run(session, 2, CompareAndSet(b"k/x", None, b"2"))
    assert not failed.succeeded and failed.previous == b"1" and failed.revision == 1
    assert machine.run(session, 3, CompareAndSet(b"k/x", b"1", b"2")).succeeded
    assert machine.run(session, 4, CompareAndSet(b"k/x", b"2", None)).succeeded
    assert machine.value(b"k/x") is None
    assert machine.run(session, 5, CompareAndSet(b"k/x", None, None)).succeeded


def test_a_repeated_sequence_returns_the_stored_result_without_effect() -> None:
    machine = Machine()
    session = machine.session()
    first = machine.run(session, 1, CompareAndSet(b"k/x", None, b"1"))
    again = machine.run(session, 1, CompareAndSet(b"k/x", None, b"1"))
    assert again == first and machine.state.revision == 1


def test_a_repeat_within_one_batch_takes_effect_once() -> None:
    machine = Machine()
    session = machine.session()
    command = Command(session, 1, 0, Put(b"k/x", b"1"))
    first, second = machine.apply(command, command)
    assert first == second and machine.state.revision == 1


def test_an_acknowledged_sequence_is_refused_as_indeterminate() -> None:
    machine = Machine()
    session = machine.session()
    machine.run(session, 1, Put(b"k/x", b"1"))
    machine.run(session, 2, Put(b"k/x", b"2"), acknowledged=1)
    with pytest.raises(Indeterminate):
        machine.run(session, 1, Put(b"k/x", b"1"))
    assert machine.value(b"k/x") == b"2"


def test_an_unused_session_expires_by_entry_time_and_never_executes() -> None:
    machine = Machine()
    session = machine.session()
    machine.run(session, 1, Put(b"k/x", b"1"))
    machine.now_ms += TTL_MS - 10
    machine.run(session, 2, Put(b"k/x", b"2"))
    machine.now_ms += TTL_MS + 1
    with pytest.raises(SessionExpired):
        machine.run(session, 3, Put(b"k/x", b"3"))
    with pytest.raises(SessionExpired):
        machine.run(session, 2, Put(b"k/x", b"2"))
    assert machine.value(b"k/x") == b"2"


def test_a_closed_or_unknown_session_never_executes() -> None:
    machine = Machine()
    session = machine.session()
    machine.run(session, 1, CloseSession())
    for number in (session, 12345):
        with pytest.raises(SessionExpired):
            machine.run(number, 2, Put(b"k/x", b"1"))
    assert machine.value(b"k/x") is None


def test_stored_results_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("isochrone.regions.state.machine.SESSION_IN_FLIGHT_MAX", 3)
    machine = Machine()
    session = machine.session()
    for sequence in (1, 2, 3):
        machine.run(session, sequence, Put(b"k/x", b"1"))
    with pytest.raises(QueueFull):
        machine.run(session, 4, Put(b"k/x", b"1"))
    machine.run(session, 5, Put(b"k/x", b"1"), acknowledged=3)


@pytest.mark.parametrize(
    "operation",
    [
        Put(b"", b"1"),
        Put(b"other/x", b"1"),
        Put(b"k/" + b"x" * commands.KEY_BYTES_MAX, b"1"),
        Put(b"k/x", b"x" * (commands.VALUE_BYTES_MAX + 1)),
        Delete(b"elsewhere"),
        CompareAndSet(b"zzz", None, b"1"),
    ],
    ids=lambda operation: type(operation).__name__,
)
def test_bad_operations_are_refused_without_effect(operation: Operation) -> None:
    machine = Machine()
    session = machine.session()
    with pytest.raises(InvalidRequest):
        machine.run(session, 1, operation)
    assert machine.state.revision == 0


def test_a_bad_command_does_not_spoil_its_batch() -> None:
    machine = Machine()
    session = machine.session()
    data = encode_batch([b"\xc1garbage", encode_command(Command(session, 1, 0, Put(b"k/x", b"1")))])
    entry = make_entry(
        index=LogIndex(2),
        term=Term(1),
        kind=EntryKind.COMMANDS,
        timestamp=Timestamp(machine.now_ms * NS_PER_MS),
        count=2,
        keyspace=KEYSPACE,
        data=data,
    )
    bad, good = machine.state.apply(entry).outcomes
    assert isinstance(bad, InvalidRequest) and isinstance(good, bytes)


def test_a_huge_acknowledged_mark_costs_nothing_and_is_refused() -> None:
    machine = Machine()
    session = machine.session()
    machine.run(session, 1, Put(b"k/x", b"1"))
    with pytest.raises(InvalidRequest):
        machine.run(session, 2, Put(b"k/x", b"1"), acknowledged=1 << 62)
    machine.run(session, 1 << 62, Put(b"k/x", b"1"), acknowledged=(1 << 62) - 1)


def test_a_foreign_keyspace_is_refused() -> None:
    machine = Machine()
    outcome = machine.apply(Command(0, 0, 0, OpenSession(b"", TTL_MS)), keyspace=KeyspaceId("nowhere/"))[0]
    assert isinstance(outcome, InvalidRequest)


def _random_run(machine: Machine, seed: int) -> None:
    rng = random.Random(seed)
    sessions = [machine.session() for _ in range(3)]
    sequences = dict.fromkeys(sessions, 1)
    for session in sessions:
        machine.run(session, 1, Put(b"k/0", b"0"))
    for _ in range(150):
        session = rng.choice(sessions)
        sequences[session] += rng.randrange(2)
        sequence = max(1, sequences[session])
        key = b"k/%d" % rng.randrange(5)
        value = b"%d" % rng.randrange(3)
        operation = rng.choice([Put(key, value), Delete(key), CompareAndSet(key, value, b"9"), CloseSession()])
        if isinstance(operation, CloseSession) and rng.random() < 0.95:
            continue
        machine.apply(Command(session, sequence, rng.randrange(sequence), operation))
        machine.now_ms += rng.choice([1, 1, 1, TTL_MS // 2])


@pytest.mark.parametrize("seed", range(20))
def test_rows_rebuild_the_state_and_equal_logs_give_equal_states(seed: int) -> None:
    machine = Machine()
    _random_run(machine, seed)
    replayed = GroupState(GROUP, [KEYSPACE], HANDLERS)
    replayed_rows = [row for entry in machine.entries for row in replayed.apply(entry).rows]
    rebuilt = GroupState(GROUP, [KEYSPACE], HANDLERS)
    rebuilt.restore([row for _, row in sorted(machine.rows.items())])  # type: ignore[misc]
    final = {(row.keyspace, row.table, row.key): row for row in replayed_rows}
    assert final == machine.rows
    assert rebuilt._keyspaces == machine.state._keyspaces == replayed._keyspaces
    assert rebuilt.revision == machine.state.revision > 0


def test_opening_a_session_looks_at_no_session_that_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine()
    for _ in range(1_000):
        machine.session()
        machine.now_ms -= 1
    looked_at = 0
    expired = Session.expired

    def counting(session: Session, now: Timestamp) -> bool:
        nonlocal looked_at
        looked_at += 1
        return expired(session, now)

    monkeypatch.setattr(Session, "expired", counting)
    machine.session()
    assert looked_at == 0


def test_opening_a_session_forgets_those_that_have_expired_and_no_others() -> None:
    machine = Machine()
    used, unused, closed = (machine.session() for _ in range(3))
    machine.run(closed, 1, CloseSession())
    machine.now_ms += TTL_MS // 2
    machine.run(used, 1, Put(b"k/x", b"1"))
    machine.now_ms += TTL_MS // 2
    machine.session()
    held = machine.state._keyspaces[KEYSPACE].sessions
    assert used in held and unused not in held and closed not in held
    machine.now_ms += TTL_MS // 2
    machine.session()
    assert used not in held and len(held) == 2


def test_sessions_that_are_closed_at_once_leave_nothing_behind() -> None:
    machine = Machine()
    for _ in range(500):
        machine.run(machine.session(), 1, CloseSession())
    assert len(machine.state._keyspaces[KEYSPACE].expiries) <= 2
