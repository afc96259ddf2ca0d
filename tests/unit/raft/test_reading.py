"""ReadIndex: a read is answered only after a quorum has confirmed, after it arrived, that nobody else leads.

The harness itself checks that every released read reflects all that was acknowledged before it was asked.
"""

import pytest
from raft_cluster import ELECTION_MS, HEARTBEAT_MS, Cluster

from isochrone.errors import NotLeader
from isochrone.ids import ReplicaRole
from isochrone.wire.messages import Heartbeat, HeartbeatResponse


def _rounds(cluster: Cluster, target: str, mark: int) -> list[int]:
    return [m.round for _, t, m in cluster.sent[mark:] if t == target and isinstance(m, Heartbeat) and m.round]


def test_a_read_waits_for_a_quorum_round_begun_after_it() -> None:
    cluster = Cluster("abc", jitter_ms=0)
    cluster.elect("a")
    cluster.run(500)
    read = cluster.read("a")
    assert read not in cluster.replicas["a"].reads
    cluster.run(19)
    assert read not in cluster.replicas["a"].reads
    cluster.run(2)
    assert cluster.replicas["a"].reads[read] == cluster.status("a").commit


def test_an_answer_to_an_earlier_round_confirms_nothing() -> None:
    cluster = Cluster("abc", jitter_ms=0)
    cluster.elect("a")
    cluster.run(500)
    early = cluster.read("a")
    cluster.run(12)  # The heartbeats have arrived, the answers are on their way.
    late = cluster.read("a")
    cluster.cut |= {("a", "b"), ("a", "c")}
    cluster.run(20)
    reads = cluster.replicas["a"].reads
    assert early in reads
    assert late not in reads


def test_reads_of_one_turn_share_a_round() -> None:
    cluster = Cluster("abc")
    cluster.elect("a")
    cluster.run(505)
    core = cluster.replicas["a"].core
    assert core is not None
    mark = len(cluster.sent)
    for _ in range(100):
        cluster._reads[len(cluster._reads)] = 0
        core.read_index(len(cluster._reads) - 1)
    cluster.drain("a")
    assert len(_rounds(cluster, "b", mark)) == 1
    cluster.run(30)
    assert len(cluster.replicas["a"].reads) == 100


def test_a_lost_round_is_made_up_for_by_the_next() -> None:
    cluster = Cluster("abc")
    cluster.elect("a")
    cluster.run(505)
    cluster.cut |= {("a", "b"), ("a", "c")}
    read = cluster.read("a")
    cluster.heal()
    assert cluster.run_until(lambda: read in cluster.replicas["a"].reads, 2 * HEARTBEAT_MS)


def test_reads_wait_until_an_entry_of_the_leaders_own_term_is_committed() -> None:
    """A new leader does not know yet which entries its predecessor committed, and might read the past."""
    cluster = Cluster("abc")
    cluster.elect("a")
    index = cluster.propose("a", b"x")
    assert cluster.run_until(lambda: cluster.committed(index), 100)
    cluster.crash("a")
    assert cluster.run_until(lambda: cluster.leader() in ("b", "c"), 5_000)
    leader = cluster.leader()
    assert leader is not None
    read = cluster.read(leader)
    cluster.hold_disk |= {"b", "c"}
    cluster.run(500)
    assert read not in cluster.replicas[leader].reads
    for name in "bc":
        cluster.resume_disk(name)
    assert cluster.run_until(lambda: read in cluster.replicas[leader].reads, 500)
    assert cluster.replicas[leader].reads[read] > index


def test_a_deposed_leader_never_answers_a_read() -> None:
    cluster = Cluster("abc")
    cluster.elect("a")
    cluster.run(500)
    cluster.isolate("a")
    before = cluster.read("a")
    assert cluster.run_until(lambda: cluster.leader() in ("b", "c"), 3 * 1.5 * ELECTION_MS)
    new = cluster.leader()
    assert new is not None
    index = cluster.propose(new, b"news")
    assert cluster.run_until(lambda: cluster.committed(index), 500)
    cluster.heal()
    cluster.run(1_000)
    old = cluster.replicas["a"]
    assert before in old.refused_reads
    assert before not in old.reads
    with pytest.raises(NotLeader) as caught:
        cluster.read("a")
    assert caught.value.leader == new


def test_a_leader_that_does_not_know_yet_that_it_was_deposed_answers_no_read() -> None:
    """Its clock stands still (a paused process), so it wakes as a leader; only the quorum round can tell."""
    cluster = Cluster("abc")
    cluster.elect("a")
    cluster.run(500)
    sleeper = cluster.replicas["a"].core
    assert sleeper is not None
    cluster.replicas["a"].core = None
    assert cluster.run_until(lambda: cluster.leader() in ("b", "c"), 3 * 1.5 * ELECTION_MS)
    new = cluster.leader()
    assert new is not None
    index = cluster.propose(new, b"news")
    assert cluster.run_until(lambda: cluster.committed(index), 500)
    cluster.replicas["a"].core = sleeper
    read = cluster.read("a")
    cluster.run(500)
    assert read in cluster.replicas["a"].refused_reads
    assert read not in cluster.replicas["a"].reads


def test_followers_and_relays_take_no_reads() -> None:
    cluster = Cluster("abc")
    cluster.elect("a")
    cluster.run(300)
    with pytest.raises(NotLeader) as caught:
        cluster.read("b")
    assert caught.value.leader == "a"


def test_a_single_voter_answers_at_once() -> None:
    cluster = Cluster("a")
    cluster.elect("a")
    cluster.run(10)
    assert cluster.read("a") in cluster.replicas["a"].reads


def test_a_witness_confirms_rounds() -> None:
    cluster = Cluster({"a": ReplicaRole.FULL, "b": ReplicaRole.FULL, "w": ReplicaRole.WITNESS})
    cluster.elect("a")
    cluster.run(300)
    cluster.crash("b")
    read = cluster.read("a")
    assert cluster.run_until(lambda: read in cluster.replicas["a"].reads, 100)
    assert any(isinstance(m, HeartbeatResponse) and s == "w" for s, _, m in cluster.sent)
