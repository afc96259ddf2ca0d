"""How a node ends a session stream beside a write of its own, with a context as strict as gRPC's."""

import asyncio

import grpc
import grpc.aio
import pytest
from virtual_time import run_virtual

from isochrone.wire.sessions_grpc import _Answers


class Context:
    """Takes no status while a write is under way, as gRPC."""

    def __init__(self) -> None:
        self.taken = asyncio.Event()
        self.writing = False
        self.ended: tuple[grpc.StatusCode, str] | None = None

    async def write(self, data: bytes) -> None:
        self.writing = True
        await self.taken.wait()
        self.writing = False

    async def abort(self, status: grpc.StatusCode, text: str) -> None:
        if self.writing:
            raise grpc.aio.InternalError("too many operations")
        self.ended = (status, text)
        raise grpc.aio.AbortError(text)


def test_a_status_waits_for_the_write_whose_writer_was_cancelled() -> None:
    async def scenario() -> None:
        context = Context()
        answers = _Answers(context)
        writer = asyncio.create_task(answers.write(b"answer"))
        await asyncio.sleep(0)
        writer.cancel()
        await asyncio.gather(writer, return_exceptions=True)
        asyncio.get_running_loop().call_later(0.5, context.taken.set)
        with pytest.raises(grpc.aio.AbortError):
            await answers.end(grpc.StatusCode.INVALID_ARGUMENT, "malformed")
        assert context.ended == (grpc.StatusCode.INVALID_ARGUMENT, "malformed")

    run_virtual(scenario())


def test_nobody_waits_for_a_client_that_takes_nothing() -> None:
    async def scenario() -> None:
        context = Context()
        answers = _Answers(context)
        writer = asyncio.create_task(answers.write(b"answer"))
        await asyncio.sleep(0)
        writer.cancel()
        await asyncio.gather(writer, return_exceptions=True)
        await answers.end(grpc.StatusCode.RESOURCE_EXHAUSTED, "reads too slowly")
        assert context.ended is None

    run_virtual(scenario())
