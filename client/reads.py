"""Reads: those that begin in one turn of the loop travel together, and are answered together from one state.

A request costs the client, the stream and the node far more than a query does. So callers only add their query to those
of this turn and wait; when the turn is over each batch becomes one call of the dispatcher, with all that it does to get
an answer. What a batch has in common is the group, the keyspace, the timeout and who may answer; its deadline is that
of its last query, so nobody's time is cut short, or exceeded by more than a turn of the loop.

A query has an error of its own, or shares that of its batch. A node answers as many queries as fit into a message; the
rest are asked for again.
"""

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple, final

from isochrone.client.attempts import told_error
from isochrone.client.dispatch import Dispatcher
from isochrone.client.routing import Route
from isochrone.errors import Indeterminate
from isochrone.ids import GroupId, KeyspaceId, NodeId
from isochrone.wire.commands import Query, check_answerable_anywhere, encode_query
from isochrone.wire.session import QUERIES_MAX, ReadsAnswer, ReadsRequest, Refusal

QUERIES_BYTES_MAX = 1 << 20
"""Most bytes of the queries of one request, if it has more than one."""


class Found(NamedTuple):
    """The answer to one query."""

    payload: bytes
    """An encoded `commands.Result`."""
    replica: NodeId
    age_s: float | None
    """How old it was at most when the caller's request was answered; see `Queried.age_s`."""


class _Kind(NamedTuple):
    """What the queries of a batch have in common."""

    group: GroupId
    keyspace: KeyspaceId
    timeout_s: float
    applied: bool


class _Asked(NamedTuple):
    """One query, and who waits for it."""

    query: bytes
    deadline: float
    answer: "asyncio.Future[Found]"


@final
class Reads:
    """The reads of one client."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher
        self._loop = asyncio.get_running_loop()
        self._gathered: dict[_Kind, list[_Asked]] = {}
        self._tasks: dict[asyncio.Task[None], None] = {}

    def ask(self, route: Route, query: Query, timeout_s: float, *, applied: bool) -> "asyncio.Future[Found]":
        """Ask a query that waits for nothing: the leader, or, if `applied`, the nearest replica.

        What is awaited raises as `Dispatcher.execute` does.

        Raises:
            InvalidRequest: only the leader can answer it. A node would refuse all that travels with it, too.
        """
        check_answerable_anywhere((query,))
        answer: asyncio.Future[Found] = self._loop.create_future()
        if not self._gathered:
            self._loop.call_soon(self._send)
        kind = _Kind(route.group, route.keyspace, timeout_s, applied)
        asked = _Asked(encode_query(query), self._loop.time() + timeout_s, answer)
        together = self._gathered.get(kind)
        if together is None:
            self._gathered[kind] = [asked]
        else:
            together.append(asked)
        return answer

    def _send(self) -> None:
        gathered, self._gathered = self._gathered, {}
        for kind, together in gathered.items():
            begin, size_bytes = 0, 0
            for place, asked in enumerate(together):
                size_bytes += len(asked.query)
                if place > begin and (size_bytes > QUERIES_BYTES_MAX or place == begin + QUERIES_MAX):
                    self._start(kind, together[begin:place])
                    begin, size_bytes = place, len(asked.query)
            self._start(kind, together[begin:])

    def _start(self, kind: _Kind, together: list[_Asked]) -> None:
        task = self._loop.create_task(self._run(kind, together))
        self._tasks[task] = None
        task.add_done_callback(self._tasks.pop)

    async def _run(self, kind: _Kind, together: Sequence[_Asked]) -> None:
        try:
            while together:
                told = await self._ask(kind, together)
                together = together[told:]
        except Exception as error:  # Whatever it is: nobody else would tell those who wait.
            left = [asked.answer for asked in together if not asked.answer.done()]
            for answer in left:
                answer.set_exception(error)
            self._count(error, len(left) - 1)  # the dispatcher has counted the request

    async def _ask(self, kind: _Kind, together: Sequence[_Asked]) -> int:
        """Ask once. Returns how many of the queries were answered, or refused for reasons of their own."""
        make = partial(_request, kind, tuple([asked.query for asked in together]))
        began = self._loop.time()
        deadline = together[-1].deadline
        answer = await self._dispatcher.execute(kind.group, deadline, make, ReadsAnswer, anywhere=kind.applied)
        if len(answer.payloads) > len(together):
            raise Indeterminate(f"{answer.node} answered what was not asked")
        # It has grown older on its way.
        age_s = None if answer.age_ms is None else answer.age_ms / 1000 + self._loop.time() - began
        failed = {place: (error, text) for place, error, text in answer.errors}
        for place, payload in enumerate(answer.payloads):
            waiting = together[place].answer
            if waiting.done():
                continue  # whoever asked was cancelled
            if place in failed:
                error = told_error(kind.group, Refusal(0, answer.node, *failed[place], None))
                waiting.set_exception(error)
                self._count(error, 1)
            else:
                waiting.set_result(Found(payload, answer.node, age_s))
        return len(answer.payloads)

    def _count(self, error: Exception, calls: int) -> None:
        """Calls ended with an error."""
        if calls > 0:
            self._dispatcher.errors[type(error).__name__] += calls


def _request(kind: _Kind, queries: tuple[bytes, ...], request: int, timeout_ms: int) -> ReadsRequest:
    return ReadsRequest(request, kind.group, kind.keyspace, timeout_ms, kind.applied, queries)
