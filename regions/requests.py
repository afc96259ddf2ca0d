"""What waits in a replica, and how it ends."""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from isochrone.errors import IsochroneError
from isochrone.ids import GroupId, KeyspaceId, Nanos, Revision
from isochrone.records import quickly_made
from isochrone.wire.commands import Query
from isochrone.wire.kv import PackedResult


@quickly_made
@dataclass(frozen=True, slots=True)
class Outcome:
    """The end of one request: a result, or an error that says whether it may have had effect."""

    payload: bytes
    revision: Revision
    error: IsochroneError | None = None


Done = Callable[[Outcome], None]

WritesDone = Callable[[Sequence[bytes | IsochroneError], Revision], None]
"""Called once for several commands: with the result of each or its error, in their order, and the revision then."""


def alone(done: Done) -> WritesDone:
    """For a command that is the only one."""

    def ended(outcomes: Sequence[bytes | IsochroneError], revision: Revision) -> None:
        (outcome,) = outcomes
        done(Outcome(outcome, revision) if isinstance(outcome, bytes) else Outcome(b"", revision, outcome))

    return ended


@quickly_made
@dataclass(frozen=True, slots=True)
class Write:
    """Commands of one client that wait to be proposed, and are proposed together."""

    keyspace: KeyspaceId
    commands: Sequence[bytes]
    trace: bytes
    deadline: Nanos
    done: WritesDone

    def fail(self, error: IsochroneError, revision: Revision) -> None:
        """End all of them with an error."""
        self.done((error,) * len(self.commands), revision)


@quickly_made
@dataclass(frozen=True, slots=True)
class Read:
    """A query that waits until it may be answered."""

    keyspace: KeyspaceId
    query: Query
    done: Done

    def fail(self, error: IsochroneError, revision: Revision) -> None:
        """End it with an error."""
        self.done(Outcome(b"", revision, error))


ReadsDone = Callable[[Sequence[PackedResult | IsochroneError], Revision], None]
"""Called once for several queries: with the result of each or its error, in their order, and the revision then. If not
all fit, those of the first ones; the others may be asked again."""


@quickly_made
@dataclass(frozen=True, slots=True)
class Reads:
    """Queries that are answered together, from one state; none of them is for the leader alone, or waits."""

    keyspace: KeyspaceId
    queries: Sequence[Query]
    done: ReadsDone

    def fail(self, error: IsochroneError, revision: Revision) -> None:
        """End all of them with an error."""
        self.done((error,) * len(self.queries), revision)


BATCH_COMMANDS_MAX = 512
"""Most commands in one entry, and in one `Write`."""
BATCH_BYTES_MAX = 1 << 20
"""Command bytes after which an entry is closed."""


def next_batch(writes: deque[Write]) -> list[Write]:
    """Take the writes of the next entry: a run of one keyspace, within the limits."""
    batch = [writes.popleft()]
    count, size_bytes = len(batch[0].commands), sum(map(len, batch[0].commands))
    while writes and writes[0].keyspace == batch[0].keyspace and size_bytes < BATCH_BYTES_MAX:
        count += len(writes[0].commands)
        if count > BATCH_COMMANDS_MAX:
            break
        batch.append(writes.popleft())
        size_bytes += sum(map(len, batch[-1].commands))
    return batch


RegionLease = Callable[[GroupId, KeyspaceId], bool]
"""Whether this node may serve a keyspace now. Asked before commands are proposed, and again before what came of them,
or of a query, is revealed: the right to serve a keyspace that could be promoted elsewhere is a lease.

It is asked for the keyspace that a command or query names. What else of the group that touches goes with it: keyspaces
of one group have one home and one goal, so they are promoted together. A watch names none, and asks for all that it may
see."""


def always_serves(group: GroupId, keyspace: KeyspaceId) -> bool:
    """The region lease of keyspaces that are served in one region for good."""
    return True
