"""The node's side of session streams: one for each client that is connected.

A client opens the stream with `ClientHello`, the node answers `NodeHello`; after that both speak at will. Answers go
through an `Outbox`: they batch naturally and are shaped from the node's zone to the client's. A client that stops
reading is cut off when `SESSION_BYTES_MAX` wait for it. What comes in is bounded by gRPC's flow control: a stream's
next message is read when the handler has taken the one before. After every few messages the others get their turn.
Clients say something now and then (`client/links.py`); one that does not is gone, or not one of ours, and is cut off.
"""

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol, final

import grpc
import grpc.aio

from isochrone.errors import InvariantViolation
from isochrone.ids import ZoneId
from isochrone.wire.codec import MalformedFrame
from isochrone.wire.handshake import client_refusal
from isochrone.wire.session import (
    ClientHello,
    NodeHello,
    SessionMessage,
    decode_session_frames,
    encode_session_frame,
    session_message_bytes,
)
from isochrone.wire.shaper_os import Shaper
from isochrone.wire.streams_grpc import HANDSHAKE_TIMEOUT_S, Outbox, run_until_first

logger = logging.getLogger(__name__)

SESSION_BYTES_MAX = 32 << 20
"""Most bytes that wait for one client."""
SESSIONS_MAX = 10_000
"""Most sessions at a time; whoever comes then is refused."""
IDLE_TIMEOUT_S = 300.0
"""A session from which nothing came for so long is ended."""
MESSAGES_AT_A_TIME = 256
"""So many messages of one session are handled before others get their turn."""
_ABORT_TIMEOUT_S = 1.0


@final
class Session:
    """One connected client."""

    def __init__(self, hello: ClientHello, node: NodeHello, shaper: Shaper) -> None:
        self.client = hello.client
        self.outbox: Outbox[SessionMessage] = Outbox(
            encode=encode_session_frame,
            size_of=session_message_bytes,
            ship=partial(shaper.submit, ZoneId(node.zone), ZoneId(hello.zone)),
            bytes_max=SESSION_BYTES_MAX,
            overflow=self.overflow,
        )
        self.given_up = asyncio.Event()
        """Set when the client reads too slowly or says nothing; ends the stream."""
        self.reason = ""
        """Why it was given up."""

    def send(self, message: SessionMessage) -> None:
        """Send a message. Never blocks; messages keep their order. What is sent to a session that ends is dropped."""
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

    def give_up(self, reason: str) -> None:
        """End the session; nothing more is sent but the reason."""
        self.outbox.clear()
        self.reason = reason
        self.given_up.set()


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

    def __init__(self, node: NodeHello, shaper: Shaper, handler: SessionHandler) -> None:
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

    async def serve(self, _: object, context: Any) -> None:
        """Handler of a session stream."""
        session = Session(await self._accept_stream(context), self._node, self._shaper)
        answers = _Answers(context)
        self._open += 1
        self._opened += 1
        session.send(self._node)
        self._handler.opened(session)
        try:
            await run_until_first(
                self._read(session, context),
                session.outbox.write_to(answers.write),
                session.given_up.wait(),
            )
        except MalformedFrame as error:
            self._malformed += 1
            logger.warning("ending the session of client %s: %s", session.client, error)
            await answers.end(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        except grpc.aio.BaseError:
            # The client went away while an answer was being written.
            return
        finally:
            self._open -= 1
            self._handler.closed(session)
        if session.given_up.is_set():
            await self._give_up(session, answers)

    async def _read(self, session: Session, context: Any) -> None:
        while (data := await self._next(session, context)) is not grpc.aio.EOF:
            for number, message in enumerate(decode_session_frames(data)):
                if number % MESSAGES_AT_A_TIME == MESSAGES_AT_A_TIME - 1:
                    await asyncio.sleep(0)
                self._handler.received(session, message)
                if session.backlog_bytes > SESSION_BYTES_MAX:
                    session.overflow()
                    return

    async def _next(self, session: Session, context: Any) -> Any:
        """What the client says next; its end, too, if it has said nothing for too long."""
        try:
            async with asyncio.timeout(IDLE_TIMEOUT_S):
                return await context.read()
        except TimeoutError:
            session.give_up(f"has said nothing for {IDLE_TIMEOUT_S:g} s")
            return grpc.aio.EOF

    async def _accept_stream(self, context: Any) -> ClientHello:
        """Read and judge the hello; ends the stream unless the client may be served."""
        if self._open >= SESSIONS_MAX:
            logger.warning("refused a session: %d are open", self._open)
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, f"{self._open} sessions are open already")
        try:
            async with asyncio.timeout(HANDSHAKE_TIMEOUT_S):
                data = await context.read()
            match decode_session_frames(b"" if data is grpc.aio.EOF else data):
                case [ClientHello() as hello]:
                    refusal = client_refusal(hello)
                    if refusal is None:
                        return hello
                case _:
                    refusal = "the first frame of a session is not a hello"
        except TimeoutError:
            refusal = f"no hello within {HANDSHAKE_TIMEOUT_S:g} s"
        except MalformedFrame as error:
            refusal = str(error)
        logger.warning("refused a session: %s", refusal)
        await context.abort(grpc.StatusCode.FAILED_PRECONDITION, refusal)
        raise InvariantViolation("gRPC went on after an abort")

    async def _give_up(self, session: Session, answers: "_Answers") -> None:
        """End the stream of a client; the status may have to wait behind what it has not read."""
        self._given_up += 1
        text = f"client {session.client} {session.reason}"
        logger.warning(text)
        await answers.end(grpc.StatusCode.RESOURCE_EXHAUSTED, text)


@final
class _Answers:
    """The way of a stream to its client.

    gRPC takes no status while it writes: an `abort` beside a write, also beside one that was cancelled, fails, and the
    client never hears of an end. So a write goes on when its writer is cancelled, and the status waits for it.
    """

    def __init__(self, context: Any) -> None:
        self._context = context
        self._under_way: asyncio.Future[None] | None = None

    async def write(self, data: bytes) -> None:
        """Write a message. Raises what gRPC raises."""
        self._under_way = asyncio.ensure_future(self._context.write(data))
        await asyncio.shield(self._under_way)

    async def end(self, status: grpc.StatusCode, text: str) -> None:
        """End the stream with a status, if the client takes what is being written soon enough to be told.

        Raises:
            AbortError: the stream has ended; gRPC wants to see it.
        """
        try:
            async with asyncio.timeout(_ABORT_TIMEOUT_S):
                if self._under_way is not None:
                    await self._under_way
                await self._context.abort(status, text)
        except grpc.aio.AbortError:
            raise
        except (TimeoutError, grpc.aio.BaseError):
            return  # it cannot even be told
