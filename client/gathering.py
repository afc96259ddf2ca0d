"""Joins the commands that calls begin in one turn of the loop into few requests.

Each request costs the client, the stream and the node about as much as a command does, so what begins together travels
together: one `WriteRequest` for each link, group, keyspace and deadline. Deadlines are rounded down to five significant
bits for that, which shortens none by as much as a sixteenth.
"""

import asyncio
from dataclasses import dataclass
from typing import final

from isochrone.client.links import Link
from isochrone.ids import GroupId, KeyspaceId
from isochrone.records import quickly_made
from isochrone.wire.session import WRITE_BYTES_MAX, WriteRequest

_DEADLINE_BITS = 5

COMMANDS_TOGETHER = 128
"""A request has no more commands than this, so that those of many callers overlap: whoever is answered together asks
together again, and while one process works on the only request there is, the others would wait."""


@quickly_made
@dataclass(frozen=True, slots=True)
class WriteCommand:
    """A command to be executed by the leader of a keyspace's group."""

    keyspace: KeyspaceId
    trace: bytes
    command: bytes


@final
class Gathering:
    """The commands of one client that were begun in this turn of its loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._gathered: dict[tuple[Link, GroupId, KeyspaceId, int], list[tuple[int, WriteCommand]]] = {}

    def add(self, link: Link, group: GroupId, request: int, timeout_ms: int, write: WriteCommand) -> None:
        """Send a command when this turn of the loop is over."""
        if not self._gathered:
            self._loop.call_soon(self._send)
        key = (link, group, write.keyspace, rounded_down(timeout_ms))
        together = self._gathered.get(key)
        if together is None:
            self._gathered[key] = [(request, write)]
        else:
            together.append((request, write))

    def _send(self) -> None:
        gathered, self._gathered = self._gathered, {}
        for (link, group, keyspace, timeout_ms), together in gathered.items():
            begin, size_bytes = 0, 0
            for place, (_, write) in enumerate(together):
                size_bytes += len(write.command)
                if place > begin and (size_bytes > WRITE_BYTES_MAX or place == begin + COMMANDS_TOGETHER):
                    link.send(_request(group, keyspace, timeout_ms, together[begin:place]))
                    begin, size_bytes = place, len(write.command)
            link.send(_request(group, keyspace, timeout_ms, together[begin:]))


def _request(
    group: GroupId, keyspace: KeyspaceId, timeout_ms: int, together: list[tuple[int, WriteCommand]]
) -> WriteRequest:
    trace = next((write.trace for _, write in together if write.trace), b"")
    requests = tuple([request for request, _ in together])
    return WriteRequest(requests, group, keyspace, timeout_ms, trace, tuple([write.command for _, write in together]))


def rounded_down(timeout_ms: int) -> int:
    """A time of which only the first bits count."""
    shift = max(0, timeout_ms.bit_length() - _DEADLINE_BITS)
    return timeout_ms >> shift << shift
