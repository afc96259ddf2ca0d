"""What the world of a scenario consists of: nodes with their disks, writes that wait, messages on their way."""

import random
from collections import Counter, deque
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, TypeVar

from scenario_trace import chunk_text, entries_text, hard_state_text

from isochrone.clocks.interval import Interval
from isochrone.ids import ClusterId, Incarnation, KeyspaceId, LogIndex, Nanos, NodeId, StoreId, Term, Timestamp
from isochrone.ports import SnapshotReader, StoreIdentity, WriteBatch
from isochrone.regions.intake import Intake
from isochrone.regions.raft.node import RaftNode
from isochrone.regions.raft.ready import AppendWork, ReadReady
from isochrone.regions.storage.memory import MemoryStore
from isochrone.wire.entries import make_entry
from isochrone.wire.messages import Entry, EntryKind, Member, RaftMessage

T = TypeVar("T")
KEYSPACE = KeyspaceId("k/")


class Level(Enum):
    """How much of what happens is shown."""

    ALL = "all"
    EVENTS = "events"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Settings:
    """What all nodes of a scenario share. Times are milliseconds."""

    heartbeat_ms: int
    election_ms: int
    link_ms: int
    raft: dict[str, Any]


class FixedJitter(random.Random):
    """Draws the one election jitter that the scenario states for a node."""

    def __init__(self, jitter_ns: int) -> None:
        super().__init__(0)
        self._jitter_ns = jitter_ns

    def randrange(self, start: int, stop: int | None = None, step: int = 1) -> int:
        """The jitter."""
        assert stop is None and self._jitter_ns < start, "a draw that is not an election jitter"
        return self._jitter_ns


@dataclass(slots=True)
class Flight:
    """A message on its way."""

    source: NodeId
    target: NodeId
    store: StoreId
    incarnation: Incarnation
    message: RaftMessage
    due: int


@dataclass(frozen=True, slots=True)
class Pending:
    """A write that waits for its sync."""

    batch: WriteBatch
    work: AppendWork | None

    def text(self) -> str:
        """What is written, on one line."""
        parts = [f"incarnation of {node}={number}" for node, number in self.batch.incarnations.items()]
        for log in self.batch.logs:
            parts += [chunk_text(log.chunk)] if log.chunk else []
            parts += ["discard-staged"] if log.discard_staged else []
            parts += [hard_state_text(log.hard_state)] if log.hard_state else []
            parts += [entries_text(log.entries)] if log.entries else []
            parts += [f"truncate={log.truncate_to}"] if log.truncate_to is not None else []
        return " ".join(parts) or "nothing"

    @property
    def stores(self) -> bool:
        """Whether anything goes to disk."""
        return bool(self.batch.logs or self.batch.incarnations)


@dataclass(slots=True)
class Site:
    """One node: its disk, and while it is up its core."""

    name: NodeId
    member: Member
    """What the node is as a member; its store is the one that it was added with."""
    rng: FixedJitter
    store: MemoryStore
    intake: Intake = field(init=False)
    counters: Counter[str] = field(default_factory=Counter)
    core: RaftNode | None = None
    pending: deque[Pending] = field(default_factory=deque)
    applied: list[Entry] = field(default_factory=list)
    commit: int = 0
    keeps_state: bool = True
    rows_queued: int = 0
    """Up to where rows of what is applied are on disk, or on their way there."""
    loading: bool = False
    """A snapshot is on its way to the disk, and then into memory."""
    snapshots: dict[int, SnapshotReader] = field(default_factory=dict)
    """Those that are being read for peers, by attempt."""
    loses_snapshots: bool = False
    """Its store cannot give snapshots that it has begun to give."""
    waiting_reads: list[ReadReady] = field(default_factory=list)
    lives: int = 0
    wipes: int = 0


class ScenarioClock:
    """True time is the scenario's."""

    def __init__(self) -> None:
        self.time = Nanos(0)

    def monotonic(self) -> Nanos:
        """The scenario's time."""
        return self.time

    def now(self) -> Interval:
        """The scenario's time, exactly."""
        return Interval(Timestamp(self.time), Timestamp(self.time))


def log_of_terms(terms: Sequence[int]) -> tuple[Entry, ...]:
    """A log with entries of these terms. Equal index and term is the same entry."""
    return tuple(
        make_entry(
            index=LogIndex(index),
            term=Term(term),
            kind=EntryKind.COMMANDS,
            timestamp=Timestamp(index),
            keyspace=KEYSPACE,
            data=b"%d.%d" % (index, term),
        )
        for index, term in enumerate(terms, start=1)
    )


def store_identity(member: Member) -> StoreIdentity:
    """Of a store that has never been opened."""
    return StoreIdentity(ClusterId("c"), member.node, member.store, Incarnation(0))


def finish(coroutine: Coroutine[Any, Any, T]) -> T:
    """The result of a call to a memory store, which never suspends."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    raise AssertionError("a call to a memory store has suspended")


def must_succeed(error: Exception | None) -> None:
    """Takes the end of a write to a memory store, before `write` returns."""
    if error is not None:
        raise error
