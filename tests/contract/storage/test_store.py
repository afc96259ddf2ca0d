"""The contract of `ports.Store`: what it keeps, in which order, and what it refuses."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

import pytest
from stores import (
    CLUSTER,
    CONFIGURATION,
    GROUPS,
    NODE,
    PEER,
    STORE,
    G,
    H,
    Rig,
    append,
    entries,
    entry,
    hard_state,
    make_durable,
    row,
)

from isochrone.errors import InvariantViolation, StorageError
from isochrone.ids import GroupId, Incarnation, LogIndex, NodeId, ReplicaRole, StoreId, Term, Timestamp
from isochrone.ports import LogWrite, Store, TermRun, WriteBatch
from isochrone.wire.configurations import encode_configuration
from isochrone.wire.entries import make_entry
from isochrone.wire.messages import Configuration, Entry, EntryKind, HardState, Member

MANY = 1 << 30


def run(rig: Rig, scenario: Callable[[Store], Coroutine[Any, Any, Store | None]]) -> None:
    """Run a scenario on a new store, and close the store with which it ends."""

    async def main() -> None:
        store = rig.open()
        await (await scenario(store) or store).close()

    asyncio.run(main())


async def held_indexes(store: Store, group: GroupId = G) -> list[tuple[int, int]]:
    """Index and term of all entries held."""
    bounds = await store.load(group)
    first = LogIndex(bounds.truncated_index + 1)
    if first > bounds.last_index:
        return []
    return [(e.index, e.term) for e in await store.read_entries(group, first, bounds.last_index, MANY)]


def test_a_new_store_is_empty(rig: Rig) -> None:
    async def scenario(store: Store) -> None:
        assert store.groups == (G, H)
        assert store.incarnations == {}
        identity = store.identity
        assert (identity.cluster, identity.node, identity.store, identity.incarnation) == (CLUSTER, NODE, STORE, 1)
        bounds = await store.load(H)
        assert bounds.configuration == CONFIGURATION
        assert bounds.hard_state == HardState()
        assert (bounds.truncated_index, bounds.truncated_term, bounds.last_index, bounds.applied) == (0, 0, 0, 0)
        assert bounds.term_runs == ()
        assert (await store.load(G)).configuration == GROUPS[G]
        assert list(await store.read_rows(G)) == []

    run(rig, scenario)


def test_everything_survives_a_reopening(rig: Rig) -> None:
    async def scenario(store: Store) -> Store:
        batch = WriteBatch(
            logs=(LogWrite(G, hard_state(2, NODE, 3), (*entries(1, 3, 1), *entries(4, 5, 2))),),
            rows=(row(b"b", b"2"), row(b"a", b"1")),
            applied={G: LogIndex(2)},
            incarnations={PEER: Incarnation(7)},
        )
        await make_durable(store, batch)
        assert store.incarnations == {}, "as stored when the store was opened"
        before = await store.load(G)
        store = await rig.reopen(store)
        assert store.identity.incarnation == 2
        assert store.incarnations == {PEER: 7}
        assert await store.load(G) == before
        assert before.hard_state == hard_state(2, NODE, 3)
        assert (before.last_index, before.applied) == (5, 2)
        assert before.term_runs == (TermRun(LogIndex(1), Term(1)), TermRun(LogIndex(4), Term(2)))
        assert await store.read_entries(G, LogIndex(1), LogIndex(5), MANY) == batch.logs[0].entries
        assert [(item.key, item.value) for item in await store.read_rows(G)] == [(b"a", b"1"), (b"b", b"2")]
        assert (await store.load(H)).last_index == 0
        return store

    run(rig, scenario)


def test_entries_keep_their_encoded_bytes(rig: Rig) -> None:
    async def scenario(store: Store) -> None:
        original = entry(1, data=bytes(range(256)) * 40)
        await make_durable(store, WriteBatch(logs=(LogWrite(G, entries=(original,)),)))
        (found,) = await store.read_entries(G, LogIndex(1), LogIndex(1), 1)
        assert found.encoded == original.encoded

    run(rig, scenario)


def test_writes_called_together_take_effect_in_the_order_of_the_calls(rig: Rig) -> None:
    async def scenario(store: Store) -> None:
        batches = [append(index, index) for index in range(1, 201)]
        batches += [WriteBatch(rows=(row(b"k", b"%d" % number),)) for number in range(50)]
        await asyncio.gather(*(make_durable(store, batch) for batch in batches))
        assert await held_indexes(store) == [(index, 1) for index in range(1, 201)]
        assert [item.value for item in await store.read_rows(G)] == [b"49"]

    run(rig, scenario)


def test_entries_replace_everything_from_the_first_one_on(rig: Rig) -> None:
    async def scenario(store: Store) -> Store:
        await make_durable(store, append(1, 9, term=1))
        await make_durable(store, append(1, 9, group=H))
        await make_durable(store, append(4, 5, term=3))
        expected = [(1, 1), (2, 1), (3, 1), (4, 3), (5, 3)]
        assert await held_indexes(store) == expected
        store = await rig.reopen(store)
        assert await held_indexes(store) == expected
        assert (await store.load(G)).term_runs == (TermRun(LogIndex(1), Term(1)), TermRun(LogIndex(4), Term(3)))
        assert len(await held_indexes(store, H)) == 9, "another group's log is untouched"
        with pytest.raises(StorageError, match="6"):
            await store.read_entries(G, LogIndex(6), LogIndex(9), MANY)
        return store

    run(rig, scenario)


def test_a_whole_log_can_be_replaced(rig: Rig) -> None:
    async def scenario(store: Store) -> Store:
        await make_durable(store, append(1, 9, term=1))
        await make_durable(store, append(1, 2, term=2))
        store = await rig.reopen(store)
        assert await held_indexes(store) == [(1, 2), (2, 2)]
        assert (await store.load(G)).term_runs == (TermRun(LogIndex(1), Term(2)),)
        return store

    run(rig, scenario)


def changed(index: int, *names: str, term: int = 1) -> Entry:
    """An entry that holds a configuration of these nodes."""
    return make_entry(
        index=LogIndex(index),
        term=Term(term),
        kind=EntryKind.CONFIGURATION,
        timestamp=Timestamp(1000 + index),
        data=encode_configuration(group_of(*names)),
    )


def group_of(*names: str) -> Configuration:
    return Configuration(tuple(Member(NodeId(name), StoreId("s"), ReplicaRole.FULL) for name in names))


async def configurations(store: Store) -> tuple[Configuration, list[tuple[int, Configuration]], Configuration]:
    """The base of group G, those in its log, and the one in force."""
    found = await store.load(G)
    logged = [(each.index, each.configuration) for each in found.configurations]
    return found.configuration, logged, found.effective_configuration


def test_configurations_move_with_the_log(rig: Rig) -> None:
    """In force when written, gone with a replaced suffix, and the base once what came before is truncated."""

    async def scenario(store: Store) -> Store:
        async def write(*new: Entry, truncate_to: int | None = None) -> None:
            bound = None if truncate_to is None else LogIndex(truncate_to)
            await make_durable(store, WriteBatch(logs=(LogWrite(G, entries=new, truncate_to=bound),)))

        base, one, two, three = GROUPS[G], group_of("a"), group_of("a", "b"), group_of("a", "b", "c")
        assert await configurations(store) == (base, [], base)
        await write(entry(1), changed(2, "a"), entry(3), changed(4, "a", "b"), entry(5))
        store = await rig.reopen(store)
        assert await configurations(store) == (base, [(2, one), (4, two)], two)
        await write(entry(3, 2), changed(4, "a", "b", "c", term=2), entry(5, 2))
        store = await rig.reopen(store)
        assert await configurations(store) == (base, [(2, one), (4, three)], three)
        await write(entry(4, 3))
        store = await rig.reopen(store)
        assert await configurations(store) == (base, [(2, one)], one)
        await write(changed(5, "a", "b", term=3), truncate_to=3)
        store = await rig.reopen(store)
        assert await configurations(store) == (one, [(5, two)], two)
        await write(truncate_to=5)
        store = await rig.reopen(store)
        assert await configurations(store) == (two, [], two)
        return store

    run(rig, scenario)


def test_a_group_is_made_on_a_store_that_is_open(rig: Rig) -> None:
    async def scenario(store: Store) -> Store:
        new = GroupId("f")
        await store.create_group(new, CONFIGURATION)
        assert store.groups == (new, G, H)
        await make_durable(store, append(1, 3, group=new))
        await store.create_group(new, CONFIGURATION)
        assert await held_indexes(store, new) == [(1, 1), (2, 1), (3, 1)], "made again"
        store = await rig.reopen(store)
        assert store.groups == (new, G, H)
        bounds = await store.load(new)
        assert (bounds.configuration, bounds.last_index) == (CONFIGURATION, 3)
        for group in (new, H):
            with pytest.raises(StorageError, match="another configuration"):
                await store.create_group(group, group_of("a"))
        await make_durable(store, append(4, 4, group=new))
        return store

    run(rig, scenario)


def test_a_group_that_is_made_survives_at_once_and_one_that_cannot_be_leaves_the_store_as_it_was(rig: Rig) -> None:
    async def scenario(store: Store) -> Store:
        rig.fail_next(store)
        with pytest.raises(StorageError):
            await store.create_group(GroupId("f"), CONFIGURATION)
        with pytest.raises(StorageError):
            await make_durable(store, append(1, 1))
        store = await rig.reopen(store)
        assert store.groups == (G, H)
        await store.create_group(GroupId("f"), CONFIGURATION)
        assert (await store.load(GroupId("f"))).last_index == 0
        return store

    run(rig, scenario)


def test_truncation_drops_a_prefix_and_keeps_its_last_index_and_term(rig: Rig) -> None:
    async def scenario(store: Store) -> Store:
        await make_durable(store, append(1, 3, term=1))
        await make_durable(store, append(4, 9, term=2))
        await make_durable(store, WriteBatch(logs=(LogWrite(G, truncate_to=LogIndex(5)),)))
        store = await rig.reopen(store)
        bounds = await store.load(G)
        assert (bounds.truncated_index, bounds.truncated_term, bounds.last_index) == (5, 2, 9)
        assert bounds.term_runs == (TermRun(LogIndex(6), Term(2)),)
        assert await held_indexes(store) == [(index, 2) for index in range(6, 10)]
        with pytest.raises(StorageError, match="5"):
            await store.read_entries(G, LogIndex(5), LogIndex(9), MANY)
        await make_durable(store, WriteBatch(logs=(LogWrite(G, truncate_to=LogIndex(2)),)))
        assert await store.load(G) == bounds, "a truncation further back changes nothing"
        return store

    run(rig, scenario)


def test_loading_tells_the_sizes_of_the_entries_held(rig: Rig) -> None:
    async def scenario(store: Store) -> Store:
        assert list((await store.load(G)).entry_bytes) == []
        made = tuple(entry(index, data=bytes(10 * index)) for index in range(1, 6))
        await make_durable(store, WriteBatch(logs=(LogWrite(G, entries=made),)))
        await make_durable(store, WriteBatch(logs=(LogWrite(G, entries=(entry(5, 2, b""),), truncate_to=LogIndex(2)),)))
        store = await rig.reopen(store)
        sizes = [len(made[2].encoded), len(made[3].encoded), len(entry(5, 2, b"").encoded)]
        assert list((await store.load(G)).entry_bytes) == sizes
        return store

    run(rig, scenario)


def test_a_log_truncated_to_its_end_goes_on_from_there(rig: Rig) -> None:
    async def scenario(store: Store) -> Store:
        await make_durable(store, append(1, 4, term=2))
        await make_durable(store, WriteBatch(logs=(LogWrite(G, truncate_to=LogIndex(4)),)))
        store = await rig.reopen(store)
        bounds = await store.load(G)
        assert (bounds.truncated_index, bounds.truncated_term, bounds.last_index, bounds.term_runs) == (4, 2, 4, ())
        await make_durable(store, append(5, 6, term=2))
        store = await rig.reopen(store)
        assert await held_indexes(store) == [(5, 2), (6, 2)]
        assert (await store.load(G)).term_runs == (TermRun(LogIndex(5), Term(2)),)
        return store

    run(rig, scenario)


def test_one_write_may_append_and_truncate(rig: Rig) -> None:
    async def scenario(store: Store) -> Store:
        await make_durable(store, append(1, 4))
        await make_durable(store, WriteBatch(logs=(LogWrite(G, hard_state(1, None, 6), entries(5, 7), LogIndex(6)),)))
        store = await rig.reopen(store)
        assert await held_indexes(store) == [(7, 1)]
        assert (await store.load(G)).hard_state.commit == 6
        return store

    run(rig, scenario)


def log(write: LogWrite) -> WriteBatch:
    """A batch of one log write, and a row by which one sees whether any of it took effect."""
    return WriteBatch(logs=(write,), rows=(row(b"breach", b""),))


BREACHES = {
    "hole": (log(LogWrite(G, entries=entries(6, 7, 2))), "hole"),
    "hole inside": (log(LogWrite(G, entries=(entry(5, 2), entry(7, 2)))), "follows"),
    "term of entries falls": (log(LogWrite(G, entries=entries(5, 5, 1))), "term falls"),
    "truncated entry replaced": (log(LogWrite(G, entries=entries(1, 9, 3))), "truncated"),
    "committed entry replaced": (log(LogWrite(G, entries=entries(2, 9, 3))), "committed"),
    "entry not encoded": (log(LogWrite(G, entries=(replace(entry(5, 2), encoded=b""),))), "not encoded"),
    "truncation beyond the log": (log(LogWrite(G, truncate_to=LogIndex(5))), "beyond"),
    "truncation beyond what the rows reflect": (log(LogWrite(G, truncate_to=LogIndex(3))), "2 is applied"),
    "term falls": (log(LogWrite(G, hard_state(1, NODE, 2))), "term falls"),
    "vote changes": (log(LogWrite(G, hard_state(2, PEER, 2))), "vote"),
    "vote is forgotten": (log(LogWrite(G, hard_state(2, None, 2))), "vote"),
    "commit falls": (log(LogWrite(G, hard_state(2, NODE, 1))), "commit falls"),
    "commit beyond the log": (log(LogWrite(G, hard_state(2, NODE, 5))), "beyond"),
    "applied falls": (WriteBatch(applied={G: LogIndex(1)}), "falls"),
    "applied beyond the log": (WriteBatch(applied={G: LogIndex(5)}), "beyond"),
    "log of an unknown group": (log(LogWrite(GroupId("x"), entries=entries(1, 1))), "does not hold"),
    "row of an unknown group": (WriteBatch(rows=(row(b"k", b"", group=GroupId("x")),)), "does not hold"),
    "applied index of an unknown group": (WriteBatch(applied={GroupId("x"): LogIndex(0)}), "does not hold"),
}


@pytest.mark.parametrize("name", BREACHES)
def test_a_breach_of_the_rules_is_the_callers_fault_and_changes_nothing(rig: Rig, name: str) -> None:
    batch, message = BREACHES[name]

    async def scenario(store: Store) -> Store:
        first = LogWrite(G, hard_state(2, NODE, 2), (*entries(1, 3, 1), entry(4, 2)), LogIndex(1))
        await make_durable(store, WriteBatch(logs=(first,), applied={G: LogIndex(2)}))
        before = await store.load(G)
        with pytest.raises(InvariantViolation, match=message):
            await make_durable(store, batch)
        assert await store.load(G) == before
        await make_durable(store, append(5, 5, term=2))
        store = await rig.reopen(store)
        assert [index for index, _ in await held_indexes(store)] == [2, 3, 4, 5]
        assert list(await store.read_rows(G)) == []
        return store

    run(rig, scenario)


def test_a_read_is_cut_by_bytes_but_never_empty(rig: Rig) -> None:
    async def scenario(store: Store) -> None:
        await make_durable(store, append(1, 9))
        size = len(entry(1).encoded)

        async def count(first: int, last: int, bytes_max: int) -> int:
            return len(await store.read_entries(G, LogIndex(first), LogIndex(last), bytes_max))

        assert await count(1, 9, 0) == 1
        assert await count(1, 9, size * 3) == 3
        assert await count(1, 9, size * 3 - 1) == 2
        assert await count(3, 5, MANY) == 3
        assert await count(8, 99, MANY) == 2, "the log ends at 9"
        for first in (0, 10):
            with pytest.raises(StorageError, match=f"no entry {first}"):
                await count(first, 12, MANY)

    run(rig, scenario)


def test_rows_are_ordered_by_keyspace_table_and_key(rig: Rig) -> None:
    long_key = b"l" * 2000
    keys = [
        ("", 0, b"z"),
        ("a", 0, b""),
        ("a", 0, b"\0"),
        ("a", 0, b"\0\1"),
        ("a", 0, long_key + b"a"),
        ("a", 0, long_key + b"b"),
        ("a", 0, b"m"),
        ("a", 255, b"a"),
        ("a\0", 0, b"a"),
        ("a\0b", 0, b"a"),
        ("ab", 0, b"a"),
    ]

    async def scenario(store: Store) -> Store:
        rows = [row(key, b"%d" % n, keyspace=keyspace, table=table) for n, (keyspace, table, key) in enumerate(keys)]
        await make_durable(store, WriteBatch(rows=(row(b"other", b"", group=H), *reversed(rows))))
        store = await rig.reopen(store)
        assert list(await store.read_rows(G)) == rows
        return store

    run(rig, scenario)


def test_rows_are_replaced_and_deleted_in_order(rig: Rig) -> None:
    long_key = b"l" * 600

    async def scenario(store: Store) -> Store:
        first = (row(b"a", b"1"), row(b"b", b"1"), row(b"a", None), row(b"c", b"1"), row(b"c", b"2"), row(b"d", None))
        await make_durable(store, WriteBatch(rows=(*first, row(long_key, b"1"))))
        await make_durable(store, WriteBatch(rows=(row(b"b", None), row(b"b", b""), row(long_key, None))))
        store = await rig.reopen(store)
        assert [(item.key, item.value) for item in await store.read_rows(G)] == [(b"b", b""), (b"c", b"2")]
        return store

    run(rig, scenario)


def test_a_reopened_store_knows_that_what_was_applied_was_committed(rig: Rig) -> None:
    async def scenario(store: Store) -> Store:
        write = LogWrite(G, hard_state(1, NODE, 1), entries(1, 5))
        await make_durable(store, WriteBatch(logs=(write,), applied={G: LogIndex(4)}))
        store = await rig.reopen(store)
        assert (await store.load(G)).hard_state == hard_state(1, NODE, 4)
        return store

    run(rig, scenario)


def test_a_reopened_store_keeps_peers_incarnations_it_is_not_told_again(rig: Rig) -> None:
    async def scenario(store: Store) -> Store:
        await make_durable(store, WriteBatch(incarnations={PEER: Incarnation(3), NODE: Incarnation(1)}))
        await make_durable(store, WriteBatch(incarnations={PEER: Incarnation(4)}))
        store = await rig.reopen(store)
        assert store.incarnations == {PEER: 4, NODE: 1}
        return store

    run(rig, scenario)


def test_an_unknown_group_is_refused(rig: Rig) -> None:
    async def scenario(store: Store) -> None:
        unknown = GroupId("x")
        with pytest.raises(StorageError, match="does not hold group x"):
            await store.load(unknown)
        with pytest.raises(StorageError, match="does not hold group x"):
            await store.read_entries(unknown, LogIndex(1), LogIndex(1), MANY)
        with pytest.raises(StorageError, match="does not hold group x"):
            await store.read_rows(unknown)

    run(rig, scenario)
