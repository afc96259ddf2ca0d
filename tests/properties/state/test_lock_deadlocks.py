"""Deadlocks against graph reduction: every one is resolved, and nobody is made a victim of one that is none (L6)."""

from copy import deepcopy

from hypothesis import given, settings
from hypothesis import strategies as st
from state_log import StateLog

from isochrone.drills.checkers.lock_table import LockView, Waiting, deadlocked, faults_of
from isochrone.errors import Deadlock, IsochroneError
from isochrone.regions.state.lock_table import LockTable, Request, joined
from isochrone.wire.leases import LeaseGrant
from isochrone.wire.locks import LockAcquire, LockEnd, LockMode, LockRelease

NAMES = [b"k/a", b"k/b", b"k/c"]
LEASES = [1, 2, 3, 4]
ASKS = st.tuples(st.sampled_from(NAMES), st.sampled_from(LEASES), st.sampled_from(LockMode))
STEPS = st.lists(st.one_of(ASKS, ASKS, st.tuples(st.sampled_from(NAMES), st.sampled_from(LEASES))), max_size=30)


def views(table: LockTable) -> dict[str, LockView]:
    return {
        name.decode(): LockView(
            {lease: held.mode for lease, held in lock.held.items()},
            [Waiting(item.lease, item.mode, item.converts, item.ticket) for item in lock.waiting],
        )
        for name, lock in table.locks.items()
    }


def with_request(table: LockTable, name: bytes, lease: int, mode: LockMode) -> dict[str, LockView]:
    """The table as it would be if the request began to wait, and nobody was made a victim."""
    wider = deepcopy(table)
    held = wider.locks[name].held.get(lease)
    wanted = mode if held is None else joined(held.mode, mode)
    wider.locks[name].enqueue(Request(lease, 0, wanted, 1 << 62, 0, 0, False, False, b"", 0, held is not None))
    return views(wider)


@settings(max_examples=150, deadline=None)
@given(STEPS)
def test_victims_are_told_of_real_deadlocks_and_of_all_of_them(
    steps: list[tuple[bytes, int, LockMode] | tuple[bytes, int]],
) -> None:
    log = StateLog()
    for lease in LEASES:
        log.do(LeaseGrant(lease, 30_000))
    for number, step in enumerate(steps, 1):
        table = log.state.data.locks
        before = deepcopy(table)
        try:
            log.do(LockAcquire(step[0], step[1], number, step[2]) if len(step) == 3 else LockRelease(*step))
        except Deadlock:
            pass
        except IsochroneError:
            continue
        victims = [notice for notice in log.last.lock_notices if notice.end is LockEnd.DEADLOCK]
        if victims and len(step) == 3:
            stuck = deadlocked(with_request(before, *step))
            assert all(victim.lease in stuck for victim in victims), (stuck, victims)
        assert not list(faults_of(views(table)))


def test_a_lease_that_waits_twice_is_no_way_around_for_those_behind_it() -> None:
    """2 stands behind 1 in a queue and would be granted with it; that 1 also waits for what 2 holds is no cycle."""
    log = StateLog()
    for lease in LEASES:
        log.do(LeaseGrant(lease, 30_000))
    log.do(LockAcquire(b"k/a", 3, 1, LockMode.X))
    log.do(LockAcquire(b"k/b", 2, 2, LockMode.X))
    log.do(LockAcquire(b"k/a", 1, 3, LockMode.S))
    log.do(LockAcquire(b"k/b", 1, 4, LockMode.S))
    log.do(LockAcquire(b"k/a", 2, 5, LockMode.S))
    log.do(LockRelease(b"k/a", 3))
    log.do(LockRelease(b"k/b", 2))
    held = {name.decode(): sorted(lock.held) for name, lock in log.state.data.locks.locks.items() if lock.held}
    assert held == {"k/a": [1, 2], "k/b": [1]}
