"""Replication: reconciling logs, commit rules, lost messages at every place, windows, and peers far behind."""

import random
from contextlib import suppress
from dataclasses import replace
from itertools import pairwise

import pytest
from raft_cluster import HEARTBEAT_MS, MS, Cluster
from raft_disk import disk_with

from isochrone.errors import InvariantViolation, QueueFull
from isochrone.ids import GroupId, KeyspaceId, LogIndex, Nanos, NodeId, ReplicaRole, StoreId, Term, Timestamp
from isochrone.regions.raft.config import RaftConfig
from isochrone.regions.raft.node import RaftNode
from isochrone.regions.raft.ready import EventName, Proposal
from isochrone.wire.messages import (
    AppendRequest,
    AppendResponse,
    Entry,
    EntryKind,
    Heartbeat,
    HeartbeatResponse,
    TimeoutNow,
)

FIG_7_LEADER = (1, 1, 1, 4, 4, 5, 5, 6, 6, 6)
FIG_7_FOLLOWERS = {
    "a": (1, 1, 1, 4, 4, 5, 5, 6, 6),
    "b": (1, 1, 1, 4),
    "c": (1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 6),
    "d": (1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 7, 7),
    "e": (1, 1, 1, 4, 4, 4, 4),
    "f": (1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3),
}


def _core(cluster: Cluster, name: str) -> RaftNode:
    core = cluster.replicas[name].core
    assert core is not None
    return core


def _appends(cluster: Cluster, source: str, target: str, mark: int = 0) -> list[AppendRequest]:
    return [m for s, t, m in cluster.sent[mark:] if (s, t) == (source, target) and isinstance(m, AppendRequest)]


def _drop(cluster: Cluster, source: str, target: str, duration_ms: float) -> None:
    """Lose everything one way for a while."""
    cluster.cut.add((source, target))
    cluster.run(duration_ms)
    cluster.cut.discard((source, target))


@pytest.mark.parametrize("case", FIG_7_FOLLOWERS)
def test_the_logs_of_figure_7_are_reconciled_in_few_round_trips(case: str) -> None:
    """Figure 7 of the Raft paper: one refusal for each term that differs, never one for each entry."""
    disks = {"l": disk_with(*FIG_7_LEADER, term=7), "z": disk_with(*FIG_7_FOLLOWERS[case], term=7)}
    disks["m"] = disk_with(*FIG_7_LEADER, term=7)
    cluster = Cluster("lmz", disks=disks)
    cluster.cut_between("l", "z")
    cluster.cut_between("m", "z")
    cluster.elect("l")
    cluster.heal()
    assert cluster.run_until(lambda: cluster.status("l").match["z"] == 11, 2_000)
    z = [(entry.index, entry.term) for entry in cluster.replicas["z"].disk.entries]
    assert z == list(enumerate((*FIG_7_LEADER, 8), start=1))
    refusals = sum(isinstance(m, AppendResponse) and not m.accepted and s == "z" for s, _, m in cluster.sent)
    assert refusals <= 3


def test_probing_a_long_divergent_log_takes_a_round_per_term() -> None:
    disks = {"l": disk_with(*[1] * 50, *[3] * 300, term=5), "m": disk_with(*[1] * 50, *[3] * 300, term=5)}
    disks["z"] = disk_with(*[1] * 50, *[2] * 250, term=5)
    cluster = Cluster("lmz", disks=disks)
    cluster.cut.add(("z", "l"))
    cluster.elect("l")
    cluster.cut.clear()
    assert cluster.run_until(lambda: cluster.status("z").commit == 351, 2_000)
    refusals = sum(isinstance(m, AppendResponse) and not m.accepted and s == "z" for s, _, m in cluster.sent)
    assert refusals <= 2


def test_an_entry_of_an_older_term_is_not_committed_by_counting() -> None:
    """Figure 8 of the Raft paper: the entry lies on a majority, yet a log with a higher term may still replace it."""
    cluster = Cluster("abc", disks={"a": disk_with(1, 2, term=3), "b": disk_with(1, 2, term=3), "c": disk_with(1, 3)})
    cluster.cut_between("a", "c")
    cluster.cut_between("b", "c")
    cluster.hold_disk.add("a")
    _core(cluster, "a").step(NodeId("b"), TimeoutNow(Term(3)), Nanos(cluster.now))
    cluster.drain("a")
    cluster.complete_write("a")
    # Elected by b; its no-op stays off both disks, so all that a majority is known to hold is of older terms.
    cluster.run_until(lambda: cluster.leader() == "a", 100)
    cluster.hold_disk.add("b")
    core = _core(cluster, "a")
    core.step(NodeId("b"), AppendResponse(Term(4), True, LogIndex(2), Term(4), LogIndex(0)), Nanos(cluster.now))
    cluster.drain("a")
    status = core.status()
    assert (status.match["a"], status.match["b"], status.commit) == (2, 2, 0)
    cluster.resume_disk("a")
    cluster.resume_disk("b")
    assert cluster.run_until(lambda: core.status().commit == 3, 1_000), "the no-op commits all before it"


def test_a_new_leader_appends_a_no_op_and_commits_the_old_entries_with_it() -> None:
    cluster = Cluster("abc", disks={name: disk_with(1, 1, 2) for name in "abc"})
    cluster.elect("a")
    assert cluster.run_until(lambda: cluster.status("a").commit == 4, 1_000)
    last = cluster.replicas["a"].disk.entries[-1]
    assert (last.kind, last.term, last.index) == (EntryKind.NOOP, 3, 4)


def test_a_leader_counts_itself_only_when_its_own_write_is_durable() -> None:
    cluster = Cluster("abc")
    cluster.elect("a")
    cluster.run(200)
    cluster.isolate("c")
    cluster.hold_disk.add("a")
    index = cluster.propose("a", b"x")
    cluster.run(300)
    status = cluster.status("a")
    assert (status.match["b"], status.match["a"]) == (index, index - 1)
    assert not cluster.committed(index), "b alone is no majority"
    cluster.resume_disk("a")
    assert cluster.committed(index)


def test_a_leader_commits_by_its_followers_while_its_own_write_is_under_way() -> None:
    cluster = Cluster("abc")
    cluster.elect("a")
    cluster.run(200)
    cluster.hold_disk.add("a")
    index = cluster.propose("a", b"x")
    assert cluster.run_until(lambda: cluster.committed(index), 100)
    assert cluster.status("a").match["a"] < index


def test_a_follower_acknowledges_only_what_is_durable() -> None:
    cluster = Cluster("abc")
    cluster.elect("a")
    cluster.run(200)
    cluster.hold_disk |= {"b", "c"}
    index = cluster.propose("a", b"x")
    cluster.run(500)
    assert cluster.status("b").last == index
    assert cluster.status("a").match["b"] < index
    cluster.resume_disk("b")
    assert cluster.run_until(lambda: cluster.committed(index), 100)


def test_a_late_report_of_an_overtaken_write_does_not_count() -> None:
    """ABA: entry 2 of term 2 is being written; term 3 replaces it; term 4 brings it back. The first report is stale."""
    cluster = Cluster("abc", disks={"a": disk_with(1)})
    core = _core(cluster, "a")
    first, other = disk_with(1, 2).entries[1], disk_with(1, 3).entries[1]

    def append(sender: str, term: int, entry: Entry) -> None:
        request = AppendRequest(Term(term), LogIndex(1), Term(1), (entry,), LogIndex(0), LogIndex(0))
        core.step(NodeId(sender), request, Nanos(cluster.now))

    append("b", 2, first)
    works = [core.ready(Nanos(0)).append]
    append("c", 3, other)
    works.append(core.ready(Nanos(0)).append)
    append("b", 4, first)
    works.append(core.ready(Nanos(0)).append)
    tokens = [work.token for work in works if work is not None]
    assert len(tokens) == 3
    assert len({token.epoch for token in tokens}) == 3
    core.persisted(tokens[0], Nanos(0))
    assert core.ready(Nanos(0)).events[-1].name is EventName.STALE_WRITE_REPORT
    core.persisted(tokens[1], Nanos(0))
    assert core.ready(Nanos(0)).events[-1].name is EventName.STALE_WRITE_REPORT
    core.persisted(tokens[2], Nanos(0))
    assert not core.ready(Nanos(0)).events


def test_a_short_or_late_request_removes_nothing() -> None:
    cluster = Cluster("abc")
    cluster.elect("a")
    for number in range(3):
        index = cluster.propose("a", b"%d" % number)
    assert cluster.run_until(lambda: cluster.status("b").last == index, 1_000)
    core, status = _core(cluster, "b"), cluster.status("b")
    assert status.commit < index - 1
    for previous in range(index):
        entry = cluster.replicas["a"].disk.entries[previous]
        previous_term = Term(status.term if previous else 0)
        request = AppendRequest(status.term, LogIndex(previous), previous_term, (entry,), LogIndex(0), LogIndex(0))
        core.step(NodeId("a"), request, Nanos(cluster.now))
        assert core.status().last == index


def test_an_acknowledgement_never_claims_entries_that_the_request_did_not_bring() -> None:
    """A follower with a longer, divergent log acknowledges the matched prefix only."""
    cluster = Cluster("abc", disks={"b": disk_with(1, 1, 2, 2, 2)})
    core = _core(cluster, "b")
    core.step(
        NodeId("a"), AppendRequest(Term(3), LogIndex(2), Term(1), (), LogIndex(5), LogIndex(0)), Nanos(cluster.now)
    )
    cluster.drain("b")
    cluster.resume_disk("b")
    answers = [m for s, _, m in cluster.sent if s == "b" and isinstance(m, AppendResponse)]
    assert answers == [AppendResponse(Term(3), True, LogIndex(2), Term(3), LogIndex(0))]
    assert core.status().commit == 2


def test_a_lost_append_is_repaired_after_the_next_heartbeat() -> None:
    cluster = Cluster("abc")
    cluster.elect("a")
    cluster.run(500)
    index = cluster.propose("a", b"x")
    cluster.cut |= {("a", "b"), ("a", "c")}
    cluster.run(15)
    cluster.heal()
    assert cluster.run_until(lambda: cluster.committed(index), 3 * HEARTBEAT_MS)


def test_a_lost_probe_is_sent_again_with_its_entries() -> None:
    cluster = Cluster("abc", jitter_ms=0)
    cluster.elect("a")
    cluster.cut |= {("a", "b"), ("a", "c")}
    cluster.run(50)
    cluster.heal()
    assert cluster.status("a").commit == 0
    mark = len(cluster.sent)
    assert cluster.run_until(lambda: cluster.status("a").commit == 1, 3 * HEARTBEAT_MS)
    assert len(_appends(cluster, "a", "b", mark)) == 1


@pytest.mark.parametrize("direction", [("a", "b"), ("b", "a")])
@pytest.mark.parametrize("duration_ms", [5, 15, 30, 60, 120, 400])
@pytest.mark.parametrize("burst", [1, 40])
def test_whatever_is_lost_between_two_replicas_the_stream_resumes(
    direction: tuple[str, str], duration_ms: float, burst: int
) -> None:
    """Also the first probe of a term, and a whole window."""
    cluster = Cluster("ab", inflight_messages_max=8, append_bytes_max=200, jitter_ms=0)
    cluster.elect("a")
    for round_ in range(8):
        cluster.run(round_ * 13)
        index = max(cluster.propose("a", b"%d" % number) for number in range(burst))
        _drop(cluster, *direction, duration_ms)
        assert cluster.run_until(lambda i=index: cluster.committed(i), 6 * HEARTBEAT_MS)  # type: ignore[misc]
    assert cluster.count(EventName.BECAME_LEADER) == 1


def test_the_window_bounds_what_is_unacknowledged_and_reopens() -> None:
    cluster = Cluster("abc", inflight_messages_max=4, append_bytes_max=100)
    cluster.elect("a")
    cluster.run(200)
    cluster.cut.add(("b", "a"))
    mark = len(cluster.sent)
    for number in range(100):
        cluster.propose("a", b"%060d" % number)
    cluster.run(60)
    unanswered = [m for m in _appends(cluster, "a", "b", mark) if m.entries]
    assert len(unanswered) == 4
    cluster.heal()
    assert cluster.run_until(lambda: cluster.status("a").match["b"] == 101, 3_000)


def test_the_window_bounds_bytes() -> None:
    cluster = Cluster("abc", inflight_bytes_max=1_000, append_bytes_max=300)
    cluster.elect("a")
    cluster.run(200)
    cluster.cut.add(("b", "a"))
    mark = len(cluster.sent)
    for _ in range(100):
        cluster.propose("a", b"x" * 200)
    cluster.run(60)
    sent = sum(len(entry.encoded) for m in _appends(cluster, "a", "b", mark) for entry in m.entries)
    assert 700 < sent <= 1_300


def test_uncommitted_bytes_are_bounded_and_released_by_commits() -> None:
    cluster = Cluster("abc", uncommitted_bytes_max=1_000)
    cluster.elect("a")
    cluster.run(200)
    cluster.cut |= {("a", "b"), ("a", "c")}
    accepted = 0
    with suppress(QueueFull):
        while accepted < 100:
            cluster.propose("a", b"x" * 100)
            accepted += 1
    assert 5 <= accepted < 15
    held = cluster.status("a").last
    cluster.heal()
    assert cluster.run_until(lambda: cluster.status("a").commit == held, 2_000)
    cluster.propose("a", b"x" * 100)


def test_memory_is_bounded_while_the_leaders_own_disk_hangs() -> None:
    """Its followers commit without it, but what is not on its disk cannot leave its memory."""
    cluster = Cluster("abc", uncommitted_bytes_max=2_000, cache_bytes_max=1_000)
    cluster.elect("a")
    cluster.run(200)
    cluster.hold_disk.add("a")
    accepted = 0
    with suppress(QueueFull):
        while accepted < 100:
            cluster.propose("a", b"x" * 100)
            cluster.run(30)
            accepted += 1
    assert 20 <= accepted < 50
    assert cluster.status("a").commit == cluster.status("a").last
    cluster.resume_disk("a")
    cluster.propose("a", b"x")


def test_a_peer_far_behind_is_fed_from_storage() -> None:
    cluster = Cluster("abc", cache_bytes_max=500)
    cluster.elect("a")
    cluster.isolate("c")
    for number in range(100):
        cluster.propose("a", b"%d" % number)
        cluster.run(25)
    cluster.heal()
    assert cluster.run_until(lambda: cluster.status("c").last == cluster.status("a").last, 5_000)
    assert cluster.replicas["a"].fetches >= 3
    cluster.settle()
    cluster.check_nothing_lost()


def test_nothing_is_evicted_that_storage_cannot_give_back() -> None:
    """Applied entries may not be durable on the leader itself yet; a peer that needs them is fed from memory."""
    cluster = Cluster("abcde", cache_bytes_max=100)
    cluster.elect("a")
    cluster.run(200)
    cluster.isolate("e")
    cluster.hold_disk.add("a")
    for number in range(30):
        cluster.propose("a", b"%d" % number)
        cluster.run(25)
    assert cluster.status("a").applied == cluster.status("a").last > cluster.status("a").match["a"]
    cluster.heal()
    assert cluster.run_until(lambda: cluster.status("a").match["e"] == cluster.status("a").last, 3_000)


def test_entries_fetched_for_an_earlier_leadership_do_no_harm() -> None:
    cluster = Cluster("abc", cache_bytes_max=500, fetch_ms=5_000)
    cluster.elect("a")
    cluster.isolate("c")
    for number in range(60):
        cluster.propose("a", b"%d" % number)
        cluster.run(25)
    cluster.heal()
    assert cluster.run_until(lambda: cluster.replicas["a"].fetches > 0, 2_000)
    cluster.isolate("a")
    assert cluster.run_until(lambda: cluster.leader() in ("b", "c"), 5_000)
    cluster.settle(300_000)
    cluster.check_nothing_lost()


def test_a_heartbeat_never_names_a_commit_index_beyond_what_its_receiver_is_known_to_hold() -> None:
    """The follower's own entries there may be of another term, and it cannot tell."""
    disks = {"a": disk_with(1, 3, 3, 3), "b": disk_with(1, 3, 3, 3), "c": disk_with(1, 2, 2, 2, 2, 2, term=3)}
    cluster = Cluster("abc", disks=disks)
    cluster.isolate("c")
    cluster.elect("a")
    assert cluster.run_until(lambda: cluster.status("a").commit == 5, 1_000)
    mark = len(cluster.sent)
    cluster.heal()
    cluster.settle()
    first = next(m for _, t, m in cluster.sent[mark:] if t == "c" and isinstance(m, Heartbeat))
    assert (first.commit, cluster.status("c").commit) == (0, 5)
    assert [record[1] for record in cluster.replicas["c"].applied] == [1, 3, 3, 3, 4]


def test_answers_to_read_rounds_do_not_multiply_probes() -> None:
    cluster = Cluster("abc")
    cluster.elect("a")
    cluster.run(500)
    cluster.hold_disk |= {"b", "c"}
    cluster.propose("a", b"x" * 1_000)
    mark = len(cluster.sent)
    for _ in range(50):
        cluster.read("a")
        cluster.run(2)
    cluster.run(20)
    answers = sum(isinstance(m, HeartbeatResponse) and s == "b" for s, _, m in cluster.sent[mark:])
    assert answers > 40
    assert len(_appends(cluster, "a", "b", mark)) <= 4


def test_followers_of_a_quiet_group_learn_a_commit_at_once() -> None:
    cluster = Cluster("abc", jitter_ms=0)
    cluster.elect("a")
    cluster.run(500)
    index = cluster.propose("a", b"x")
    assert cluster.run_until(lambda: cluster.status("b").applied == index, 40)


def test_timestamps_rise_along_the_log_whatever_the_clocks_say() -> None:
    cluster = Cluster("abc")
    cluster.elect("a")
    core = _core(cluster, "a")
    for timestamp in (50, 10, 10**15, 7):
        core.propose([Proposal(KeyspaceId("k/"), b"x", 3, Timestamp(timestamp))])
    cluster.drain("a")
    cluster.run(200)
    cluster.crash("a")
    assert cluster.run_until(lambda: cluster.leader() in ("b", "c"), 5_000)
    cluster.propose(cluster.leader() or "", b"y")
    cluster.settle()
    entries = cluster.replicas["b"].disk.entries
    for before, after in pairwise(entries):
        assert after.timestamp > before.last_timestamp


def test_a_proposal_of_many_is_refused_as_a_whole() -> None:
    cluster = Cluster("a", uncommitted_bytes_max=100)
    cluster.elect("a")
    cluster.hold_disk.add("a")
    cluster.propose("a", b"x" * 60)
    last = cluster.status("a").last
    proposals = [Proposal(KeyspaceId("k/"), b"y" * 20, 1, Timestamp(0))] * 4
    with pytest.raises(QueueFull):
        _core(cluster, "a").propose(proposals)
    assert cluster.status("a").last == last


def test_a_follower_commits_only_what_the_request_matched() -> None:
    """What follows in its own log may be the rest of an older term, which the leader has replaced."""
    cluster = Cluster("abc", disks={"b": disk_with(1, 1, 1)})
    request = AppendRequest(Term(2), LogIndex(1), Term(1), (), LogIndex(3), LogIndex(0))
    _core(cluster, "b").step(NodeId("a"), request, Nanos(cluster.now * MS))
    assert cluster.status("b").commit == 1


def test_a_stored_commit_index_beyond_the_log_is_refused() -> None:
    with pytest.raises(InvariantViolation, match="committed lies within"):
        Cluster("abc", disks={"a": disk_with(1, commit=2)})


def test_two_leaders_of_one_term_are_noticed() -> None:
    cluster = Cluster("abc")
    cluster.elect("a")
    with pytest.raises(InvariantViolation, match="leads group"):
        _core(cluster, "a").step(
            NodeId("b"), Heartbeat(cluster.status("a").term, LogIndex(0), 1, LogIndex(0)), Nanos(cluster.now * MS)
        )


def _news(cluster: Cluster, mark: int) -> list[tuple[str, int]]:
    """Who was told of which commit index, by a message of its own."""
    return [(t, m.commit) for _, t, m in cluster.sent[mark:] if isinstance(m, Heartbeat) and m.round == 0]


def _slow_c() -> Cluster:
    """Led by a, between two heartbeats that are long apart; c acknowledges last."""
    cluster = Cluster(
        "abc",
        delay_ms=lambda source, target: 30.0 if "c" in (source, target) else 10.0,
        heartbeat_ms=400,
        election_ms=4000,
    )
    cluster.elect("a")
    cluster.run(500)
    return cluster


def test_the_last_to_acknowledge_is_told_of_the_commit_at_once() -> None:
    cluster = _slow_c()
    mark = len(cluster.sent)
    cluster.propose("a", b"x")
    cluster.run(99)
    last = cluster.status("a").last
    assert _news(cluster, mark) == [("b", last), ("c", last)]
    assert cluster.status("c").commit == last


def test_whom_entries_tell_of_a_commit_is_told_of_it_only_once() -> None:
    cluster = _slow_c()
    mark = len(cluster.sent)
    cluster.propose("a", b"x")
    cluster.run(30)
    first = cluster.status("a").last
    assert cluster.status("a").commit == first
    cluster.propose("a", b"y")
    cluster.run(130)
    assert _news(cluster, mark) == [("b", first), ("b", first + 1), ("c", first + 1)]


@pytest.mark.parametrize("witness_ms", [5.0, 20.0], ids=["first to acknowledge", "last"])
def test_a_witness_hears_of_commits_without_messages_of_its_own(witness_ms: float) -> None:
    roles = {"a": ReplicaRole.FULL, "b": ReplicaRole.FULL, "w": ReplicaRole.WITNESS}
    cluster = Cluster(roles, delay_ms=lambda source, target: witness_ms if "w" in (source, target) else 10.0)
    cluster.elect("a")
    cluster.run(500)
    mark = len(cluster.sent)
    cluster.propose("a", b"x")
    cluster.run(70)
    assert _news(cluster, mark) == [("b", cluster.status("a").last)]


def _unasked_b() -> Cluster:
    """As `_slow_c`, and nobody waits at b for what is committed, which the leader knows."""
    cluster = _slow_c()
    assert not _core(cluster, "b").want_news(False)
    cluster.propose("a", b"w")
    cluster.run(60)
    return cluster


def test_a_follower_where_nobody_waits_hears_of_a_commit_with_other_messages() -> None:
    cluster = _unasked_b()
    mark, told = len(cluster.sent), cluster.status("b").commit
    cluster.propose("a", b"x")
    cluster.run(99)
    last = cluster.status("a").commit
    assert (last, cluster.status("b").commit) == (told + 2, told + 1), "what was committed before came with the entry"
    assert ("b", last) not in _news(cluster, mark)
    cluster.run(500)
    assert cluster.status("b").commit == last, "and the heartbeat tells the rest"


def test_a_follower_where_somebody_begins_to_wait_hears_at_once_of_what_it_holds_and_what_follows() -> None:
    cluster = _unasked_b()
    mark, last = len(cluster.sent), cluster.status("a").commit
    assert cluster.status("b").commit < last
    assert _core(cluster, "b").want_news(True)
    cluster.drain("b")
    cluster.run(30)
    assert cluster.status("b").commit == last
    assert [commit for who, commit in _news(cluster, mark) if who == "b"] == [last]
    cluster.propose("a", b"x")
    cluster.run(60)
    assert cluster.status("b").commit == last + 1


def test_who_has_nothing_to_hear_of_asks_for_nothing() -> None:
    cluster = _slow_c()
    for name in "abc":
        assert not _core(cluster, name).want_news(False)
        assert not _core(cluster, name).want_news(True)


def test_a_replica_restarts_from_what_it_has_applied() -> None:
    """The applied index may be ahead of the stored commit index, which rides along with later writes only."""
    disk = disk_with(1, 1, 1, 2, commit=1)
    configuration = Cluster("a").configuration
    stored = replace(disk.load(configuration), applied=LogIndex(3))
    config = RaftConfig(
        group=GroupId("g"), node=NodeId("a"), heartbeat_ns=Nanos(1), election_timeout_ns=Nanos(10 * HEARTBEAT_MS * MS)
    )
    core = RaftNode(config, stored, disk.entries[3:], store=StoreId("store-a"), rng=random.Random(1), now=Nanos(0))
    assert (core.status().commit, core.status().applied) == (3, 3)
    core.campaign(Nanos(0))
    work = core.ready(Nanos(0)).append
    assert work is not None
    core.persisted(work.token, Nanos(0))
    work = core.ready(Nanos(0)).append
    assert work is not None
    core.persisted(work.token, Nanos(0))
    assert [entry.index for entry in core.ready(Nanos(0)).committed] == [4, 5]


def test_a_replica_whose_memory_would_start_above_what_it_applied_is_refused() -> None:
    disk = disk_with(1, 1, 1, 2, commit=1)
    stored = disk.load(Cluster("a").configuration)
    config = RaftConfig(group=GroupId("g"), node=NodeId("a"), heartbeat_ns=Nanos(1), election_timeout_ns=Nanos(10))
    with pytest.raises(InvariantViolation, match="tail"):
        RaftNode(config, stored, disk.entries[2:], store=StoreId("store-a"), rng=random.Random(1), now=Nanos(0))
