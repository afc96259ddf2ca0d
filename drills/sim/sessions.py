"""Session streams between the production SDK and simulated nodes.

What a client or node sends in one instant travels as one frame, in order, at most once. A node that is down refuses;
one that dies resets its streams, if the reset gets through; a cut link says nothing.
"""

import asyncio
from collections.abc import Callable
from typing import Protocol, final

from isochrone.client.connection import Closed, Connection, Received
from isochrone.drills.sim.loop import SimLoop
from isochrone.drills.sim.network import Link, Network
from isochrone.errors import ConnectionLost, Unavailable
from isochrone.wire.session import ClientHello, NodeHello, SessionMessage


class Server(Protocol):
    """A node's process, as a stream sees it. Calls come from the network; the process enters its own group."""

    @property
    def serving(self) -> bool:
        """Whether it takes and answers frames."""

    def opened(self, stream: "Stream") -> None:
        """A client has connected."""

    def received(self, stream: "Stream", messages: list[SessionMessage]) -> None:
        """Messages of a client, in order."""

    def closed(self, stream: "Stream") -> None:
        """A client has gone."""


class Listeners(Protocol):
    """Who listens where."""

    def listener(self, address: str) -> Server | None:
        """The process that listens at an address now."""


@final
class StreamEnd:
    """One direction of a stream: joins the messages of one instant into one frame."""

    __slots__ = ("_deliver", "_frame", "_link", "_loop", "_sent_s")

    backlog_bytes = 0
    """For the node's service: nothing ever waits in a simulated stream."""

    def __init__(self, loop: SimLoop, link: Link, deliver: "Deliver") -> None:
        self._loop = loop
        self._link = link
        self._deliver = deliver
        self._frame: list[SessionMessage] = []
        self._sent_s = -1.0

    def call_when_drained(self, resume: Callable[[], None]) -> None:
        """See `node.service.ClientSession`."""
        resume()

    def send(self, message: SessionMessage) -> None:
        if self._sent_s == self._loop.now_s:
            self._frame.append(message)
            return
        self._sent_s = self._loop.now_s
        self._frame = [message]
        self._link.send(self._deliver, self._frame, stream=True)


class Deliver(Protocol):
    """Takes a frame."""

    def __call__(self, frame: list[SessionMessage], /) -> None: ...


@final
class Stream:
    """Both ends of one stream; itself the client's `Connection`."""

    def __init__(
        self, loop: SimLoop, links: tuple[Link, Link], listeners: Listeners, received: Received, closed: Closed
    ) -> None:
        self._up, self._down = links
        self._listeners = listeners
        self._received = received
        self._closed = closed
        self._server: Server | None = None
        self._opening: asyncio.Future[NodeHello] = loop.create_future()
        self._node: NodeHello | None = None
        self._ended = False
        """At the client."""
        self._from_client = StreamEnd(loop, self._up, self._at_node)
        self.to_client = StreamEnd(loop, self._down, self._at_client)
        """The node's end: what its service answers to."""

    async def open(self, address: str, hello: ClientHello) -> Connection:
        """Greet, and wait for the node's greeting."""
        self._up.send(self._open_at_node, (address, hello), stream=True)
        try:
            self._node = await self._opening
        except asyncio.CancelledError:
            self._end()
            raise
        return self

    @property
    def node(self) -> NodeHello:
        """Who answered."""
        if self._node is None:
            raise Unavailable("the stream is not open")
        return self._node

    def send(self, message: SessionMessage) -> None:
        """From the client."""
        if not self._ended:
            self._from_client.send(message)

    async def close(self) -> None:
        """End the stream, from the client."""
        self._end()

    def reset(self) -> None:
        """The node's process has gone; tell the client, if the link lets that through."""
        self._down.send(self._reset_at_client, None, stream=True)

    def _end(self) -> None:
        if not self._ended:
            self._ended = True
            self._up.send(self._closed_at_node, None, stream=True)

    # ---- at the node

    def _open_at_node(self, greeting: tuple[str, ClientHello]) -> None:
        server = self._listeners.listener(greeting[0])
        if server is None or not server.serving:
            self.reset()
        else:
            self._server = server
            server.opened(self)

    def _at_node(self, frame: list[SessionMessage]) -> None:
        server = self._server
        if server is None or not server.serving:
            self.reset()
        else:
            server.received(self, frame)

    def _closed_at_node(self, _: None) -> None:
        if self._server is not None:
            self._server.closed(self)

    # ---- at the client

    def _at_client(self, frame: list[SessionMessage]) -> None:
        if self._ended:
            self._up.send(self._closed_at_node, None, stream=True)
            return
        for message in frame:
            if not isinstance(message, NodeHello):
                self._received(message)
            elif not self._opening.done():
                self._opening.set_result(message)

    def _reset_at_client(self, _: None) -> None:
        if self._ended:
            return
        self._ended = True
        if not self._opening.done():
            self._opening.set_exception(Unavailable("the node refused the connection"))
        else:
            self._closed(ConnectionLost("the node has reset the stream"))


@final
class SimConnector:
    """The SDK's `Connector` of one client."""

    def __init__(self, network: Network, client: str, listeners: Listeners) -> None:
        self._network = network
        self._client = client
        self._listeners = listeners

    async def __call__(self, address: str, hello: ClientHello, received: Received, closed: Closed) -> Connection:
        """See the port."""
        links = (self._network.link(self._client, address), self._network.link(address, self._client))
        stream = Stream(self._network.loop, links, self._listeners, received, closed)
        return await stream.open(address, hello)
