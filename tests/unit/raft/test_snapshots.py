"""Snapshots: a learner or a witness below the log's beginning is brought up to it, whatever happens on the way."""

from collections.abc import Callable
from dataclasses import replace

import google_crc32c
import pytest
from raft_cluster import ELECTION_MS, GROUP, MS, Cluster
from raft_disk import disk_with, encode_state
from raft_receiver import TERM, Receiver

from isochrone.ids import LogIndex, Nanos, NodeId, ReplicaRole, Term, Timestamp
from isochrone.regions.raft.node import RaftNode
from isochrone.regions.raft.progress import Feed
from isochrone.regions.raft.ready import EventName
from isochrone.wire.entries import make_entry
from isochrone.wire.messages import (
    AppendRequest,
    AppendResponse,
    EntryKind,
    Heartbeat,
    InstallSnapshot,
    SnapshotChunk,
    SnapshotId,
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


@pytest.mark.parametrize("roles", [TWO_AND_WITNESS, WITH_LEARNER], ids=["witness", "learner"])
def test_a_full_window_of_lost_requests_does_not_hide_that_the_log_has_moved_on(roles: dict[str, ReplicaRole]) -> None:
    """Nothing more is sent into a full window, so nothing would ever show that what comes next was dropped."""
    away = list(roles)[-1]
    cluster = Cluster(roles, inflight_messages_max=4, **SMALL)
    cluster.elect("a")
    _commit(cluster, "a", 5)
    cluster.run(500)
    cluster.isolate(away)
    cluster.run(50)
    _commit(cluster, "a", 10)
    peer = cluster.status("a").peers[NodeId(away)]
    assert (peer.feed, peer.inflight) == (Feed.REPLICATE, 4)
    cluster.run(2 * ELECTION_MS)
    last = _commit(cluster, "a", 50)
    assert peer.next < cluster.status("a").first
    cluster.heal()
    assert cluster.run_until(_caught_up(cluster, away, last), 5_000)
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


def test_the_snapshot_for_a_learner_that_is_removed_is_freed() -> None:
    cluster = Cluster(WITH_LEARNER, **SMALL)
    _left_behind(cluster, "l")
    cluster.start("l")
    assert cluster.run_until(lambda: len(_chunks(cluster)) > 3, 5_000)
    cluster.crash("l")
    assert cluster.replicas["a"].snapshots
    cluster.change("a", (member for member in cluster.configuration.members if member.node != "l"))
    assert cluster.run_until(lambda: NodeId("l") not in cluster.status("a").peers, 60_000)
    assert not cluster.replicas["a"].snapshots


def test_a_learner_that_is_removed_and_comes_back_gets_a_snapshot_of_its_own() -> None:
    """It may come back with another store, which holds nothing of what was sent."""
    cluster = Cluster(WITH_LEARNER, **SMALL)
    last = _left_behind(cluster, "l")
    cluster.start("l")
    assert cluster.run_until(lambda: len(_chunks(cluster)) > 3, 5_000)
    cluster.cut_between("a", "l")
    cluster.change("a", (member for member in cluster.configuration.members if member.node != "l"))
    assert cluster.run_until(lambda: cluster.status("a").configuration_committed, 5_000)
    cluster.change("a", cluster.configuration.members)
    assert 1 not in cluster.replicas["a"].snapshots
    cluster.heal()
    assert cluster.run_until(_caught_up(cluster, "l", last), 20_000)
    cluster.run(500)
    assert not cluster.replicas["a"].snapshots


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


def _leader_core(cluster: Cluster) -> RaftNode:
    core = cluster.replicas["a"].core
    assert core is not None
    return core


def _now(cluster: Cluster) -> Nanos:
    return Nanos(cluster.now)


def _half_way() -> Cluster:
    """A leader a that has a chunk under way to l."""
    cluster = Cluster(WITH_LEARNER, **SMALL)
    _left_behind(cluster, "l")
    cluster.start("l")
    assert cluster.run_until(lambda: len(_chunks(cluster)) > 3, 5_000)
    return cluster


def test_a_learner_that_got_beyond_the_snapshot_is_fed_from_the_log() -> None:
    """etcd-io/raft#124: it need not acknowledge exactly the snapshot's index."""
    cluster = _half_way()
    core, status = _leader_core(cluster), cluster.status("a")
    assert status.peers[NodeId("l")].feed is Feed.SNAPSHOT
    core.step(NodeId("l"), AppendResponse(status.term, True, LogIndex(9), Term(1), LogIndex(0)), _now(cluster))
    assert core.status().peers[NodeId("l")].feed is Feed.SNAPSHOT, "the log does not reach down to there"
    core.step(NodeId("l"), AppendResponse(status.term, True, status.last, Term(1), LogIndex(0)), _now(cluster))
    peer = core.status().peers[NodeId("l")]
    assert (peer.feed, peer.next) == (Feed.REPLICATE, status.last + 1)


def test_an_answer_to_a_chunk_counts_as_contact() -> None:
    cluster = _half_way()
    core = _leader_core(cluster)
    later = Nanos(cluster.now + 500 * MS)
    core.step(NodeId("l"), SnapshotResponse(core.term, 1, 0), later)
    assert core._state.progress[NodeId("l")].last_contact == later


def test_late_and_repeated_answers_change_nothing() -> None:
    cluster = _half_way()
    core = _leader_core(cluster)
    under_way = core._state.progress[NodeId("l")].snapshot
    assert under_way is not None and under_way.chunk is not None
    end = under_way.chunk.end
    for attempt, position in ((1, 0), (1, under_way.chunk.position), (1, 10**6), (7, end)):
        core.step(NodeId("l"), SnapshotResponse(core.term, attempt, position), _now(cluster))
    assert core.ready(_now(cluster)).snapshot_reads == ()
    core.step(NodeId("l"), SnapshotResponse(core.term, 1, end), _now(cluster))
    assert len(core.ready(_now(cluster)).snapshot_reads) == 1


def test_a_full_voter_that_forgot_what_it_acknowledged_gets_no_snapshot() -> None:
    """It would be taken for a copy that it is not; it is left alone, and that is reported."""
    cluster = Cluster("abc", **SMALL)
    cluster.elect("a")
    _commit(cluster, "a", 60)
    cluster.run(500)
    cluster.crash("a")
    cluster.crash("b")
    cluster.replicas["b"].disk = disk_with(term=1)
    cluster.invariants.replaced(GROUP, NodeId("b"))
    cluster.start("b")
    cluster.run(10_000)
    assert cluster.leader() == "c"
    assert cluster.count(EventName.CANNOT_FEED) >= 1
    assert not _chunks(cluster)
    assert cluster.status("b").last == 0


# ---- one receiver, fed by hand


STATE = [(index, 1, b"%d" % index) for index in range(1, 9)]
DONE = AppendResponse(TERM, True, LogIndex(len(STATE)), TERM, LogIndex(0))


def _snapshot(receiver: Receiver, *, attempt: int = 1, index_term: int = 1, pieces: int = 3) -> list[SnapshotChunk]:
    """A snapshot up to entry 8, in pieces."""
    name = SnapshotId(TERM, attempt, LogIndex(len(STATE)), Term(index_term))
    size = -(-len(STATE) // pieces)
    made: list[SnapshotChunk] = []
    position = checksum = 0
    for start in range(0, len(STATE), size):
        data = encode_state(STATE[start : start + size])
        checksum = int(google_crc32c.extend(checksum, data))
        last = start + size >= len(STATE)
        made.append(SnapshotChunk(name, receiver.configuration, Timestamp(99), True, position, data, checksum, last))
        position += len(data)
    return made


def test_a_chunk_is_acknowledged_only_when_it_is_durable() -> None:
    receiver = Receiver(disk_with(term=5))
    first, *_ = _snapshot(receiver)
    receiver.step(InstallSnapshot(TERM, first))
    assert receiver.sent == []
    receiver.write()
    assert receiver.sent == [SnapshotResponse(TERM, 1, first.end)]
    assert receiver.disk.staged is not None and receiver.disk.staged.position == first.end


def test_a_chunk_out_of_order_is_answered_with_what_is_held() -> None:
    """camunda#4346, openraft#1113."""
    receiver = Receiver()
    first, second, third = _snapshot(receiver)
    assert receiver.give(second) == SnapshotResponse(TERM, 1, 0)
    assert receiver.give(first) == SnapshotResponse(TERM, 1, first.end)
    assert receiver.give(third) == SnapshotResponse(TERM, 1, first.end)
    assert receiver.give(first) == SnapshotResponse(TERM, 1, first.end)
    receiver.start()
    assert receiver.give(third) == SnapshotResponse(TERM, 1, first.end), "it is known also after a restart"
    assert receiver.give(second) == SnapshotResponse(TERM, 1, second.end)
    assert receiver.give(third) == DONE
    assert receiver.disk.rows == STATE


def test_a_damaged_chunk_is_not_taken() -> None:
    """camunda#57874: the checksum is that of everything up to there."""
    receiver = Receiver()
    first, second, _ = _snapshot(receiver)
    assert receiver.give(replace(first, data=first.data[:-1] + b"!")) is None
    receiver.give(first)
    assert receiver.give(replace(second, checksum=int(google_crc32c.value(second.data)))) is None
    assert receiver.give(second) == SnapshotResponse(TERM, 1, second.end)


def test_chunks_of_two_attempts_never_mix() -> None:
    """smg#837."""
    receiver = Receiver()
    first, second, _ = _snapshot(receiver)
    again = _snapshot(receiver, attempt=2)
    receiver.give(first)
    assert receiver.give(again[1]) == SnapshotResponse(TERM, 2, 0)
    assert receiver.give(again[0]) == SnapshotResponse(TERM, 2, first.end)
    assert receiver.give(second) is None, "late, of the attempt before"
    assert receiver.give(first) is None
    assert receiver.disk.staged is not None and receiver.disk.staged.id.attempt == 2
    receiver.give(again[1])
    assert receiver.give(again[2]) == DONE


def test_a_snapshot_that_brings_nothing_new_changes_nothing() -> None:
    disk = disk_with(*[1] * 10, term=5, commit=9)
    receiver = Receiver(disk)
    receiver.take()
    receiver.write()
    (chunk,) = _snapshot(receiver, pieces=1)
    assert receiver.give(chunk) == AppendResponse(TERM, True, LogIndex(9), TERM, LogIndex(0))
    assert (disk.truncated_index, disk.last_index, disk.rows) == (0, 10, [])


@pytest.mark.parametrize(("index_term", "kept"), [(1, True), (2, False)])
def test_the_log_above_a_snapshot_is_kept_only_after_the_very_same_entry(index_term: int, kept: bool) -> None:
    """T8. The suffix of the second case would follow an entry that was never committed there."""
    disk = disk_with(*[1] * 10, term=5, commit=2)
    receiver = Receiver(disk)
    (chunk,) = _snapshot(receiver, pieces=1, index_term=index_term)
    assert receiver.give(chunk) == DONE
    status = receiver.core.status()
    assert (status.first, status.last, status.commit) == (9, 10 if kept else 8, 8)
    assert (disk.truncated_index, disk.truncated_term, disk.last_index) == (8, index_term, 10 if kept else 8)
    assert status.retained_bytes == sum(len(entry.encoded) for entry in disk.entries)


def test_nothing_is_applied_before_the_snapshot_is_loaded() -> None:
    receiver = Receiver()
    (chunk,) = _snapshot(receiver, pieces=1)
    receiver.step(InstallSnapshot(TERM, chunk))
    assert receiver.loads == 0, "not before it is durable"
    receiver.write()
    assert receiver.loads == 1
    later = make_entry(index=LogIndex(9), term=TERM, kind=EntryKind.NOOP, timestamp=Timestamp(100))
    receiver.step(AppendRequest(TERM, LogIndex(8), Term(1), (later,), LogIndex(9), LogIndex(0)))
    receiver.write()
    status = receiver.core.status()
    assert (status.commit, status.applied, receiver.committed) == (9, 0, [])
    assert [receiver.core.snapshot_loaded(LogIndex(index)) for index in (7, 8, 8)] == [False, True, False]
    receiver.take()
    assert (receiver.core.status().applied, receiver.committed) == (9, [9])


def test_a_crash_before_the_switch_leaves_the_old_state_and_one_after_it_the_new() -> None:
    """T8."""
    receiver = Receiver(disk_with(1, 1, term=5, commit=2))
    *before, last = _snapshot(receiver)
    for chunk in before:
        receiver.give(chunk)
    receiver.step(InstallSnapshot(TERM, last))
    receiver.start()
    assert (receiver.core.status().last, receiver.disk.rows) == (2, [])
    assert receiver.give(last) == DONE
    receiver.start()
    status = receiver.core.status()
    assert (status.first, status.last, status.applied, status.commit) == (9, 8, 8, 8)
    assert receiver.disk.rows == STATE


def test_what_is_staged_is_given_up_when_the_log_overtakes_it() -> None:
    receiver = Receiver()
    first, *_ = _snapshot(receiver)
    receiver.give(first)
    entries = tuple(disk_with(*[1] * 9).entries)
    receiver.step(AppendRequest(TERM, LogIndex(0), Term(0), entries, LogIndex(9), LogIndex(0)))
    receiver.write()
    assert receiver.disk.staged is None


def test_a_chunk_that_the_log_overtakes_in_the_same_turn_is_not_staged() -> None:
    receiver = Receiver()
    first, second, _ = _snapshot(receiver)
    receiver.give(first)
    receiver.core.step(NodeId("a"), InstallSnapshot(TERM, second), Nanos(0))
    entries = tuple(disk_with(*[1] * 9).entries)
    receiver.step(AppendRequest(TERM, LogIndex(0), Term(0), entries, LogIndex(9), LogIndex(0)))
    (work,) = receiver.works
    assert (work.chunk, work.discard_staged) == (None, True)
    receiver.write()
    assert receiver.disk.staged is None
    assert receiver.core.status().commit == 9


def test_a_former_witness_does_not_acknowledge_a_snapshot_even_of_what_it_has_committed() -> None:
    """It would be taken for a copy of the state, and it has none."""
    disk = disk_with(*[1] * 10, term=5, commit=9)
    disk.truncated_index, disk.truncated_term, disk.entries = LogIndex(4), Term(1), disk.entries[4:]
    former = Receiver(disk)
    former.take()
    former.write()
    (chunk,) = _snapshot(former, pieces=1)
    assert former.give(chunk) is None


def test_a_witness_takes_no_state_and_a_learner_no_bare_snapshot() -> None:
    witness, learner = Receiver(name="w"), Receiver()
    (chunk,) = _snapshot(witness, pieces=1)
    bare = replace(chunk, with_state=False, data=b"", checksum=0)
    assert witness.give(chunk) is None
    assert learner.give(bare) is None
    assert witness.give(bare) == DONE
    assert (witness.core.status().first, witness.core.status().applied, witness.loads) == (9, 8, 0)
    witness.start()
    assert witness.core.status().commit == 8


def test_what_was_to_be_dropped_is_forgotten_when_a_snapshot_takes_its_place_in_the_same_write() -> None:
    """The disk takes the snapshot first, and would then be told to drop what it holds no more."""
    witness = Receiver(disk_with(*[1] * 6, term=5, commit=6), name="w")
    (chunk,) = _snapshot(witness, pieces=1)
    witness.core.step(NodeId("a"), Heartbeat(TERM, LogIndex(6), 1, LogIndex(4)), Nanos(0))
    assert witness.core.status().first == 5
    witness.step(InstallSnapshot(TERM, replace(chunk, with_state=False, data=b"", checksum=0)))
    (work,) = witness.works
    assert work.chunk is not None and work.truncate_to is None
    witness.write()
    assert (witness.core.status().first, witness.sent[-1]) == (9, DONE)


def test_a_leader_of_an_old_term_is_told_so() -> None:
    receiver = Receiver(disk_with(1, term=9))
    (chunk,) = _snapshot(receiver, pieces=1)
    answer = receiver.give(chunk)
    assert isinstance(answer, AppendResponse)
    assert (answer.term, answer.accepted, receiver.disk.rows) == (9, False, [])
