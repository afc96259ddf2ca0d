"""What one client's commands may cost the others: every command is bounded in work, in what it tells and keeps."""

import pytest
from state_log import KEYSPACE, StateLog, same_state

from isochrone.errors import InvalidRequest, IsochroneError, LockHeld, QueueFull
from isochrone.regions.state import leases, locks, sessions, txn
from isochrone.regions.state.kv import READ_BYTES_MAX
from isochrone.regions.state.locks import WAITING_MAX
from isochrone.wire.commands import Command, OpenSession, Operation, SessionResult
from isochrone.wire.kv import (
    TXN_PARTS_MAX,
    VALUE_BYTES_MAX,
    Compare,
    DeleteRange,
    Put,
    Range,
    Relation,
    Target,
    Txn,
    prefix_end,
)
from isochrone.wire.leases import LeaseGrant, LeaseTimeToLive
from isochrone.wire.locks import (
    LOCK_VALUE_BYTES_MAX,
    LOCK_WAIT_MS_MAX,
    LockAcquire,
    LockEnd,
    LockMode,
    LockQuery,
    LockRelease,
    LockResult,
)
from isochrone.wire.records import decode_record, record_lease, record_timestamp, set_record

ALL_OF_K = (b"k/", prefix_end(b"k/"))


def refused(log: StateLog, operation: Operation) -> IsochroneError:
    """The error with which an operation is refused; the state stays as it is."""
    revision = log.state.revision
    result = log.apply(Command(0, 0, 0, operation))[0]
    assert isinstance(result, IsochroneError) and log.state.revision == revision
    return result


def test_a_wait_is_shorter_than_a_timestamp_can_tell() -> None:
    log = StateLog()
    log.do(LeaseGrant(1, 60_000))
    assert isinstance(refused(log, LockAcquire(b"k/l", 1, 1, wait_ms=LOCK_WAIT_MS_MAX + 1)), InvalidRequest)
    assert isinstance(log.do(LockAcquire(b"k/l", 1, 1, wait_ms=LOCK_WAIT_MS_MAX)), LockResult)


def test_a_key_may_be_set_for_years_on_end() -> None:
    record = set_record(b"k", b"v", revision=1 << 62, place=7, created=3, version=1 << 40, timestamp=5, lease=9)
    found = decode_record(record)
    assert (found.version, found.timestamp, found.lease, found.value) == (1 << 40, 5, 9, b"v")
    assert (record_timestamp(record), record_lease(record)) == (5, 9)


@pytest.mark.parametrize("contested", [False, True])
def test_a_crowd_waits_for_a_lock(contested: bool) -> None:
    log, count = StateLog(), 500 if contested else WAITING_MAX
    log.apply(*[Command(0, 0, 0, LeaseGrant(lease, 600_000)) for lease in range(1, 2 * count + 2)])
    for lease in range(1, count + 1):  # each holds a lock of its own that somebody may wait for
        own, other = LockAcquire(b"k/%d" % lease, lease, 1), LockAcquire(b"k/%d" % lease, lease + count + 1, 1)
        shared = LockAcquire(b"k/l", lease, 2, LockMode.S if lease > 1 else LockMode.X)
        log.now_ms += 1
        *_, result = log.apply(
            *[Command(0, 0, 0, each) for each in ([own, other] if contested else [own])], Command(0, 0, 0, shared)
        )
        assert isinstance(result, LockResult) and result.end is (LockEnd.WAITING if lease > 1 else LockEnd.GRANTED)
    log.now_ms += 1
    log.do(LockRelease(b"k/l", 1))
    assert len(log.state.data.locks.locks[b"k/l"].held) == count - 1, "all readers at once"


def test_the_crowd_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "WAITING_MAX", 2)
    log = StateLog()
    for lease in range(1, 5):
        log.do(LeaseGrant(lease, 600_000))
    for lease in range(1, 4):
        log.do(LockAcquire(b"k/l", lease, 1))
    assert isinstance(refused(log, LockAcquire(b"k/l", 4, 1)), QueueFull)
    assert isinstance(refused(log, LockAcquire(b"k/l", 4, 1, wait_ms=0)), LockHeld)


def test_the_cost_of_a_release_is_not_that_of_all_locks_of_its_lease() -> None:
    log, count = StateLog(), locks.LOCKS_PER_LEASE_MAX
    log.do(LeaseGrant(1, 600_000))
    names = [b"k/%d" % number for number in range(count)]
    for operation in (LockAcquire, LockRelease):
        said = [operation(name, 1, 1) if operation is LockAcquire else LockRelease(name, 1) for name in names]
        log.now_ms += 100
        results = log.apply(*[Command(0, 0, 0, each) for each in said])
        assert all(isinstance(result, LockResult) for result in results)
    assert log.state.data.locks.locks == {} and log.state.data.locks.owners == {}


def test_transactions_inside_transactions_share_one_bound() -> None:
    log = StateLog()
    wide = tuple(Txn((), tuple(Range(b"k/a") for _ in range(60)), ()) for _ in range(64))
    assert isinstance(log.do(Txn((), wide, ())), object)
    wider = tuple(Txn((), tuple(Range(b"k/a") for _ in range(64)), ()) for _ in range(64))
    assert sum(len(each.success) + 1 for each in wider) > TXN_PARTS_MAX
    error = refused(log, Txn((), wider, ()))
    assert isinstance(error, InvalidRequest) and str(error) == "too many operations in txn request"


def test_what_a_transaction_returns_is_bounded_with_what_was_there_before() -> None:
    log = StateLog()
    keys = [b"k/%d" % number for number in range(READ_BYTES_MAX // VALUE_BYTES_MAX + 1)]
    for key in keys:
        log.do(Put(key, bytes(VALUE_BYTES_MAX)))
    told = [Put(key, b"", prev_kv=True) for key in keys]
    assert isinstance(refused(log, Txn((), tuple(told), ())), InvalidRequest)
    log.do(Txn((), tuple(told[:-2]), ()))


@pytest.mark.parametrize(
    "part",
    [
        Range(*ALL_OF_K, count_only=True),
        Range(*ALL_OF_K, min_mod_revision=1 << 40),
        DeleteRange(*ALL_OF_K),
        Txn((Compare(ALL_OF_K[0], Target.VERSION, Relation.GREATER, 0, range_end=ALL_OF_K[1]),), (), ()),
    ],
    ids=["count", "filter", "delete", "compare"],
)
def test_how_many_keys_a_transaction_looks_at_is_bounded(part: Operation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(txn, "TXN_RECORDS_MAX", 100)
    log = StateLog()
    for number in range(30):
        log.do(Put(b"k/%d" % number, b""))
    log.do(Txn((), (Range(*ALL_OF_K),) * 3, ()))
    error = refused(log, Txn((), (part,) * 4, ()))  # type: ignore[arg-type]
    assert isinstance(error, InvalidRequest) and "more than 100 keys" in str(error)


def test_leases_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "LEASES_MAX", 3)
    log = StateLog()
    for _ in range(3):
        log.do(LeaseGrant(0, 60_000))
    assert isinstance(refused(log, LeaseGrant(0, 60_000)), QueueFull)


def test_what_is_told_of_a_lease_or_a_lock_is_bounded() -> None:
    log = StateLog()
    for lease in range(1, READ_BYTES_MAX // LOCK_VALUE_BYTES_MAX + 2):
        log.do(LeaseGrant(lease, 600_000))
        log.do(LockAcquire(b"k/l", lease, 1, value=bytes(LOCK_VALUE_BYTES_MAX)))
    with pytest.raises(InvalidRequest, match="exceeds"):
        log.ask(LockQuery(b"k/l"))
    for number in range(READ_BYTES_MAX // 4_096 + 1):
        log.do(Put(b"k/%04d" % number + bytes(4_090), b"", lease=1))
    with pytest.raises(InvalidRequest, match="have more than"):
        log.ask(LeaseTimeToLive(1, keys=True))
    assert log.ask(LeaseTimeToLive(1)) is not None


def test_results_that_nobody_acknowledges_are_bounded_in_a_keyspace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "KEYSPACE_RESULTS_BYTES_MAX", 3_000)
    log = StateLog()
    log.do(Put(b"k/a", bytes(1_000)))
    state = log.state.data.keyspaces[KEYSPACE]
    first = log.session()
    for sequence in range(1, 4):
        log.run(first, sequence, Range(b"k/a"))
    opened = log.apply(Command(0, 0, 0, OpenSession(b"", 600_000)))[0]
    assert isinstance(opened, SessionResult) and state.results_bytes > 3_000
    with pytest.raises(QueueFull, match="keyspace"):
        log.run(opened.session, 1, Range(b"k/a"))
    log.restart()
    state = log.state.data.keyspaces[KEYSPACE]
    with pytest.raises(QueueFull, match="keyspace"):
        log.run(opened.session, 1, Range(b"k/a"))
    log.run(first, 3, Range(b"k/a"))  # what it has done is told again
    log.now_ms += 60_000  # the first session has expired by now: its results make room
    log.run(opened.session, 1, Range(b"k/a"))
    assert state.sessions.keys() == {opened.session}
    assert state.results_bytes == state.sessions[opened.session].results_bytes
    twin = StateLog()
    twin.rows = log.rows
    twin.restart()
    assert same_state(twin.state, log.state)
