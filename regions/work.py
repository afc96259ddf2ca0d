"""What the replicas of a node want done, and what follows when some of it is durable."""

from dataclasses import dataclass, field

from isochrone.ids import GroupId, LogIndex
from isochrone.ports import LogWrite, Row
from isochrone.records import quickly_made
from isochrone.regions.raft.ready import AppendToken, Event, Fetch, Outgoing, SnapshotRead


@quickly_made
@dataclass(frozen=True, slots=True)
class Release:
    """What follows when one piece of a group's log has become durable."""

    group: GroupId
    token: AppendToken
    messages: tuple[Outgoing, ...]


@dataclass(slots=True)
class Turn:
    """What the replicas of a node want done. What concerns storage gathers here while a write is under way."""

    messages: list[tuple[GroupId, Outgoing]] = field(default_factory=list)
    logs: list[LogWrite] = field(default_factory=list)
    releases: list[Release] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    applied: dict[GroupId, LogIndex] = field(default_factory=dict)
    fetches: list[tuple[GroupId, Fetch]] = field(default_factory=list)
    snapshot_reads: list[tuple[GroupId, SnapshotRead]] = field(default_factory=list)
    snapshot_ends: list[tuple[GroupId, int]] = field(default_factory=list)
    loads: list[GroupId] = field(default_factory=list)
    replaced: list[GroupId] = field(default_factory=list)
    """A snapshot takes the place of all rows of these groups; what their old state still had to write is void."""
    events: list[tuple[GroupId, Event]] = field(default_factory=list)
    unfinished: list[GroupId] = field(default_factory=list)
    """Groups that go on in the next turn, after what else there is to do."""

    @property
    def asks_for_reads(self) -> bool:
        """Whether something is to be read from the store."""
        return bool(self.fetches or self.snapshot_reads or self.snapshot_ends or self.loads)
