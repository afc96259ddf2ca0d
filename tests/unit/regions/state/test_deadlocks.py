"""Locks that one lease holds together: deadlocks, and the order of a hierarchy."""

import pytest
from lock_log import IS, IX, NAME, SIX, Locks, S, X
from state_log import same_state

from isochrone.errors import Deadlock, LockHeld, LockOrder, QueueFull
from isochrone.regions.state import locks as lock_state
from isochrone.regions.state.lock_table import compatible
from isochrone.wire.leases import LeaseGrant
from isochrone.wire.locks import LockAcquire, LockEnd, LockMode, LockWithdraw

# ---- deadlock


def test_of_two_that_upgrade_the_younger_fails() -> None:
    """L6: both hold S and want X; without detection both wait for ever."""
    for order in ((1, 2), (2, 1)):
        locks = Locks()
        locks.acquire(1, S)
        locks.acquire(2, S)
        assert locks.acquire(order[0], X).end is LockEnd.WAITING
        if order[1] == 2:
            with pytest.raises(Deadlock):
                locks.acquire(2, X)
        else:
            assert locks.acquire(1, X).end is LockEnd.WAITING
        ended = [(notice.lease, notice.end) for notice in locks.notices]
        assert ended == [(2, LockEnd.DEADLOCK)]
        assert locks.holders() == [1, 2] and locks.waiters() == [1]
        locks.free(2)
        assert locks.view().requests[0].mode is X


def test_a_cycle_over_several_locks_has_one_victim() -> None:
    """L6: a cycle of three."""
    locks = Locks()
    names = [b"k/a", b"k/b", b"k/c"]
    for lease, name in enumerate(names, 1):
        locks.acquire(lease, name=name)
    locks.acquire(1, name=b"k/b")
    locks.acquire(2, name=b"k/c")
    with pytest.raises(Deadlock):
        locks.acquire(3, name=b"k/a")
    assert [notice.lease for notice in locks.notices] == [3]
    assert [locks.waiters(name) for name in names] == [[], [1], [2]]
    locks.free(3, b"k/c")
    assert locks.holders(b"k/c") == [2]


def test_the_victim_may_be_another_than_who_closes_the_cycle() -> None:
    locks = Locks()
    locks.acquire(1, name=b"k/a")
    locks.acquire(2, name=b"k/b")
    locks.acquire(2, name=b"k/a")
    assert locks.acquire(1, name=b"k/b").end is LockEnd.WAITING
    assert [(notice.lease, notice.end) for notice in locks.notices] == [(2, LockEnd.DEADLOCK)]
    assert locks.waiters(b"k/a") == [] and locks.waiters(b"k/b") == [1]


def test_a_queue_alone_can_close_a_cycle() -> None:
    """Who stands ahead is waited for, too: 2 waits for 3 only because 3 came first."""
    locks = Locks()
    locks.acquire(1, S, name=b"k/a")
    locks.acquire(2, X, name=b"k/b")
    locks.acquire(3, X, name=b"k/a")
    locks.acquire(2, S, name=b"k/a")
    with pytest.raises(Deadlock):
        locks.acquire(3, X, name=b"k/b")
    assert locks.waiters(b"k/a") == [3, 2]


def test_no_cycle_is_seen_where_none_is() -> None:
    """No phantom: a cycle that is gone when the last wait begins ends nobody."""
    locks = Locks()
    locks.acquire(1, name=b"k/a")
    locks.acquire(2, name=b"k/b")
    locks.acquire(1, name=b"k/b")
    number = locks.requests
    locks.done(LockWithdraw(b"k/b", 1, number))
    assert locks.acquire(2, name=b"k/a").end is LockEnd.WAITING
    assert [notice.end for notice in locks.notices] == [LockEnd.WITHDRAWN]


def test_a_conversion_may_close_a_cycle_by_another_wait_of_its_lease() -> None:
    """4 begins to wait for 1 because 1 steps before it; 1 waits for 4 since long, elsewhere."""
    locks = Locks()
    locks.acquire(4, name=b"k/b")
    locks.acquire(1, IS, name=b"k/a")
    locks.acquire(2, S, name=b"k/a")
    locks.acquire(1, name=b"k/b")
    locks.acquire(4, IX, name=b"k/a")
    assert locks.acquire(1, SIX, name=b"k/a").end is LockEnd.WAITING
    assert [(notice.name, notice.lease, notice.end) for notice in locks.notices] == [(b"k/b", 1, LockEnd.DEADLOCK)]
    assert locks.waiters(b"k/a") == [1, 4]


def test_a_conversion_granted_past_a_queue_may_close_a_cycle() -> None:
    """3 waits for 2 alone until 1 gets S, too; and 1 waits for 3 elsewhere."""
    locks = Locks()
    locks.acquire(3, name=b"k/b")
    locks.acquire(1, IS, name=b"k/a")
    locks.acquire(2, S, name=b"k/a")
    locks.acquire(1, name=b"k/b")
    locks.acquire(3, IX, name=b"k/a")
    assert locks.acquire(1, S, name=b"k/a").end is LockEnd.GRANTED
    assert [(notice.name, notice.lease, notice.end) for notice in locks.notices] == [(b"k/b", 1, LockEnd.DEADLOCK)]


def test_standing_behind_one_that_excludes_nothing_is_no_wait_for_all_that_it_wants() -> None:
    """When 1 gives up, 2 and 3 both get S; that 2 waits for 3 elsewhere keeps 3 from nothing."""
    locks = Locks()
    locks.acquire(3, name=b"k/b")
    locks.acquire(1, X, name=b"k/a")
    locks.acquire(2, S, name=b"k/a")
    locks.acquire(2, name=b"k/b")
    assert locks.acquire(3, S, name=b"k/a").end is LockEnd.WAITING
    locks.free(1, b"k/a")
    assert locks.holders(b"k/a") == [2, 3] and locks.waiters(b"k/b") == [2]


def test_a_bystander_in_the_queue_is_no_victim() -> None:
    """3, the youngest, stands between 1 and 2 in a queue; without it the cycle would be the same."""
    locks = Locks()
    locks.acquire(1, name=b"k/b")
    locks.acquire(2, name=b"k/c")
    locks.acquire(4, name=b"k/a")
    for lease in (1, 3, 2):
        locks.acquire(lease, name=b"k/a")
    assert locks.acquire(1, name=b"k/c").end is LockEnd.WAITING
    assert [(notice.lease, notice.name, notice.end) for notice in locks.notices] == [(2, b"k/a", LockEnd.DEADLOCK)]
    assert locks.waiters(b"k/a") == [1, 3]


def test_long_queues_cost_no_more_than_short_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = 0

    def counted(held: LockMode, asked: LockMode) -> bool:
        nonlocal calls
        calls += 1
        return compatible(held, asked)

    locks = Locks()
    for lease in range(10, 1_010):
        locks.do(LeaseGrant(lease, 30_000))
    monkeypatch.setattr("isochrone.regions.state.lock_table.compatible", counted)
    for lease in range(10, 1_010):
        locks.acquire(lease, wait_ms=60_000)
    assert locks.view().requests[999].lease == 1_009 and calls < 10_000
    # Who holds a lock that others want looks at each of those in the queue once or twice.
    locks.acquire(1, name=b"k/other")
    locks.acquire(2, name=b"k/other")
    calls = 0
    locks.acquire(1)
    assert 1_000 < calls < 5_000


# ---- hierarchy


def test_the_order_of_a_hierarchy_is_kept() -> None:
    locks = Locks()
    database, table, row = b"k/database", b"k/database/table", b"k/database/table/row"
    with pytest.raises(LockOrder):
        locks.acquire(1, X, name=row, hierarchical=True)
    locks.acquire(1, IS, name=database, hierarchical=True)
    with pytest.raises(LockOrder, match="IX"):
        locks.acquire(1, IX, name=table, hierarchical=True)
    locks.acquire(1, IX, name=database, hierarchical=True)
    locks.acquire(1, IX, name=table, hierarchical=True)
    locks.acquire(1, X, name=row, hierarchical=True)
    for above in (database, table):
        with pytest.raises(LockOrder):
            locks.free(1, above)
    locks.acquire(2, IX, name=database, hierarchical=True)
    with pytest.raises(LockHeld):
        locks.acquire(2, S, name=table, hierarchical=True, wait_ms=0)
    locks.acquire(2, IX, name=table, hierarchical=True)
    with pytest.raises(LockHeld):
        locks.acquire(2, S, name=row, hierarchical=True, wait_ms=0)
    for name in (row, table, database):
        locks.free(1, name)
    assert locks.acquire(3, X, name=row).end is LockEnd.GRANTED, "the order is kept only by those who ask for it"


def test_a_lock_is_not_given_up_while_one_below_it_is_waited_for() -> None:
    """Else the one below would be granted to a lease that does not hold what is above."""
    locks = Locks()
    locks.acquire(1, X, name=b"k/db/t")
    locks.acquire(2, IX, name=b"k/db")
    assert locks.acquire(2, X, name=b"k/db/t", hierarchical=True).end is LockEnd.WAITING
    with pytest.raises(LockOrder):
        locks.free(2, b"k/db")
    locks.done(LockWithdraw(b"k/db/t", 2, locks.requests))
    locks.free(2, b"k/db")
    assert locks.state.data.locks.below == {}


def test_a_conversion_keeps_what_its_lease_asked_for_before() -> None:
    locks = Locks()
    locks.acquire(1, IX, name=b"k/db")
    locks.acquire(1, S, name=b"k/db/t", hierarchical=True, announce=True, value=b"me", delay_ms=500)
    locks.acquire(1, X, name=b"k/db/t", value=b"not announced")
    with pytest.raises(LockOrder):
        locks.free(1, b"k/db")
    assert locks.value(b"k/db/t") == b"me"
    locks.free(1, b"k/db/t")
    assert locks.value(b"k/db/t") is None
    locks.acquire(1, S, name=b"k/db/t", hierarchical=True, delay_ms=500)
    locks.acquire(1, X, name=b"k/db/t")
    locks.lose(1)
    assert locks.view(b"k/db/t").delayed_until > 0
    before = locks.state
    locks.restart()
    assert same_state(before, locks.state)


def test_a_conversion_keeps_to_the_hierarchy_that_its_lease_asked_for() -> None:
    locks = Locks()
    locks.acquire(1, IS, name=b"k/db")
    locks.acquire(1, S, name=b"k/db/t", hierarchical=True)
    with pytest.raises(LockOrder):
        locks.acquire(1, X, name=b"k/db/t")
    assert locks.acquire(1, S, name=b"k/x").end is LockEnd.GRANTED
    first = locks.acquire(1, S, name=b"k/x")
    announced = locks.acquire(1, S, name=b"k/x", announce=True, value=b"here")
    assert announced.token > first.token and locks.value(b"k/x") == b"here"


def test_the_first_grant_is_found_again_while_its_conversion_waits() -> None:
    locks = Locks()
    first = LockAcquire(NAME, 1, 77, S)
    token = locks.done(first).token
    locks.acquire(2, S)
    assert locks.acquire(1, X).end is LockEnd.WAITING
    again = locks.done(first)
    assert (again.end, again.token, again.mode) == (LockEnd.GRANTED, token, S)


def test_a_lease_has_so_many_locks_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock_state, "LOCKS_PER_LEASE_MAX", 2)
    locks = Locks()
    locks.acquire(1, S, name=b"k/a")
    locks.acquire(1, name=b"k/b")
    with pytest.raises(QueueFull):
        locks.acquire(1, name=b"k/c")
    assert locks.acquire(1, X, name=b"k/a").end is LockEnd.GRANTED
    assert locks.acquire(2, name=b"k/c").end is LockEnd.GRANTED
