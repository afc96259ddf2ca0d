"""The disk of one simulated node: the memory store behind a sync that takes time, hangs or fails.

The disk outlives the processes that have it open. A crash loses any suffix of the batches not yet synced. A process
that has lost the disk to a successor cannot write any more: its writes fail, or never return. A disk that comes back
empty, or as a restored copy, is refused when it is opened, as `regions.storage.directory_os` does for real ones: a node
never makes its own store, and a store opens only on the medium on which it was closed.

Reading a snapshot takes time, too, and now and then too much has changed meanwhile, so that it is lost.
"""

import asyncio
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from isochrone.errors import StorageError
from isochrone.ids import GroupId, LogIndex
from isochrone.ports import Row, SnapshotReader, StoredGroup, StoreIdentity, WriteBatch, WriteDone
from isochrone.regions.storage.memory import MemoryStore
from isochrone.wire.messages import Configuration, Entry

SNAPSHOT_LOSS = 0.01
"""Probability that a snapshot is lost between two reads."""


@dataclass(frozen=True, slots=True)
class FailingSync:
    """A sync that fails. `kept`: what it was to make durable is there nevertheless."""

    kept: bool


class SimDisk:
    """See the module. What faults do to the disk is set here; the store asks at each write."""

    def __init__(self, rng: random.Random, *, sync_ms: tuple[float, float]) -> None:
        self.extra_ms = 0.0
        """What a fault adds to each sync."""
        self.hung = False
        self.failing: FailingSync | None = None
        """How the next sync fails, if it does."""
        self.failed = False
        """A sync has failed since the store was opened last."""
        self.keep = 0
        """How many of the batches that are not synced survive the next crash."""
        self.snapshot_loss = SNAPSHOT_LOSS
        """How likely each reading of a part of a snapshot is to lose the whole; a long one would never get through."""
        self.missing: str | None = None
        """Why the disk holds no store that may be opened, if it does not."""
        self.committed: Callable[[WriteBatch], None] | None = None
        """Told of every batch that has become durable."""
        self._rng = rng
        self._sync_ms = sync_ms
        self._owed = 0
        """Syncs that ended while the disk hung."""
        self.store: SimStore | None = None
        """As opened last."""

    def format(self, identity: StoreIdentity, groups: Mapping[GroupId, Configuration]) -> None:
        """Make the store, as bootstrap does."""
        SimStore(identity, groups, self)

    def open(self) -> "SimStore":
        """Open the store for a new process; whoever had it open can use it no more.

        Of the batches that were not synced the first `keep` survive.

        Raises:
            StorageError: there is no store, or it is not the one that was there.
        """
        if self.missing is not None or self.store is None:
            raise StorageError(self.missing or "there is no store")
        self._owed = 0
        self.failed = False
        keep, self.keep = self.keep, 0
        return self.store.crash(keep)

    def speed_up(self) -> None:
        """Be slow no more."""
        self.extra_ms = 0.0

    def resume(self) -> int:
        """Hang no more; returns how many syncs have ended meanwhile, for `release`."""
        self.hung = False
        owed, self._owed = self._owed, 0
        return owed

    def release(self, count: int) -> None:
        """Tell whoever waits that syncs have ended. Call it in the group of the process that has the disk open."""
        if self.store is not None:
            self.store.release(count)

    def loses_snapshot(self) -> bool:
        """Whether the snapshot that is being read is lost."""
        return self._rng.random() < self.snapshot_loss

    def sync_s(self) -> float:
        """How long the next sync takes, or the next read."""
        low, high = self._sync_ms
        return (low + self._rng.random() * (high - low) + self.extra_ms) / 1000

    def synced(self, store: "SimStore") -> None:
        """A sync has ended; tell whoever waits, unless the disk hangs."""
        if store is not self.store:
            return
        if self.hung:
            self._owed += 1
        else:
            store.release(1)


class _SlowSnapshot:
    """A `ports.SnapshotReader` that takes time, and may be lost."""

    def __init__(self, reader: SnapshotReader, disk: SimDisk) -> None:
        self.index = reader.index
        self.index_term = reader.index_term
        self.configuration = reader.configuration
        self._reader = reader
        self._disk = disk

    async def read(self, bytes_max: int) -> tuple[bytes, bool] | None:
        await asyncio.sleep(self._disk.sync_s())
        return None if self._disk.loses_snapshot() else await self._reader.read(bytes_max)

    def close(self) -> None:
        self._reader.close()


class SimStore(MemoryStore):
    """The `Store` port of one process. Writes become durable in order, each after its sync."""

    def __init__(self, identity: StoreIdentity, groups: Mapping[GroupId, Configuration], disk: SimDisk) -> None:
        super().__init__(identity, groups)
        self._attach(disk)

    def _attach(self, disk: SimDisk) -> None:
        self._disk = disk
        disk.store = self
        self.hangs_once_lost = False
        """Writes never return once another process has the disk, as if it had been detached; else they fail."""
        self._sync_end_s = 0.0
        self._gated = False

    def write(self, batch: WriteBatch, done: WriteDone) -> None:
        """See the port."""
        if self.hangs_once_lost and self._disk.store is not self:
            return
        if self._unusable is None and not self._gated:
            loop = asyncio.get_running_loop()
            self._sync_end_s = max(self._sync_end_s, loop.time()) + self._disk.sync_s()
            loop.call_at(self._sync_end_s, self._disk.synced, self)
        self._held = True
        super().write(batch, done)

    async def read_entries(self, group: GroupId, first: LogIndex, last: LogIndex, bytes_max: int) -> tuple[Entry, ...]:
        """See the port."""
        await asyncio.sleep(self._disk.sync_s())
        return await super().read_entries(group, first, last, bytes_max)

    async def read_rows(self, group: GroupId) -> Sequence[Row]:
        """See the port."""
        await asyncio.sleep(self._disk.sync_s())
        return await super().read_rows(group)

    async def open_snapshot(self, group: GroupId) -> SnapshotReader:
        """See the port."""
        await asyncio.sleep(self._disk.sync_s())
        return _SlowSnapshot(await super().open_snapshot(group), self._disk)

    def hold(self) -> None:
        """Let no sync end until `release`."""
        self._gated = True
        super().hold()

    def release(self, count: int | None = None) -> None:
        """Make writes durable in order."""
        if count is None:
            self._gated = False
        super().release(count)

    def crash(self, keep: int = 0) -> Self:
        """Lose power; see the base class."""
        survivors = [pending.batch for pending in self._pending[:keep]]
        store = super().crash(keep)
        store._attach(self._disk)
        for batch in survivors:
            self._told(batch)
        return store

    def stored(self, group: GroupId) -> StoredGroup:
        """What is durable of a group."""
        return self._group(group)

    def stored_rows(self, group: GroupId) -> list[Row]:
        """The rows of a group that are durable."""
        return self._image.rows_of(group)

    def _commit(self, batch: WriteBatch) -> Exception | None:
        failing, self._disk.failing = self._disk.failing, None
        if failing is not None:
            self._disk.failed = True
            if failing.kept and super()._commit(batch) is None:
                self._told(batch)
            self.fail_next()
        error = super()._commit(batch)
        if error is None:
            self._told(batch)
        return error

    def _told(self, batch: WriteBatch) -> None:
        if self._disk.committed is not None:
            self._disk.committed(batch)
