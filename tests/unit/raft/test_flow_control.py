"""The window of what a leader has sent to a peer and not heard back of: its bounds, and how it opens again."""

import random

import pytest
from raft_cluster import HEARTBEAT_MS, Cluster

from isochrone.ids import LogIndex, Nanos, NodeId, ReplicaRole, Term
from isochrone.regions.raft.progress import Feed
from isochrone.regions.raft.status import PeerStatus
from isochrone.wire.messages import AppendRequest, AppendResponse, RaftMessage


def _led_by_a(**options: float) -> Cluster:
    """Links keep their order unless `jitter_ms` says otherwise: a request that overtakes another one is refused."""
    cluster = Cluster("abc", **({"jitter_ms": 0.0} | options))  # type: ignore[arg-type]
    cluster.elect("a")
    cluster.run(250)
    return cluster


def _b(cluster: Cluster) -> PeerStatus:
    return cluster.status("a").peers[NodeId("b")]


def _propose(cluster: Cluster, count: int, size_bytes: int = 200) -> int:
    return [cluster.propose("a", b"x" * size_bytes) for _ in range(count)][-1]


def _appends(cluster: Cluster, mark: int) -> list[AppendRequest]:
    sent = cluster.sent[mark:]
    return [m for source, target, m in sent if (source, target) == ("a", "b") and isinstance(m, AppendRequest)]


def _lose(cluster: Cluster, kind: type[RaftMessage], source: str, target: str) -> list[RaftMessage]:
    """Lose every message of this kind on one link from now on, but those without entries."""
    lost: list[RaftMessage] = []

    def lose(sender: str, receiver: str, message: RaftMessage) -> bool:
        hit = (sender, receiver) == (source, target) and isinstance(message, kind)
        if hit and not (isinstance(message, AppendRequest) and not message.entries):
            lost.append(message)
            return True
        return False

    cluster.lose = lose
    return lost


def test_a_full_window_takes_one_request_for_each_acknowledged_one() -> None:
    cluster = _led_by_a(inflight_messages_max=3, append_bytes_max=100)
    cluster.hold_disk.add("b")
    mark = len(cluster.sent)
    _propose(cluster, 20)
    cluster.run(30)
    assert (len(_appends(cluster, mark)), _b(cluster).inflight) == (3, 3)
    for acknowledged in range(1, 6):
        while _b(cluster).match < acknowledged + 1:
            if cluster.replicas["b"].pending:
                cluster.complete_write("b")
            cluster.run(11)
            assert _b(cluster).inflight <= 3
        with_entries = [m for m in _appends(cluster, mark) if m.entries]
        assert len(with_entries) == _b(cluster).match - 1 + _b(cluster).inflight


def test_an_entry_beyond_the_whole_window_goes_alone() -> None:
    cluster = _led_by_a(inflight_bytes_max=500, append_bytes_max=300)
    cluster.hold_disk.add("b")
    mark = len(cluster.sent)
    cluster.propose("a", b"x" * 10_000)
    _propose(cluster, 5)
    cluster.run(50)
    assert [len(m.entries) for m in _appends(cluster, mark) if m.entries] == [1]
    cluster.resume_disk("b")
    assert cluster.run_until(lambda: _b(cluster).match == 7, 10 * HEARTBEAT_MS)
    assert max(len(m.entries) for m in _appends(cluster, mark)) == 1, "two entries are more than a request may hold"


def test_lost_acknowledgements_are_made_up_for_by_one_that_comes() -> None:
    cluster = _led_by_a(inflight_messages_max=3, append_bytes_max=100)
    lost = _lose(cluster, AppendResponse, "b", "a")
    last = _propose(cluster, 3)
    cluster.run(50)
    assert len(lost) == 3
    assert _b(cluster).inflight == 3
    mark = len(cluster.sent)
    cluster.lose = lambda _source, _target, _message: False
    assert cluster.run_until(lambda: _b(cluster).match == last, 2 * HEARTBEAT_MS)
    assert _b(cluster).inflight == 0
    assert not any(m.entries for m in _appends(cluster, mark)), "nothing was lost on the way there"


def test_lost_requests_of_a_full_window_are_noticed_by_the_next_heartbeat_s_answer() -> None:
    cluster = _led_by_a(inflight_messages_max=3, append_bytes_max=100)
    lost = _lose(cluster, AppendRequest, "a", "b")
    last = _propose(cluster, 10)
    cluster.run(50)
    assert len(lost) == 3
    cluster.lose = lambda _source, _target, _message: False
    assert cluster.run_until(lambda: _b(cluster).match == last, 4 * HEARTBEAT_MS)


def test_while_a_peer_is_silent_nothing_more_is_sent_than_its_window() -> None:
    """Heartbeats go on; they are small, and tell when it is back."""
    cluster = _led_by_a(inflight_messages_max=3, append_bytes_max=100)
    cluster.crash("b")
    mark = len(cluster.sent)
    for _ in range(50):
        _propose(cluster, 2)
        cluster.run(100)
    assert len(_appends(cluster, mark)) == 3
    cluster.start("b")
    last = cluster.status("a").last
    assert cluster.run_until(lambda: _b(cluster).match == last, 100 * HEARTBEAT_MS)


def test_a_peer_with_a_hanging_disk_costs_one_probe_per_heartbeat() -> None:
    """It answers heartbeats, so the leader asks again, but never with the entries that it has already sent."""
    cluster = _led_by_a(inflight_messages_max=3, append_bytes_max=100)
    cluster.hold_disk.add("b")
    mark = len(cluster.sent)
    _propose(cluster, 10)
    cluster.run(2_000)
    sent = _appends(cluster, mark)
    assert len([m for m in sent if m.entries]) == 3
    assert 15 <= len([m for m in sent if not m.entries]) <= 21


def test_late_and_repeated_acknowledgements_open_the_window_once() -> None:
    cluster = _led_by_a(inflight_messages_max=3, append_bytes_max=100)
    cluster.hold_disk.add("b")
    base = cluster.status("a").last
    _propose(cluster, 10)
    cluster.run(30)
    _lose(cluster, AppendResponse, "b", "a")
    cluster.complete_write("b")
    assert cluster.replicas["b"].disk.last_index == base + 1
    core = cluster.replicas["a"].core
    assert core is not None
    for index in (base + 1, base + 1, base, base + 1):
        response = AppendResponse(cluster.status("a").term, True, LogIndex(index), Term(1), LogIndex(0))
        core.step(NodeId("b"), response, Nanos(cluster.now))
        cluster.drain("a")
        status = _b(cluster)
        assert (status.feed, status.inflight, status.next) == (Feed.REPLICATE, 3, base + 5)


def test_a_witness_and_a_learner_have_windows_of_their_own() -> None:
    full, witness, learner = ReplicaRole.FULL, ReplicaRole.WITNESS, ReplicaRole.LEARNER
    cluster = Cluster({"a": full, "b": full, "w": witness, "x": learner}, inflight_messages_max=3, append_bytes_max=100)
    cluster.elect("a")
    cluster.run(250)
    cluster.crash("w")
    cluster.crash("x")
    last = _propose(cluster, 30)
    assert cluster.run_until(lambda: cluster.committed(last), 30 * HEARTBEAT_MS)
    peers = {str(node): peer.inflight for node, peer in cluster.status("a").peers.items()}
    assert peers == {"b": 0, "w": 3, "x": 3}


@pytest.mark.parametrize("seed", range(12))
def test_under_random_loss_the_window_holds_and_everything_arrives(seed: int) -> None:
    print(f"seed {seed}")
    rng = random.Random(f"window/{seed}")
    messages_max, bytes_max, append_max = rng.choice([1, 2, 5]), rng.choice([1, 600, 3_000]), rng.choice([100, 700])
    cluster = _led_by_a(
        inflight_messages_max=messages_max,
        inflight_bytes_max=bytes_max,
        append_bytes_max=append_max,
        jitter_ms=2.0,
        seed=seed,
    )
    largest = 0
    for _ in range(60):
        cluster.loss, cluster.duplication = rng.choice([0.0, 0.2, 0.4]), rng.choice([0.0, 0.3])
        if cluster.leader() == "a":
            size = rng.choice([10, 200, 900])
            largest = max(largest, size)
            _propose(cluster, rng.randrange(1, 6), size)
        for _ in range(rng.randrange(20)):
            cluster.run(5)
            _check_windows(cluster, messages_max, bytes_max, append_max + largest + 100)
    cluster.settle()


def _check_windows(cluster: Cluster, messages_max: int, bytes_max: int, request_max: int) -> None:
    leader = cluster.leader()
    if leader is None:
        return
    log = {entry.index: len(entry.encoded) for entry in cluster.replicas[leader].disk.entries}
    for peer in cluster.status(leader).peers.values():
        assert peer.inflight <= messages_max
        if peer.feed is Feed.REPLICATE:
            unacknowledged = sum(log.get(LogIndex(index), 0) for index in range(peer.match + 1, peer.next))
            assert unacknowledged <= bytes_max + request_max
