"""Keeps streams to nodes open, and tells when one goes silent.

A *link* is the client's standing wish to be connected to one address. It connects, greets, asks for the directory, and
when the stream ends it connects again after a jittered delay that doubles with every failure.

**Signs of life.** A cut network loses frames without a reset, so a stream is trusted only as long as it is heard. Every
`TICK_S` a link sends a `Ping` if calls are under way, every `IDLE_PING_S` otherwise. After `PINGS_UNANSWERED_MAX`
of them in silence the stream is given up. A node answers a ping with its view of the leaders too, which makes
good a push that was lost.

`RoundTrip` estimates how long a node takes to answer, from pings and from calls that were sent once (an answer to a
repeated call does not say which attempt it belongs to).

Everything here runs in one event loop. Callbacks of a stream that was given up are ignored.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol, final

from isochrone.client.connection import Connection, Connector
from isochrone.errors import InvalidRequest, IsochroneError
from isochrone.ids import ClusterId, NodeId
from isochrone.wire.session import ClientHello, DirectoryRequest, DirectoryResponse, Ping, Pong, SessionMessage

logger = logging.getLogger(__name__)

TICK_S = 1.0
IDLE_PING_S = 5.0
PINGS_UNANSWERED_MAX = 3
CONNECT_TIMEOUT_S = 3.0
RETRY_FIRST_S = 0.05
RETRY_LAST_S = 1.0
PATIENCE_MIN_S = 1.0
"""Shortest time after which a request without an answer is sent again."""


class LinkEvents(Protocol):
    """Who is told what happens on links."""

    @property
    def busy(self) -> bool:
        """Whether calls are under way."""

    def link_up(self, link: "Link", node: NodeId) -> None:
        """A stream to `node` is open."""

    def link_down(self, link: "Link", node: NodeId) -> None:
        """The stream to `node` is gone; what was sent may or may not have arrived."""

    def link_received(self, link: "Link", node: NodeId, message: SessionMessage) -> None:
        """A message of `node` came, other than `Pong`."""


@dataclass(slots=True)
class RoundTrip:
    """Smoothed time from a request to its answer, in seconds."""

    smoothed_s: float | None = None
    patience_s: float = PATIENCE_MIN_S
    """How long to wait for an answer before sending again."""

    def record(self, sample_s: float) -> None:
        """Take a measurement in: an eighth of the weight, as for TCP (RFC 6298)."""
        self.smoothed_s = sample_s if self.smoothed_s is None else 0.875 * self.smoothed_s + 0.125 * sample_s
        self.patience_s = max(PATIENCE_MIN_S, 4 * self.smoothed_s)


class _Stream:
    """One stream of a link. A link that has given a stream up no longer listens to it."""

    __slots__ = ("connection", "early", "ended", "reason")

    def __init__(self) -> None:
        self.connection: Connection | None = None
        self.early: list[SessionMessage] = []
        """Messages that came before the connector returned."""
        self.ended = False
        """It ended before the connector returned."""
        self.reason: Exception | None = None


@final
class Link:
    """A standing connection to one address."""

    def __init__(
        self,
        address: str,
        expected: NodeId | None,
        *,
        connector: Connector,
        hello: ClientHello,
        events: LinkEvents,
        rng: random.Random,
        requests: Iterator[int],
        admit: Callable[[ClusterId], bool],
    ) -> None:
        """Start to connect.

        Args:
            address: where the node listens.
            expected: the node that must answer there; None if any may.
            connector: opens streams.
            hello: how this client greets.
            events: who is told.
            rng: for the jitter of delays.
            requests: gives request numbers that are unique in this client.
            admit: tells whether a cluster is the one that this client talks to.
        """
        self.address = address
        self.round_trip = RoundTrip()
        self.opened = 0
        """How often a stream was opened."""
        self.problem: Exception | None = None
        """Why the last attempt to connect failed or the last stream ended."""
        self._expected = expected
        self._connector = connector
        self._hello = hello
        self._events = events
        self._rng = rng
        self._requests = requests
        self._admit = admit
        self._loop = asyncio.get_running_loop()
        self._stream: _Stream | None = None
        self._up = False
        self._retry_s = RETRY_FIRST_S
        self._timer: asyncio.TimerHandle | None = None
        self._closing: list[asyncio.Task[None]] = []
        self._closed = False
        self._ping = 0
        self._pinged_at = 0.0
        """Number and time of the latest ping."""
        self._pings_unanswered = 0
        """Pings since the last sign of life."""
        self._directory_known = False
        self._connecting: asyncio.Task[None] | None = self._loop.create_task(self._connect())

    def send(self, message: SessionMessage) -> None:
        """Send on the open stream; without one the message vanishes."""
        if self._stream is not None and self._stream.connection is not None:
            self._stream.connection.send(message)

    async def close(self) -> None:
        """End the stream and connect no more."""
        self._closed = True
        self._stop_timer()
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.gather(self._connecting, return_exceptions=True)
        self._drop()
        await asyncio.gather(*self._closing)

    # Connecting

    async def _connect(self) -> None:
        stream = self._stream = _Stream()

        def received(message: SessionMessage) -> None:
            if stream is self._stream:
                self._received(stream, message)

        def closed(reason: Exception | None) -> None:
            if stream.connection is None:
                stream.ended, stream.reason = True, reason
            elif stream is self._stream:
                self._ended(reason)

        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                connection = await self._connector(self.address, self._hello, received, closed)
        except TimeoutError:
            self._ended(TimeoutError(f"no answer within {CONNECT_TIMEOUT_S} s"))
        except (IsochroneError, OSError) as error:
            self._ended(error)
        else:
            self._connected(stream, connection)
        finally:
            self._connecting = None

    def _connected(self, stream: _Stream, connection: Connection) -> None:
        node = connection.node.node
        stream.connection = connection
        if stream.ended:
            self._ended(stream.reason)
        elif self._expected not in (None, node):
            self._refuse(f"{self.address} is the address of {self._expected}, but {node} answers there")
        elif not self._admit(connection.node.cluster):
            self._refuse(f"{node} at {self.address} belongs to another cluster, {connection.node.cluster}")
        else:
            self.opened += 1
            self._up = True
            self._pings_unanswered = 0
            self._pinged_at = self._loop.time()
            self._directory_known = False
            self.ask_directory()
            self._timer = self._loop.call_later(TICK_S, self._tick)
            self._events.link_up(self, node)
            for message in stream.early:
                self._received(stream, message)
            stream.early.clear()

    def _refuse(self, problem: str) -> None:
        logger.warning("%s", problem)
        self._ended(InvalidRequest(problem))

    def _ended(self, reason: Exception | None) -> None:
        """The stream has ended, was given up, or could not be opened: try again after a while."""
        self.problem = reason
        self._drop()
        if not self._closed:
            self._timer = self._loop.call_later(self._retry_s * self._rng.uniform(0.5, 1.0), self._reconnect)
            self._retry_s = min(2 * self._retry_s, RETRY_LAST_S)

    def _reconnect(self) -> None:
        self._connecting = self._loop.create_task(self._connect())

    def _drop(self) -> None:
        """Listen no more to the stream, and end it if it is open."""
        stream, self._stream = self._stream, None
        self._stop_timer()
        if stream is None or stream.connection is None:
            return
        self._closing = [task for task in self._closing if not task.done()]
        self._closing.append(self._loop.create_task(stream.connection.close()))
        if self._up:
            self._up = False
            self._events.link_down(self, stream.connection.node.node)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    # Signs of life

    def _received(self, stream: _Stream, message: SessionMessage) -> None:
        if stream.connection is None:
            stream.early.append(message)
            return
        node = stream.connection.node.node
        match message:
            case Pong(request):
                if request == self._ping:
                    self.round_trip.record(self._loop.time() - self._pinged_at)
            case DirectoryResponse():
                self._directory_known = True
                self._events.link_received(self, node, message)
            case _:
                self._events.link_received(self, node, message)
        self._pings_unanswered = 0

    def _tick(self) -> None:
        if self._pings_unanswered >= PINGS_UNANSWERED_MAX:
            self._ended(TimeoutError(f"{self.address} answered none of {self._pings_unanswered} pings"))
            return
        self._timer = self._loop.call_later(TICK_S, self._tick)
        self._retry_s = RETRY_FIRST_S  # Only now: a node that ends every stream at once is not to be stormed.
        now = self._loop.time()
        if self._events.busy or self._pings_unanswered or now - self._pinged_at >= IDLE_PING_S:
            self._ping = next(self._requests)
            self._pinged_at = now
            self._pings_unanswered += 1
            self.send(Ping(self._ping))
        if not self._directory_known:
            self.ask_directory()

    def ask_directory(self) -> None:
        """Ask the node for the directory. The question may get lost, as may the answer."""
        self.send(DirectoryRequest(next(self._requests)))
