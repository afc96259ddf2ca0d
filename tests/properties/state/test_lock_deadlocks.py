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


@settings(max_examples=300, deadline=None)
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
