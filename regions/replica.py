"""One replica inside a host: the Raft core, the state machine, and who waits for what.

Pure apart from the callbacks that it calls. The host feeds it and carries out what it collects in a `Turn`.
"""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from isochrone.clocks.hlc import HybridLogicalClock
from isochrone.errors import (
    Indeterminate,
    InvalidRequest,
    InvariantViolation,
    IsochroneError,
    LeadershipLost,
    NotLeader,
    Unavailable,
    check,
)
from isochrone.ids import NS_PER_S, GroupId, KeyspaceId, LogIndex, Nanos, NodeId, ReplicaRole, Revision, Term, Timestamp
from isochrone.ports import LogWrite
from isochrone.probes import probe
from isochrone.regions.measures import GroupMeasures
from isochrone.regions.office import DEFAULT_COMPACTION, CompactionRule, Office
from isochrone.regions.raft.changes import all_members, changed_members
from isochrone.regions.raft.node import RaftNode
from isochrone.regions.raft.ready import (
    AppendWork,
    Event,
    EventName,
    Proposal,
)
from isochrone.regions.replica_reads import ReplicaReads
from isochrone.regions.requests import Done, Outcome, Read, RegionLease, Write, always_serves, next_batch
from isochrone.regions.state.machine import GroupState
from isochrone.regions.state_service import StateService
from isochrone.regions.statuses import group_status
from isochrone.regions.work import Release, Turn
from isochrone.wire.commands import encode_batch
from isochrone.wire.configurations import decode_configuration
from isochrone.wire.leases import encode_housekeeping
from isochrone.wire.messages import Entry, EntryKind, Member, QuorumSizes, RaftMessage
from isochrone.wire.status import GroupStatus

READERS_NS = Nanos(10 * NS_PER_S)
"""Whoever has read what a follower has applied is expected to do so again for as long."""


@dataclass(slots=True)
class _Transfer:
    target: NodeId
    dones: list[Done]


@dataclass(frozen=True, slots=True)
class _Change:
    """A change of membership that is under way."""

    index: LogIndex
    """Of the entry that begins it."""
    done: Done


@dataclass(slots=True)
class _Pending:
    term: Term
    proposed_at: Nanos
    keyspace: KeyspaceId
    writes: list[Write]


class Replica:
    """See the module."""

    def __init__(
        self,
        group: GroupId,
        core: RaftNode,
        machine: GroupState | None,
        clock: HybridLogicalClock,
        monotonic: Callable[[], Nanos],
        region_lease: RegionLease = always_serves,
        compaction: CompactionRule = DEFAULT_COMPACTION,
    ) -> None:
        """`machine` is None where no state is kept; `monotonic` reads the node's monotonic clock."""
        self.group = group
        self.core = core
        self._clock = clock
        self._monotonic = monotonic
        self._region_lease = region_lease
        self._compaction = compaction
        self._service = None if machine is None else self._new_service(machine)
        self._writes: deque[Write] = deque()
        self.queued_commands = 0
        """How many commands wait to be proposed."""
        self.queued_bytes = 0
        """How many bytes they have."""
        self._pending: dict[LogIndex, _Pending] = {}
        self.reads = ReplicaReads(group, core, monotonic, lambda: self._service, self.known_leader)
        self._transfer: _Transfer | None = None
        self._change: _Change | None = None
        self._read_until = Nanos(0)
        """Until then it is taken that somebody goes on reading what is applied here."""
        self.leader: NodeId | None = None
        self.measures = GroupMeasures()

    def _new_service(self, machine: GroupState) -> StateService:
        margin_ns = self.core.config.election_timeout_ns * 3 // 2
        return StateService(
            self.group, machine, margin_ns, self._compaction, self._monotonic, lambda *names: self._region_lease(*names)
        )

    @property
    def machine(self) -> GroupState | None:
        """The state machine; None where no state is kept."""
        return self._service.machine if self._service else None

    @property
    def service(self) -> StateService:
        """What serves from the state here. Raises `InvalidRequest` where no state is kept."""
        if self._service is None:
            raise InvalidRequest(f"this node keeps no state of group {self.group}")
        return self._service

    @property
    def revision(self) -> Revision:
        """The group's revision as applied here."""
        return self.machine.revision if self.machine else Revision(0)

    @property
    def members(self) -> Mapping[NodeId, Member]:
        """Everyone who belongs to the group, in either half of its configuration in force."""
        return all_members(self.core.configuration)

    def status(self) -> GroupStatus:
        """The replica's state now, for operators."""
        return group_status(self.group, self.core.status())

    # ---- what happens

    def step(self, sender: NodeId, message: RaftMessage, now: Nanos) -> None:
        """Take a message of a peer; answers to it say whether somebody waits here for what is committed."""
        self.core.want_news(now < self._read_until or (self._service is not None and self._service.is_watched))
        self.core.step(sender, message, now)

    def somebody_waits(self) -> bool:
        """What is applied here is read or watched: for a while, this replica is to hear of commits at once.

        Returns whether there is something to send.
        """
        self._read_until = Nanos(self._monotonic() + READERS_NS)
        return self.core.want_news(True)

    # ---- requests

    def write(self, write: Write) -> None:
        """Queue commands for the next turn."""
        self._writes.append(write)
        self.queued_commands += len(write.commands)
        self.queued_bytes += sum(map(len, write.commands))

    def has_work(self, now: Nanos) -> bool:
        """Whether anything waits that was not proposed yet, or not answered."""
        return bool(self.reads.waiting) or self.wants_to_propose(now)

    def wants_to_propose(self, now: Nanos) -> bool:
        """Whether commands wait to be proposed, of clients or the leader's own."""
        return bool(self._writes) or self._house_due(now)

    def _house_due(self, now: Nanos) -> bool:
        deadline = self._service.office.next_deadline if self._service else None
        return deadline is not None and deadline <= now

    def next_deadline(self) -> Nanos | None:
        """When the replica must be looked at again, whatever happens."""
        core = self.core.next_deadline()
        office = self._service.office.next_deadline if self._service else None
        return core if office is None or (core is not None and core < office) else office

    def transfer_leadership(self, target: NodeId, now: Nanos, done: Done) -> None:
        """Hand the leadership over; `done` is called when it is known who leads. Raises as the core does."""
        self.core.transfer_leadership(target, now)
        if target == self.leader:
            done(Outcome(b"", self.revision))
        elif self._transfer is None:
            self._transfer = _Transfer(target, [done])
        else:
            self._transfer.dones.append(done)

    def change_membership(
        self,
        *,
        put: Sequence[Member],
        remove: Sequence[NodeId],
        quorums: QuorumSizes | None,
        auto_leave: bool,
        now: Nanos,
        done: Done,
    ) -> None:
        """Change the group's members; `done` is called when that is final. Raises as the core does."""
        current = self.core.configuration
        if self.leader != self.core.node:
            raise NotLeader(self.group, self.known_leader())
        members = changed_members(current.members, put, remove)
        index = self.core.propose_configuration(
            members, current.quorums if quorums is None else quorums, auto_leave=auto_leave, now=now
        )
        self._change = _Change(index, done)

    def leave_joint(self, now: Nanos, done: Done) -> None:
        """Leave a joint configuration; `done` is called when that is final. Raises as the core does."""
        self._change = _Change(self.core.leave_joint(now), done)

    def _follow_change(self, entry: Entry) -> None:
        """A configuration is committed: answer who waits for it, unless the leader is about to append another."""
        change = self._change
        if change is None or entry.index < change.index:
            return
        configuration = decode_configuration(entry.data)
        if not (configuration.joint and configuration.auto_leave):
            self._change = None
            change.done(Outcome(b"", self.revision))

    def propose_queued(self, now: Nanos, latest: Timestamp | IsochroneError) -> None:
        """Propose the queued commands, one entry for each run of commands of one keyspace.

        `latest` bounds true time from above; an error instead refuses everything, since no timestamp can be given.
        """
        if self._service is not None and self._house_due(now):
            self._keep_house(self._service.office, now, latest)
        writes = self._take_writes(now)
        while writes:
            batch = next_batch(writes)
            try:
                if isinstance(latest, IsochroneError):
                    raise latest
                self._propose(batch, now, latest)
            except IsochroneError as error:
                for write in batch:
                    write.fail(error, self.revision)

    def _keep_house(self, office: Office[Read], now: Nanos, latest: Timestamp | IsochroneError) -> None:
        """Propose what the leader wants logged on its own."""
        commands = office.due(now)
        if not commands:
            return
        try:
            if isinstance(latest, IsochroneError):
                raise latest
            data = encode_batch([encode_housekeeping(command) for command in commands])
            timestamp = self._clock.now(latest, len(commands))
            kind = EntryKind.HOUSEKEEPING
            self.core.propose([Proposal(KeyspaceId(""), data, len(commands), timestamp, kind=kind)])
        except IsochroneError:
            probe("replica.housekeeping_not_proposed")
            office.not_logged(commands, now)

    def _take_writes(self, now: Nanos) -> deque[Write]:
        writes, self._writes = self._writes, deque()
        self.queued_commands = self.queued_bytes = 0
        if not any(write.deadline <= now for write in writes):
            return writes
        late = Unavailable("the deadline passed before the command was proposed; it was not applied")
        for write in writes:
            if write.deadline <= now:
                write.fail(late, self.revision)
        return deque(write for write in writes if write.deadline > now)

    def _propose(self, batch: list[Write], now: Nanos, latest: Timestamp) -> None:
        if not self._region_lease(self.group, batch[0].keyspace):
            raise Unavailable(f"this region may not serve keyspace {batch[0].keyspace!r} now; it was not applied")
        commands = [command for write in batch for command in write.commands]
        proposal = Proposal(
            keyspace=batch[0].keyspace,
            data=encode_batch(commands),
            count=len(commands),
            timestamp=self._clock.now(latest, len(commands)),
            trace=next((write.trace for write in batch if write.trace), b""),
        )
        index = self.core.propose([proposal])[0]
        self._pending[index] = _Pending(self.core.term, now, batch[0].keyspace, batch)

    # ---- one turn

    def collect(self, now: Nanos, turn: Turn) -> None:
        """Take everything that is ready, until nothing is."""
        while True:
            ready = self.core.ready(now)
            if ready.messages:
                turn.messages.extend([(self.group, outgoing) for outgoing in ready.messages])
            if ready.fetches:
                turn.fetches.extend([(self.group, fetch) for fetch in ready.fetches])
            for event in ready.events:
                self._note(event, turn, now)
            if ready.append is not None:
                self._store(ready.append, turn)
            if ready.snapshot_reads or ready.snapshot_ends:
                turn.snapshot_reads.extend([(self.group, read) for read in ready.snapshot_reads])
                turn.snapshot_ends.extend([(self.group, attempt) for attempt in ready.snapshot_ends])
            if ready.load:
                turn.loads.append(self.group)
            if ready.refused_reads:
                self.reads.refuse(ready.refused_reads)
            if ready.reads:
                self.reads.confirmed(ready.reads)
            if ready.committed:
                self._apply(ready.committed, turn, now)
            asked_again = self.reads.answer()
            if not (ready.committed or asked_again):
                if self.reads.put_off:
                    turn.unfinished.append(self.group)
                return

    def _store(self, work: AppendWork, turn: Turn) -> None:
        chunk = work.chunk
        if work.hard_state or work.entries or chunk or work.truncate_to is not None or work.discard_staged:
            log = LogWrite(self.group, work.hard_state, work.entries, work.truncate_to, chunk, work.discard_staged)
            turn.logs.append(log)
        turn.releases.append(Release(self.group, work.token, work.release))
        if chunk is not None and chunk.last:
            self._clock.restore(chunk.timestamp)
            turn.replaced.append(self.group)

    def loaded(self, machine: GroupState, index: LogIndex) -> None:
        """`machine` holds a snapshot that was installed here, up to `index`; another one may have come meanwhile."""
        if not self.core.snapshot_loaded(index):
            return
        if self._service is None:
            self._service = self._new_service(machine)
        else:
            self._service.replaced(machine)

    def _note(self, event: Event, turn: Turn, now: Nanos) -> None:
        turn.events.append((self.group, event))
        self.measures.note(event, now)
        if self._transfer is not None:
            self._follow_transfer(self._transfer, event)
        if event.name is EventName.LEADER_CHANGED:
            lost = self.leader is not None and event.peer != self.leader
            self.leader = event.peer
            if lost:
                self._fail_pending()
                if self._service is not None:
                    self._service.leave_office(NotLeader(self.group, self.known_leader()))

    def _follow_transfer(self, transfer: _Transfer, event: Event) -> None:
        """Answer those who wait for a transfer once its end is known."""
        error: IsochroneError | None = None
        match event.name:
            case EventName.LEADER_CHANGED if event.peer == transfer.target:
                pass
            case EventName.LEADER_CHANGED if event.peer is not None:
                error = Unavailable(f"{event.peer} leads group {self.group} instead of {transfer.target}")
            case EventName.TRANSFER_GIVEN_UP:
                error = Unavailable(f"{transfer.target} did not take group {self.group} over in time")
            case EventName.BECAME_PRE_CANDIDATE:
                error = Unavailable(f"nobody is known to lead group {self.group} after {transfer.target} was to")
            case _:
                return
        self._transfer = None
        for done in transfer.dones:
            done(Outcome(b"", self.revision, error))

    def _fail_pending(self) -> None:
        """This replica, if it led, leads no more: what it proposed may still be committed by its successor."""
        change, self._change = self._change, None
        pending, self._pending = self._pending, {}
        if pending or change:
            probe("replica.leadership_lost_with_writes_open")
        error = LeadershipLost(f"the leader of group {self.group} lost its office before the outcome was known")
        for waiting in pending.values():
            for write in waiting.writes:
                write.fail(error, self.revision)
        if change is not None:
            change.done(Outcome(b"", self.revision, error))

    def known_leader(self) -> NodeId | None:
        """The leader that clients can use: None while nobody, or only a relaying witness, leads."""
        if self.leader == self.core.node and not self.core.is_relay:
            return self.leader  # be it that it has just removed itself
        member = self.members.get(self.leader) if self.leader else None
        return self.leader if member and member.role is ReplicaRole.FULL else None

    def _apply(self, entries: Sequence[Entry], turn: Turn, now: Nanos) -> None:
        service = self._service
        if service is None:
            raise InvariantViolation(f"a witness of group {self.group} was asked to apply")
        for entry in entries:
            self._clock.restore(entry.last_timestamp)
            applied = service.machine.apply(entry)
            turn.rows.extend(applied.rows)
            leads = self.leader == self.core.node and entry.term == self.core.term
            service.applied(applied, entry.term if leads else None)
            if entry.kind is EntryKind.CONFIGURATION:
                self._follow_change(entry)
            pending = self._pending.pop(entry.index, None)
            if leads:
                self.measures.applied(applied, now - pending.proposed_at if pending is not None else None)
            if pending is None:
                continue
            if pending.term != entry.term:
                raise InvariantViolation(f"entry {entry.index} of group {self.group} is not the one proposed here")
            self._end_pending(pending, applied.outcomes)
        self.core.applied(entries[-1].index)
        turn.applied[self.group] = entries[-1].index

    def _end_pending(self, pending: _Pending, outcomes: Sequence[bytes | IsochroneError]) -> None:
        if not self._region_lease(self.group, pending.keyspace):
            probe("replica.region_lease_ended_before_the_answer")
            text = f"this region may not serve keyspace {pending.keyspace!r} any more; the outcome is not told"
            outcomes = (Indeterminate(text),) * len(outcomes)
        revision, at = self.revision, 0
        for write in pending.writes:
            before, at = at, at + len(write.commands)
            write.done(outcomes[before:at], revision)
        check(at == len(outcomes), "every command of an entry has one outcome")

    def fail_all(self, error: IsochroneError, undecided: IsochroneError) -> None:
        """The host stops: `error` for what was never proposed, `undecided` for what may still be committed."""
        for write in self._writes:
            write.fail(error, self.revision)
        self._writes.clear()
        self.queued_commands = self.queued_bytes = 0
        self.reads.fail_all(error)
        if self._service is not None:
            self._service.leave_office(error)
        transfer, self._transfer = self._transfer, None
        for done in transfer.dones if transfer else ():
            done(Outcome(b"", self.revision, undecided))
        pending, self._pending = self._pending, {}
        for waiting in pending.values():
            for write in waiting.writes:
                write.fail(undecided, self.revision)
        change, self._change = self._change, None
        if change is not None:
            change.done(Outcome(b"", self.revision, undecided))
