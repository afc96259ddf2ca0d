"""Stored forms: what is written is read back, in order, and damage is noticed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stores import G

from isochrone.errors import StorageError
from isochrone.ids import KeyspaceId, LogIndex, NodeId, ReplicaRole, StoreId
from isochrone.ports import Row
from isochrone.regions.storage import layout
from isochrone.wire.configurations import configuration_from_plain, configuration_to_plain
from isochrone.wire.messages import Configuration, Member, QuorumSizes

keyspaces = st.text(st.sampled_from("a\0\1b\xff/"), max_size=4).map(KeyspaceId)
tables = st.integers(0, 255)
row_keys = st.binary(max_size=4) | st.binary(min_size=500, max_size=520)
rows = st.builds(Row, st.just(G), keyspaces, tables, row_keys, st.binary(max_size=8))
records = st.recursive(st.none() | st.integers(0, 1 << 63) | st.text() | st.binary(), lambda x: st.tuples(x, x))


PREFIX = layout.rows_prefix(3, 7)


def whole_key(row: Row) -> bytes:
    return layout.row_key(PREFIX, row.keyspace, row.table, row.key)


@given(row=rows)
def test_a_row_is_read_back(row: Row) -> None:
    assert row.value is not None
    key = whole_key(row)
    stored_key = layout.stored_row_key(key)
    assert len(stored_key) <= layout.KEY_BYTES_MAX
    assert stored_key.startswith(PREFIX)
    assert layout.generation_of(stored_key) == (3, 7)
    assert layout.decode_row(G, stored_key, layout.encode_row(key, row.value)) == row


@given(some=st.lists(rows))
def test_many_rows_are_read_back_as_one_by_one(some: list[Row]) -> None:
    items = sorted(
        (layout.stored_row_key(whole_key(row)), layout.encode_row(whole_key(row), row.value or b"")) for row in some
    )
    assert list(layout.decode_rows(G, items)) == [layout.decode_row(G, *item) for item in items]


@given(row=rows, position=st.integers(0), bit=st.integers(0, 7))
def test_a_damaged_row_among_many_is_noticed(row: Row, position: int, bit: int) -> None:
    key = whole_key(row)
    good = (layout.stored_row_key(key), layout.encode_row(key, row.value or b""))
    stored = bytearray(good[1])
    stored[position % len(stored)] ^= 1 << bit
    with pytest.raises(StorageError, match="checksum"):
        list(layout.decode_rows(G, [good, (good[0], bytes(stored))]))


@given(one=rows, other=rows)
def test_the_order_of_whole_keys_is_that_of_keyspace_table_and_key(one: Row, other: Row) -> None:
    def plain(row: Row) -> tuple[bytes, int, bytes]:
        return row.keyspace.encode(), row.table, row.key

    assert (whole_key(one) < whole_key(other)) == (plain(one) < plain(other))


@given(row=rows, other=rows, position=st.integers(0), bit=st.integers(0, 7))
def test_a_damaged_row_is_noticed(row: Row, other: Row, position: int, bit: int) -> None:
    assert row.value is not None
    key = whole_key(row)
    stored = bytearray(layout.encode_row(key, row.value))
    stored[position % len(stored)] ^= 1 << bit
    with pytest.raises(StorageError, match="checksum"):
        layout.decode_row(G, layout.stored_row_key(key), bytes(stored))
    if plain_key(other) != plain_key(row):  # a value under another row's key
        misplaced = layout.stored_row_key(whole_key(other))
        with pytest.raises(StorageError, match="checksum"):
            layout.decode_row(G, misplaced, layout.encode_row(key, row.value))


def plain_key(row: Row) -> tuple[KeyspaceId, int, bytes]:
    """What identifies a row within its group."""
    return row.keyspace, row.table, row.key


@given(value=records, position=st.integers(0), bit=st.integers(0, 7))
def test_a_record_is_read_back_and_damage_is_noticed(value: object, position: int, bit: int) -> None:
    stored = bytearray(layout.encode_record(b"key", value))
    assert layout.decode_record(b"key", bytes(stored)) == value
    with pytest.raises(StorageError, match="other"):
        layout.decode_record(b"other", bytes(stored))
    stored[position % len(stored)] ^= 1 << bit
    with pytest.raises(StorageError, match="checksum"):
        layout.decode_record(b"key", bytes(stored))


@given(one=st.integers(0, (1 << 64) - 1), other=st.integers(0, (1 << 64) - 1))
def test_the_order_of_index_keys_is_that_of_indexes(one: int, other: int) -> None:
    assert (layout.index_key(one) < layout.index_key(other)) == (one < other)
    assert layout.index_of(layout.index_key(one)) == LogIndex(one)


def test_a_configuration_is_read_back() -> None:
    old = (Member(NodeId("a"), StoreId("s"), ReplicaRole.WITNESS), Member(NodeId("b"), StoreId("t"), ReplicaRole.FULL))
    new = (Member(NodeId("c"), StoreId("u"), ReplicaRole.LEARNER),)
    configuration = Configuration(new, old, QuorumSizes(2, 4), QuorumSizes(3, 0), auto_leave=True)
    stored = layout.encode_record(b"k", configuration_to_plain(configuration))
    assert configuration_from_plain(layout.decode_record(b"k", stored)) == configuration
