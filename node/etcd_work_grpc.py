"""Calls of etcd's API that take more than one question: each is a task, which ends with its answer or with the client.

They are served as streams, also those with one request and one answer: only streams are told that the client has gone.
"""

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import final

from google.protobuf.message import Message

from isochrone.errors import IsochroneError
from isochrone.node.etcd_calls_grpc import MALFORMED, fail
from isochrone.wire.etcd.errors import Status, status_of
from isochrone.wire.http2.calls import Call, StreamMethod

FAULT = Status("INTERNAL", "isochrone: a fault of this node; its log has more")
Begin = Callable[[Call, bytes], Coroutine[None, None, Message | None] | None]
"""What is to be done for a request: work that returns the answer, or None if it has sent all itself. None instead of
work: the call was refused."""


class Refused(Exception):
    """The work ends with an error of etcd's."""

    def __init__(self, status: Status) -> None:
        super().__init__(status.text)
        self.status = status


def working(begin: Begin) -> StreamMethod:
    """A method whose calls are such work."""
    return StreamMethod(partial(_Work, begin))


@final
class _Work:
    """One call."""

    def __init__(self, begin: Begin, call: Call) -> None:
        self._begin = begin
        self._call = call
        self._task: asyncio.Task[None] | None = None

    def message(self, message: bytes) -> None:
        """See `StreamHandler`. There is one message."""
        work = self._begin(self._call, message) if self._task is None else None
        if work is not None:
            self._task = asyncio.get_running_loop().create_task(self._run(work))
            # A client may be gone before its task begins; then nobody else would end the work.
            self._task.add_done_callback(lambda _: work.close())

    async def _run(self, work: Coroutine[None, None, Message | None]) -> None:
        try:
            answer = await work
        except Refused as refused:
            fail(self._call, refused.status)
        except IsochroneError as error:
            fail(self._call, status_of(error))
        except Exception:  # a fault of ours, which the loop reports: the client shall not wait for it
            fail(self._call, FAULT)
            raise
        else:
            if answer is not None:
                self._call.send(answer.SerializeToString())
            self._call.finish()

    def ended(self) -> None:
        """See `StreamHandler`. The client waits for the answer, unless it has not asked."""
        if self._task is None:
            fail(self._call, MALFORMED)  # without effect on a call that was refused

    def cancelled(self) -> None:
        """See `StreamHandler`."""
        if self._task is not None:
            self._task.cancel()
