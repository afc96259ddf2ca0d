"""What a host reads from its store while it runs: entries and snapshots for peers that are behind, and its own state
after a snapshot was installed here.

Cores ask for it in a turn, tasks read it, and a later turn hands it to the cores (`hand_out`). A core names each
attempt to send a snapshot by a number; the store's snapshot is opened at the first read and closed when the core says
that the attempt has ended, which may be while it is still being opened. At most one read of an attempt is under way.
"""

from collections import deque
from collections.abc import Callable, Coroutine, Mapping

from isochrone.errors import StorageError
from isochrone.ids import GroupId, Nanos
from isochrone.ports import SnapshotReader, Store
from isochrone.probes import probe
from isochrone.regions.loading import load_snapshot
from isochrone.regions.raft.ready import Fetch, SnapshotPart, SnapshotRead
from isochrone.regions.replica import Replica
from isochrone.regions.state.machine import GroupState
from isochrone.regions.work import Turn

_Attempt = tuple[GroupId, int]


class StoreReads:
    """The reads of one host."""

    def __init__(
        self,
        store: Store,
        replicas: Mapping[GroupId, Replica],
        new_machine: Callable[[GroupId], GroupState],
        spawn: Callable[[Coroutine[None, None, None]], None],
        wake: Callable[[], None],
    ) -> None:
        """Nothing is read yet.

        Args:
            store: what to read.
            replicas: the host's, by group.
            new_machine: makes an empty state machine for a group.
            spawn: runs a task whose failure ends the host.
            wake: asks for a turn.
        """
        self._store = store
        self._replicas = replicas
        self._new_machine = new_machine
        self._spawn = spawn
        self._wake = wake
        self.finished: deque[tuple[GroupId, Callable[[Nanos], None]]] = deque()
        """What has been read, for `hand_out`."""
        self._readers: dict[_Attempt, SnapshotReader | None] = {}
        """The snapshot of each attempt under way; None: not open yet."""

    def start(self, turn: Turn) -> None:
        """Begin what a turn asks for, and take it out of the turn."""
        for group, fetch in turn.fetches:
            self._spawn(self._fetch(group, fetch))
        for group, read in turn.snapshot_reads:
            self._readers.setdefault((group, read.attempt), None)
            self._spawn(self._read_snapshot(group, read))
        # After the reads: an attempt may have ended since it asked for one, and is never heard of again.
        for attempt in turn.snapshot_ends:
            reader = self._readers.pop(attempt, None)
            if reader is not None:
                reader.close()
        for group in turn.loads:
            self._spawn(self._load(group))
        turn.fetches, turn.snapshot_ends, turn.snapshot_reads, turn.loads = [], [], [], []

    def hand_out(self, now: Nanos) -> list[GroupId]:
        """Hand what has been read to the cores; returns the groups that this concerns."""
        groups = []
        while self.finished:
            group, deliver = self.finished.popleft()
            deliver(now)
            groups.append(group)
        return groups

    def _finish(self, group: GroupId, deliver: Callable[[Nanos], None]) -> None:
        self.finished.append((group, deliver))
        self._wake()

    async def _fetch(self, group: GroupId, fetch: Fetch) -> None:
        core = self._replicas[group].core
        try:
            entries = await self._store.read_entries(group, fetch.first, fetch.last, fetch.bytes_max)
        except StorageError:
            if core.status().first <= fetch.first:
                raise
            probe("host.fetched_entries_were_dropped")
            entries = ()
        self._finish(group, lambda _now: core.fetched(fetch.peer, entries))

    async def _read_snapshot(self, group: GroupId, read: SnapshotRead) -> None:
        core = self._replicas[group].core
        part = await self._next_part(group, read)
        self._finish(group, lambda now: core.snapshot_read(read.attempt, part, now))

    async def _next_part(self, group: GroupId, read: SnapshotRead) -> SnapshotPart | None:
        """None: the attempt has ended, or the store cannot give the snapshot any more."""
        attempt = (group, read.attempt)
        if attempt not in self._readers:
            return None
        reader = self._readers[attempt]
        if reader is None:
            reader = await self._store.open_snapshot(group)
            if attempt not in self._readers:
                probe("host.snapshot_ended_while_it_was_opened")
                reader.close()
                return None
            self._readers[attempt] = reader
        found = await reader.read(read.bytes_max)
        return found and SnapshotPart(reader.index, reader.index_term, reader.configuration, *found)

    async def _load(self, group: GroupId) -> None:
        machine = self._new_machine(group)
        while (index := await load_snapshot(self._store, group, machine)) is None:
            # Other rows have taken their place, perhaps; whatever it was, these are still needed, or newer ones are.
            probe("host.snapshot_replaced_while_it_was_loaded")
            machine = self._new_machine(group)
        replica, loaded = self._replicas[group], index
        self._finish(group, lambda _now: replica.loaded(machine, loaded))
