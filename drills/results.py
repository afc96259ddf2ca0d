"""From the record of a run to its results: checks, verdict, figures and exit status. Pure."""

from dataclasses import dataclass
from functools import partial

from isochrone.drills import restarts
from isochrone.drills.checkers.adequacy import check_adequacy
from isochrone.drills.checkers.durability import DurabilityResult, check_durability
from isochrone.drills.checkers.linearizability import check_linearizability
from isochrone.drills.history import OperationKind, Outcome
from isochrone.drills.lock_results import judge_locks
from isochrone.drills.measure import LatencyRow, failed_writes, latency_rows, recovery_time_s, worst_recovery_time_s
from isochrone.drills.record import DrillRecord, Simulated
from isochrone.drills.verdict import Check, ExitStatus, Verdict, guarded, worst

CHECKER_STEPS_MAX = 8_000_000
"""Budget of the linearizability checker for a whole history; some ten seconds of one core."""


@dataclass(frozen=True, slots=True)
class FaultResult:
    """A fault and how long each keyspace took to recover from it."""

    description: str
    region: str | None
    start_s: float
    end_s: float | None
    recovery_time_s: dict[str, float | None]
    failed_writes: dict[str, int]
    """By keyspace: writes issued outside the faulted region that were refused or whose outcome is unknown."""


@dataclass(frozen=True, slots=True)
class Results:
    """What a drill found."""

    verdict: Verdict
    exit_status: ExitStatus
    checks: tuple[Check, ...]
    acknowledged_writes: int
    """Acknowledged inserts: what the durability check looked for."""
    acknowledged_writes_lost: int | None
    """None if the final reads did not come to their end, or the check crashed."""
    recovery_time_s: dict[str, float | None]
    """By keyspace: the longest over all faults; None where there was no fault or no recovery within one."""
    faults: tuple[FaultResult, ...]
    latencies: tuple[LatencyRow, ...]
    counts: dict[str, dict[str, int]]
    """Operations by kind and outcome; final reads apart, under `final get`."""


def judge(record: DrillRecord, steps_max: int = CHECKER_STEPS_MAX) -> Results:
    """Run every check and take every figure, with `steps_max` search steps for the linearizability checker."""
    keyspaces = list(record.drill.workload.keyspaces)
    durability, durable = _judge_durability(record)
    checks = (
        _check_complete(record),
        guarded("linearizable", lambda: check_linearizability(record.operations, steps_max).as_check()),
        durable,
        *(
            guarded(f"recovery of {name}", partial(_check_recovery, record, name, bound))
            for name, bound in record.drill.expect.recovery_within_s.items()
        ),
        *judge_locks(record),
        guarded("adequate", lambda: _check_adequacy(record)),
        guarded(restarts.NAME, lambda: restarts.check_starts(record)),
        *([] if record.simulated is None else [_check_invariants(record.simulated)]),
    )
    verdict = worst(check.verdict for check in checks)
    read_to_the_end = durability is not None and not durability.unread and record.phase == "done"
    return Results(
        verdict=verdict,
        exit_status=_exit_status(record, verdict),
        checks=checks,
        acknowledged_writes=durability.acknowledged if durability else 0,
        acknowledged_writes_lost=len(durability.lost) if durability and (read_to_the_end or durability.lost) else None,
        recovery_time_s={keyspace: worst_recovery_time_s(record, keyspace) for keyspace in keyspaces},
        faults=tuple(
            FaultResult(
                description=run.fault.description,
                region=run.fault.region,
                start_s=record.seconds(run.start_ns),
                end_s=None if run.end_ns is None else record.seconds(run.end_ns),
                recovery_time_s={name: recovery_time_s(record.operations, name, run) for name in keyspaces},
                failed_writes={name: failed_writes(record.operations, name, run) for name in keyspaces},
            )
            for run in record.faults
        ),
        latencies=tuple(latency_rows(record)),
        counts=_counts(record),
    )


def _exit_status(record: DrillRecord, verdict: Verdict) -> ExitStatus:
    """A crash of the harness first: it may be what made a check fail. Then safety, progress, and doubt."""
    if record.crash is not None:
        return ExitStatus.HARNESS_CRASHED
    if verdict is Verdict.FALSE:
        return ExitStatus.FAILS
    if record.no_progress is not None:
        return ExitStatus.NO_PROGRESS
    return ExitStatus.HOLDS if verdict is Verdict.TRUE else ExitStatus.UNKNOWN


def _check_complete(record: DrillRecord) -> Check:
    name = "complete"
    if record.crash is not None:
        return Check(name, Verdict.UNKNOWN, f"the harness crashed in phase '{record.phase}': {record.crash}")
    if record.no_progress is not None:
        return Check(name, Verdict.UNKNOWN, f"no progress in phase '{record.phase}': {record.no_progress}.")
    if record.interrupted:
        where = "while the history was checked" if record.phase == "done" else f"in phase '{record.phase}'"
        return Check(name, Verdict.UNKNOWN, f"interrupted {where}.")
    if record.phase != "done":
        return Check(name, Verdict.UNKNOWN, f"the run ended in phase '{record.phase}'.")
    read = {item.key for item in record.operations if item.final and item.outcome is Outcome.OK}
    unread = sorted({item.key for item in record.operations} - read)
    if unread:
        shown = ", ".join(unread[:5]) + (", …" if len(unread) > 5 else "")
        return Check(name, Verdict.UNKNOWN, f"the final reads of {len(unread)} keys were not answered: {shown}.")
    return Check(
        name,
        Verdict.TRUE,
        "every phase ran to its end, every replica of every group matched after healing, and every key was read.",
    )


def _judge_durability(record: DrillRecord) -> tuple[DurabilityResult | None, Check]:
    found: list[DurabilityResult] = []

    def run_check() -> Check:
        found.append(check_durability(record.operations))
        return found[0].as_check()

    check = guarded("durable", run_check)
    return (found[0] if found else None), check


def _check_recovery(record: DrillRecord, keyspace: str, bound_s: float) -> Check:
    """Every fault that has ended must have been recovered from within the bound."""
    name = f"recovery of {keyspace}"
    ended = [run for run in record.faults if run.end_ns is not None]
    if not ended or len(ended) < len(record.drill.faults):
        return Check(name, Verdict.UNKNOWN, f"{len(ended)} of {len(record.drill.faults)} faults ran to their end.")
    for run in ended:
        time_s = recovery_time_s(record.operations, keyspace, run)
        if time_s is None:
            reason = f"beside {run.fault.description} no write to {keyspace} succeeded again before the fault ended."
            return Check(name, Verdict.FALSE, reason)
        if time_s > bound_s:
            reason = (
                f"beside {run.fault.description} writes to {keyspace} took {time_s:.2f} s; allowed are {bound_s:g} s."
            )
            return Check(name, Verdict.FALSE, reason)
    slowest = worst_recovery_time_s(record, keyspace)
    return Check(
        name, Verdict.TRUE, f"writes to {keyspace} succeeded again after {slowest:.2f} s; allowed: {bound_s:g} s."
    )


def _check_invariants(simulated: Simulated) -> Check:
    name, found = "invariants", simulated.violations
    if not found:
        return Check(name, Verdict.TRUE, "the invariants of every group held at every step.")
    more = f" ({len(found) - 1} more were found)" if len(found) > 1 else ""
    return Check(name, Verdict.FALSE, found[0] + more)


def _check_adequacy(record: DrillRecord) -> Check:
    faults = {
        f"{run.fault.description} at {record.seconds(run.start_ns):.0f} s": (run.start_ns, run.end_ns or run.start_ns)
        for run in record.faults
    }
    missing = len(record.drill.faults) - len(record.faults)
    if missing:
        return Check("adequate", Verdict.UNKNOWN, f"{missing} of {len(record.drill.faults)} faults did not happen.")
    expect = record.drill.expect
    return check_adequacy(
        record.operations,
        faults,
        beside_each_fault_min=expect.operations_beside_each_fault_min,
        contended_min=expect.contended_operations_min,
    )


def _counts(record: DrillRecord) -> dict[str, dict[str, int]]:
    counts: dict[str, dict[str, int]] = {}
    for operation in record.operations:
        kind = f"final {OperationKind.GET}" if operation.final else operation.kind.value
        row = counts.setdefault(kind, {outcome.value: 0 for outcome in Outcome})
        row[operation.outcome.value] += 1
    return dict(sorted(counts.items()))
