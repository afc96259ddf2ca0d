"""The seam between the SDK and the network: one session stream to one node.

The gRPC adapter stands behind it in production, the simulated network in the simulator.
"""

from collections.abc import Callable
from typing import Protocol

from isochrone.wire.session import ClientHello, NodeHello, SessionMessage

Received = Callable[[SessionMessage], None]
"""Called in the loop's thread with each message of the node, in order; must not block or raise."""

Closed = Callable[[Exception | None], None]
"""Called once when the stream has ended, with the reason if it is known. Nothing is received afterwards."""


class Connection(Protocol):
    """An open stream. Messages arrive in the order of `send`, once, or not at all: links may lose frames silently."""

    @property
    def node(self) -> NodeHello:
        """Who answered."""

    def send(self, message: SessionMessage) -> None:
        """Queue a message. Never blocks. A message given to a stream that has ended vanishes."""

    async def close(self) -> None:
        """End the stream. Safe to call again, and after the stream has ended."""


class Connector(Protocol):
    """Opens streams."""

    async def __call__(self, address: str, hello: ClientHello, received: Received, closed: Closed) -> Connection:
        """Open a stream, greet, and wait for the node's greeting.

        `received` and `closed` may be called before this returns. Cancellation leaves nothing open.

        Raises:
            IsochroneError: the node cannot be reached or refuses the client.
        """
