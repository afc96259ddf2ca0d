"""The looks at membership, barriers and work queues find what is wrong, and take what is right."""

import pytest

from isochrone.drills.checkers.gates import GateWait, check_gates
from isochrone.drills.checkers.meetings import Meeting, Stay, check_meetings
from isochrone.drills.checkers.membership import Viewer, ViewSeen, check_membership, members_at
from isochrone.drills.checkers.versions import Life, Version, lives_of
from isochrone.drills.checkers.work_queues import ClaimEnd, ClaimTold, WorkQueueStory, check_work_queue
from isochrone.drills.verdict import Verdict
from isochrone.ids import Revision, Timestamp
from isochrone.wire.records import KeyValue

DONE, BACK, UNKNOWN = ClaimEnd.FINISHED, ClaimEnd.GIVEN_BACK, ClaimEnd.UNKNOWN


def made(revision: int, key: str, value: str = "", lease: int = 7) -> Version:
    """A key that was created, and known at a time of ten times its revision."""
    item = KeyValue(key.encode(), value.encode(), Revision(revision), Revision(revision), 1, Timestamp(0), lease)
    return Version(item, 10 * revision)


def gone(revision: int, key: str) -> Version:
    return Version(KeyValue(key.encode(), b"", Revision(0), Revision(revision), 0, Timestamp(0)), 10 * revision)


def test_a_key_lives_from_its_creation_to_its_removal_and_again() -> None:
    lives = lives_of([made(1, "a"), made(2, "b"), made(3, "a", "again"), gone(4, "a"), gone(5, "c"), made(6, "a")])
    assert [(each.from_ns, each.until_ns, each.until_revision) for each in lives[b"a"]] == [
        (10, 40, 4),
        (60, None, None),
    ]
    (b,) = lives[b"b"]
    assert b.until_ns is None and b.lives_at(2) and not b.lives_at(1) and b"c" not in lives
    first = lives[b"a"][0]
    assert first.spans(10, 39) and not first.spans(10, 40) and first.touches(40, 50) and not first.touches(41, 50)


# ---- barriers


def gate(asked: int, told: int, *, passed: bool) -> GateWait:
    return GateWait(key=b"g", asked_ns=asked, told_ns=told, passed=passed)


CLOSED = lives_of([made(1, "g"), gone(3, "g"), made(5, "g")])


@pytest.mark.parametrize(
    ("wait", "fault"),
    [
        (gate(11, 29, passed=True), "b'g' was passed while it was closed"),
        (gate(51, 90, passed=True), "b'g' was passed while it was closed"),
        (gate(31, 49, passed=False), "b'g' was open, and somebody waited there in vain"),
    ],
)
def test_a_barrier_that_held_nobody_or_somebody_for_nothing_is_found(wait: GateWait, fault: str) -> None:
    check = check_gates([wait], CLOSED)
    assert check.verdict is Verdict.FALSE
    assert fault in check.reason


def test_barriers_that_hold() -> None:
    waits = [
        gate(11, 31, passed=True),
        gate(31, 49, passed=True),
        gate(51, 90, passed=False),
        gate(31, 51, passed=False),
    ]
    assert check_gates(waits, CLOSED).verdict is Verdict.TRUE
    assert check_gates(waits[2:], CLOSED).verdict is Verdict.UNKNOWN, "nobody passed"
    assert check_gates([gate(1, 2, passed=True)], {}).verdict is Verdict.UNKNOWN, "it was never closed"


# ---- double barriers


def meeting(written: list[Version], *stays: Stay) -> Meeting:
    return Meeting(name=b"d", size=2, written=written, stays=stays)


def came(revision: int, member: str) -> Version:
    return made(revision, f"d/members/{member}", member)


def went(revision: int, member: str) -> Version:
    return gone(revision, f"d/members/{member}")


def stay(member: str, began: int, left: int | None) -> Stay:
    return Stay(value=member.encode(), began_ns=began, left_ns=left)


ROUND = [came(1, "a"), came(2, "b"), made(3, "d/ready"), went(4, "a"), went(5, "b"), gone(6, "d/ready")]


def test_a_round_that_begins_and_ends_together_holds() -> None:
    next_round = [came(7, "c"), came(8, "e"), made(9, "d/ready"), went(10, "c"), went(11, "e")]
    stays = [stay("a", 20, 50), stay("b", 31, 51), stay("c", 81, None), stay("e", 95, 120)]
    check = check_meetings([meeting([*ROUND, *next_round], *stays)])
    assert check.verdict is Verdict.TRUE, check.reason
    assert check.reason == "4 began when enough had come, in 2 gatherings."
    assert check_meetings([meeting(ROUND)]).verdict is Verdict.UNKNOWN


def test_who_comes_late_joins_the_round() -> None:
    written = [*ROUND[:4], came(5, "late"), went(6, "b"), went(7, "late"), gone(8, "d/ready")]
    check = check_meetings([meeting(written, stay("late", 55, 71), stay("a", 31, 75))])
    assert check.verdict is Verdict.TRUE, check.reason


@pytest.mark.parametrize(
    ("meeting", "fault"),
    [
        (meeting(ROUND, stay("a", 19, None)), "b'a' began before enough had come"),
        (meeting(ROUND, stay("z", 31, None)), "b'z' began, and was never there"),
        (meeting([came(1, "a"), went(2, "a"), came(3, "b")], stay("b", 99, None)), "b'b' began before enough had come"),
        (meeting([*ROUND, came(7, "c")], stay("c", 99, None)), "b'c' began before enough had come"),
        (meeting([came(1, "a"), made(2, "d/ready")]), "it was ready at revision 2, and 1 had come"),
        (meeting([*ROUND, came(7, "c"), made(8, "d/ready")]), "it was ready at revision 8, and 1 had come"),
        (meeting([*ROUND, made(7, "d/ready")]), "it was ready at revision 7, and 0 had come"),
        (meeting([*ROUND[:4], gone(5, "d/ready")]), "the round ended at revision 5, and 1 were there"),
        (meeting([*ROUND[:5], came(6, "c")]), "whoever came at revision 6 found what an earlier round had left"),
        (meeting(ROUND, stay("a", 31, 39)), "b'a' has left, and was there still"),
        (meeting(ROUND, stay("a", 31, 49)), "b'a' had left when b'b' was still there"),
    ],
)
def test_a_round_that_does_not_is_found(meeting: Meeting, fault: str) -> None:
    check = check_meetings([meeting])
    assert check.verdict is Verdict.FALSE
    assert fault in check.reason


# ---- membership

TEAM = [made(2, "t/b", "1"), made(4, "t/a", "2"), gone(6, "t/b"), made(8, "t/c", "3", lease=8)]


def viewed(*revisions: int, asked: int = 0) -> Viewer:
    views = [ViewSeen(revision, members_at(TEAM, b"t/", revision)) for revision in revisions]
    return Viewer(name="v", asked_ns=asked, views=views)


def test_views_that_follow_each_other_hold() -> None:
    assert [each.name for each in members_at(TEAM, b"t/", 5)] == [b"b", b"a"], "those first that came first"
    check = check_membership([viewed(3, 4, 6, 8), viewed(7, asked=70)], b"t/", TEAM, 0, {7: 90})
    assert check.verdict is Verdict.FALSE, "a hangs on lease 7"
    check = check_membership([viewed(3, 4, 6, 8), viewed(7, asked=70)], b"t/", TEAM, 0, {})
    assert check.verdict is Verdict.TRUE, check.reason
    assert check.reason == "3 changes seen in order, each view as it was."
    assert check_membership([viewed(3, 7)], b"t/", TEAM, 5, {}).verdict is Verdict.TRUE, "what it missed was compacted"
    assert check_membership([viewed(7)], b"t/", TEAM, 0, {}).verdict is Verdict.UNKNOWN


@pytest.mark.parametrize(
    ("viewer", "fault"),
    [
        (Viewer(name="v", asked_ns=0, views=[ViewSeen(4, members_at(TEAM, b"t/", 3))]), "saw other members"),
        (Viewer(name="v", asked_ns=0, views=[ViewSeen(4, members_at(TEAM, b"t/", 4)[::-1])]), "saw other members"),
        (viewed(3, asked=50), "saw revision 3 when 4 was known"),
        (viewed(4, 2), "saw revision 2 after 4"),
        (viewed(2, 6), "saw revision 6 after 2, without 4"),
        (viewed(2, 3), "saw revision 3 after 2, without 3"),
    ],
)
def test_views_that_do_not_are_found(viewer: Viewer, fault: str) -> None:
    check = check_membership([viewer], b"t/", TEAM, 2, {})
    assert check.verdict is Verdict.FALSE
    assert fault in check.reason


@pytest.mark.parametrize(
    ("written", "fault"),
    [
        ([made(1, "t/a", lease=0)], "hangs on no lease"),
        ([made(1, "t/a"), gone(3, "t/a")], "outlived its lease 7"),
        ([made(3, "t/a")], "outlived its lease 7"),
    ],
)
def test_members_without_a_lease_that_lives_are_found(written: list[Version], fault: str) -> None:
    check = check_membership([], b"t/", written, 0, {7: 20})
    assert check.verdict is Verdict.FALSE
    assert fault in check.reason


# ---- work queues

ITEMS = [made(1, "1", "one"), made(2, "2", "two"), gone(9, "1"), made(10, "3", "three")]
CLAIMS = [made(3, "1"), gone(5, "1"), made(6, "1"), gone(11, "1"), made(4, "2"), gone(12, "2")]


def claim(
    key: str | None, asked: int, answered: int, end: ClaimEnd = BACK, ended: int = 0, value: str = ""
) -> ClaimTold:
    name = None if key is None else key.encode()
    values = {"1": "one", "2": "two", "3": "three", None: ""}
    return ClaimTold(
        asked_ns=asked,
        answered_ns=answered,
        alone=True,
        key=name,
        value=(value or values[key]).encode(),
        end=end,
        ended_ns=ended,
    )


def story(
    *told: ClaimTold, put: str = "123", items: list[Version] | None = None, claims: list[Version] | None = None
) -> WorkQueueStory:
    values = {b"1": b"one", b"2": b"two", b"3": b"three", b"4": b"four"}
    return WorkQueueStory(
        name=b"w",
        put={key: value for key, value in values.items() if key.decode() in put},
        items=lives_of(ITEMS if items is None else items),
        claims=lives_of(CLAIMS if claims is None else claims),
        told=told,
    )


FIRST, SECOND = claim("1", 25, 31, BACK, 50), claim("1", 55, 61, DONE, 95)


def test_items_that_are_finished_once_hold() -> None:
    check = check_work_queue(story(FIRST, claim("2", 35, 41), SECOND, claim(None, 85, 101)))
    assert check.verdict is Verdict.TRUE, check.reason
    assert check.reason == "1 items finished once, 1 claimed more than once."
    unknown = claim("1", 55, 61, UNKNOWN, 95)
    assert check_work_queue(story(FIRST, unknown)).verdict is Verdict.UNKNOWN


@pytest.mark.parametrize(
    ("story", "fault"),
    [
        (story(SECOND, put="1234"), "b'4' was put, and never there"),
        (story(SECOND, items=[made(1, "1", "two"), *ITEMS[1:]]), "b'1' was put as b'one', and lay there as b'two'"),
        (story(SECOND, items=[*ITEMS, made(11, "1", "one")]), "b'1' was there 2 times"),
        (story(FIRST), "b'1' is gone, and nobody finished it"),
        (story(), "b'1' is gone, and nobody finished it"),
        (story(SECOND, claims=CLAIMS[:2]), "b'1' was removed at revision 9, when nobody had claimed it"),
        (story(SECOND, claim("2", 35, 41, value="three")), "b'2' was claimed as b'three', and never lay there so"),
        (story(SECOND, claim("9", 35, 41, value="nine")), "b'9' was claimed as b'nine', and never lay there so"),
        (story(SECOND, SECOND), "b'1' was finished twice"),
        (story(claim("1", 55, 61, DONE, 89)), "b'1' was finished, and is there still"),
        (story(SECOND, claim("2", 35, 41, DONE, 120)), "b'2' was finished, and is there still"),
        (story(SECOND, claim("2", 21, 29)), "b'2' was claimed before b'1', which nobody had"),
        (story(SECOND, claim(None, 101, 119)), "told that there is nothing to claim, and nobody had b'3'"),
    ],
)
def test_items_that_are_lost_or_done_twice_or_out_of_order_are_found(story: WorkQueueStory, fault: str) -> None:
    check = check_work_queue(story)
    assert check.verdict is Verdict.FALSE
    assert fault in check.reason


def test_a_life_that_goes_on_touches_all_that_follows() -> None:
    life = Life(made(1, "a").item, 10, None, None)
    assert life.spans(10, 1 << 62) and life.touches(1 << 62, 1 << 63) and life.lives_at(1 << 62)
