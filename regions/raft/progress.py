"""What a leader knows of one peer's log, and how it feeds it.

`PROBE`: one append request at a time, to find where the logs match. `REPLICATE`: the match is known; requests are
pipelined, `next` runs ahead, and a window of messages and bytes bounds what is unacknowledged. `SNAPSHOT`: the log no
longer holds what the peer needs next (`snapshots`); no request goes out until it does.
"""

from collections import deque
from dataclasses import dataclass, field
from enum import StrEnum

from isochrone.ids import LogIndex, Nanos, Timestamp
from isochrone.wire.messages import SnapshotChunk


class Feed(StrEnum):
    """How a peer is fed."""

    PROBE = "probe"
    REPLICATE = "replicate"
    SNAPSHOT = "snapshot"


@dataclass(slots=True)
class SnapshotFeed:
    """One attempt to bring a peer a snapshot."""

    attempt: int
    progressed: Nanos
    """When the peer last acknowledged a chunk."""
    sent: Nanos
    """When the chunk under way was last sent."""
    index: LogIndex | None = None
    """The snapshot reflects the log up to here; None until the store has opened it."""
    chunk: SnapshotChunk | None = None
    """Under way; None while it is read."""
    position: int = 0
    """Bytes that the peer holds durably."""
    checksum: int = 0
    """Of these bytes."""


@dataclass(slots=True)
class Progress:
    """State of one peer. Invariant: match < next."""

    next: LogIndex
    last_contact: Nanos
    """When the peer last answered in this term; before its first answer, when this leader took office."""
    match: LogIndex = LogIndex(0)
    """Highest index known to be durable on the peer."""
    match_timestamp: Timestamp | None = None
    """The last one of the entry at `match`; None if memory did not hold that any more when the peer acknowledged it."""
    told_commit: LogIndex = LogIndex(0)
    """The highest commit index that it was told. If that was lost, heartbeats make it good."""
    wants_news: bool = True
    """Somebody waits there for what is committed, by the peer's last answer."""
    feed: Feed = Feed.PROBE
    probing: bool = False
    """In PROBE: a request is out; wait for its answer or for a heartbeat's."""
    fetching: bool = False
    """Entries for the peer are being read from storage."""
    retried: Nanos = Nanos(0)
    """When a heartbeat's answer last led to a retry. Reads bring many answers; one retry for each would be a flood."""
    acked_round: int = 0
    """Highest heartbeat round that the peer has answered."""
    timed_round: int = 0
    """Heartbeat round whose answer is awaited to renew the lease; 0 if none is."""
    timed_sent: Nanos = Nanos(0)
    """When that round was sent."""
    promised_since: Nanos = Nanos(-(1 << 62))
    """When the latest timed heartbeat that the peer has answered was sent; before any answer, in the far past."""
    inflight: deque[tuple[LogIndex, int]] = field(default_factory=deque)
    """(last index, bytes) of each unacknowledged request with entries."""
    inflight_bytes: int = 0
    snapshot: SnapshotFeed | None = None
    """In SNAPSHOT: the attempt under way."""

    @property
    def held(self) -> LogIndex | None:
        """The peer has everything up to here, or gets it by a snapshot; None: the snapshot's index is not known yet."""
        return self.match if self.snapshot is None else self.snapshot.index

    @property
    def waits(self) -> bool:
        """Whether nothing can be sent before an answer, entries from storage, or the end of a snapshot."""
        return self.fetching or self.probing or self.feed is Feed.SNAPSHOT

    def can_send(self, messages_max: int, bytes_max: int) -> bool:
        """Whether one more request with entries may go out."""
        if self.waits:
            return False
        return self.feed is Feed.PROBE or (len(self.inflight) < messages_max and self.inflight_bytes < bytes_max)

    def sent(self, last: LogIndex, size_bytes: int) -> None:
        """Note a request whose last entry is `last`."""
        if self.feed is Feed.PROBE:
            self.probing = True
            return
        self.next = LogIndex(last + 1)
        self.inflight.append((last, size_bytes))
        self.inflight_bytes += size_bytes

    def accepted(self, index: LogIndex) -> bool:
        """Note that the peer holds everything up to `index`. Returns whether that was news."""
        while self.inflight and self.inflight[0][0] <= index:
            self.inflight_bytes -= self.inflight.popleft()[1]
        news = index > self.match
        self.match = max(self.match, index)
        self.next = max(self.next, LogIndex(self.match + 1))
        if self.feed is Feed.PROBE and (news or index == self.match):
            self._become(Feed.REPLICATE)
            self.next = LogIndex(self.match + 1)
        return news

    def refused(self, rejected: LogIndex, match_hint: LogIndex) -> bool:
        """Note that the peer does not hold the entry at `rejected`. Returns False for a stale refusal."""
        if self.feed is Feed.SNAPSHOT:
            return False
        if self.feed is Feed.REPLICATE:
            if rejected <= self.match:
                return False
            self._become(Feed.PROBE)
            self.next = LogIndex(max(self.match, min(match_hint, rejected - 1)) + 1)
            return True
        if rejected != self.next - 1:
            return False
        self.next = LogIndex(max(self.match, min(match_hint, rejected - 1)) + 1)
        self.probing = False
        return True

    def begin_snapshot(self, feed: SnapshotFeed) -> None:
        """Stop feeding from the log."""
        self._become(Feed.SNAPSHOT)
        self.snapshot = feed

    def end_snapshot(self, feed: Feed) -> None:
        """Feed from the log again; in PROBE only once the peer is heard again."""
        self._become(feed)
        self.snapshot = None
        self.probing = feed is Feed.PROBE
        if feed is Feed.REPLICATE:
            self.next = LogIndex(self.match + 1)

    def _become(self, feed: Feed) -> None:
        self.feed = feed
        self.probing = False
        self.inflight.clear()
        self.inflight_bytes = 0
