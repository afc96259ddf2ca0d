"""Locks: modes, fairness, conversions, deadlock, lock-delay, hierarchy, tokens, and what survives a restart."""

import pytest
from lock_log import IS, IX, NAME, SIX, Locks, S, X
from state_log import same_state

from isochrone.errors import InvalidRequest, LeaseNotFound, LockHeld, LockNotHeld, QueueFull
from isochrone.ids import NS_PER_MS
from isochrone.regions.state import locks as lock_state
from isochrone.regions.state.lock_table import compatible, covers, joined
from isochrone.regions.state.locks import answer_wait
from isochrone.wire.kv import ALL, Compact, Compare, Put, Range, Relation, Target, Txn, TxnResult
from isochrone.wire.leases import LeaseRevoke, LockTick
from isochrone.wire.locks import (
    TOKEN_EPOCH_MAX,
    KeyResult,
    LockAcquire,
    LockEnd,
    LockMode,
    LockRelease,
    LockResult,
    LockWait,
    LockWithdraw,
    PutSequential,
    RaiseTokenEpoch,
    TakeFirst,
    TokenEpochResult,
    unpack_lock_result,
)

# ---- modes


def test_the_compatibility_table() -> None:
    rows = {IS: [IS, IX, S, SIX], IX: [IS, IX], S: [IS, S], SIX: [IS], X: []}
    for held, allowed in rows.items():
        assert [asked for asked in LockMode if compatible(held, asked)] == allowed
        assert all(compatible(held, asked) == compatible(asked, held) for asked in LockMode)


def test_what_a_mode_covers_excludes_no_less() -> None:
    for strong in LockMode:
        for weak in LockMode:
            if covers(strong, weak):
                assert all(compatible(weak, other) for other in LockMode if compatible(strong, other))
            both = joined(strong, weak)
            assert covers(both, strong) and covers(both, weak)
    assert joined(S, IX) is SIX and joined(IS, IX) is IX and joined(S, X) is X


@pytest.mark.parametrize("held", LockMode)
@pytest.mark.parametrize("asked", LockMode)
def test_two_leases_get_what_the_table_allows(held: LockMode, asked: LockMode) -> None:
    locks = Locks()
    locks.acquire(1, held)
    if compatible(held, asked):
        assert locks.acquire(2, asked, wait_ms=0).end is LockEnd.GRANTED
    else:
        with pytest.raises(LockHeld):
            locks.acquire(2, asked, wait_ms=0)
        assert locks.acquire(2, asked).end is LockEnd.WAITING


# ---- order


def test_those_that_wait_are_granted_in_order() -> None:
    locks = Locks()
    tokens = [locks.acquire(1).token]
    for lease in (2, 3, 4):
        assert locks.acquire(lease).end is LockEnd.WAITING
    for lease in (1, 2, 3):
        locks.free(lease)
        assert locks.holders() == [lease + 1]
    tokens += [notice.token for notice in locks.notices]
    assert tokens == sorted(tokens) and len(set(tokens)) == 4
    locks.free(4)
    assert locks.state.data.locks.locks == {} and locks.state.data.locks.owners == {}


def test_x_is_not_starved_by_a_stream_of_s() -> None:
    """L5: whoever comes later does not overtake, even if it were compatible with the holders."""
    locks = Locks()
    locks.acquire(1, S)
    locks.acquire(2, X)
    for lease in (3, 4, 5):
        assert locks.acquire(lease, S).end is LockEnd.WAITING
    with pytest.raises(LockHeld):
        locks.acquire(6, S, wait_ms=0)
    locks.free(1)
    assert locks.holders() == [2]
    locks.free(2)
    assert locks.holders() == [3, 4, 5], "all that are compatible are granted together"


def test_conversions_go_first() -> None:
    locks = Locks()
    locks.acquire(1, S)
    locks.acquire(2, S)
    locks.acquire(3, X)
    assert locks.acquire(1, X).end is LockEnd.WAITING
    assert locks.waiters() == [1, 3]
    locks.free(2)
    assert locks.holders() == [1] and locks.view().requests[0].mode is X
    assert locks.waiters() == [3]


def test_a_conversion_that_nobody_excludes_is_granted_at_once_with_a_new_token() -> None:
    locks = Locks()
    first = locks.acquire(1, S)
    locks.acquire(2, X)
    second = locks.acquire(1, X)
    assert second.end is LockEnd.GRANTED and second.token > first.token
    assert locks.acquire(1, S).token == second.token, "asking for less changes nothing"
    assert locks.holders() == [1] and locks.waiters() == [2]


def test_a_grant_whose_answer_was_lost_is_found_again_by_its_request() -> None:
    locks = Locks()
    asked = LockAcquire(NAME, 1, 77, X)
    first = locks.done(asked)
    assert locks.done(asked) == first or locks.done(asked).token == first.token
    waits = LockAcquire(NAME, 2, 78, X)
    assert locks.done(waits).end is LockEnd.WAITING
    assert locks.done(waits).end is LockEnd.WAITING and locks.waiters() == [2]
    locks.free(1)
    assert locks.done(waits).end is LockEnd.GRANTED
    assert len(locks.state.data.locks.locks[NAME].held) == 1
    locks.acquire(1)
    with pytest.raises(InvalidRequest, match="waits for lock"):
        locks.acquire(1)


# ---- ends


def test_releasing_what_one_does_not_hold_is_an_error_and_releases_nothing() -> None:
    locks = Locks()
    token = locks.acquire(1).token
    locks.acquire(2)
    for release in (
        LockRelease(NAME, 2),
        LockRelease(NAME, 9),
        LockRelease(NAME, 1, token + 1),
        LockRelease(b"k/other", 1),
    ):
        with pytest.raises(LockNotHeld):
            locks.done(release)
    assert locks.holders() == [1] and locks.waiters() == [2]
    locks.done(LockRelease(NAME, 1, token))
    with pytest.raises(LockNotHeld):
        locks.done(LockRelease(NAME, 1, token))


def test_a_wait_ends_when_it_is_withdrawn_or_its_time_is_over() -> None:
    locks = Locks()
    locks.acquire(1)
    locks.acquire(2, wait_ms=50)
    locks.acquire(3)
    number = locks.requests
    assert locks.last.lock_moments[0].timestamp == locks.state.data.locks.locks[NAME].waiting[0].deadline
    locks.keep_house(LockTick(NAME))
    assert locks.waiters() == [2, 3], "a tick that comes early does nothing"
    locks.now_ms += 50
    locks.keep_house(LockTick(NAME))
    assert locks.waiters() == [3] and locks.notices[-1].end is LockEnd.TIMED_OUT
    assert locks.done(LockWithdraw(NAME, 3, number)).end is LockEnd.WITHDRAWN
    assert locks.waiters() == []
    with pytest.raises(LockNotHeld):
        locks.done(LockWithdraw(NAME, 3, number))
    locks.acquire(4)
    number = locks.requests
    locks.free(1)
    assert locks.done(LockWithdraw(NAME, 4, number)).token == locks.notices[-1].token, "too late: it was granted"
    locks.acquire(4, S)
    with pytest.raises(LockNotHeld):
        locks.done(LockWithdraw(NAME, 4, locks.requests))  # What it has is another request's.


def test_a_conversion_that_has_failed_is_not_taken_for_the_weaker_hold() -> None:
    """Where the leader changes meanwhile, nobody knows any more how it ended."""
    locks = Locks()
    locks.acquire(1, S)
    locks.acquire(2, S)
    locks.acquire(1, X, wait_ms=50)
    conversion = LockWait(NAME, 1, locks.requests)
    assert answer_wait(locks.state.data, conversion) is None
    locks.now_ms += 50
    locks.keep_house(LockTick(NAME))
    assert locks.holders() == [1, 2]
    with pytest.raises(LockNotHeld):
        answer_wait(locks.state.data, conversion)
    locks.acquire(1, X)
    again = LockWait(NAME, 1, locks.requests)
    locks.free(2)
    answer = answer_wait(locks.state.data, again)
    assert answer is not None and unpack_lock_result(answer) == LockResult(
        locks.state.data.revision, locks.state.data.timestamp, LockEnd.GRANTED, locks.notices[-1].token, X
    )


def test_one_that_gives_up_lets_those_behind_it_pass() -> None:
    locks = Locks()
    locks.acquire(1, S)
    locks.acquire(2, X)
    number = locks.requests
    locks.acquire(3, S)
    locks.done(LockWithdraw(NAME, 2, number))
    assert locks.holders() == [1, 3]


def test_the_end_of_a_lease_ends_all_that_it_had() -> None:
    locks = Locks()
    locks.acquire(1)
    locks.acquire(1, name=b"k/other")
    locks.acquire(2)
    locks.acquire(3)
    locks.do(LeaseRevoke(2))
    assert locks.waiters() == [3] and locks.last.lock_notices[0].end is LockEnd.LEASE_ENDED
    locks.do(LeaseRevoke(1))
    assert locks.holders() == [3] and locks.holders(b"k/other") == []
    with pytest.raises(LeaseNotFound):
        locks.acquire(1)


def test_after_an_unclean_loss_nobody_is_granted_before_the_delay_is_over() -> None:
    locks = Locks()
    locks.acquire(1, X, delay_ms=5_000)
    locks.acquire(2)
    locks.lose(1)
    assert locks.holders() == [] and locks.waiters() == [2]
    until = locks.view().delayed_until
    assert until == (locks.now_ms - 1 + 5_000) * NS_PER_MS
    with pytest.raises(LockHeld):
        locks.acquire(3, wait_ms=0)
    locks.restart()
    locks.now_ms += 4_990
    locks.keep_house(LockTick(NAME))
    assert locks.waiters() == [2]
    locks.now_ms += 10
    locks.keep_house(LockTick(NAME))
    assert locks.holders() == [2] and locks.view().delayed_until == 0


def test_a_lost_reader_delays_only_writers_and_a_release_delays_nobody() -> None:
    locks = Locks()
    locks.acquire(1, S, delay_ms=5_000)
    locks.lose(1)
    assert locks.acquire(2, S, wait_ms=0).end is LockEnd.GRANTED
    with pytest.raises(LockHeld):
        locks.acquire(2, X, wait_ms=0)
    clean = Locks()
    clean.acquire(1, X, delay_ms=5_000)
    clean.free(1)
    assert clean.acquire(2, wait_ms=0).end is LockEnd.GRANTED
    clean.acquire(3, X, name=b"k/other", delay_ms=5_000)
    clean.do(LeaseRevoke(3))
    assert clean.acquire(2, name=b"k/other", wait_ms=0).end is LockEnd.GRANTED, "a revocation is the owner's wish"


# ---- tokens


def test_tokens_rise_over_all_locks_and_restarts_and_when_the_counter_is_full() -> None:
    locks = Locks()
    tokens = [locks.acquire(1, name=b"k/a").token, locks.acquire(2, name=b"k/b").token]
    locks.restart()
    tokens.append(locks.acquire(3, name=b"k/c").token)
    state = next(iter(locks.state.data.keyspaces.values()))
    state.token = (5 << 32) + 0xFFFFFFFE
    tokens += [locks.acquire(4, name=b"k/d").token, locks.acquire(5, name=b"k/e").token]
    assert tokens == sorted(set(tokens))
    assert tokens[-2:] == [(5 << 32) + 0xFFFFFFFF, (6 << 32) + 1]


def test_the_epoch_of_tokens_is_raised_above_what_a_restored_copy_knows_of() -> None:
    """The gate has seen tokens that were given out after the copy was made; later grants pass it all the same."""
    locks = Locks()
    locks.acquire(1)
    copy = dict(locks.rows)
    locks.free(1)
    for _ in range(3):
        locks.done(LockAcquire(NAME, 2, 9))
        assert isinstance(locks.do(RaiseTokenEpoch(NAME)), TokenEpochResult)
        seen = locks.acquire(2, name=b"k/other").token
        locks.free(2, b"k/other")
    assert seen >> 32 == 4
    locks.rows = copy
    locks.restart()
    assert locks.acquire(3, name=b"k/b").token < seen, "as it is without the operator"
    raised = locks.do(RaiseTokenEpoch(b"k/", above=seen >> 32))
    assert isinstance(raised, TokenEpochResult) and (raised.epoch, raised.before) == (5, 1)
    locks.restart()
    first, second = locks.acquire(3, name=b"k/c").token, locks.acquire(4, name=b"k/d").token
    assert first == (5 << 32) + 1 > seen and second == first + 1
    assert locks.acquire(5, name=b"m/c").token >> 32 == 1, "each keyspace has its own"


def test_epochs_end() -> None:
    locks = Locks()
    for above in (-1, TOKEN_EPOCH_MAX):
        with pytest.raises(InvalidRequest):
            locks.do(RaiseTokenEpoch(NAME, above))
    raised = locks.do(RaiseTokenEpoch(NAME, TOKEN_EPOCH_MAX - 1))
    assert isinstance(raised, TokenEpochResult) and raised.epoch == TOKEN_EPOCH_MAX
    with pytest.raises(InvalidRequest, match="none above is left"):
        locks.do(RaiseTokenEpoch(NAME))
    with pytest.raises(InvalidRequest, match="lies in no keyspace"):
        locks.do(RaiseTokenEpoch(b"elsewhere"))
    token = locks.acquire(1).token
    assert token == (TOKEN_EPOCH_MAX << 32) + 1 <= (1 << 63) - 1


def test_a_transaction_can_be_tied_to_a_lock_that_is_held() -> None:
    locks = Locks()
    token = locks.acquire(1).token

    def write(number: int) -> bool:
        held = Compare(NAME, Target.LOCK, Relation.EQUAL, number)
        result = locks.do(Txn((held,), (Put(b"k/data", b"%d" % number),)))
        assert isinstance(result, TxnResult)
        return result.succeeded

    assert write(token) and not write(token + 1) and not write(-1)
    locks.free(1)
    assert not write(token)
    second = locks.acquire(2).token
    assert not write(token) and write(second)


# ---- elections, sequential keys, queues


def test_an_election_announces_its_leader_where_it_can_be_watched() -> None:
    locks = Locks()
    election = b"k/leader"
    for lease in (1, 2, 3):
        locks.acquire(lease, name=election, announce=True, value=b"candidate %d" % lease)
    assert locks.value(election) == b"candidate 1"
    token = locks.view(election).requests[0].token
    proclaim = Txn(
        (Compare(election, Target.LOCK, Relation.EQUAL, token),),
        (Put(election, b"proclaimed", ignore_lease=True),),
    )
    result = locks.do(proclaim)
    assert isinstance(result, TxnResult) and result.succeeded and locks.value(election) == b"proclaimed"
    locks.free(1, election)
    assert locks.value(election) == b"candidate 2"
    result = locks.do(proclaim)
    assert isinstance(result, TxnResult) and not result.succeeded, "a former leader proclaims nothing"
    locks.lose(2)
    assert locks.value(election) == b"candidate 3"
    assert len(locks.last.events) == 2, "the loss and the new leader, in one revision"
    locks.do(LeaseRevoke(3))
    assert locks.value(election) is None


@pytest.mark.parametrize("below", [0, 1])
def test_an_election_that_a_lost_leader_passes_on_survives_compactions(below: int) -> None:
    """The end of the leader's lease removes the key, and the next leader sets it, at one revision."""
    locks = Locks()
    election = b"k/leader"
    for lease in (1, 2):
        locks.acquire(lease, name=election, announce=True, value=b"candidate %d" % lease)
    locks.lose(1)
    passed_on = locks.state.data.revision
    history = locks.state.data.keyspace_of(election).history
    locks.do(Compact(passed_on - below))
    assert len(history.log[history.first_from(passed_on) :]) == 2, "what happened then can be watched"
    assert len(list(history.records())) == 2 + below
    before = locks.state
    locks.restart()
    assert same_state(locks.state, before)
    locks.do(Put(b"k/other", b""))
    locks.do(Compact(passed_on + 1))
    assert locks.value(election) == b"candidate 2"
    locks.free(2, election)
    locks.do(Compact(passed_on + 2))
    before = locks.state
    locks.restart()
    assert same_state(locks.state, before) and locks.value(election) is None


def test_sequential_keys_rise_and_hang_on_their_lease() -> None:
    locks = Locks()
    keys = []
    for lease in (1, 0, 2):
        made = locks.do(PutSequential(b"k/members/", b"m", lease))
        assert isinstance(made, KeyResult) and made.key is not None
        keys.append(made.key)
    assert keys == sorted(keys) and all(key.startswith(b"k/members/") for key in keys)
    locks.lose(1)
    assert [item.key for item in locks.read(Range(b"k/members/", ALL)).items] == keys[1:]
    with pytest.raises(LeaseNotFound):
        locks.do(PutSequential(b"k/members/", b"m", 77))
    with pytest.raises(InvalidRequest):
        locks.do(PutSequential(b"nowhere/", b"m"))


def test_a_sequential_key_overwrites_none_that_is_there() -> None:
    log = Locks()
    taken = [b"k/s/%020d" % (log.state.revision + ahead) for ahead in (3, 4)]
    for key in taken:
        log.do(Put(key, b"not in order"))
    made = [log.do(PutSequential(b"k/s/", b"in order")) for _ in range(3)]
    keys = [result.key for result in made if isinstance(result, KeyResult) and result.key is not None]
    assert keys == sorted(set(keys)) and not set(keys) & set(taken) and len(keys) == 3
    assert [log.value(key) for key in taken] == [b"not in order"] * 2


def test_a_queue_gives_each_item_to_one_taker_in_order() -> None:
    locks = Locks()
    for number in range(3):
        locks.do(PutSequential(b"k/queue/", b"%d" % number))
    taken = []
    for _ in range(4):
        result = locks.do(TakeFirst(b"k/queue/", b"k/queue0"))
        assert isinstance(result, KeyResult)
        taken.append(None if result.key is None else result.value)
    assert taken == [b"0", b"1", b"2", None]


# ---- bounds and bad input


def test_queues_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock_state, "WAITING_MAX", 2)
    locks = Locks()
    for lease in (1, 2, 3):
        locks.acquire(lease)
    with pytest.raises(QueueFull):
        locks.acquire(4)
    assert locks.waiters() == [2, 3]


@pytest.mark.parametrize(
    "operation",
    [
        LockAcquire(b"", 1, 1),
        LockAcquire(b"nowhere", 1, 1),
        LockAcquire(NAME, 0, 1),
        LockAcquire(NAME, 1, 0),
        LockAcquire(NAME, 1, 1, X, -2),
        LockAcquire(NAME, 1, 1, X, 0, 60_001),
        LockAcquire(NAME, 1, 1, value=bytes((1 << 16) + 1)),
        LockAcquire(bytes(5000), 1, 1),
    ],
)
def test_bad_requests_are_refused(operation: LockAcquire) -> None:
    locks = Locks()
    with pytest.raises(InvalidRequest):
        locks.do(operation)
    assert locks.state.data.locks.locks == {}


def test_a_busy_lock_is_the_same_after_a_restart() -> None:
    locks = Locks()
    locks.acquire(1, S, delay_ms=5_000)
    locks.acquire(2, S)
    locks.acquire(3, X, wait_ms=700, value=b"three")
    locks.acquire(4, IS)
    locks.acquire(2, SIX)
    locks.lose(1)
    before = locks.state
    locks.restart()
    assert same_state(before, locks.state)
    assert locks.waiters() == [2, 3, 4]
