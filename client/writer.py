"""Writes to one keyspace: each takes effect at most once, however often it is sent.

A write takes a *place*: a session and a sequence in it. All attempts of the write carry the same place, so the group
executes one of them and answers the others with the stored result. There is one session for each keyspace. It is
opened when it is first needed, and opened anew when the group says that it has expired; writes that hold a place in
the old session finish there.

A session has a bounded number of places, and the values under way a bounded size: a burst that the stream could not
carry would break it. Beyond that writes queue, first come first served, until their deadline; the queue is bounded too.

A session whose opening was not answered may exist without being used; it expires by itself.
"""

import asyncio
import math
import random
from collections import OrderedDict
from typing import NamedTuple, final

from isochrone.client.attempts import SessionRefused
from isochrone.client.dispatch import Dispatcher
from isochrone.client.gathering import WriteCommand
from isochrone.client.results import Written
from isochrone.client.sessions import Session
from isochrone.client.tracing import current_trace
from isochrone.errors import (
    Indeterminate,
    InvalidRequest,
    QueueFull,
    Rejected,
    SessionExpired,
    Unavailable,
)
from isochrone.ids import GroupId, KeyspaceId
from isochrone.wire.commands import (
    CloseSession,
    Command,
    OpenSession,
    Operation,
    SessionResult,
    decode_result,
    encode_command,
)
from isochrone.wire.kv import value_bytes
from isochrone.wire.session import Answer

SESSION_TTL_MS = 600_000
"""Unused for so long, a session expires. Far above any deadline, so that a retry finds its session."""
QUEUE_LENGTH_MAX = 16_384
"""Most writes that wait for a place."""
UNDER_WAY_BYTES_MAX = 16 << 20
"""Bytes of values under way from which on writes queue."""
_NONCE_BYTES = 8


Place = tuple[Session, int]
"""A session and a sequence in it: what makes a write take effect once."""


class _Waiter(NamedTuple):
    """A write that waits for a place."""

    deadline: float
    size_bytes: int
    """Of the values that it carries."""


@final
class Writer:
    """The session of one keyspace and the writes in it."""

    def __init__(self, dispatcher: Dispatcher, keyspace: KeyspaceId, rng: random.Random) -> None:
        self._dispatcher = dispatcher
        self._keyspace = keyspace
        self._rng = rng
        self._loop = asyncio.get_running_loop()
        self._group = GroupId("")
        self._session: Session | None = None
        self._waiters: OrderedDict[asyncio.Future[Place], _Waiter] = OrderedDict()
        """None of the futures is done."""
        self._under_way_bytes = 0
        self._opening: asyncio.Task[None] | None = None
        self._closed = False
        self.sessions_opened = 0

    async def write(self, group: GroupId, operation: Operation, deadline: float) -> Written:
        """Get an operation executed once by the group that holds the keyspace.

        Raises:
            Rejected, InvalidRequest: surely not applied.
            Indeterminate: may have been applied.
        """
        self._group = group
        size_bytes = value_bytes(operation)
        while True:
            # If there is a place, nobody waits: `_admit` has run.
            place = self._take(size_bytes) or await self._wait(_Waiter(deadline, size_bytes))
            session, sequence = place
            try:
                call = self._dispatcher.begin(group, deadline, self._command(place, operation), Answer)
                try:
                    answer = await call.future
                finally:
                    self._dispatcher.end(call)
                return decode_result(answer.payload), group, answer.node, session.identity, sequence
            except SessionRefused:
                self._expire(session)
            except SessionExpired:
                self._expire(session)
                raise
            finally:
                self._leave(place, size_bytes)

    async def close(self, timeout_s: float) -> None:
        """Refuse the writes that wait, and let the group forget the session if it answers in time."""
        self._closed = True
        if self._opening is not None:
            self._opening.cancel()
            await asyncio.gather(self._opening, return_exceptions=True)
        self._fail(Unavailable, "the client was closed")
        session, self._session = self._session, None
        sequence = None if session is None else session.begin()
        if session is None or sequence is None:
            return
        try:
            command = self._command((session, sequence), CloseSession())
            await self._dispatcher.execute(self._group, self._loop.time() + timeout_s, command, Answer)
        except (Rejected, Indeterminate, InvalidRequest):
            return  # The session expires by itself.

    def _command(self, place: Place, operation: Operation) -> WriteCommand:
        session, sequence = place
        command = encode_command(Command(session.identity, sequence, session.acknowledged, operation))
        return WriteCommand(self._keyspace, current_trace(), command)

    # Places

    async def _wait(self, waiter: _Waiter) -> Place:
        """Take a place when there is a session, and others have left it.

        Raises:
            QueueFull: too many writes wait already.
            Unavailable: the deadline passed first, or the client was closed.
        """
        if self._closed:
            raise Unavailable("the client was closed")
        if len(self._waiters) >= QUEUE_LENGTH_MAX:
            raise QueueFull(f"{len(self._waiters)} writes to keyspace {self._keyspace!r} wait already")
        future: asyncio.Future[Place] = self._loop.create_future()
        self._waiters[future] = waiter
        self._admit()
        timer = self._loop.call_at(waiter.deadline, self._too_late, future)
        try:
            return await future
        except asyncio.CancelledError:
            if self._waiters.pop(future, None) is None and not future.cancelled() and future.exception() is None:
                self._leave(future.result(), waiter.size_bytes)  # The place came at the moment of the cancellation.
            raise
        finally:
            timer.cancel()

    def _take(self, size_bytes: int) -> Place | None:
        """A place, if there is one now."""
        session = self._session
        if session is None or self._under_way_bytes >= UNDER_WAY_BYTES_MAX:
            return None
        sequence = session.begin()
        if sequence is None:
            return None
        self._under_way_bytes += size_bytes
        return session, sequence

    def _leave(self, place: Place, size_bytes: int) -> None:
        session, sequence = place
        self._under_way_bytes -= size_bytes
        session.end(sequence)
        if self._waiters:
            self._admit()

    def _admit(self) -> None:
        """Give places to those that wait, in order; open a session if there is none."""
        while self._waiters:
            future, waiter = next(iter(self._waiters.items()))
            if not future.done():
                place = self._take(waiter.size_bytes)
                if place is None:
                    break
                future.set_result(place)
            del self._waiters[future]
        if self._waiters and self._session is None and self._opening is None:
            self._opening = self._loop.create_task(self._open())

    def _too_late(self, future: asyncio.Future[Place]) -> None:
        if self._waiters.pop(future, None) is not None and not future.done():
            why = "it opened no session; has it a leader?" if self._session is None else "no place in the session"
            text = f"group {self._group} could not take this write in the time given ({why}); nothing was sent"
            future.set_exception(Unavailable(text))

    def _expire(self, session: Session) -> None:
        """The group does not know the session: use it no more."""
        if self._session is session:
            self._session = None

    # The session

    async def _open(self) -> None:
        """Open a session for those that wait; every round ends with one, or with fewer that wait."""
        try:
            while self._waiters and self._session is None:
                deadline = max(waiter.deadline for waiter in self._waiters.values())
                try:
                    await self._open_until(deadline)
                except (Unavailable, Indeterminate) as error:
                    self._fail(Unavailable, str(error), deadline)
                except (Rejected, InvalidRequest) as error:
                    self._fail(type(error), str(error), deadline)
        finally:
            self._opening = None
        self._admit()

    async def _open_until(self, deadline: float) -> None:
        command = encode_command(Command(0, 0, 0, OpenSession(self._rng.randbytes(_NONCE_BYTES), SESSION_TTL_MS)))
        write = WriteCommand(self._keyspace, b"", command)
        answer = await self._dispatcher.execute(self._group, deadline, write, Answer)
        opened = decode_result(answer.payload)
        if not isinstance(opened, SessionResult):
            raise Indeterminate(f"{answer.node} opened no session but answered {type(opened).__name__}")
        self._session = Session(opened.session)
        self.sessions_opened += 1

    def _fail(self, error: type[Exception], text: str, deadline: float = math.inf) -> None:
        """Fail those that wait no longer than until `deadline`."""
        for future in [future for future, waiter in self._waiters.items() if waiter.deadline <= deadline]:
            del self._waiters[future]
            if not future.done():
                future.set_exception(error(f"no session of keyspace {self._keyspace!r} could be opened: {text}"))
