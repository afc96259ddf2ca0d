"""What a drill found of its locks and watches: exclusion by token order, time to the next grant, watches without gaps.

Pure.
"""

from collections.abc import Iterator

from isochrone.drills.checkers.exclusion import check_exclusion
from isochrone.drills.checkers.watch_order import check_watches
from isochrone.drills.guarded import data_of, writes_to_the_store
from isochrone.drills.record import DrillRecord, FaultRun
from isochrone.drills.schema import LocksSection
from isochrone.drills.verdict import Check, Verdict, guarded
from isochrone.ids import NS_PER_S

EXCLUSION, GRANTS, WATCHES = "lock exclusion", "next grant", "watches"


def judge_locks(record: DrillRecord) -> Iterator[Check]:
    """The checks of `workload.locks`; none if the drill has no locks."""
    section, expect = record.drill.workload.locks, record.drill.expect.locks
    if section is not None and expect is not None:
        yield guarded(EXCLUSION, lambda: _exclusion(record, section, expect.handovers_min))
        yield guarded(GRANTS, lambda: _next_grants(record, section, expect.next_grant_within_s))
        yield guarded(WATCHES, lambda: _watches(record, section))


def _exclusion(record: DrillRecord, section: LocksSection, handovers_min: int) -> Check:
    locks = record.locks
    writes = list(locks.writes)
    for name in section.lock_names:
        items = locks.written.items if locks.written else ()
        writes += writes_to_the_store(name, [item for item in items if item.key == data_of(name)])
    result = check_exclusion(locks.holds, writes, clocks_keep_bound=True)
    if result.verdict is Verdict.TRUE and result.handovers < handovers_min:
        return Check(EXCLUSION, Verdict.UNKNOWN, f"only {result.handovers} handovers, {handovers_min} are demanded.")
    return result.as_check()


def next_grant_s(record: DrillRecord, lock: str, run: FaultRun) -> float | None:
    """From the start of a fault to the first grant to one who asked after that; None if there was none."""
    after = [hold.granted_ns for hold in record.locks.holds if hold.lock == lock and hold.asked_ns >= run.start_ns]
    return (min(after) - run.start_ns) / NS_PER_S if after else None


def _next_grants(record: DrillRecord, section: LocksSection, within_s: float) -> Check:
    if not record.faults or len(record.faults) < len(record.drill.faults):
        return Check(GRANTS, Verdict.UNKNOWN, f"{len(record.faults)} of {len(record.drill.faults)} faults happened.")
    slowest = 0.0
    for run in record.faults:
        for lock in section.lock_names:
            took_s = next_grant_s(record, lock, run)
            if took_s is None or took_s > within_s:
                took = "was never granted again" if took_s is None else f"was granted after {took_s:.2f} s"
                reason = f"beside {run.fault.description} lock {lock} {took}; allowed are {within_s:g} s."
                return Check(GRANTS, Verdict.FALSE, reason)
            slowest = max(slowest, took_s)
    return Check(GRANTS, Verdict.TRUE, f"whoever asked next had a lock after {slowest:.2f} s; allowed: {within_s:g} s.")


def _watches(record: DrillRecord, section: LocksSection) -> Check:
    locks = record.locks
    if locks.written is None:
        return Check(WATCHES, Verdict.UNKNOWN, "what was written is not known: the run did not come so far.")
    return check_watches(locks.stories, {section.keyspace: locks.written}).as_check()
