"""Learners that hold a copy in another region: what they have no part in, and how far their leader knows them to be."""

from raft_cluster import ELECTION_MS, Cluster

from isochrone.ids import ReplicaRole

FULL, LEARNER = ReplicaRole.FULL, ReplicaRole.LEARNER
COPIED = {"a": FULL, "b": FULL, "c": FULL, "l": LEARNER}
FAR_MS = 150.0


def _far(source: str, target: str) -> float:
    """Links of a learner on another continent."""
    return FAR_MS if "l" in (source, target) else 1.0


def _cluster(seed: int = 1, **config: int) -> Cluster:
    cluster = Cluster(COPIED, seed, delay_ms=_far, **config)
    cluster.elect("a")
    assert cluster.run_until(lambda: cluster.status("l").last == 1, 1_000)
    return cluster


def test_commits_do_not_wait_for_a_learner_and_it_follows() -> None:
    cluster = _cluster()
    for number in range(20):
        began = cluster.now
        index = cluster.propose("a", b"%d" % number)
        assert cluster.run_until(lambda index=index: cluster.committed(index), 20)
        assert cluster.now - began < FAR_MS * 1_000_000 / 10
    assert cluster.status("l").last < 21, "it is farther away than all of these writes took"
    assert cluster.run_until(lambda: cluster.status("l").applied == 21, 3 * FAR_MS)


def test_a_learner_alone_neither_commits_nor_elects_nor_answers_reads() -> None:
    cluster = _cluster()
    cluster.run(3 * FAR_MS)
    for name in "bc":
        cluster.crash(name)
    index = cluster.propose("a", b"x")
    cluster.read("a")
    cluster.run(3 * ELECTION_MS)
    assert cluster.status("l").last == index, "it holds the entry"
    assert not cluster.committed(index)
    assert not cluster.replicas["a"].reads
    assert cluster.leader() is None, "and is no quorum with the leader"
    cluster.crash("a")
    cluster.run(20 * ELECTION_MS)
    assert (cluster.leader(), cluster.status("l").term) == (None, 1), "it does not even ask for votes"


def test_a_leader_knows_how_old_the_newest_entry_of_each_member_is() -> None:
    cluster = _cluster()
    cluster.run(3 * FAR_MS)
    known = cluster.status("a").peers
    assert {known[name].match_timestamp for name in "bcl"} == {cluster.status("l").last_timestamp}
    cluster.crash("l")
    then = cluster.status("a").last_timestamp
    for _ in range(3):
        cluster.propose("a", b"x")
        cluster.run(1_000)
    status = cluster.status("a")
    assert status.peers["b"].match_timestamp == status.last_timestamp > then
    assert status.peers["l"].match_timestamp == then, "as old as what it has acknowledged"
    cluster.start("l")
    assert cluster.run_until(lambda: cluster.status("l").applied == 4, 3_000)
    cluster.run(2 * FAR_MS)
    assert cluster.status("a").peers["l"].match_timestamp == status.last_timestamp == cluster.status("l").last_timestamp


def test_the_newest_entry_is_the_last_one_in_the_log_not_one_that_was_given_up() -> None:
    cluster = _cluster()
    cluster.run(3 * FAR_MS)
    for name in "bc":
        cluster.crash(name)
    cluster.propose("a", b"given up")
    cluster.run(2 * FAR_MS)
    assert cluster.status("l").last == 2
    given_up = cluster.status("l").last_timestamp
    cluster.crash("a")
    for name in "bc":
        cluster.start(name)
    cluster.force_campaign("b")
    assert cluster.run_until(lambda: cluster.status("l").term == 2 and cluster.status("l").applied == 2, 5_000)
    assert cluster.status("l").last_timestamp == cluster.status("b").last_timestamp < given_up


def test_the_age_of_entries_that_memory_holds_no_more_is_not_known() -> None:
    cluster = _cluster(cache_bytes_max=200, inflight_messages_max=1, append_bytes_max=1)
    cluster.crash("l")
    for _ in range(40):
        cluster.propose("a", b"x" * 40)
        cluster.run(10)
    cluster.start("l")
    assert cluster.run_until(lambda: 1 < cluster.status("a").match["l"] < 30, 20_000)
    assert cluster.status("a").peers["l"].match_timestamp is None
    assert cluster.run_until(lambda: cluster.status("a").match["l"] == 41, 60_000)
    assert cluster.status("a").peers["l"].match_timestamp == cluster.status("a").last_timestamp
