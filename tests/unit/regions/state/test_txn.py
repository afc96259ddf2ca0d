"""Transactions: compares, branches, nesting, and etcd's rules on what one may hold."""

import pytest
from state_log import StateLog

from isochrone.errors import DuplicateKey, FutureRevision, InvalidRequest, KeyNotFound, LeaseNotFound
from isochrone.wire.fence_gates import fenced
from isochrone.wire.kv import (
    ALL,
    NUMBER_MAX,
    Compare,
    DeleteRange,
    Increment,
    KvOperation,
    Put,
    PutResult,
    Range,
    RangeResult,
    Relation,
    Target,
    Txn,
    TxnResult,
)


def run(log: StateLog, txn: Txn) -> TxnResult:
    result = log.do(txn)
    assert isinstance(result, TxnResult)
    return result


def holds(log: StateLog, *compares: Compare) -> bool:
    return run(log, Txn(compares)).succeeded


def test_a_transaction_takes_one_branch_at_one_revision() -> None:
    log = StateLog()
    log.do(Put(b"k/a", b"1"))
    compare = Compare(b"k/a", Target.VALUE, Relation.EQUAL, value=b"1")
    txn = Txn((compare,), (Put(b"k/a", b"2"), Put(b"m/b", b"2"), Range(b"k/a")), (Range(b"k/a"),))
    first = run(log, txn)
    assert first.succeeded and first.revision == 3
    assert isinstance(first.results[0], PutResult) and first.results[1].revision == 3
    assert isinstance(first.results[2], RangeResult) and first.results[2].items[0].value == b"2"
    second = run(log, txn)
    assert not second.succeeded and second.revision == 3
    assert isinstance(second.results[0], RangeResult) and second.results[0].items[0].value == b"2"
    assert len({item.mod_revision for item in log.read(Range(b"\0", ALL)).items}) == 1


def test_compares_look_at_every_part_of_a_key() -> None:
    log = StateLog()
    log.do(Put(b"k/a", b"5"))
    log.do(Put(b"k/a", b"6"))
    for target, number in [(Target.VERSION, 2), (Target.CREATE, 2), (Target.MOD, 3), (Target.LEASE, 0)]:
        assert holds(log, Compare(b"k/a", target, Relation.EQUAL, number))
        assert holds(log, Compare(b"k/a", target, Relation.GREATER, number - 1))
        assert holds(log, Compare(b"k/a", target, Relation.LESS, number + 1))
        assert holds(log, Compare(b"k/a", target, Relation.NOT_EQUAL, number + 1))
        assert not holds(log, Compare(b"k/a", target, Relation.GREATER, number))
    assert holds(log, Compare(b"k/a", Target.VALUE, Relation.GREATER, value=b"5"))
    assert not holds(log, Compare(b"k/a", Target.VALUE, Relation.LESS, value=b"6"))


def test_an_absent_key_has_zeros_and_no_value() -> None:
    log = StateLog()
    assert holds(log, Compare(b"k/x", Target.VERSION, Relation.EQUAL, 0))
    for relation in (Relation.EQUAL, Relation.NOT_EQUAL, Relation.LESS, Relation.GREATER):
        assert not holds(log, Compare(b"k/x", Target.VALUE, relation, value=b"1"))


def test_a_range_compare_is_about_every_key_of_the_range() -> None:
    log = StateLog()
    for key in (b"k/a", b"k/b", b"m/c"):
        log.do(Put(key, b"1"))
    log.do(Put(b"m/c", b"1"))
    every = Compare(b"k/", Target.VERSION, Relation.GREATER, 0, range_end=ALL)
    assert holds(log, every)
    assert not holds(log, Compare(b"k/", Target.VERSION, Relation.EQUAL, 1, range_end=ALL))
    assert holds(log, Compare(b"k/", Target.VERSION, Relation.EQUAL, 1, range_end=b"l"))
    assert not holds(log, Compare(b"k/x", Target.VERSION, Relation.GREATER, 0, range_end=b"k/z"))


def test_compares_look_at_the_state_before_the_transaction() -> None:
    log = StateLog()
    absent = Compare(b"k/a", Target.VERSION, Relation.EQUAL, 0)
    inner = Txn((absent,), (Put(b"k/b", b"then"),), (Put(b"k/b", b"else"),))
    result = run(log, Txn((), (Put(b"k/a", b"1"), inner)))
    assert isinstance(result.results[1], TxnResult) and result.results[1].succeeded
    assert log.value(b"k/b") == b"then"


@pytest.mark.parametrize(
    "operations",
    [
        (Put(b"k/a", b"1"), Put(b"k/a", b"2")),
        (Put(b"k/a", b"1"), Increment(b"k/a", 2)),
        (DeleteRange(b"k/", ALL), Put(b"k/a", b"2")),
        (Put(b"k/a", b"2"), DeleteRange(b"k/a")),
        (Put(b"k/a", b"1"), Txn((), (Put(b"k/a", b"2"),))),
        (Txn((), (Put(b"k/a", b"1"),)), Txn((), (), (Put(b"k/a", b"2"),))),
        (Txn((), (DeleteRange(b"k/", ALL),)), Put(b"k/a", b"1")),
    ],
)
def test_no_key_is_written_twice(operations: tuple[KvOperation, ...]) -> None:
    log = StateLog()
    for txn in (Txn((), operations), Txn((), (), operations)):
        with pytest.raises(DuplicateKey):
            log.do(txn)
    assert log.state.revision == 1


def test_both_branches_may_write_a_key_and_ranges_may_be_deleted_twice() -> None:
    log = StateLog()
    run(log, Txn((), (Put(b"k/a", b"1"),), (Put(b"k/a", b"2"),)))
    run(log, Txn((), (Txn((), (Put(b"k/a", b"1"),), (Put(b"k/a", b"2"),)),)))
    run(log, Txn((), (DeleteRange(b"k/", ALL), DeleteRange(b"k/a"))))


def test_a_transaction_has_a_most_number_of_operations_on_any_way() -> None:
    log = StateLog()
    puts = tuple(Put(b"k/%d" % number, b"1") for number in range(129))
    run(log, Txn((), puts[:128]))
    for txn in (Txn((), puts), Txn((), (), puts), Txn((), (Txn((), puts[:128]),))):
        with pytest.raises(InvalidRequest, match="too many operations"):
            log.do(txn)


def test_one_operation_that_cannot_be_done_leaves_all_undone() -> None:
    log = StateLog()
    with pytest.raises(KeyNotFound):
        log.do(Txn((), (Put(b"k/a", b"1"), Put(b"m/b", b"", ignore_value=True))))
    with pytest.raises(InvalidRequest):
        log.do(Txn((), (Put(b"k/a", b"1"), Txn((), (Range(b"nowhere"),)))))
    assert log.state.revision == 1 and log.last.events == ()


def test_a_fence_gate_lets_no_stale_token_pass() -> None:
    """L1: a holder that slept through the end of its lock wakes and writes with its old token."""
    log = StateLog()
    assert run(log, fenced(b"k/gate", b"k/l", 7, Put(b"k/data", b"by 7"))).succeeded
    assert run(log, fenced(b"k/gate", b"k/l", 7, Put(b"k/data", b"by 7 again"))).succeeded
    assert run(log, fenced(b"k/gate", b"k/l", 8, Put(b"k/data", b"by 8"))).succeeded
    assert not run(log, fenced(b"k/gate", b"k/l", 7, Put(b"k/data", b"by a sleeper"))).succeeded
    assert log.value(b"k/data") == b"by 8"
    log.do(Put(b"k/gate", b"spoilt"))
    assert not run(log, fenced(b"k/gate", b"k/l", NUMBER_MAX, Put(b"k/data", b"by 9"))).succeeded


@pytest.mark.parametrize("other", [b"k/lo", b"k/lock 1", b"", b"m/lock", b"k/loc\xff"])
def test_a_fence_gate_lets_no_token_of_another_lock_pass(other: bytes) -> None:
    """However large: a token of another lock says nothing of who holds this one."""
    log = StateLog()
    assert run(log, fenced(b"k/gate", b"k/lock", 7, Put(b"k/data", b"mine"))).succeeded
    for token in (7, 8, NUMBER_MAX):
        refused = run(log, fenced(b"k/gate", other, token, Put(b"k/data", b"another's")))
        assert not refused.succeeded
    (told,) = refused.results
    assert isinstance(told, RangeResult) and told.items[0].value == b"7 k/lock"
    assert log.value(b"k/data") == b"mine" and log.value(b"k/gate") == b"7 k/lock"
    assert run(log, fenced(b"k/gate", b"k/lock", 8)).succeeded


@pytest.mark.parametrize("token", [0, -1])
def test_no_grant_has_such_a_token(token: int) -> None:
    with pytest.raises(InvalidRequest):
        fenced(b"k/gate", b"k/lock", token)


def test_what_is_wrong_with_writes_is_told_before_what_is_wrong_with_reads() -> None:
    log = StateLog()
    unreadable = Range(b"k/a", revision=99)
    for first in ((unreadable, Put(b"k/a", b"1", 7)), (unreadable, Txn((), (Put(b"k/a", b"1", 7),)))):
        with pytest.raises(LeaseNotFound):
            run(log, Txn((), first))
    with pytest.raises(FutureRevision):
        run(log, Txn((), (unreadable, Put(b"k/a", b"1"))))
    assert log.value(b"k/a") is None


def test_a_put_that_lacks_key_and_lease_is_told_of_the_key_within_a_transaction_and_else_of_the_lease() -> None:
    log = StateLog()
    lacking = Put(b"k/a", b"", 7, ignore_value=True)
    with pytest.raises(KeyNotFound):
        run(log, Txn((), (lacking,)))
    with pytest.raises(LeaseNotFound):
        log.do(lacking)
