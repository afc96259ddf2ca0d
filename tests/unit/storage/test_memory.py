"""The crash of the in-memory store: any suffix of what is not durable is lost, and nothing else."""

import asyncio
from pathlib import Path

import pytest
from stores import G, MemoryRig, append, make_durable, row

from isochrone.errors import StorageError
from isochrone.ports import WriteBatch


@pytest.mark.parametrize("keep", [0, 1, 2])
def test_a_crash_keeps_a_prefix_of_what_was_held_back(keep: int) -> None:
    async def main() -> None:
        store = MemoryRig(Path()).open()
        await make_durable(store, append(1, 1))
        store.hold()
        batches = (append(2, 2), WriteBatch(rows=(row(b"k", b"v"),)))
        writes = [asyncio.create_task(make_durable(store, batch)) for batch in batches]
        await asyncio.sleep(0)
        assert store.pending == 2
        reopened = store.crash(keep)
        await asyncio.sleep(0)
        assert not any(write.done() for write in writes), "no acknowledgement leaves"
        assert reopened.identity.incarnation == store.identity.incarnation + 1
        assert (await reopened.load(G)).last_index == (2 if keep >= 1 else 1)
        assert len(await reopened.read_rows(G)) == (1 if keep == 2 else 0)
        with pytest.raises(StorageError, match="crashed"):
            await make_durable(store, append(3, 3))

    asyncio.run(main())


def test_held_writes_can_be_released_one_by_one() -> None:
    async def main() -> None:
        store = MemoryRig(Path()).open()
        store.hold()
        writes = [asyncio.create_task(make_durable(store, append(index, index))) for index in (1, 2, 3)]
        await asyncio.sleep(0)
        store.release(2)
        await asyncio.sleep(0)
        assert [write.done() for write in writes] == [True, True, False]
        assert (store.commits, store.pending) == (2, 1)
        store.release()
        await asyncio.gather(*writes)
        await make_durable(store, append(4, 4))
        assert store.commits == 4

    asyncio.run(main())
