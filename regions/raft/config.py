"""Settings of one replica of one group."""

from dataclasses import dataclass

from isochrone.ids import GroupId, Nanos, NodeId


@dataclass(frozen=True, slots=True, kw_only=True)
class RaftConfig:
    """Settings of one replica. Times are nanoseconds."""

    group: GroupId
    node: NodeId
    heartbeat_ns: Nanos
    """How often a leader renews its leadership. Below the links' round trip it only adds traffic."""
    election_timeout_ns: Nanos
    """Base T. Timeouts are drawn from [T, 1.5 T]; a leader that hears no quorum for T steps down.

    Too small: a slow link deposes healthy leaders. Too large: a failed leader is missed late.
    """
    quiesce_after_ns: Nanos | None = None
    """How long a leader without work waits before the group sleeps; None: never.

    The host must then watch the sleepers (`regions.node_heartbeats`).
    """
    preferred_leaders: tuple[NodeId, ...] = ()
    """Nodes whose full voters should lead, the best first; others hand over to them (`hand_back`). Empty: anyone."""
    lease_reads: bool = False
    """Answer reads under a lease (`lease`): sound only while every node's clock keeps the bound below."""
    clock_drift_ppm_max: int = 100_000
    """How wrong any node's monotonic clock may run, in parts per million of true time. Leases are that much shorter.

    Quartz is wrong by less than 100, but that clock is also slewed: by up to 500 under ntpd (the kernel's limit), and
    by default up to 83,333 under chronyd (`maxslewrate` in chrony.conf(5)).
    """
    append_bytes_max: int = 1 << 20
    """Most entry bytes in one append request (one entry may exceed it)."""
    inflight_messages_max: int = 128
    """Most unacknowledged append requests to one peer."""
    inflight_bytes_max: int = 16 << 20
    """Most unacknowledged entry bytes to one peer. By Little's law this over the round trip bounds the throughput."""
    uncommitted_bytes_max: int = 64 << 20
    """Most entry bytes that a leader holds uncommitted; beyond, proposals are refused with `QueueFull`.

    The same bound holds for what is committed by others while the leader's own disk lags, beyond twice the cache.
    """
    cache_bytes_max: int = 32 << 20
    """Entries kept in memory for peers that are behind; older ones are read from storage."""
    apply_bytes_max: int = 4 << 20
    """Most entry bytes handed out at once to be applied."""
    truncate_entries_min: int = 1024
    """A replica drops its prefix once this many entries can go, or `truncate_bytes_min`."""
    truncate_bytes_min: int = 4 << 20
    """See `truncate_entries_min`."""
    keep_entries: int = 8192
    """A replica with state keeps this many of its last entries, as far as they fit into `keep_bytes`.

    A learner that was away for as long is fed from the log; one that was away for longer gets a snapshot.
    """
    keep_bytes: int = 16 << 20
    """See `keep_entries`."""
    snapshot_chunk_bytes: int = 1 << 20
    """Most bytes of rows in one chunk of a snapshot (one row may exceed it).

    One chunk is under way to a peer at a time, so this over the round trip bounds the throughput.
    """
    log_bytes_max: int = 4 << 30
    """The log cap: most encoded bytes that a leader's log may retain for a full voter that is behind.

    At the cap the group refuses proposals until that voter returns or is removed: what it needs is never dropped.
    Larger: a voter may be down for longer under load. Smaller: less disk, and less to send when it returns.
    """

    def __post_init__(self) -> None:
        """Refuse relations that cannot work; a fault of whoever built the configuration."""
        kept_bytes = self.keep_bytes + self.truncate_bytes_min
        if self.log_bytes_max <= kept_bytes:
            raise ValueError(
                f"a log cap of {self.log_bytes_max} bytes leaves no room beside {kept_bytes} bytes that are kept anyway"
            )
        if not 0 < self.heartbeat_ns < self.election_timeout_ns:
            raise ValueError(
                f"heartbeat of {self.heartbeat_ns} ns must be positive and below the election timeout of "
                f"{self.election_timeout_ns} ns"
            )
        if not 0 <= self.clock_drift_ppm_max < 1_000_000:
            raise ValueError(f"a clock cannot drift by {self.clock_drift_ppm_max} ppm and still tell time")
