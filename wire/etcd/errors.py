"""etcd's errors: the gRPC code and text of each, and which of them stands for each error of ours.

etcd's clients recognise an error by its text, and decide by its code whether they may ask again: of the code
`UNAVAILABLE` they repeat reads, and writes only where the text says that nothing was sent. So whatever leaves a write
uncertain travels under one of etcd's time-outs, after which its clients do not repeat a write.

Codes and texts are those of etcd 3.4 (package rpctypes), and what a later release added says so. An error of ours that
has no equal there keeps its own code (`errors.STATUS_BY_ERROR`) and text, behind `OWN_PREFIX`.
"""

from dataclasses import dataclass
from enum import Enum

from isochrone import errors

OWN_PREFIX = "isochrone: "
"""Begins the text of an error that etcd does not have."""


@dataclass(frozen=True, slots=True)
class Status:
    """How an error travels: the name of a gRPC status code, and a text."""

    code: str
    text: str


class EtcdError(Enum):
    """The errors of etcd that its clients know by their texts, without those of services that are not offered here."""

    EMPTY_KEY = Status("INVALID_ARGUMENT", "etcdserver: key is not provided")
    KEY_NOT_FOUND = Status("INVALID_ARGUMENT", "etcdserver: key not found")
    VALUE_PROVIDED = Status("INVALID_ARGUMENT", "etcdserver: value is provided")
    LEASE_PROVIDED = Status("INVALID_ARGUMENT", "etcdserver: lease is provided")
    TOO_MANY_OPERATIONS = Status("INVALID_ARGUMENT", "etcdserver: too many operations in txn request")
    DUPLICATE_KEY = Status("INVALID_ARGUMENT", "etcdserver: duplicate key given in txn request")
    INVALID_SORT_OPTION = Status("INVALID_ARGUMENT", "etcdserver: invalid sort option")
    """Since 3.6; before, an unknown order or target was as none."""
    REQUEST_TOO_LARGE = Status("INVALID_ARGUMENT", "etcdserver: request is too large")
    TOO_MANY_REQUESTS = Status("RESOURCE_EXHAUSTED", "etcdserver: too many requests")
    COMPACTED = Status("OUT_OF_RANGE", "etcdserver: mvcc: required revision has been compacted")
    FUTURE_REVISION = Status("OUT_OF_RANGE", "etcdserver: mvcc: required revision is a future revision")
    NO_SPACE = Status("RESOURCE_EXHAUSTED", "etcdserver: mvcc: database space exceeded")
    PERMISSION_DENIED = Status("PERMISSION_DENIED", "etcdserver: permission denied")

    AUTH_NOT_ENABLED = Status("FAILED_PRECONDITION", "etcdserver: authentication is not enabled")

    LEASE_NOT_FOUND = Status("NOT_FOUND", "etcdserver: requested lease not found")
    LEASE_EXISTS = Status("FAILED_PRECONDITION", "etcdserver: lease already exists")
    LEASE_TTL_TOO_LARGE = Status("OUT_OF_RANGE", "etcdserver: too large lease TTL")

    MEMBER_EXISTS = Status("FAILED_PRECONDITION", "etcdserver: member ID already exist")
    PEER_URL_EXISTS = Status("FAILED_PRECONDITION", "etcdserver: Peer URLs already exists")
    TOO_FEW_STARTED = Status(
        "FAILED_PRECONDITION", "etcdserver: re-configuration failed due to not enough started members"
    )
    BAD_MEMBER_URLS = Status("INVALID_ARGUMENT", "etcdserver: given member URLs are invalid")
    MEMBER_NOT_FOUND = Status("NOT_FOUND", "etcdserver: member not found")
    MEMBER_NOT_LEARNER = Status("FAILED_PRECONDITION", "etcdserver: can only promote a learner member")
    LEARNER_NOT_READY = Status(
        "FAILED_PRECONDITION", "etcdserver: can only promote a learner member which is in sync with leader"
    )
    TOO_MANY_LEARNERS = Status("FAILED_PRECONDITION", "etcdserver: too many learner members in cluster")
    NOT_FOR_LEARNERS = Status("UNAVAILABLE", "etcdserver: rpc not supported for learner")
    BAD_TRANSFEREE = Status("FAILED_PRECONDITION", "etcdserver: bad leader transferee")

    NO_LEADER = Status("UNAVAILABLE", "etcdserver: no leader")
    NOT_LEADER = Status("FAILED_PRECONDITION", "etcdserver: not leader")
    LEADER_CHANGED = Status("UNAVAILABLE", "etcdserver: leader changed")
    STOPPED = Status("UNAVAILABLE", "etcdserver: server stopped")
    TIMEOUT = Status("UNAVAILABLE", "etcdserver: request timed out")
    TIMEOUT_LEADER_LOST = Status(
        "UNAVAILABLE", "etcdserver: request timed out, possibly due to previous leader failure"
    )
    TIMEOUT_CONNECTION_LOST = Status("UNAVAILABLE", "etcdserver: request timed out, possibly due to connection lost")
    UNHEALTHY = Status("UNAVAILABLE", "etcdserver: unhealthy cluster")
    CORRUPT = Status("DATA_LOSS", "etcdserver: corrupt cluster")


WATCH_ID_TAKEN = "mvcc: duplicate watch ID provided on the WatchStream"
"""The reason with which a watcher is cancelled whose id another one of its stream has."""
WATCH_RANGE_EMPTY = "mvcc: watcher range is empty"
"""The reason with which a watcher of an empty range is cancelled."""

ETCD_BY_ERROR: dict[type[Exception], EtcdError] = {
    errors.NotLeader: EtcdError.NO_LEADER,  # any member takes requests in etcd, and passes them on to a leader it knows
    errors.QueueFull: EtcdError.TOO_MANY_REQUESTS,
    errors.Indeterminate: EtcdError.TIMEOUT,
    errors.LeadershipLost: EtcdError.TIMEOUT_LEADER_LOST,
    errors.ConnectionLost: EtcdError.TIMEOUT_CONNECTION_LOST,
    errors.StorageError: EtcdError.STOPPED,
    errors.RevisionCompacted: EtcdError.COMPACTED,
    errors.FutureRevision: EtcdError.FUTURE_REVISION,
    errors.DuplicateKey: EtcdError.DUPLICATE_KEY,
    errors.KeyNotFound: EtcdError.KEY_NOT_FOUND,
    errors.LeaseNotFound: EtcdError.LEASE_NOT_FOUND,
    errors.LeaseExists: EtcdError.LEASE_EXISTS,
    errors.LearnerBehind: EtcdError.LEARNER_NOT_READY,
}
"""The errors of ours that etcd has too; those below them in the tree stand under the same one."""


def status_of(error: Exception) -> Status:
    """How an error of ours travels to a client of etcd."""
    for cls in type(error).__mro__:
        if cls in ETCD_BY_ERROR:
            return ETCD_BY_ERROR[cls].value
    return Status(errors.status_of(error), f"{OWN_PREFIX}{error}")
