"""Commits and entries per second of the durable store, beside a bare fdatasync of the same bytes.

    .venv/bin/python bench/storage.py [DIRECTORY]

One caller writes batches of 1, 50 and 500 entries of 100 bytes, each to its own commit; then 64 callers write one
entry each, and their writes share commits.
"""

import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from isochrone.ids import ClusterId, GroupId, KeyspaceId, LogIndex, NodeId, StoreId, Term, Timestamp
from isochrone.ports import LogWrite, WriteBatch
from isochrone.regions.storage.directory_os import bootstrap_store, open_store
from isochrone.regions.storage.store_lmdb import LmdbStore
from isochrone.wire.entries import make_entry
from isochrone.wire.messages import Configuration, Entry, EntryKind, HardState

SECONDS = 2.0
ENTRY_DATA = bytes(100)
CALLERS = 64
GROUP = GroupId("bench")


def make(index: int) -> Entry:
    """An entry of 100 bytes of data."""
    return make_entry(
        index=LogIndex(index),
        term=Term(1),
        kind=EntryKind.COMMANDS,
        timestamp=Timestamp(index),
        keyspace=KeyspaceId("bench/"),
        data=ENTRY_DATA,
    )


def batch_of(first: int, count: int) -> WriteBatch:
    """A batch as a host writes it: entries, and the hard state that they come with."""
    entries = tuple(make(index) for index in range(first, first + count))
    hard_state = HardState(Term(1), NodeId("a"), LogIndex(first - 1))
    return WriteBatch(logs=(LogWrite(GROUP, hard_state, entries),))


def sync_rate(directory: Path, size: int) -> float:
    """Writes of `size` bytes, each with its fdatasync, per second."""
    descriptor = os.open(directory / "raw", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        data, count, start = bytes(size), 0, time.perf_counter()
        while time.perf_counter() - start < SECONDS / 2:
            os.pwrite(descriptor, data, count * size)
            os.fdatasync(descriptor)
            count += 1
        return count / (time.perf_counter() - start)
    finally:
        os.close(descriptor)


async def rates(store: LmdbStore, write: Callable[[], Awaitable[int]], callers: int) -> tuple[float, float]:
    """Commits and entries per second while `callers` call `write`, which returns the entries that it wrote."""
    end, entries, commits, start = time.perf_counter() + SECONDS, 0, store.commits, time.perf_counter()

    async def caller() -> None:
        nonlocal entries
        while time.perf_counter() < end:
            written = await write()  # apart: `entries +=` would read the sum before the wait
            entries += written

    await asyncio.gather(*(caller() for _ in range(callers)))
    elapsed = time.perf_counter() - start
    return (store.commits - commits) / elapsed, entries / elapsed


async def main(directory: Path) -> None:
    """Print one line per load."""
    cluster, node, name = ClusterId("bench"), NodeId("a"), StoreId("s")
    bootstrap_store(directory / "store", cluster, node, name, {GROUP: Configuration(())})
    store = open_store(directory / "store", cluster, node, name)
    last = 0
    print(f"{'entries/batch':>14} {'callers':>8} {'commits/s':>10} {'entries/s':>10} {'fdatasync/s':>12} {'ratio':>6}")
    for count, callers in ((1, 1), (50, 1), (500, 1), (1, CALLERS)):

        async def write(count: int = count) -> int:
            nonlocal last
            first, last = last + 1, last + count
            durable = asyncio.get_running_loop().create_future()
            store.write(batch_of(first, count), durable.set_result)
            if error := await durable:
                raise error
            return count

        raw = sync_rate(directory, count * len(make(1).encoded))
        commits, entries = await rates(store, write, callers)
        print(f"{count:>14} {callers:>8} {commits:>10.0f} {entries:>10.0f} {raw:>12.0f} {commits / raw:>6.2f}")
    await store.close()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(dir=sys.argv[1] if len(sys.argv) > 1 else None) as scratch:
        asyncio.run(main(Path(scratch)))
