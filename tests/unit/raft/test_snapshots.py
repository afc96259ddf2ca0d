"""Snapshots: a learner or a witness below the log's beginning is brought up to it, whatever happens on the way."""

from collections.abc import Callable

import pytest
from raft_cluster import ELECTION_MS, MS, Cluster

from isochrone.ids import NodeId, ReplicaRole, Timestamp
from isochrone.regions.raft.progress import Feed
from isochrone.regions.raft.ready import EventName
from isochrone.wire.messages import (
    AppendRequest,
    InstallSnapshot,
    SnapshotChunk,
    SnapshotResponse,
)

FULL, WITNESS, LEARNER = ReplicaRole.FULL, ReplicaRole.WITNESS, ReplicaRole.LEARNER
WITH_LEARNER = {"a": FULL, "b": FULL, "c": FULL, "l": LEARNER}
TWO_AND_WITNESS = {"a": FULL, "b": FULL, "w": WITNESS}
SMALL = {"truncate_entries_min": 4, "keep_entries": 10, "snapshot_chunk_bytes": 60}


def _commit(cluster: Cluster, leader: str, count: int) -> int:
    for number in range(count):
        index = cluster.propose(leader, b"%d" % number)
        assert cluster.run_until(lambda i=index: cluster.committed(i), 2_000)  # type: ignore[misc]
    return index


def _left_behind(cluster: Cluster, name: str, count: int = 100) -> int:
    """`name` is down until the log of no other replica reaches down to it; returns the last index."""
    cluster.elect("a")
    _commit(cluster, "a", 5)
    cluster.run(500)
    cluster.crash(name)
    cluster.run(2 * ELECTION_MS)
    last = _commit(cluster, "a", count)
    cluster.run(500)
    for other in cluster.members():
        if other != name:
            assert cluster.status(other).first > cluster.replicas[name].disk.last_index + 1, other
    return last


def _chunks(cluster: Cluster) -> list[SnapshotChunk]:
    return [message.chunk for _, _, message in cluster.sent if isinstance(message, InstallSnapshot)]


def _caught_up(cluster: Cluster, name: str, last: int) -> Callable[[], bool]:
    return lambda: cluster.replicas[name].core is not None and cluster.status(name).applied >= last


def test_a_learner_behind_the_truncated_log_gets_a_snapshot_rather_than_a_bad_append() -> None:
    cluster = Cluster(WITH_LEARNER, **SMALL)
    last = _left_behind(cluster, "l")
    mark = len(cluster.sent)
    cluster.start("l")
    assert cluster.run_until(_caught_up(cluster, "l", last), 5_000)
    installed = [event for event in cluster.replicas["l"].events if event.name is EventName.SNAPSHOT_INSTALLED]
    assert len(installed) == 1
    assert cluster.status("l").first >= installed[0].index + 1
    first = min(cluster.status(name).first for name in "abc")
    for _, target, message in cluster.sent[mark:]:
        if target == "l" and isinstance(message, AppendRequest):
            assert message.previous_index >= first - 1
    chunks = _chunks(cluster)
    assert len(chunks) > 5
    assert [chunk.last for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    assert cluster.status("a").peers[NodeId("l")].feed is Feed.REPLICATE
    assert not cluster.replicas["a"].snapshots, "the store's snapshot is closed"
    _commit(cluster, "a", 20)
    cluster.settle()
    cluster.check_nothing_lost()
    cluster.crash("l")
    cluster.start("l")
    assert cluster.status("l").applied >= installed[0].index


def test_full_voters_never_get_a_snapshot() -> None:
    cluster = Cluster(WITH_LEARNER, **SMALL)
    cluster.elect("a")
    _commit(cluster, "a", 5)
    cluster.crash("b")
    last = _commit(cluster, "a", 100)
    cluster.start("b")
    assert cluster.run_until(_caught_up(cluster, "b", last), 3_000)
    assert not _chunks(cluster)


def test_a_witness_below_the_truncation_point_gets_index_term_and_configuration_only() -> None:
    cluster = Cluster(TWO_AND_WITNESS, **SMALL)
    last = _left_behind(cluster, "w")
    truncated = cluster.status("a").first - 1
    cluster.start("w")
    assert cluster.run_until(lambda: cluster.status("w").last >= last, 3_000)
    (chunk,) = _chunks(cluster)
    assert (chunk.id.index, chunk.with_state, chunk.data) == (truncated, False, b"")
    assert chunk.configuration == cluster.configuration
    assert cluster.status("w").first == truncated + 1, "all that the leader still holds, and no more"
    cluster.settle()
    # It can take its part: b lacks what a commits with w alone, and w has it.
    cluster.isolate("b")
    index = _commit(cluster, "a", 5)
    cluster.crash("a")
    cluster.heal()
    assert cluster.run_until(lambda: cluster.leader() == "b", 8 * 1.5 * ELECTION_MS)
    assert cluster.status("b").last > index
    cluster.settle()
    cluster.check_nothing_lost()


def test_timestamps_rise_above_those_that_a_snapshot_stands_for() -> None:
    """After the install the log is empty, and even a restart must not forget how far its timestamps went."""
    cluster = Cluster({"a": FULL, "w": WITNESS, "b": FULL}, **SMALL)
    _left_behind(cluster, "w")
    cluster.start("w")
    cluster.replicas["w"].disk.base_timestamp = Timestamp(0)
    assert cluster.run_until(lambda: cluster.replicas["w"].disk.base_timestamp > 0, 3_000)
    (chunk,) = _chunks(cluster)
    assert chunk.timestamp >= max(entry.last_timestamp for entry in cluster.replicas["a"].disk.entries)


@pytest.mark.parametrize("seed", range(8))
def test_lost_repeated_and_reordered_chunks_make_no_difference(seed: int) -> None:
    """T8."""
    cluster = Cluster(WITH_LEARNER, seed, **SMALL)
    last = _left_behind(cluster, "l")
    cluster.start("l")
    cluster.loss, cluster.duplication, cluster.jitter_ms = 0.2, 0.3, 150
    assert cluster.run_until(lambda: cluster.count(EventName.SNAPSHOT_INSTALLED) > 0, 120_000)
    cluster.settle()
    assert cluster.status("l").applied >= last
    cluster.check_nothing_lost()


@pytest.mark.parametrize("kept", [0, 1], ids=["before", "after"])
def test_a_crash_of_the_receiver_at_any_write_resumes_where_it_was(kept: int) -> None:
    """T8: also before and after the switch. What was durable is not sent again."""
    position = 0
    installs = 0
    while True:
        cluster = Cluster(WITH_LEARNER, disk_ms=4, **SMALL)
        last = _left_behind(cluster, "l")
        writes = 0

        def crash_there(name: str, cluster: Cluster = cluster, at: int = position) -> None:
            nonlocal writes
            if name == "l":
                writes += 1
                if writes == at + 1:
                    cluster.crash("l", keep=kept)
                    cluster.at(cluster.now + 50 * MS, lambda: cluster.start("l"))

        cluster.start("l")
        cluster.on_write = crash_there
        assert cluster.run_until(_caught_up(cluster, "l", last), 20_000)
        starts = [chunk.position for chunk in _chunks(cluster)]
        ends = {chunk.end for chunk in _chunks(cluster) if not chunk.last}
        assert starts == sorted(starts), "never back to what was acknowledged"
        assert starts[-1] in ends
        attempts = {chunk.id.attempt for chunk in _chunks(cluster)}
        assert len(attempts) == 1, "the same attempt goes on"
        installs += 1
        cluster.check_nothing_lost()
        if writes <= position:
            break
        position += 1
    assert installs > 10


@pytest.mark.parametrize("seed", range(5))
def test_a_leader_that_changes_half_way_begins_a_snapshot_of_its_own(seed: int) -> None:
    """T8: chunks of two snapshots never mix; the disk of the harness checks what it is given."""
    cluster = Cluster(WITH_LEARNER, seed, disk_ms=4, **SMALL)
    last = _left_behind(cluster, "l")
    cluster.start("l")
    assert cluster.run_until(lambda: len(_chunks(cluster)) > 3, 5_000)
    cluster.crash("a")
    assert cluster.run_until(_caught_up(cluster, "l", last), 20_000)
    ids = [chunk.id for chunk in _chunks(cluster)]
    assert len({name.term for name in ids}) == 2
    restarted = next(chunk for chunk in _chunks(cluster) if chunk.id.term == ids[-1].term)
    assert restarted.position == 0
    cluster.settle()
    cluster.check_nothing_lost()


def test_an_attempt_without_an_answer_is_given_up_and_begun_anew() -> None:
    cluster = Cluster(WITH_LEARNER, **SMALL)
    last = _left_behind(cluster, "l")
    cluster.start("l")
    assert cluster.run_until(lambda: len(_chunks(cluster)) > 3, 5_000)
    cluster.crash("l")
    cluster.run(20 * ELECTION_MS)
    assert cluster.replicas["a"].snapshots, "a learner that restarts soon goes on with the same snapshot"
    cluster.run(15 * ELECTION_MS)
    assert not cluster.replicas["a"].snapshots, "what the store holds for it is freed"
    assert cluster.count(EventName.SNAPSHOT_GIVEN_UP) == 1
    _commit(cluster, "a", 30)
    assert cluster.count(EventName.SNAPSHOT_BEGUN) == 1, "nothing is begun for a peer that is silent"
    cluster.start("l")
    assert cluster.run_until(_caught_up(cluster, "l", last), 5_000)
    assert {chunk.id.attempt for chunk in _chunks(cluster)} == {1, 2}


def test_a_leader_drops_nothing_that_follows_a_snapshot_under_way() -> None:
    """Or a busy log would outrun the learner from one snapshot to the next."""
    cluster = Cluster(WITH_LEARNER, fetch_ms=80, **SMALL)
    _left_behind(cluster, "l")
    cluster.start("l")
    assert cluster.run_until(lambda: len(_chunks(cluster)) > 1, 5_000)
    index = _chunks(cluster)[0].id.index
    while cluster.count(EventName.SNAPSHOT_INSTALLED) == 0:
        cluster.propose("a", b"more")
        cluster.run(20)
        assert cluster.status("a").first <= index + 1
    cluster.run(1_000)
    assert cluster.status("b").first > index + 1, "others do not wait for it"
    assert cluster.count(EventName.SNAPSHOT_BEGUN) == 1
    _commit(cluster, "a", 20)
    cluster.settle()
    assert cluster.status("a").first > index + 1
    cluster.check_nothing_lost()


def test_receiving_a_snapshot_counts_as_contact() -> None:
    """With one voter down, the leader of two lives on the answers of the other; a learner's do not depose it."""
    cluster = Cluster({"a": FULL, "l": LEARNER}, disk_ms=300, **SMALL)
    last = _left_behind(cluster, "l", 40)
    cluster.start("l")
    assert cluster.run_until(_caught_up(cluster, "l", last), 60_000)
    assert cluster.count(EventName.BECAME_LEADER) == 1
    contact = [m for s, _, m in cluster.sent if s == "l" and isinstance(m, SnapshotResponse)]
    assert contact
