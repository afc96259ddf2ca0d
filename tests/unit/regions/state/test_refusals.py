"""What the state refuses is an outcome like any other: told again in the same words, whatever has changed since."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn

import pytest
from state_log import GROUP, StateLog, same_state

from isochrone.errors import (
    ERROR_BY_NAME,
    InvalidRequest,
    IsochroneError,
    KeyNotFound,
    LeaseExists,
    LeaseNotFound,
    LockHeld,
    LockNotHeld,
    NotLeader,
    QueueFull,
    RevisionCompacted,
    SessionExpired,
)
from isochrone.regions.state import sessions
from isochrone.regions.state.families import HANDLERS
from isochrone.regions.state.machine import GroupState
from isochrone.regions.state.model import TABLE_RESULTS
from isochrone.wire.commands import Command, Operation
from isochrone.wire.kv import Compact, Increment, Put
from isochrone.wire.leases import LeaseGrant, LeaseRevoke
from isochrone.wire.locks import LockAcquire, LockMode, LockRelease

LOCK = b"k/lock"
ELSEWHERE = b"\x00" * 64


def acquire(lease: int) -> LockAcquire:
    return LockAcquire(LOCK, lease, 1, LockMode.X, 0)


def hold(log: StateLog, lease: int) -> None:
    log.do(LeaseGrant(lease, 60_000))
    log.do(acquire(lease))


def refused(log: StateLog, session: int, sequence: int, operation: Operation) -> IsochroneError:
    outcome = log.apply(Command(session, sequence, 0, operation))[0]
    assert isinstance(outcome, IsochroneError)
    return outcome


@dataclass(frozen=True)
class Case:
    """An operation that is refused first, and would not be after `change`."""

    error: type[IsochroneError]
    prepare: Callable[[StateLog], object]
    operation: Operation
    change: Callable[[StateLog], object]


CASES = [
    Case(
        LockHeld,
        lambda log: (hold(log, 1), log.do(LeaseGrant(2, 60_000))),
        acquire(2),
        lambda log: log.do(LeaseRevoke(1)),
    ),
    Case(LockNotHeld, lambda log: None, LockRelease(LOCK, 2), lambda log: hold(log, 2)),
    Case(LeaseNotFound, lambda log: None, Put(b"k/x", b"1", lease=7), lambda log: log.do(LeaseGrant(7, 60_000))),
    Case(
        LeaseExists, lambda log: log.do(LeaseGrant(7, 60_000)), LeaseGrant(7, 1_000), lambda log: log.do(LeaseRevoke(7))
    ),
    Case(
        KeyNotFound,
        lambda log: None,
        Put(b"k/x", b"", ignore_value=True),
        lambda log: log.do(Put(b"k/x", b"1")),
    ),
    Case(
        InvalidRequest,
        lambda log: log.do(Put(b"k/n", b"one")),
        Increment(b"k/n", 1),
        lambda log: log.do(Put(b"k/n", b"1")),
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.error.__name__)
def test_a_repeated_command_is_refused_as_before_though_it_could_run_now(case: Case) -> None:
    log = StateLog()
    case.prepare(log)
    session = log.session()
    first = refused(log, session, 1, case.operation)
    assert type(first) is case.error and first.stored
    case.change(log)
    revision, tokens = log.state.revision, [state.token for state in log.state.data.keyspaces.values()]
    log.restart()
    again = refused(log, session, 1, case.operation)
    assert (type(again), str(again), again.stored) == (case.error, str(first), True)
    assert (log.state.revision, [state.token for state in log.state.data.keyspaces.values()]) == (revision, tokens)
    assert not isinstance(log.run(session, 2, case.operation), IsochroneError)


def test_a_copy_in_the_same_entry_is_refused_though_the_command_between_lets_it_run() -> None:
    log = StateLog()
    session = log.session()
    late = Command(session, 1, 0, Put(b"k/x", b"1", lease=7))
    first, granted, again = log.apply(late, Command(session, 2, 0, LeaseGrant(7, 60_000)), late)
    assert isinstance(first, LeaseNotFound) and isinstance(again, LeaseNotFound)
    assert not isinstance(granted, IsochroneError)
    assert log.value(b"k/x") is None


def test_an_operation_that_no_state_could_accept_is_refused_under_its_sequence_too() -> None:
    """A copy of it may not take the sequence for another operation."""
    log = StateLog()
    session = log.session()
    assert refused(log, session, 1, Put(b"", b"1")).stored
    with pytest.raises(InvalidRequest):
        log.run(session, 1, Put(b"k/x", b"1"))
    assert log.value(b"k/x") is None


def test_a_stored_refusal_is_forgotten_when_it_is_acknowledged() -> None:
    log = StateLog()
    session = log.session()
    refused(log, session, 1, Put(b"k/x", b"1", lease=7))
    assert log.state.data.keyspace(log.keyspaces[0]).results_bytes > 0
    log.run(session, 2, Put(b"k/x", b"1"), acknowledged=1)
    log.run(session, 3, Put(b"k/x", b"1"), acknowledged=2)
    assert len([row for row in log.stored() if row.table == TABLE_RESULTS]) == 1
    kept = log.state
    log.restart()
    assert same_state(kept, log.state)


def test_what_is_refused_for_want_of_a_session_or_of_room_is_not_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    log = StateLog()
    session = log.session()
    monkeypatch.setattr(sessions, "RESULTS_BYTES_MAX", 1)
    log.run(session, 1, Put(b"k/x", b"1"))
    assert isinstance(error := refused(log, session, 2, Put(b"k/x", b"2")), QueueFull)
    assert not error.stored
    monkeypatch.setattr(sessions, "RESULTS_BYTES_MAX", 1 << 20)
    log.run(session, 2, Put(b"k/x", b"2"))
    assert not refused(log, 4711, 1, Put(b"k/x", b"3")).stored
    assert isinstance(refused(log, 4711, 1, Put(b"k/x", b"3")), SessionExpired)
    assert log.value(b"k/x") == b"2"


def test_a_command_outside_a_session_is_refused_anew() -> None:
    log = StateLog()
    assert not refused(log, 0, 0, Put(b"k/x", b"1", lease=7)).stored
    log.do(LeaseGrant(7, 60_000))
    log.do(Put(b"k/x", b"1", lease=7))


def test_the_text_of_a_refusal_is_bounded_and_the_same_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "REFUSAL_TEXT_CHARS_MAX", 20)
    log = StateLog()
    session = log.session()
    first = refused(log, session, 1, Put(ELSEWHERE, b"1"))
    again = refused(log, session, 1, Put(ELSEWHERE, b"1"))
    assert str(first) == str(again)
    assert len(str(first)) == 20


def test_stored_refusals_count_against_the_room_of_a_session(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "RESULTS_BYTES_MAX", 200)
    log = StateLog()
    session = log.session()
    errors = [refused(log, session, sequence, Put(b"k/x", b"1", lease=7)) for sequence in range(1, 100)]
    told = [type(error) for error in errors]
    assert told == sorted(told, key=lambda cls: cls is QueueFull)
    assert told[0] is LeaseNotFound and told[-1] is QueueFull


@pytest.mark.parametrize("cls", [cls for cls in ERROR_BY_NAME.values() if cls is not NotLeader])
def test_every_error_that_a_handler_may_raise_comes_back_as_itself(cls: type[IsochroneError]) -> None:
    def refuse(*_: object) -> NoReturn:
        raise cls("why")

    log = StateLog()
    log.state = GroupState(GROUP, log.keyspaces, {**HANDLERS, Compact: refuse})
    session = log.session()
    for _ in range(2):
        error = refused(log, session, 1, Compact(5))
        assert (type(error), str(error)) == (cls, "why")


def test_a_refusal_of_a_revision_names_the_one_of_then() -> None:
    log = StateLog()
    session = log.session()
    for _ in range(5):
        log.do(Put(b"k/x", b"1"))
    log.do(Compact(3))
    first = refused(log, session, 1, Compact(2))
    log.do(Compact(5))
    assert isinstance(first, RevisionCompacted) and str(refused(log, session, 1, Compact(2))) == str(first)
