"""What two nodes tell each other about the groups that sleep between them, without hosts around it."""

import random
from dataclasses import replace

import pytest

from isochrone.ids import GroupId, Nanos, NodeId, Term
from isochrone.regions.node_heartbeats import NodeHeartbeats
from isochrone.regions.raft.ready import Slumber
from isochrone.wire.messages import NodeHeartbeat

A, B, C = NodeId("a"), NodeId("b"), NodeId("c")
BEAT, TIMEOUT = Nanos(100), Nanos(1_000)
G, H = GroupId("g"), GroupId("h")


def led(leader: NodeId, *members: NodeId, term: int = 1, beat: Nanos = BEAT, timeout: Nanos = TIMEOUT) -> Slumber:
    """The sleep of a leader's replica."""
    return Slumber(leader, Term(term), members, beat, timeout)


def followed(leader: NodeId, term: int = 1) -> Slumber:
    """The sleep of a follower's replica."""
    return Slumber(leader, Term(term), (leader,), BEAT, TIMEOUT)


def beat(node: NodeHeartbeats, now: int) -> dict[NodeId, NodeHeartbeat]:
    """What the node sends at `now`."""
    return dict(node.due(Nanos(now)))


def pair() -> tuple[NodeHeartbeats, NodeHeartbeats]:
    """Group g, led by a, sleeps on a and b since 0."""
    a, b = NodeHeartbeats(A), NodeHeartbeats(B)
    a.note(G, led(A, B), Nanos(0))
    b.note(G, followed(A), Nanos(0))
    return a, b


def test_two_nodes_that_agree_wake_nobody() -> None:
    a, b = pair()
    for now in range(0, 5_000, 100):
        assert b.receive(A, beat(a, now)[B], Nanos(now)) == []
        assert a.receive(B, beat(b, now)[A], Nanos(now)) == []
        assert a.silent(Nanos(now)) == b.silent(Nanos(now)) == []


def test_one_message_for_each_peer_and_interval_however_many_groups_sleep() -> None:
    a = NodeHeartbeats(A)
    for number in range(1_000):
        a.note(GroupId(f"g{number}"), led(A, B, C), Nanos(30))
    sent = []
    for now in range(30, 1_030):
        if a.deadline is not None and a.deadline <= now:
            sent += a.due(Nanos(now))
    assert [node for node, _ in sent] == [B, C] * 11, "at once, and then on each multiple of the interval"
    assert {heartbeat.count for _, heartbeat in sent} == {1_000}


def test_the_order_in_which_groups_fall_asleep_does_not_matter() -> None:
    first, second = NodeHeartbeats(A), NodeHeartbeats(A)
    for group in (G, H):
        first.note(group, led(A, B), Nanos(0))
    for group in (H, G):
        second.note(group, led(A, B), Nanos(0))
    assert beat(first, 0) == beat(second, 0)


@pytest.mark.parametrize(
    ("groups", "terms"),
    [([H], [1]), ([G], [2]), ([G, H], [1, 1]), ([G, H], [2, 1])],
    ids=["other", "term", "more", "swap"],
)
def test_any_difference_is_a_mismatch_and_is_told_at_once(groups: list[GroupId], terms: list[int]) -> None:
    a, b = NodeHeartbeats(A), NodeHeartbeats(B)
    for group, term in zip(groups, terms, strict=True):
        a.note(group, led(A, B, term=term), Nanos(0))
    b.note(G, followed(A, term=1), Nanos(0))
    if groups == [G, H] and terms == [2, 1]:
        b.note(H, followed(A, term=2), Nanos(0))
    beat(b, 0)
    woken = b.receive(A, beat(a, 0)[B], Nanos(50))
    assert G in woken
    assert b.deadline is not None
    assert b.deadline <= 50
    for group in woken:
        b.note(group, None, Nanos(50))
    answer = beat(b, 50)[A]
    assert answer == NodeHeartbeat(0, 0, mismatch=True)
    assert a.receive(B, answer, Nanos(60)) == groups
    for group in groups:
        a.note(group, None, Nanos(60))
    assert a.due(Nanos(60)) == []
    assert beat(b, 60) == {}, "told once"


def test_a_follower_that_sleeps_under_a_node_which_leads_nothing_wakes() -> None:
    """The leader stepped down, or its process is a new one; it has nothing to wake, so it is told nothing."""
    _, b = pair()
    beat(b, 0)
    assert b.receive(A, NodeHeartbeat(0, 0, mismatch=False), Nanos(50)) == [G]
    b.note(G, None, Nanos(50))
    assert beat(b, 50) == {}


def test_silence_for_a_timeout_wakes_both_sides() -> None:
    a, b = pair()
    b.receive(A, beat(a, 0)[B], Nanos(10))
    a.receive(B, beat(b, 10)[A], Nanos(20))
    assert b.silent(Nanos(1_009)) == []
    assert b.silent(Nanos(1_010)) == [G]
    assert a.silent(Nanos(1_019)) == []
    assert a.silent(Nanos(1_020)) == [G]
    assert (a.heard(B), b.heard(A), a.heard(C)) == (20, 10, 0)


def absent(*members: NodeId) -> Slumber:
    """The sleep of a leader's replica on a, without its learner on c."""
    return replace(led(A, *members), absent=(C,))


def test_the_silence_of_an_absent_learner_wakes_nobody_and_its_word_does() -> None:
    a, c = NodeHeartbeats(A), NodeHeartbeats(C)
    a.note(G, absent(B), Nanos(0))
    for now in range(0, 60_000, 100):
        assert C in beat(a, now), "it is told of the sleep on every multiple of the interval"
        a.receive(B, NodeHeartbeat(0, 0, mismatch=False), Nanos(now))
        assert a.silent(Nanos(now + 99)) == []
    assert (a.heard(C), a.silent(Nanos(60_899))) == (0, [])
    c.receive(A, beat(a, 60_000)[C], Nanos(60_050))
    assert a.receive(C, beat(c, 60_050)[A], Nanos(60_100)) == [G]
    assert a.restarted(C) == [G]
    a.note(G, None, Nanos(60_100))
    assert beat(a, 60_200) == {}


def test_a_node_may_be_missed_by_one_group_and_absent_from_another() -> None:
    a = NodeHeartbeats(A)
    a.note(G, absent(), Nanos(0))
    a.note(H, led(A, C), Nanos(500))
    assert a.silent(Nanos(1_499)) == [], "it is missed only since the second group sleeps"
    assert a.silent(Nanos(1_500)) == [H]
    a.note(H, None, Nanos(1_500))
    assert a.silent(Nanos(9_000)) == []
    beat(a, 1_500)
    assert a.deadline == 1_600, "the time to tell it again, and nothing before"


def test_the_deadline_never_lies_after_what_has_to_be_done() -> None:
    a, _ = pair()
    beat(a, 0)
    for now in range(1, 1_000):
        assert a.deadline is not None
        if a.deadline <= now:
            beat(a, now)
        assert a.deadline is not None
        assert a.deadline <= min(now // 100 * 100 + 100, 1_000)


def test_the_shortest_times_among_the_sleeping_groups_hold() -> None:
    a, _ = pair()
    a.note(H, led(A, B, beat=Nanos(40), timeout=Nanos(300)), Nanos(0))
    beat(a, 0)
    assert a.deadline == 40
    assert a.silent(Nanos(300)) == [G, H]
    for group in (G, H):
        a.note(group, None, Nanos(300))
    a.note(G, led(A, B), Nanos(300))
    assert a.silent(Nanos(600)) == [], "they are forgotten once all were awake"
    assert a.silent(Nanos(1_300)) == [G]


def test_a_new_process_of_a_peer_wakes_all_that_sleeps_with_it() -> None:
    a, b = pair()
    a.note(H, followed(B), Nanos(0))
    assert a.restarted(B) == [G, H]
    assert a.restarted(C) == []
    assert b.restarted(A) == [G]


def test_a_node_that_watches_nobody_sends_nothing() -> None:
    a, _ = pair()
    a.note(G, None, Nanos(5))
    assert a.due(Nanos(100)) == []
    assert a.deadline is None


@pytest.mark.parametrize("seed", range(20))
def test_equal_sets_and_only_those_have_equal_digests(seed: int) -> None:
    rng = random.Random(seed)
    a, b = NodeHeartbeats(A), NodeHeartbeats(B)
    on_a: dict[GroupId, int] = {}
    on_b: dict[GroupId, int] = {}
    groups = [GroupId(f"g{number}") for number in range(5)]
    for now in range(500):
        group, term = rng.choice(groups), rng.choice([0, 0, 1, 2])
        if rng.random() < 0.6:
            a.note(group, led(A, B, term=term) if term else None, Nanos(now))
            on_a = {**on_a, group: term}
        if rng.random() < 0.6:
            b.note(group, followed(A, term=term) if term else None, Nanos(now))
            on_b = {**on_b, group: term}
        asleep_a, asleep_b = ({name: t for name, t in each.items() if t} for each in (on_a, on_b))
        heartbeat = beat(a, 100 * now).get(B, NodeHeartbeat(0, 0, mismatch=False))
        assert sorted(b.receive(A, heartbeat, Nanos(100 * now))) == ([] if asleep_a == asleep_b else sorted(asleep_b))
        b.due(Nanos(100 * now))
