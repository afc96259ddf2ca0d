"""Compaction by rule: what is kept, when the leader asks for one, and that a group without writes comes to rest."""

import asyncio
from itertools import pairwise

import pytest
from host_asker import Asker
from host_cluster import GROUP, HostCluster
from hypothesis import given, settings
from hypothesis import strategies as st
from state_log import NS_PER_MS, StateLog
from virtual_time import run_virtual

from isochrone.errors import RevisionCompacted
from isochrone.ids import Nanos, ReplicaRole, Term
from isochrone.regions.office import COMPACTION_INTERVAL_NS_MIN, RETRY_NS, CompactionRule, Office
from isochrone.wire.kv import Compact, Put, Range
from isochrone.wire.leases import CompactByRule, encode_housekeeping
from isochrone.wire.messages import EntryKind

INTERVAL_NS = COMPACTION_INTERVAL_NS_MIN


def compact(log: StateLog, *, age_ms: int = 0, revisions: int = 0) -> int:
    """Apply a rule; returns how far the group is compacted then."""
    log.log(EntryKind.HOUSEKEEPING, [encode_housekeeping(CompactByRule(age_ms, revisions))])
    log.now_ms += 1
    return log.state.data.compacted


# ---- what is kept


def test_as_many_revisions_are_kept_as_the_rule_says() -> None:
    log = StateLog()
    assert compact(log, revisions=3) == -1, "nothing was written"
    for number in range(5):
        log.do(Put(b"k/a", b"%d" % number))
    assert compact(log, revisions=10) == -1
    assert compact(log, revisions=3) == 3
    assert [log.read(Range(b"k/a", revision=r)).items[0].value for r in (3, 4, 5, 6)] == [b"1", b"2", b"3", b"4"]
    with pytest.raises(RevisionCompacted):
        log.read(Range(b"k/a", revision=2))
    assert compact(log, revisions=4) == 3, "a rule that keeps more brings nothing back"


def test_what_was_superseded_within_the_age_is_kept() -> None:
    log = StateLog()
    for number in range(5):
        log.now_ms = 1_000 + 100 * number
        log.do(Put(b"k/a" if number % 2 else b"m/a", b"%d" % number))
    log.now_ms = 1_550
    assert compact(log, age_ms=1_000) == -1
    assert compact(log, age_ms=250) == 5, "written at 1300, before 1551 - 250"
    assert compact(log, age_ms=10) == 6, "the newest revision itself is kept"
    assert log.value(b"m/a") == b"4" and log.value(b"k/a") == b"3"


def test_both_bounds_hold() -> None:
    log = StateLog()
    for number in range(6):
        log.now_ms = 1_000 + 100 * number
        log.do(Put(b"k/a", b"%d" % number))
    assert compact(log, age_ms=10_000, revisions=2) == 5
    assert compact(log, age_ms=1, revisions=100) == 7


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.sampled_from([b"k/a", b"k/b", b"m/a"]), st.integers(1, 40)),
            st.tuples(st.integers(0, 100), st.integers(0, 8)),
            st.integers(1, 6),
        ),
        max_size=40,
    )
)
def test_no_rule_takes_what_it_promises_to_keep(steps: list[tuple[bytes, int] | tuple[int, int] | int]) -> None:
    """All states from the compacted revision and timestamp on stay as they were, also after a restart."""
    log, past = StateLog(), [(1, 0, ())]
    for step in steps:
        data = log.state.data
        match step:
            case (bytes(key), int(ms)):
                log.now_ms += ms
                log.do(Put(key, b"%d" % log.now_ms))
                past.append((data.revision, data.timestamp, log.read(Range(b"k/", b"n")).items))
            case (int(age_ms), int(revisions)):
                before, now_ns = data.compacted, log.now_ms * NS_PER_MS
                compact(log, age_ms=age_ms, revisions=revisions)
                assert before <= data.compacted <= data.revision
                superseded_late = [r for r, _, _ in past if now_ns - past[r - 1][1] < age_ms * NS_PER_MS]
                by_age = bool(age_ms) and data.compacted < min(superseded_late, default=data.revision + 1)
                by_count = bool(revisions) and data.compacted <= data.revision - revisions
                assert data.compacted == before or by_age or by_count
            case int(behind):
                if data.compacted < data.revision - behind:
                    log.do(Compact(max(data.revision - behind, 0)))
        data = log.state.data
        for (revision, _, items), (_, until, _) in pairwise([*past, (0, data.timestamp + 1, ())]):
            if revision >= data.compacted:
                assert log.read(Range(b"k/", b"n", revision=revision)).items == items
            if until - 1 >= max(data.compacted_timestamp, 1):
                assert log.read(Range(b"k/", b"n", timestamp=until - 1)).items == items
        if len(past) % 5 == 0:
            log.restart()


# ---- when the leader asks for one


class Leader:
    """An office at a log, with the clock of the log."""

    def __init__(self, rule: CompactionRule) -> None:
        self.log = StateLog()
        self.office = Office[int](self.log.state, 0, rule)

    @property
    def now(self) -> Nanos:
        return Nanos(self.log.now_ms * NS_PER_MS)

    def write(self, count: int = 1) -> None:
        for _ in range(count):
            self.log.do(Put(b"k/a", b""))
            self.office.applied(Term(1), self.log.last, self.now)

    def pass_to_the_next(self) -> list[object]:
        """Let time pass until there is something to do, and do it."""
        deadline = self.office.next_deadline
        assert deadline is not None
        self.log.now_ms = max(self.log.now_ms, deadline // NS_PER_MS)
        commands = self.office.due(self.now)
        self.log.log(EntryKind.HOUSEKEEPING, [encode_housekeeping(command) for command in commands])
        self.office.applied(Term(1), self.log.last, self.now)
        return list(commands)


def test_a_tenth_more_than_is_kept_may_gather_before_a_compaction() -> None:
    leader = Leader(CompactionRule(age_ms=0, revisions=100))
    leader.write(109)
    assert leader.office.next_deadline is None
    leader.write()
    assert leader.pass_to_the_next() == [CompactByRule(0, 100)]
    assert leader.log.state.data.compacted == leader.log.state.revision - 100
    leader.write(10)
    assert leader.office.next_deadline is None
    leader.write()
    assert leader.office.next_deadline is not None


def test_compactions_by_age_go_on_until_all_is_old_and_then_rest() -> None:
    leader = Leader(CompactionRule(age_ms=100_000, revisions=0))
    assert leader.office.next_deadline is None
    leader.write(3)
    asked = 0
    while leader.office.next_deadline is not None:
        asked += len(leader.pass_to_the_next())
    data = leader.log.state.data
    assert data.compacted == data.revision and 10 <= asked <= 13
    assert leader.log.now_ms * NS_PER_MS <= 13 * INTERVAL_NS
    leader.write()
    assert leader.office.next_deadline == leader.now + INTERVAL_NS


def test_a_compaction_that_could_not_be_proposed_comes_again() -> None:
    leader = Leader(CompactionRule(age_ms=0, revisions=10))
    leader.write(20)
    commands = leader.office.due(leader.now)
    assert commands == [CompactByRule(0, 10)] and leader.office.next_deadline is None
    leader.office.not_logged(commands, leader.now)
    assert leader.office.next_deadline == leader.now + RETRY_NS


def test_a_new_leader_compacts_what_the_last_one_left() -> None:
    leader = Leader(CompactionRule(age_ms=60_000, revisions=0))
    leader.log.do(Put(b"k/a", b""))
    leader.log.apply()
    leader.office.applied(Term(1), leader.log.last, leader.now)
    assert leader.office.next_deadline == leader.now + INTERVAL_NS
    leader.office.end()
    assert leader.office.next_deadline is None


# ---- through hosts


@pytest.mark.parametrize("rule", [CompactionRule(age_ms=30_000, revisions=0), CompactionRule(age_ms=0, revisions=5)])
def test_replicas_forget_by_the_rule_and_then_sleep(rule: CompactionRule) -> None:
    async def main() -> None:
        cluster = HostCluster(dict.fromkeys("abc", ReplicaRole.FULL))
        cluster.compaction = rule
        await cluster.start_all()
        await cluster.until(lambda: cluster.leader() is not None)
        asker = Asker(cluster)
        for number in range(8):
            assert (await asker.write(Put(b"k/x", b"%d" % number))).error is None
        await asyncio.sleep(60)
        with pytest.raises(RevisionCompacted):
            await asker.get(Range(b"k/x", revision=2))
        for process in cluster.processes.values():
            assert process.host is not None
            machine = process.host.replicas[GROUP].machine
            assert machine is not None and machine.data.compacted == (9 if rule.age_ms else 4)
        last = asker.host().replicas[GROUP].core.status().last
        await asyncio.sleep(300)
        assert asker.host().replicas[GROUP].core.status().last == last
        assert await asker.value(b"k/x") == b"7"
        await cluster.stop_all()

    run_virtual(main())
