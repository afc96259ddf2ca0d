"""The host: drives all groups of one node. The same class runs in every mode; only its ports differ.

**Theory of operation.** Whatever happens asks for a turn; one turn serves all that has happened since the last one. It

1. takes what has come in: finished writes, messages of peers (`intake`), what was read from the store (`store_reads`);
2. ticks the groups whose deadline has passed, and proposes the commands that have gathered;
3. collects from every group that changed: messages leave, writes join one batch, committed entries are applied and
   their requests answered;
4. hands the batch to the store, if no write is under way.

What gathers during a write is the next batch: batches grow with the load, nothing waits for a timer, and one sync
covers every group. A turn costs what has changed: idle groups are found by their deadlines (`deadlines`).

Invariants:

1. A message that depends on a write leaves after that write has ended; releases leave in the order of the writes.
2. Rows that come from applying entry i are written in the batch of entry i or a later one. They ride along with log
   writes; a restart replays what they lack from the log.
3. An error of the store ends the host: it sends nothing more, and everyone who waits is told.
4. Whoever touches a core marks its group for the next turn, which asks the core for its deadline again.

HAZARD: entries whose timestamps are further ahead of this node's clock than the maximum offset are not taken, nor is
their leader followed until this clock has caught up with them or it sends others. So a node whose clock is slow
looks unreachable to its leaders, and a leader whose clock is fast loses its office, but only once it has written.
"""

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping, Sequence

from isochrone.clocks.hlc import HybridLogicalClock
from isochrone.errors import (
    ClockUnsynchronized,
    InvalidRequest,
    InvariantViolation,
    IsochroneError,
    LeadershipLost,
    NotLeader,
    QueueFull,
    StorageError,
    Unavailable,
)
from isochrone.ids import (
    GroupId,
    Incarnation,
    KeyspaceId,
    Nanos,
    NodeId,
    Revision,
    StoreId,
    Term,
    Timestamp,
)
from isochrone.ports import Clock, LoggedConfiguration, Store, Transport
from isochrone.probes import probe
from isochrone.regions.administration import Administration
from isochrone.regions.deadlines import Deadlines
from isochrone.regions.intake import Intake
from isochrone.regions.loading import GroupSettings, Loader, check_new_replica, check_same_kind
from isochrone.regions.raft.ready import EventName, Outgoing
from isochrone.regions.replica import Replica
from isochrone.regions.requests import (
    Done,
    Outcome,
    Read,
    Reads,
    ReadsDone,
    RegionLease,
    Write,
    WritesDone,
    always_serves,
)
from isochrone.regions.sleepers import Sleepers
from isochrone.regions.state.model import Handlers
from isochrone.regions.state_service import StateService
from isochrone.regions.store_reads import StoreReads
from isochrone.regions.store_writes import StoreWrites
from isochrone.regions.turns import AT_ONCE, Turns
from isochrone.regions.watch_hub import WatchRequest
from isochrone.regions.watching import Watch
from isochrone.regions.work import Release, Turn
from isochrone.wire.commands import Query, check_answerable_anywhere, decode_query
from isochrone.wire.kv import PackedResult
from isochrone.wire.messages import Configuration, Envelope, GroupMessage, NodeHeartbeat
from isochrone.wire.status import GroupStatus

logger = logging.getLogger(__name__)

QUEUED_COMMANDS_MAX = 16_384
"""From so many commands on that wait to be proposed in one group, more are refused with `QueueFull`."""
QUEUED_BYTES_MAX = 64 << 20
"""From so many bytes of them on, likewise."""
WAITING_READS_MAX = 16_384
"""Most queries that wait for their answer in one group; beyond, `QueueFull`."""


def _simply(turn: Callable[[], None]) -> None:
    turn()


class Host:
    """All groups of one node. Create it, `start` it, and await `closed`; everything runs in one event loop."""

    def __init__(
        self,
        store: Store,
        transport: Transport,
        clock: Clock,
        settings: Mapping[GroupId, GroupSettings],
        *,
        handlers: Handlers,
        rng: random.Random,
        offset_max_ns: int,
        leader_changed: Callable[[GroupId, Term, NodeId | None], None],
        region_lease: RegionLease = always_serves,
        together: Callable[[Callable[[], None]], None] = _simply,
    ) -> None:
        """Take the ports; nothing starts yet.

        Args:
            store: open; its groups are those that this node serves.
            transport: not started yet.
            clock: drives timers and stamps entries.
            settings: of every group in the store.
            handlers: the registered command families.
            rng: draws election timeouts.
            offset_max_ns: how far ahead of this node's clock an entry's timestamp may be.
            leader_changed: called when a group's leader changes, None while nobody that clients can use leads.
            region_lease: whether this node may serve a keyspace now.
            together: has a turn, and lets what it sends leave at its end.
        """
        self._store = store
        self._transport = transport
        self._clock = clock
        self._settings = settings
        self._offset_max_ns = offset_max_ns
        self._leader_changed = leader_changed
        hlc = HybridLogicalClock(offset_max_ns)
        self._loader = Loader(store, settings, handlers, hlc, rng, clock.monotonic, region_lease)
        self.replicas: dict[GroupId, Replica] = {}
        self.counters: Counter[str] = Counter()
        self._intake = Intake(store.identity.node, store.incarnations, clock, hlc, self.counters)
        self._sleepers = Sleepers(store.identity.node, self.replicas, self._mark)
        self._together = together
        self._turns = Turns(clock, self._take_turn)
        self._reads = StoreReads(store, self.replicas, self._loader.new_machine, self._spawn, self._turns.wake)
        self._writes = StoreWrites(store, self._turns.take, self._fail)
        self.administration = Administration(self._find, self._intake, clock.monotonic, self._mark)
        self._turn = Turn()
        self._stopping = False
        self._dirty: dict[GroupId, None] = {}
        self._deadlines = Deadlines()
        self._tasks: list[asyncio.Task[None]] = []
        self._failure: asyncio.Future[None] | None = None

    # ---- life

    async def start(self) -> None:
        """Load every group and begin. Raises `StorageError` for a store that cannot be used."""
        for group in self._store.groups:
            self._serve(await self._loader.load(group))
        self._failure = asyncio.get_running_loop().create_future()
        self._transport.start(self._receive)
        for group, replica in self.replicas.items():
            if self._settings[group].campaign_first and replica.core.status().last == 0:
                replica.core.campaign(self._clock.monotonic())
        self._turns.begin()

    def _serve(self, replica: Replica) -> None:
        self.replicas[replica.group] = replica
        self._intake.set_members(replica.group, replica.members)
        self._mark(replica.group)

    async def closed(self) -> None:
        """Return when the host has stopped. Raises what ended it, if it did not end by `stop`."""
        if self._failure is None:
            raise InvariantViolation("the host was never started")
        await asyncio.shield(self._failure)

    async def stop(self) -> None:
        """Stop after the write under way. Requests that are still open are answered with an error. Idempotent."""
        self._stopping = True
        for task in tuple(self._tasks):
            if task is not asyncio.current_task():
                await asyncio.gather(task, return_exceptions=True)
        await self._writes.idle.wait()
        self._turns.end()
        self._refuse_everything("the node is stopping")
        if self._failure is not None and not self._failure.done():
            self._failure.set_result(None)

    def _fail(self, error: BaseException) -> None:
        """End the host: nothing is sent or acknowledged after this."""
        self._stopping = True
        self._refuse_everything(f"the node has stopped: {error}")
        if self._failure is not None and not self._failure.done():
            logger.error("node %s stops: %s", self._store.identity.node, error)
            self._failure.set_exception(error)
            self._failure.exception()  # Logged here, and told by `closed` to whoever asks.

    def _refuse_everything(self, text: str) -> None:
        for replica in self.replicas.values():
            replica.fail_all(Unavailable(text), LeadershipLost(text))

    # ---- requests

    def write(
        self,
        group: GroupId,
        keyspace: KeyspaceId,
        commands: Sequence[bytes],
        trace: bytes,
        timeout_ns: Nanos,
        done: WritesDone,
    ) -> None:
        """Propose commands; `done` is called once, in the loop's thread, perhaps before this returns.

        The results are answered after the commands are committed and applied in memory. They are never proposed later
        than `timeout_ns` from now.
        """
        write = Write(keyspace, commands, trace, Nanos(self._clock.monotonic() + timeout_ns), done)
        try:
            replica = self._find(group)
            if replica.queued_commands >= QUEUED_COMMANDS_MAX:
                raise QueueFull(f"{replica.queued_commands} commands wait in group {group}")
            if replica.queued_bytes >= QUEUED_BYTES_MAX:
                raise QueueFull(f"commands of {replica.queued_bytes} bytes wait in group {group}")
        except IsochroneError as error:
            write.fail(error, Revision(0))
            return
        replica.write(write)
        self._mark(group)

    def read(self, group: GroupId, keyspace: KeyspaceId, query: bytes, done: Done) -> None:
        """Answer a linearizable query; `done` is called once, perhaps before this returns."""
        try:
            self._read(group, Read(keyspace, decode_query(query), done))
        except InvalidRequest as error:
            done(Outcome(b"", Revision(0), error))

    def read_all(self, group: GroupId, keyspace: KeyspaceId, queries: Sequence[Query], done: ReadsDone) -> None:
        """Answer linearizable queries together; `done` is called once, perhaps before this returns.

        Queries that wait, or that only a leader can answer, are for `read`: with one of them all are refused.
        """
        reads = Reads(keyspace, queries, done)
        try:
            check_answerable_anywhere(queries)
        except InvalidRequest as error:
            reads.fail(error, Revision(0))
            return
        self._read(group, reads)

    def _read(self, group: GroupId, read: Read | Reads) -> None:
        try:
            replica = self._find(group)
            if replica.reads.waiting >= WAITING_READS_MAX:
                raise QueueFull(f"{replica.reads.waiting} queries wait in group {group}")
            replica.reads.ask(read)
        except IsochroneError as error:
            read.fail(error, Revision(0))
            return
        self._mark(group)

    def read_applied(
        self, group: GroupId, keyspace: KeyspaceId, queries: Sequence[Query]
    ) -> Sequence[PackedResult | IsochroneError]:
        """Answer from what this node has applied, be it behind. Raises `InvalidRequest` where that cannot be."""
        return self._service(group).answer_applied(keyspace, queries)

    def revision(self, group: GroupId) -> Revision:
        """A group's revision as applied here. Raises as `read_applied` where no state is kept."""
        return self._service(group).machine.revision

    def applied_age_ms(self, group: GroupId) -> int | None:
        """How old at most is what this node has applied; None: unknown. See `StateService.age_ms`."""
        service = self._service(group)
        try:
            return service.age_ms(self._clock.now().latest, self._offset_max_ns)
        except ClockUnsynchronized:
            return None

    def watch(self, group: GroupId, request: WatchRequest, ready: Callable[[], None]) -> Watch:
        """Watch a group as it is applied here; see `StateService.watch`. Raises `InvalidRequest`, `QueueFull`."""
        return self._service(group).watch(request, ready)

    def _service(self, group: GroupId) -> StateService:
        replica = self.replicas.get(group)
        if group not in self._settings:
            raise InvalidRequest(f"the topology has no group {group}")
        if replica is None or self._stopping:  # Perhaps not yet, or no more: others serve it.
            probe("host.asked_for_a_group_it_does_not_serve")
            raise Unavailable(f"this node serves no replica of group {group} now")
        service = replica.service
        if replica.somebody_waits():
            self._mark(group)
        return service

    async def add_replica(self, group: GroupId, configuration: Configuration) -> None:
        """Make an empty replica of a group here, which its leader can then feed. Returns when it is durable.

        `configuration` is the group's, with this node's store as a learner or a witness in it. A replica that is here
        already stays as it is: one that was removed goes on from what it holds.

        Raises:
            InvalidRequest: the topology has no such group, the configuration does not name this replica, or the one
                that is here keeps state where the new one shall not, or the reverse.
            Unavailable: it is being made already, for another request.
            StorageError: the store cannot make it, and the host ends.
        """
        if group not in self._settings:
            raise InvalidRequest(f"the topology has no group {group}")
        role = check_new_replica(group, configuration, self._store.identity)
        if group in self.replicas:
            check_same_kind(self.replicas[group], role)
            return
        try:
            self._serve(await self._loader.create(group, configuration))
        except StorageError as error:
            self._fail(error)
            raise

    def _find(self, group: GroupId) -> Replica:
        """The replica that serves a group here. Raises why there is none."""
        replica = self.replicas.get(group)
        if self._stopping:
            raise Unavailable("the node is stopping")
        if replica is not None:
            return replica
        if group in self._settings:
            raise NotLeader(group, None)  # another node has one: whoever asked shall look there
        raise InvalidRequest(f"the topology has no group {group}")

    @property
    def stores(self) -> Mapping[NodeId, StoreId]:
        """The store of every node that shares a group with this one."""
        return self._intake.stores

    @property
    def incarnations(self) -> Mapping[NodeId, Incarnation]:
        """Highest incarnation seen of each peer; an older process is a zombie and must not be heard."""
        return self._intake.incarnations

    def committed_configuration(self, group: GroupId) -> LoggedConfiguration | None:
        """The newest final configuration of a group that the replica here knows; None without a replica."""
        replica = self.replicas.get(group)
        return None if replica is None else replica.core.committed_configuration

    def leaders(self) -> list[tuple[GroupId, Term, NodeId | None]]:
        """For each group: the term and the leader that clients can use, as known here."""
        return [(group, replica.core.term, replica.known_leader()) for group, replica in self.replicas.items()]

    def group_statuses(self) -> tuple[GroupStatus, ...]:
        """The status of every replica here."""
        return tuple(self.replicas[group].status() for group in sorted(self.replicas))

    # ---- the loop

    def _receive(self, envelope: Envelope) -> None:
        self._intake.receive(envelope)
        self._turns.wake()

    def _mark(self, group: GroupId) -> None:
        self._dirty[group] = None
        self._turns.wake()

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(work)
        self._tasks.append(task)
        task.add_done_callback(self._reap)

    def _reap(self, task: asyncio.Task[None]) -> None:
        self._tasks.remove(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._fail(error)

    def _take_turn(self) -> Nanos | None:
        if self._stopping:
            return None
        try:
            self._together(self._one_turn)
            if not self._writes.under_way:
                # After what others wait for has left: the store's thread competes for the interpreter.
                self._begin_write()
        except Exception as error:  # Whatever it is: what the turn left behind cannot be trusted.
            self._fail(error)
            return None
        return AT_ONCE if self._dirty or self._intake else self._sleepers.earliest(self._deadlines.earliest)

    def _one_turn(self) -> None:
        now = self._clock.monotonic()
        if self._writes.finished or self._reads.finished:
            self._take_finished(now)
        self._take_inbox(now)
        self._sleepers.wake_if_silent(now)
        for group in self._deadlines.due(now):
            self.replicas[group].core.tick(now)
            self._dirty[group] = None
        self._propose(now)
        dirty, self._dirty = self._dirty, {}
        for group in dirty:
            replica = self.replicas[group]
            replica.collect(now, self._turn)
            self._deadlines.set(group, replica.next_deadline())
            self._sleepers.note(group, now)
        turn = self._turn
        if turn.unfinished:
            self._dirty.update(dict.fromkeys(turn.unfinished))
            turn.unfinished = []
        if turn.messages:
            messages, turn.messages = turn.messages, []
            self._send(messages)
        for node, heartbeat in self._sleepers.heartbeats(now):
            self._transport.send(node, [heartbeat])
        if turn.events:
            self._note_events()
        if turn.asks_for_reads:
            self._reads.start(turn)
        if turn.rows or turn.replaced:
            self._writes.keep_rows(turn)

    def _take_finished(self, now: Nanos) -> None:
        write, self._writes.finished = self._writes.finished, None
        if write is not None:
            self._intake.persisted(write.batch.incarnations)
            self._sleepers.restarted(write.batch.incarnations, now)
            self._end_write(write.releases, now)
        for group in self._reads.hand_out(now):
            self._dirty[group] = None

    def _end_write(self, releases: list[Release], now: Nanos) -> None:
        messages: list[tuple[GroupId, Outgoing]] = []
        for release in releases:
            self.replicas[release.group].core.persisted(release.token, now)
            self._dirty[release.group] = None
            messages.extend((release.group, outgoing) for outgoing in release.messages)
        self._send(messages)

    def _take_inbox(self, now: Nanos) -> None:
        for sender, item in self._intake.take():
            if isinstance(item, NodeHeartbeat):
                self._sleepers.receive(sender, item, self._dirty, now)
            else:
                self.replicas[item.group].step(sender, item.message, now)
                self._dirty[item.group] = None

    def _propose(self, now: Nanos) -> None:
        latest: Timestamp | IsochroneError | None = None
        for group in self._dirty:
            replica = self.replicas[group]
            if not replica.has_work(now):
                continue
            self._sleepers.wake_for_work(replica, now)
            if replica.wants_to_propose(now):
                if latest is None:
                    latest = self._latest()
                replica.propose_queued(now, latest)

    def _latest(self) -> Timestamp | IsochroneError:
        try:
            return self._clock.now().latest
        except ClockUnsynchronized as error:
            return error

    def _send(self, messages: list[tuple[GroupId, Outgoing]]) -> None:
        by_peer: dict[NodeId, list[GroupMessage]] = {}
        for group, outgoing in messages:
            by_peer.setdefault(outgoing.to, []).append(GroupMessage(group, outgoing.message))
        for peer, batch in by_peer.items():
            self._transport.send(peer, batch)

    def _note_events(self) -> None:
        events, self._turn.events = self._turn.events, []
        changed: dict[GroupId, None] = {}
        for group, event in events:
            self.counters[f"raft_{event.name}"] += 1
            if event.name is EventName.LEADER_CHANGED:
                changed[group] = None
            elif event.name is EventName.CONFIGURATION_CHANGED:
                self._intake.set_members(group, self.replicas[group].members)
        for group in changed:
            replica = self.replicas[group]
            self._leader_changed(group, replica.core.term, replica.known_leader())

    def _begin_write(self) -> None:
        turn = self._turn
        fresh = self._intake.not_durable()
        if self._writes.needed(turn, fresh):
            self._turn = Turn()
            self._writes.begin(turn, fresh)
            self.counters["writes"] += 1
        elif turn.releases:
            # Nothing to store and nothing under way: everything that the releases depend on is durable.
            releases, turn.releases = turn.releases, []
            self._end_write(releases, self._clock.monotonic())
