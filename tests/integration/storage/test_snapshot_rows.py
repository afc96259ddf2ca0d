"""Rows of snapshots on disk: dead ones go in bounded steps, and a snapshot that must remember too much is lost."""

import asyncio
from pathlib import Path

import google_crc32c
import lmdb
import pytest
from stores import CLUSTER, GROUPS, KEYSPACE, NODE, STORE, G, append, hard_state, make_durable, row

from isochrone.errors import StorageError
from isochrone.ids import LogIndex, Term, Timestamp
from isochrone.ports import LogWrite, WriteBatch
from isochrone.regions.storage import layout, snapshot_lmdb
from isochrone.regions.storage.directory_os import bootstrap_store, open_store
from isochrone.regions.storage.snapshot_lmdb import SWEPT_ROWS_MAX
from isochrone.regions.storage.store_lmdb import LmdbStore
from isochrone.wire.messages import SnapshotChunk, SnapshotId
from isochrone.wire.rows import encode_row


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "store"
    bootstrap_store(path, CLUSTER, NODE, STORE, GROUPS)
    return path


def opened(path: Path) -> LmdbStore:
    return open_store(path, CLUSTER, NODE, STORE, map_bytes_max=1 << 30)


def whole(index: int, *, last: bool = True, attempt: int = 1) -> WriteBatch:
    """A snapshot of one row in one chunk, or the first chunk of one."""
    data = encode_row(KEYSPACE, 1, b"new", b"value")
    name = SnapshotId(Term(1), attempt, LogIndex(index), Term(1))
    chunk = SnapshotChunk(name, GROUPS[G], Timestamp(1), True, 0, data, int(google_crc32c.value(data)), last)
    return WriteBatch(logs=(LogWrite(G, hard_state(1, None, index) if last else None, chunk=chunk),))


def generations(path: Path) -> dict[int, int]:
    """How many rows each generation of all groups has, as they lie on disk."""
    counts: dict[int, int] = {}
    with lmdb.open(str(path), map_size=0, max_dbs=9, lock=False, readonly=True) as environment:
        rows = environment.open_db(b"rows", create=False)
        with environment.begin(db=rows) as txn:
            for key in txn.cursor().iternext(values=False):
                generation = layout.generation_of(key)[1]
                counts[generation] = counts.get(generation, 0) + 1
    return counts


def test_rows_of_the_old_state_go_in_bounded_steps_also_after_a_restart(path: Path) -> None:
    count = SWEPT_ROWS_MAX * 2 + 10

    async def main() -> None:
        store = opened(path)
        old = tuple(row(b"%05d" % number, b"old", table=1) for number in range(count))
        await make_durable(store, WriteBatch(logs=append(1, 3).logs, rows=old, applied={G: LogIndex(3)}))
        await make_durable(store, whole(9))
        assert [item.key for item in await store.read_rows(G)] == [b"new"]
        await make_durable(store, append(10, 10))
        await store.close()
        assert generations(path) == {0: count - SWEPT_ROWS_MAX, 1: 1}
        store = opened(path)
        for index in range(11, 15):
            await make_durable(store, append(index, index))
        assert [item.key for item in await store.read_rows(G)] == [b"new"]
        await store.close()
        assert generations(path) == {1: 1}

    asyncio.run(main())


def test_what_was_staged_for_nothing_goes_too(path: Path) -> None:
    async def main() -> None:
        store = opened(path)
        await make_durable(store, whole(9, last=False))
        await make_durable(store, whole(9, last=False, attempt=2))
        await make_durable(store, WriteBatch(logs=(LogWrite(G, discard_staged=True),)))
        for index in range(1, 5):
            await make_durable(store, append(index, index))
        await store.close()
        assert generations(path) == {}

    asyncio.run(main())


def test_a_snapshot_that_would_have_to_remember_too_much_is_lost(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot_lmdb, "SAVED_BYTES_MAX", 1000)

    async def main() -> None:
        store = opened(path)
        rows = tuple(row(b"%05d" % number, b"old", table=1) for number in range(200))
        await make_durable(store, WriteBatch(rows=rows))
        reader, patient = await store.open_snapshot(G), await store.open_snapshot(G)
        assert await reader.read(100) is not None
        while (part := await patient.read(100)) is not None and not part[1]:
            pass
        assert part is not None, "what was read already need not be remembered"
        changes = tuple(row(b"%05d" % number, bytes(100), table=1) for number in range(200))
        await make_durable(store, WriteBatch(rows=changes))
        assert await reader.read(100) is None
        again = await store.open_snapshot(G)
        assert await again.read(100) is not None
        for opened_reader in (reader, patient, again):
            opened_reader.close()
        await store.close()

    asyncio.run(main())


def test_a_damaged_row_is_named_when_a_snapshot_reads_it(path: Path) -> None:
    async def fill() -> None:
        store = opened(path)
        await make_durable(store, WriteBatch(rows=(row(b"a", b"1"), row(b"b", b"2"))))
        await store.close()

    async def read() -> None:
        store = opened(path)
        reader = await store.open_snapshot(G)
        with pytest.raises(StorageError, match="group g: the row under"):
            await reader.read(1 << 20)
        await store.close()

    asyncio.run(fill())
    with lmdb.open(str(path), map_size=0, max_dbs=9, lock=False) as environment:
        rows = environment.open_db(b"rows", create=False)
        with environment.begin(db=rows, write=True) as txn:
            key = layout.row_key(layout.rows_prefix(0, 0), KEYSPACE, 0, b"b")
            value = bytearray(txn.get(key))
            value[-1] ^= 1
            txn.put(key, bytes(value))
    asyncio.run(read())
