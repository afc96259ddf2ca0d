"""The witness: it votes and stores the log, leads only as a relay, and drops nothing that a full voter may need."""

import pytest
from raft_cluster import ELECTION_MS, GROUP, Cluster
from raft_disk import disk_with

from isochrone.errors import NotLeader
from isochrone.ids import LogIndex, Nanos, NodeId, ReplicaRole, Term
from isochrone.regions.raft.ready import EventName
from isochrone.regions.raft.state import Office
from isochrone.wire.messages import TimeoutNow, VoteRequest

FULL, WITNESS = ReplicaRole.FULL, ReplicaRole.WITNESS
TWO_AND_WITNESS = {"a": FULL, "b": FULL, "w": WITNESS}
TWO_TWO_ONE = {"a1": FULL, "a2": FULL, "b1": FULL, "b2": FULL, "w": WITNESS}


def _commit(cluster: Cluster, leader: str, count: int) -> int:
    for number in range(count):
        index = cluster.propose(leader, b"%d" % number)
    assert cluster.run_until(lambda: cluster.committed(index), 2_000)
    return index


def _commit_without_b(cluster: Cluster, count: int = 5) -> int:
    """Leader a commits with the witness alone, then dies."""
    cluster.elect("a")
    _commit(cluster, "a", 3)
    cluster.run(300)
    cluster.cut_between("a", "b")
    cluster.cut_between("b", "w")
    _commit(cluster, "a", count)
    index = _commit(cluster, "a", 1)
    cluster.crash("a")
    cluster.heal()
    return index


@pytest.mark.parametrize("seed", range(5))
def test_what_was_committed_with_the_witness_alone_survives_the_leader(seed: int) -> None:
    cluster = Cluster(TWO_AND_WITNESS, seed)
    index = _commit_without_b(cluster)
    assert cluster.run_until(lambda: cluster.leader() == "b", 4 * 1.5 * ELECTION_MS)
    assert cluster.run_until(lambda: cluster.status("b").commit > index, 1_000)
    cluster.check_nothing_lost()
    assert cluster.count(EventName.RELAY_HANDED_OVER) >= 1
    assert not cluster.replicas["w"].reads
    assert not cluster.replicas["w"].applied


def test_a_relay_refuses_proposals_and_reads() -> None:
    cluster = Cluster(TWO_AND_WITNESS)
    _commit_without_b(cluster)
    assert cluster.run_until(lambda: cluster.status("w").relay, 5_000)
    with pytest.raises(NotLeader):
        cluster.propose("w", b"x")
    with pytest.raises(NotLeader):
        cluster.read("w")


def test_a_relay_whose_word_is_lost_gives_it_again() -> None:
    cluster = Cluster(TWO_AND_WITNESS)
    _commit_without_b(cluster)
    assert cluster.run_until(lambda: cluster.status("w").relay, 10_000)
    assert cluster.run_until(lambda: cluster.count(EventName.RELAY_HANDED_OVER) == 1, 1_000)
    cluster.cut.add(("w", "b"))
    cluster.run(15)
    cluster.heal()
    cluster.run(ELECTION_MS - 100)
    assert cluster.count(EventName.RELAY_HANDED_OVER) == 1, "the replica told has an election timeout to take over"
    assert cluster.run_until(lambda: cluster.leader() == "b", 1.5 * ELECTION_MS)
    assert cluster.count(EventName.RELAY_HANDED_OVER) == 2


def test_a_witness_never_campaigns_without_a_reason() -> None:
    cluster = Cluster(TWO_AND_WITNESS)
    cluster.elect("a")
    cluster.run(300)
    mark = len(cluster.sent)
    cluster.crash("a")
    cluster.crash("b")
    cluster.run(60_000)
    assert not any(s == "w" and isinstance(m, VoteRequest) for s, _, m in cluster.sent[mark:])


def test_a_witness_does_not_take_over_when_told() -> None:
    cluster = Cluster(TWO_AND_WITNESS)
    core = cluster.replicas["w"].core
    assert core is not None
    core.step(NodeId("a"), TimeoutNow(Term(0)), Nanos(0))
    assert (core.status().term, core.status().office) == (0, Office.FOLLOWER)


def test_a_witness_with_a_live_leader_is_not_armed() -> None:
    cluster = Cluster(TWO_AND_WITNESS)
    cluster.elect("a")
    cluster.isolate("b")
    _commit(cluster, "a", 5)
    cluster.cut.discard(("b", "w"))
    cluster.cut.discard(("w", "b"))
    cluster.run(60_000)
    assert cluster.count(EventName.WITNESS_ARMED) == 0
    assert cluster.leader() == "a"


def test_a_leader_that_appears_in_time_disarms_the_witness() -> None:
    cluster = Cluster(TWO_AND_WITNESS)
    cluster.elect("a")
    cluster.isolate("b")
    index = _commit(cluster, "a", 5)
    cluster.crash("a")
    cluster.heal()
    assert cluster.run_until(lambda: cluster.count(EventName.WITNESS_ARMED) == 1, 5_000)
    cluster.start("a")
    cluster.elect("a")
    cluster.run(50)
    witness = cluster.replicas["w"].core
    assert witness is not None and witness.next_deadline() is None
    cluster.run(5_000)
    assert cluster.leader() == "a"
    assert cluster.status("b").commit > index
    assert cluster.count(EventName.BECAME_LEADER) == 2


def test_a_refusal_at_the_wish_of_a_live_leader_or_of_a_newer_log_arms_nobody() -> None:
    cluster = Cluster(TWO_AND_WITNESS, disks={"w": disk_with(1, 1, term=3)})
    core = cluster.replicas["w"].core
    assert core is not None
    core.step(NodeId("b"), VoteRequest(Term(4), LogIndex(2), Term(1), False, False), Nanos(0))
    core.step(NodeId("a"), VoteRequest(Term(4), LogIndex(2), Term(1), False, False), Nanos(0))
    assert core.next_deadline() is None, "refused because the vote is given, not because of the log"
    core.step(NodeId("a"), VoteRequest(Term(5), LogIndex(1), Term(1), True, False), Nanos(0))
    assert core.next_deadline() is not None


def test_a_witness_drops_only_what_every_full_voter_holds() -> None:
    cluster = Cluster(TWO_AND_WITNESS, truncate_entries_min=1)
    cluster.elect("a")
    _commit(cluster, "a", 20)
    cluster.run(500)
    low = cluster.status("b").last
    assert cluster.status("w").first > 1, "a witness does drop its prefix"
    cluster.isolate("b")
    _commit(cluster, "a", 50)
    cluster.run(500)
    assert cluster.status("w").first <= low + 1
    assert cluster.status("w").last == cluster.status("a").last
    cluster.crash("a")
    cluster.heal()
    assert cluster.run_until(lambda: cluster.leader() == "b", 4 * 1.5 * ELECTION_MS)
    assert cluster.count(EventName.CANNOT_FEED) == 0
    cluster.settle()
    cluster.check_nothing_lost()


def test_a_witness_keeps_its_last_entry_so_that_timestamps_rise_across_its_restart() -> None:
    cluster = Cluster(TWO_AND_WITNESS, truncate_entries_min=1)
    cluster.elect("a")
    _commit(cluster, "a", 5)
    cluster.run(1_000)
    disk = cluster.replicas["w"].disk
    assert [entry.index for entry in disk.entries] == [cluster.status("a").last]
    cluster.crash("w")
    cluster.start("w")
    assert cluster.status("w").first == cluster.status("w").last


def test_a_relay_fed_from_its_storage_after_a_restart() -> None:
    """The entries that b lacks left the witness's memory long ago."""
    cluster = Cluster(TWO_AND_WITNESS, cache_bytes_max=100, truncate_entries_min=1)
    index = _commit_without_b(cluster, 60)
    cluster.crash("w")
    cluster.start("w")
    assert cluster.run_until(lambda: cluster.leader() == "b", 6 * 1.5 * ELECTION_MS)
    assert cluster.run_until(lambda: cluster.status("b").commit > index, 1_000)
    assert cluster.replicas["w"].fetches > 0
    cluster.check_nothing_lost()


@pytest.mark.parametrize("seed", range(5))
def test_the_home_region_of_five_voters_is_lost(seed: int) -> None:
    """2-2-1: a1, a2 and the witness hold entries that the other region lacks; then both of the home region die."""
    cluster = Cluster(TWO_TWO_ONE, seed, truncate_entries_min=1)
    cluster.elect("a1")
    _commit(cluster, "a1", 5)
    cluster.run(300)
    cluster.isolate("b1", "b2")
    index = _commit(cluster, "a1", 10)
    cluster.isolate("a1", "a2")
    cluster.crash("a1")
    cluster.crash("a2")
    cluster.heal()
    assert cluster.run_until(lambda: cluster.leader() in ("b1", "b2"), 5 * 1.5 * ELECTION_MS)
    leader = cluster.leader()
    assert leader is not None
    assert _commit(cluster, leader, 3) > index
    cluster.settle()
    cluster.check_nothing_lost()


def test_a_witness_that_lost_its_quorum_as_relay_steps_down() -> None:
    cluster = Cluster(TWO_AND_WITNESS)
    _commit_without_b(cluster)
    assert cluster.run_until(lambda: cluster.status("w").relay, 10_000)
    cluster.crash("b")
    cluster.run(1.5 * ELECTION_MS)
    assert not cluster.status("w").relay
    mark = len(cluster.sent)
    cluster.run(20_000)
    assert len(cluster.sent) == mark
    cluster.settle()
    cluster.check_nothing_lost()


def test_a_log_that_a_relay_cannot_feed_is_reported_and_harms_nobody() -> None:
    """Only a full voter that forgot acknowledged entries can be there; it gets nothing rather than a hole."""
    cluster = Cluster(TWO_AND_WITNESS, truncate_entries_min=1)
    cluster.elect("a")
    _commit(cluster, "a", 20)
    cluster.run(1_000)
    assert cluster.status("w").first > 10
    cluster.crash("a")
    cluster.crash("b")
    cluster.replicas["b"].disk = disk_with(term=1)
    cluster.invariants.replaced(GROUP, NodeId("b"))
    cluster.start("b")
    cluster.run(20_000)
    assert cluster.count(EventName.CANNOT_FEED) >= 1
    assert cluster.status("b").last == 0
    assert cluster.status("b").commit == 0
