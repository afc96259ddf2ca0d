"""Histories: what clients asked, when, and what they were told.

A history is a list of operations. Its file form is that of Jepsen: one JSON object per line and event, in order of
time, an `invoke` followed by an `ok`, `fail` or `info` of the same process. Tools that read Jepsen histories
(Porcupine, Knossos, Elle) read it.

Rules that the recorder keeps, and on which the checkers rely:
1. a process has one operation at a time, and is retired after an indeterminate one;
2. `fail` is recorded only for what surely had no effect; whatever may have had one is `info`;
3. times come from one monotonic clock of one machine, so that real-time order is the order of times.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class OperationKind(StrEnum):
    """What was asked."""

    PUT = "put"
    GET = "get"
    CAS = "cas"
    DELETE = "delete"
    INSERT = "insert"
    """A put to a key that no other operation writes, for the durability check."""


class Outcome(StrEnum):
    """What the client was told."""

    OK = "ok"
    FAIL = "fail"
    """Surely had no effect."""
    INFO = "info"
    """May have had effect, may yet have, or may never."""


class MalformedHistory(ValueError):
    """A line of a history file is not an event, or does not fit the events before it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One operation of one process, from its invocation to what the client was told."""

    process: int
    region: str
    """Where the client runs."""
    keyspace: str
    kind: OperationKind
    key: str
    outcome: Outcome
    invoke_ns: int
    complete_ns: int
    """When the client knew the outcome; for `INFO`, when it stopped waiting. The operation may outlive that."""
    value: str | None = None
    """What a put, insert or cas writes; what a completed get read, None if the key was absent."""
    expected: str | None = None
    """What a cas compares with; None: the key must be absent."""
    succeeded: bool | None = None
    """Of a completed cas: did the comparison hold. Of a completed delete: was the key there."""
    found: str | None = None
    """What a completed cas found instead, None if the key was absent."""
    replica: str | None = None
    """The node that answered."""
    error: str | None = None
    """Class and text of the error."""
    final: bool = False
    """Part of the final reads, after all faults have ended."""

    @property
    def is_write(self) -> bool:
        """Whether the operation may change its key."""
        return self.kind is not OperationKind.GET

    @property
    def latency_ms(self) -> float:
        """From invocation to the outcome, in milliseconds."""
        return (self.complete_ns - self.invoke_ns) / 1e6


def to_lines(operations: Iterable[Operation]) -> Iterator[str]:
    """The lines of a history file, events in order of time; at equal times an invocation stands first."""
    events: list[tuple[int, int, int, Operation]] = []
    for number, operation in enumerate(operations):
        events.append((operation.invoke_ns, 0, number, operation))
        events.append((operation.complete_ns, 1, number, operation))
    events.sort(key=lambda event: event[:3])
    for index, (_, completion, _, operation) in enumerate(events):
        event = _completion(operation) if completion else _invocation(operation)
        yield json.dumps({"index": index, **event}, separators=(",", ":"))


def _invocation(operation: Operation) -> dict[str, Any]:
    event = _common(operation, "invoke", operation.invoke_ns)
    if operation.kind is not OperationKind.GET:
        event["value"] = _written(operation)
    return event


def _completion(operation: Operation) -> dict[str, Any]:
    event = _common(operation, operation.outcome.value, operation.complete_ns)
    event["value"] = operation.value if operation.kind is OperationKind.GET else _written(operation)
    optional = {
        "succeeded": operation.succeeded,
        "found": operation.found,
        "replica": operation.replica,
        "error": operation.error,
    }
    event.update({name: value for name, value in optional.items() if value is not None})
    return event


def _common(operation: Operation, event_type: str, time_ns: int) -> dict[str, Any]:
    event: dict[str, Any] = {
        "time": time_ns,
        "process": operation.process,
        "type": event_type,
        "f": operation.kind.value,
        "keyspace": operation.keyspace,
        "key": operation.key,
        "region": operation.region,
    }
    return event | {"final": True} if operation.final else event


def _written(operation: Operation) -> object:
    return [operation.expected, operation.value] if operation.kind is OperationKind.CAS else operation.value


def from_lines(lines: Iterable[str]) -> list[Operation]:
    """Read a history file, in order of completion. An invocation without completion is indeterminate.

    Raises:
        MalformedHistory: a line is no event, or a process breaks rule 1.
    """
    open_by_process: dict[int, dict[str, Any]] = {}
    operations: list[Operation] = []
    last_ns = 0
    for number, line in enumerate(lines, start=1):
        try:
            event = json.loads(line)
            process, last_ns = event["process"], event["time"]
            if event["type"] == "invoke":
                if process in open_by_process:
                    raise MalformedHistory(f"line {number}: process {process} has two operations at a time")
                open_by_process[process] = event
                continue
            operations.append(_operation(open_by_process.pop(process), event))
        except (json.JSONDecodeError, KeyError, TypeError, ValueError) as error:
            raise MalformedHistory(f"line {number}: {error}") from error
    unanswered = open_by_process.values()
    return operations + [_operation(event, event | {"type": "info", "time": last_ns}) for event in unanswered]


def _operation(invocation: dict[str, Any], completion: dict[str, Any]) -> Operation:
    kind = OperationKind(invocation["f"])
    expected, value = None, completion.get("value")
    if kind is OperationKind.CAS:
        expected, value = invocation["value"]
    return Operation(
        process=invocation["process"],
        region=invocation["region"],
        keyspace=invocation["keyspace"],
        kind=kind,
        key=invocation["key"],
        outcome=Outcome(completion["type"]),
        invoke_ns=invocation["time"],
        complete_ns=completion["time"],
        value=value,
        expected=expected,
        succeeded=completion.get("succeeded"),
        found=completion.get("found"),
        replica=completion.get("replica"),
        error=completion.get("error"),
        final=invocation.get("final", False),
    )
