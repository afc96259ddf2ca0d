"""Durability: every acknowledged insert is there at the end.

An insert writes a key that nothing else writes, so an acknowledged one must be found, with its value, by a
linearizable read after the faults have ended. A final read that finds another value or nothing is a lost write; an
insert whose final read got no answer leaves the check undecided. Indeterminate inserts promise nothing.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from isochrone.drills.history import Operation, OperationKind, Outcome
from isochrone.drills.verdict import Check, Verdict
from isochrone.errors import check

NAME = "durable"


@dataclass(frozen=True, slots=True)
class DurabilityResult:
    """What became of the acknowledged inserts."""

    acknowledged: int
    lost: tuple[str, ...]
    """Keys that a final read found absent or changed."""
    unread: tuple[str, ...]
    """Keys that no final read answered for."""

    @property
    def verdict(self) -> Verdict:
        """False if anything is lost, unknown if anything was not read or nothing was acknowledged."""
        if self.lost:
            return Verdict.FALSE
        return Verdict.UNKNOWN if self.unread or not self.acknowledged else Verdict.TRUE

    def as_check(self) -> Check:
        """As one line of a report."""
        match self.verdict:
            case Verdict.TRUE:
                reason = f"all {self.acknowledged} acknowledged inserts were found by final linearizable reads."
            case Verdict.FALSE:
                shown = ", ".join(self.lost[:5]) + (", …" if len(self.lost) > 5 else "")
                reason = f"{len(self.lost)} of {self.acknowledged} acknowledged inserts are lost: {shown}."
            case Verdict.UNKNOWN if not self.acknowledged:
                reason = "no insert was acknowledged."
            case Verdict.UNKNOWN if len(self.unread) == self.acknowledged:
                reason = f"none of {self.acknowledged} acknowledged inserts was read at the end."
            case Verdict.UNKNOWN:
                reason = f"{len(self.unread)} of {self.acknowledged} acknowledged inserts could not be read at the end."
        return Check(NAME, self.verdict, reason)


def check_durability(operations: Iterable[Operation]) -> DurabilityResult:
    """Compare acknowledged inserts with the final reads of the same history.

    Raises:
        InvariantViolation: a key that was inserted has another write: the workload is at fault.
    """
    inserted: dict[str, Operation] = {}
    written: set[str] = set()
    final_reads: dict[str, Operation] = {}
    for operation in operations:
        if operation.final and operation.kind is OperationKind.GET:
            if operation.outcome is Outcome.OK:
                final_reads[operation.key] = operation
            continue
        if not operation.is_write or operation.outcome is Outcome.FAIL:
            continue
        check(operation.key not in inserted, f"the inserted key {operation.key} was written again")
        if operation.kind is OperationKind.INSERT:
            check(operation.key not in written, f"the key {operation.key} was written before it was inserted")
            inserted[operation.key] = operation
        written.add(operation.key)
    acknowledged = {key: insert for key, insert in inserted.items() if insert.outcome is Outcome.OK}
    unread = tuple(key for key in acknowledged if key not in final_reads)
    lost = tuple(
        key for key, insert in acknowledged.items() if key in final_reads and final_reads[key].value != insert.value
    )
    return DurabilityResult(len(acknowledged), lost, unread)
