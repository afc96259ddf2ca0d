"""Hand-back: home again once home is steady, and not to and fro while it is not."""

from itertools import pairwise

import pytest
from raft_cluster import ELECTION_MS, HEARTBEAT_MS, Cluster

from isochrone.ids import NodeId, ReplicaRole
from isochrone.regions.raft.ready import EventName

FULL, WITNESS = ReplicaRole.FULL, ReplicaRole.WITNESS
WAIT_MS = 5 * ELECTION_MS
CAP_MS = 64 * WAIT_MS
LONGEST_TIMEOUT_MS = 1.5 * ELECTION_MS


def _homed(roles: dict[str, ReplicaRole] | str = "abc", home: str = "a", seed: int = 1, **options: object) -> Cluster:
    """A group that should be led by the replicas in `home`."""
    preferred = tuple(NodeId(name) for name in home)
    return Cluster(roles, seed, preferred_leaders=preferred, **options)  # type: ignore[arg-type]


def _handed_back(cluster: Cluster) -> int:
    return cluster.count(EventName.HANDED_BACK)


def _led_away(cluster: Cluster, *lost: str) -> str:
    """Lose some nodes until another one leads; returns that one."""
    for name in lost:
        cluster.crash(name)
    assert cluster.run_until(lambda: cluster.leader() not in (None, *lost), 4 * LONGEST_TIMEOUT_MS)
    return str(cluster.leader())


def test_leadership_goes_home_once_and_stays_there() -> None:
    cluster = _homed()
    cluster.elect("a")
    _led_away(cluster, "a")
    cluster.run(2 * WAIT_MS)
    assert not _handed_back(cluster), "nobody is there to take it"
    cluster.start("a")
    cluster.run(WAIT_MS - HEARTBEAT_MS)
    assert cluster.leader() != "a"
    assert cluster.run_until(lambda: cluster.leader() == "a", ELECTION_MS)
    cluster.run(10 * WAIT_MS)
    assert (cluster.leader(), _handed_back(cluster)) == ("a", 1)


def test_a_group_without_preferences_stays_where_it_is() -> None:
    cluster = Cluster("abc")
    cluster.elect("b")
    cluster.run(3 * WAIT_MS)
    assert cluster.leader() == "b"


def test_a_leader_elected_away_from_home_at_the_start_hands_over() -> None:
    """At bootstrap nodes start seconds apart, so the first leader may be anywhere."""
    cluster = _homed(home="ab")
    cluster.elect("c")
    assert cluster.run_until(lambda: cluster.leader() == "a", WAIT_MS + ELECTION_MS)


def test_the_first_preferred_that_is_steady_is_taken() -> None:
    cluster = _homed("abcd", home="ab")
    cluster.elect("c")
    cluster.crash("a")
    assert cluster.run_until(lambda: cluster.leader() == "b", WAIT_MS + ELECTION_MS)
    cluster.start("a")
    cluster.run(2 * WAIT_MS)
    assert cluster.leader() == "b", "every preferred voter is as good as another"


def test_writes_are_refused_for_one_round_of_votes_only() -> None:
    cluster = _homed()
    cluster.elect("b")
    assert cluster.run_until(lambda: _handed_back(cluster) == 1, WAIT_MS + ELECTION_MS)
    assert cluster.run_until(lambda: cluster.leader() == "a", 50)


def test_nothing_goes_to_a_voter_that_lags() -> None:
    """It answers every heartbeat, but its disk is so slow that it never holds what was committed half a T ago."""
    cluster = _homed()
    cluster.elect("b")
    cluster.hold_disk.add("a")
    for _ in range(round(3 * WAIT_MS / 50)):
        cluster.propose("b", b"x")
        cluster.run(50)
    assert cluster.leader() == "b" and not _handed_back(cluster)
    assert cluster.status("b").match[NodeId("a")] < cluster.status("b").commit
    cluster.resume_disk("a")
    assert cluster.run_until(lambda: cluster.leader() == "a", WAIT_MS + ELECTION_MS)


def test_a_voter_that_keeps_up_under_load_is_good_enough() -> None:
    """Something is always on its way to it."""
    cluster = _homed(delay_ms=lambda a, b: 60.0 if "a" in (a, b) else 5.0)
    cluster.elect("b")
    while cluster.leader() == "b" and cluster.now < 2 * WAIT_MS * 1_000_000 and not _handed_back(cluster):
        cluster.propose("b", b"x")
        assert cluster.status("b").match[NodeId("a")] < cluster.status("b").last
        cluster.run(20)
    assert cluster.run_until(lambda: cluster.leader() == "a", ELECTION_MS)


def test_a_voter_whose_contact_breaks_again_and_again_is_not_steady() -> None:
    cluster = _homed()
    cluster.elect("b")
    for _ in range(10):
        cluster.cut_between("a", "b")
        cluster.run(0.7 * ELECTION_MS)
        cluster.heal()
        cluster.run(WAIT_MS / 2)
    assert not _handed_back(cluster)
    cluster.heal()
    assert cluster.run_until(lambda: cluster.leader() == "a", 2 * WAIT_MS)


def test_a_home_that_fails_whenever_it_leads_is_left_alone_for_longer_and_longer() -> None:
    cluster = _homed({"a": FULL, "b": FULL, "w": WITNESS})
    cluster.elect("b")
    waits = []
    for _ in range(9):
        since = cluster.now
        assert cluster.run_until(lambda: cluster.leader() == "a", 2 * CAP_MS)
        waits.append((cluster.now - since) / 1e6)
        cluster.isolate("a")
        assert cluster.run_until(lambda: cluster.leader() == "b", 8 * LONGEST_TIMEOUT_MS)
        cluster.heal()
    assert all(1.8 * earlier < later < 2.2 * earlier for earlier, later in pairwise(waits[:7])), waits
    assert waits[0] < 1.2 * WAIT_MS and max(waits) < 1.2 * CAP_MS


def test_a_hand_back_that_fails_is_tried_again_after_twice_as_long() -> None:
    cluster = _homed()
    cluster.elect("b")
    cluster.run(0.98 * WAIT_MS)
    cluster.hold_disk.add("a")  # So it answers, but its campaign never leaves.
    assert cluster.run_until(lambda: EventName.TRANSFER_GIVEN_UP in cluster.events_of("b"), 2 * ELECTION_MS)
    index = cluster.propose("b", b"x")
    assert cluster.run_until(lambda: cluster.committed(index), 100), "b serves on"
    cluster.crash("a")
    cluster.hold_disk.clear()
    cluster.start("a")
    cluster.run(1.98 * WAIT_MS)
    assert (cluster.leader(), _handed_back(cluster)) == ("b", 1)
    assert cluster.run_until(lambda: cluster.leader() == "a", ELECTION_MS)


def test_a_home_that_has_led_for_long_starts_afresh() -> None:
    cluster = _homed()
    cluster.elect("b")
    assert cluster.run_until(lambda: cluster.leader() == "a", WAIT_MS + ELECTION_MS)
    cluster.run(1.1 * CAP_MS)
    leader = _led_away(cluster, "a")
    cluster.start("a")
    cluster.run_until(lambda: cluster.leader() == "a", WAIT_MS + ELECTION_MS)
    assert cluster.leader() == "a", f"{leader} waited longer than the shortest time"


def test_a_leader_moved_away_by_an_operator_stays_for_long() -> None:
    cluster = _homed()
    cluster.elect("a")
    cluster.run(500)
    core = cluster.replicas["a"].core
    assert core is not None
    core.transfer_leadership(NodeId("b"), cluster.clock("a"))
    cluster.drain("a")
    cluster.run(0.95 * CAP_MS)
    assert (cluster.leader(), _handed_back(cluster)) == ("b", 0)
    assert cluster.run_until(lambda: cluster.leader() == "a", 0.1 * CAP_MS)


@pytest.mark.parametrize("seed", range(6))
def test_home_is_reached_by_way_of_a_relay(seed: int) -> None:
    """Two sites and a witness: the second site takes over fed by the witness, and gives back when home returns."""
    cluster = _homed({"a": FULL, "b": FULL, "w": WITNESS}, seed=seed)
    cluster.elect("a")
    cluster.run(500)
    cluster.cut_between("a", "b")
    index = cluster.propose("a", b"x")
    assert cluster.run_until(lambda: cluster.committed(index), 500)
    cluster.crash("a")
    cluster.heal()
    assert cluster.run_until(lambda: cluster.leader() == "b", 8 * LONGEST_TIMEOUT_MS)
    cluster.start("a")
    assert cluster.run_until(lambda: cluster.leader() == "a", WAIT_MS + 2 * ELECTION_MS)
    cluster.run(3 * WAIT_MS)
    assert cluster.leader() == "a"
    cluster.settle()
    cluster.check_nothing_lost()


def test_a_leader_away_from_home_does_not_sleep() -> None:
    """A group that sleeps looks at nothing, so it would never go home."""
    cluster = _homed(quiesce_after_ns=300 * 1_000_000)
    cluster.elect("b")
    assert cluster.run_until(lambda: cluster.leader() == "a", WAIT_MS + ELECTION_MS)
    assert cluster.run_until(lambda: EventName.QUIESCED in cluster.events_of("a"), ELECTION_MS)


def test_a_group_that_nobody_at_home_may_lead_sleeps_where_it_is() -> None:
    """After home was lost for good and its replicas were removed, nobody is waited for."""
    cluster = _homed(home="z", quiesce_after_ns=300 * 1_000_000)
    cluster.elect("b")
    assert cluster.run_until(lambda: EventName.QUIESCED in cluster.events_of("b"), ELECTION_MS)
    assert not _handed_back(cluster)


def test_the_heir_of_a_removed_leader_goes_home_without_delay() -> None:
    """Nobody has chosen it: the first voter with the whole log took over."""
    cluster = _homed(home="c")
    cluster.elect("a")
    cluster.run(500)
    cluster.change("a", [each for each in cluster.status("a").configuration.members if each.node != "a"])
    assert cluster.run_until(lambda: cluster.leader() == "b", ELECTION_MS)
    assert cluster.run_until(lambda: cluster.leader() == "c", WAIT_MS + ELECTION_MS)
