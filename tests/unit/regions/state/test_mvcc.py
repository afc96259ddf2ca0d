"""Versions, revisions and compaction: reads of the past, and what they may no longer ask for."""

from itertools import pairwise

import pytest
from state_log import NS_PER_MS, SECOND, StateLog

from isochrone.errors import FutureRevision, InvalidRequest, KeyNotFound, LeaseNotFound, RevisionCompacted
from isochrone.ids import KeyspaceId
from isochrone.regions.state import kv as kv_state
from isochrone.regions.state import machine
from isochrone.regions.state.history import History
from isochrone.wire.commands import Command
from isochrone.wire.kv import (
    ALL,
    Compact,
    DeleteRange,
    DeleteResult,
    Increment,
    IncrementResult,
    Put,
    PutResult,
    Range,
    SortOrder,
    SortTarget,
    Txn,
    prefix_end,
)
from isochrone.wire.records import record_key


def keys(log: StateLog, query: Range) -> list[bytes]:
    return [item.key for item in log.read(query).items]


def filled() -> StateLog:
    log = StateLog()
    for key, value in [(b"k/b", b"1"), (b"k/a", b"2"), (b"m/a", b"3"), (b"k/a", b"4"), (b"k/c", b"0")]:
        log.do(Put(key, value))
    return log


def test_a_put_returns_the_version_before_it() -> None:
    log = filled()
    result = log.do(Put(b"k/a", b"5", prev_kv=True))
    assert isinstance(result, PutResult) and result.previous is not None
    assert (result.previous.value, result.previous.mod_revision, result.previous.version) == (b"4", 5, 2)
    fresh = log.do(Put(b"k/z", b"5", prev_kv=True))
    assert isinstance(fresh, PutResult) and fresh.previous is None


def test_a_put_may_keep_the_value_only_of_a_key_that_exists() -> None:
    log = filled()
    log.do(Put(b"k/a", b"", ignore_value=True))
    (item,) = log.read(Range(b"k/a")).items
    assert (item.value, item.version) == (b"4", 3)
    with pytest.raises(KeyNotFound):
        log.do(Put(b"k/new", b"", ignore_value=True))
    with pytest.raises(KeyNotFound):
        log.do(Put(b"k/new", b"x", ignore_lease=True))
    with pytest.raises(InvalidRequest, match="value is provided"):
        log.do(Put(b"k/a", b"x", ignore_value=True))
    with pytest.raises(LeaseNotFound):
        log.do(Put(b"k/a", b"x", lease=99))


def test_a_range_spans_the_keyspaces_of_the_group_in_order_of_the_keys() -> None:
    log = filled()
    assert keys(log, Range(b"\0", ALL)) == [b"k/a", b"k/b", b"k/c", b"m/a"]
    assert keys(log, Range(b"k/b", b"m/b")) == [b"k/b", b"k/c", b"m/a"]
    assert keys(log, Range(b"k/", prefix_end(b"k/"))) == [b"k/a", b"k/b", b"k/c"]
    assert keys(log, Range(b"k/b", b"k/a")) == []
    with pytest.raises(InvalidRequest):
        log.read(Range(b"zzz"))


def test_the_options_of_a_range() -> None:
    log = filled()
    everything = Range(b"\0", ALL)
    limited = log.read(Range(b"\0", ALL, limit=2))
    assert (limited.count, limited.more, len(limited.items)) == (4, True, 2)
    whole = log.read(Range(b"\0", ALL, limit=4))
    assert (whole.count, whole.more, len(whole.items)) == (4, False, 4)
    counted = log.read(Range(b"\0", ALL, count_only=True))
    assert (counted.count, counted.more, counted.items) == (4, False, ())
    assert {item.value for item in log.read(Range(b"\0", ALL, keys_only=True)).items} == {b""}
    by_mod = Range(b"\0", ALL, sort_target=SortTarget.MOD)
    assert keys(log, by_mod) == [b"k/b", b"m/a", b"k/a", b"k/c"]
    by_value = Range(b"\0", ALL, sort_target=SortTarget.VALUE, sort_order=SortOrder.DESCEND, limit=2)
    assert keys(log, by_value) == [b"k/a", b"m/a"]
    by_key = Range(b"\0", ALL, sort_order=SortOrder.DESCEND)
    assert keys(log, by_key) == list(reversed(keys(log, everything)))
    assert keys(log, Range(b"\0", ALL, min_mod_revision=4, max_mod_revision=5)) == [b"k/a", b"m/a"]
    assert keys(log, Range(b"\0", ALL, min_create_revision=3, max_create_revision=3)) == [b"k/a"]
    assert log.read(Range(b"\0", ALL, min_create_revision=3, max_create_revision=3)).count == 4


def test_removed_keys_do_not_count() -> None:
    log = StateLog()

    def count() -> int:
        return log.read(Range(b"k/", ALL, count_only=True)).count

    for key in (b"k/a", b"k/b", b"k/b"):
        log.do(Put(key, b""))
    log.do(DeleteRange(b"k/a"))
    assert count() == 1
    log.do(Put(b"k/a", b""))
    assert count() == 2
    log.do(DeleteRange(b"k/", ALL))
    assert count() == 0
    log.do(Put(b"k/c", b""))
    log.do(Compact(log.state.revision))
    assert count() == 1
    log.do(Put(b"k/d", b""))
    assert count() == 2


def test_the_past_is_read_by_revision_and_by_timestamp() -> None:
    log = filled()
    log.do(DeleteRange(b"k/a"))
    timestamps = {item.mod_revision: item.timestamp for item in log.read(Range(b"\0", ALL)).items}
    (then,) = log.read(Range(b"k/a", revision=4)).items
    assert (then.value, then.version) == (b"2", 1)
    assert [item.value for item in log.read(Range(b"k/a", revision=5)).items] == [b"4"]
    assert log.read(Range(b"k/a", revision=7)).items == ()
    assert [item.value for item in log.read(Range(b"k/a", timestamp=timestamps[4])).items] == [b"2"]
    assert keys(log, Range(b"\0", ALL, timestamp=timestamps[4] - 1)) == [b"k/a", b"k/b"]
    assert keys(log, Range(b"\0", ALL, revision=2)) == [b"k/b"]
    assert log.read(Range(b"\0", ALL, revision=2, count_only=True)).count == 1
    with pytest.raises(FutureRevision):
        log.read(Range(b"k/a", revision=8))
    with pytest.raises(FutureRevision):
        log.read(Range(b"k/a", timestamp=log.now_ms * NS_PER_MS))


def test_deleting_a_range_is_one_revision() -> None:
    log = filled()
    result = log.do(DeleteRange(b"k/b", ALL, prev_kv=True))
    assert isinstance(result, DeleteResult)
    assert (result.deleted, result.revision) == (3, 7)
    assert [item.key for item in result.previous] == [b"k/b", b"k/c", b"m/a"]
    assert keys(log, Range(b"\0", ALL)) == [b"k/a"]
    assert len(log.last.events) == 3


def test_a_compaction_goes_through_the_versions_of_a_key_once_for_each_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not once for each version: with a million of them, an entry would take tens of milliseconds to apply."""
    log = StateLog()
    for number in range(40):
        log.do(Put(b"k/hot", b"%d" % number))
        log.do(Put(b"k/%d" % (number % 2), b""))
    log.do(DeleteRange(b"k/0"))
    asked: list[bytes] = []
    forget = History._forget_before

    def counted(history: History, record: bytes, gone: list[bytes], kept_from: bytes | None = None) -> None:
        if kept_from is None:
            asked.append(record_key(record))
        forget(history, record, gone, kept_from)

    monkeypatch.setattr(History, "_forget_before", counted)
    log.do(Put(b"k/last", b""))
    log.do(Compact(83))
    assert sorted(asked) == [b"k/0", b"k/1", b"k/hot"]
    history = log.state.data.keyspaces[KeyspaceId("k/")].history
    assert [record_key(record) for record in history.records()] == [b"k/1", b"k/hot", b"k/last"]


def test_after_a_compaction_its_own_revision_can_be_watched_and_read() -> None:
    log = filled()
    log.do(DeleteRange(b"k/b"))
    log.do(Put(b"k/d", b"1"))
    log.do(Compact(7))
    history = log.state.data.keyspaces[KeyspaceId("k/")].history
    assert history.scrubbed == 7
    for below in (Range(b"k/a", revision=6), Range(b"\0", ALL, revision=1), Range(b"k/a", timestamp=1)):
        with pytest.raises(RevisionCompacted, match="7"):
            log.read(below)
    assert keys(log, Range(b"\0", ALL, revision=7)) == [b"k/a", b"k/c", b"m/a"]
    assert len(history.log[history.first_from(7) :]) == 2, "the tombstone of revision 7 is kept for watchers"
    with pytest.raises(RevisionCompacted):
        log.do(Compact(7))
    with pytest.raises(FutureRevision):
        log.do(Compact(9))
    log.do(Compact(8))
    assert all(item.live for item in _versions(log))
    log.restart()
    assert keys(log, Range(b"\0", ALL)) == [b"k/a", b"k/c", b"k/d", b"m/a"]


class _Version:
    def __init__(self, record: bytes) -> None:
        self.live = kv_state.record_versions(record)[2] > 0


def _versions(log: StateLog) -> list[_Version]:
    return [_Version(record) for state in log.state.data.keyspaces.values() for record in state.history.records()]


def test_timestamps_up_to_the_compacted_revision_are_refused_below_its_largest() -> None:
    log = filled()
    largest = log.read(Range(b"m/a")).items[0].timestamp
    log.do(Compact(4))
    with pytest.raises(RevisionCompacted):
        log.read(Range(b"k/a", timestamp=largest - 1))
    assert [item.value for item in log.read(Range(b"k/a", timestamp=largest)).items] == [b"2"]


def test_a_large_compaction_is_done_bit_by_bit_also_across_restarts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "SCRUB_RECORDS_MAX", 3)
    log = StateLog()
    for number in range(20):
        log.do(Put(b"k/%d" % (number % 2), b"x"))
    log.do(Compact(21))
    versions = [len(_versions(log))]
    for _ in range(12):
        log.restart()
        log.do(Put(b"m/x", b"", lease=0))
        versions.append(sum(1 for _ in log.state.data.keyspaces[KeyspaceId("k/")].history.records()))
    assert versions[-1] == 2
    assert all(before - after <= 4 for before, after in pairwise(versions[1:]))


def test_increments_are_exact_and_refuse_what_is_no_number() -> None:
    log = StateLog()
    for delta, expected in [(5, 5), (-7, -2), ((1 << 62), (1 << 62) - 2)]:
        result = log.do(Increment(b"k/n", delta))
        assert isinstance(result, IncrementResult) and result.value == expected
    assert log.value(b"k/n") == b"%d" % ((1 << 62) - 2)
    with pytest.raises(InvalidRequest, match="64 bits"):
        log.do(Increment(b"k/n", (1 << 62) + 2))
    for text in (b"", b"x", b"1.5", b"--1", b" 1", b"9" * 20, "٣".encode()):
        log.do(Put(b"k/t", text))
        with pytest.raises(InvalidRequest):
            log.do(Increment(b"k/t", 1))


def test_an_answer_has_a_largest_size(monkeypatch: pytest.MonkeyPatch) -> None:
    log = StateLog()
    for number in range(10):
        log.do(Put(b"k/%d" % number, bytes(1 << 20)))
    with pytest.raises(InvalidRequest, match="in pieces"):
        log.read(Range(b"k/", ALL))
    assert log.read(Range(b"k/", ALL, limit=5)).count == 10
    assert len(log.read(Range(b"k/", ALL, keys_only=True)).items) == 10
    revision = log.state.revision
    with pytest.raises(InvalidRequest, match="in pieces"):
        log.do(DeleteRange(b"k/", ALL, prev_kv=True))
    with pytest.raises(InvalidRequest, match="reads would exceed"):
        log.do(Txn(success=(Put(b"k/x", b"1"), Range(b"k/", b"k/5"), Range(b"k/5", b"k/a"))))
    assert log.state.revision == revision and log.value(b"k/x") is None


def test_a_command_in_one_keyspace_may_write_in_another_of_the_group() -> None:
    log = StateLog()
    log.apply(Command(0, 0, 0, Put(b"k/x", b"1")), keyspace=SECOND)
    assert log.value(b"k/x") == b"1"
    assert {row.keyspace for row in log.last.rows} == {"k/", ""}
