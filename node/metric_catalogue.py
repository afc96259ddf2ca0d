"""Every metric of a node: the one place of their names. `docs/metrics.md` says the same to people; a test compares.

Names are stable, end in their unit, and count up where they end in `_total`. Each has the labels `node` and `region`
besides its own.
"""

from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """What a metric's value is."""

    COUNTER = "counter"
    """Rises while the process lives, from 0."""
    GAUGE = "gauge"
    HISTOGRAM = "histogram"
    """Of times in nanoseconds, published in seconds."""


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric."""

    name: str
    kind: Kind
    labels: tuple[str, ...]
    meaning: str


_all: list[Metric] = []


def _metric(kind: Kind, name: str, meaning: str, labels: tuple[str, ...]) -> Metric:
    _all.append(Metric(name, kind, labels, meaning))
    return _all[-1]


def _counter(name: str, meaning: str, *labels: str) -> Metric:
    return _metric(Kind.COUNTER, name, meaning, labels)


def _gauge(name: str, meaning: str, *labels: str) -> Metric:
    return _metric(Kind.GAUGE, name, meaning, labels)


def _histogram(name: str, meaning: str, *labels: str) -> Metric:
    return _metric(Kind.HISTOGRAM, name, meaning, labels)


# ---- Raft: of each replica of this node

IS_LEADER = _gauge("isochrone_raft_is_leader", "1 if this node leads the group", "group")
HAS_LEADER = _gauge("isochrone_raft_has_leader", "1 if this node knows a leader that clients can use", "group")
TERM = _gauge("isochrone_raft_term", "Term that this node knows", "group")
COMMIT_INDEX = _gauge("isochrone_raft_commit_index", "Last entry known to be committed", "group")
APPLIED_INDEX = _gauge("isochrone_raft_applied_index", "Last entry applied here", "group")
LOG_BYTES = _gauge("isochrone_raft_log_bytes", "Bytes of the log that memory holds", "group")
ELECTIONS = _counter(
    "isochrone_raft_elections_total", "Elections that this node began, with a vote for itself", "group"
)
ELECTIONS_WON = _counter("isochrone_raft_elections_won_total", "Elections that this node won", "group")
ELECTION_SECONDS = _histogram(
    "isochrone_raft_election_seconds", "Of elections won here: from the first attempt to the office", "group"
)
LEADER_CHANGES = _counter("isochrone_raft_leader_changes_total", "Leaders that this node learned of or lost", "group")
COMMIT_SECONDS = _histogram(
    "isochrone_raft_commit_seconds", "At the leader: from the proposal of an entry to its being applied", "group"
)
COMMANDS = _counter("isochrone_raft_commands_total", "Commands of clients that were applied, at the leader", "group")
QUEUED_COMMANDS = _gauge("isochrone_raft_queued_commands", "Commands that wait to be proposed", "group")
QUEUED_BYTES = _gauge("isochrone_raft_queued_bytes", "Bytes of them", "group")

# ---- locks: at the group's leader

LOCK_ACQUISITION = _histogram(
    "isochrone_lock_acquisition_seconds",
    "From the proposal of a request for a lock to its grant, by whether it had to wait",
    "group",
    "waited",
)
LOCK_PREDICTED = _gauge(
    "isochrone_lock_acquisition_predicted_seconds",
    "What the topology predicts for a client in a region, of a lock that is free",
    "group",
    "client_region",
)
LOCK_WAITS = _counter(
    "isochrone_lock_waits_total", "Requests for locks that had to wait, by how it ended", "group", "end"
)
LOCKS = _gauge("isochrone_lock_active", "Locks that are held, waited for or delayed", "group")
HELD_TOO_LONG = _gauge("isochrone_lock_held_too_long", "Holders that hold a lock beyond the warning time now", "group")
HELD_TOO_LONG_TOTAL = _counter("isochrone_lock_held_too_long_total", "Grants that were warned about", "group")
TOKEN_REJECTIONS = _counter(
    "isochrone_lock_token_rejections_total", "Transactions refused for a fencing token out of date", "group"
)

# ---- sessions, leases, watches, keys

SESSIONS = _gauge("isochrone_session_open", "Sessions of clients, as applied here", "group")
SESSION_EXPIRIES = _counter("isochrone_session_expiries_total", "Sessions that expired, at the leader", "group")
RETRIES = _counter(
    "isochrone_session_retries_total", "Commands that came again and got the stored result, at the leader", "group"
)
LEASES = _gauge("isochrone_lease_open", "Leases, as applied here", "group")
LEASE_EXPIRIES = _counter(
    "isochrone_lease_expiries_total", "Leases that ran out without being revoked, at the leader", "group"
)
WATCHERS = _gauge("isochrone_watch_watchers", "Watchers served by this node", "group")
WATCHERS_BEHIND = _gauge("isochrone_watch_behind", "Watchers that read from the history", "group")
WATCH_EVENTS = _counter("isochrone_watch_events_total", "Events handed to watchers of this node", "group")
WATCH_LAG = _histogram(
    "isochrone_watch_lag_seconds", "Of each batch of events: how long its watcher had not been told everything", "group"
)
REVISION = _gauge("isochrone_kv_revision", "Revision as applied here", "group")
READS = _counter("isochrone_kv_reads_total", "Linearizable queries that came to the leader", "group")

# ---- the node

ERRORS = _counter("isochrone_errors_total", "Requests that ended with an error, by its class", "api", "error")
KEPT = _gauge("isochrone_clients_kept_bytes", "Bytes kept for clients: answers not taken, requests not whole")
KEPT_LIMIT = _gauge("isochrone_clients_kept_limit_bytes", "How much that may be for all of them")
CUT_OFF = _counter("isochrone_clients_cut_off_total", "Clients cut off since that was too much, and theirs the most")
LOOP_LAG = _histogram("isochrone_event_loop_lag_seconds", "How late a timer of each second came")
STORE_SIZE = _gauge("isochrone_store_size_bytes", "What the store's pages take")
STORE_LIMIT = _gauge("isochrone_store_limit_bytes", "Where the store is full")
STORE_COMMIT = _histogram("isochrone_store_commit_seconds", "Commits to the store, with their sync")
CLOCK_UNCERTAINTY = _gauge(
    "isochrone_clock_uncertainty_seconds", "Bound of the clock's error; +Inf while none is known"
)
NODE_EVENTS = _counter(
    "isochrone_node_events_total", "What `isochrone status` counts; names of events may change", "event"
)

CATALOGUE = tuple(_all)
"""All of them, in the order in which they are published."""
