"""Stores under test: one rig for each implementation, with the same hands on the disk."""

import asyncio
import random
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import lmdb

from isochrone.drills.sim.disk import SimDisk, SimStore
from isochrone.ids import (
    ClusterId,
    GroupId,
    Incarnation,
    KeyspaceId,
    LogIndex,
    NodeId,
    ReplicaRole,
    StoreId,
    Term,
    Timestamp,
)
from isochrone.ports import LogWrite, Row, Store, StoreIdentity, WriteBatch
from isochrone.regions.storage.directory_os import bootstrap_store, open_store
from isochrone.regions.storage.image_lmdb import MAP_BYTES_FIRST, Transaction
from isochrone.regions.storage.memory import MemoryStore
from isochrone.regions.storage.store_lmdb import LmdbStore, commit_transaction
from isochrone.wire.entries import make_entry
from isochrone.wire.messages import Configuration, Entry, EntryKind, HardState, Member

CLUSTER, NODE, STORE = ClusterId("cluster"), NodeId("a/1"), StoreId("store-1")
G, H = GroupId("g"), GroupId("h")
KEYSPACE = KeyspaceId("k/")
PEER = NodeId("b/1")
CONFIGURATION = Configuration((Member(NODE, STORE, ReplicaRole.FULL), Member(PEER, STORE, ReplicaRole.WITNESS)))
GROUPS = {H: CONFIGURATION, G: Configuration((), (Member(NODE, STORE, ReplicaRole.LEARNER),))}


def entry(index: int, term: int = 1, data: bytes = b"data") -> Entry:
    """An entry with its encoded form."""
    return make_entry(
        index=LogIndex(index),
        term=Term(term),
        kind=EntryKind.COMMANDS,
        timestamp=Timestamp(1000 + index),
        keyspace=KEYSPACE,
        data=data,
    )


def entries(first: int, last: int, term: int = 1) -> tuple[Entry, ...]:
    """Entries `first..last`, both included."""
    return tuple(entry(index, term) for index in range(first, last + 1))


def append(first: int, last: int, term: int = 1, group: GroupId = G) -> WriteBatch:
    """A batch that appends entries `first..last`."""
    return WriteBatch(logs=(LogWrite(group, entries=entries(first, last, term)),))


def hard_state(term: int, vote: NodeId | None = None, commit: int = 0) -> HardState:
    """A hard state from plain numbers."""
    return HardState(Term(term), vote, LogIndex(commit))


def row(key: bytes, value: bytes | None, *, group: GroupId = G, keyspace: str = KEYSPACE, table: int = 0) -> Row:
    """A row."""
    return Row(group, KeyspaceId(keyspace), table, key, value)


async def make_durable(store: Store, batch: WriteBatch) -> None:
    """Write, and return when it is durable. Raises what the store says."""
    end: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
    store.write(batch, lambda error: end.done() or end.set_result(error))
    if (error := await end) is not None:
        raise error


class Rig(Protocol):
    """A store and its disk."""

    def open(self) -> Store:
        """Open for the first time."""

    async def reopen(self, store: Store) -> Store:
        """Open again, after a close or a failure."""

    def hold(self, store: Store) -> None:
        """Let no commit through from now on."""

    async def held(self, store: Store) -> None:
        """Return when a write stands before its commit."""

    def release(self, store: Store) -> None:
        """Let commits through again."""

    def refuse_next(self, store: Store) -> None:
        """Let the next commit find the store full."""

    def fail_next(self, store: Store) -> None:
        """Let the next commit fail like a broken disk."""


class MemoryRig:
    """The in-memory store."""

    def __init__(self, _directory: Path) -> None:
        self._identity = StoreIdentity(CLUSTER, NODE, STORE, Incarnation(1))

    def open(self) -> MemoryStore:
        return MemoryStore(self._identity, GROUPS)

    async def reopen(self, store: MemoryStore) -> MemoryStore:
        await store.close()
        return store.reopen()

    def hold(self, store: MemoryStore) -> None:
        store.hold()

    async def held(self, store: MemoryStore) -> None:
        await asyncio.sleep(0)  # the write's task runs up to its commit
        assert store.pending

    def release(self, store: MemoryStore) -> None:
        store.release()

    def refuse_next(self, store: MemoryStore) -> None:
        store.refuse_next()

    def fail_next(self, store: MemoryStore) -> None:
        store.fail_next()


class SimulatedRig(MemoryRig):
    """The simulated disk."""

    def open(self) -> SimStore:
        disk = SimDisk(random.Random(1), sync_ms=(0.0, 0.0))
        disk.format(replace(self._identity, incarnation=Incarnation(0)), GROUPS)
        return disk.open()


class CommitGate:
    """Stands in the storage thread where the transaction is committed."""

    def __init__(self) -> None:
        self.arrived = threading.Event()
        self.passage = threading.Event()
        self.passage.set()
        self.next_error: Exception | None = None

    def __call__(self, txn: Transaction) -> None:
        self.arrived.set()
        self.passage.wait()
        error, self.next_error = self.next_error, None
        if error is not None:
            raise error
        commit_transaction(txn)


class LmdbRig:
    """The store on disk, with a gate before each commit."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / "store"
        self.gate = CommitGate()

    def open(self) -> LmdbStore:
        bootstrap_store(self._path, CLUSTER, NODE, STORE, GROUPS)
        return self._open()

    def _open(self) -> LmdbStore:
        return open_store(self._path, CLUSTER, NODE, STORE, map_bytes_max=MAP_BYTES_FIRST, commit=self.gate)

    async def reopen(self, store: LmdbStore) -> LmdbStore:
        await store.close()
        return self._open()

    def hold(self, _store: LmdbStore) -> None:
        self.gate.arrived.clear()
        self.gate.passage.clear()

    async def held(self, _store: LmdbStore) -> None:
        await asyncio.to_thread(self.gate.arrived.wait)

    def release(self, _store: LmdbStore) -> None:
        self.gate.passage.set()

    def refuse_next(self, _store: LmdbStore) -> None:
        self.gate.next_error = lmdb.MapFullError("mdb_txn_commit")

    def fail_next(self, _store: LmdbStore) -> None:
        self.gate.next_error = lmdb.DiskError("mdb_txn_commit")


RIGS: dict[str, Callable[[Path], Rig]] = {"memory": MemoryRig, "simulated": SimulatedRig, "lmdb": LmdbRig}
