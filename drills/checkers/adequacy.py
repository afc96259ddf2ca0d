"""Adequacy: did the history see enough for the other verdicts to mean something?

A history without operations beside a fault, or without clients that compete for a key, is linearizable for free. The
drill file says how many it demands; fewer make the verdict unknown.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from isochrone.drills.history import Operation, Outcome
from isochrone.drills.verdict import Check, Verdict

NAME = "adequate"


def operations_beside(operations: Iterable[Operation], start_ns: int, end_ns: int) -> int:
    """How many acknowledged operations were invoked while a fault was on."""
    return sum(1 for item in operations if item.outcome is Outcome.OK and start_ns <= item.invoke_ns < end_ns)


def contended_operations(operations: Iterable[Operation]) -> int:
    """How many acknowledged operations overlapped one of another region on the same key, one of the two a write.

    Final reads and operations without effect do not count; an indeterminate write counts as the other one until its
    client gave up.
    """
    by_key: dict[str, list[Operation]] = defaultdict(list)
    for operation in operations:
        if not operation.final and operation.outcome is not Outcome.FAIL:
            by_key[operation.key].append(operation)
    return sum(_contended_on_key(group) for group in by_key.values())


def _contended_on_key(group: list[Operation]) -> int:
    group.sort(key=lambda item: item.invoke_ns)
    contended: set[int] = set()
    live: list[int] = []
    for number, operation in enumerate(group):
        live = [other for other in live if group[other].complete_ns >= operation.invoke_ns]
        for other in live:
            rival = group[other]
            if rival.region != operation.region and (rival.is_write or operation.is_write):
                contended.update((number, other))
        live.append(number)
    return sum(1 for number in contended if group[number].outcome is Outcome.OK)


def check_adequacy(
    operations: Sequence[Operation],
    faults: Mapping[str, tuple[int, int]],
    *,
    beside_each_fault_min: int,
    contended_min: int,
) -> Check:
    """Judge whether enough ran. `faults` gives (start, end) in nanoseconds by the fault's description."""
    counts = {name: operations_beside(operations, start, end) for name, (start, end) in faults.items()}
    contended = contended_operations(operations)
    few = [
        f"only {count} operations were acknowledged beside {name}, {beside_each_fault_min} are demanded"
        for name, count in counts.items()
        if count < beside_each_fault_min
    ]
    if contended < contended_min:
        few.append(f"only {contended} operations contended with another region, {contended_min} are demanded")
    if few:
        return Check(NAME, Verdict.UNKNOWN, "; ".join(few) + ".")
    beside = ", ".join(f"{count} beside {name}" for name, count in counts.items()) or "no fault was demanded"
    return Check(NAME, Verdict.TRUE, f"acknowledged operations: {beside}; {contended} contended with another region.")
