"""Leases and leaders: what lets a lease live, what ends it, and what survives a change of leaders.

Each `Leader` below is one leader's lessor before the one log that all of them share.
"""

import pytest
from state_log import StateLog

from isochrone.errors import InvalidRequest, LeaseExists, LeaseNotFound
from isochrone.ids import NS_PER_MS, Nanos, Term
from isochrone.regions.lessor import CHECKPOINT_FIRST_NS, Lessor, Renewed
from isochrone.regions.state.model import LeaseChange
from isochrone.wire.commands import Command
from isochrone.wire.kv import ALL, Put, Range
from isochrone.wire.leases import (
    LeaseCheckpoint,
    LeaseExpire,
    LeaseGrant,
    LeaseGrantResult,
    LeaseHousekeeping,
    LeaseList,
    LeaseListResult,
    LeaseRenew,
    LeaseRevoke,
    LeaseTimeToLive,
    LeaseTimeToLiveResult,
    encode_housekeeping,
)
from isochrone.wire.messages import EntryKind

TTL_MS = 60_000
MARGIN_MS = 3_000
LEASE = 7


class Leader:
    """One leader. `now_ms` is its own clock; all clocks run at one rate here."""

    def __init__(self, log: StateLog, now_ms: int) -> None:
        log.term += 1
        self.log = log
        self.term = Term(log.term)
        self.lessor = Lessor[str](log.state.data.leases, MARGIN_MS * NS_PER_MS)
        self.lessor.begin_office(self.term, ns(now_ms))
        self.now_ms = now_ms
        self.answers: list[Renewed[str]] = []

    def at(self, now_ms: int) -> list[LeaseHousekeeping]:
        """Time passes; returns what is to be logged."""
        self.now_ms = now_ms
        return self.lessor.due(ns(now_ms))

    def log_and_apply(self, commands: list[LeaseHousekeeping]) -> None:
        apply(self.log, commands)
        self.answers += self.lessor.applied(self.log.last.lease_events, ns(self.now_ms))

    def lead_until(self, end_ms: int, step_ms: int = 100) -> None:
        """Log and apply at once whatever is due."""
        for now_ms in range(self.now_ms, end_ms + 1, step_ms):
            if commands := self.at(now_ms):
                self.log_and_apply(commands)
        self.now_ms = end_ms

    def renew(self, asker: str = "client") -> None:
        self.answers += self.lessor.renewal_confirmed(LEASE, asker, ns(self.now_ms))


def ns(ms: int) -> Nanos:
    return Nanos(ms * NS_PER_MS)


def apply(log: StateLog, commands: list[LeaseHousekeeping]) -> None:
    if commands:
        log.log(EntryKind.HOUSEKEEPING, [encode_housekeeping(command) for command in commands])


def with_lease() -> tuple[StateLog, Leader]:
    log = StateLog()
    log.do(LeaseGrant(LEASE, TTL_MS))
    log.do(Put(b"k/a", b"1", lease=LEASE))
    log.do(Put(b"m/b", b"1", lease=LEASE))
    return log, Leader(log, 0)


def alive(log: StateLog) -> bool:
    return LEASE in log.state.data.leases


# ---- what every replica knows


def test_a_lease_ends_with_its_keys_at_one_revision() -> None:
    log, _ = with_lease()
    log.do(Put(b"k/c", b"1", lease=LEASE))
    log.do(Put(b"k/c", b"2"))
    revision = log.state.revision
    log.do(LeaseRevoke(LEASE))
    assert [item.key for item in log.read(Range(b"\0", ALL)).items] == [b"k/c"]
    assert log.state.revision == revision + 1
    with pytest.raises(LeaseNotFound):
        log.do(LeaseRevoke(LEASE))
    with pytest.raises(LeaseNotFound):
        log.do(Put(b"k/a", b"1", lease=LEASE))


def test_a_lease_is_granted_once_and_its_time_has_bounds() -> None:
    log = StateLog()
    first = log.do(LeaseGrant(0, 1))
    assert isinstance(first, LeaseGrantResult) and first.ttl_ms == 1_000
    with pytest.raises(LeaseExists):
        log.do(LeaseGrant(first.lease, TTL_MS))
    for ttl_ms in (0, -5, 1 << 62):
        with pytest.raises(InvalidRequest, match="TTL"):
            log.do(LeaseGrant(9, ttl_ms))
    with pytest.raises(InvalidRequest):
        log.do(LeaseGrant(-9, TTL_MS))
    listed = log.ask(LeaseList())
    assert isinstance(listed, LeaseListResult) and listed.leases == (first.lease,)


def test_a_lease_tells_its_keys() -> None:
    log, _ = with_lease()
    told = log.ask(LeaseTimeToLive(LEASE, keys=True))
    assert isinstance(told, LeaseTimeToLiveResult) and told.keys == (b"k/a", b"m/b")
    unknown = log.ask(LeaseTimeToLive(99))
    assert isinstance(unknown, LeaseTimeToLiveResult) and unknown.remaining_ms == -1


def test_leases_and_what_hangs_on_them_survive_a_restart() -> None:
    log, leader = with_lease()
    leader.lead_until(40_000)
    before = log.state.data.leases
    assert before[LEASE].checkpoint_ms is not None
    log.restart()
    assert log.state.data.leases == before


# ---- one leader


def test_a_lease_lives_as_long_as_it_is_renewed_and_costs_no_entry() -> None:
    log, leader = with_lease()
    leader.renew()
    entries = len(log.entries)
    for renewal in range(1, 20):
        leader.lead_until(renewal * TTL_MS // 3)
        leader.renew()
    assert leader.answers == [Renewed("client", LEASE, TTL_MS)] * 20
    assert len(log.entries) == entries and alive(log)


def test_a_lease_that_is_not_renewed_ends_on_time() -> None:
    log, leader = with_lease()
    leader.renew()
    leader.lead_until(TTL_MS - 100)
    assert alive(log) and leader.lessor.remaining_ms(LEASE, ns(TTL_MS - 100)) == 100
    leader.lead_until(TTL_MS)
    assert not alive(log)
    leader.renew()
    assert leader.answers[-1] == Renewed("client", LEASE, None)


def test_a_renewal_waits_while_an_expiry_is_on_its_way() -> None:
    log, leader = with_lease()
    (expiry,) = [command for command in leader.at(TTL_MS + MARGIN_MS) if isinstance(command, LeaseExpire)]
    leader.renew()
    assert leader.answers == []
    leader.log_and_apply([expiry])
    assert leader.answers == [Renewed("client", LEASE, None)] and not alive(log)


def test_a_renewal_that_came_while_an_expiry_failed_is_answered_after_it() -> None:
    log, leader = with_lease()
    commands = leader.at(TTL_MS + MARGIN_MS)
    leader.renew()
    leader.lessor.not_logged(commands, ns(TTL_MS + MARGIN_MS + 500))
    assert leader.at(TTL_MS + MARGIN_MS + 499) == []
    again = leader.at(TTL_MS + MARGIN_MS + 500)
    assert again == [LeaseRenew(LEASE)]
    leader.log_and_apply(again)
    assert leader.answers == [Renewed("client", LEASE, TTL_MS)] and alive(log)


def test_a_renewal_after_a_checkpoint_is_answered_only_when_the_log_has_cleared_it() -> None:
    log, leader = with_lease()
    leader.renew()
    leader.answers.clear()
    leader.lead_until(TTL_MS // 2)
    assert log.state.data.leases[LEASE].checkpoint_ms == TTL_MS // 2
    leader.renew()
    assert leader.answers == []
    (renewal,) = leader.at(TTL_MS // 2)
    assert renewal == LeaseRenew(LEASE)
    leader.renew("another")
    assert leader.answers == []
    leader.log_and_apply([renewal])
    assert [answer.asker for answer in leader.answers] == ["client", "another"]
    assert log.state.data.leases[LEASE].checkpoint_ms is None
    assert log.state.data.leases[LEASE].generation == 1


def test_a_renewal_that_overtakes_a_checkpoint_on_its_way_waits_for_it() -> None:
    """Else the checkpoint would be noted after the answer, and the next leader would give less than was promised."""
    log, leader = with_lease()
    commands = leader.at(1_000)
    assert isinstance(commands[0], LeaseCheckpoint)
    leader.renew()
    assert leader.answers == []
    leader.log_and_apply(commands)
    assert leader.answers == []
    leader.log_and_apply(leader.at(1_000))
    assert leader.answers == [Renewed("client", LEASE, TTL_MS)]
    assert log.state.data.leases[LEASE].checkpoint_ms is None


def test_a_lease_granted_in_office_is_watched() -> None:
    log, leader = with_lease()
    log.do(LeaseGrant(8, 5_000))
    leader.lessor.applied(log.last.lease_events, ns(1_000))
    leader.now_ms = 1_000
    leader.lead_until(5_900)
    assert 8 in log.state.data.leases
    leader.lead_until(6_000)
    assert 8 not in log.state.data.leases and alive(log)


# ---- changes of leaders


def test_a_stalled_former_leader_ends_no_lease() -> None:
    """L2, etcd#15247: it wakes with an expiry in its queue, and proposes it once it leads again."""
    log, old = with_lease()
    stale = old.at(TTL_MS + MARGIN_MS)
    assert isinstance(stale[0], LeaseExpire)
    new = Leader(log, TTL_MS)
    new.renew()
    apply(log, stale)
    assert alive(log) and log.last.lease_events[0].change is LeaseChange.KEPT


def test_an_expiry_from_before_a_logged_renewal_ends_nothing() -> None:
    log, leader = with_lease()
    (expiry,) = [command for command in leader.at(TTL_MS + MARGIN_MS) if isinstance(command, LeaseExpire)]
    apply(log, [LeaseRenew(LEASE)])
    apply(log, [expiry])
    assert alive(log)


@pytest.mark.parametrize("office_ms", [1_500, 5_000, 20_000])
def test_leaders_that_change_faster_than_the_time_to_live_do_not_keep_a_lease_alive(office_ms: int) -> None:
    """etcd#17132: what an earlier leader noted was lost, so the lease began anew with every leader."""
    log, leader = with_lease()
    now_ms = 0
    while alive(log):
        leader = Leader(log, now_ms)
        now_ms += office_ms
        leader.lead_until(now_ms)
        assert now_ms < 3 * TTL_MS + 2 * MARGIN_MS, "the lease must end"
    assert now_ms >= TTL_MS


@pytest.mark.parametrize("office_ms", [900, 1_500, 5_000, 20_000])
def test_a_lease_renewed_in_time_outlives_any_number_of_leaders(office_ms: int) -> None:
    log, leader = with_lease()
    now_ms, renewed_ms = 0, 0
    for _ in range(60):
        leader = Leader(log, now_ms)
        end_ms = now_ms + office_ms
        while now_ms < end_ms:
            now_ms += 100
            leader.lead_until(now_ms)
            if now_ms - renewed_ms >= TTL_MS // 3:
                leader.renew()
                leader.lead_until(now_ms)
                renewed_ms = now_ms
        assert alive(log)
        assert not [answer for answer in leader.answers if answer.ttl_ms is None]


def test_a_new_leader_gives_what_was_noted_and_a_margin() -> None:
    log, leader = with_lease()
    leader.lead_until(31_900)
    noted_ms = log.state.data.leases[LEASE].checkpoint_ms
    assert noted_ms == TTL_MS - 16_000, "noted after 1, 2, 4, 8 and 16 s"
    new = Leader(log, 100_000)
    assert new.lessor.remaining_ms(LEASE, ns(100_000)) == noted_ms + MARGIN_MS
    new.lead_until(100_000 + noted_ms + MARGIN_MS - 100)
    assert alive(log)
    new.lead_until(100_000 + noted_ms + MARGIN_MS)
    assert not alive(log)


def test_the_end_of_an_office_gives_back_who_waits() -> None:
    _, leader = with_lease()
    leader.at(TTL_MS + MARGIN_MS)
    leader.renew()
    assert leader.lessor.end_office() == ["client"]
    assert leader.lessor.next_deadline is None
    assert leader.lessor.remaining_ms(LEASE, ns(0)) == -1


def test_leases_that_come_and_go_leave_nothing_behind() -> None:
    log, leader = with_lease()
    for number in range(2_000):
        log.do(LeaseGrant(100 + number, 3_600_000))
        leader.lessor.applied(log.last.lease_events, ns(number))
        log.do(LeaseRevoke(100 + number))
        leader.lessor.applied(log.last.lease_events, ns(number))
    assert len(leader.lessor._heap) < 200
    leader.now_ms = 2_000
    leader.lead_until(TTL_MS + MARGIN_MS)
    assert not alive(log), "the one that stays is not forgotten"


def test_the_first_checkpoint_of_an_office_comes_soon() -> None:
    _, leader = with_lease()
    first_ms = CHECKPOINT_FIRST_NS // NS_PER_MS
    assert leader.at(first_ms - 1) == []
    assert leader.at(first_ms) == [LeaseCheckpoint(LEASE, leader.term, TTL_MS - first_ms)]


def test_a_lease_that_one_entry_grants_and_revokes_is_not_watched() -> None:
    log = StateLog()
    leader = Leader(log, 0)
    results = log.apply(*[Command(0, 0, 0, each) for each in (LeaseGrant(LEASE, TTL_MS), LeaseRevoke(LEASE))])
    assert not any(isinstance(result, Exception) for result in results)
    assert leader.lessor.applied(log.last.lease_events, ns(0)) == []
    assert leader.at(2 * TTL_MS) == [] and leader.lessor.remaining_ms(LEASE, ns(0)) == -1
