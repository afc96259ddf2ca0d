"""What one replica has done since its process started, in numbers: counted here, published by `node.metrics`.

Pure: times are arguments. What the state machine reports (`Applied.happened`, `Applied.lock_notices`) is counted only
by a leader that applies what it appended itself, so that a sum over all nodes counts each happening once. What a leader
appended and a later one committed is not counted.
"""

from collections import Counter

from isochrone.histograms import Histogram
from isochrone.ids import Nanos
from isochrone.regions.raft.ready import Event, EventName
from isochrone.regions.state.machine import Applied
from isochrone.regions.state.model import Happening
from isochrone.wire.locks import LockEnd


class GroupMeasures:
    """See the module."""

    __slots__ = (
        "_candidate_since",
        "acquired_after_wait_ns",
        "acquired_at_once_ns",
        "commands",
        "commit_ns",
        "election_ns",
        "events",
        "happened",
        "waits_ended",
    )

    def __init__(self) -> None:
        self.events: Counter[EventName] = Counter()
        self.happened: Counter[Happening] = Counter()
        self.commands = 0
        """Commands of clients that were applied in office."""
        self.commit_ns = Histogram()
        """From the proposal of an entry to its being applied."""
        self.election_ns = Histogram()
        """Of elections won here: from the first attempt to the office."""
        self.acquired_at_once_ns = Histogram()
        """From the proposal of a request for a lock to its grant, where nothing stood in its way."""
        self.acquired_after_wait_ns = Histogram()
        """The same where it had to wait."""
        self.waits_ended: Counter[LockEnd] = Counter()
        """How requests for locks that had to wait ended."""
        self._candidate_since: Nanos | None = None

    def note(self, event: Event, now: Nanos) -> None:
        """The core said that something happened."""
        self.events[event.name] += 1
        match event.name:
            case EventName.BECAME_PRE_CANDIDATE | EventName.BECAME_CANDIDATE:
                if self._candidate_since is None:
                    self._candidate_since = now
            case EventName.BECAME_LEADER:
                if self._candidate_since is not None:
                    self.election_ns.record(now - self._candidate_since)
                self._candidate_since = None
            case EventName.BECAME_FOLLOWER:
                self._candidate_since = None

    def applied(self, applied: Applied, age_ns: int | None) -> None:
        """An entry was applied in office, so long after its proposal; None for one of the leader's own work."""
        self.commands += len(applied.outcomes)
        if age_ns is None:
            age_ns = 0
        else:
            self.commit_ns.record(age_ns)
        for happening in applied.happened:
            self.happened[happening] += 1
            if happening is Happening.LOCK_GRANTED:
                self.acquired_at_once_ns.record(age_ns)
        for notice in applied.lock_notices:
            self.waits_ended[notice.end] += 1
            if notice.end is LockEnd.GRANTED:
                self.acquired_after_wait_ns.record(max(0, notice.waited_ns) + age_ns)
