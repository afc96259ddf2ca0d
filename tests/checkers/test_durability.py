"""The durability check finds what is lost, and says unknown where it cannot know."""

import pytest

from isochrone.drills.checkers.durability import check_durability
from isochrone.drills.history import Operation, OperationKind, Outcome
from isochrone.drills.verdict import Verdict
from isochrone.errors import InvariantViolation


def insert(
    key: str, value: str, outcome: Outcome = Outcome.OK, kind: OperationKind = OperationKind.INSERT
) -> Operation:
    return Operation(
        process=1,
        region="r",
        keyspace="k",
        kind=kind,
        key=key,
        value=value,
        outcome=outcome,
        invoke_ns=0,
        complete_ns=10,
    )


def final_read(key: str, value: str | None, outcome: Outcome = Outcome.OK) -> Operation:
    return Operation(
        process=2,
        region="r",
        keyspace="k",
        kind=OperationKind.GET,
        key=key,
        value=value,
        outcome=outcome,
        invoke_ns=100,
        complete_ns=110,
        final=True,
    )


def test_everything_there() -> None:
    result = check_durability([insert("a", "1"), insert("b", "2"), final_read("a", "1"), final_read("b", "2")])
    assert result.verdict is Verdict.TRUE
    assert (result.acknowledged, result.lost, result.unread) == (2, (), ())


@pytest.mark.parametrize("found", [None, "other"])
def test_missing_or_changed_key_is_lost(found: str | None) -> None:
    result = check_durability([insert("a", "1"), insert("b", "2"), final_read("a", found), final_read("b", "2")])
    assert result.verdict is Verdict.FALSE
    assert result.lost == ("a",)
    assert "1 of 2 acknowledged inserts are lost: a" in result.as_check().reason


def test_unanswered_final_read_is_unknown() -> None:
    result = check_durability([insert("a", "1"), final_read("a", None, Outcome.INFO)])
    assert result.verdict is Verdict.UNKNOWN
    assert result.unread == ("a",)
    assert result.as_check().reason == "none of 1 acknowledged inserts was read at the end."


def test_some_unanswered_final_reads_are_counted() -> None:
    result = check_durability([insert("a", "1"), insert("b", "2"), final_read("b", "2")])
    assert result.verdict is Verdict.UNKNOWN
    assert result.as_check().reason == "1 of 2 acknowledged inserts could not be read at the end."


def test_loss_outweighs_unread() -> None:
    result = check_durability([insert("a", "1"), insert("b", "2"), final_read("a", None)])
    assert result.verdict is Verdict.FALSE


def test_nothing_acknowledged_is_unknown() -> None:
    assert check_durability([]).as_check().reason == "no insert was acknowledged."
    assert check_durability([]).verdict is Verdict.UNKNOWN
    history = [insert("a", "1", Outcome.INFO), final_read("a", None)]
    assert check_durability(history).verdict is Verdict.UNKNOWN


def test_read_during_the_run_is_no_final_read() -> None:
    early = Operation(
        process=3,
        region="r",
        keyspace="k",
        kind=OperationKind.GET,
        key="a",
        value="1",
        outcome=Outcome.OK,
        invoke_ns=20,
        complete_ns=30,
    )
    assert check_durability([insert("a", "1"), early]).unread == ("a",)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_reused_insert_key_is_a_fault_of_the_workload(order: tuple[int, int]) -> None:
    history = [insert("a", "1"), insert("a", "2", kind=OperationKind.PUT)]
    with pytest.raises(InvariantViolation, match=r"the .*key a was written"):
        check_durability([history[number] for number in order])
