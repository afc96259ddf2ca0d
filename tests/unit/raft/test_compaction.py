"""Log compaction and the log cap: every replica drops what nobody can need any more, and no more than that."""

import random

import pytest
from raft_cluster import ELECTION_MS, Cluster
from raft_disk import Disk

from isochrone.errors import Unavailable
from isochrone.ids import GroupId, KeyspaceId, LogIndex, Nanos, NodeId, ReplicaRole, StoreId, Timestamp
from isochrone.regions.raft.config import RaftConfig
from isochrone.regions.raft.node import RaftNode
from isochrone.regions.raft.ready import EventName, Proposal
from isochrone.regions.raft.state import Office
from isochrone.wire.messages import AppendRequest, Configuration, Member

FULL, WITNESS = ReplicaRole.FULL, ReplicaRole.WITNESS
SMALL = {"truncate_entries_min": 4, "keep_entries": 10}


def _commit(cluster: Cluster, leader: str, count: int, size: int = 10) -> int:
    for number in range(count):
        index = cluster.propose(leader, b"%d" % number + bytes(size))
        assert cluster.run_until(lambda i=index: cluster.committed(i), 2_000)  # type: ignore[misc]
    return index


def test_every_replica_drops_what_all_full_voters_hold_and_keeps_a_tail() -> None:
    cluster = Cluster("abc", **SMALL)
    cluster.elect("a")
    last = _commit(cluster, "a", 60)
    cluster.run(500)
    for name in "abc":
        status = cluster.status(name)
        assert status.last == last
        assert last - 10 - 4 < status.first <= last - 10 + 1, name
        assert [entry.index for entry in cluster.replicas[name].disk.entries] == list(range(status.first, last + 1))
        assert status.retained_bytes == sum(len(entry.encoded) for entry in cluster.replicas[name].disk.entries)


def test_a_tail_is_kept_by_bytes_too_and_few_large_entries_are_worth_dropping() -> None:
    cluster = Cluster("abc", truncate_bytes_min=2_000, keep_bytes=5_000)
    cluster.elect("a")
    _commit(cluster, "a", 60, size=500)
    cluster.run(500)
    for name in "abc":
        status = cluster.status(name)
        assert status.first > 1
        assert 4_000 < status.retained_bytes <= 5_000 + 2_000 + 600, name


def test_nothing_is_dropped_before_it_is_applied() -> None:
    config = RaftConfig(
        group=GroupId("g"),
        node=NodeId("a"),
        heartbeat_ns=Nanos(1),
        election_timeout_ns=Nanos(10),
        truncate_entries_min=1,
        keep_entries=0,
    )
    configuration = Configuration((Member(NodeId("a"), StoreId("s"), ReplicaRole.FULL),))
    core = RaftNode(config, Disk().load(configuration), (), store=StoreId("s"), rng=random.Random(1), now=Nanos(0))
    core.campaign(Nanos(0))
    handed: list[int] = []
    for number in range(12):
        if core.status().office is Office.LEADER:
            core.propose([Proposal(KeyspaceId("k/"), b"x", 1, Timestamp(number))])
        ready = core.ready(Nanos(0))
        handed.extend(entry.index for entry in ready.committed)
        if ready.append is not None:
            core.persisted(ready.append.token, Nanos(0))
    assert handed[-1] > 5
    assert core.status().first == 1
    core.applied(LogIndex(4))
    core.ready(Nanos(0))
    assert core.status().first == 5


def test_a_restart_needs_no_dropped_entry() -> None:
    cluster = Cluster("abc", **SMALL)
    cluster.elect("a")
    _commit(cluster, "a", 40)
    cluster.run(500)
    for name in "abc":
        cluster.crash(name)
    for name in "abc":
        assert cluster.replicas[name].disk.truncated_index > 0
        cluster.start(name)
    cluster.settle()
    cluster.check_nothing_lost()


def test_nothing_is_dropped_beyond_a_voter_that_is_down_and_it_catches_up_when_it_returns() -> None:
    cluster = Cluster({"a": FULL, "b": FULL, "w": WITNESS}, **SMALL)
    cluster.elect("a")
    low = _commit(cluster, "a", 5)
    cluster.run(500)
    cluster.crash("b")
    last = _commit(cluster, "a", 100)
    cluster.run(1_000)
    for name in "aw":
        assert cluster.status(name).first <= low + 1, name
    cluster.start("b")
    assert cluster.run_until(lambda: cluster.status("b").applied >= last, 3_000)
    cluster.run(1_000)
    for name in "abw":
        assert cluster.status(name).first > low + 1, name
    assert cluster.count(EventName.CANNOT_FEED) == 0


@pytest.mark.parametrize("seed", range(10))
def test_a_witness_can_always_feed_what_a_full_voter_lacks(seed: int) -> None:
    """W2: whatever a committed with the witness alone is still there for b."""
    cluster = Cluster({"a": FULL, "b": FULL, "w": WITNESS}, seed, truncate_entries_min=1, keep_entries=0)
    cluster.elect("a")
    _commit(cluster, "a", 10 + seed)
    cluster.isolate("b")
    last = _commit(cluster, "a", 10)
    cluster.crash("a")
    cluster.heal()
    assert cluster.run_until(lambda: cluster.leader() == "b", 8 * 1.5 * ELECTION_MS)
    assert cluster.status("b").last > last
    assert cluster.count(EventName.CANNOT_FEED) == 0
    cluster.settle()
    cluster.check_nothing_lost()


CAPPED = {**SMALL, "keep_bytes": 1_000, "truncate_bytes_min": 1_000, "log_bytes_max": 10_000}


def test_at_the_log_cap_proposals_are_refused_until_the_lagging_voter_returns() -> None:
    """W3."""
    cluster = Cluster({"a": FULL, "b": FULL, "w": WITNESS}, **CAPPED)
    cluster.elect("a")
    low = _commit(cluster, "a", 5)
    cluster.run(500)
    cluster.crash("b")
    while cluster.status("a").retained_bytes < 10_000:
        _commit(cluster, "a", 1, size=100)
    assert cluster.status("a").last > low + 40
    with pytest.raises(Unavailable, match=f"log cap.* replica b, which has stored nothing after entry {low}"):
        cluster.propose("a", b"x")
    cluster.run(600_000)
    for name in "aw":
        assert cluster.status(name).first <= low + 1, "nothing is dropped silently"
    with pytest.raises(Unavailable, match="log cap"):
        cluster.propose("a", b"x")
    cluster.start("b")
    assert cluster.run_until(lambda: cluster.status("b").applied == cluster.status("a").last, 3_000)
    cluster.run(500)
    _commit(cluster, "a", 100, size=100)
    assert cluster.status("a").retained_bytes < 5_000
    cluster.settle()
    cluster.check_nothing_lost()


def test_a_proposal_larger_than_what_is_left_is_taken_while_there_is_room() -> None:
    """The last entry always stays. A second one of this size would be refused for ever, though nothing holds it."""
    cluster = Cluster("abc", **CAPPED)
    cluster.elect("a")
    for _ in range(3):
        _commit(cluster, "a", 1, size=8_000)
        cluster.run(500)
    assert cluster.status("a").retained_bytes < 10_000


def test_the_cap_names_what_is_not_committed_if_that_holds_the_log_back() -> None:
    cluster = Cluster("abc", **CAPPED)
    cluster.elect("a")
    last = _commit(cluster, "a", 5)
    cluster.run(500)
    cluster.isolate("a")
    while cluster.status("a").retained_bytes < 10_000:
        cluster.propose("a", bytes(100))
    with pytest.raises(Unavailable, match=f"log cap.* nothing after entry {last} is committed"):
        cluster.propose("a", b"x")


def test_configurations_go_with_the_entries_that_hold_them_but_for_the_one_that_still_holds() -> None:
    cluster = Cluster("abc", **SMALL)
    cluster.elect("a")
    _commit(cluster, "a", 1)
    members = cluster.configuration.members
    for number in range(3):
        cluster.change("a", (*members, cluster.add(f"l{number}", ReplicaRole.LEARNER)))
        assert cluster.run_until(lambda: cluster.status("a").configuration_committed, 2_000)
        _commit(cluster, "a", 20)
        cluster.run(500)
    core = cluster.replicas["a"].core
    assert core is not None
    (held,) = core._state.configurations
    assert held.index <= cluster.status("a").first
    assert {member.node for member in held.configuration.members} == {"a", "b", "c", "l2"}
    assert core._state.configuration == held.configuration
    cluster.crash("b")
    cluster.start("b")
    assert cluster.status("b").configuration == held.configuration
    cluster.settle()
    cluster.check_nothing_lost()


def test_a_witness_that_is_down_holds_nothing_back() -> None:
    cluster = Cluster({"a": FULL, "b": FULL, "w": WITNESS}, **CAPPED)
    cluster.elect("a")
    _commit(cluster, "a", 5)
    cluster.crash("w")
    cluster.run(2 * ELECTION_MS)
    _commit(cluster, "a", 200, size=100)
    assert cluster.status("a").retained_bytes < 5_000


def test_a_cap_below_what_is_kept_anyway_is_refused() -> None:
    with pytest.raises(ValueError, match="log cap"):
        RaftConfig(
            group=GroupId("g"),
            node=NodeId("a"),
            heartbeat_ns=Nanos(1),
            election_timeout_ns=Nanos(10),
            keep_bytes=900,
            truncate_bytes_min=100,
            log_bytes_max=1_000,
        )


@pytest.mark.parametrize("target", ["demoted", "removed"])
def test_what_a_full_voter_needs_is_kept_until_it_is_certainly_none_any_more(target: str) -> None:
    """The entry that demotes or removes it may be replaced, and then nobody could feed it."""
    cluster = Cluster("abc", truncate_entries_min=1, keep_entries=0)
    cluster.elect("a")
    cluster.run(500)
    cluster.isolate("b")
    held = cluster.status("b").last
    _commit(cluster, "a", 20)
    members = [member for member in cluster.configuration.members if member.node != "b"]
    if target == "demoted":
        members.append(Member(NodeId("b"), StoreId("store-b"), ReplicaRole.LEARNER))
    cluster.change("a", sorted(members), auto_leave=False)
    cluster.run(500)
    cluster.lose = lambda source, _target, message: source == "a" and isinstance(message, AppendRequest)
    core = cluster.replicas["a"].core
    assert core is not None
    core.leave_joint(Nanos(cluster.now))
    cluster.drain("a")
    cluster.run(900)
    assert not cluster.status("a").configuration_committed
    assert max(cluster.status(name).first for name in "ac") <= held + 1
    cluster.lose = lambda _source, _target, _message: False
    cluster.run(1_000)
    assert cluster.status("a").configuration_committed
    assert min(cluster.status(name).first for name in "ac") > held + 1
