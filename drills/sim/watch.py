"""Watches a world as it runs: continuous invariants, the trace, and processes that end when they should not.

Everything is reported where it happens, through the simulated ports; only what a replica applies or loads is seen by
standing before its state machine. A process that was replaced is no longer watched: its disk is another's.

The state of every replica is known as a digest of its rows, at every index that it applies, when it starts and when it
loads a snapshot. Equal indexes must have equal digests, whichever way a replica came there.
"""

import traceback
from collections import Counter
from collections.abc import Iterable, Sequence

import google_crc32c

from isochrone.drills.checkers.invariants import Invariants
from isochrone.drills.sim.committed import Committed
from isochrone.drills.sim.disk import SimStore
from isochrone.drills.sim.loop import SimLoop
from isochrone.drills.sim.machine import Machine, Process
from isochrone.drills.sim.trace import Trace
from isochrone.errors import StorageError
from isochrone.ids import NS_PER_S, GroupId, KeyspaceId, LogIndex, NodeId, Term
from isochrone.ports import Row, WriteBatch
from isochrone.regions.raft.state import Office
from isochrone.regions.replica import Replica
from isochrone.regions.state.machine import Applied, GroupState
from isochrone.wire.messages import Entry, GroupMessage, PeerMessage


class Watch:
    """See the module. One for each world; stands behind `machine.Watcher`."""

    def __init__(self, loop: SimLoop, trace: Trace) -> None:
        self.invariants = Invariants()
        self.violations: list[str] = []
        """Processes that ended for no reason that the world gave them."""
        self.counters: Counter[str] = Counter()
        self.truth = Committed()
        self._loop = loop
        self._trace = trace

    def found(self) -> list[str]:
        """Every violation so far, the first ones first within each kind."""
        failures = [f"{each.group}: {each.message}: {_text(each.error)}" for each in self._loop.failures]
        return [*failures, *self.violations, *(str(each) for each in self.invariants.violations)]

    # ---- what machines tell

    def process_started(self, machine: Machine, store: SimStore) -> None:
        """See `machine.Watcher`."""
        self.counters["process_starts"] += 1
        self._note_life(machine, 1)
        for group in store.groups:
            self.invariants.restarted(group, machine.name, store.stored(group))

    def process_serves(self, machine: Machine, process: Process) -> None:
        """See `machine.Watcher`."""
        self._note_life(machine, 2)
        for replica in process.host.replicas.values():
            self._watch(machine, process, replica)

    def store_replaced(self, machine: Machine) -> None:
        """See `machine.Watcher`."""
        self.counters["stores_replaced"] += 1
        self._note_life(machine, 4)
        for group in machine.settings.groups:
            self.invariants.replaced(group, machine.name)

    def replica_added(self, machine: Machine, process: Process, replica: Replica) -> None:
        """See `machine.Watcher`."""
        self._watch(machine, process, replica)

    def _watch(self, machine: Machine, process: Process, replica: Replica) -> None:
        if replica.machine is not None:
            index = process.store.stored(replica.group).applied
            self._stand_before(machine, process, replica, replica.machine, index)
            self._await_snapshots(machine, process, replica)

    def _await_snapshots(self, node: Machine, process: Process, replica: Replica) -> None:
        load = replica.loaded

        def loaded(machine: GroupState, index: LogIndex) -> None:
            load(machine, index)
            if replica.machine is machine:  # else another snapshot has come meanwhile
                self.counters["snapshots_loaded"] += 1
                self._stand_before(node, process, replica, machine, index)

        replica.loaded = loaded  # type: ignore[method-assign]

    def _stand_before(
        self, machine: Machine, process: Process, replica: Replica, state: GroupState, index: LogIndex
    ) -> None:
        """Watch a state machine that has just been filled with the rows on disk; they reflect the log up to `index`."""
        apply, group, node = state.apply, replica.group, machine.name
        digest = _Digest()
        digest.update(process.store.stored_rows(group))
        if process is machine.process:
            self.invariants.state_at(group, node, index, digest.total)

        def applied(entry: Entry) -> Applied:
            done = apply(entry)
            digest.update(done.rows)
            if process is machine.process:
                self.invariants.applied(group, node, replica.core.term, entry)
                self.truth.applied(group, entry.index, state, done, round(self._loop.now_s * NS_PER_S))
                self.invariants.state_at(group, node, entry.index, digest.total)
            return done

        state.apply = applied  # type: ignore[method-assign]

    def leader_changed(self, machine: Machine, group: GroupId, term: Term) -> None:
        """See `machine.Watcher`."""
        process = machine.process
        if process is None:
            return
        status = process.host.replicas[group].core.status()
        self.invariants.observed(group, machine.name, status.term, status.commit)
        if status.office is Office.LEADER:
            self.counters["elections_won"] += 1
            self.invariants.led(group, machine.name, status.role, status.term)

    def sends(self, machine: Machine, to: NodeId, messages: Sequence[PeerMessage]) -> None:
        """See `machine.Watcher`."""
        for item in messages:
            if isinstance(item, GroupMessage):
                self.invariants.sent(item.group, machine.name, to, item.message)

    def process_ended(self, machine: Machine, error: BaseException) -> None:
        """See `machine.Watcher`."""
        self._note_life(machine, 3)
        if isinstance(error, StorageError) and machine.disk.failed:
            self.counters["stopped_by_disk"] += 1
        else:
            self.violations.append(f"node {machine.name} stopped: {_text(error)}")

    def refused_to_start(self, machine: Machine, error: StorageError) -> None:
        """See `machine.Watcher`."""
        self._note_life(machine, 4)
        self.counters["starts_refused"] += 1
        if machine.disk.missing is None:
            self.violations.append(f"node {machine.name} does not start: {_text(error)}")

    def committed(self, machine: Machine, batch: WriteBatch) -> None:
        """A batch is on a machine's disk."""
        self.counters["commits"] += 1
        last = 0
        for log in batch.logs:
            self.invariants.wrote(log.group, machine.name, log)
            if log.entries:
                last = log.entries[-1].index
        self._trace.note(self._loop.now_s, Trace.WRITE, machine.endpoint.number, len(batch.logs), last, len(batch.rows))

    def _note_life(self, machine: Machine, what: int) -> None:
        self._trace.note(self._loop.now_s, Trace.LIFE, machine.endpoint.number, what)


class _Digest:
    """A number for all rows of a state, which is the same in whatever order they came about."""

    def __init__(self) -> None:
        self.total = 0
        self._parts: dict[tuple[KeyspaceId, int, bytes], int] = {}

    def update(self, rows: Iterable[Row]) -> None:
        """These rows are put, or deleted."""
        for row in rows:
            key = (row.keyspace, row.table, row.key)
            self.total -= self._parts.pop(key, 0)
            if row.value is not None:
                part = google_crc32c.extend(google_crc32c.value(row.key), row.value) * (row.table + 1)
                self._parts[key] = part
                self.total += part


def _text(error: BaseException | None) -> str:
    if error is None:
        return "no exception is known"
    return "".join(traceback.format_exception(error)).rstrip()
