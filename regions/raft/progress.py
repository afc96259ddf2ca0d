"""What a leader knows of one peer's log, and how it feeds it.

`PROBE`: one append request at a time, to find where the logs match. `REPLICATE`: the match is known; requests are
pipelined, `next` runs ahead, and a window of messages and bytes bounds what is unacknowledged.
"""

from collections import deque
from dataclasses import dataclass, field
from enum import StrEnum

from isochrone.ids import LogIndex, Nanos, Timestamp


class Feed(StrEnum):
    """How a peer is fed."""

    PROBE = "probe"
    REPLICATE = "replicate"


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

    def can_send(self, messages_max: int, bytes_max: int) -> bool:
        """Whether one more request with entries may go out."""
        if self.fetching:
            return False
        if self.feed is Feed.PROBE:
            return not self.probing
        return len(self.inflight) < messages_max and self.inflight_bytes < bytes_max

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

    def _become(self, feed: Feed) -> None:
        self.feed = feed
        self.probing = False
        self.inflight.clear()
        self.inflight_bytes = 0
