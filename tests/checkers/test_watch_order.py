"""The watch check finds events that are left out, told twice, in disorder or false, and gaps without a reason."""

from dataclasses import replace

import pytest

from isochrone.drills.checkers.watch_order import Gap, WatchStory, Written, check_watches
from isochrone.drills.verdict import Verdict
from isochrone.ids import Revision, Timestamp
from isochrone.wire.records import KeyValue


def item(key: str, revision: int, version: int = 1) -> KeyValue:
    created = Revision(revision if version else 0)
    value = b"v%d" % revision if version else b""
    return KeyValue(key.encode(), value, created, Revision(revision), version, Timestamp(revision))


A2, B2, OTHER, A4, GONE5, C6 = items = (
    item("k/a", 2),
    item("k/b", 2),
    item("x", 3),
    item("k/a", 4),
    item("k/b", 5, version=0),
    item("k/c", 6),
)
WRITTEN = {"g": Written(items, compacted=0)}
COMPACTED = {"g": Written(items, compacted=5)}


def story(*told: KeyValue | Gap, start: int = 1, to_end: bool = True) -> WatchStory:
    return WatchStory(
        name="w", group="g", key=b"k/", range_end=b"k0", start_revision=start, told=told, reached_end=to_end
    )


def gap(revision: int, *items: KeyValue) -> Gap:
    return Gap(revision, items)


@pytest.mark.parametrize(
    "good",
    [
        story(A2, B2, A4, GONE5, C6),
        story(A4, GONE5, C6, start=3),
        story(A2, to_end=False),
        story(to_end=False),
    ],
)
def test_everything_once_and_in_order_holds(good: WatchStory) -> None:
    result = check_watches([good, story(A2, B2, A4, GONE5, C6)], WRITTEN)
    assert result.verdict is Verdict.TRUE, result.broken


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (story(A2, A4, GONE5, C6), "b'k/a' at revision 4 was told, and b'k/b' at revision 2 before it was not"),
        (story(A2, B2, A2, A4, GONE5, C6), "b'k/a' at revision 2 was told again, or late"),
        (story(B2, A2, A4, GONE5, C6), "b'k/b' at revision 2 was told, and b'k/a' at revision 2 before it was not"),
        (story(A2, B2, OTHER, A4, GONE5, C6), "b'x' at revision 3 was told, and never written so"),
        (story(A2, B2, replace(A4, value=b"?"), GONE5, C6), "was told, and never written so"),
        (story(A2, B2, A4, GONE5, C6, C6), "was told again, or late"),
        (story(A2, B2, A4), "2 events from revision 5 on were never told"),
        (story(A2, B2, start=3), "told again, or late"),
        (story(A2, B2, gap(4, A4, B2), GONE5, C6), "a gap at revision 2, and nothing above 0 was compacted"),
    ],
)
def test_what_is_left_out_repeated_or_made_up_is_found(bad: WatchStory, reason: str) -> None:
    result = check_watches([bad], WRITTEN)
    assert result.verdict is Verdict.FALSE
    assert reason in result.as_check().reason


def test_a_gap_where_events_were_compacted_holds_and_shows_the_keys_of_its_revision() -> None:
    result = check_watches([story(A2, B2, gap(4, A4, B2), GONE5, C6), story(gap(5, A4), C6)], COMPACTED)
    assert (result.verdict, result.gaps) == (Verdict.TRUE, 2), result.broken


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (story(A2, B2, gap(4, A2, B2), GONE5, C6), "the gap shows other keys than there were at revision 4"),
        (story(A2, B2, gap(5, A4, B2), C6), "the gap shows other keys"),
        (story(A2, B2, gap(4, A4, B2), A4, GONE5, C6), "was told again, or late"),
        (story(A2, B2, A4, gap(2, A2, B2), A4, GONE5, C6), "leads back from revision 4 to 2"),
        (story(A2, B2, A4, GONE5, gap(6, A4, C6)), "a gap at revision 5, and nothing above 5 was compacted"),
        (story(A2, B2, gap(4, A4, B2), C6), "b'k/b' at revision 5 before it was not"),
    ],
)
def test_a_gap_without_a_reason_or_with_other_keys_is_found(bad: WatchStory, reason: str) -> None:
    result = check_watches([bad], COMPACTED)
    assert result.verdict is Verdict.FALSE
    assert reason in result.as_check().reason


def test_where_nobody_was_told_anything_nothing_is_proven() -> None:
    assert check_watches([story(to_end=False)], WRITTEN).verdict is Verdict.UNKNOWN
