"""The linearizability checker rejects planted bad histories, accepts good ones, and agrees with a dumb one."""

from collections.abc import Iterator, Sequence
from itertools import permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isochrone.drills.checkers.linearizability import check_linearizability, step
from isochrone.drills.history import Operation, OperationKind, Outcome
from isochrone.drills.verdict import Verdict


def operation(process: int, start: int, end: int, kind: str, **fields: object) -> Operation:
    outcome = Outcome(str(fields.pop("outcome", "ok")))
    key = str(fields.pop("key", "k"))
    return Operation(
        process=process,
        region="r",
        keyspace="k",
        kind=OperationKind(kind),
        key=key,
        outcome=outcome,
        invoke_ns=start,
        complete_ns=end,
        **fields,  # type: ignore[arg-type]
    )


def put(process: int, start: int, end: int, value: str, **fields: object) -> Operation:
    return operation(process, start, end, "put", value=value, **fields)


def get(process: int, start: int, end: int, value: str | None, **fields: object) -> Operation:
    return operation(process, start, end, "get", value=value, **fields)


def cas(
    process: int, start: int, end: int, expected: str | None, value: str, found: str | None = "", **fields: object
) -> Operation:
    """A cas that holds, unless `found` says what it found instead."""
    succeeded = found == ""
    return operation(
        process,
        start,
        end,
        "cas",
        expected=expected,
        value=value,
        succeeded=succeeded,
        found=None if succeeded else found,
        **fields,
    )


def delete(process: int, start: int, end: int, found: bool, **fields: object) -> Operation:
    return operation(process, start, end, "delete", succeeded=found, **fields)


def lost(process: int, start: int, value: str, **fields: object) -> Operation:
    """A put whose outcome nobody knows."""
    return put(process, start, start + 5, value, outcome="info", **fields)


BAD = {
    "stale read after an acknowledged write": [put(1, 0, 10, "a"), put(1, 20, 30, "b"), get(2, 40, 50, "a")],
    "lost write": [put(1, 0, 10, "a"), get(2, 20, 30, None)],
    "read from the future": [get(1, 0, 10, "a"), put(2, 20, 30, "a")],
    "read of a value that nobody wrote": [put(1, 0, 10, "a"), get(2, 20, 30, "z")],
    "two readers disagree on the order": [
        put(1, 0, 100, "a"),
        put(2, 0, 100, "b"),
        get(3, 110, 120, "a"),
        get(3, 130, 140, "b"),
    ],
    "reads go back in time": [put(1, 0, 10, "a"), put(2, 20, 100, "b"), get(3, 30, 40, "b"), get(4, 50, 60, "a")],
    "split-brain cas: both win from one value": [
        put(1, 0, 10, "a"),
        cas(1, 20, 30, "a", "b"),
        cas(2, 20, 30, "a", "c"),
    ],
    "split-brain creation": [cas(1, 0, 10, None, "a"), cas(2, 5, 15, None, "b")],
    "a cas that fails although its comparison holds": [put(1, 0, 10, "a"), cas(2, 20, 30, "a", "b", found="z")],
    "a cas that reports the wrong value": [
        put(1, 0, 10, "a"),
        put(1, 20, 30, "b"),
        cas(2, 40, 50, "x", "y", found="a"),
    ],
    "a cas that reports failure but took effect": [
        put(1, 0, 10, "a"),
        cas(2, 20, 30, "x", "y", found="a"),
        get(3, 40, 50, "y"),
    ],
    "resurrected delete": [put(1, 0, 10, "a"), delete(1, 20, 30, True), get(2, 40, 50, "a")],
    "a delete that found a key already deleted": [
        put(1, 0, 10, "a"),
        delete(1, 20, 30, True),
        delete(2, 40, 50, True),
    ],
    "a delete that missed a key": [put(1, 0, 10, "a"), delete(2, 20, 30, False)],
    "an indeterminate write that takes effect twice": [
        lost(1, 0, "a"),
        get(2, 10, 20, "a"),
        put(2, 30, 40, "b"),
        get(2, 50, 60, "a"),
    ],
    "an indeterminate write seen before it was asked": [get(1, 0, 10, "a"), lost(2, 20, "a")],
    "a refused write that took effect": [put(1, 0, 10, "a", outcome="fail"), get(2, 20, 30, "a")],
    "a retried cas that is applied twice": [
        put(1, 0, 10, "a"),
        cas(2, 20, 30, "a", "b"),
        cas(3, 40, 50, "b", "a"),
        get(4, 60, 70, "b"),
    ],
    "only one of many keys is wrong": [
        put(1, 0, 10, "a", key="good"),
        get(1, 20, 30, "a", key="good"),
        put(2, 0, 10, "a", key="bad"),
        get(2, 20, 30, None, key="bad"),
    ],
}

GOOD = {
    "empty": [],
    "sequential": [put(1, 0, 10, "a"), get(1, 20, 30, "a"), delete(1, 40, 50, True), get(1, 60, 70, None)],
    "a read beside a write may see the old value": [put(1, 0, 10, "a"), put(1, 20, 60, "b"), get(2, 30, 40, "a")],
    "or the new one": [put(1, 0, 10, "a"), put(1, 20, 60, "b"), get(2, 30, 40, "b")],
    "an indeterminate write that never took effect": [put(1, 0, 10, "a"), lost(2, 5, "b"), get(3, 30, 40, "a")],
    "an indeterminate write that takes effect late": [
        put(1, 0, 10, "a"),
        lost(2, 5, "b"),
        get(3, 30, 40, "a"),
        get(3, 500, 510, "b"),
    ],
    "one cas of two wins": [put(1, 0, 10, "a"), cas(1, 20, 40, "a", "b"), cas(2, 20, 40, "a", "c", found="b")],
    "an indeterminate cas that took effect": [
        put(1, 0, 10, "a"),
        cas(2, 20, 30, "a", "b", outcome="info"),
        get(3, 40, 50, "b"),
    ],
    "an indeterminate delete that took effect": [
        put(1, 0, 10, "a"),
        delete(2, 20, 30, True, outcome="info"),
        get(3, 40, 50, None),
    ],
    "a refused write": [put(1, 0, 10, "a"), put(2, 20, 30, "b", outcome="fail"), get(3, 40, 50, "a")],
    "an unanswered get says nothing": [put(1, 0, 10, "a"), get(2, 20, 30, None, outcome="info")],
    "a value that returns": [
        put(1, 0, 10, "a"),
        cas(2, 20, 30, "a", "b"),
        cas(3, 40, 50, "b", "a"),
        get(4, 60, 70, "a"),
    ],
}


@pytest.mark.parametrize("name", BAD)
def test_planted_bad_history_is_rejected(name: str) -> None:
    result = check_linearizability(BAD[name], steps_max=10_000)
    assert result.verdict is Verdict.FALSE
    assert "no order exists" in result.as_check().reason


@pytest.mark.parametrize("name", GOOD)
def test_good_history_is_accepted(name: str) -> None:
    result = check_linearizability(GOOD[name], steps_max=10_000)
    assert result.verdict is Verdict.TRUE, result.as_check().reason


def test_reason_names_key_and_operation() -> None:
    reason = check_linearizability(BAD["only one of many keys is wrong"], steps_max=10_000).as_check().reason
    assert "key bad" in reason
    assert "the get that returned None by process 2" in reason


def crowded(writers: int) -> list[Operation]:
    """Every writer beside every other, and reads that fit no order: the worst case for a search."""
    writes = [put(number, 0, 1000, f"v{number}") for number in range(writers)]
    return [*writes, get(90, 1010, 1020, "v0"), get(91, 1030, 1040, "v1")]


def test_used_up_budget_is_unknown_and_never_true() -> None:
    for history in (crowded(12), GOOD["sequential"]):
        result = check_linearizability(history, steps_max=3)
        assert result.verdict is Verdict.UNKNOWN
        assert "not decided within the budget" in result.as_check().reason


def test_a_bad_key_is_found_although_another_is_not_decided() -> None:
    history = crowded(12) + BAD["only one of many keys is wrong"]
    result = check_linearizability(history, steps_max=500)
    assert result.verdict is Verdict.FALSE
    assert {item.verdict for item in result.bad_keys} == {Verdict.FALSE, Verdict.UNKNOWN}


def test_memo_keeps_ten_indeterminate_writes_cheap() -> None:
    pending = [lost(100 + number, number, f"p{number}") for number in range(10)]
    rounds = [
        item
        for number in range(60)
        for item in (
            put(1, 100 + number * 100, 140 + number * 100, f"v{number}"),
            get(2, 150 + number * 100, 160 + number * 100, f"v{number}"),
        )
    ]
    result = check_linearizability([*pending, *rounds, get(3, 9000, 9010, None)], steps_max=1_000_000)
    assert result.verdict is Verdict.FALSE
    assert result.steps < 1_000_000


def brute_force(operations: Sequence[Operation]) -> bool:
    """Try every order of the completed operations with every choice and place of the indeterminate ones."""
    relevant = [
        item
        for item in operations
        if item.outcome is Outcome.OK or (item.outcome is Outcome.INFO and item.kind is not OperationKind.GET)
    ]
    required = {number for number, item in enumerate(relevant) if item.outcome is Outcome.OK}
    return any(_works([relevant[number] for number in order]) for order in _orders(len(relevant), required))


def _orders(count: int, required: set[int]) -> Iterator[tuple[int, ...]]:
    for length in range(len(required), count + 1):
        for order in permutations(range(count), length):
            if required.issubset(order):
                yield order


def _works(order: Sequence[Operation]) -> bool:
    value: str | None = None
    for position, item in enumerate(order):
        for later in order[position + 1 :]:
            if later.outcome is Outcome.OK and later.complete_ns < item.invoke_ns:
                return False
        legal, value = step(item, value)
        if not legal:
            return False
    return True


values = st.sampled_from(["a", "b", None])


@st.composite
def histories(draw: st.DrawFn) -> list[Operation]:
    found: list[Operation] = []
    for process in range(draw(st.integers(1, 5))):
        start = draw(st.integers(0, 12))
        end = start + draw(st.integers(0, 6))
        kind = draw(st.sampled_from(list(OperationKind)))
        outcome = draw(st.sampled_from([Outcome.OK, Outcome.OK, Outcome.INFO, Outcome.FAIL]))
        succeeded = draw(st.booleans())
        value = draw(values) if kind is OperationKind.GET else draw(st.sampled_from(["a", "b"]))
        found.append(
            operation(
                process,
                start,
                end,
                kind,
                outcome=outcome,
                value=None if kind is OperationKind.DELETE else value,
                expected=draw(values) if kind is OperationKind.CAS else None,
                succeeded=succeeded if kind in (OperationKind.CAS, OperationKind.DELETE) else None,
                found=draw(values) if kind is OperationKind.CAS and not succeeded else None,
            )
        )
    return found


@settings(max_examples=400, deadline=None, derandomize=True)
@given(histories())
def test_agrees_with_trying_every_order(history: list[Operation]) -> None:
    expected = Verdict.TRUE if brute_force(history) else Verdict.FALSE
    assert check_linearizability(history, steps_max=100_000).verdict is expected
