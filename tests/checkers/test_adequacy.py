"""Too few operations beside a fault or on contended keys make a verdict unknown."""

from isochrone.drills.checkers.adequacy import check_adequacy, contended_operations, operations_beside
from isochrone.drills.history import Operation, OperationKind, Outcome
from isochrone.drills.verdict import Verdict


def operation(
    start: int,
    end: int,
    region: str = "r",
    key: str = "k",
    kind: OperationKind = OperationKind.PUT,
    outcome: Outcome = Outcome.OK,
) -> Operation:
    return Operation(
        process=start,
        region=region,
        keyspace="k",
        kind=kind,
        key=key,
        outcome=outcome,
        invoke_ns=start,
        complete_ns=end,
        value="v",
    )


def test_only_acknowledged_operations_invoked_in_the_window_count() -> None:
    history = [operation(5, 15), operation(10, 12), operation(19, 40), operation(20, 30)]
    history.append(operation(11, 12, outcome=Outcome.INFO))
    assert operations_beside(history, 10, 20) == 2


def test_contention_needs_overlap_another_region_and_a_write() -> None:
    assert contended_operations([operation(0, 10), operation(5, 15, "s")]) == 2
    assert contended_operations([operation(0, 10), operation(5, 15)]) == 0
    assert contended_operations([operation(0, 10), operation(11, 15, "s")]) == 0
    assert contended_operations([operation(0, 10), operation(5, 15, "s", key="other")]) == 0
    get = OperationKind.GET
    assert contended_operations([operation(0, 10, kind=get), operation(5, 15, "s", kind=get)]) == 0
    assert contended_operations([operation(0, 10, kind=get), operation(5, 15, "s")]) == 2
    assert contended_operations([operation(0, 10), operation(5, 15, "s", outcome=Outcome.INFO)]) == 1
    assert contended_operations([operation(0, 10), operation(5, 15, "s", outcome=Outcome.FAIL)]) == 0


def test_enough_is_true() -> None:
    history = [operation(0, 10), operation(5, 15, "s")]
    check = check_adequacy(history, {"kill a": (0, 20)}, beside_each_fault_min=2, contended_min=2)
    assert check.verdict is Verdict.TRUE
    assert "2 beside kill a; 2 contended" in check.reason


def test_too_few_beside_one_fault_is_unknown() -> None:
    history = [operation(0, 10), operation(5, 15, "s")]
    faults = {"kill a": (0, 20), "kill b": (100, 200)}
    check = check_adequacy(history, faults, beside_each_fault_min=1, contended_min=0)
    assert check.verdict is Verdict.UNKNOWN
    assert check.reason == "only 0 operations were acknowledged beside kill b, 1 are demanded."


def test_too_little_contention_is_unknown() -> None:
    check = check_adequacy([operation(0, 10)], {}, beside_each_fault_min=0, contended_min=1)
    assert check.verdict is Verdict.UNKNOWN
    assert "0 operations contended" in check.reason
