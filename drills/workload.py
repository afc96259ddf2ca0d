"""The workload: open-loop clients in every region, and the record of what they were told.

Open loop: an operation starts when its time has come, whether or not earlier ones were answered, as requests from the
outside world do. A closed loop would stop asking during an outage and hide it (coordinated omission).

Every operation that starts is recorded, also one that is cancelled: it may have had effect.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from isochrone.client.results import ReadResult, WriteResult
from isochrone.drills.generator import Generator, Plan
from isochrone.drills.history import Operation, OperationKind, Outcome
from isochrone.errors import Indeterminate, IsochroneError, Rejected


class KeyValueClient(Protocol):
    """What the drill needs of the SDK's client."""

    async def put(self, key: bytes, value: bytes, *, timeout_s: float | None = None) -> WriteResult: ...

    async def get(self, key: bytes, *, timeout_s: float | None = None) -> ReadResult: ...

    async def delete(self, key: bytes, *, timeout_s: float | None = None) -> WriteResult: ...

    async def compare_and_set(
        self, key: bytes, expected: bytes | None, value: bytes | None, *, timeout_s: float | None = None
    ) -> WriteResult: ...

    async def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Answer:
    """What a client was told, in the terms of a history."""

    outcome: Outcome
    read: str | None = None
    succeeded: bool | None = None
    found: str | None = None
    replica: str | None = None
    error: str | None = None


@dataclass(slots=True)
class Recorder:
    """The history as it grows. Processes are handed out so that each has one operation at a time.

    A process is not used again in the very nanosecond in which its last operation ended, so that the events of a
    history, in order of time, alternate for each process.
    """

    now_ns: Callable[[], int]
    operations: list[Operation] = field(default_factory=list)
    in_flight: int = 0
    _idle: deque[tuple[int, int]] = field(default_factory=deque)
    """(when its last operation ended, process), the longest idle one first."""
    _processes: int = 0

    async def perform(
        self, client: KeyValueClient, region: str, plan: Plan, timeout_s: float, *, final: bool = False
    ) -> Answer:
        """Perform one operation and record it."""
        invoke_ns = self.now_ns()
        process = self._take_process(invoke_ns)
        self.in_flight += 1
        answer = Answer(Outcome.INFO, error="interrupted")
        try:
            answer = await ask(client, plan, timeout_s)
            return answer
        finally:
            self.in_flight -= 1
            complete_ns = self.now_ns()
            if answer.outcome is not Outcome.INFO:
                self._idle.append((complete_ns, process))
            plan.settle(answer.outcome, _value_after(plan, answer))
            self.operations.append(_operation(process, region, plan, answer, (invoke_ns, complete_ns), final))

    def _take_process(self, invoke_ns: int) -> int:
        if self._idle and self._idle[0][0] < invoke_ns:
            return self._idle.popleft()[1]
        self._processes += 1
        return self._processes


def _operation(
    process: int, region: str, plan: Plan, answer: Answer, times_ns: tuple[int, int], final: bool
) -> Operation:
    return Operation(
        process=process,
        region=region,
        keyspace=plan.keyspace,
        kind=plan.kind,
        key=plan.key,
        outcome=answer.outcome,
        invoke_ns=times_ns[0],
        complete_ns=times_ns[1],
        value=answer.read if plan.kind is OperationKind.GET else plan.value,
        expected=plan.expected,
        succeeded=answer.succeeded,
        found=answer.found,
        replica=answer.replica,
        error=answer.error,
        final=final,
    )


def _value_after(plan: Plan, answer: Answer) -> str | None:
    """The key's value as far as the answer tells."""
    match plan.kind:
        case OperationKind.GET:
            return answer.read
        case OperationKind.DELETE:
            return None
        case OperationKind.CAS if not answer.succeeded:
            return answer.found
        case _:
            return plan.value


async def ask(client: KeyValueClient, plan: Plan, timeout_s: float) -> Answer:
    """Perform one operation, and turn what the SDK says into the terms of a history.

    Raises:
        InvalidRequest: the workload asked for something that no state could accept.
    """
    try:
        return await _call(client, plan, timeout_s)
    except Rejected as error:
        return Answer(Outcome.FAIL, error=_text(error))
    except Indeterminate as error:
        return Answer(Outcome.INFO, error=_text(error))


async def _call(client: KeyValueClient, plan: Plan, timeout_s: float) -> Answer:
    key = plan.key.encode()
    match plan.kind:
        case OperationKind.GET:
            read = await client.get(key, timeout_s=timeout_s)
            return Answer(Outcome.OK, read=_decode(read.value), replica=read.replica)
        case OperationKind.DELETE:
            result = await client.delete(key, timeout_s=timeout_s)
            return Answer(Outcome.OK, succeeded=result.succeeded, replica=result.replica)
        case OperationKind.CAS:
            expected = None if plan.expected is None else plan.expected.encode()
            result = await client.compare_and_set(key, expected, _encode(plan.value), timeout_s=timeout_s)
            found = None if result.succeeded else _decode(result.previous)
            return Answer(Outcome.OK, succeeded=result.succeeded, found=found, replica=result.replica)
        case OperationKind.PUT | OperationKind.INSERT:
            result = await client.put(key, _encode(plan.value), timeout_s=timeout_s)
            return Answer(Outcome.OK, replica=result.replica)


def _encode(value: str | None) -> bytes:
    return (value or "").encode()


def _decode(value: bytes | None) -> str | None:
    return None if value is None else value.decode(errors="backslashreplace")


def _text(error: IsochroneError) -> str:
    return f"{type(error).__name__}: {error}"


async def run_clients(
    clients: list[tuple[KeyValueClient, Generator]], recorder: Recorder, end_s: float, timeout_s: float
) -> None:
    """Run the clients of all regions until the loop's time `end_s`, then wait for what is in flight."""
    await run_together([_run_region(client, generator, recorder, end_s, timeout_s) for client, generator in clients])


async def _run_region(
    client: KeyValueClient, generator: Generator, recorder: Recorder, end_s: float, timeout_s: float
) -> None:
    loop = asyncio.get_running_loop()
    arrival_s = loop.time()
    in_flight: list[asyncio.Task[Answer]] = []
    try:
        while (arrival_s := arrival_s + generator.gap_s()) < end_s:
            await asyncio.sleep(max(0.0, arrival_s - loop.time()))
            plan = generator.next()
            in_flight.append(asyncio.create_task(recorder.perform(client, generator.region, plan, timeout_s)))
        await asyncio.gather(*in_flight)
    finally:
        await cancel(in_flight)


async def run_together(coroutines: list[Coroutine[Any, Any, None]]) -> None:
    """Run all to their end; when one fails or the caller is cancelled, cancel the others and wait for them."""
    tasks = [asyncio.create_task(coroutine) for coroutine in coroutines]
    try:
        await asyncio.gather(*tasks)
    finally:
        await cancel(tasks)


async def cancel(tasks: Sequence[asyncio.Task[Any]]) -> None:
    """Cancel what still runs, and wait until it has ended. Its errors are of no interest: another one ended the run.

    Each task once: a second time would break off what it does about the first.
    """
    running = [task for task in tasks if not task.done()]
    for task in running:
        if not task.cancelling():
            task.cancel()
    await asyncio.gather(*running, return_exceptions=True)
