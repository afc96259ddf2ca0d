"""A small deterministic cluster of `RaftNode`s: seeded network, disks that lose unsynced writes, virtual time.

It checks what must always hold while it runs: one leader and one vote of each voter per term, equal applied prefixes,
terms and votes that never fall back, nothing acknowledged missing from what is applied, reads that reflect every
write acknowledged before them, commits that a quorum of disks holds, and messages that leave only after what they
claim is durable. The continuous checks of a simulation (`drills/checkers/invariants.py`) watch it too.
"""

import heapq
import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from raft_disk import Disk, Rows, encode_state

from isochrone.drills.checkers.invariants import Invariants
from isochrone.ids import GroupId, KeyspaceId, LogIndex, Nanos, NodeId, ReplicaRole, StoreId, Term, Timestamp
from isochrone.ports import LogWrite
from isochrone.regions.raft.changes import all_members, keeps_state
from isochrone.regions.raft.config import RaftConfig
from isochrone.regions.raft.node import RaftNode
from isochrone.regions.raft.quorum import voter_halves
from isochrone.regions.raft.ready import AppendWork, Event, EventName, Fetch, Proposal, SnapshotPart, SnapshotRead
from isochrone.regions.raft.status import RaftStatus
from isochrone.regions.storage.log_bounds import configuration_at
from isochrone.wire.messages import (
    AppendRequest,
    AppendResponse,
    Configuration,
    Entry,
    Heartbeat,
    Member,
    RaftMessage,
    VoteRequest,
    VoteResponse,
)

GROUP = GroupId("g")
MS = 1_000_000
HEARTBEAT_MS = 100
ELECTION_MS = 1000


@dataclass
class Opened:
    """A snapshot that is being read, and what is left of it."""

    index: LogIndex
    term: Term
    configuration: Configuration
    rows: Rows


@dataclass
class Replica:
    """One node: its core while it is up, its disk, and writes that are on their way to it."""

    disk: Disk
    core: RaftNode | None = None
    pending: list[tuple[AppendWork, Rows | None]] = field(default_factory=list)
    applied: Rows = field(default_factory=list)
    loading: bool = False
    """A snapshot is on its way to the disk, and then into memory."""
    snapshots: dict[int, Opened] = field(default_factory=dict)
    reads: dict[int, int] = field(default_factory=dict)
    leased_reads: int = 0
    refused_reads: list[int] = field(default_factory=list)
    fetches: int = 0
    events: list[Event] = field(default_factory=list)
    life: int = 0


class Cluster:
    """See the module."""

    def __init__(
        self,
        roles: dict[str, ReplicaRole] | Iterable[str],
        seed: int = 1,
        *,
        delay_ms: Callable[[str, str], float] = lambda _a, _b: 10.0,
        jitter_ms: float = 2.0,
        loss: float = 0.0,
        disk_ms: float = 1.0,
        fetch_ms: float = 1.0,
        heartbeat_ms: int = HEARTBEAT_MS,
        election_ms: int = ELECTION_MS,
        disks: Mapping[str, Disk] | None = None,
        **config: Any,
    ) -> None:
        roles = dict(roles) if isinstance(roles, dict) else dict.fromkeys(roles, ReplicaRole.FULL)
        self.rng = random.Random(seed)
        self.now = 0
        self.delay_ms, self.jitter_ms, self.loss = delay_ms, jitter_ms, loss
        self.duplication = self.snapshot_loss = 0.0
        self.disk_ms, self.fetch_ms = disk_ms, fetch_ms
        self.on_write: Callable[[str], None] = lambda _name: None
        self.heartbeat_ms, self.election_ms = heartbeat_ms, election_ms
        self.config = config
        self.clock_ppm: dict[str, int] = {}
        """How wrong each replica's monotonic clock runs, in parts per million; absent ones are right."""
        self.configuration = Configuration(
            tuple(Member(NodeId(name), StoreId(f"store-{name}"), role) for name, role in roles.items())
        )
        self.roles = roles
        self.replicas = {name: Replica((disks or {}).get(name) or Disk()) for name in roles}
        self.cut: set[tuple[str, str]] = set()
        self.lose: Callable[[str, str, RaftMessage], bool] = lambda _source, _target, _message: False
        """Loses single messages."""
        self.hold_disk: set[str] = set()
        self.sent: list[tuple[str, str, RaftMessage]] = []
        self.leaders: dict[int, str] = {}
        self.chain: list[tuple[int, int, bytes]] = []
        self.acknowledged: dict[int, bytes] = {}
        self._proposed: set[tuple[int, int, bytes]] = set()
        self._reads: dict[int, int] = {}
        self._votes: dict[tuple[int, str], str] = {}
        self._checked_commit = 0
        self.invariants = Invariants()
        self._queue: list[tuple[int, int, Callable[[], None]]] = []
        self._sequence = 0
        for name in roles:
            self.start(name)

    # ---- faults

    def start(self, name: str) -> None:
        replica = self.replicas[name]
        assert replica.core is None
        config = RaftConfig(
            group=GROUP,
            node=NodeId(name),
            heartbeat_ns=Nanos(self.heartbeat_ms * MS),
            election_timeout_ns=Nanos(self.election_ms * MS),
            **self.config,
        )
        replica.life += 1
        replica.applied = list(replica.disk.rows)
        replica.loading = False
        replica.snapshots = {}
        rng = random.Random(f"{name}/{replica.life}/{self.rng.random()}")
        stored = replica.disk.load(self.configuration)
        self.invariants.restarted(GROUP, NodeId(name), stored)
        base = stored.applied if keeps_state(stored, NodeId(name)) else replica.disk.hard_state.commit
        kept = max(0, min(base + 1, stored.last_index) - stored.truncated_index - 1)
        replica.core = RaftNode(
            config, stored, replica.disk.entries[kept:], store=StoreId(f"store-{name}"), rng=rng, now=self.clock(name)
        )
        self.drain(name)

    def crash(self, name: str, *, keep: int = 0) -> None:
        """Stop at once; the first `keep` of the writes under way still reach the disk."""
        replica = self.replicas[name]
        replica.core = None
        replica.life += 1
        for work, rows in replica.pending[:keep]:
            self._write(name, work, rows)
        replica.pending.clear()

    def isolate(self, *names: str) -> None:
        """Cut the links between `names` and everyone else, both ways."""
        others = [other for other in self.replicas if other not in names]
        self.cut |= {pair for a in names for b in others for pair in ((a, b), (b, a))}

    def cut_between(self, a: str, b: str) -> None:
        self.cut |= {(a, b), (b, a)}

    def heal(self) -> None:
        self.cut.clear()

    # ---- running

    def at(self, time: int, action: Callable[[], None]) -> None:
        self._sequence += 1
        heapq.heappush(self._queue, (time, self._sequence, action))

    def run(self, duration_ms: float) -> None:
        self.run_until(lambda: False, duration_ms)

    def run_until(self, condition: Callable[[], bool], limit_ms: float) -> bool:
        """Run until the condition holds; returns whether it did within `limit_ms`."""
        end = self.now + round(limit_ms * MS)
        while not condition():
            time, tick = self._next(end)
            if time > end:
                self.now = end
                return condition()
            self.now = max(self.now, time)
            if tick is None:
                heapq.heappop(self._queue)[2]()
            else:
                core = self.replicas[tick].core
                assert core is not None
                core.tick(self.clock(tick))
                self.drain(tick)
        return True

    def _next(self, end: int) -> tuple[int, str | None]:
        best: tuple[int, str | None] = (self._queue[0][0], None) if self._queue else (end + 1, None)
        for name, replica in self.replicas.items():
            deadline = replica.core.next_deadline() if replica.core else None
            if deadline is None:
                continue
            # The first moment at which the replica's clock shows the deadline.
            time = max(self.now, -(-deadline * 1_000_000 // (1_000_000 + self.clock_ppm.get(name, 0))))
            if time < best[0]:
                best = (time, name)
        return best

    def clock(self, name: str) -> Nanos:
        """What the replica's monotonic clock shows now."""
        return Nanos(self.now * (1_000_000 + self.clock_ppm.get(name, 0)) // 1_000_000)

    def drain(self, name: str) -> None:
        """Do what the replica wants done."""
        replica = self.replicas[name]
        while (core := replica.core) is not None:
            ready = core.ready(self.clock(name))
            replica.events.extend(ready.events)
            for event in ready.events:
                if event.name is EventName.BECAME_LEADER:
                    assert self.leaders.setdefault(event.term, name) == name, f"two leaders in term {event.term}"
                    self.invariants.led(GROUP, NodeId(name), core.status().role, event.term)
            for outgoing in ready.messages:
                self._transmit(name, outgoing.to, outgoing.message)
            if ready.append is not None:
                chunk = ready.append.chunk
                replica.loading |= chunk is not None and chunk.last and chunk.with_state
                replica.pending.append((ready.append, None if replica.loading else replica.applied.copy()))
                self._schedule_disk(name)
            for entry in ready.committed:
                self._apply(replica, entry)
                self.invariants.applied(GROUP, NodeId(name), core.term, entry)
            if ready.committed:
                core.applied(ready.committed[-1].index)
            for read in ready.reads:
                for context in read.contexts:
                    assert read.index >= self._reads[context], f"read {context} misses an acknowledged write"
                    replica.reads[context] = read.index
                    replica.leased_reads += read.lease is not None
            replica.refused_reads.extend(ready.refused_reads)
            for fetch in ready.fetches:
                self._fetch(name, fetch)
            for attempt in ready.snapshot_ends:
                replica.snapshots.pop(attempt, None)
            for wanted in ready.snapshot_reads:
                self._read_snapshot(name, wanted)
            if ready.load:
                self._load(name)
            self._check_commit(core)
            status = core.status()
            self.invariants.observed(GROUP, NodeId(name), status.term, status.commit)
            assert not self.invariants.violations, self.invariants.violations[0]
            if not ready.committed:
                return

    def _check_commit(self, core: RaftNode) -> None:
        """Whatever a leader calls committed lies on the disks of a quorum."""
        status = core.status()
        if status.match and status.commit > self._checked_commit:
            self._checked_commit = status.commit
            voters = [node for half in voter_halves(status.configuration) for node in half.voters]
            # An entry of another term there is older: what is committed, every later leader has.
            term = max(self.replicas[node].disk.term_at(status.commit) or 0 for node in voters)
            holders = {NodeId(name) for name in self.replicas if self._holds(name, status.commit, term)}
            full = {node for node, member in all_members(status.configuration).items() if member.role.value == "full"}
            for half in voter_halves(status.configuration):
                text = f"entry {status.commit} is committed, but of {half.voters} only {sorted(holders)} hold it"
                assert len(holders & set(half.voters)) >= half.quorums.commit, text
                assert holders & full & set(half.voters), f"{text}, and none of them is a full replica"

    def _holds(self, name: str, index: int, term: int) -> bool:
        disk = self.replicas[name].disk
        return disk.truncated_index > index or disk.term_at(index) == term

    def _read_snapshot(self, name: str, read: SnapshotRead) -> None:
        """The state as of the first read of an attempt, in pieces, each after some time."""
        replica, life = self.replicas[name], self.replicas[name].life
        disk = replica.disk
        if read.attempt not in replica.snapshots:
            index = LogIndex(len(disk.rows))
            term = disk.term_at(index)
            assert term is not None, "the log does not reach down to the rows"
            configuration = configuration_at(disk.load(self.configuration), index)
            replica.snapshots[read.attempt] = Opened(index, Term(term), configuration, list(disk.rows))
        opened = replica.snapshots[read.attempt]
        rows: Rows = []
        while opened.rows and (not rows or len(encode_state(rows)) < read.bytes_max):
            rows.append(opened.rows.pop(0))
        last = not opened.rows
        part = SnapshotPart(opened.index, opened.term, opened.configuration, encode_state(rows), last)
        if self.rng.random() < self.snapshot_loss:
            part = None

        def complete() -> None:
            if replica.core is not None and replica.life == life:
                replica.core.snapshot_read(read.attempt, part, Nanos(self.now))
                self.drain(name)

        self.at(self.now + round(self.fetch_ms * MS), complete)

    def _load(self, name: str) -> None:
        replica, life = self.replicas[name], self.replicas[name].life

        def complete() -> None:
            if replica.core is not None and replica.life == life:
                replica.applied = list(replica.disk.rows)
                replica.loading = False
                replica.core.snapshot_loaded(LogIndex(len(replica.applied)))
                self.drain(name)

        self.at(self.now + round(self.fetch_ms * MS), complete)

    def _fetch(self, name: str, fetch: Fetch) -> None:
        replica, life = self.replicas[name], self.replicas[name].life
        disk = replica.disk
        replica.fetches += 1
        assert disk.truncated_index < fetch.first <= disk.last_index, f"entry {fetch.first} is not in storage"
        first = fetch.first - disk.truncated_index - 1
        entries = disk.entries[first : first + min(10, fetch.last + 1 - fetch.first)]

        def complete() -> None:
            if replica.core is not None and replica.life == life:
                replica.core.fetched(fetch.peer, entries)
                self.drain(name)

        self.at(self.now + round(self.fetch_ms * MS), complete)

    def _apply(self, replica: Replica, entry: Entry) -> None:
        record = (entry.index, entry.term, entry.data)
        assert entry.index == len(replica.applied) + 1, "applied out of order"
        replica.applied.append(record)
        if len(self.chain) < entry.index:
            self.chain.append(record)
        assert self.chain[entry.index - 1] == record, f"replicas applied different entries at {entry.index}"
        if record in self._proposed:
            self.acknowledged[entry.index] = entry.data

    def _schedule_disk(self, name: str) -> None:
        life = self.replicas[name].life

        def complete() -> None:
            replica = self.replicas[name]
            if replica.life != life or name in self.hold_disk or not replica.pending:
                return
            self.on_write(name)
            if replica.life == life:
                self.complete_write(name)

        self.at(self.now + round(self.disk_ms * MS), complete)

    def resume_disk(self, name: str) -> None:
        """Let a held disk go on with what has gathered."""
        self.hold_disk.discard(name)
        while self.replicas[name].pending:
            self.complete_write(name)

    def complete_write(self, name: str) -> None:
        """The oldest write under way becomes durable."""
        replica = self.replicas[name]
        work, rows = replica.pending.pop(0)
        self._write(name, work, rows)
        assert replica.core is not None
        replica.core.persisted(work.token, self.clock(name))
        for outgoing in work.release:
            self._transmit(name, outgoing.to, outgoing.message)
        self.drain(name)

    def _write(self, name: str, work: AppendWork, rows: Rows | None) -> None:
        self.replicas[name].disk.write(work, rows)
        self.invariants.wrote(
            GROUP,
            NodeId(name),
            LogWrite(GROUP, work.hard_state, work.entries, work.truncate_to, work.chunk, work.discard_staged),
        )

    def _transmit(self, source: str, target: str, message: RaftMessage) -> None:
        self.sent.append((source, target, message))
        self._check_durable(source, target, message)
        self.invariants.sent(GROUP, NodeId(source), NodeId(target), message)
        if (source, target) in self.cut or self.rng.random() < self.loss or self.lose(source, target, message):
            return
        if self.rng.random() < self.duplication:
            self._deliver_later(source, target, message)
        self._deliver_later(source, target, message)

    def _check_durable(self, source: str, target: str, message: RaftMessage) -> None:
        """What a message claims of its sender must be on the sender's disk already."""
        disk = self.replicas[source].disk
        match message:
            case VoteRequest():
                claim = (message.last_index, message.last_term)
                assert (disk.last_index, disk.term_at(disk.last_index)) == claim, (
                    "a log is claimed before it is durable"
                )
                if message.pre:
                    return
                self._check_one_vote(message.term, source, source)
            case VoteResponse() if message.granted and message.pre:
                return
            case VoteResponse() if message.granted:
                self._check_one_vote(message.term, source, target)
            case AppendResponse() if message.accepted:
                assert disk.last_index >= message.index, "entries are acknowledged before they are durable"
            case AppendRequest():
                self._check_truncation(source, message.truncate_to, message.commit)
            case Heartbeat():
                assert self.replicas[target].disk.last_index >= message.commit, "a commit index beyond the follower"
                self._check_truncation(source, message.truncate_to, message.truncate_to)
        assert disk.hard_state.term >= message.term, "a term leaves before it is durable"

    def _check_truncation(self, source: str, truncate_to: int, commit: int) -> None:
        core = self.replicas[source].core
        if core is None:
            return
        members = all_members(core.status().configuration).values()
        full = [self.replicas[member.node].disk for member in members if member.role is ReplicaRole.FULL]
        assert truncate_to <= min(commit, *(disk.last_index for disk in full)), "a full voter needs what may be dropped"

    def _check_one_vote(self, term: int, voter: str, candidate: str) -> None:
        stored = self.replicas[voter].disk.hard_state
        assert (stored.term, stored.vote) == (term, candidate), "a vote leaves before it is durable"
        assert self._votes.setdefault((term, voter), candidate) == candidate, f"{voter} votes twice in term {term}"

    def _deliver_later(self, source: str, target: str, message: RaftMessage) -> None:
        delay = self.delay_ms(source, target) + self.rng.uniform(0, self.jitter_ms)

        def deliver() -> None:
            core = self.replicas[target].core
            if core is not None and (source, target) not in self.cut:
                core.step(NodeId(source), message, self.clock(target))
                self.drain(target)

        self.at(self.now + round(delay * MS), deliver)

    # ---- use

    def members(self) -> list[str]:
        """Names of all members by the leader's configuration; of all replicas while nobody leads."""
        leader = self.leader()
        return list(all_members(self.status(leader).configuration) if leader else self.replicas)

    def add(self, name: str, role: ReplicaRole = ReplicaRole.LEARNER) -> Member:
        """An empty replica, made to be added to the group; returns the member to propose."""
        member = Member(NodeId(name), StoreId(f"store-{name}"), role)
        self.roles[name] = role
        known = Configuration((*self.configuration.members, member))
        self.replicas[name] = Replica(Disk(base=known))
        self.start(name)
        return member

    def change(self, name: str, members: Iterable[Member], **options: Any) -> int:
        """Propose a configuration at a leader; returns the index."""
        core = self.replicas[name].core
        assert core is not None
        index = core.propose_configuration(tuple(members), now=self.clock(name), **options)
        self.drain(name)
        return index

    def leader(self) -> str | None:
        """The live leader of the highest term that a quorum could follow, if any."""
        best: tuple[int, str] | None = None
        for name, replica in self.replicas.items():
            if replica.core is not None and replica.core.status().match:
                best = max(best or (0, ""), (replica.core.status().term, name))
        return best[1] if best else None

    def events_of(self, name: str) -> list[EventName]:
        """Names of a replica's trace events so far."""
        return [event.name for event in self.replicas[name].events]

    def force_campaign(self, name: str) -> None:
        """Let a replica campaign now instead of at its timeout."""
        core = self.replicas[name].core
        assert core is not None
        core.campaign(self.clock(name))
        self.drain(name)

    def elect(self, name: str) -> None:
        self.force_campaign(name)
        assert self.run_until(lambda: self.leader() == name, 5_000), f"{name} was not elected"

    def propose(self, name: str, data: bytes) -> int:
        """Propose at a leader; returns the index."""
        core = self.replicas[name].core
        assert core is not None
        proposal = Proposal(KeyspaceId("k/"), data, 1, Timestamp(self.now))
        index = core.propose([proposal])[0]
        self._proposed.add((index, core.status().term, data))
        self.drain(name)
        return index

    def read(self, name: str) -> int:
        """Ask a leader for a linearizable read; returns its context."""
        core = self.replicas[name].core
        assert core is not None
        context = len(self._reads)
        core.read_index(context)
        self._reads[context] = max(self.acknowledged, default=0)
        self.drain(name)
        return context

    def committed(self, index: int) -> bool:
        return index in self.acknowledged

    def status(self, name: str) -> RaftStatus:
        core = self.replicas[name].core
        assert core is not None
        return core.status()

    def count(self, name: EventName) -> int:
        return sum(event.name is name for replica in self.replicas.values() for event in replica.events)

    def check_nothing_lost(self) -> None:
        """Everything acknowledged is in the applied chain of every live replica with state that is up to date."""
        for index, data in self.acknowledged.items():
            assert self.chain[index - 1][2] == data
        for name in self.members():
            replica = self.replicas[name]
            if replica.core is not None and self.status(name).role is not ReplicaRole.WITNESS:
                applied = {index: data for index, _, data in replica.applied}
                missing = [index for index in self.acknowledged if applied.get(index) != self.acknowledged[index]]
                assert not missing, f"{name} lacks acknowledged entries {missing}"

    def settle(self, limit_ms: float = 30_000) -> None:
        """Heal everything, then wait until a leader has brought all live replicas up to date."""
        self.heal()
        self.loss = self.duplication = self.snapshot_loss = 0.0
        self.hold_disk.clear()
        for name, replica in self.replicas.items():
            if replica.core is None:
                self.start(name)
            elif replica.pending:
                self.complete_write(name)

        def caught_up() -> bool:
            leader = self.leader()
            if leader is None or self.status(leader).relay:
                return False
            status = self.status(leader)
            settled = status.commit == status.last and not status.configuration.joint
            return settled and all(
                self.status(name).commit == status.commit and self.status(name).last == status.last
                for name in self.members()
            )

        for replica_name in self.replicas:
            while len(self.replicas[replica_name].pending) > 0:
                self.complete_write(replica_name)
        assert self.run_until(caught_up, limit_ms), "no progress on a healed cluster"
