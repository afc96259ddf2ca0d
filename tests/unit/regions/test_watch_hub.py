"""Watches: ordered, complete, resumable, bounded."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
from state_log import StateLog

from isochrone.errors import InvalidRequest, QueueFull
from isochrone.regions import watch_hub
from isochrone.regions.watch_hub import Event, WatchBatch, WatchHub, WatchRequest
from isochrone.wire.commands import Operation
from isochrone.wire.kv import ALL, Compact, DeleteRange, Put, Txn, prefix_end
from isochrone.wire.leases import LeaseGrant
from isochrone.wire.locks import LockAcquire, LockRelease
from isochrone.wire.records import decode_record, record_is_live, record_value

K = WatchRequest(b"k/", prefix_end(b"k/"))


class Watched:
    """A log whose writes go to a hub."""

    def __init__(self) -> None:
        self.log = StateLog()
        self.hub = WatchHub(self.log.state.data)

    def do(self, operation: Operation) -> list[int]:
        """Returns which watchers became ready."""
        self.log.do(operation)
        return self.hub.applied(self.log.last.events)

    def batches(self, identity: int) -> Iterator[WatchBatch]:
        while (batch := self.hub.take(identity)) is not None:
            yield batch

    def told(self, identity: int) -> list[tuple[int, bytes, bytes]]:
        """Revision, key and value of the events."""
        items = [decode_record(event.record) for batch in self.batches(identity) for event in batch.events]
        return [(item.mod_revision, item.key, item.value) for item in items]


def test_a_watcher_is_told_what_is_written_from_now_on() -> None:
    world = Watched()
    world.do(Put(b"k/a", b"before"))
    watcher = world.hub.create(K)
    assert world.hub.take(watcher) is None
    assert world.do(Put(b"k/a", b"1")) == [watcher]
    assert world.do(Put(b"m/a", b"elsewhere")) == []
    assert world.do(Txn((), (Put(b"k/b", b"2"), DeleteRange(b"k/a")))) == [], "it is ready already"
    assert world.told(watcher) == [(3, b"k/a", b"1"), (5, b"k/b", b"2"), (5, b"k/a", b"")]
    assert world.do(Put(b"k/a", b"3")) == [watcher], "it had nothing, so it is named again"


@pytest.mark.parametrize(
    ("request_", "keys"),
    [
        (WatchRequest(b"k/a"), [b"k/a", b"k/a"]),
        (WatchRequest(b"k/", prefix_end(b"k/")), [b"k/a", b"k/aa", b"k/b", b"k/a"]),
        (WatchRequest(b"k/a", prefix_end(b"k/a")), [b"k/a", b"k/aa", b"k/a"]),
        (WatchRequest(b"k/aa", b"m/b"), [b"k/aa", b"k/b", b"m/a"]),
        (WatchRequest(b"\0", ALL), [b"k/a", b"k/aa", b"k/b", b"m/a", b"k/a"]),
        (WatchRequest(b"k/", ALL, puts=False), [b"k/a"]),
        (WatchRequest(b"k/", ALL, deletes=False), [b"k/a", b"k/aa", b"k/b", b"m/a"]),
        (WatchRequest(b"nowhere"), []),
    ],
)
def test_what_is_asked_for_is_told_live_and_from_the_past_alike(request_: WatchRequest, keys: list[bytes]) -> None:
    world = Watched()
    live = world.hub.create(request_)
    for key in (b"k/a", b"k/aa", b"k/b", b"m/a"):
        world.do(Put(key, b"1"))
    world.do(DeleteRange(b"k/a"))
    past = world.hub.create(replace(request_, start_revision=1))
    assert [key for _, key, _ in world.told(live)] == keys
    assert [key for _, key, _ in world.told(past)] == keys


def test_what_a_key_was_before_is_told_on_request() -> None:
    world = Watched()
    world.do(Put(b"k/a", b"1"))
    live = world.hub.create(replace(K, prev_kv=True))
    world.do(Put(b"k/a", b"2"))
    world.do(DeleteRange(b"k/a"))
    past = world.hub.create(replace(K, prev_kv=True, start_revision=2))
    for watcher, expected in ((live, [b"1", b"2"]), (past, [None, b"1", b"2"])):
        events = [event for batch in world.batches(watcher) for event in batch.events]
        assert [event.previous and decode_record(event.previous).value for event in events] == expected


def test_a_watcher_resumes_where_it_was_and_continues_live() -> None:
    world = Watched()
    for number in range(5):
        world.do(Put(b"k/a", b"%d" % number))
    watcher = world.hub.create(replace(K, start_revision=4))
    world.do(Put(b"k/a", b"5"))
    assert [revision for revision, _, _ in world.told(watcher)] == [4, 5, 6, 7]
    world.do(Put(b"k/a", b"6"))
    assert [revision for revision, _, _ in world.told(watcher)] == [8]


def test_a_watcher_may_start_in_the_future() -> None:
    world = Watched()
    watcher = world.hub.create(replace(K, start_revision=4))
    for number in range(4):
        world.do(Put(b"k/a", b"%d" % number))
    assert [revision for revision, _, _ in world.told(watcher)] == [4, 5]


def test_a_compacted_start_is_told_with_the_revision_to_start_from() -> None:
    """etcd#13822, #8668: a watch must not skip what is compacted in silence."""
    world = Watched()
    for number in range(6):
        world.do(Put(b"k/a", b"%d" % number))
    world.do(Compact(5))
    watcher = world.hub.create(replace(K, start_revision=4))
    (batch,) = world.batches(watcher)
    assert batch.compacted == 5 and batch.events == ()
    assert world.do(Put(b"k/a", b"6")) == [] and len(world.hub) == 0
    again = world.hub.create(replace(K, start_revision=batch.compacted))
    assert [revision for revision, _, _ in world.told(again)] == [5, 6, 7, 8]


def test_the_delete_at_the_compacted_revision_is_told() -> None:
    world = Watched()
    world.do(Put(b"k/a", b"1"))
    world.do(DeleteRange(b"k/a"))
    world.do(Compact(3))
    watcher = world.hub.create(replace(K, start_revision=3))
    assert world.told(watcher) == [(3, b"k/a", b"")]


def test_nobody_takes_and_memory_stays_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch_hub, "PENDING_EVENTS_MAX", 10)
    world = Watched()
    slow, quick = world.hub.create(K), world.hub.create(K)
    seen: list[int] = []
    for number in range(200):
        world.do(Put(b"k/a", b"%d" % number))
        seen += [revision for revision, _, _ in world.told(quick)]
        assert len(world.hub._watchers[slow].pending) <= 10
    assert seen == list(range(2, 202)), "the quick one does not suffer"
    assert [revision for revision, _, _ in world.told(slow)] == list(range(2, 202))


def test_a_slow_watcher_that_was_overtaken_by_a_compaction_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch_hub, "PENDING_EVENTS_MAX", 3)
    world = Watched()
    watcher = world.hub.create(K)
    for number in range(8):
        world.do(Put(b"k/a", b"%d" % number))
    world.do(Compact(7))
    (batch,) = world.batches(watcher)
    assert batch.compacted == 7


def test_a_watcher_of_a_quiet_key_is_not_overtaken_by_compactions(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it was told last is long compacted, but nothing that matters to it has happened since."""
    monkeypatch.setattr(watch_hub, "PENDING_EVENTS_MAX", 2)
    world = Watched()
    watcher = world.hub.create(WatchRequest(b"k/quiet"))
    for _ in range(10):
        world.do(Put(b"k/busy", b"x"))
    world.do(Compact(11))
    for number in range(4):
        world.do(Put(b"k/quiet", b"%d" % number))
    assert [value for _, _, value in world.told(watcher)] == [b"0", b"1", b"2", b"3"]


def test_large_batches_come_in_pieces_and_only_fragments_split_a_revision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch_hub, "BATCH_BYTES_MAX", 300)
    for start in (0, 1):
        world = Watched()
        whole = world.hub.create(replace(K, start_revision=start))
        parts = world.hub.create(replace(K, start_revision=start, fragment=True))
        world.do(Txn((), tuple(Put(b"k/%d" % number, bytes(100)) for number in range(5))))
        world.do(Put(b"k/x", bytes(100)))
        sizes = [(len(batch.events), batch.fragment) for batch in world.batches(whole)]
        assert sizes == [(5, False), (1, False)]
        pieces = [(len(batch.events), batch.fragment) for batch in world.batches(parts)]
        assert pieces[:2] == [(2, True), (2, True)] and sum(count for count, _ in pieces) == 6
        assert not pieces[-1][1]


def test_the_past_is_read_in_bounded_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch_hub, "SCAN_RECORDS_MAX", 4)
    monkeypatch.setattr(watch_hub, "SCAN_PIECES_MAX", 2)
    world = Watched()
    for number in range(50):
        world.do(Put(b"k/a" if number % 25 == 24 else b"k/b", b"%d" % number))
    watcher = world.hub.create(WatchRequest(b"k/a", start_revision=1))
    batches = list(world.batches(watcher))
    assert sum(not batch.events for batch in batches) >= 4, "empty ones say that there is more to look at"
    values = [decode_record(event.record).value for batch in batches for event in batch.events]
    assert values == [b"24", b"49"]


def test_progress_is_told_only_of_what_was_told() -> None:
    world = Watched()
    watcher = world.hub.create(K)
    world.do(Put(b"m/x", b"1"))
    batch = world.hub.progress(watcher)
    assert batch is not None and batch.progress and batch.revision == 2
    world.do(Put(b"k/x", b"1"))
    assert world.hub.progress(watcher) is None
    behind = world.hub.create(replace(K, start_revision=1))
    assert world.hub.progress(behind) is None


def test_an_event_is_encoded_once_however_many_watch() -> None:
    world = Watched()
    watchers = [world.hub.create(request) for request in (K, K, WatchRequest(b"k/a"), WatchRequest(b"\0", ALL))]
    assert sorted(world.do(Put(b"k/a", b"1"))) == watchers
    encoded: list[bytes] = []

    def encode(event: Event) -> bytes:
        encoded.append(event.record)
        return b"encoded"

    for watcher in watchers:
        for batch in world.batches(watcher):
            assert [event.encoded_once("test", encode) for event in batch.events] == [b"encoded"]
    assert len(encoded) == 1


def test_a_cancelled_watcher_leaves_nothing_behind() -> None:
    world = Watched()
    requests = (K, WatchRequest(b"k/a"), WatchRequest(b"\0", ALL), replace(K, start_revision=1))
    for request in requests:
        world.hub.cancel(world.hub.create(request))
    world.hub.cancel(12345)
    assert world.do(Put(b"k/a", b"1")) == []
    assert len(world.hub) == 0
    assert not (world.hub._keys or world.hub._prefixes or world.hub._ranges or world.hub._prefix_lengths)


def test_bad_watches_are_refused_and_floods_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    hub = Watched().hub
    for request in (WatchRequest(b""), WatchRequest(bytes(5000)), WatchRequest(b"k/a", start_revision=-1)):
        with pytest.raises(InvalidRequest):
            hub.create(request)
    monkeypatch.setattr(watch_hub, "WATCHERS_MAX", 3)
    for _ in range(3):
        hub.create(K)
    with pytest.raises(QueueFull):
        hub.create(K)


def test_a_replaced_state_loses_nothing() -> None:
    """A snapshot is installed: the node's state jumps ahead, and watchers read on from the new one's history."""
    world = Watched()
    synced, behind = world.hub.create(K), world.hub.create(replace(K, start_revision=1))
    world.do(Put(b"k/a", b"1"))
    for number in range(5):
        world.log.do(Put(b"k/a", b"%d" % number))
    world.log.restart()
    ready = world.hub.reset(world.log.state.data)
    assert set(ready) <= {synced, behind}
    for watcher in (synced, behind):
        assert [revision for revision, _, _ in world.told(watcher)] == [2, 3, 4, 5, 6, 7]


def test_thousands_of_different_ranges_are_told_of_what_lies_in_them() -> None:
    """However many there are, a write finds those that hold its key, and leaves the others alone."""
    world = Watched()
    ranges = {
        world.hub.create(WatchRequest(b"k/%04d" % first, b"k/%04d" % (first + 3))): first for first in range(3_000)
    }
    ends = [world.hub.create(WatchRequest(b"k/%04d" % first, ALL)) for first in (0, 1_500, 2_999)]
    told = [*[identity for identity, first in ranges.items() if first in (1_498, 1_499, 1_500)], *ends[:2]]
    world.log.do(Put(b"k/1500", b""))
    assert sorted(world.hub.applied(world.log.last.events)) == sorted(told)
    for identity in [*ranges, *ends]:
        world.hub.cancel(identity)
    assert len(world.hub) == 0
    world.log.do(Put(b"k/1501", b""))
    assert world.hub.applied(world.log.last.events) == []


def test_what_a_key_was_before_is_told_where_it_is_written_twice_at_once() -> None:
    """As when one leader resigns and the next is announced: removed and set in one revision."""
    log = StateLog()
    for lease in (1, 2):
        log.do(LeaseGrant(lease, 60_000))
        log.do(LockAcquire(b"k/leader", lease, 1, announce=True, value=b"%d" % lease))
    hub = WatchHub(log.state.data)
    live = hub.create(WatchRequest(b"k/leader", prev_kv=True))
    log.do(LockRelease(b"k/leader", 1))
    hub.applied(log.last.events)
    late = hub.create(WatchRequest(b"k/leader", prev_kv=True, start_revision=log.state.revision))
    for identity in (live, late):
        batch = hub.take(identity)
        assert batch is not None
        removed, announced = batch.events
        assert not record_is_live(removed.record)
        assert removed.previous is not None and record_value(removed.previous) == b"1"
        assert record_is_live(announced.record) and announced.previous is None
        assert record_value(announced.record) == b"2"
