"""What a leader does on its own while it is in office: it ends leases, moves locks on in time, and compacts by rule.

Pure: it is told what was applied and what time it is, and says what to log. Nothing it decides takes effect before it
is applied, where it is judged again (`regions.state`).

A replica is *in office* from when it has applied an entry of the term in which it leads: everything that earlier
leaders committed is applied then.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic

from isochrone.ids import NS_PER_MS, NS_PER_S, Nanos, Revision, Term
from isochrone.regions.lessor import Asker, Lessor, Renewed
from isochrone.regions.lock_timers import LockTimers
from isochrone.regions.state.machine import Applied, GroupState
from isochrone.regions.state.model import FIRST_REVISION, LockMoment
from isochrone.wire.leases import CompactByRule, Housekeeping, LeaseHousekeeping, LockTick

COMPACTION_INTERVAL_NS_MIN = 10 * NS_PER_S
"""Compactions by age are logged ten times within the age that is kept, and at most so often."""
TICKS_MAX = 500
"""Most ticks of locks that are logged at once."""
RETRY_NS = 500 * NS_PER_MS
"""After so long a leader tries again to log what could not be proposed."""


@dataclass(frozen=True, slots=True)
class CompactionRule:
    """What is kept: versions that were superseded less than `age_ms` ago, but only of the last `revisions`; 0: all."""

    age_ms: int = 3_600_000
    revisions: int = 1_000_000


DEFAULT_COMPACTION = CompactionRule()


class Office(Generic[Asker]):
    """See the module. One for each replica with a state machine."""

    def __init__(self, machine: GroupState, margin_ns: int, rule: CompactionRule) -> None:
        """`margin_ns`: extra time for leases when the leader has changed."""
        self._machine = machine
        self._rule = rule
        self.lessor = Lessor[Asker](machine.data.leases, margin_ns)
        self._lock_timers = LockTimers()
        self._interval_ns = max(COMPACTION_INTERVAL_NS_MIN, rule.age_ms * NS_PER_MS // 10)
        self._compaction_at: Nanos | None = None
        self._asked_at = Revision(0)
        """The group's revision when a compaction was last logged."""

    @property
    def term(self) -> Term | None:
        """The term in which this replica is in office; None while it is not."""
        return self.lessor.in_office

    @property
    def next_deadline(self) -> Nanos | None:
        """When to ask `due` again; None while nothing is to come."""
        if self.term is None:
            return None
        earliest = self._compaction_at
        for at in (self.lessor.next_deadline, self._lock_timers.next_deadline):
            if at is not None and (earliest is None or at < earliest):
                earliest = at
        return earliest

    def end(self) -> list[Asker]:
        """This replica leads no more. Returns whose renewals are not answered."""
        self._compaction_at = None
        self._asked_at = Revision(0)
        self._lock_timers.clear()
        return self.lessor.end_office()

    def due(self, now: Nanos) -> list[Housekeeping]:
        """What to log now. Each is on its way from then on; `not_logged` takes it back."""
        if self.term is None:
            return []
        commands: list[Housekeeping] = [*self.lessor.due(now)]
        commands += [LockTick(name) for name in self._lock_timers.due(now, TICKS_MAX)]
        if self._compaction_at is not None and self._compaction_at <= now:
            data, rule = self._machine.data, self._rule
            self._asked_at = data.revision
            # While nothing is written, this ends when everything has become old: then the group can sleep.
            again = rule.age_ms and data.compacted < data.revision
            self._compaction_at = Nanos(now + self._interval_ns) if again else None
            commands.append(CompactByRule(rule.age_ms, rule.revisions))
        return commands

    def not_logged(self, commands: Sequence[Housekeeping], now: Nanos) -> None:
        """These could not be proposed; they come again."""
        about_leases: list[LeaseHousekeeping] = []
        for command in commands:
            match command:
                case CompactByRule():
                    self._compaction_at = Nanos(now + RETRY_NS)
                case LockTick(name):
                    self._lock_timers.set(name, Nanos(now + RETRY_NS))
                case _:
                    about_leases.append(command)
        self.lessor.not_logged(about_leases, Nanos(now + RETRY_NS))

    def applied(self, term: Term, applied: Applied, now: Nanos) -> Sequence[Renewed[Asker]]:
        """An entry was applied while this replica leads in `term`. Returns the renewals to be answered now."""
        if self.term is None:
            self.lessor.begin_office(term, now)
            locks = self._machine.data.locks.locks
            moments = [LockMoment(name, lock.next_moment()) for name, lock in locks.items()]
            self._lock_timers.note(moments, self._machine.data.timestamp, now)
            self._plan_compaction(now)
        if applied.lock_moments:
            self._lock_timers.note(applied.lock_moments, self._machine.data.timestamp, now)
        if applied.events:
            self._plan_compaction(now)
        return self.lessor.applied(applied.lease_events, now) if applied.lease_events else ()

    def _plan_compaction(self, now: Nanos) -> None:
        """An office begins, or something was written."""
        rule, data = self._rule, self._machine.data
        if rule.age_ms and self._compaction_at is None and FIRST_REVISION < data.revision > data.compacted:
            self._compaction_at = Nanos(now + self._interval_ns)
        slack = rule.revisions // 10
        kept = data.revision - max(data.compacted, self._asked_at - rule.revisions, 0)
        if rule.revisions and kept > rule.revisions + slack:
            self._compaction_at = now
