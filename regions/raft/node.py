"""`RaftNode`: one replica of one group; synchronous, single-threaded, without I/O, clock or randomness of its own.

The host feeds messages, proposals and time in, and takes a `Ready` out: messages to send, work to make durable,
entries to apply, reads to answer. `next_deadline` says when `tick` is needed next; nothing happens in between.

Dispatch stands here and nowhere else, and so does the handling of terms (`_settle_term`). What a message then
does is in `election`, `replication`, `reading`, `lease`, `snapshots`, `transfer`, `quiescence` and `relay`.

Source: Diego Ongaro, "Consensus: Bridging Theory and Practice" (2014); the surface follows etcd's raft library,
with time as an argument and durability as a type.
"""

import random
from collections.abc import Callable, Sequence

from isochrone.errors import InvariantViolation, NotLeader, check
from isochrone.ids import LogIndex, Nanos, NodeId, ReplicaRole, StoreId, Term, Timestamp
from isochrone.ports import LoggedConfiguration, StoredGroup
from isochrone.probes import probe
from isochrone.regions.raft import (
    compaction,
    configuration_log,
    durability,
    election,
    hand_back,
    lease,
    membership,
    quiescence,
    reading,
    relay,
    replication,
    snapshots,
    transfer,
)
from isochrone.regions.raft.config import RaftConfig
from isochrone.regions.raft.log import RaftLog
from isochrone.regions.raft.ready import (
    NOTHING_READY,
    AppendToken,
    EventName,
    Proposal,
    Ready,
    Slumber,
    SnapshotPart,
)
from isochrone.regions.raft.state import Office, Outbox, new_state
from isochrone.regions.raft.status import RaftStatus, status_of
from isochrone.wire.messages import (
    MAJORITY,
    AppendRequest,
    AppendResponse,
    Configuration,
    Entry,
    Heartbeat,
    HeartbeatResponse,
    InstallSnapshot,
    Member,
    Quiesce,
    QuorumSizes,
    RaftMessage,
    SnapshotResponse,
    TimeoutNow,
    VoteRequest,
    VoteResponse,
)

_ANSWERS = (VoteResponse, AppendResponse, HeartbeatResponse, SnapshotResponse)


class RaftNode:
    """One replica of one group. See the module for how to drive it."""

    def __init__(
        self,
        config: RaftConfig,
        stored: StoredGroup,
        tail: Sequence[Entry],
        *,
        store: StoreId,
        rng: random.Random,
        now: Nanos,
    ) -> None:
        """Start as a follower from what storage holds.

        Args:
            config: settings.
            stored: what the store says of the group.
            tail: the last stored entries: always the very last one, and all from `applied + 1` on (where no state is
                kept, from `commit + 1` on: see `changes.keeps_state`); empty for an empty log.
            store: which store that is: members are told apart by it.
            rng: draws election timeouts.
            now: monotonic time.
        """
        self.config = config
        last_timestamp = tail[-1].last_timestamp if tail else Timestamp(0)
        log = RaftLog(stored, tail)
        self._state = state = new_state(config, store, stored, log, last_timestamp, rng)
        complete = log.cache_first <= state.applied + 1 or state.applied >= log.last_index
        check(complete, "the tail in memory must start after what is applied")
        check(log.truncated_index <= state.commit <= log.last_index, "what is committed lies within the stored log")
        election.reset_election_timer(state, now)
        if state.term > 0:
            lease.promise(state, now)

    # ---- what the host asks for

    def propose(self, proposals: Sequence[Proposal]) -> list[LogIndex]:
        """Append one entry for each proposal and return their indexes. All of them or none.

        A proposal is committed when it comes out of `ready().committed` at its index with this replica's
        present term.

        Raises:
            NotLeader: this replica does not lead, or leads only as a relay.
            QueueFull: too many bytes are uncommitted.
            Unavailable: the leadership is being handed over, or the log is at its cap: says for which replica.
        """
        self._require_leader()
        transfer.refuse_while_under_way(self._state)
        compaction.check_cap(self._state)
        return replication.propose(self._state, proposals)

    def read_index(self, context: int, *, leased: bool = True) -> None:
        """Ask when a linearizable read may be answered; `context` comes back in `Ready.reads` or `refused_reads`.

        With `leased` False the read is confirmed by a round of heartbeats even where the group reads under leases.

        Raises:
            NotLeader: this replica does not lead, or leads only as a relay.
        """
        self._require_leader()
        state = self._state
        (state.leased_reads if leased and state.config.lease_reads else state.new_reads).append(context)

    def lease_holds(self, term: Term, now: Nanos) -> bool:
        """Whether a leased read of this term (`ReadReady.lease`) whose state was read before `now` may be answered."""
        return lease.holds(self._state, term, now)

    def transfer_leadership(self, target: NodeId, now: Nanos) -> None:
        """Begin to hand the leadership to `target`; see `transfer` for how, and `status().leader` for whether.

        Nothing is proposed until another replica leads, or until this one gives up after an election timeout.

        Raises:
            NotLeader: this replica does not lead, or leads only as a relay.
            InvalidRequest: the target is not a full voter.
            Unavailable: a transfer to another target is under way.
        """
        self._require_leader()
        transfer.begin(self._state, target, now)

    def campaign(self, now: Nanos) -> None:
        """Campaign at once instead of waiting for the timer; without effect on a leader, a non-voter or a promise."""
        state = self._state
        if not state.is_leader and state.may_campaign and not lease.is_bound(state, now):
            election.campaign(state, now)

    def propose_configuration(
        self, members: Sequence[Member], quorums: QuorumSizes = MAJORITY, *, auto_leave: bool = True, now: Nanos
    ) -> LogIndex:
        """Change who belongs to the group; returns the index of the entry that begins the change.

        A change of voters or of the sizes of quorums takes two entries: a joint configuration, then the one asked for.

        Args:
            members: everyone who is to belong to the group, as what.
            quorums: the sizes of its quorums.
            auto_leave: append the second entry as soon as the first is committed; else `leave_joint` does.
            now: monotonic time.

        Raises:
            NotLeader: this replica does not lead, or leads only as a relay.
            InvalidRequest: no group can be so, or not by one change from here.
            Unavailable: not now: another change is under way, this leader is too new, or a learner that is to be
                promoted has not caught up.
        """
        self._require_leader()
        return membership.propose(self._state, members, quorums, auto_leave=auto_leave, now=now)

    def leave_joint(self, now: Nanos) -> LogIndex:
        """End a joint configuration that is committed; returns the index of the entry that does.

        Raises:
            NotLeader: this replica does not lead, or leads only as a relay.
            Unavailable: there is no joint configuration, or it is not committed yet.
        """
        self._require_leader()
        return membership.leave_joint(self._state, now)

    def _require_leader(self) -> None:
        state = self._state
        if not state.is_leader or state.is_relay:
            raise NotLeader(state.config.group, None if state.is_leader else state.leader)

    # ---- what happens to it

    def step(self, sender: NodeId, message: RaftMessage, now: Nanos) -> None:
        """Take one message from `sender`. Stale messages, and answers of non-members, are dropped with an event.

        Requests are taken from anyone: their sender may have joined by an entry that this replica does not hold yet.
        """
        state = self._state
        heard = sender in state.members or (state.is_leader and sender in state.progress)
        # Answers are for who asked; and a leader needs nobody to tell it who leads in its term.
        if sender == state.config.node or (
            not heard and (isinstance(message, _ANSWERS) or (state.is_leader and message.term == state.term))
        ):
            state.event(EventName.STALE_MESSAGE, peer=sender)
            return
        if state.quiescent and sender in state.progress:
            quiescence.on_message(state, sender, message, now)
        if not self._settle_term(sender, message, now):
            return
        match message:
            case AppendRequest():
                self._heard_leader(sender, now)
                configuration = state.configuration
                replication.on_append_request(state, sender, message)
                compaction.truncate(state, message.truncate_to)
                if state.configuration is not configuration:
                    election.reset_election_timer(state, now)
            case Heartbeat():
                self._heard_leader(sender, now)
                replication.on_heartbeat(state, sender, message)
                compaction.truncate(state, message.truncate_to)
                if message.round:
                    state.reply(sender, HeartbeatResponse(state.term, message.round))
            case Quiesce():
                self._heard_leader(sender, now)
                quiescence.on_quiesce(state, sender, message)
            case VoteRequest():
                election.on_vote_request(state, sender, message, now)
            case VoteResponse():
                election.on_vote_response(state, sender, message, now)
            case AppendResponse():
                if state.is_leader and sender in state.progress:
                    state.progress[sender].last_contact = now
                    replication.on_append_response(state, sender, message)
            case HeartbeatResponse():
                if state.is_leader and sender in state.progress:
                    progress = state.progress[sender]
                    progress.last_contact = now
                    progress.acked_round = max(progress.acked_round, message.round)
                    lease.note_answer(progress, message.round)
                    replication.on_heartbeat_response(state, sender, now)
                    reading.release_confirmed(state)
            case InstallSnapshot():
                self._heard_leader(sender, now)
                configuration = state.configuration
                snapshots.on_install(state, sender, message.chunk)
                if state.configuration is not configuration:
                    election.reset_election_timer(state, now)
            case SnapshotResponse():
                if state.is_leader and sender in state.progress:
                    state.progress[sender].last_contact = now
                    snapshots.on_response(state, sender, state.progress[sender], message, now)
            case TimeoutNow():
                if state.office is Office.FOLLOWER and state.role is ReplicaRole.FULL and state.may_campaign:
                    state.asked_by_full = transfer.is_full_voter(state, sender)
                    election.campaign_for_real(state, now, transfer=True)
        if state.is_leader:
            relay.hand_over(state, now) if state.is_relay else transfer.advance(state, now)

    def _settle_term(self, sender: NodeId, message: RaftMessage, now: Nanos) -> bool:
        """Compare terms, once for all messages. Returns whether the message is to be handled any further."""
        state = self._state
        if isinstance(message, VoteRequest) and message.term >= state.term:
            if election.ignores_vote_request(state, message, now):
                state.event(EventName.VOTE_IGNORED, message.last_index, sender)
                return False
            if message.pre:
                return True
        if message.term > state.term:
            if isinstance(message, VoteResponse) and message.pre and message.granted:
                return True  # It repeats the term that we asked about; it is nobody's term yet.
            leader = sender if isinstance(message, AppendRequest | Heartbeat | Quiesce | InstallSnapshot) else None
            election.become_follower(state, message.term, leader, now)
        elif message.term < state.term:
            state.event(EventName.STALE_MESSAGE, peer=sender)
            self._answer_stale(sender, message)
            return False
        return True

    def _answer_stale(self, sender: NodeId, message: RaftMessage) -> None:
        """Tell a sender of an old term about ours: it may be a leader that nobody follows, or stuck behind."""
        state = self._state
        match message:
            case AppendRequest():
                hint = AppendResponse(state.term, False, LogIndex(0), Term(0), message.previous_index)
                state.reply(sender, hint)
            case InstallSnapshot():
                state.reply(sender, AppendResponse(state.term, False, LogIndex(0), Term(0), message.chunk.id.index))
            case Heartbeat():
                state.reply(sender, HeartbeatResponse(state.term, message.round))
            case VoteRequest():
                state.reply(sender, VoteResponse(state.term, granted=False, pre=message.pre))
            case _:
                pass

    def _heard_leader(self, leader: NodeId, now: Nanos) -> None:
        state = self._state
        if state.is_leader:
            raise InvariantViolation(f"{leader} leads group {state.config.group} in term {state.term}, and so do we")
        if state.leader != leader or state.office is not Office.FOLLOWER:
            election.become_follower(state, state.term, leader, now)
        else:
            election.note_leader(state, now)
            election.extend_election_timer(state, now)

    def tick(self, now: Nanos) -> None:
        """Do what time demands. Harmless when called early or often."""
        state = self._state
        if state.is_leader and not state.quiescent:
            election.check_quorum(state, now)
        if state.is_leader:
            if transfer.expire(state, now):
                hand_back.given_up(state)
            if now >= state.heartbeat_deadline and not state.quiescent and not quiescence.fall_asleep(state, now):
                snapshots.give_up_stuck(state, now)
                reading.start_round(state, now)
        elif state.election_deadline is not None and now >= state.election_deadline:
            election.timed_out(state, now)

    def next_deadline(self) -> Nanos | None:
        """When `tick` is needed next, None if only a message can change anything."""
        state = self._state
        if state.quiescent:
            return None
        if state.is_leader:
            deadline = min(state.heartbeat_deadline, state.quorum_deadline)
            return min(deadline, state.transfer.deadline) if state.transfer else deadline
        return state.election_deadline

    def want_news(self, wanted: bool) -> bool:
        """Whether somebody waits at this replica for what is committed; until told, it takes it that somebody does.

        If not, a leader tells it of commits only with other messages, at the latest with its next heartbeat. Returns
        whether there is something to send, to a leader that has to know at once.
        """
        return replication.want_news(self._state, wanted)

    # ---- what it wants done

    def ready(self, now: Nanos) -> Ready:
        """Everything that has gathered. May be called at any time; empty when there is nothing to do."""
        state = self._state
        if state.is_leader:
            self._lead(now)
        append = durability.append_work(state)
        committed = self._take_committed()
        out = state.out
        if not (committed or append or out.holds_anything):
            return NOTHING_READY
        state.out = Outbox()
        return Ready(
            messages=tuple(out.free),
            append=append,
            committed=committed,
            reads=tuple(out.reads),
            refused_reads=tuple(out.refused_reads),
            fetches=tuple(out.fetches),
            events=tuple(out.events),
            snapshot_reads=tuple(out.snapshot_reads),
            snapshot_ends=tuple(out.snapshot_ends),
            load=out.load,
        )

    def _lead(self, now: Nanos) -> None:
        """Do what a leader does once for all that has gathered."""
        state = self._state
        membership.follow_up(state, now)
        if not state.is_leader:
            return  # it has removed itself
        hand_back.look(state, now)
        quiescence.look_for_work(state, now)
        replication.flush(state)
        compaction.truncate_leader(state, now)
        reading.flush(state, now)

    def _take_committed(self) -> tuple[Entry, ...]:
        state = self._state
        if not state.keeps_state:
            state.applied = state.handed_to_apply = state.commit
            self._trim_cache()
            return ()
        if state.handed_to_apply >= state.commit or state.loading is not None:
            return ()
        first = LogIndex(state.handed_to_apply + 1)
        entries = state.log.cached_up_to(first, state.commit, state.config.apply_bytes_max)
        state.handed_to_apply = entries[-1].index
        return tuple(entries)

    def persisted(self, token: AppendToken, now: Nanos) -> None:
        """An `AppendWork` is durable. Call this before sending what it releases, in the order of the works."""
        state = self._state
        if not state.log.mark_durable(token.last_index, token.epoch):
            probe("raft.stale_write_report")
            state.event(EventName.STALE_WRITE_REPORT, token.last_index)
        state.durable_term = max(state.durable_term, token.term)
        if token == state.installed:
            state.installed = None
            state.out.load = state.loading is not None
        self._trim_cache()
        if token.term != state.term:
            return
        if state.is_leader:
            replication.maybe_commit(state)
            transfer.advance(state, now)
        else:
            election.own_vote_durable(state, now)

    def applied(self, index: LogIndex) -> None:
        """The entries of `ready().committed` up to `index` are applied in memory."""
        state = self._state
        check(state.applied <= index <= state.handed_to_apply, "entries are applied in order")
        state.applied = index
        self._trim_cache()

    def fetched(self, peer: NodeId, entries: Sequence[Entry]) -> None:
        """The entries of a `Fetch` have been read; empty if they are gone."""
        if self._state.is_leader:
            replication.on_fetched(self._state, peer, entries)

    def snapshot_read(self, attempt: int, part: SnapshotPart | None, now: Nanos) -> None:
        """The rows of a `SnapshotRead` have been read; None if the store cannot give the snapshot any more."""
        if self._state.is_leader:
            snapshots.on_read(self._state, attempt, part, now)

    def snapshot_loaded(self, index: LogIndex) -> bool:
        """A state machine has been loaded anew, from rows that reflect the log up to `index`.

        Returns whether this is the one to go on with; if not, another snapshot has come meanwhile.
        """
        return snapshots.loaded(self._state, index)

    def _trim_cache(self) -> None:
        """Forget applied entries beyond the bytes allowed, in steps, keeping all that peers are likely to ask for."""
        state = self._state
        if state.log.cached_bytes <= state.config.cache_bytes_max:
            return
        low = min([state.applied, *(progress.match for progress in state.progress.values())])
        state.log.evict(LogIndex(low))
        if state.log.cached_bytes > 2 * state.config.cache_bytes_max:
            state.log.evict(state.applied)

    def wake(self, now: Nanos, heard: Callable[[NodeId], Nanos]) -> None:
        """End quiescence, if there is any; `heard` says when each member's node was last heard."""
        quiescence.wake(self._state, now, heard)

    @property
    def quiescent(self) -> bool:
        """Whether this replica sleeps."""
        return self._state.quiescent

    @property
    def slumber(self) -> Slumber | None:
        """What the node has to watch while this replica is quiescent; None when it is not."""
        return quiescence.slumber(self._state)

    @property
    def term(self) -> Term:
        """The present term."""
        return self._state.term

    @property
    def node(self) -> NodeId:
        """This replica's node."""
        return self._state.node

    @property
    def is_relay(self) -> bool:
        """Whether this replica is a witness that leads to feed a full replica and hand over."""
        return self._state.is_relay

    @property
    def configuration(self) -> Configuration:
        """The configuration in force here."""
        return self._state.configuration

    @property
    def committed_configuration(self) -> LoggedConfiguration:
        """The newest configuration that is known here to be final. Its index never falls."""
        return configuration_log.last_committed(self._state)

    @property
    def applied_index(self) -> LogIndex:
        """Up to where the log is applied; on a witness, committed."""
        return self._state.applied

    def status(self) -> RaftStatus:
        """A snapshot for people and tests."""
        return status_of(self._state)
