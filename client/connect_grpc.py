"""What the SDK takes from the system unless it is given: session streams over gRPC, and randomness."""

import random
from functools import partial

from isochrone.client.connection import Connector
from isochrone.wire.session_client_grpc import connect
from isochrone.wire.shaper_os import Shaper


def grpc_connector(shaper: Shaper | None) -> Connector:
    """Streams over gRPC; `shaper` delays, loses and cuts what the client sends, in a local deployment."""
    return partial(connect, shaper=shaper)


def system_random() -> random.Random:
    """Randomness for the jitter of delays, seeded by the operating system."""
    return random.Random()
