"""Histories survive the way through their file form, which is Jepsen's."""

import json

import pytest

from isochrone.drills.history import MalformedHistory, Operation, OperationKind, Outcome, from_lines, to_lines


def operation(**fields: object) -> Operation:
    defaults = {
        "process": 1,
        "region": "us-east-1",
        "keyspace": "orders/",
        "kind": OperationKind.PUT,
        "key": "orders/1",
        "outcome": Outcome.OK,
        "invoke_ns": 10,
        "complete_ns": 20,
    }
    return Operation(**(defaults | fields))  # type: ignore[arg-type]


EXAMPLES = [
    operation(value="a", replica="n1"),
    operation(process=2, kind=OperationKind.GET, value=None, invoke_ns=12, complete_ns=30),
    operation(process=3, kind=OperationKind.CAS, expected="a", value="b", succeeded=False, found="c", complete_ns=40),
    operation(process=4, kind=OperationKind.DELETE, succeeded=True, complete_ns=50),
    operation(process=5, kind=OperationKind.INSERT, value="z", outcome=Outcome.INFO, error="late", complete_ns=60),
    operation(process=6, outcome=Outcome.FAIL, value="q", error="NotLeader: no", complete_ns=70),
    operation(process=7, kind=OperationKind.GET, value="z", final=True, complete_ns=80),
]


def test_round_trip() -> None:
    assert from_lines(to_lines(EXAMPLES)) == EXAMPLES


def test_events_are_in_order_of_time_and_numbered() -> None:
    events = [json.loads(line) for line in to_lines(reversed(EXAMPLES))]
    assert [event["index"] for event in events] == list(range(2 * len(EXAMPLES)))
    assert [event["time"] for event in events] == sorted(event["time"] for event in events)


def test_jepsen_form_of_a_cas() -> None:
    invoke, complete = (json.loads(line) for line in to_lines([EXAMPLES[2]]))
    assert (invoke["type"], invoke["f"], invoke["value"]) == ("invoke", "cas", ["a", "b"])
    assert (complete["type"], complete["value"], complete["succeeded"]) == ("ok", ["a", "b"], False)


def test_invocation_without_completion_is_indeterminate() -> None:
    lines = list(to_lines([operation(value="a")]))
    assert from_lines(lines[:1]) == [operation(value="a", outcome=Outcome.INFO, complete_ns=10)]


@pytest.mark.parametrize("line", ["no json", "{}", '{"type":"ok","process":9,"time":1}', '{"process":1,"time":2}'])
def test_malformed_line(line: str) -> None:
    with pytest.raises(MalformedHistory, match="line 1"):
        from_lines([line])


def test_two_operations_of_one_process_at_a_time() -> None:
    invocation = next(iter(to_lines([operation(value="a")])))
    with pytest.raises(MalformedHistory, match=r"line 2: .*two operations"):
        from_lines([invocation, invocation])
