"""What the SDK says becomes what a history says; what surely failed and what may have happened are never mixed up."""

import asyncio

import pytest
from virtual_time import run_virtual

from isochrone.client.results import ReadResult, WriteResult
from isochrone.drills.generator import Plan
from isochrone.drills.history import OperationKind, Outcome
from isochrone.drills.workload import Answer, Recorder, ask
from isochrone.errors import (
    ConnectionLost,
    DeadlineExceeded,
    InvalidRequest,
    IsochroneError,
    NotLeader,
    QueueFull,
    SessionExpired,
    Unavailable,
)
from isochrone.ids import GroupId, NodeId, Revision, Timestamp

INSERT = Plan(OperationKind.INSERT, "k/", "k/1", "v")


class ScriptedClient:
    """Answers every call with one error, or, without one, as an empty store would, after `delay_s`."""

    def __init__(self, error: IsochroneError | None = None, delay_s: float = 0.0) -> None:
        self.error = error
        self.delay_s = delay_s

    async def _write(self, succeeded: bool) -> WriteResult:
        await asyncio.sleep(self.delay_s)
        if self.error is not None:
            raise self.error
        return WriteResult(
            succeeded=succeeded,
            previous=None,
            revision=Revision(1),
            timestamp=Timestamp(0),
            group=GroupId("g"),
            replica=NodeId("n"),
            session=1,
            sequence=1,
        )

    async def put(self, key: bytes, value: bytes, *, timeout_s: float | None = None) -> WriteResult:
        return await self._write(True)

    async def delete(self, key: bytes, *, timeout_s: float | None = None) -> WriteResult:
        return await self._write(False)

    async def compare_and_set(
        self, key: bytes, expected: bytes | None, value: bytes | None, *, timeout_s: float | None = None
    ) -> WriteResult:
        return await self._write(expected is None)

    async def get(self, key: bytes, *, timeout_s: float | None = None) -> ReadResult:
        await self._write(True)
        return ReadResult(
            key=key,
            value=b"\xff",
            create_revision=Revision(1),
            mod_revision=Revision(1),
            version=1,
            timestamp=Timestamp(0),
            revision=Revision(1),
            group=GroupId("g"),
            replica=NodeId("n"),
        )

    async def close(self) -> None:
        return None


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (NotLeader(GroupId("g"), None), Outcome.FAIL),
        (QueueFull("full"), Outcome.FAIL),
        (Unavailable("nobody"), Outcome.FAIL),
        (DeadlineExceeded("late"), Outcome.INFO),
        (ConnectionLost("gone"), Outcome.INFO),
        (SessionExpired("old"), Outcome.INFO),
    ],
)
def test_errors(error: IsochroneError, outcome: Outcome) -> None:
    answer = run_virtual(ask(ScriptedClient(error), INSERT, 1.0))
    assert answer.outcome is outcome
    assert answer.error == f"{type(error).__name__}: {error}"


def test_invalid_request_is_a_fault_of_the_harness() -> None:
    with pytest.raises(InvalidRequest):
        run_virtual(ask(ScriptedClient(InvalidRequest("no such keyspace")), INSERT, 1.0))


@pytest.mark.parametrize(
    ("plan", "answer"),
    [
        (INSERT, Answer(Outcome.OK, replica="n")),
        (Plan(OperationKind.GET, "k/", "k/1"), Answer(Outcome.OK, read="\\xff", replica="n")),
        (Plan(OperationKind.DELETE, "k/", "k/1"), Answer(Outcome.OK, succeeded=False, replica="n")),
        (Plan(OperationKind.CAS, "k/", "k/1", "v"), Answer(Outcome.OK, succeeded=True, replica="n")),
        (Plan(OperationKind.CAS, "k/", "k/1", "v", "w"), Answer(Outcome.OK, succeeded=False, replica="n")),
    ],
)
def test_answers(plan: Plan, answer: Answer) -> None:
    assert run_virtual(ask(ScriptedClient(), plan, 1.0)) == answer


def test_a_process_is_retired_after_an_unknown_outcome_and_reused_otherwise() -> None:
    async def run() -> list[int]:
        loop = asyncio.get_running_loop()
        recorder = Recorder(lambda: round(loop.time() * 1e9))
        for error in (None, None, DeadlineExceeded("late"), None, Unavailable("no"), None):
            await recorder.perform(ScriptedClient(error, delay_s=0.1), "r", INSERT, 1.0)
            await asyncio.sleep(0.1)
        return [operation.process for operation in recorder.operations]

    assert run_virtual(run()) == [1, 1, 1, 2, 2, 2]


def test_operations_at_one_time_are_of_different_processes() -> None:
    async def run() -> set[int]:
        loop = asyncio.get_running_loop()
        recorder = Recorder(lambda: round(loop.time() * 1e9))
        calls = (recorder.perform(ScriptedClient(delay_s=0.1), "r", INSERT, 1.0) for _ in range(5))
        await asyncio.gather(*calls)
        return {operation.process for operation in recorder.operations}

    assert run_virtual(run()) == {1, 2, 3, 4, 5}
