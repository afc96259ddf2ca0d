"""The running hash over everything that happens in a world, in the order in which it happens.

Two runs with the same hash did the same: every delivery, durable write, fault and client result enters with its virtual
time. The hash is over small packed numbers, not over texts: a run of a minute has some hundred thousand events.
"""

import hashlib
import struct

_pack = struct.Struct("<dBHHqq").pack
_BUFFER_BYTES = 1 << 16


class Trace:
    """See the module."""

    DELIVERY, SESSION, WRITE, FAULT, RESULT, LOST, LIFE = range(7)

    def __init__(self) -> None:
        self._hash = hashlib.blake2b(digest_size=16)
        self._buffer = bytearray()

    def note(self, now_s: float, kind: int, where: int = 0, other: int = 0, first: int = 0, second: int = 0) -> None:
        """Take an event in. `where` and `other` number nodes and clients; the last two say what happened."""
        buffer = self._buffer
        buffer += _pack(now_s, kind, where, other, first, second)
        if len(buffer) > _BUFFER_BYTES:
            self._hash.update(buffer)
            buffer.clear()

    def text(self, now_s: float, kind: int, text: str) -> None:
        """Take in an event that numbers do not tell."""
        self.note(now_s, kind, 0, 0, len(text))
        self._buffer += text.encode()

    def hexdigest(self) -> str:
        """The hash of everything so far."""
        digest = self._hash.copy()
        digest.update(self._buffer)
        return digest.hexdigest()
