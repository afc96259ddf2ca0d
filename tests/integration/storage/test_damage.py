"""Damaged and full files: each is found, and said in one sentence."""

import asyncio
import errno
import os
import resource
from collections.abc import Callable, Sequence
from pathlib import Path

import lmdb
import pytest
from stores import (
    CLUSTER,
    GROUPS,
    KEYSPACE,
    NODE,
    STORE,
    CommitGate,
    G,
    H,
    append,
    entry,
    hard_state,
    make_durable,
    row,
)

from isochrone.errors import StorageError
from isochrone.ids import LogIndex
from isochrone.ports import LogWrite, WriteBatch
from isochrone.regions.storage import layout
from isochrone.regions.storage.directory_os import bootstrap_store, open_store
from isochrone.regions.storage.image_lmdb import DATA_FILE, MAP_BYTES_FIRST, open_image
from isochrone.regions.storage.store_lmdb import LmdbStore

MIB = 1 << 20


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A data directory with a few entries and rows."""
    path = tmp_path / "store"
    bootstrap_store(path, CLUSTER, NODE, STORE, GROUPS)

    async def fill() -> None:
        store = reopened(path)
        write = LogWrite(G, hard_state(1, NODE, 3), append(1, 9).logs[0].entries)
        await make_durable(store, WriteBatch(logs=(write,), rows=(row(b"k", b"value"),), applied={G: LogIndex(2)}))
        await store.close()

    asyncio.run(fill())
    return path


def reopened(path: Path, map_bytes_max: int = 1 << 30) -> LmdbStore:
    return open_store(path, CLUSTER, NODE, STORE, map_bytes_max=map_bytes_max)


@pytest.mark.parametrize("size", [1, 4096, 8192, 12288, MAP_BYTES_FIRST - 1])
def test_a_file_cut_short_is_refused(path: Path, size: int) -> None:
    os.truncate(path / DATA_FILE, size)
    with pytest.raises(StorageError, match=r"truncated|not an LMDB file"):
        reopened(path)


def test_a_foreign_file_is_refused(path: Path) -> None:
    (path / DATA_FILE).write_bytes(b"certainly not a database" * 1000)
    with pytest.raises(StorageError, match="not an LMDB file"):
        reopened(path)


def test_an_unfinished_bootstrap_is_refused(tmp_path: Path) -> None:
    with lmdb.open(str(tmp_path), map_size=MAP_BYTES_FIRST, max_dbs=9, lock=False) as environment:
        os.truncate(tmp_path / DATA_FILE, MAP_BYTES_FIRST)
        with pytest.raises(lmdb.NotFoundError):
            environment.open_db(b"meta", create=False)
    with pytest.raises(StorageError, match="bootstrap was not finished"):
        reopened(tmp_path)


def tamper(path: Path, database: bytes, change: Callable[[lmdb.Transaction], None]) -> None:
    """Change rows of a database behind the store's back."""
    with lmdb.open(str(path), map_size=0, max_dbs=9, lock=False) as environment:
        handle = environment.open_db(database, create=False)
        with environment.begin(write=True, db=handle) as txn:
            change(txn)


def flip(key: bytes) -> Callable[[lmdb.Transaction], None]:
    """Flip one bit of a value."""

    def change(txn: lmdb.Transaction) -> None:
        value = bytearray(txn.get(key))
        value[-1] ^= 1
        txn.put(key, bytes(value))

    return change


def delete(*indexes: int) -> Callable[[lmdb.Transaction], None]:
    """Delete entries."""

    def change(txn: lmdb.Transaction) -> None:
        for index in indexes:
            assert txn.delete(layout.index_key(index))

    return change


LOG_OF_G = layout.log_name(0)


def test_a_damaged_entry_is_named_when_it_is_read(path: Path) -> None:
    tamper(path, LOG_OF_G, flip(layout.index_key(5)))

    async def main() -> None:
        store = reopened(path)
        assert len(await store.read_entries(G, LogIndex(1), LogIndex(4), MIB)) == 4
        with pytest.raises(StorageError, match="group g: entry 5 is damaged"):
            await store.read_entries(G, LogIndex(4), LogIndex(9), MIB)
        await store.close()

    asyncio.run(main())


def test_a_misplaced_entry_is_named_when_it_is_read(path: Path) -> None:
    tamper(path, LOG_OF_G, lambda txn: txn.put(layout.index_key(5), entry(6).encoded))

    async def main() -> None:
        store = reopened(path)
        with pytest.raises(StorageError, match="entry 6 stands where entry 5 should be"):
            await store.read_entries(G, LogIndex(5), LogIndex(5), MIB)
        await store.close()

    asyncio.run(main())


def test_a_damaged_row_is_named_when_it_is_read(path: Path) -> None:
    tamper(path, b"rows", flip(layout.row_key(layout.rows_prefix(0, 0), KEYSPACE, 0, b"k")))

    async def main() -> None:
        store = reopened(path)
        assert list(await store.read_rows(H)) == []
        with pytest.raises(StorageError, match="group g: the row under"):
            await store.read_rows(G)
        await store.close()

    asyncio.run(main())


@pytest.mark.parametrize(
    ("indexes", "expected"),
    [([1], "no hole"), ([5], "no hole"), (range(3, 10), "ends at 2, before commit 3")],
)
def test_a_log_that_lost_entries_does_not_open(path: Path, indexes: Sequence[int], expected: str) -> None:
    tamper(path, LOG_OF_G, delete(*indexes))
    with pytest.raises(StorageError, match=expected):
        reopened(path)
    with pytest.raises(StorageError, match=expected):
        reopened(path)  # refused for the same reason: the first attempt released the directory


def test_rows_that_lag_behind_the_log_do_not_open(path: Path) -> None:
    key = layout.truncated_key(0)

    def truncate(txn: lmdb.Transaction) -> None:
        txn.put(key, layout.encode_record(key, (3, 1)))

    tamper(path, LOG_OF_G, delete(1, 2, 3))
    tamper(path, b"meta", truncate)
    with pytest.raises(StorageError, match="the log begins at 4, its rows reflect only 2"):
        reopened(path)


def test_a_damaged_record_does_not_open(path: Path) -> None:
    tamper(path, b"meta", flip(layout.hard_state_key(0)))
    with pytest.raises(StorageError, match=r"record b'hard/.*checksum"):
        reopened(path)


def test_the_map_grows_and_then_refuses(path: Path) -> None:
    def rows(name: bytes, mib: int) -> WriteBatch:
        return WriteBatch(rows=tuple(row(name + b"%d" % n, bytes(MIB)) for n in range(mib)))

    async def main() -> None:
        store = reopened(path, map_bytes_max=2 * MAP_BYTES_FIRST)
        await make_durable(store, rows(b"a", 80))
        assert (path / DATA_FILE).stat().st_size == 2 * MAP_BYTES_FIRST
        with pytest.raises(StorageError, match=f"full: its map has {2 * MAP_BYTES_FIRST} bytes"):
            await make_durable(store, rows(b"b", 60))
        assert len(await store.read_rows(G)) == 81
        await make_durable(store, WriteBatch(rows=tuple(row(b"a%d" % n, None) for n in range(80))))
        await store.close()
        store = reopened(path, map_bytes_max=2 * MAP_BYTES_FIRST)
        await make_durable(store, rows(b"c", 40))
        assert len(await store.read_rows(G)) == 41
        await store.close()

    asyncio.run(main())


@pytest.mark.parametrize(
    "error", [lmdb.DiskError("mdb_txn_commit", errno.ENOSPC), OSError(errno.EIO, "Input/output error")]
)
def test_a_commit_is_never_tried_again(path: Path, error: Exception) -> None:
    gate = CommitGate()

    async def main() -> None:
        store = open_store(path, CLUSTER, NODE, STORE, commit=gate)
        before = store.commits
        gate.next_error = error
        with pytest.raises(StorageError, match="commit failed") as caught:
            await make_durable(store, append(10, 10))
        assert caught.value.__cause__ is error
        gate.arrived.clear()
        with pytest.raises(StorageError, match="has failed"):
            await make_durable(store, append(10, 10))
        await store.close()
        assert not gate.arrived.is_set()
        assert store.commits == before

    asyncio.run(main())


def test_a_write_that_the_system_refuses_is_fatal_and_leaves_nothing_behind(path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    async def main() -> None:
        store = reopened(path)
        resource.setrlimit(resource.RLIMIT_FSIZE, (MIB, hard))  # beyond the first MiB of a file, writes now fail
        try:
            with pytest.raises(StorageError, match="commit failed: mdb_txn_commit"):
                await make_durable(store, WriteBatch(logs=append(10, 10).logs, rows=(row(b"big", bytes(2 * MIB)),)))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        with pytest.raises(StorageError, match="has failed"):
            await make_durable(store, append(10, 10))
        await store.close()
        store = reopened(path)
        assert (await store.load(G)).last_index == 9
        assert len(await store.read_rows(G)) == 1
        await store.close()

    asyncio.run(main())


def test_the_environment_syncs_data_and_meta_page(path: Path) -> None:
    image = open_image(path)
    flags = image.environment.flags()
    image.environment.close()
    assert (flags["sync"], flags["metasync"], flags["writemap"], flags["map_async"]) == (True, True, False, False)


def test_writes_that_gather_behind_a_commit_share_the_next_one(path: Path) -> None:
    gate = CommitGate()

    async def main() -> None:
        store = open_store(path, CLUSTER, NODE, STORE, commit=gate)
        gate.passage.clear()
        first = asyncio.create_task(make_durable(store, append(10, 10)))
        await asyncio.to_thread(gate.arrived.wait)
        others = [asyncio.create_task(make_durable(store, append(index, index))) for index in range(11, 61)]
        await asyncio.sleep(0)
        gate.passage.set()
        await asyncio.gather(first, *others)
        assert store.commits == 2
        await store.close()

    asyncio.run(main())
