"""The contract of `ports.Store` for snapshots: reading one state while it goes on, staging another, and the switch."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

import google_crc32c
import pytest
from stores import CONFIGURATION, KEYSPACE, NODE, G, H, Rig, append, entries, hard_state, make_durable, row

from isochrone.errors import InvariantViolation, StorageError
from isochrone.ids import LogIndex, Term, Timestamp
from isochrone.ports import LogWrite, Store, WriteBatch
from isochrone.wire.messages import SnapshotChunk, SnapshotId
from isochrone.wire.rows import decode_rows, encode_row

OTHER = replace(CONFIGURATION, members=CONFIGURATION.members[:1])


def run(rig: Rig, scenario: Callable[[Store], Coroutine[Any, Any, Store | None]]) -> None:
    """Run a scenario on a new store, and close the store with which it ends."""

    async def main() -> None:
        store = rig.open()
        await (await scenario(store) or store).close()

    asyncio.run(main())


def chunks_of(
    pieces: list[list[tuple[bytes, bytes]]], *, attempt: int = 1, index: int = 20, term: int = 2
) -> list[SnapshotChunk]:
    """A snapshot in as many chunks as there are pieces; each piece lists keys and values."""
    name = SnapshotId(Term(9), attempt, LogIndex(index), Term(term))
    made: list[SnapshotChunk] = []
    position = checksum = 0
    for number, piece in enumerate(pieces):
        data = b"".join(encode_row(KEYSPACE, 1, key, value) for key, value in piece)
        checksum = int(google_crc32c.extend(checksum, data))
        last = number == len(pieces) - 1
        made.append(SnapshotChunk(name, OTHER, Timestamp(777), True, position, data, checksum, last))
        position += len(data)
    return made


PIECES = [[(b"a", b"1"), (b"b", b"2")], [(b"c", b"3")], [(b"x" * 600, b"4"), (b"z", b"5")]]


def staging(chunk: SnapshotChunk, commit: int = 0) -> WriteBatch:
    """A batch that stages a chunk; the last one with the commit index that a core would add."""
    state = hard_state(9, None, max(commit, chunk.id.index)) if chunk.last else None
    return WriteBatch(logs=(LogWrite(G, state, chunk=chunk),))


async def held_rows(store: Store) -> dict[bytes, bytes | None]:
    return {item.key: item.value for item in await store.read_rows(G)}


async def a_store_with_state(store: Store) -> None:
    """Ten entries of term 1, applied up to 6, with two rows."""
    rows = (row(b"a", b"old", table=1), row(b"gone", b"old", table=1))
    write = LogWrite(G, hard_state(1, None, 6), entries(1, 10))
    await make_durable(store, WriteBatch(logs=(write,), rows=rows, applied={G: LogIndex(6)}))


def test_chunks_take_effect_with_the_last_one_only(rig: Rig) -> None:
    async def scenario(store: Store) -> Store:
        await a_store_with_state(store)
        before = await store.load(G)
        chunks = chunks_of(PIECES)
        for chunk in chunks[:-1]:
            await make_durable(store, staging(chunk))
            store = await rig.reopen(store)  # whatever is durable of it is only staged
            bounds = await store.load(G)
            assert bounds.staged is not None
            assert (bounds.staged.id, bounds.staged.position) == (chunk.id, chunk.end)
            assert bounds.staged.checksum == chunk.checksum
            assert replace(bounds, staged=None, generations=0) == replace(before, generations=0)
            assert await held_rows(store) == {b"a": b"old", b"gone": b"old"}
        await make_durable(store, staging(chunks[-1]))
        for _ in range(2):
            bounds = await store.load(G)
            assert bounds.staged is None
            assert (bounds.truncated_index, bounds.truncated_term, bounds.last_index) == (20, 2, 20)
            assert (bounds.applied, bounds.term_runs, list(bounds.entry_bytes)) == (20, (), [])
            assert (bounds.configuration, bounds.configurations) == (OTHER, ())
            assert (bounds.base_timestamp, bounds.hard_state.commit) == (777, 20)
            assert await held_rows(store) == {key: value for piece in PIECES for key, value in piece}
            store = await rig.reopen(store)
        await make_durable(store, WriteBatch(logs=append(21, 22, term=9).logs, rows=(row(b"a", b"6", table=1),)))
        store = await rig.reopen(store)
        assert (await held_rows(store))[b"a"] == b"6"
        assert len(await store.read_entries(G, LogIndex(21), LogIndex(22), 1 << 20)) == 2
        assert list(await store.read_rows(H)) == []
        return store

    run(rig, scenario)


@pytest.mark.parametrize(("term", "kept"), [(1, True), (2, False)])
def test_the_log_above_a_snapshot_is_kept_only_after_the_very_same_entry(rig: Rig, term: int, kept: bool) -> None:
    async def scenario(store: Store) -> Store:
        await a_store_with_state(store)
        for chunk in chunks_of(PIECES, index=8, term=term):
            await make_durable(store, staging(chunk))
        store = await rig.reopen(store)
        bounds = await store.load(G)
        assert (bounds.truncated_index, bounds.truncated_term, bounds.applied) == (8, term, 8)
        assert bounds.last_index == (10 if kept else 8)
        assert len(bounds.entry_bytes) == (2 if kept else 0)
        if kept:
            held = await store.read_entries(G, LogIndex(9), LogIndex(10), 1 << 20)
            assert [(item.index, item.term) for item in held] == [(9, 1), (10, 1)]
        with pytest.raises(StorageError, match="no entry 8"):
            await store.read_entries(G, LogIndex(8), LogIndex(8), 1)
        return store

    run(rig, scenario)


def test_a_snapshot_for_a_witness_moves_its_log_and_nothing_else(rig: Rig) -> None:
    async def scenario(store: Store) -> Store:
        await make_durable(store, append(1, 5))
        name = SnapshotId(Term(9), 1, LogIndex(20), Term(2))
        chunk = SnapshotChunk(name, OTHER, Timestamp(777), False, 0, b"", 0, True)
        await make_durable(store, staging(chunk))
        store = await rig.reopen(store)
        bounds = await store.load(G)
        assert (bounds.truncated_index, bounds.last_index, bounds.applied) == (20, 20, 0)
        assert (bounds.configuration, bounds.base_timestamp) == (OTHER, 777)
        await make_durable(store, append(21, 30, term=9))
        return store

    run(rig, scenario)


def test_another_attempt_starts_over_and_leaves_nothing_of_the_one_before(rig: Rig) -> None:
    async def scenario(store: Store) -> Store:
        await a_store_with_state(store)
        await make_durable(store, staging(chunks_of(PIECES)[0]))
        again = chunks_of([[(b"n", b"new")], [(b"o", b"new")]], attempt=2)
        await make_durable(store, staging(again[0]))
        store = await rig.reopen(store)
        await make_durable(store, staging(again[1]))
        assert await held_rows(store) == {b"n": b"new", b"o": b"new"}
        return store

    run(rig, scenario)


def test_what_is_staged_can_be_given_up(rig: Rig) -> None:
    async def scenario(store: Store) -> Store:
        await a_store_with_state(store)
        first = chunks_of(PIECES)[0]
        await make_durable(store, staging(first))
        await make_durable(store, WriteBatch(logs=(LogWrite(G, discard_staged=True),)))
        store = await rig.reopen(store)
        assert (await store.load(G)).staged is None
        with pytest.raises(InvariantViolation, match="does not follow"):
            await make_durable(store, staging(chunks_of(PIECES)[1]))
        assert await held_rows(store) == {b"a": b"old", b"gone": b"old"}
        return store

    run(rig, scenario)


FIRST, SECOND, THIRD = chunks_of(PIECES)
BREACHES = {
    "out of order": (staging(THIRD), "does not follow"),
    "repeated": (staging(replace(SECOND, position=SECOND.position - 1)), "does not follow"),
    "of another attempt": (staging(chunks_of(PIECES, attempt=2)[1]), "does not follow"),
    "damaged": (staging(replace(SECOND, data=encode_row(KEYSPACE, 1, b"c", b"!"))), "checksum"),
    "old": (staging(chunks_of([[(b"a", b"")]], index=6)[0]), "after commit 6"),
    "with rows": (replace(staging(chunks_of([[]])[0]), rows=(row(b"k", b""),)), "snapshot replaces"),
    "with an applied index": (replace(staging(chunks_of([[]])[0]), applied={G: LogIndex(7)}), "of its own"),
}


@pytest.mark.parametrize("name", BREACHES)
def test_a_chunk_that_does_not_fit_is_refused_and_changes_nothing(rig: Rig, name: str) -> None:
    batch, message = BREACHES[name]

    async def scenario(store: Store) -> Store:
        await a_store_with_state(store)
        await make_durable(store, staging(FIRST))
        before = await store.load(G)
        with pytest.raises(InvariantViolation, match=message):
            await make_durable(store, batch)
        assert await store.load(G) == before
        await make_durable(store, staging(SECOND))
        await make_durable(store, staging(THIRD))
        store = await rig.reopen(store)
        assert len(await held_rows(store)) == 5
        return store

    run(rig, scenario)


def test_rows_and_chunks_of_one_group_in_neighbouring_batches_keep_apart(rig: Rig) -> None:
    """Batches that gather behind a commit share a transaction: each row still belongs to the state of its time."""

    async def scenario(store: Store) -> Store:
        await a_store_with_state(store)
        rig.hold(store)
        held = asyncio.create_task(make_durable(store, WriteBatch(rows=(row(b"held", b""),))))
        await rig.held(store)
        batches = [
            staging(FIRST),
            WriteBatch(rows=(row(b"a", b"older", table=1), row(b"gone", None, table=1))),
            staging(chunks_of(PIECES, attempt=2)[0]),
            staging(chunks_of(PIECES, attempt=2)[1]),
            WriteBatch(rows=(row(b"late", b"older", table=1),)),
            staging(chunks_of(PIECES, attempt=2)[2]),
            WriteBatch(
                logs=append(21, 21, term=9).logs, rows=(row(b"b", b"newer", table=1),), applied={G: LogIndex(21)}
            ),
        ]
        writes = [asyncio.create_task(make_durable(store, batch)) for batch in batches]
        await asyncio.sleep(0)
        rig.release(store)
        await asyncio.gather(held, *writes)
        for _ in range(2):
            expected = {key: value for piece in PIECES for key, value in piece} | {b"b": b"newer"}
            assert await held_rows(store) == expected
            assert (await store.load(G)).applied == 21
            store = await rig.reopen(store)
        return store

    run(rig, scenario)


async def read_all(store: Store, bytes_max: int, between: Callable[[int], Coroutine[Any, Any, None]]) -> list[bytes]:
    """Read a snapshot to its end; `between` runs after each piece. Returns the pieces."""
    reader = await store.open_snapshot(G)
    pieces: list[bytes] = []
    last = False
    while not last:
        part = await reader.read(bytes_max)
        assert part is not None
        pieces.append(part[0])
        last = part[1]
        await between(len(pieces))
    reader.close()
    reader.close()
    return pieces


def test_a_snapshot_is_read_as_of_one_moment_whatever_is_written_meanwhile(rig: Rig) -> None:
    async def scenario(store: Store) -> None:
        await make_durable(store, append(1, 9))
        rows = tuple(row(b"%03d" % n, b"%d" % n) for n in range(0, 100, 2))
        await make_durable(store, WriteBatch(rows=(*rows, row(b"other", b"", group=H)), applied={G: LogIndex(7)}))
        reader = await store.open_snapshot(G)
        assert (reader.index, reader.index_term, reader.configuration) == (7, 1, (await store.load(G)).configuration)
        reader.close()

        async def write(number: int) -> None:
            changes = [row(b"%03d" % n, None if n % 4 else b"changed%d" % number) for n in range(0, 100, 6)]
            added = [row(b"%03d" % (2 * number + 1 + n), b"added") for n in range(0, 60, 10)]
            await make_durable(store, WriteBatch(rows=(*changes, *added), applied={G: LogIndex(8)}))

        pieces = await read_all(store, 60, write)
        assert len(pieces) > 10
        assert all(len(piece) <= 60 for piece in pieces)
        found = [(key, value) for piece in pieces for _, _, key, value in decode_rows(piece)]
        assert found == [(item.key, item.value) for item in rows]

    run(rig, scenario)


def test_a_snapshot_of_nothing_is_one_empty_piece(rig: Rig) -> None:
    async def scenario(store: Store) -> None:
        reader = await store.open_snapshot(G)
        assert (reader.index, await reader.read(1)) == (0, (b"", True))
        reader.close()
        with pytest.raises(StorageError, match="does not hold"):
            await store.open_snapshot(type(G)("x"))

    run(rig, scenario)


def test_rows_come_in_order_however_long_their_keys_are(rig: Rig) -> None:
    """Stored keys have a limit of length in LMDB, and what is cut off tells the order."""

    async def scenario(store: Store) -> None:
        stem = b"k" * 500
        keys = [stem + b"%d" % n + b"x" * length for n in range(12) for length in (0, 40)]
        rows = tuple(row(key, b"%d" % n) for n, key in enumerate([b"a", *keys, b"z"]))
        await make_durable(store, WriteBatch(rows=rows))

        async def change(number: int) -> None:
            await make_durable(store, WriteBatch(rows=(row(keys[number % len(keys)], b"changed"),)))

        pieces = await read_all(store, 600, change)
        found = [(key, value) for piece in pieces for _, _, key, value in decode_rows(piece)]
        assert found == sorted((item.key, item.value) for item in rows)

    run(rig, scenario)


def test_a_piece_holds_at_least_one_row(rig: Rig) -> None:
    async def scenario(store: Store) -> None:
        await make_durable(store, WriteBatch(rows=(row(b"a", bytes(100)), row(b"b", bytes(100)))))

        async def nothing(_number: int) -> None:
            pass

        pieces = await read_all(store, 1, nothing)
        assert [len(list(decode_rows(piece))) for piece in pieces] == [1, 1]

    run(rig, scenario)


def test_what_is_read_can_be_installed_elsewhere(rig: Rig) -> None:
    """From one group of the store to another: every row arrives, of whatever key."""

    async def scenario(store: Store) -> Store:
        keys = [b"", b"a", b"\0", b"a\0b", b"l" * 500, b"l" * 600 + b"a", b"l" * 600 + b"b"]
        rows = tuple(
            row(key, b"%d" % n, keyspace=space, table=t)
            for n, key in enumerate(keys)
            for space in ("", "k")
            for t in (0, 255)
        )
        await make_durable(store, WriteBatch(logs=append(1, 3).logs, rows=rows, applied={G: LogIndex(3)}))
        reader = await store.open_snapshot(G)
        name = SnapshotId(Term(9), 1, reader.index, reader.index_term)
        position = checksum = 0
        last = False
        while not last:
            part = await reader.read(50)
            assert part is not None
            data, last = part
            checksum = int(google_crc32c.extend(checksum, data))
            chunk = SnapshotChunk(name, reader.configuration, Timestamp(5), True, position, data, checksum, last)
            state = hard_state(9, NODE, reader.index) if last else None
            await make_durable(store, WriteBatch(logs=(LogWrite(H, state, chunk=chunk),)))
            position += len(data)
        reader.close()
        store = await rig.reopen(store)
        plain = [[(r.keyspace, r.table, r.key, r.value) for r in await store.read_rows(group)] for group in (G, H)]
        assert plain[0] == plain[1] and len(plain[0]) == 28
        return store

    run(rig, scenario)


def test_a_snapshot_whose_group_is_replaced_cannot_be_read_on(rig: Rig) -> None:
    async def scenario(store: Store) -> None:
        await a_store_with_state(store)
        reader = await store.open_snapshot(G)
        part = await reader.read(1)
        assert part is not None and not part[1]
        for chunk in chunks_of(PIECES):
            await make_durable(store, staging(chunk))
        found = await reader.read(1 << 20)
        # Either the store remembers what was there, or it says that it does not.
        assert found is None or [key for _, _, key, _ in decode_rows(found[0])] == [b"gone"]
        reader.close()

    run(rig, scenario)
