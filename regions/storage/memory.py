"""A store in memory, for tests and simulation, with the contract of `ports.Store`.

It can hold writes back, so that a test sees that nothing is acknowledged before it is durable; refuse a write as a
full store does, or fail it as a broken disk does; and crash, which loses any suffix of the batches not yet durable.
Everything happens in the caller's thread; without `hold` no call suspends, and a write has ended when `write` returns.
"""

import asyncio
from array import array
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from typing import Self

from isochrone.errors import InvariantViolation, StorageError
from isochrone.ids import GroupId, Incarnation, KeyspaceId, LogIndex, NodeId
from isochrone.ports import LogWrite, Row, SnapshotReader, StoredGroup, StoreIdentity, WriteBatch, WriteDone
from isochrone.regions.storage.log_bounds import (
    ChunkEffect,
    advance,
    check_creation,
    chunk_effects,
    commit_at_start,
    configuration_at,
    empty_group,
    term_at,
)
from isochrone.regions.storage.snapshot_bounds import living_generations
from isochrone.wire.messages import Configuration, Entry, SnapshotChunk
from isochrone.wire.rows import decode_rows, encode_row

_RowKey = tuple[GroupId, int, KeyspaceId, int, bytes]
"""Group, generation, keyspace, table and key."""


@dataclass(slots=True)
class _Image:
    """What is durable."""

    groups: dict[GroupId, StoredGroup]
    entries: dict[GroupId, dict[LogIndex, Entry]]
    rows: dict[_RowKey, bytes] = field(default_factory=dict)
    incarnations: dict[NodeId, Incarnation] = field(default_factory=dict)

    def apply(self, batch: WriteBatch) -> None:
        """Make a batch durable, as a whole or, on `InvariantViolation`, not at all."""
        changed = advance(self.groups, batch)
        effects = chunk_effects(self.groups, batch)
        for place, log in enumerate(batch.logs):
            if log.chunk is not None:
                self._write_chunk(log.group, log.chunk, effects[place])
            self._write_log(log)
        self.groups.update(changed)
        for row in batch.rows:
            key = (row.group, self.groups[row.group].generation, row.keyspace, row.table, row.key)
            if row.value is None:
                self.rows.pop(key, None)
            else:
                self.rows[key] = row.value
        self.incarnations.update(batch.incarnations)
        if effects or any(log.discard_staged for log in batch.logs):
            self.rows = {key: value for key, value in self.rows.items() if self._lives(key)}

    def _lives(self, key: _RowKey) -> bool:
        return key[1] in living_generations(self.groups[key[0]])

    def rows_of(self, group: GroupId) -> list[Row]:
        """The rows in force, ordered by keyspace, table and key."""
        generation = self.groups[group].generation
        found = [Row(group, *key[2:], value) for key, value in self.rows.items() if key[:2] == (group, generation)]
        return sorted(found, key=lambda row: (row.keyspace, row.table, row.key))

    def _write_chunk(self, group: GroupId, chunk: SnapshotChunk, effect: ChunkEffect) -> None:
        for keyspace, table, key, value in decode_rows(chunk.data):
            self.rows[group, effect.generation, keyspace, table, key] = value
        if chunk.last:
            held = self.entries[group]
            gone = [index for index in held if index <= chunk.id.index or not effect.keeps_suffix]
            for index in gone:
                del held[index]

    def _write_log(self, log: LogWrite) -> None:
        held = self.entries[log.group]
        if log.entries:
            index = log.entries[0].index
            while held.pop(index, None) is not None:
                index = LogIndex(index + 1)
            held.update((entry.index, entry) for entry in log.entries)
        if log.truncate_to is not None:
            index = log.truncate_to
            while held.pop(index, None) is not None:
                index = LogIndex(index - 1)


@dataclass(slots=True)
class _Pending:
    batch: WriteBatch
    done: WriteDone


class _CopiedSnapshot:
    """A `ports.SnapshotReader`."""

    def __init__(self, bounds: StoredGroup, rows: list[Row], check_usable: Callable[[], None]) -> None:
        self.index = bounds.applied
        self.index_term = term_at(bounds, bounds.applied)
        self.configuration = configuration_at(bounds, bounds.applied)
        self._rows = deque(rows)
        self._check_usable = check_usable

    async def read(self, bytes_max: int) -> tuple[bytes, bool] | None:
        self._check_usable()
        data = b""
        while self._rows:
            row = self._rows[0]
            encoded = encode_row(row.keyspace, row.table, row.key, row.value or b"")
            if data and len(data) + len(encoded) > bytes_max:
                break
            data += encoded
            self._rows.popleft()
        return data, not self._rows

    def close(self) -> None:
        self._rows.clear()


class _Outcome(Enum):
    DURABLE = auto()
    REFUSED = auto()
    FAILED = auto()


class MemoryStore:
    """See the module. The methods beyond those of `Store` are the test's hand on the disk."""

    def __init__(self, identity: StoreIdentity, groups: Mapping[GroupId, Configuration]) -> None:
        """A store as bootstrapped: with the first configuration of each group and empty logs."""
        stored = {name: empty_group(groups[name]) for name in sorted(groups)}
        self._start(identity, _Image(stored, {name: {} for name in stored}))

    def _start(self, identity: StoreIdentity, image: _Image) -> None:
        image.groups = {name: commit_at_start(group) for name, group in image.groups.items()}
        self._identity = identity
        self._image = image
        self._incarnations = dict(image.incarnations)
        self._pending: list[_Pending] = []
        self._held = False
        self._next_commit = _Outcome.DURABLE
        self._unusable: str | None = None
        self._commits = 0

    @property
    def identity(self) -> StoreIdentity:
        """Whose data this is."""
        return self._identity

    @property
    def groups(self) -> tuple[GroupId, ...]:
        """The groups held, in order of name."""
        return tuple(self._image.groups)

    @property
    def incarnations(self) -> Mapping[NodeId, Incarnation]:
        """Highest incarnation of each peer when the store was opened."""
        return self._incarnations

    @property
    def commits(self) -> int:
        """How many batches became durable since the store was opened."""
        return self._commits

    @property
    def pending(self) -> int:
        """How many writes are held back."""
        return len(self._pending)

    async def load(self, group: GroupId) -> StoredGroup:
        """A group's log bounds, hard state and sizes of entries."""
        self._check_usable()
        bounds = self._group(group)
        held = self._image.entries[group]
        indexes = range(bounds.truncated_index + 1, bounds.last_index + 1)
        return replace(bounds, entry_bytes=array("Q", [len(held[LogIndex(index)].encoded) for index in indexes]))

    async def read_entries(self, group: GroupId, first: LogIndex, last: LogIndex, bytes_max: int) -> tuple[Entry, ...]:
        """Entries `first..last`, as many as fit."""
        self._check_usable()
        bounds = self._group(group)
        if not bounds.truncated_index < first <= bounds.last_index:
            raise StorageError(f"group {group} holds no entry {first}")
        entries: list[Entry] = []
        total_bytes = 0
        for index in range(first, min(last, bounds.last_index) + 1):
            entry = self._image.entries[group][LogIndex(index)]
            total_bytes += len(entry.encoded)
            if entries and total_bytes > bytes_max:
                break
            entries.append(entry)
        return tuple(entries)

    async def read_rows(self, group: GroupId) -> Sequence[Row]:
        """All rows of a group, in order."""
        self._check_usable()
        self._group(group)
        return self._image.rows_of(group)

    async def open_snapshot(self, group: GroupId) -> SnapshotReader:
        """Begin to read a group's state as it is now; here, a copy of it."""
        self._check_usable()
        return _CopiedSnapshot(self._group(group), self._image.rows_of(group), self._check_usable)

    def write(self, batch: WriteBatch, done: WriteDone) -> None:
        """Make a batch durable, at once unless writes are held back."""
        if self._unusable is not None:
            done(StorageError(self._unusable))
        elif self._held or self._pending:
            self._pending.append(_Pending(batch, done))
        else:
            done(self._commit(batch))

    async def create_group(self, group: GroupId, configuration: Configuration) -> None:
        """Make an empty replica of a group, after what is held back."""
        before: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
        self.write(WriteBatch(), before.set_result)
        if (error := await before) is not None:
            raise error
        if check_creation(self._image.groups, group, configuration):
            self._image.groups = dict(sorted({**self._image.groups, group: empty_group(configuration)}.items()))
            self._image.entries[group] = {}

    async def close(self) -> None:
        """Make what is held back durable, then refuse every later call."""
        if self._unusable is None:
            self.release()
            self._unusable = "the store is closed"

    def hold(self) -> None:
        """Hold back every write from now on, until `release`."""
        self._held = True

    def release(self, count: int | None = None) -> None:
        """Make the first `count` writes held back durable, in order; None: all, and hold back no more."""
        if count is None:
            self._held = False
        while self._pending and count != 0:
            pending = self._pending.pop(0)
            error = self._commit(pending.batch)
            others: list[_Pending] = []
            if error is not None:
                others, self._pending = self._pending, []
            pending.done(error)
            for each in others:
                each.done(StorageError(f"an earlier write was refused or failed: {error}"))
            count = None if count is None else count - 1

    def refuse_next(self) -> None:
        """Let the next commit be refused, as by a store that is full. The store stays usable."""
        self._next_commit = _Outcome.REFUSED

    def fail_next(self) -> None:
        """Let the next commit fail, as on a broken disk: nothing of it is stored, and every later call raises."""
        self._next_commit = _Outcome.FAILED

    def crash(self, keep: int = 0) -> Self:
        """Lose power: of the writes held back only the first `keep` survive, and nobody is told of their end.

        Returns the store as opened again.
        """
        identity = replace(self._identity, incarnation=Incarnation(self._identity.incarnation + 1))
        survivors = self._pending[:keep]
        self._pending = []
        self._unusable = "the process that had this store open has crashed"
        for pending in survivors:
            self._image.apply(pending.batch)
        store = type(self).__new__(type(self))
        store._start(identity, self._image)
        return store

    def reopen(self) -> Self:
        """Open again what was closed or has failed."""
        return self.crash()

    def _commit(self, batch: WriteBatch) -> Exception | None:
        """Make a batch durable; why it is not, if that fails."""
        outcome, self._next_commit = self._next_commit, _Outcome.DURABLE
        match outcome:
            case _Outcome.REFUSED:
                return StorageError("the store is full")
            case _Outcome.FAILED:
                self._unusable = "an earlier commit failed: the disk is broken"
                return StorageError("commit failed: the disk is broken")
            case _Outcome.DURABLE:
                try:
                    self._image.apply(batch)
                except InvariantViolation as violation:
                    return violation
                self._commits += 1
                return None

    def _group(self, group: GroupId) -> StoredGroup:
        try:
            return self._image.groups[group]
        except KeyError:
            raise StorageError(f"this store does not hold group {group}") from None

    def _check_usable(self) -> None:
        if self._unusable is not None:
            raise StorageError(self._unusable)
