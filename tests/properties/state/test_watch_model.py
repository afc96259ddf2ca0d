"""Watchers against the whole list of writes: nothing out of order, twice, or left out, whatever their pace."""

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from state_log import StateLog

from isochrone.regions import watch_hub
from isochrone.regions.watch_hub import WatchHub, WatchRequest
from isochrone.wire.kv import ALL, Compact, DeleteRange, Put, Txn, in_range
from isochrone.wire.records import ORDER_BYTES, record_is_live, record_key, record_revision

KEYS = st.sampled_from([b"k/a", b"k/aa", b"k/b", b"m/a"])
REQUESTS = st.builds(
    WatchRequest,
    st.sampled_from([b"k/a", b"k/", b"m/a", b"\0"]),
    st.sampled_from([b"", b"k0", b"k/b", ALL]),
    st.integers(0, 30),
    st.booleans(),
    st.booleans(),
    st.booleans(),
    st.booleans(),
)
PUTS = st.builds(Put, KEYS, st.binary(max_size=40))
STEPS = st.lists(
    st.one_of(
        PUTS,
        st.builds(DeleteRange, KEYS, st.sampled_from([b"", ALL])),
        st.lists(PUTS, min_size=2, max_size=4, unique_by=lambda put: put.key).map(lambda puts: Txn((), tuple(puts))),
        st.builds(Compact, st.integers(1, 40)),
        REQUESTS,
        st.tuples(st.just("take"), st.integers(0, 9)),
    ),
    max_size=60,
)


@dataclass
class Seen:
    request: WatchRequest
    start: int
    records: list[bytes] = field(default_factory=list)
    compacted: int | None = None


@pytest.fixture(autouse=True)
def _small_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, limit in [("PENDING_EVENTS_MAX", 3), ("SCAN_RECORDS_MAX", 3), ("BATCH_BYTES_MAX", 150)]:
        monkeypatch.setattr(watch_hub, name, limit)


@settings(max_examples=200, deadline=None)
@given(STEPS)
def test_watchers_see_exactly_what_was_written(steps: list[object]) -> None:
    log = StateLog()
    hub = WatchHub(log.state.data)
    written: list[bytes] = []
    watchers: dict[int, Seen] = {}
    ready: set[int] = set()

    def take(identity: int) -> bool:
        batch = hub.take(identity)
        if batch is None:
            ready.discard(identity)
            return False
        seen = watchers[identity]
        seen.records += [event.record for event in batch.events]
        seen.compacted = batch.compacted
        if not seen.request.fragment:
            assert not batch.fragment
        if batch.events and not batch.fragment:
            last = record_revision(batch.events[-1].record)
            told = {record for record in expected(seen, written) if record_revision(record) <= last}
            assert told <= set(seen.records), "whole revisions"
        return True

    for step in steps:
        match step:
            case WatchRequest():
                identity = hub.create(step)
                watchers[identity] = Seen(step, step.start_revision or log.state.revision + 1)
                if 0 < step.start_revision <= log.state.revision:
                    ready.add(identity)
            case ("take", int(number)) if ready:
                take(sorted(ready)[number % len(ready)])
            case Compact(revision):
                if log.state.data.compacted < revision <= log.state.revision:
                    log.do(step)
            case Put() | DeleteRange() | Txn():
                log.do(step)
                written += log.last.events
                named = hub.applied(log.last.events)
                assert not set(named) & ready, "nobody is named again who has not been found without"
                ready |= set(named)
            case _:
                pass
    for identity in sorted(watchers):
        while take(identity):
            pass
    for seen in watchers.values():
        check(seen, expected(seen, written))


def expected(seen: Seen, written: list[bytes]) -> list[bytes]:
    request = seen.request
    return [
        record
        for record in written
        if in_range(record_key(record), request.key, request.range_end)
        and record_revision(record) >= seen.start
        and (request.puts if record_is_live(record) else request.deletes)
    ]


def check(seen: Seen, whole: list[bytes]) -> None:
    if seen.compacted is None:
        assert seen.records == whole
        return
    assert seen.records == whole[: len(seen.records)], "up to the gap nothing is missing"
    missing = whole[len(seen.records) :]
    assert seen.start < seen.compacted
    assert not missing or record_revision(missing[0]) >= seen.start
    orders = [record[:ORDER_BYTES] for record in seen.records]
    assert orders == sorted(set(orders))
