"""The node's side of session streams: one for each client that is connected.

A client opens the stream with `ClientHello`, the node answers `NodeHello`; after that both speak at will. Answers go
through an `Outbox`: they batch naturally and are shaped from the node's zone to the client's. A client that stops
reading is cut off when `SESSION_BYTES_MAX` wait for it, or earlier, when the node keeps too much for all (`budget`).
After every few messages of a client the others get their turn; meanwhile its stream rests, so that what waits to be
handled is bounded by the stream's window. Clients say something now and then (`client/links.py`); one that does not is
gone, or not one of ours, and is cut off.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Protocol, final

from isochrone.ids import ZoneId
from isochrone.wire.budget import Budget, Share
from isochrone.wire.codec import MalformedFrame
from isochrone.wire.handshake import client_refusal
from isochrone.wire.http2.calls import FAILED_PRECONDITION, INVALID_ARGUMENT, RESOURCE_EXHAUSTED, Call, StreamMethod
from isochrone.wire.session import ClientHello, NodeHello, SessionMessage
from isochrone.wire.session_codec import decode_session_frames, encode_session_frame, session_message_bytes
from isochrone.wire.shaper_os import Shaper
from isochrone.wire.streams_grpc import HANDSHAKE_TIMEOUT_S, Outbox

logger = logging.getLogger(__name__)

SESSION_BYTES_MAX = 32 << 20
"""Most bytes that wait for one client."""
SESSIONS_MAX = 10_000
"""Most sessions at a time; whoever comes then is refused."""
IDLE_TIMEOUT_S = 300.0
"""A session from which nothing came for so long is ended."""
MESSAGES_AT_A_TIME = 256
"""So many messages of one session are handled before others get their turn."""
MESSAGE_BYTES = 256
"""As much a message counts that waits for its turn. There can be many of small ones only."""
_ABORT_TIMEOUT_S = 1.0
"""So long a client that is cut off has to take the reason; it may have to wait behind what the client has not read."""


@final
class Session:
    """One connected client."""

    def __init__(self, hello: ClientHello, node: NodeHello, shaper: Shaper, budget: Budget) -> None:
        self.client = hello.client
        self._unsent = Share(budget, self._cut_off)
        self.untaken = Share(budget, self._cut_off)
        """What the client has said and was not handled yet."""
        self.outbox: Outbox[SessionMessage] = Outbox(
            encode=encode_session_frame,
            size_of=session_message_bytes,
            ship=partial(shaper.submit, ZoneId(node.zone), ZoneId(hello.zone)),
            bytes_max=SESSION_BYTES_MAX,
            overflow=self.overflow,
            kept=self._unsent.set,
        )
        self._is_over = False
        self.reason = ""
        """Why it was given up: the client reads too slowly, or says nothing."""
        self.when_given_up: Callable[[], object] = _nothing
        """Called once."""

    def send(self, message: SessionMessage) -> None:
        """Send a message. Never blocks; messages keep their order. What is sent to a session that ends is dropped."""
        if not self._is_over:
            self.outbox.put((message,))

    @property
    def backlog_bytes(self) -> int:
        """About how many bytes wait for the client; beyond `SESSION_BYTES_MAX` it is cut off."""
        return self.outbox.backlog_bytes

    def call_when_drained(self, resume: Callable[[], None]) -> None:
        """Call back once, when little waits for the client after some of it has gone out. The last caller counts."""
        self.outbox.when_drained = resume

    def overflow(self) -> None:
        """Too much waits for the client: end the session."""
        self.give_up(f"reads too slowly: more than {SESSION_BYTES_MAX} bytes wait for it")

    def _cut_off(self) -> None:
        self.give_up("makes the node keep most, and it keeps too much for all")

    def ended(self) -> None:
        """The stream is over. Whoever answers the client yet may hold on to this session, but it keeps nothing."""
        self._is_over = True
        self.outbox.close()
        self.outbox.clear()
        self._unsent.end()
        self.untaken.end()

    def give_up(self, reason: str) -> None:
        """End the session soon; nothing more is sent but the reason."""
        self.outbox.clear()
        self.outbox.close()
        if not self.reason:
            self.reason = reason
            self.when_given_up()


class SessionHandler(Protocol):
    """What serves the sessions. Called in the loop's thread; must not block and must not raise."""

    def opened(self, session: Session) -> None:
        """A client has connected. Called once, before anything else of the session."""

    def received(self, session: Session, message: SessionMessage) -> None:
        """The client has sent a message; messages come in its order."""

    def closed(self, session: Session) -> None:
        """The stream has ended, for whatever reason. Called once, after everything else of the session."""


@final
class SessionService:
    """Takes session streams for a `SessionHandler`."""

    def __init__(self, node: NodeHello, shaper: Shaper, handler: SessionHandler, budget: Budget) -> None:
        self._budget = budget
        self._node = node
        self._shaper = shaper
        self._handler = handler
        self._open = 0
        self._opened = 0
        self._malformed = 0
        self._given_up = 0

    def counters(self) -> dict[str, int]:
        """Sessions open now, opened since the start, and ended for a fault of the client."""
        return {
            "sessions_open": self._open,
            "sessions_opened": self._opened,
            "sessions_malformed": self._malformed,
            "sessions_given_up": self._given_up,
        }

    def method(self) -> StreamMethod:
        """The one method of the service."""
        return StreamMethod(self._stream)

    def _stream(self, call: Call) -> "_SessionStream":
        stream = _SessionStream(self, call)
        if self._open >= SESSIONS_MAX:
            stream.refuse(RESOURCE_EXHAUSTED, f"{self._open} sessions are open already")
        return stream

    # For the streams.

    def opened(self, hello: ClientHello) -> Session:
        """A client has greeted."""
        session = Session(hello, self._node, self._shaper, self._budget)
        self._open += 1
        self._opened += 1
        session.send(self._node)
        self._handler.opened(session)
        return session

    def received(self, session: Session, message: SessionMessage) -> None:
        """A client has said something."""
        self._handler.received(session, message)

    def closed(self, session: Session, *, malformed: bool = False) -> None:
        """The stream has ended."""
        self._open -= 1
        self._malformed += malformed
        self._given_up += bool(session.reason)
        self._handler.closed(session)


@final
class _SessionStream:
    """The stream of one client, from its first byte to its end. A `StreamHandler`."""

    __slots__ = ("_call", "_heard_at", "_loop", "_over", "_service", "_session", "_timer", "_untaken")

    def __init__(self, service: SessionService, call: Call) -> None:
        self._service = service
        self._call = call
        self._loop = asyncio.get_running_loop()
        self._session: Session | None = None
        self._untaken: deque[SessionMessage] = deque()
        """What the client has said and the others' turns came before."""
        self._heard_at = 0.0
        self._over = False
        no_hello = f"no hello within {HANDSHAKE_TIMEOUT_S:g} s"
        self._timer = self._loop.call_later(HANDSHAKE_TIMEOUT_S, self.refuse, FAILED_PRECONDITION, no_hello)

    def refuse(self, code: int, reason: str) -> None:
        """Do not serve the client."""
        logger.warning("refused a session: %s", reason)
        self._over = True
        self._timer.cancel()
        self._call.fail(code, reason)

    def message(self, message: bytes) -> None:
        """See `StreamHandler`."""
        if self._over:
            return
        self._heard_at = self._loop.time()
        session = self._session
        try:
            messages = decode_session_frames(message)
        except MalformedFrame as error:
            if session is None:
                self.refuse(FAILED_PRECONDITION, str(error))
                return
            logger.warning("ending the session of client %s: %s", session.client, error)
            self._close(malformed=True)
            self._call.fail(INVALID_ARGUMENT, str(error))
            return
        if session is None:
            self._greet(messages)
        elif self._untaken:
            self._untaken.extend(messages)
            session.untaken.set(MESSAGE_BYTES * len(self._untaken))
        else:
            self._untaken = deque(messages)
            self._take(session)

    def ended(self) -> None:
        """See `StreamHandler`."""
        if self._session is None and not self._over:
            self.refuse(FAILED_PRECONDITION, "the first frame of a session is not a hello")
        self._close()
        self._call.finish()

    def cancelled(self) -> None:
        """See `StreamHandler`."""
        self._close()

    def _greet(self, messages: list[SessionMessage]) -> None:
        match messages:
            case [ClientHello() as hello]:
                refusal = client_refusal(hello)
            case _:
                refusal = "the first frame of a session is not a hello"
        if refusal is not None:
            self.refuse(FAILED_PRECONDITION, refusal)
            return
        self._timer.cancel()
        self._timer = self._loop.call_later(IDLE_TIMEOUT_S, self._check_idle)
        session = self._session = self._service.opened(hello)
        session.when_given_up = partial(self._loop.call_soon, self._give_up)
        session.outbox.open(self._call)

    def _take(self, session: Session) -> None:
        """Handle what the client has said, some of it if there is much."""
        for _ in range(min(MESSAGES_AT_A_TIME, len(self._untaken))):
            self._service.received(session, self._untaken.popleft())
            if session.backlog_bytes > SESSION_BYTES_MAX:
                session.overflow()
            if self._over or session.reason:
                self._untaken.clear()
                break
        if self._untaken:
            self._call.rest()
            self._loop.call_soon(self._go_on)
        if self._untaken or session.untaken.kept_bytes:
            session.untaken.set(MESSAGE_BYTES * len(self._untaken))

    def _go_on(self) -> None:
        if self._session is None or self._over or self._session.reason:
            return
        self._take(self._session)
        if not self._untaken:
            self._call.go_on()

    def _check_idle(self) -> None:
        ends_at = self._heard_at + IDLE_TIMEOUT_S
        if self._loop.time() < ends_at:
            self._timer = self._loop.call_at(ends_at, self._check_idle)
        elif self._session is not None:
            self._session.give_up(f"has said nothing for {IDLE_TIMEOUT_S:g} s")

    def _give_up(self) -> None:
        """End the stream of a client that is cut off."""
        if self._session is None or self._over:
            return
        text = f"client {self._session.client} {self._session.reason}"
        logger.warning(text)
        self._close()
        self._call.fail(RESOURCE_EXHAUSTED, text)
        self._loop.call_later(_ABORT_TIMEOUT_S, self._call.reset)

    def _close(self, *, malformed: bool = False) -> None:
        """The session is over; once."""
        self._timer.cancel()
        if self._over:
            return
        self._over = True
        self._untaken.clear()
        if self._session is not None:
            self._session.ended()
            self._service.closed(self._session, malformed=malformed)


def _nothing() -> None:
    """Nobody is to be told."""
