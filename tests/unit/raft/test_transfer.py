"""Leadership transfer: to whom, what it refuses meanwhile, and what becomes of one that fails."""

import pytest
from raft_cluster import ELECTION_MS, HEARTBEAT_MS, MS, Cluster

from isochrone.errors import InvalidRequest, NotLeader, Unavailable
from isochrone.ids import Nanos, NodeId, ReplicaRole, Term
from isochrone.regions.raft.ready import EventName
from isochrone.wire.messages import AppendRequest, TimeoutNow, VoteRequest

FULL, WITNESS, LEARNER = ReplicaRole.FULL, ReplicaRole.WITNESS, ReplicaRole.LEARNER
LONGEST_TIMEOUT_MS = 1.5 * ELECTION_MS


def _led_by_a(roles: dict[str, ReplicaRole] | str = "abc", seed: int = 1, **options: float) -> Cluster:
    cluster = Cluster(roles, seed, **options)  # type: ignore[arg-type]
    cluster.elect("a")
    cluster.run(500)
    return cluster


def _transfer(cluster: Cluster, target: str, leader: str = "a") -> None:
    core = cluster.replicas[leader].core
    assert core is not None
    core.transfer_leadership(NodeId(target), Nanos(cluster.now))
    cluster.drain(leader)


def _told(cluster: Cluster) -> list[str]:
    return [target for _, target, message in cluster.sent if isinstance(message, TimeoutNow)]


def test_a_target_that_has_everything_leads_after_one_round_of_votes() -> None:
    cluster = _led_by_a()
    _transfer(cluster, "b")
    assert cluster.run_until(lambda: cluster.leader() == "b", 60), "told in 12 ms, elected in 26 more"
    assert not any(isinstance(m, VoteRequest) and m.pre for _, _, m in cluster.sent[-20:])
    index = cluster.propose("b", b"x")
    assert cluster.run_until(lambda: cluster.committed(index), 100)
    assert cluster.status("a").leader == "b"


def test_proposals_are_refused_meanwhile_and_served_by_the_new_leader() -> None:
    cluster = _led_by_a()
    _transfer(cluster, "c")
    with pytest.raises(Unavailable, match="handed over to c"):
        cluster.propose("a", b"x")
    assert cluster.run_until(lambda: cluster.leader() == "c", 100)
    index = cluster.propose("c", b"x")
    assert cluster.run_until(lambda: cluster.committed(index), 100)


def test_what_was_proposed_before_is_committed_by_the_old_leader() -> None:
    """So whoever waits for it gets an answer, and no outcome is left unknown."""
    cluster = _led_by_a(disk_ms=20.0)
    index = cluster.propose("a", b"x")
    _transfer(cluster, "b")
    assert not _told(cluster)
    assert cluster.run_until(lambda: bool(_told(cluster)), 200)
    applied = next(number for number, _, data in cluster.replicas["a"].applied if data == b"x")
    assert applied == index
    assert cluster.chain[index - 1][1] == 1, "in the old leader's term"


def test_a_target_that_is_behind_is_fed_first() -> None:
    cluster = _led_by_a()
    cluster.isolate("b")
    indexes = [cluster.propose("a", b"%d" % number) for number in range(50)]
    assert cluster.run_until(lambda: cluster.committed(indexes[-1]), 200)
    cluster.heal()
    _transfer(cluster, "b")
    assert not _told(cluster)
    assert cluster.run_until(lambda: cluster.leader() == "b", 300)
    first_told = next(i for i, (_, _, m) in enumerate(cluster.sent) if isinstance(m, TimeoutNow))
    fed = [m for _, target, m in cluster.sent[:first_told] if target == "b" and isinstance(m, AppendRequest)]
    assert sum(len(m.entries) for m in fed) >= 50
    cluster.settle()
    cluster.check_nothing_lost()


@pytest.mark.parametrize("died", ["before it is told", "after it was told"])
def test_a_target_that_dies_costs_one_election_timeout(died: str) -> None:
    cluster = _led_by_a()
    if died == "before it is told":
        cluster.crash("b")
        cluster.propose("a", b"x")
    _transfer(cluster, "b")
    if died == "after it was told":
        assert _told(cluster)
        cluster.crash("b")
    cluster.run(ELECTION_MS - 1)
    with pytest.raises(Unavailable):
        cluster.propose("a", b"y")
    cluster.run(2)
    assert EventName.TRANSFER_GIVEN_UP in cluster.events_of("a")
    index = cluster.propose("a", b"y")
    assert cluster.run_until(lambda: cluster.committed(index), 100)
    assert cluster.leader() == "a"
    assert cluster.count(EventName.BECAME_LEADER) == 1


def test_a_target_that_is_told_in_vain_is_told_again() -> None:
    cluster = _led_by_a()
    cluster.cut.add(("a", "b"))
    _transfer(cluster, "b")
    cluster.run(HEARTBEAT_MS)
    cluster.heal()
    assert cluster.run_until(lambda: cluster.leader() == "b", 3 * HEARTBEAT_MS)
    assert 2 <= len(_told(cluster)) <= 4


def test_one_transfer_at_a_time_and_another_one_after_it_failed() -> None:
    cluster = _led_by_a()
    cluster.crash("b")
    _transfer(cluster, "b")
    with pytest.raises(Unavailable, match="handed over to b"):
        _transfer(cluster, "c")
    _transfer(cluster, "b")  # Asked again: without effect, and without more time.
    cluster.run(ELECTION_MS + 1)
    _transfer(cluster, "c")
    assert cluster.run_until(lambda: cluster.leader() == "c", 100)


def test_only_a_leader_hands_over_and_only_to_a_full_voter() -> None:
    cluster = _led_by_a({"a": FULL, "b": FULL, "w": WITNESS, "l": LEARNER})
    with pytest.raises(NotLeader):
        _transfer(cluster, "b", leader="b")
    for target in ("w", "l", "nobody"):
        with pytest.raises(InvalidRequest, match="not a full voter"):
            _transfer(cluster, target)
    _transfer(cluster, "a")
    index = cluster.propose("a", b"x")
    assert cluster.run_until(lambda: cluster.committed(index), 100), "a transfer to itself changes nothing"


def test_a_message_of_an_old_term_moves_nobody() -> None:
    cluster = _led_by_a()
    _transfer(cluster, "c")
    cluster.run(500)
    core = cluster.replicas["b"].core
    assert core is not None
    core.step(NodeId("a"), TimeoutNow(Term(1)), Nanos(cluster.now))
    cluster.run(LONGEST_TIMEOUT_MS)
    assert cluster.leader() == "c"
    assert cluster.count(EventName.BECAME_LEADER) == 2


def test_a_leader_that_steps_down_meanwhile_forgets_the_transfer() -> None:
    """It leads again before its transfer would have been given up, and serves."""
    cluster = _led_by_a()
    cluster.crash("b")
    _transfer(cluster, "b")
    third = cluster.replicas["c"].core
    assert third is not None
    third.step(NodeId("a"), TimeoutNow(cluster.status("a").term), Nanos(cluster.now))
    cluster.drain("c")
    assert cluster.run_until(lambda: cluster.leader() == "c", 100)
    cluster.run(100)
    _transfer(cluster, "a", "c")
    assert cluster.run_until(lambda: cluster.leader() == "a", 100)
    index = cluster.propose("a", b"x")
    assert cluster.run_until(lambda: cluster.committed(index), 100)


@pytest.mark.parametrize("seed", range(20))
def test_transfers_under_faults_lose_nothing(seed: int) -> None:
    """Leaders are asked to move all the time, over links that lose messages and with replicas that crash."""
    roles = {"a": FULL, "b": FULL, "c": FULL, "d": FULL, "w": WITNESS} if seed % 2 else dict.fromkeys("abc", FULL)
    cluster = Cluster(roles, seed, loss=0.05)
    rng = cluster.rng
    full = [name for name, role in roles.items() if role is FULL]
    transfers = 0
    for number in range(60):
        cluster.run(rng.choice([5, 50, 300, 1500]))
        leader = cluster.leader()
        if leader is not None and not cluster.status(leader).relay:
            try:
                cluster.propose(leader, b"%d" % number)
                _transfer(cluster, rng.choice(full), leader)
                transfers += 1
            except Unavailable:
                pass
        name = rng.choice(list(roles))
        if rng.random() < 0.2 and cluster.replicas[name].core is not None:
            cluster.crash(name, keep=rng.randrange(3))
        elif cluster.replicas[name].core is None:
            cluster.start(name)
    assert transfers >= 10
    cluster.settle()
    cluster.run(LONGEST_TIMEOUT_MS)  # Whatever transfer was under way has ended.
    leader = cluster.leader()
    assert leader is not None
    target = next(name for name in full if name != leader)
    _transfer(cluster, target, leader)
    assert cluster.run_until(lambda: cluster.leader() == target, 200), f"after {cluster.now // MS} ms"
    cluster.check_nothing_lost()
