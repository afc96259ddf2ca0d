"""Every error that a caller can meet, by what the caller then knows.

::

    IsochroneError
    ├── Rejected                  surely not applied
    │   ├── NotLeader             another replica leads; carries a hint when one is known
    │   ├── LockHeld              the lock is held by somebody else
    │   ├── NotInTime             what was waited for did not come in the time given
    │   ├── Deadlock              the wait would have closed a cycle, and this request was its victim
    │   ├── QueueFull             a bounded queue is full; try again later
    │   ├── ClockUnsynchronized   the clock bound is unknown or too wide
    │   ├── Unavailable           never sent, or refused by the server
    │   │   └── LearnerBehind     a learner is to vote before it is in sync with the leader
    │   └── TransactionAborted    a transaction ended without effect
    ├── Indeterminate             may have been applied
    │   ├── DeadlineExceeded      the time given ran out after the request may have left
    │   ├── LeadershipLost        the leader that took the request lost its office
    │   ├── ConnectionLost        the connection broke after the request may have left
    │   ├── SessionExpired        the session that would have told is gone
    │   └── LeaseLost             a lease may have ended, and what was done under it was broken off
    ├── InvalidRequest            the caller's fault; surely not applied
    │   ├── RevisionCompacted     the revision was compacted; the text names the first one that can be read
    │   ├── FutureRevision        the revision or timestamp lies ahead of the state
    │   ├── DuplicateKey          a transaction writes a key twice
    │   ├── KeyNotFound           the key must exist for what was asked, and does not
    │   ├── LeaseNotFound         the lease is unknown, has expired or was revoked
    │   ├── LeaseExists           a lease of that id exists
    │   ├── LockNotHeld           the lock is not held by who asks to release or use it
    │   │   └── StaleToken        a later holder of the lock has been at the fence gate
    │   ├── ForeignToken          the fence gate belongs to another lock
    │   └── LockOrder             locks were asked for against the hierarchy's order
    └── StorageError              a disk failed, is full, locked or not ours; the node stops

    InvariantViolation            a fault in Isochrone itself; outside the tree, stops the node

An operation that was tried more than once is `Rejected` only if every attempt was; one indeterminate attempt
makes it `Indeterminate`, unless a later one returns what its group has stored of it: a result, or a refusal at apply.

`status_of` maps each class to the gRPC status code under which it travels.
"""

from isochrone.ids import GroupId, NodeId


class IsochroneError(Exception):
    """Root of the errors that a caller may handle."""

    stored = False
    """Whether a group has stored it as what came of a command in a session: every copy of the command ends with it."""


class Rejected(IsochroneError):
    """The operation was surely not applied. It is safe to try again."""


class NotLeader(Rejected):
    """The replica asked does not lead the group. `leader` is its best guess, None when it knows none."""

    def __init__(self, group: GroupId, leader: NodeId | None) -> None:
        hint = f"{leader} does" if leader else "no leader is known"
        super().__init__(f"this node does not lead group {group}; {hint}")
        self.group = group
        self.leader = leader


class LockHeld(Rejected):
    """Somebody else holds the lock in a mode that excludes the one asked for."""


class NotInTime(Rejected):
    """What was waited for did not come in the time given: others at a barrier, work in a queue."""


class Deadlock(Rejected):
    """Waiting for the lock would have closed a cycle of waits; of those in it this request was the youngest."""


class QueueFull(Rejected):
    """A bounded queue is full. The load is above what the node can take; try again later."""


class ClockUnsynchronized(Rejected):
    """The clock bound is unknown or wider than allowed, so no timestamp may be given out."""


class Unavailable(Rejected):
    """The request was never sent, or the server refused it before doing anything."""


class LearnerBehind(Unavailable):
    """A learner cannot be promoted yet: it is not in sync with the leader. Try again."""


class TransactionAborted(Rejected):
    """The transaction ended without effect."""


class Indeterminate(IsochroneError):
    """The operation may or may not have been applied. Read before trying again."""


class DeadlineExceeded(Indeterminate):
    """The deadline passed after the request may have left this process."""


class LeadershipLost(Indeterminate):
    """The leader that took the request lost its office before the outcome was known."""


class ConnectionLost(Indeterminate):
    """The connection broke after the request may have left this process."""


class SessionExpired(Indeterminate):
    """The session that remembers the outcomes of earlier attempts is unknown or has expired."""


class LeaseLost(Indeterminate):
    """A lease, and the locks on it, may have ended: what was done under it was broken off, and may be half done."""


class InvalidRequest(IsochroneError):
    """The request is wrong in itself: the caller's fault. It was not applied."""


class RevisionCompacted(InvalidRequest):
    """The revision was compacted: what it looked like is forgotten. The text names the first one that can be read."""


class FutureRevision(InvalidRequest):
    """The revision or timestamp lies ahead of the state."""


class DuplicateKey(InvalidRequest):
    """A transaction would write a key twice."""


class KeyNotFound(InvalidRequest):
    """The key must exist for what was asked, and does not."""


class LeaseNotFound(InvalidRequest):
    """The lease is unknown, has expired or was revoked."""


class LeaseExists(InvalidRequest):
    """A lease of that id exists."""


class LockNotHeld(InvalidRequest):
    """The lock is not held by who asks to release or use it."""


class StaleToken(LockNotHeld):
    """A fence gate has seen a larger token: the lock has had a later holder. Trying again does not help."""


class ForeignToken(InvalidRequest):
    """The fence gate belongs to another lock than the token."""


class LockOrder(InvalidRequest):
    """Locks were asked for against the order of their hierarchy."""


class StorageError(IsochroneError):
    """Storage failed, is full, is locked by another process or is not ours. A node that meets one stops."""


class InvariantViolation(Exception):
    """A fault in Isochrone itself. The node that meets one stops and says so."""


def check(condition: bool, message: str) -> None:
    """Raise `InvariantViolation` unless `condition` holds. Unlike `assert` it stays under `python -O`."""
    if not condition:
        raise InvariantViolation(message)


STATUS_BY_ERROR: dict[type[Exception], str] = {
    IsochroneError: "UNKNOWN",
    Rejected: "ABORTED",
    NotLeader: "FAILED_PRECONDITION",
    LockHeld: "FAILED_PRECONDITION",
    NotInTime: "DEADLINE_EXCEEDED",
    Deadlock: "ABORTED",
    QueueFull: "RESOURCE_EXHAUSTED",
    ClockUnsynchronized: "FAILED_PRECONDITION",
    Unavailable: "UNAVAILABLE",
    LearnerBehind: "FAILED_PRECONDITION",
    TransactionAborted: "ABORTED",
    Indeterminate: "UNKNOWN",
    DeadlineExceeded: "DEADLINE_EXCEEDED",
    LeadershipLost: "UNKNOWN",
    ConnectionLost: "UNKNOWN",
    SessionExpired: "UNKNOWN",
    LeaseLost: "UNKNOWN",
    InvalidRequest: "INVALID_ARGUMENT",
    RevisionCompacted: "OUT_OF_RANGE",
    FutureRevision: "OUT_OF_RANGE",
    DuplicateKey: "INVALID_ARGUMENT",
    KeyNotFound: "INVALID_ARGUMENT",
    LeaseNotFound: "NOT_FOUND",
    LeaseExists: "FAILED_PRECONDITION",
    LockNotHeld: "FAILED_PRECONDITION",
    StaleToken: "FAILED_PRECONDITION",
    ForeignToken: "INVALID_ARGUMENT",
    LockOrder: "FAILED_PRECONDITION",
    StorageError: "DATA_LOSS",
    InvariantViolation: "INTERNAL",
}
"""gRPC status code (by name) under which each error class travels."""

ERROR_BY_NAME: dict[str, type[IsochroneError]] = {
    cls.__name__: cls for cls in STATUS_BY_ERROR if issubclass(cls, IsochroneError)
}
"""The classes that an error may have that is told or stored by name."""


def status_of(error: Exception) -> str:
    """The gRPC status code name of `error`: that of its class, or of its nearest base in the table."""
    for cls in type(error).__mro__:
        if cls in STATUS_BY_ERROR:
            return STATUS_BY_ERROR[cls]
    return "INTERNAL"
