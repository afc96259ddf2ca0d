"""What groups have committed, as their replicas applied it: the truth that watchers and holders are judged by.

Equal entries have equal effects on all replicas (`checkers.invariants` sees to that), so whoever applies an entry first
tells it for all.
"""

from isochrone.drills.checkers.lock_table import LockView, Waiting, faults_of
from isochrone.drills.checkers.versions import Version
from isochrone.drills.checkers.watch_order import Written
from isochrone.ids import GroupId, LogIndex, Revision
from isochrone.regions.state.machine import Applied, GroupState
from isochrone.regions.state.model import LeaseChange
from isochrone.wire.locks import LockEnd
from isochrone.wire.records import ORDER_BYTES, KeyValue, decode_record, record_key


class Committed:
    """See the module. One for each world."""

    def __init__(self) -> None:
        self._records: dict[GroupId, dict[bytes, tuple[bytes, int]]] = {}
        """By their place in the order of writes, each with the true time at which it was applied first."""
        self._compacted: dict[GroupId, Revision] = {}
        self.lease_ends: dict[tuple[GroupId, int], int] = {}
        """True time at which the end of a lease was applied first, in nanoseconds."""
        self.lock_faults: list[str] = []
        """What was wrong with locks after an entry that touched them."""
        self.lock_looks = 0
        self.deadlocks = 0
        """Victims told."""
        self._last: dict[GroupId, LogIndex] = {}

    def applied(self, group: GroupId, index: LogIndex, state: GroupState, done: Applied, now_ns: int) -> None:
        """A replica has applied an entry."""
        if index > self._last.get(group, 0):
            self._last[group] = index
            if done.lock_moments or done.lock_notices:
                self._look_at_locks(group, index, state, done)
        if done.events:
            records = self._records.setdefault(group, {})
            for record in done.events:
                records.setdefault(record[:ORDER_BYTES], (record, now_ns))
        for event in done.lease_events:
            if event.change is LeaseChange.ENDED:
                self.lease_ends.setdefault((group, event.lease), now_ns)
        if state.data.compacted > self._compacted.get(group, 0):
            self._compacted[group] = state.data.compacted

    def _look_at_locks(self, group: GroupId, index: LogIndex, state: GroupState, done: Applied) -> None:
        self.lock_looks += 1
        self.deadlocks += sum(notice.end is LockEnd.DEADLOCK for notice in done.lock_notices)
        table = {
            name.decode(): LockView(
                {lease: held.mode for lease, held in lock.held.items()},
                [Waiting(each.lease, each.mode, each.converts, each.ticket) for each in lock.waiting],
                [ghost.mode for ghost in lock.ghosts],
            )
            for name, lock in state.data.locks.locks.items()
        }
        self.lock_faults += [f"group {group} at index {index}: {fault}" for fault in faults_of(table)]

    def written(self, group: GroupId) -> Written:
        """Everything written so far, in order."""
        records = self._records.get(group, {})
        items = tuple(decode_record(records[order][0]) for order in sorted(records))
        return Written(items, self._compacted.get(group, Revision(0)))

    def versions(self, group: GroupId, key: bytes) -> list[KeyValue]:
        """All versions of a key, in order."""
        records = [record for _, (record, _) in sorted(self._records.get(group, {}).items())]
        return [decode_record(record) for record in records if record_key(record) == key]

    def below(self, group: GroupId, prefix: bytes) -> list[Version]:
        """All versions of the keys with a prefix, in order."""
        found = sorted(self._records.get(group, {}).items())
        return [
            Version(decode_record(record), known_ns)
            for _, (record, known_ns) in found
            if record_key(record).startswith(prefix)
        ]

    def revision(self, group: GroupId) -> int:
        """The last revision at which anything was written."""
        records = self._records.get(group)
        return int.from_bytes(max(records)[:8], "big") if records else 1
