"""What lives on a replica's state goes on when a snapshot replaces that state."""

from state_log import GROUP, StateLog

from isochrone.ids import NS_PER_MS, Nanos, Term
from isochrone.regions.office import DEFAULT_COMPACTION
from isochrone.regions.requests import always_serves
from isochrone.regions.state_service import StateService
from isochrone.wire.kv import Put
from isochrone.wire.leases import LeaseExpire, LeaseGrant


def test_a_leader_whose_state_was_a_snapshot_ends_the_leases_in_it() -> None:
    log = StateLog()
    service = StateService(
        GROUP, log.state, 0, DEFAULT_COMPACTION, lambda: Nanos(log.now_ms * NS_PER_MS), always_serves
    )
    log.restart()
    log.do(LeaseGrant(7, 2_000))
    service.replaced(log.state)
    log.do(Put(b"k/x", b""))
    service.applied(log.last, Term(1))
    assert service.office.lessor.remaining_ms(7, Nanos(log.now_ms * NS_PER_MS)) == 2_000
    log.now_ms += 2_000
    assert service.office.due(Nanos(log.now_ms * NS_PER_MS)) == [LeaseExpire(7, 1, 0)]
