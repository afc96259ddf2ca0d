"""Under random faults, transfers and clocks that are wrong by the bound, no read under a lease is ever stale.

Again and again the leader is cut off, in one way or both, while the others do all they can to elect another one: they
campaign without waiting, restart, and hear late messages. Everybody who believes that it leads is asked for reads all
the time; the harness checks each that is released against what was acknowledged before.
"""

import random

import pytest
from raft_cluster import Cluster

from isochrone.errors import IsochroneError
from isochrone.ids import NodeId, ReplicaRole, Term
from isochrone.regions.raft.state import Office
from isochrone.wire.messages import VoteResponse

FULL, WITNESS = ReplicaRole.FULL, ReplicaRole.WITNESS
DRIFT_PPM = 100_000
ELECTION_MS = 400
SHAPES = [dict.fromkeys("abc", FULL), {"a": FULL, "b": FULL, "w": WITNESS}, dict.fromkeys("abcde", FULL)]


@pytest.mark.parametrize("seed", range(24))
def test_no_leased_read_is_stale(seed: int) -> None:
    rng = random.Random(f"leases/{seed}")
    roles = SHAPES[seed % len(SHAPES)]
    delays = {(a, b): rng.choice([0.5, 2.0, 2.0, 60.0]) for a in roles for b in roles}
    cluster = Cluster(
        roles,
        seed,
        delay_ms=lambda a, b: delays[a, b],
        jitter_ms=0.5,
        heartbeat_ms=70,
        election_ms=ELECTION_MS,
        lease_reads=True,
        clock_drift_ppm_max=DRIFT_PPM,
    )
    cluster.clock_ppm = {name: rng.choice([-DRIFT_PPM, 0, DRIFT_PPM]) for name in roles}
    for _ in range(12):
        cluster.heal()
        _run(cluster, 3 * 70)
        leader = cluster.leader()
        if leader is not None:
            _prepare(cluster, rng, leader)
            _cut_off(cluster, rng, leader)
            successor = rng.choice([name for name in roles if name != leader])
            _run(cluster, round(1.4 * ELECTION_MS), successor)
    leased = sum(replica.leased_reads for replica in cluster.replicas.values())
    assert leased > 200, "leases were hardly ever held"
    cluster.settle()
    cluster.check_nothing_lost()


@pytest.mark.parametrize("slow_answers", [False, True])
@pytest.mark.parametrize("seed", range(2))
def test_no_leased_read_is_stale_where_the_bounds_are_reached(seed: int, *, slow_answers: bool) -> None:
    """The leader's clock runs as slow as it may and the others' as fast, or its answers take almost its whole lease."""
    rng = random.Random(f"lease bounds/{seed}/{slow_answers}")
    answer_ms = 1.0
    cluster = Cluster(
        "abc",
        seed,
        delay_ms=lambda source, target: answer_ms if target == "a" else 1.0,
        heartbeat_ms=70,
        election_ms=ELECTION_MS,
        lease_reads=True,
        clock_drift_ppm_max=0 if slow_answers else DRIFT_PPM,
    )
    if not slow_answers:
        cluster.clock_ppm = {"a": -DRIFT_PPM, "b": DRIFT_PPM, "c": DRIFT_PPM}
    for _ in range(8):
        cluster.heal()
        answer_ms = 1.0
        assert cluster.run_until(lambda: cluster.leader() is not None, 10 * ELECTION_MS)
        if cluster.leader() != "a":
            _transfer(cluster, str(cluster.leader()), "a")
        assert cluster.run_until(lambda: cluster.leader() == "a", 10 * ELECTION_MS)
        answer_ms = 300.0 if slow_answers else 1.0
        _run(cluster, 2 * ELECTION_MS + rng.randrange(70))
        cluster.cut |= {("a", "b"), ("a", "c")}
        if not slow_answers:  # Otherwise those that are on their way are what it is about.
            cluster.isolate("a")
        newest = max("bc", key=lambda name: cluster.status(name).last)  # Who lacks an entry would not be elected.
        _run(cluster, round(1.2 * ELECTION_MS), newest)
        assert cluster.run_until(lambda: cluster.leader() in ("b", "c"), ELECTION_MS)
    assert cluster.replicas["a"].leased_reads > 200, "leases were hardly ever held"
    cluster.settle()
    cluster.check_nothing_lost()


def _run(cluster: Cluster, duration_ms: int, successor: str | None = None) -> None:
    """Run, with requests to all who lead, while `successor` does all it can to lead."""
    end = cluster.now + duration_ms * 1_000_000
    step = 0
    while cluster.now < end:
        step += 1
        for name, replica in cluster.replicas.items():
            if replica.core is not None and replica.core.status().match:
                _ask(cluster, name, write=step % 5 == 0)
        if successor is not None and cluster.status(successor).office in (Office.FOLLOWER, Office.PRE_CANDIDATE):
            cluster.force_campaign(successor)
        cluster.run(2)


def _ask(cluster: Cluster, name: str, *, write: bool) -> None:
    try:
        cluster.read(name)
        if write:
            cluster.propose(name, b"x")
    except IsochroneError:
        return


def _prepare(cluster: Cluster, rng: random.Random, leader: str) -> None:
    """Something that may shake the promises to the leader."""
    name = rng.choice([name for name in cluster.replicas if name != leader])
    match rng.randrange(5):
        case 0 | 1:
            # Only the others are bound when the leader is cut off; one of them is shaken below.
            cluster.cut_between(name, leader)
            _run(cluster, ELECTION_MS)
        case 2 | 3:
            _transfer(cluster, leader, name)
            _run(cluster, rng.choice([1, 20, round(1.2 * ELECTION_MS)]))


def _transfer(cluster: Cluster, leader: str, name: str) -> None:
    core = cluster.replicas[leader].core
    assert core is not None
    try:
        core.transfer_leadership(NodeId(name), cluster.clock(leader))
    except IsochroneError:
        return
    cluster.drain(leader)


def _cut_off(cluster: Cluster, rng: random.Random, leader: str) -> None:
    """Cut a leader off, and let some voters restart or hear late messages at the same moment."""
    for peer in cluster.replicas:
        if peer != leader:
            cluster.cut |= set(rng.choice([[(peer, leader)], [(leader, peer)], [(peer, leader), (leader, peer)]]))
            core = cluster.replicas[peer].core
            assert core is not None
            match rng.randrange(4):
                case 0:
                    cluster.crash(peer, keep=rng.randrange(3))
                    cluster.start(peer)
                case 1:
                    core.step(NodeId(leader), VoteResponse(Term(core.term + 1), False, False), cluster.clock(peer))
                    cluster.drain(peer)
