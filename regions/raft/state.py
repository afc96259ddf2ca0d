"""The mutable state of one replica, shared by the verb families (`election`, `replication`, `reading`, `lease`,
`transfer`, `quiescence`, `relay`).

Only those modules and `node` touch it. Messages are queued in one of two lists, which decides what must be durable
first: `send` for what depends on nothing that is not durable yet, `send_when_durable` for everything else.
"""

import random
from collections import deque
from dataclasses import dataclass, field
from enum import StrEnum

from isochrone.ids import LogIndex, Nanos, NodeId, ReplicaRole, StoreId, Term, Timestamp
from isochrone.ports import LoggedConfiguration, StagedSnapshot, StoredGroup
from isochrone.regions.raft.changes import (
    all_members,
    full_voters,
    history_of,
    keeps_state,
    role_or_former,
    standing,
    votes_as,
)
from isochrone.regions.raft.config import RaftConfig
from isochrone.regions.raft.log import RaftLog
from isochrone.regions.raft.progress import Progress
from isochrone.regions.raft.quorum import Half, voter_halves
from isochrone.regions.raft.ready import AppendToken, Event, EventName, Fetch, Outgoing, ReadReady, SnapshotRead
from isochrone.wire.messages import Configuration, HardState, Member, RaftMessage, SnapshotChunk


class Office(StrEnum):
    """What a replica is doing about leadership."""

    FOLLOWER = "follower"
    PRE_CANDIDATE = "pre-candidate"
    CANDIDATE = "candidate"
    LEADER = "leader"


_LEADER = Office.LEADER
"""Looked up once: looking up a member of an enumeration is slow, and `is_leader` is asked all the time."""


@dataclass(slots=True)
class WaitingRead:
    """Reads that wait for a heartbeat round to be confirmed by a quorum."""

    round: int
    index: LogIndex
    contexts: list[int]


@dataclass(slots=True)
class Transfer:
    """A transfer of leadership that is under way."""

    target: NodeId
    deadline: Nanos
    """When the leader gives it up and serves on."""
    told: Nanos | None = None
    """When the target was last told to campaign."""


@dataclass(slots=True)
class Steadiness:
    """How long a preferred voter has been in contact and up to date, as its leader sees it."""

    since: Nanos
    goal: LogIndex
    """What it is to hold next: what was committed at `goal_at`."""
    goal_at: Nanos


@dataclass(slots=True)
class HandBack:
    """What a replica knows about giving the leadership back to those preferred; see `hand_back`."""

    wait_ns: int = 0
    """For how long a preferred voter must be steady."""
    steady: dict[NodeId, Steadiness] = field(default_factory=dict)
    looked: Nanos = Nanos(0)
    """When it was last looked at."""
    handed_at: Nanos | None = None
    """When this replica last handed back, until that is known to have failed or it leads again."""


@dataclass(slots=True)
class Outbox:
    """What has gathered for the next `Ready`."""

    free: list[Outgoing] = field(default_factory=list)
    when_durable: list[Outgoing] = field(default_factory=list)
    reads: list[ReadReady] = field(default_factory=list)
    refused_reads: list[int] = field(default_factory=list)
    fetches: list[Fetch] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    snapshot_reads: list[SnapshotRead] = field(default_factory=list)
    snapshot_ends: list[int] = field(default_factory=list)
    load: bool = False
    truncate_to: LogIndex | None = None
    chunk: SnapshotChunk | None = None

    @property
    def holds_anything(self) -> bool:
        """Whether something has gathered besides what always brings a write along."""
        snapshots = self.snapshot_reads or self.snapshot_ends or self.load
        return bool(self.free or self.reads or self.refused_reads or self.fetches or self.events or snapshots)


@dataclass(slots=True)
class RaftState:
    """One replica. Invariant: applied <= handed_to_apply <= commit <= last index of the log."""

    config: RaftConfig
    store: StoreId
    """Whose replica this is: a member is a node with one particular store."""
    configuration: Configuration
    """The one in force: the last in the log."""
    log: RaftLog
    rng: random.Random
    term: Term
    vote: NodeId | None
    commit: LogIndex
    applied: LogIndex
    handed_to_apply: LogIndex
    role: ReplicaRole
    """See `changes.standing`; without membership a learner, or a witness if it keeps no state."""
    may_campaign: bool
    """Whether this replica may ask for votes: it is a voter, or not yet known for certain to be none."""
    keeps_state: bool
    """Whether this replica applies what is committed; settled when it starts."""
    configurations: list[LoggedConfiguration]
    """See `configuration_log`; the last one is `configuration`."""
    members: dict[NodeId, Member]
    """Everyone in either half of the configuration, in order of name."""
    halves: tuple[Half, ...]
    full_voters: tuple[NodeId, ...]
    """See `changes.full_voters`."""
    stored: HardState
    """The hard state last handed out to be stored."""
    durable_term: Term
    """Term of the last hard state known to be durable."""
    last_timestamp: Timestamp
    """Largest timestamp that this log has ever held; entries appended here go above it."""
    office: Office = Office.FOLLOWER
    leader: NodeId | None = None
    leader_contact: Nanos = Nanos(0)
    """When this replica last heard from a leader of its term."""
    election_deadline: Nanos | None = None
    """When to campaign; None on a witness that has no reason to."""
    election_timeout: Nanos = Nanos(0)
    """What was drawn last. While one leader is heard it stays the same; a draw for each message would say no more."""
    held_by_full: LogIndex = LogIndex(0)
    """Every full voter is known to hold the log up to here, durably."""
    gave_way: bool = False
    """Since the last leader was lost, this replica left an election to another one."""
    transferring: bool = False
    """This campaign is at the old leader's wish."""
    votes: dict[NodeId, bool] = field(default_factory=dict)
    progress: dict[NodeId, Progress] = field(default_factory=dict)
    """On the leader: every other member, and those in `departing`, in order of name."""
    departing: dict[NodeId, Nanos] = field(default_factory=dict)
    """On the leader: members removed of late, fed until they know it, or until the time given."""
    term_start: LogIndex = LogIndex(0)
    """On the leader: index of its no-op. Reads wait until it is committed."""
    uncommitted_bytes: int = 0
    quiescent: bool = False
    """This replica sleeps (see `quiescence`): a leader sends no heartbeats, a follower runs no election timer."""
    slept_without: tuple[NodeId, ...] = ()
    """On a quiescent leader: the learners that did not answer when it fell asleep."""
    active_at: Nanos = Nanos(0)
    """On the leader: when there was work last."""
    heartbeat_deadline: Nanos = Nanos(0)
    quorum_deadline: Nanos = Nanos(0)
    """On the leader: when to look whether a quorum was heard. Never after the time at which it must step down, unless
    the configuration has changed since the last heartbeat."""
    round: int = 0
    waiting_reads: deque[WaitingRead] = field(default_factory=deque)
    new_reads: list[int] = field(default_factory=list)
    """Contexts of reads that no round has been started for."""
    leased_reads: list[int] = field(default_factory=list)
    """Contexts of reads that may be answered under the lease."""
    lease_given_up: bool = False
    """On the leader: it has told another replica to campaign in this term."""
    promised_until: Nanos = Nanos(0)
    """Until then this replica helps to elect nobody; see `lease`."""
    broadcast: bool = False
    """There are new entries to send."""
    commit_news: bool = False
    """More is committed of what some peer holds than it was told; if it gets no entries, it is told by a heartbeat that
    wants no answer."""
    wants_news: bool = True
    """Somebody waits here for what is committed; a leader is told so in answers."""
    asked_by_full: bool = False
    """The leader at whose wish this replica last campaigned could have gone on: it was no relay, and not removed."""
    hand_back: HandBack = field(default_factory=HandBack)
    transfer: Transfer | None = None
    """On the leader: the office is being handed over, and nothing is proposed."""
    handed_over: dict[NodeId, Nanos] = field(default_factory=dict)
    """On a relay: when each replica was last told to take over."""
    snapshot_attempts: int = 0
    """How many snapshots this replica began to send since it started."""
    staged: StagedSnapshot | None = None
    """What is staged of a snapshot, or on its way to be; its generation is known to the store only."""
    installed: AppendToken | None = None
    """The write that switches to a snapshot, until it is durable."""
    loading: LogIndex | None = None
    """Nothing is handed out to be applied before the snapshot that was installed up to here is loaded."""
    out: Outbox = field(default_factory=Outbox)

    @property
    def node(self) -> NodeId:
        """Name of this replica's node."""
        return self.config.node

    @property
    def is_leader(self) -> bool:
        """Whether this replica leads, be it as a relay."""
        return self.office is _LEADER

    @property
    def is_relay(self) -> bool:
        """Whether this replica is a witness that leads only to feed a full replica and hand over."""
        return self.is_leader and self.role is ReplicaRole.WITNESS

    def lacks_state(self) -> bool:
        """Whether this replica is counted on for state that it has not: it was a witness, and was added anew.

        It must not acknowledge anything, or it would be taken for a copy.
        """
        return not self.keeps_state and self.role is not ReplicaRole.WITNESS

    def send(self, to: NodeId, message: RaftMessage) -> None:
        """Queue a message that depends on nothing that is not durable."""
        self.out.free.append(Outgoing(to, message))

    def send_when_durable(self, to: NodeId, message: RaftMessage) -> None:
        """Queue a message that may leave only after everything in memory now is durable."""
        self.out.when_durable.append(Outgoing(to, message))

    def reply(self, to: NodeId, message: RaftMessage) -> None:
        """Queue an answer that depends on the term only: it may leave at once if the term is durable."""
        if self.durable_term == self.term:
            self.send(to, message)
        else:
            self.send_when_durable(to, message)

    def event(self, name: EventName, index: LogIndex | None = None, peer: NodeId | None = None) -> None:
        """Note a trace event."""
        self.out.events.append(Event(name, self.term, self.log.last_index if index is None else index, peer))

    def wake_up(self) -> None:
        """End quiescence, if there is any. Timers are the caller's."""
        if self.quiescent:
            self.quiescent, self.slept_without = False, ()
            self.event(EventName.WOKE)

    def hard_state(self) -> HardState:
        """What must not be forgotten, as of now."""
        return HardState(self.term, self.vote, self.commit)

    def draw_election_timeout(self) -> Nanos:
        """A new timeout from [T, 1.5 T]."""
        base = self.config.election_timeout_ns
        self.election_timeout = Nanos(base + self.rng.randrange(base // 2 + 1))
        return self.election_timeout


def new_state(
    config: RaftConfig,
    store: StoreId,
    stored: StoredGroup,
    log: RaftLog,
    last_timestamp: Timestamp,
    rng: random.Random,
) -> RaftState:
    """State of a replica that has just started as a follower."""
    configuration, hard_state = stored.effective_configuration, stored.hard_state
    commit = max(hard_state.commit, stored.applied)
    history = history_of(stored)
    role = standing(history, config.node, store, commit)
    keeps = keeps_state(stored, config.node)
    applied = stored.applied if keeps else commit
    return RaftState(
        config=config,
        store=store,
        configuration=configuration,
        log=log,
        rng=rng,
        term=hard_state.term,
        vote=hard_state.vote,
        commit=commit,
        applied=applied,
        handed_to_apply=applied,
        role=role_or_former(role, keeps_state=keeps),
        may_campaign=votes_as(role),
        keeps_state=keeps,
        configurations=history,
        members=all_members(configuration),
        halves=voter_halves(configuration),
        full_voters=full_voters(history, commit),
        stored=hard_state,
        durable_term=hard_state.term,
        last_timestamp=max(last_timestamp, stored.base_timestamp),
        held_by_full=stored.truncated_index if role is ReplicaRole.WITNESS else LogIndex(0),
        staged=stored.staged,
    )
