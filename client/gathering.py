"""Joins the commands that calls begin in one turn of the loop into few requests.

Each request costs the client, the stream and the node about as much as a command does, so what begins together travels
together: one `WriteRequest` for each link, group, keyspace and deadline. Deadlines are rounded down to five significant
bits for that, which shortens none by as much as a sixteenth.

Callers that are answered together ask together again. Were all of them one request, the client would be idle while the
group works, and the group while the client does. So a request leaves before the turn is over when it has its share of
all that is under way, and the next one is made while the group works on it.
"""

import asyncio
from dataclasses import dataclass
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


class _Batch:
    """The next request for one link, group, keyspace and deadline."""

    __slots__ = (
        "commands",
        "group",
        "keyspace",
        "link",
        "requests",
        "size_bytes",
        "timeout_ms",
        "timeout_ms_end",
        "trace",
    )

    def __init__(self, link: Link, group: GroupId, keyspace: KeyspaceId, timeout_ms: int) -> None:
        self.link = link
        self.group = group
        self.keyspace = keyspace
        self.timeout_ms = rounded_down(timeout_ms)
        self.timeout_ms_end = self.timeout_ms + (1 << max(0, timeout_ms.bit_length() - _DEADLINE_BITS))
        """From this on, a time is rounded down to another."""
        self._empty()

    def _empty(self) -> None:
        self.requests: list[int] = []
        self.commands: list[bytes] = []
        self.size_bytes = 0
        self.trace = b""

    def takes(self, link: Link, group: GroupId, keyspace: KeyspaceId, timeout_ms: int) -> bool:
        """Whether such a command belongs here."""
        in_time = self.timeout_ms <= timeout_ms < self.timeout_ms_end
        return in_time and self.link is link and self.keyspace == keyspace and self.group == group

    def send(self) -> None:
        """Send what has gathered, if anything has; what follows is another request."""
        if self.requests:
            requests, commands, trace = tuple(self.requests), tuple(self.commands), self.trace
            self._empty()
            self.link.send(WriteRequest(requests, self.group, self.keyspace, self.timeout_ms, trace, commands))


@final
class Gathering:
    """The commands of one client that were begun in this turn of its loop and have not left."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._batches: dict[tuple[Link, GroupId, KeyspaceId, int], _Batch] = {}
        self._latest: _Batch | None = None
        """The one of them that was used last: most commands go where the one before went."""

    def add(
        self, link: Link, group: GroupId, request: int, timeout_ms: int, write: WriteCommand, under_way: int
    ) -> None:
        """Send a command, at the latest when this turn of the loop is over; `under_way` counts the group's calls."""
        batch = self._latest
        if batch is None or not batch.takes(link, group, write.keyspace, timeout_ms):
            batch = self._latest = self._batch(link, group, write.keyspace, timeout_ms)
        command = write.command
        if batch.size_bytes + len(command) > WRITE_BYTES_MAX:
            batch.send()
        batch.requests.append(request)
        batch.commands.append(command)
        batch.size_bytes += len(command)
        if write.trace and not batch.trace:
            batch.trace = write.trace
        count = len(batch.requests)
        has_its_share = count >= COMMANDS_MIN and count * REQUESTS_OVERLAPPING >= under_way
        if has_its_share or count == WRITE_COMMANDS_MAX:
            batch.send()

    def _batch(self, link: Link, group: GroupId, keyspace: KeyspaceId, timeout_ms: int) -> _Batch:
        """The batch of this turn for such commands."""
        if not self._batches:
            self._loop.call_soon(self._send_all)
        key = (link, group, keyspace, rounded_down(timeout_ms))
        batch = self._batches.get(key)
        if batch is None:
            batch = self._batches[key] = _Batch(link, group, keyspace, timeout_ms)
        return batch

    def _send_all(self) -> None:
        batches, self._batches, self._latest = self._batches, {}, None
        for batch in batches.values():
            batch.send()


def rounded_down(timeout_ms: int) -> int:
    """A time of which only the first bits count."""
    shift = max(0, timeout_ms.bit_length() - _DEADLINE_BITS)
    return timeout_ms >> shift << shift
