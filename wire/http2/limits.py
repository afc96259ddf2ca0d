"""What one connection may make the end that we hold keep and do."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """What the other end may make us keep. Streams, requests and resets concern servers alone."""

    streams: int = 2_000
    """At a time. A client that was told waits; one that does not is refused the stream."""
    stream_window_bytes: int = 1 << 20
    """At least 65,535: the other end may send so much before it has heard of a smaller one."""
    connection_window_bytes: int = 16 << 20
    """More than 65,535, with which every connection begins."""
    request_bytes: int = 32 << 20
    """Of all requests that have not arrived as a whole."""
    backlog_bytes: int = 64 << 20
    """Of all answers that the client has not taken, with `PIECE_BYTES` for each piece of them."""
    resets: int = 2_000
    """Calls that a client gives up beyond as many as were answered (CVE-2023-44487)."""
    settings: int = 1_000
    """Changes of settings while a connection lasts; each costs a look at every stream."""


PIECE_BYTES = 64
"""What a piece of output costs besides its bytes: an acknowledgement of a ping is small, a million of them are not."""
