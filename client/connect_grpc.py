"""The default connector of the SDK: session streams over gRPC."""

import random

from isochrone.client.connection import Closed, Connection, Connector, Received
from isochrone.wire.session import ClientHello
from isochrone.wire.session_client_grpc import connect
from isochrone.wire.shaper_os import Shaper


def grpc_connector(shaper: Shaper | None) -> Connector:
    """Streams over gRPC; `shaper` delays, loses and cuts what the client sends, in a local deployment."""

    async def connector(address: str, hello: ClientHello, received: Received, closed: Closed) -> Connection:
        return await connect(address, hello, received=received, closed=closed, shaper=shaper)

    return connector


def system_random() -> random.Random:
    """Randomness for the jitter of delays, seeded by the operating system."""
    return random.Random()
