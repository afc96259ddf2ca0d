"""The state machine: what commands do, that they do it once, and that rows rebuild it."""

import random

import msgpack
import pytest
from state_log import GROUP, KEYSPACE, NS_PER_MS, TTL_MS, StateLog, same_state

from isochrone.errors import Indeterminate, InvalidRequest, QueueFull, SessionExpired
from isochrone.ids import KeyspaceId, LogIndex, Term, Timestamp
from isochrone.regions.state.families import HANDLERS
from isochrone.regions.state.machine import GroupState
from isochrone.regions.state.model import TABLE_RESULTS, Session
from isochrone.wire import kv
from isochrone.wire.commands import (
    SESSION_IN_FLIGHT_MAX,
    CloseSession,
    Command,
    OpenSession,
    Operation,
    encode_batch,
    encode_command,
)
from isochrone.wire.entries import make_entry
from isochrone.wire.kv import Compact, DeleteRange, DeleteResult, Increment, Put, Range, RangeResult, Txn
from isochrone.wire.messages import EntryKind


def test_put_get_delete_count_revisions_and_versions() -> None:
    machine = StateLog()
    session = machine.session()
    assert machine.run(session, 1, Put(b"k/x", b"1")).revision == 2
    assert machine.run(session, 2, Put(b"k/x", b"2")).revision == 3
    (item,) = machine.read(Range(b"k/x")).items
    assert (item.value, item.create_revision, item.mod_revision, item.version) == (b"2", 2, 3, 2)
    deleted = machine.run(session, 3, DeleteRange(b"k/x"))
    assert isinstance(deleted, DeleteResult) and deleted.deleted == 1 and deleted.revision == 4
    gone = machine.run(session, 4, DeleteRange(b"k/x"))
    assert isinstance(gone, DeleteResult) and gone.deleted == 0 and gone.revision == 4
    machine.run(session, 5, Put(b"k/x", b"3"))
    (item,) = machine.read(Range(b"k/x")).items
    assert (item.create_revision, item.version) == (5, 1)


def test_a_repeated_sequence_returns_the_stored_result_without_effect() -> None:
    machine = StateLog()
    session = machine.session()
    first = machine.run(session, 1, Increment(b"k/x", 1))
    again = machine.run(session, 1, Increment(b"k/x", 1))
    assert again == first and machine.state.revision == 2


def test_a_repeat_within_one_batch_takes_effect_once() -> None:
    machine = StateLog()
    session = machine.session()
    command = Command(session, 1, 0, Put(b"k/x", b"1"))
    first, second = machine.apply(command, command)
    assert first == second and machine.state.revision == 2


def test_an_acknowledged_sequence_is_refused_as_indeterminate() -> None:
    machine = StateLog()
    session = machine.session()
    machine.run(session, 1, Put(b"k/x", b"1"))
    machine.run(session, 2, Put(b"k/x", b"2"), acknowledged=1)
    with pytest.raises(Indeterminate):
        machine.run(session, 1, Put(b"k/x", b"1"))
    assert machine.value(b"k/x") == b"2"


def test_a_session_is_not_used_by_a_command_that_it_refuses() -> None:
    machine = StateLog()
    opened_ms, session = machine.now_ms, machine.session()
    machine.now_ms = opened_ms + TTL_MS  # its last moment
    put = Put(b"k/x", b"1")
    first, second = machine.apply(Command(session, 1, 1, put), Command(session, 1, 0, put))
    assert isinstance(first, InvalidRequest)
    assert isinstance(second, SessionExpired)


def test_an_unused_session_expires_by_entry_time_and_never_executes() -> None:
    machine = StateLog()
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
    machine = StateLog()
    session = machine.session()
    machine.run(session, 1, CloseSession())
    for number in (session, 12345):
        with pytest.raises(SessionExpired):
            machine.run(number, 2, Put(b"k/x", b"1"))
    assert machine.value(b"k/x") is None


def _result_rows(machine: StateLog) -> list[set[int]]:
    """The sequences in each stored row of results, in the order of the rows."""
    return [
        set(msgpack.unpackb(row.value, strict_map_key=False))
        for row in machine.stored()
        if row.table == TABLE_RESULTS and row.value is not None
    ]


def test_the_results_of_an_entry_are_one_row_until_the_last_of_them_is_acknowledged() -> None:
    machine = StateLog()
    session = machine.session()
    puts = [Command(session, sequence, 0, Put(b"k/x", b"%d" % sequence)) for sequence in range(1, 6)]
    first = machine.apply(*puts[:3])
    machine.now_ms += 1
    machine.apply(*puts[3:])
    machine.now_ms += 1
    assert _result_rows(machine) == [{1, 2, 3}, {4, 5}]
    machine.run(session, 6, Put(b"k/x", b"6"), acknowledged=2)
    assert _result_rows(machine) == [{1, 2, 3}, {4, 5}, {6}]
    machine.restart()
    assert machine.apply(puts[2])[0] == first[2]
    assert isinstance(machine.apply(puts[1])[0], Indeterminate)
    machine.now_ms += 1
    machine.run(session, 7, Put(b"k/x", b"7"), acknowledged=5)
    assert _result_rows(machine) == [{6}, {7}]
    machine.apply(Command(session, 8, 7, CloseSession()))
    assert _result_rows(machine) == []


def test_what_a_later_command_of_the_entry_acknowledges_is_not_stored() -> None:
    machine = StateLog()
    session = machine.session()
    put = Put(b"k/x", b"1")
    machine.apply(Command(session, 1, 0, put), Command(session, 2, 0, put), Command(session, 3, 1, put))
    assert _result_rows(machine) == [{2, 3}]
    machine.now_ms += 1
    machine.apply(Command(session, 4, 3, put), Command(session, 5, 4, CloseSession()))
    assert _result_rows(machine) == []


def test_no_row_of_results_outgrows_a_piece_of_a_snapshot(monkeypatch: pytest.MonkeyPatch) -> None:
    """A row travels in one message, however many results of whatever size an entry has."""
    monkeypatch.setattr("isochrone.regions.state.sessions.RESULT_ROW_BYTES_TARGET", 2_500)
    machine = StateLog()
    session = machine.session()
    machine.run(session, 1, Put(b"k/x", bytes(1_000)))
    results = machine.apply(*[Command(session, sequence, 1, Range(b"k/x")) for sequence in range(2, 10)])
    assert _result_rows(machine) == [{2, 3, 4}, {5, 6, 7}, {8, 9}]
    running = machine.state
    machine.restart()
    assert same_state(running, machine.state)
    machine.now_ms += 1
    assert machine.apply(*[Command(session, sequence, 1, Range(b"k/x")) for sequence in range(2, 10)]) == results
    machine.now_ms += 1
    machine.run(session, 10, Put(b"k/x", b""), acknowledged=7)
    assert _result_rows(machine) == [{8, 9}, {10}]
    machine.now_ms += 1
    machine.run(session, 11, CloseSession(), acknowledged=7)
    assert _result_rows(machine) == []


def test_the_results_of_an_entry_are_bounded_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("isochrone.regions.state.running.ENTRY_RESULTS_BYTES_MAX", 2_000)
    machine = StateLog()
    session = machine.session()
    machine.run(session, 1, Put(b"k/x", bytes(1_500)))
    read, write = (Command(0, 0, 0, operation) for operation in (Range(b"k/x"), Put(b"k/y", b"")))
    outcomes = machine.apply(read, read, write, Command(session, 2, 1, Put(b"k/y", b"")))
    assert [type(outcome) for outcome in outcomes] == [RangeResult, RangeResult, QueueFull, QueueFull]
    assert machine.value(b"k/y") is None
    machine.now_ms += 1
    machine.run(session, 2, Put(b"k/y", b"1"))
    assert machine.value(b"k/y") == b"1"


def test_stored_results_are_bounded_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("isochrone.regions.state.sessions.RESULTS_BYTES_MAX", 2_000)
    machine = StateLog()
    session = machine.session()
    machine.run(session, 1, Put(b"k/x", bytes(1_500)))
    machine.run(session, 2, Range(b"k/x"))
    machine.run(session, 3, Range(b"k/x"))
    machine.restart()
    with pytest.raises(QueueFull, match="bytes"):
        machine.run(session, 4, Range(b"k/x"))
    machine.run(session, 4, Range(b"k/x"), acknowledged=2)


def test_stored_results_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("isochrone.regions.state.sessions.SESSION_IN_FLIGHT_MAX", 3)
    machine = StateLog()
    session = machine.session()
    for sequence in (1, 2, 3):
        machine.run(session, sequence, Put(b"k/x", b"1"))
    with pytest.raises(QueueFull):
        machine.run(session, 4, Put(b"k/x", b"1"))
    machine.run(session, 5, Put(b"k/x", b"1"), acknowledged=3)


def test_a_sequence_far_ahead_is_refused_and_keeps_no_rows() -> None:
    """Else its row, the oldest, would keep the rows of all results after it, however many are acknowledged."""
    machine = StateLog()
    session = machine.session()
    with pytest.raises(QueueFull):
        machine.run(session, SESSION_IN_FLIGHT_MAX + 1, Put(b"k/x", b"far"))
    machine.run(session, SESSION_IN_FLIGHT_MAX, Put(b"k/x", b"as far as may be"))
    for sequence in range(1, 50):
        machine.run(session, sequence, Put(b"k/x", b"1"), acknowledged=sequence - 1)
    state = machine.state.data.keyspaces[KEYSPACE].sessions[session]
    assert sorted(state.results) == [49, SESSION_IN_FLIGHT_MAX] and len(state.result_rows) <= SESSION_IN_FLIGHT_MAX


@pytest.mark.parametrize(
    "operation",
    [
        Put(b"", b"1"),
        Put(b"other/x", b"1"),
        Put(b"k/" + b"x" * kv.KEY_BYTES_MAX, b"1"),
        Put(b"k/x", b"x" * (kv.VALUE_BYTES_MAX + 1)),
        DeleteRange(b"elsewhere"),
        Increment(b"zzz", 1),
        Range(b"zzz"),
        Compact(5),
        Txn(success=(Put(b"k/x", b"1"), Put(b"zzz", b"1"))),
    ],
    ids=lambda operation: type(operation).__name__,
)
def test_bad_operations_are_refused_without_effect(operation: Operation) -> None:
    machine = StateLog()
    session = machine.session()
    with pytest.raises(InvalidRequest):
        machine.run(session, 1, operation)
    assert machine.state.revision == 1


def test_a_bad_command_does_not_spoil_its_batch() -> None:
    machine = StateLog()
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
    machine = StateLog()
    session = machine.session()
    machine.run(session, 1, Put(b"k/x", b"1"))
    with pytest.raises(InvalidRequest):
        machine.run(session, 2, Put(b"k/x", b"1"), acknowledged=1 << 62)
    machine.run(session, 1 << 62, Put(b"k/x", b"1"), acknowledged=(1 << 62) - 1)


def test_a_foreign_keyspace_is_refused() -> None:
    machine = StateLog()
    outcome = machine.apply(Command(0, 0, 0, OpenSession(b"", TTL_MS)), keyspace=KeyspaceId("nowhere/"))[0]
    assert isinstance(outcome, InvalidRequest)


def _random_run(machine: StateLog, seed: int) -> None:
    rng = random.Random(seed)
    sessions = [machine.session() for _ in range(3)]
    sequences = dict.fromkeys(sessions, 1)
    for session in sessions:
        machine.run(session, 1, Put(b"k/0", b"0"))
    batch: list[Command] = []
    for _ in range(200):
        session = rng.choice(sessions)
        sequences[session] += rng.randrange(2)
        sequence = max(1, sequences[session])
        key = b"k/%d" % rng.randrange(5)
        value = b"%d" % rng.randrange(3)
        operation = rng.choice(
            [
                Put(key, value),
                DeleteRange(key),
                Increment(key, 1),
                Txn(success=(Put(b"m/x", value), DeleteRange(key))),
                Compact(rng.randrange(1, machine.state.revision + 2)),
                CloseSession(),
            ]
        )
        if isinstance(operation, CloseSession) and rng.random() < 0.95:
            continue
        batch.append(Command(session, sequence, rng.randrange(sequence), operation))
        if rng.random() < 0.5:
            continue
        machine.apply(*batch)
        batch = []
        machine.now_ms += rng.choice([1, 1, 1, TTL_MS // 2])


@pytest.mark.parametrize("seed", range(20))
def test_rows_rebuild_the_state_and_equal_logs_give_equal_states(seed: int) -> None:
    machine = StateLog()
    _random_run(machine, seed)
    replayed = GroupState(GROUP, machine.keyspaces, HANDLERS)
    replayed_rows = [row for entry in machine.entries for row in replayed.apply(entry).rows]
    final = {(row.keyspace, row.table, row.key): row for row in replayed_rows}
    assert final == machine.rows
    assert same_state(replayed, machine.state)
    machine.restart()
    assert same_state(replayed, machine.state)
    assert machine.state.revision > 1


def test_opening_a_session_looks_at_no_session_that_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = StateLog()
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
    machine = StateLog()
    used, unused, closed = (machine.session() for _ in range(3))
    machine.run(closed, 1, CloseSession())
    machine.now_ms += TTL_MS // 2
    machine.run(used, 1, Put(b"k/x", b"1"))
    machine.now_ms += TTL_MS // 2
    machine.session()
    held = machine.state.data.keyspaces[KEYSPACE].sessions
    assert used in held and unused not in held and closed not in held
    machine.now_ms += TTL_MS // 2
    machine.session()
    assert used not in held and len(held) == 2


def test_sessions_that_are_closed_at_once_leave_nothing_behind() -> None:
    machine = StateLog()
    for _ in range(500):
        machine.run(machine.session(), 1, CloseSession())
    assert len(machine.state.data.keyspaces[KEYSPACE].expiries) <= 2
