"""What the simulated disk adds to the store's contract: crashes between syncs, failures, hangs, and lost disks."""

import asyncio
import random
from collections.abc import Coroutine
from typing import Any

import pytest
from stores import CLUSTER, GROUPS, NODE, STORE, G, append, make_durable

from isochrone.drills.sim.disk import FailingSync, SimDisk, SimStore
from isochrone.drills.sim.loop import SimLoop
from isochrone.errors import StorageError
from isochrone.ids import Incarnation
from isochrone.ports import StoreIdentity


def new_disk(sync_ms: float = 10.0) -> SimDisk:
    disk = SimDisk(random.Random(1), sync_ms=(sync_ms, sync_ms))
    disk.format(StoreIdentity(CLUSTER, NODE, STORE, Incarnation(0)), GROUPS)
    return disk


def run(main: Coroutine[Any, Any, None]) -> None:
    SimLoop(random.Random(1), steps_max=1_000).run(main)


def start_writes(store: SimStore) -> "list[asyncio.Task[None]]":
    return [asyncio.get_running_loop().create_task(make_durable(store, append(index, index))) for index in (1, 2, 3)]


def test_writes_become_durable_in_order_each_after_its_sync() -> None:
    async def main() -> None:
        loop, store = asyncio.get_running_loop(), new_disk().open()
        start_s, writes = loop.time(), start_writes(store)
        for number, write in enumerate(writes, start=1):
            await write
            assert loop.time() - start_s == pytest.approx(number * 0.010)
            assert store.stored(G).last_index == number

    run(main())


@pytest.mark.parametrize("keep", [0, 1, 2, 3])
def test_a_crash_loses_any_suffix_of_what_was_not_synced(keep: int) -> None:
    async def main() -> None:
        disk = new_disk()
        told: list[int] = []
        disk.committed = lambda batch: told.extend(entry.index for log in batch.logs for entry in log.entries)
        store = disk.open()
        writes = start_writes(store)
        await asyncio.sleep(0.001)
        disk.keep = keep
        again = disk.open()
        assert again.stored(G).last_index == keep
        assert again.identity.incarnation == store.identity.incarnation + 1
        assert told == list(range(1, keep + 1))
        with pytest.raises(StorageError, match="crashed"):
            await make_durable(store, append(1, 1))
        await asyncio.sleep(1)
        assert again.stored(G).last_index == keep, "a sync of the process before ends nowhere"
        assert not any(write.done() for write in writes), "and nobody is told"

    run(main())


@pytest.mark.parametrize("kept", [False, True])
def test_a_failed_sync_ends_the_store_and_leaves_the_batch_or_not(kept: bool) -> None:
    async def main() -> None:
        disk = new_disk()
        store = disk.open()
        disk.failing = FailingSync(kept)
        with pytest.raises(StorageError, match="commit failed"):
            await make_durable(store, append(1, 1))
        with pytest.raises(StorageError):
            await make_durable(store, append(1, 1))
        assert disk.failed
        assert disk.open().stored(G).last_index == int(kept)
        assert not disk.failed

    run(main())


def test_a_hanging_disk_tells_nobody_until_it_is_resumed() -> None:
    async def main() -> None:
        disk = new_disk()
        store = disk.open()
        disk.hung = True
        writes = start_writes(store)
        await asyncio.sleep(60)
        assert not any(write.done() for write in writes)
        disk.release(disk.resume())
        await asyncio.gather(*writes)
        assert store.stored(G).last_index == 3

    run(main())


def test_a_slow_disk_takes_longer() -> None:
    async def main() -> None:
        disk = new_disk()
        disk.extra_ms = 500
        loop = asyncio.get_running_loop()
        start_s = loop.time()
        await make_durable(disk.open(), append(1, 1))
        assert loop.time() - start_s == pytest.approx(0.510)

    run(main())


def test_a_disk_that_is_empty_or_a_copy_is_not_opened() -> None:
    disk = new_disk()
    disk.open()
    disk.missing = "there is no store"
    with pytest.raises(StorageError, match="there is no store"):
        disk.open()
