"""Joins the commands that calls begin in one turn of the loop into few requests.

Each request costs the client, the stream and the node about as much as a command does, so what begins together travels
together: one `WriteRequest` for each link, group, keyspace and deadline. Deadlines are rounded down to five significant
bits for that, which shortens none by as much as a sixteenth.

Callers that are answered together ask together again. Were all of them one request, the client would be idle while the
group works, and the group while the client does. So a request leaves before the turn is over when it has its share of
all that is under way, and the next one is made while the group works on it.
"""

import asyncio
from dataclasses import dataclass, field
from typing import final

from isochrone.client.links import Link
from isochrone.ids import GroupId, KeyspaceId
from isochrone.records import quickly_made
from isochrone.wire.session import WRITE_BYTES_MAX, WRITE_COMMANDS_MAX, WriteRequest

_DEADLINE_BITS = 5
REQUESTS_OVERLAPPING = 2
"""So many requests share what is under way."""
COMMANDS_MIN = 128
"""A request of fewer commands does not leave before the turn is over: it would cost more than it gains."""


@quickly_made
@dataclass(frozen=True, slots=True)
class WriteCommand:
    """A command to be executed by the leader of a keyspace's group."""

    keyspace: KeyspaceId
    trace: bytes
    command: bytes


@dataclass(slots=True)
class _Batch:
    """The next request for one link, group, keyspace and deadline."""

    requests: list[int] = field(default_factory=list)
    commands: list[bytes] = field(default_factory=list)
    size_bytes: int = 0
    trace: bytes = b""


@final
class Gathering:
    """The commands of one client that were begun in this turn of its loop and have not left."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._batches: dict[tuple[Link, GroupId, KeyspaceId, int], _Batch] = {}

    def add(
        self, link: Link, group: GroupId, request: int, timeout_ms: int, write: WriteCommand, under_way: int
    ) -> None:
        """Send a command, at the latest when this turn of the loop is over; `under_way` counts the group's calls."""
        if not self._batches:
            self._loop.call_soon(self._send_all)
        key = (link, group, write.keyspace, rounded_down(timeout_ms))
        batch = self._batches.get(key)
        if batch is None:
            batch = self._batches[key] = _Batch()
        elif batch.requests and batch.size_bytes + len(write.command) > WRITE_BYTES_MAX:
            batch = self._batches[key] = self._send(key, batch)
        batch.requests.append(request)
        batch.commands.append(write.command)
        batch.size_bytes += len(write.command)
        batch.trace = batch.trace or write.trace
        count = len(batch.requests)
        has_its_share = count >= COMMANDS_MIN and count * REQUESTS_OVERLAPPING >= under_way
        if has_its_share or count == WRITE_COMMANDS_MAX:
            self._batches[key] = self._send(key, batch)

    def _send_all(self) -> None:
        batches, self._batches = self._batches, {}
        for key, batch in batches.items():
            if batch.requests:
                self._send(key, batch)

    def _send(self, key: tuple[Link, GroupId, KeyspaceId, int], batch: _Batch) -> _Batch:
        """Send a batch; returns an empty one, for what follows."""
        link, group, keyspace, timeout_ms = key
        link.send(WriteRequest(tuple(batch.requests), group, keyspace, timeout_ms, batch.trace, tuple(batch.commands)))
        return _Batch()


def rounded_down(timeout_ms: int) -> int:
    """A time of which only the first bits count."""
    shift = max(0, timeout_ms.bit_length() - _DEADLINE_BITS)
    return timeout_ms >> shift << shift
