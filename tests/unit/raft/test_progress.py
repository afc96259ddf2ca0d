"""How a leader's view of one peer moves between probing and streaming."""

from isochrone.ids import LogIndex, Nanos
from isochrone.regions.raft.progress import Feed, Progress


def _streaming(match: int, *sent: int) -> Progress:
    progress = Progress(LogIndex(match + 1), last_contact=Nanos(0))
    progress.accepted(LogIndex(match))
    for last in sent:
        progress.sent(LogIndex(last), 100)
    return progress


def test_a_match_that_is_no_news_still_ends_probing() -> None:
    """An empty follower confirms index 0, which was assumed already."""
    progress = Progress(LogIndex(1), last_contact=Nanos(0))
    progress.sent(LogIndex(4), 100)
    assert progress.accepted(LogIndex(0)) is False
    assert (progress.feed, progress.next, progress.can_send(1, 1)) == (Feed.REPLICATE, 1, True)


def test_a_late_acknowledgement_below_the_match_does_not_end_probing() -> None:
    progress = _streaming(5, 8)
    assert progress.refused(LogIndex(8), LogIndex(6))
    assert (len(progress.inflight), progress.inflight_bytes) == (0, 0)
    assert progress.accepted(LogIndex(3)) is False
    assert (progress.feed, progress.next, progress.match) == (Feed.PROBE, 7, 5)


def test_a_refusal_of_what_is_known_to_match_is_stale() -> None:
    progress = _streaming(5, 8)
    assert progress.refused(LogIndex(4), LogIndex(1)) is False
    assert (progress.feed, progress.next, len(progress.inflight)) == (Feed.REPLICATE, 9, 1)


def test_a_refusal_of_another_probe_is_stale() -> None:
    progress = Progress(LogIndex(10), last_contact=Nanos(0))
    progress.sent(LogIndex(12), 100)
    assert progress.refused(LogIndex(7), LogIndex(2)) is False
    assert (progress.next, progress.probing) == (10, True)
    assert progress.refused(LogIndex(9), LogIndex(2)) is True
    assert (progress.next, progress.probing) == (3, False)


def test_a_refusal_moves_back_by_at_least_one_and_never_below_the_match() -> None:
    progress = Progress(LogIndex(10), last_contact=Nanos(0), match=LogIndex(4))
    assert progress.refused(LogIndex(9), LogIndex(99))
    assert progress.next == 9
    assert progress.refused(LogIndex(8), LogIndex(0))
    assert progress.next == 5


def test_the_window_counts_what_is_unacknowledged() -> None:
    progress = _streaming(0, 2, 4, 6)
    assert progress.inflight_bytes == 300
    assert not progress.can_send(3, 1_000)
    assert not progress.can_send(9, 300)
    assert progress.accepted(LogIndex(5))
    assert progress.inflight_bytes == 100
    assert progress.can_send(3, 1_000)
    assert (progress.match, progress.next) == (5, 7)


def test_nothing_is_sent_while_entries_are_being_fetched() -> None:
    progress = _streaming(0)
    progress.fetching = True
    assert not progress.can_send(9, 9)
