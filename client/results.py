"""What calls return. Every result says where it comes from and what it is worth.

This module is pure.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from isochrone.ids import GroupId, NodeId, Revision, Timestamp
from isochrone.records import quickly_made
from isochrone.wire.commands import Result
from isochrone.wire.kv import DeleteResult, PutResult, RangeResult, TxnResult


class Provenance(StrEnum):
    """What a result is worth. Nothing weaker is ever handed out unasked."""

    LINEARIZABLE = "linearizable"
    """As if the call took effect at one moment between its start and its end."""

    STALE = "stale"
    """What one replica had applied. The result tells how old that may be, where it can be known."""


@quickly_made
@dataclass(frozen=True, slots=True)
class WriteResult:
    """What a write did.

    `succeeded` is False for a `compare_and_set` whose comparison failed and for a `delete` of an absent key:
    nothing was changed then.
    """

    succeeded: bool
    previous: bytes | None
    """Value that a failed comparison found, None when the key was absent. Always None after a success."""
    revision: Revision
    """The group's revision after the write: the key's `mod_revision` if the write set it."""
    timestamp: Timestamp
    """Commit timestamp."""
    group: GroupId
    replica: NodeId
    """The node that answered."""
    session: int
    sequence: int
    """Session and sequence under which the write took effect once, for looking it up in traces."""
    provenance: Provenance = Provenance.LINEARIZABLE


@quickly_made
@dataclass(frozen=True, slots=True)
class ReadResult:
    """The state of one key. `value` is None when the key is absent; then the fields that describe it are 0."""

    key: bytes
    value: bytes | None
    create_revision: Revision
    mod_revision: Revision
    version: int
    """How many times the key was set since it was created."""
    timestamp: Timestamp
    """Commit timestamp of the last change."""
    revision: Revision
    """The group's revision that was read."""
    group: GroupId
    replica: NodeId
    """The node that answered."""
    provenance: Provenance = Provenance.LINEARIZABLE


@quickly_made
@dataclass(frozen=True, slots=True)
class Executed:
    """What an operation did: see `wire.kv`, `wire.leases` and `wire.locks` for the results of each."""

    result: Result
    group: GroupId
    replica: NodeId
    """The node that answered."""
    session: int
    sequence: int
    """Session and sequence under which it took effect once."""
    provenance: Provenance = Provenance.LINEARIZABLE


Written = tuple[Result, GroupId, NodeId, int, int]
"""What an operation did, the group, the node that answered, session and sequence: what a result is made of."""


def write_result(written: Written) -> WriteResult:
    """What a write did, as its caller is told."""
    result, group, replica, session, sequence = written
    succeeded, previous = _outcome(result)
    return WriteResult(succeeded, previous, result.revision, result.timestamp, group, replica, session, sequence)


def _outcome(result: Result) -> tuple[bool, bytes | None]:
    """Whether a write changed what it was to change, and the value that a failed comparison found."""
    match result:
        case PutResult():
            return True, None
        case DeleteResult(deleted=deleted):
            return deleted > 0, None
        case TxnResult(succeeded=False, results=(RangeResult(items=(item, *_)), *_)):
            return False, item.value
        case TxnResult(succeeded=succeeded):
            return succeeded, None
        case _:
            return True, None


@quickly_made
@dataclass(frozen=True, slots=True)
class Queried:
    """The answer to a query."""

    result: Result
    group: GroupId
    replica: NodeId
    """The node that answered."""
    provenance: Provenance = Provenance.LINEARIZABLE
    age_s: float | None = None
    """Of a stale answer: it shows every write acknowledged so long before it was made; None if that is not known.

    It rests on the clocks of the nodes, as the topology vouches for them, and cannot be below their maximum offset. It
    is an upper bound: while nothing is written it grows, though nothing is missing.
    """


def read_result(key: bytes, answer: Queried) -> ReadResult:
    """The state of a key, from the answer to a `Range` of it alone."""
    found, group, replica = answer.result, answer.group, answer.replica
    if not isinstance(found, RangeResult) or not found.items:
        return ReadResult(key, None, Revision(0), Revision(0), 0, Timestamp(0), found.revision, group, replica)
    item = found.items[0]
    created, modified = item.create_revision, item.mod_revision
    return ReadResult(key, item.value, created, modified, item.version, item.timestamp, found.revision, group, replica)


@quickly_made
@dataclass(frozen=True, slots=True, kw_only=True)
class StaleRange:
    """What the nearest replica had of a range."""

    found: RangeResult
    group: GroupId
    replica: NodeId
    """The node that answered."""
    age_s: float | None
    """See `Queried.age_s`."""
    provenance: Provenance = Provenance.STALE


@dataclass(frozen=True, slots=True)
class Statistics:
    """Counters of one client since it connected."""

    attempts: int = 0
    """Requests sent, retransmissions among them."""
    retransmissions: int = 0
    """Requests sent while an earlier attempt of the same call had no known outcome."""
    reconnects: int = 0
    """Connections opened to a node that had been connected before."""
    leader_changes: int = 0
    """Changes of leader learned, of groups that already had a known one."""
    sessions_opened: int = 0
    errors: Mapping[str, int] = field(default_factory=dict)
    """Calls that ended with an error, by its class."""

    def plus(self, other: "Statistics") -> "Statistics":
        """What two clients have done together."""
        return Statistics(
            self.attempts + other.attempts,
            self.retransmissions + other.retransmissions,
            self.reconnects + other.reconnects,
            self.leader_changes + other.leader_changes,
            self.sessions_opened + other.sessions_opened,
            Counter(self.errors) + Counter(other.errors),
        )
