"""The history of a keyspace against a list that forgets nothing, with keys written more than once in one revision."""

from hypothesis import example, given, settings
from hypothesis import strategies as st

from isochrone.ids import Revision
from isochrone.regions.state.history import History
from isochrone.wire.records import record_is_live, record_key, record_revision, set_record, tombstone_record

KEYS = (b"k/a", b"k/b")
WRITES = st.lists(st.tuples(st.sampled_from(KEYS), st.booleans()), min_size=1, max_size=4)
"""What one revision does: keys to set (True) or to remove."""
STEPS = st.lists(WRITES | st.integers(1, 8), max_size=16)
"""Revisions, and compactions so many revisions behind the last."""


def _record(key: bytes, live: bool, revision: int, place: int) -> bytes:
    if not live:
        return tombstone_record(key, revision=revision, place=place, timestamp=revision)
    return set_record(
        key, b"%d" % place, revision=revision, place=place, created=revision, version=1, timestamp=revision, lease=0
    )


def _as_of(written: list[bytes], revision: int) -> dict[bytes, bytes]:
    found: dict[bytes, bytes] = {}
    for record in written:
        if record_revision(record) <= revision:
            found[record_key(record)] = record
    return {key: record for key, record in sorted(found.items()) if record_is_live(record)}


def _restored(history: History) -> History:
    again = History()
    again.scrubbed = history.scrubbed
    records = sorted(history.records())
    together = len(records) // 2
    again.restore(records[:together])
    for record in records[together:]:
        again.restore([record])
    return again


@settings(max_examples=300, deadline=None)
@given(STEPS, st.integers(1, 5))
@example([[(b"k/a", True)], [(b"k/a", False), (b"k/a", True)], 1, [(b"k/b", True)], 1], 5)
def test_a_compaction_changes_nothing_from_its_revision_on(
    steps: list[list[tuple[bytes, bool]] | int], records_max: int
) -> None:
    history, written, revision, compacted = History(), list[bytes](), 0, 0
    for step in steps:
        if isinstance(step, int):
            compacted = max(compacted, revision + 1 - step)
        else:
            revision += 1
            for place, (key, live) in enumerate(step):
                before = _as_of(written, revision).get(key)
                if live or before is not None:
                    written.append(_record(key, live, revision, place))
                    history.append(key, written[-1])
        if history.scrubbed < compacted:
            history.scrub(compacted, records_max)
        assert history == _restored(history)
        for asked in range(compacted, revision + 1):
            found = {record_key(record): record for record in history.between(b"", None, Revision(asked))}
            assert found == _as_of(written, asked)
        assert [record for record in history.log if record_revision(record) >= compacted] == [
            record for record in written if record_revision(record) >= compacted
        ]
        assert {record_key(record) for record in history.between(b"", None)} == set(_as_of(written, revision))
    while history.scrubbed < compacted:
        history.scrub(compacted, records_max)
    live = _as_of(written, compacted)
    kept = [record for record in history.records() if record_revision(record) < compacted]
    assert kept == [record for record in live.values() if record_revision(record) < compacted]
