"""Partial partitions over minutes of virtual time: the published outages that a bare Raft runs into."""

import pytest
from raft_cluster import ELECTION_MS, Cluster

from isochrone.errors import NotLeader
from isochrone.ids import ReplicaRole
from isochrone.regions.raft.ready import EventName

FULL, WITNESS = ReplicaRole.FULL, ReplicaRole.WITNESS
TEN_MINUTES_MS = 600_000
LONGEST_TIMEOUT_MS = 1.5 * ELECTION_MS


def _leader(cluster: Cluster) -> str:
    leader = cluster.leader()
    assert leader is not None
    return leader


def _leaderships(cluster: Cluster) -> int:
    return cluster.count(EventName.BECAME_LEADER)


def _writes_flow(cluster: Cluster, rounds: int, every_ms: float) -> None:
    """A write every so often, each of which must be committed soon."""
    for number in range(rounds):
        index = cluster.propose(_leader(cluster), b"%d" % number)
        assert cluster.run_until(lambda i=index: cluster.committed(i), 1_000), f"write {number}"  # type: ignore[misc]
        cluster.run(every_ms)


@pytest.mark.parametrize("leader", ["n1", "n2", "n3"])
def test_a_faulty_switch_between_two_of_three_changes_the_leader_at_most_once(leader: str) -> None:
    """One link of three is cut, so one replica does not hear a leader that the other one does (Cloudflare, 2020)."""
    cluster = Cluster(["n1", "n2", "n3"])
    cluster.elect(leader)
    cluster.run(500)
    cluster.cut_between("n1", "n3")
    cluster.run(3 * LONGEST_TIMEOUT_MS)
    _writes_flow(cluster, 300, TEN_MINUTES_MS / 300)
    assert _leaderships(cluster) <= 2
    cluster.settle()
    cluster.check_nothing_lost()


@pytest.mark.parametrize("seed", range(5))
def test_a_leader_that_reaches_only_a_bridge_does_not_hold_up_the_connected_majority(seed: int) -> None:
    """The topology of openraft issue 2080: the leader still reaches one voter, which a majority without it needs."""
    cluster = Cluster("abcde", seed)
    cluster.elect("a")
    cluster.run(500)
    # a reaches only c; c, d and e reach one another; b is down. So {c, d, e} is the only quorum, and c hears a.
    cluster.crash("b")
    cluster.cut_between("a", "d")
    cluster.cut_between("a", "e")

    def somebody_else_commits() -> bool:
        leader = cluster.leader()
        if leader in (None, "a"):
            return False
        status = cluster.status(str(leader))
        return status.commit == status.last

    assert cluster.run_until(somebody_else_commits, 3 * LONGEST_TIMEOUT_MS)
    index = cluster.propose(_leader(cluster), b"x")
    assert cluster.run_until(lambda: cluster.committed(index), 100)
    leaderships = _leaderships(cluster)
    cluster.run(60_000)
    assert _leaderships(cluster) == leaderships, "and it stays so"


@pytest.mark.parametrize("cut", [("a", "b"), ("b", "a")])
def test_a_link_that_is_cut_one_way_changes_the_leader_at_most_once(cut: tuple[str, str]) -> None:
    cluster = Cluster("abc")
    cluster.elect("a")
    cluster.run(500)
    cluster.cut.add(cut)
    cluster.run(3 * LONGEST_TIMEOUT_MS)
    _writes_flow(cluster, 100, 3_000)
    assert _leaderships(cluster) <= 2


@pytest.mark.parametrize("deaf", [True, False])
def test_a_leader_that_only_hears_or_only_speaks_is_replaced(deaf: bool) -> None:
    cluster = Cluster("abc")
    cluster.elect("a")
    cluster.run(500)
    cluster.cut |= {("b", "a"), ("c", "a")} if deaf else {("a", "b"), ("a", "c")}
    assert cluster.run_until(lambda: cluster.leader() in ("b", "c"), 3 * LONGEST_TIMEOUT_MS)
    cluster.run(TEN_MINUTES_MS)
    assert _leaderships(cluster) == 2
    _writes_flow(cluster, 10, 100)


def test_both_full_replicas_apart_with_a_witness_between_them_keep_one_leader() -> None:
    cluster = Cluster({"a": FULL, "b": FULL, "w": WITNESS}, truncate_entries_min=5)
    cluster.elect("a")
    cluster.run(500)
    cluster.cut_between("a", "b")
    _writes_flow(cluster, 200, TEN_MINUTES_MS / 200)
    assert cluster.leader() == "a"
    assert _leaderships(cluster) == 1
    cluster.settle()
    cluster.check_nothing_lost()


def test_a_leader_that_dies_while_the_full_replicas_are_apart_is_followed_by_one_stable_leader() -> None:
    cluster = Cluster({"a": FULL, "b": FULL, "w": WITNESS}, truncate_entries_min=5)
    cluster.elect("a")
    cluster.run(500)
    cluster.cut_between("a", "b")
    index = cluster.propose("a", b"x")
    assert cluster.run_until(lambda: cluster.committed(index), 500)
    cluster.crash("a")
    cluster.run(200)
    cluster.start("a")
    cluster.run(6 * LONGEST_TIMEOUT_MS)
    leader, leaderships = _leader(cluster), _leaderships(cluster)
    assert not cluster.status(leader).relay
    _writes_flow(cluster, 100, TEN_MINUTES_MS / 100)
    assert (_leader(cluster), _leaderships(cluster)) == (leader, leaderships)
    cluster.settle()
    cluster.check_nothing_lost()


@pytest.mark.parametrize("shape", [dict.fromkeys("abc", FULL), {"a": FULL, "b": FULL, "w": WITNESS}])
@pytest.mark.parametrize("seed", range(3))
def test_links_that_lose_a_third_still_carry_writes(shape: dict[str, ReplicaRole], seed: int) -> None:
    cluster = Cluster(shape, seed, loss=0.3)
    committed = 0
    for number in range(100):
        cluster.run(300)
        leader = cluster.leader()
        if leader is None:
            continue
        try:
            index = cluster.propose(leader, b"%d" % number)
        except NotLeader:
            continue
        committed += cluster.run_until(lambda i=index: cluster.committed(i), 2_000)  # type: ignore[misc]
    assert committed >= 80
    cluster.settle()
    cluster.check_nothing_lost()


def test_only_the_best_connected_replica_has_an_old_log() -> None:
    """No replica can win here, so the group stays without a leader; nothing is lost, and healing one link ends it."""
    cluster = Cluster("abcde")
    cluster.elect("a")
    cluster.isolate("c")
    for number in range(5):
        index = cluster.propose("a", b"%d" % number)
    assert cluster.run_until(lambda: cluster.committed(index), 500)
    cluster.heal()
    cluster.cut |= {(x, y) for x in "abde" for y in "abde" if x != y}
    cluster.cut |= {("a", "c"), ("c", "a")}
    cluster.run(60_000)
    assert cluster.leader() is None
    cluster.cut -= {("b", "d"), ("d", "b")}
    assert cluster.run_until(lambda: cluster.leader() in ("b", "d"), 4 * LONGEST_TIMEOUT_MS)
    cluster.settle()
    cluster.check_nothing_lost()
