"""What waits in a replica, and how it ends."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from isochrone.errors import IsochroneError
from isochrone.ids import GroupId, KeyspaceId, Nanos, Revision
from isochrone.records import quickly_made
from isochrone.wire.commands import Query


@quickly_made
@dataclass(frozen=True, slots=True)
class Outcome:
    """The end of one request: a result, or an error that says whether it may have had effect."""

    payload: bytes
    revision: Revision
    error: IsochroneError | None = None


Done = Callable[[Outcome], None]


@quickly_made
@dataclass(frozen=True, slots=True)
class Write:
    """A command that waits to be proposed."""

    keyspace: KeyspaceId
    command: bytes
    trace: bytes
    deadline: Nanos
    done: Done


@quickly_made
@dataclass(frozen=True, slots=True)
class Read:
    """A query that waits until it may be answered."""

    keyspace: KeyspaceId
    query: Query
    done: Done


BATCH_COMMANDS_MAX = 512
"""Most commands in one entry."""
BATCH_BYTES_MAX = 1 << 20
"""Command bytes after which an entry is closed."""


def next_batch(writes: deque[Write]) -> list[Write]:
    """Take the writes of the next entry: a run of one keyspace, within the limits."""
    batch = [writes.popleft()]
    size_bytes = len(batch[0].command)
    while (
        writes
        and writes[0].keyspace == batch[0].keyspace
        and len(batch) < BATCH_COMMANDS_MAX
        and size_bytes < BATCH_BYTES_MAX
    ):
        batch.append(writes.popleft())
        size_bytes += len(batch[-1].command)
    return batch


RegionLease = Callable[[GroupId, KeyspaceId], bool]
"""Whether this node may serve a keyspace now. Asked before commands are proposed, and again before what came of them,
or of a query, is revealed: the right to serve a keyspace that could be promoted elsewhere is a lease."""


def always_serves(group: GroupId, keyspace: KeyspaceId) -> bool:
    """The region lease of keyspaces that are served in one region for good."""
    return True
