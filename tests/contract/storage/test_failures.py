"""The contract of `ports.Store` when commits are late, refused or fail."""

import asyncio

import pytest
from stores import G, Rig, append, make_durable, row

from isochrone.errors import InvariantViolation, StorageError
from isochrone.ids import LogIndex
from isochrone.ports import WriteBatch


def test_nothing_is_acknowledged_before_the_commit_that_covers_it(rig: Rig) -> None:
    async def main() -> None:
        store = rig.open()
        rig.hold(store)
        writes = [asyncio.create_task(make_durable(store, append(index, index))) for index in (1, 2)]
        await rig.held(store)
        for _ in range(100):
            await asyncio.sleep(0)
        assert not any(write.done() for write in writes)
        rig.release(store)
        await asyncio.gather(*writes)
        assert (await store.load(G)).last_index == 2
        await store.close()

    asyncio.run(main())


def test_closing_waits_for_writes_under_way(rig: Rig) -> None:
    async def main() -> None:
        store = rig.open()
        rig.hold(store)
        write = asyncio.create_task(make_durable(store, append(1, 1)))
        await rig.held(store)
        rig.release(store)
        await store.close()
        await write
        store = await rig.reopen(store)
        assert (await store.load(G)).last_index == 1
        await store.close()

    asyncio.run(main())


def test_a_closed_store_refuses_every_call(rig: Rig) -> None:
    async def main() -> None:
        store = rig.open()
        await store.close()
        await store.close()
        with pytest.raises(StorageError, match="closed"):
            await make_durable(store, append(1, 1))
        with pytest.raises(StorageError, match="closed"):
            await store.load(G)
        with pytest.raises(StorageError, match="closed"):
            await store.read_rows(G)

    asyncio.run(main())


def test_a_full_store_refuses_and_stays_as_it_was(rig: Rig) -> None:
    async def main() -> None:
        store = rig.open()
        await make_durable(store, append(1, 1))
        rig.refuse_next(store)
        with pytest.raises(StorageError, match="full"):
            await make_durable(store, WriteBatch(logs=append(2, 3).logs, rows=(row(b"k", b"v"),)))
        assert (await store.load(G)).last_index == 1
        assert list(await store.read_rows(G)) == []
        await make_durable(store, append(2, 2))
        store = await rig.reopen(store)
        assert (await store.load(G)).last_index == 2
        await store.close()

    asyncio.run(main())


def test_no_write_overtakes_a_refused_one(rig: Rig) -> None:
    async def main() -> None:
        store = rig.open()
        rig.hold(store)
        first = asyncio.create_task(make_durable(store, WriteBatch(rows=(row(b"a", b"first"),))))
        await rig.held(store)
        batches = [WriteBatch(rows=(row(key, b"later"),)) for key in (b"b", b"c")]
        later = [asyncio.create_task(make_durable(store, batch)) for batch in batches]
        await asyncio.sleep(0)
        rig.refuse_next(store)
        rig.release(store)
        results = await asyncio.gather(first, *later, return_exceptions=True)
        assert [type(result) for result in results] == [StorageError] * 3
        assert "full" in str(results[0])
        assert "earlier write" in str(results[2])
        assert list(await store.read_rows(G)) == []
        await make_durable(store, WriteBatch(rows=(row(b"d", b"after"),)))
        assert len(await store.read_rows(G)) == 1
        await store.close()

    asyncio.run(main())


def test_writes_before_a_breach_of_the_rules_stay_and_those_after_it_are_refused(rig: Rig) -> None:
    async def main() -> None:
        store = rig.open()
        rig.hold(store)
        held = asyncio.create_task(make_durable(store, append(1, 1)))
        await rig.held(store)
        batches = [append(2, 2), append(9, 9), append(3, 3)]
        writes = [asyncio.create_task(make_durable(store, batch)) for batch in batches]
        await asyncio.sleep(0)
        rig.release(store)
        results = await asyncio.gather(held, *writes, return_exceptions=True)
        assert [type(result) for result in results] == [type(None), type(None), InvariantViolation, StorageError]
        assert (await store.load(G)).last_index == 2
        await store.close()

    asyncio.run(main())


def test_a_failed_commit_is_fatal(rig: Rig) -> None:
    async def main() -> None:
        store = rig.open()
        await make_durable(store, append(1, 2))
        rig.fail_next(store)
        with pytest.raises(StorageError, match="commit failed"):
            await make_durable(store, append(3, 3))
        for _ in range(2):
            with pytest.raises(StorageError, match="failed"):
                await make_durable(store, append(3, 3))
            with pytest.raises(StorageError, match="failed"):
                await store.read_entries(G, LogIndex(1), LogIndex(1), 1)
        store = await rig.reopen(store)
        assert (await store.load(G)).last_index in (2, 3), "the batch may or may not be there"
        await store.close()

    asyncio.run(main())


def test_writes_called_before_a_failure_was_known_fail_too(rig: Rig) -> None:
    async def main() -> None:
        store = rig.open()
        rig.hold(store)
        writes = [asyncio.create_task(make_durable(store, append(1, 1)))]
        await rig.held(store)
        writes += [asyncio.create_task(make_durable(store, append(index, index))) for index in (2, 3)]
        await asyncio.sleep(0)
        rig.fail_next(store)
        rig.release(store)
        results = await asyncio.gather(*writes, return_exceptions=True)
        assert [type(result) for result in results] == [StorageError] * 3
        await store.close()

    asyncio.run(main())
