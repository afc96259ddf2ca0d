"""The world of a scenario: production `RaftNode`s on memory stores, whose messages, writes and time wait to be told.

Nothing happens by itself. Messages wait until they are delivered, dropped or repeated; writes wait until they are
synced; time stands still until it is advanced. `stabilize` and `run` do all that on their own. Messages of peers pass
the production `Intake`, so strangers and old incarnations are refused here as in a host. A node that meets an error
that would end its host stops.

Every step leaves its trace: first what happened to whom, then, indented, what the node did about it.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TypeVar

from scenario_claims import Claims
from scenario_reads import take_reads
from scenario_site import (
    KEYSPACE,
    FixedJitter,
    Flight,
    Level,
    Pending,
    ScenarioClock,
    Settings,
    Site,
    finish,
    log_of_terms,
    must_succeed,
    store_identity,
)
from scenario_snapshots import batch_of, state_on_disk, take_snapshots
from scenario_trace import (
    entries_text,
    event_text,
    kind_of,
    message_text,
    unknown_parts,
)

from isochrone.clocks.hlc import HybridLogicalClock
from isochrone.errors import InvariantViolation, IsochroneError, StorageError
from isochrone.ids import (
    NS_PER_MS,
    GroupId,
    Incarnation,
    LogIndex,
    Nanos,
    NodeId,
    StoreId,
    Term,
    Timestamp,
)
from isochrone.ports import LogWrite, StoredGroup, WriteBatch
from isochrone.regions.intake import Intake
from isochrone.regions.raft.changes import all_members, keeps_state
from isochrone.regions.raft.config import RaftConfig
from isochrone.regions.raft.node import RaftNode
from isochrone.regions.raft.ready import AppendWork, EventName, Fetch, Outgoing, Proposal, Ready
from isochrone.regions.storage.memory import MemoryStore
from isochrone.wire.messages import (
    Configuration,
    Entry,
    Envelope,
    GroupMessage,
    HardState,
    Member,
    VoteRequest,
    VoteResponse,
)

GROUP = GroupId("g")
READY_PARTS = (
    *("messages", "append", "committed", "reads", "refused_reads", "fetches", "events"),
    *("snapshot_reads", "snapshot_ends", "load"),
)
WORK_PARTS = ("token", "hard_state", "entries", "truncate_to", "release", "chunk", "discard_staged")
TICKS_MAX = 1_000
_UNCUT = 1 << 62
T = TypeVar("T")


class World:
    """See the module."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.level = Level.ALL
        self._clock = ScenarioClock()
        self.settings = Settings(100, 1000, 10, {})
        self.configuration = Configuration(())
        self.sites: dict[NodeId, Site] = {}
        self.flights: list[Flight] = []
        self.links_ms: dict[tuple[NodeId, NodeId], int] = {}
        self.cut: set[tuple[NodeId, NodeId]] = set()
        self.held: set[NodeId] = set()
        """Nodes whose disk syncs only when told."""
        self.paused: set[NodeId] = set()
        """Nodes whose process stands still."""
        self.answers_held: set[NodeId] = set()
        """Nodes that answer no read yet that they may answer."""
        self.claims = Claims(
            lambda node: (self.sites[node].store.identity.store, self.disk(node)),
            lambda node: self.sites[node].member.store,
        )
        self.counts: Counter[str] = Counter()
        """Events since they were last asked for."""
        self._contexts = 0
        self._ticks = 0
        """How many timers have fired since time last moved on."""

    # ---- telling

    def note(self, line: str) -> None:
        """A line of the full trace."""
        if self.level is Level.ALL:
            self.lines.append(line)

    def tell(self, site: Site, text: str) -> None:
        """Something worth a line unless the trace is off."""
        if self.level is Level.ALL:
            self.lines.append(f"  {text}")
        elif self.level is Level.EVENTS:
            self.lines.append(f"{self.now_ms} ms {site.name}: {text}")

    @property
    def now(self) -> Nanos:
        """The time."""
        return self._clock.time

    @property
    def now_ms(self) -> str:
        """The time, in milliseconds."""
        return f"{self.now / NS_PER_MS:g}" if self.now % NS_PER_MS else str(self.now // NS_PER_MS)

    # ---- nodes

    def add_nodes(
        self, members: Sequence[Member], spare: Sequence[Member], jitter_ms: dict[NodeId, int], settings: Settings
    ) -> None:
        """Bootstrap a group of `members`. All nodes, also the spare ones, are to be started."""
        self.settings, self.configuration = settings, Configuration(tuple(members))
        for member in (*members, *spare):
            rng = FixedJitter(jitter_ms[member.node] * NS_PER_MS)
            self.sites[member.node] = Site(member.node, member, rng, MemoryStore(store_identity(member), {}))
        for member in (*members, *spare):
            self.sites[member.node].store = self._new_store(member)

    def _new_store(self, member: Member) -> MemoryStore:
        """A bootstrapped store whose owner has met its peers, so that traces need not begin with that."""
        store = MemoryStore(store_identity(member), {GROUP: self.configuration})
        peers = {node: Incarnation(1) for node in self.sites if node != member.node}
        store.write(WriteBatch(incarnations=peers), must_succeed)
        return store.reopen()

    def prepare_disk(self, site: Site, terms: list[int], term: int, vote: NodeId | None, commit: int) -> None:
        """Let a node that never ran find a log with entries of these terms. Equal index and term is the same entry."""
        hard_state = HardState(Term(max(term, *terms, 0)), vote, LogIndex(commit))
        site.store.write(WriteBatch((LogWrite(GROUP, hard_state, log_of_terms(terms)),)), must_succeed)

    def start(self, site: Site) -> None:
        """Start a node from what its disk holds."""
        site.lives += 1
        site.counters = Counter()
        site.intake = Intake(site.name, site.store.incarnations, self._clock, HybridLogicalClock(_UNCUT), site.counters)
        stored = self.disk(site.name)
        site.keeps_state = keeps_state(stored, site.name)
        base = stored.applied if site.keeps_state else max(stored.hard_state.commit, stored.truncated_index)
        site.applied[:] = state_on_disk(site, GROUP)
        site.rows_queued, site.loading = len(site.applied), False
        first = LogIndex(min(base + 1, stored.last_index))
        tail: tuple[Entry, ...] = ()
        if stored.last_index > stored.truncated_index:
            tail = finish(site.store.read_entries(GROUP, first, stored.last_index, _UNCUT))
        config = RaftConfig(
            group=GROUP,
            node=site.name,
            heartbeat_ns=Nanos(self.settings.heartbeat_ms * NS_PER_MS),
            election_timeout_ns=Nanos(self.settings.election_ms * NS_PER_MS),
            **self.settings.raft,
        )
        site.core = RaftNode(config, stored, tail, store=site.store.identity.store, rng=site.rng, now=self.now)
        site.intake.set_members(GROUP, all_members(site.core.configuration))
        site.commit = site.core.status().commit
        self.drain(site)

    def stop(self, site: Site, *, keep: int = 0) -> None:
        """The process ends at once; of the writes that wait, the first `keep` still reach the disk."""
        for pending in [pending for pending in site.pending if pending.stores][:keep]:
            site.store.write(pending.batch, must_succeed)
        site.core = None
        site.pending.clear()
        site.snapshots.clear()
        site.waiting_reads.clear()
        site.store = site.store.crash()
        self.paused.discard(site.name)
        self.answers_held.discard(site.name)

    def wipe(self, site: Site, *, same_store: bool) -> None:
        """Put an empty disk in the place of a stopped node's: of another store id, or one that lies about it."""
        site.applied.clear()
        if same_store:
            self.claims.forgetful.add(site.name)
            site.store = self._new_store(site.member)
        else:
            site.wipes += 1
            site.store = self._new_store(replace(site.member, store=StoreId(f"store-{site.name}-{site.wipes + 1}")))

    def disk(self, node: NodeId) -> StoredGroup:
        """What a node's disk holds durably."""
        return finish(self.sites[node].store.load(GROUP))

    def log_of(self, node: NodeId) -> tuple[Entry, ...]:
        """The entries on a node's disk."""
        stored = self.disk(node)
        first = LogIndex(stored.truncated_index + 1)
        if first > stored.last_index:
            return ()
        return finish(self.sites[node].store.read_entries(GROUP, first, stored.last_index, _UNCUT))

    @contextmanager
    def _ends_host(self, site: Site) -> Iterator[None]:
        """What a host dies of stops the node."""
        try:
            yield
        except (InvariantViolation, StorageError) as error:
            self.stop(site)
            self.tell(site, f"stops: {type(error).__name__}: {error}")

    def act(self, site: Site, action: Callable[[RaftNode], None]) -> None:
        """Let the core do something, and then do what it wants done."""
        with self._ends_host(site):
            if site.core is not None:
                action(site.core)
                self.drain(site)

    # ---- what a node wants done

    def drain(self, site: Site) -> None:
        """Carry out what the core wants done, until it wants no more."""
        while (core := site.core) is not None:
            ready = core.ready(self.now)
            assert not (hidden := unknown_parts(ready, READY_PARTS)), f"the trace would hide {hidden}"
            self._show_events(site, core, ready)
            self._show_commit(site, core)
            for outgoing in ready.messages:
                self._send(site, outgoing)
            if ready.append is not None:
                self._queue_work(site, ready.append)
            self._apply(site, core, ready.committed)
            take_reads(self, site, core, ready)
            for fetch in ready.fetches:
                self._fetch(site, core, fetch)
            take_snapshots(self, site, core, ready, GROUP)
            if not (ready.committed or ready.fetches or ready.snapshot_reads or ready.load):
                return

    def _show_events(self, site: Site, core: RaftNode, ready: Ready) -> None:
        for event in ready.events:
            if event.name is EventName.BECAME_LEADER:
                self.claims.leads(site.name, event.term)
            if event.name is EventName.CONFIGURATION_CHANGED:
                site.intake.set_members(GROUP, all_members(core.configuration))
            self.counts[event.name] += 1
            self.tell(site, event_text(event))

    def _show_commit(self, site: Site, core: RaftNode) -> None:
        status = core.status()
        if status.commit > site.commit:
            site.commit = status.commit
            self.note(f"  commits {status.commit}")
            if status.match:
                self.claims.commits(status.configuration, status.commit)

    def _apply(self, site: Site, core: RaftNode, committed: tuple[Entry, ...]) -> None:
        for entry in committed:
            self.claims.applies(entry, LogIndex(len(site.applied) + 1))
            site.applied.append(entry)
        if committed:
            self.note(f"  applies {entries_text(committed)}")
            core.applied(committed[-1].index)

    def _fetch(self, site: Site, core: RaftNode, fetch: Fetch) -> None:
        self.note(f"  reads {fetch.first}..{fetch.last} from disk for {fetch.peer}")
        entries = finish(site.store.read_entries(GROUP, fetch.first, fetch.last, fetch.bytes_max))
        core.fetched(fetch.peer, entries)

    # ---- disks

    def _queue_work(self, site: Site, work: AppendWork) -> None:
        assert not (hidden := unknown_parts(work, WORK_PARTS)), f"the trace would hide {hidden}"
        self._queue(site, Pending(batch_of(site, work, GROUP), work))

    def _queue(self, site: Site, pending: Pending) -> None:
        if not pending.stores and not site.pending:
            self._end_write(site, pending)
            return
        site.pending.append(pending)
        held = [kind_of(outgoing.message) for outgoing in pending.work.release] if pending.work else []
        then = f" then {', '.join(held)}" if held else ""
        self.note(f"  writes {pending.text()}{then}")

    def sync(self, site: Site, outcome: str = "synced") -> None:
        """The oldest write becomes durable, and with it those after it that store nothing."""
        pending = site.pending.popleft()
        self.note(f"{site.name}: {outcome} {pending.text()}")
        with self._ends_host(site):
            site.store.write(pending.batch, must_succeed)
            self._end_write(site, pending)
            while site.pending and not site.pending[0].stores:
                self._end_write(site, site.pending.popleft())
            self.drain(site)

    def _end_write(self, site: Site, pending: Pending) -> None:
        assert site.core is not None
        if pending.batch.incarnations:
            site.intake.persisted(pending.batch.incarnations)
            self._take_inbox(site, site.core)
        if pending.work is not None:
            site.core.persisted(pending.work.token, self.now)
            for outgoing in pending.work.release:
                self._send(site, outgoing)

    # ---- the network

    def _send(self, site: Site, outgoing: Outgoing) -> None:
        assert site.core is not None
        self.claims.sends(site.name, outgoing.to, outgoing.message, site.core.status().configuration)
        cut = (site.name, outgoing.to) in self.cut
        self.note(f"  -> {outgoing.to} {message_text(outgoing.message)}{' (cut)' * cut}")
        if not cut:
            link_ms = self.links_ms.get((site.name, outgoing.to), self.settings.link_ms)
            identity = site.store.identity
            due = self.now + link_ms * NS_PER_MS
            flight = Flight(site.name, outgoing.to, identity.store, identity.incarnation, outgoing.message, due)
            self.flights.append(flight)

    def deliver(self, flight: Flight) -> None:
        """A message arrives, if there is a way and somebody to take it."""
        self.flights.remove(flight)
        site = self.sites[flight.target]
        line = f"{flight.target} <- {flight.source} {message_text(flight.message)}"
        if (flight.source, flight.target) in self.cut or site.core is None:
            self.note(f"{line} ({'cut' if site.core else 'down'})")
            return
        dropped = site.counters.total()
        item = GroupMessage(GROUP, flight.message)
        site.intake.receive(Envelope(flight.source, flight.store, flight.incarnation, (item,)))
        if site.counters.total() > dropped:
            reason = "a stranger" if site.counters["messages_of_strangers"] else "an old incarnation"
            self.note(f"{line} (dropped: of {reason})")
            return
        self.note(f"{line}{'' if site.intake else ' (waits: its incarnation is not durable here)'}")
        with self._ends_host(site):
            self._take_inbox(site, site.core)
            self.drain(site)
        fresh = site.intake.not_durable()
        if fresh and not any(pending.batch.incarnations == fresh for pending in site.pending):
            self._queue(site, Pending(WriteBatch(incarnations=fresh), None))

    def _take_inbox(self, site: Site, core: RaftNode) -> None:
        for sender, item in site.intake.take():
            core.step(sender, item.message, self.now)

    # ---- time

    def quiet_down(self, nodes: Iterable[NodeId], limit: int) -> None:
        """Sync and deliver among `nodes`, until nothing is left; time stands still."""
        among = sorted(nodes)
        for _ in range(limit):
            if not self._sync_one(among) and not self._deliver_one(among):
                return
        raise AssertionError(f"not quiet after {limit} steps")

    def pass_votes(self, candidate: Site, voters: Iterable[Site]) -> bool:
        """Sync, and deliver only votes, between a candidate and voters. Returns whether the candidate leads then."""
        among = {candidate.name, *(site.name for site in voters)}
        while candidate.core and not candidate.core.status().match:
            votes = [
                flight
                for flight in self.flights
                if isinstance(flight.message, VoteRequest | VoteResponse) and {flight.source, flight.target} <= among
            ]
            waiting = [site for name, site in self.sites.items() if name in among and site.pending]
            if waiting:
                self.sync(waiting[0])
            elif votes:
                self.deliver(votes[0])
            else:
                return False
        return True

    def _sync_one(self, among: Iterable[NodeId]) -> bool:
        for node in among:
            site = self.sites[node]
            if site.pending and node not in self.held | self.paused:
                self.sync(site)
                return True
        return False

    def _deliver_one(self, among: Iterable[NodeId], due: int | None = None) -> bool:
        for flight in self.flights:
            ready = due is None or flight.due <= due
            if ready and flight.source in among and flight.target in among and flight.target not in self.paused:
                self.deliver(flight)
                return True
        return False

    def advance(self, duration_ms: int) -> None:
        """Time passes and timers fire; messages and writes wait."""
        end = self.now + duration_ms * NS_PER_MS
        while (tick := self._next_tick(end)) is not None:
            self._tick(*tick)
        self._clock.time = Nanos(end)

    def run(self, duration_ms: int) -> None:
        """Time passes, timers fire, messages arrive after the delay of their link, and disks sync at once."""
        end = self.now + duration_ms * NS_PER_MS
        everyone = tuple(self.sites)
        while True:
            while self._sync_one(everyone):
                pass
            tick = self._next_tick(end)
            due = min((f.due for f in self.flights if f.target not in self.paused and f.due <= end), default=None)
            if due is not None and (tick is None or due <= tick[0]):
                self._clock.time = max(self.now, Nanos(due))
                self.flights.sort(key=lambda flight: flight.due)
                self._deliver_one(everyone, due)
            elif tick is not None:
                self._tick(*tick)
            else:
                self._clock.time = Nanos(end)
                return

    def _next_tick(self, end: int) -> tuple[int, NodeId] | None:
        found: tuple[int, NodeId] | None = None
        for node, site in self.sites.items():
            deadline = site.core.next_deadline() if site.core and node not in self.paused else None
            if deadline is not None and deadline <= end and (found is None or max(deadline, self.now) < found[0]):
                found = (max(deadline, self.now), node)
        return found

    def _tick(self, time: int, node: NodeId) -> None:
        self._ticks = self._ticks + 1 if time == self.now else 0
        assert self._ticks < TICKS_MAX, f"the timer of {node} fires without end at {self.now_ms} ms"
        self._clock.time = Nanos(time)
        self.note(f"{node}: tick at {self.now_ms} ms")
        self.act(self.sites[node], lambda core: core.tick(self.now))

    # ---- requests

    def leader(self) -> Site | None:
        """The live leader of the highest term that takes proposals, if any."""
        leading = [
            (site.core.term, site)
            for site in self.sites.values()
            if site.core and site.core.status().match and not site.core.status().relay
        ]
        return max(leading, key=lambda pair: pair[0])[1] if leading else None

    def ask(self, site: Site, request: Callable[[RaftNode], T]) -> T | None:
        """Make a request of a node's core. Returns None if it refused."""
        if site.core is None:
            return None
        try:
            result = request(site.core)
        except IsochroneError as error:
            self.tell(site, f"{type(error).__name__}: {error}")
            return None
        with self._ends_host(site):
            self.drain(site)
        return result

    def propose(self, site: Site, data: bytes) -> LogIndex | None:
        """Propose at a node. Returns the index, or None if it refused."""
        shown = data.decode() if len(data) < 30 else f"{len(data)} bytes"
        self.note(f"{site.name}: propose {shown}")

        def propose(core: RaftNode) -> LogIndex:
            index = core.propose([Proposal(KEYSPACE, data, 1, Timestamp(self.now))])[0]
            self.claims.proposed(index, core.term, data)
            return index

        return self.ask(site, propose)

    def read(self, site: Site) -> None:
        """Ask a node for a linearizable read."""
        self._contexts += 1
        context = self._contexts
        self.note(f"{site.name}: read {context}")

        def read(core: RaftNode) -> None:
            core.read_index(context)
            self.claims.asks(context)

        self.ask(site, read)
