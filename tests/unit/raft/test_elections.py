"""Elections: what a vote needs, what must be durable first, and the published deadlocks of pre-vote."""

import random
from copy import deepcopy

import pytest
from raft_cluster import ELECTION_MS, MS, Cluster
from raft_disk import disk_with

from isochrone.ids import GroupId, LogIndex, Nanos, NodeId, ReplicaRole, StoreId, Term
from isochrone.ports import StoredGroup
from isochrone.regions.raft.config import RaftConfig
from isochrone.regions.raft.node import RaftNode
from isochrone.regions.raft.ready import EventName
from isochrone.regions.raft.state import Office
from isochrone.wire.messages import (
    AppendResponse,
    Configuration,
    HardState,
    Heartbeat,
    Member,
    TimeoutNow,
    VoteRequest,
    VoteResponse,
)


def _grants(cluster: Cluster, voter: str, *, pre: bool) -> list[str]:
    return [
        target
        for source, target, message in cluster.sent
        if source == voter and isinstance(message, VoteResponse) and message.granted and message.pre is pre
    ]


def _step(cluster: Cluster, source: str, target: str, message: object) -> None:
    core = cluster.replicas[target].core
    assert core is not None
    core.step(NodeId(source), message, Nanos(cluster.now))  # type: ignore[arg-type]
    cluster.drain(target)


def test_a_single_voter_leads_only_once_its_vote_is_durable() -> None:
    cluster = Cluster("a")
    cluster.hold_disk.add("a")
    cluster.run(3_000)
    assert cluster.leader() is None
    cluster.resume_disk("a")
    cluster.run_until(lambda: cluster.leader() == "a", 3_000)
    index = cluster.propose("a", b"x")
    assert cluster.run_until(lambda: cluster.committed(index), 100)


@pytest.mark.parametrize("names", ["ab", "abcd"])
def test_half_of_an_even_group_is_no_quorum(names: str) -> None:
    cluster = Cluster(names)
    cluster.elect("a")
    half = names[: len(names) // 2]
    cluster.isolate(*half)
    index = cluster.propose("a", b"x")
    cluster.run(20_000)
    assert not cluster.committed(index)
    assert cluster.leader() is None
    cluster.settle()


def test_vote_requests_leave_only_after_the_term_and_own_vote_are_durable() -> None:
    cluster = Cluster("abc")
    cluster.hold_disk.add("a")
    _step(cluster, "b", "a", TimeoutNow(Term(0)))
    assert cluster.status("a").term == 1
    requests = [m for s, _, m in cluster.sent if s == "a" and isinstance(m, VoteRequest)]
    assert requests == []
    cluster.resume_disk("a")
    requests = [m for s, _, m in cluster.sent if s == "a" and isinstance(m, VoteRequest) and not m.pre]
    assert len(requests) == 2
    stored = cluster.replicas["a"].disk.hard_state
    assert (stored.term, stored.vote) == (1, "a")


def test_a_candidate_does_not_count_its_own_vote_before_it_is_durable() -> None:
    cluster = Cluster("abcd")
    core = cluster.replicas["a"].core
    assert core is not None
    _step(cluster, "b", "a", TimeoutNow(Term(0)))
    for voter in "bc":
        core.step(NodeId(voter), VoteResponse(Term(1), granted=True, pre=False), Nanos(cluster.now))
    assert core.status().office is Office.CANDIDATE
    cluster.resume_disk("a")
    assert core.status().office is Office.LEADER


def test_the_votes_of_all_others_elect_nobody_whose_own_vote_is_not_durable() -> None:
    """They may have been given to another process of this node, which owns the disk now."""
    cluster = Cluster("abc")
    cluster.hold_disk.add("a")
    core = cluster.replicas["a"].core
    assert core is not None
    _step(cluster, "b", "a", TimeoutNow(Term(0)))
    for voter in "bc":
        core.step(NodeId(voter), VoteResponse(Term(1), granted=True, pre=False), Nanos(cluster.now))
    assert core.status().office is Office.CANDIDATE
    cluster.resume_disk("a")
    assert core.status().office is Office.LEADER


def test_a_vote_is_given_once_in_a_term_also_across_a_restart() -> None:
    cluster = Cluster("abc")
    request = VoteRequest(Term(5), LogIndex(0), Term(0), pre=False, transfer=False)
    _step(cluster, "b", "a", request)
    _step(cluster, "c", "a", request)
    cluster.resume_disk("a")
    assert _grants(cluster, "a", pre=False) == ["b"]
    cluster.crash("a")
    cluster.start("a")
    assert cluster.status("a").term == 5
    _step(cluster, "c", "a", request)
    _step(cluster, "b", "a", request)
    cluster.resume_disk("a")
    assert _grants(cluster, "a", pre=False) == ["b", "b"]


def test_a_vote_lost_with_its_write_was_never_sent() -> None:
    cluster = Cluster("abc")
    request = VoteRequest(Term(5), LogIndex(0), Term(0), pre=False, transfer=False)
    _step(cluster, "b", "a", request)
    cluster.crash("a", keep=0)
    cluster.start("a")
    assert _grants(cluster, "a", pre=False) == []
    _step(cluster, "c", "a", request)
    cluster.resume_disk("a")
    assert _grants(cluster, "a", pre=False) == ["c"]


@pytest.mark.parametrize("pre", [True, False])
@pytest.mark.parametrize("role", [ReplicaRole.FULL, ReplicaRole.WITNESS])
@pytest.mark.parametrize(
    ("last_index", "last_term", "granted"),
    [(3, 2, True), (4, 2, True), (2, 3, True), (2, 2, False), (9, 1, False)],
)
def test_only_a_log_as_new_as_the_voters_gets_its_vote(
    pre: bool, role: ReplicaRole, last_index: int, last_term: int, granted: bool
) -> None:
    cluster = Cluster(
        {"a": role, "b": ReplicaRole.FULL, "c": ReplicaRole.FULL}, disks={"a": disk_with(1, 2, 2, term=3)}
    )
    _step(cluster, "b", "a", VoteRequest(Term(4), LogIndex(last_index), Term(last_term), pre, transfer=False))
    cluster.resume_disk("a")
    assert _grants(cluster, "a", pre=pre) == (["b"] if granted else [])


def test_a_pre_vote_changes_nothing() -> None:
    cluster = Cluster("abc")
    before = cluster.status("a")
    _step(cluster, "b", "a", VoteRequest(Term(9), LogIndex(0), Term(0), pre=True, transfer=False))
    cluster.resume_disk("a")
    assert cluster.status("a") == before
    assert cluster.replicas["a"].disk.hard_state == HardState()
    granted = [m for s, _, m in cluster.sent if s == "a" and isinstance(m, VoteResponse)]
    assert granted == [VoteResponse(Term(9), granted=True, pre=True)], "a grant repeats the term that was asked about"


def test_a_follower_of_a_live_leader_ignores_votes_unless_the_leader_asked_for_them() -> None:
    cluster = Cluster("abc")
    cluster.elect("a")
    cluster.run(500)
    term = cluster.status("a").term
    for voter in "ab":
        for pre in (True, False):
            _step(cluster, "c", voter, VoteRequest(Term(term + 1), LogIndex(99), Term(99), pre, transfer=False))
        assert cluster.status(voter).term == term
    cluster.run(100)
    assert not any(isinstance(m, VoteResponse) and s in "ab" and t == "c" for s, t, m in cluster.sent)
    _step(cluster, "c", "b", VoteRequest(Term(term + 1), LogIndex(99), Term(99), pre=False, transfer=True))
    assert cluster.status("b").term == term + 1


def test_a_replica_that_was_cut_off_returns_without_a_change_of_leader_or_term() -> None:
    cluster = Cluster("abc")
    cluster.elect("a")
    term = cluster.status("a").term
    cluster.isolate("c")
    cluster.run(60_000)
    assert cluster.status("c").term == term, "pre-votes raise no term"
    cluster.heal()
    cluster.run(10_000)
    assert (cluster.leader(), cluster.status("c").term, cluster.status("c").leader) == ("a", term, "a")


def test_a_replica_stuck_in_a_higher_term_rejoins() -> None:
    cluster = Cluster("abc", disks={"c": disk_with(term=40)})
    cluster.isolate("c")
    cluster.elect("a")
    cluster.heal()
    index = cluster.propose("a", b"x")
    assert cluster.run_until(lambda: cluster.leader() is not None and cluster.status("c").commit >= index, 10_000)
    assert cluster.status("c").term > 40


@pytest.mark.parametrize("seed", range(10))
def test_a_high_term_with_a_short_log_and_a_low_term_with_a_long_log_agree(seed: int) -> None:
    """Two cohorts, neither of which can win alone: refusals must carry the higher term, and it must be adopted."""
    short, long = disk_with(1, term=9), disk_with(1, 2, 2, term=2)
    cluster = Cluster("abcd", seed, disks={"a": short, "b": deepcopy(short), "c": long, "d": deepcopy(long)})
    assert cluster.run_until(lambda: cluster.leader() is not None, 3 * 1.5 * ELECTION_MS)
    assert cluster.leader() in ("c", "d")


def test_two_pre_candidates_do_not_hold_on_to_their_lost_leader() -> None:
    cluster = Cluster("abc")
    cluster.elect("a")
    cluster.run(500)
    cluster.crash("a")
    for name in "bc":
        core = cluster.replicas[name].core
        assert core is not None
        core.campaign(Nanos(cluster.now))
        assert core.status().leader is None
        cluster.drain(name)
    assert cluster.run_until(lambda: cluster.leader() in ("b", "c"), 3 * 1.5 * ELECTION_MS)


def test_a_real_election_that_times_out_falls_back_to_a_pre_vote() -> None:
    cluster = Cluster("abc")
    cluster.isolate("a")
    _step(cluster, "b", "a", TimeoutNow(Term(0)))
    cluster.run(20 * ELECTION_MS)
    assert cluster.status("a").term == 1
    assert cluster.status("a").office is Office.PRE_CANDIDATE


def test_a_late_grant_of_an_earlier_pre_vote_elects_nobody() -> None:
    cluster = Cluster("abc", disks={"a": disk_with(term=5)})
    cluster.isolate("a")
    cluster.run_until(lambda: cluster.status("a").office is Office.PRE_CANDIDATE, 2_000)
    _step(cluster, "b", "a", VoteResponse(Term(5), granted=True, pre=True))
    _step(cluster, "b", "a", VoteResponse(Term(9), granted=True, pre=True))
    assert (cluster.status("a").term, cluster.status("a").office) == (5, Office.PRE_CANDIDATE)
    _step(cluster, "b", "a", VoteResponse(Term(6), granted=True, pre=True))
    assert (cluster.status("a").term, cluster.status("a").office) == (6, Office.CANDIDATE)


def test_a_leader_without_a_quorum_steps_down_within_one_timeout_and_is_silent_from_then_on() -> None:
    """Else it would keep a voter loyal that a connected majority needs."""
    cluster = Cluster("abcde")
    cluster.elect("a")
    cluster.run(500)
    for other in "bcd":
        cluster.cut_between("a", other)
    cluster.run(ELECTION_MS + 50)
    assert cluster.count(EventName.QUORUM_LOST) == 1
    assert not cluster.status("a").match
    mark = len(cluster.sent)
    cluster.run(10 * ELECTION_MS)
    claims = [m for s, _, m in cluster.sent[mark:] if s == "a" and not isinstance(m, VoteRequest | VoteResponse)]
    assert not any(isinstance(m, Heartbeat) for m in claims)
    assert cluster.leader() in ("b", "c", "d", "e")


def test_term_vote_and_log_survive_a_restart() -> None:
    cluster = Cluster("abc")
    cluster.elect("a")
    index = cluster.propose("a", b"kept")
    assert cluster.run_until(lambda: cluster.committed(index), 1_000)
    cluster.run(200)
    before = {name: cluster.status(name) for name in "abc"}
    for name in "abc":
        cluster.crash(name)
    for name in "abc":
        cluster.start(name)
        after = cluster.status(name)
        assert (after.term, after.last) == (before[name].term, before[name].last)
    cluster.settle()
    cluster.check_nothing_lost()


def test_a_node_that_is_not_a_member_stays_quiet() -> None:
    """A replica that comes back after it was removed has nothing to say."""
    configuration = Configuration((Member(NodeId("a"), StoreId("s"), ReplicaRole.FULL),))
    stored = StoredGroup(configuration, HardState(), LogIndex(0), Term(0), LogIndex(0), (), LogIndex(0))
    config = RaftConfig(
        group=GroupId("g"), node=NodeId("z"), heartbeat_ns=Nanos(100 * MS), election_timeout_ns=Nanos(1_000 * MS)
    )
    core = RaftNode(config, stored, (), store=StoreId("s"), rng=random.Random(1), now=Nanos(0))
    assert core.next_deadline() is None
    core.campaign(Nanos(0))
    assert core.ready(Nanos(0)).messages == ()


def test_an_answer_of_a_stranger_does_not_count() -> None:
    """What a stranger asks is answered: it may have joined by an entry that is not here yet. It has no vote here."""
    cluster = Cluster("abc")
    cluster.isolate("a")
    cluster.force_campaign("a")
    core = cluster.replicas["a"].core
    assert core is not None
    core.step(NodeId("z"), VoteResponse(Term(1), granted=True, pre=True), Nanos(cluster.now))
    core.step(NodeId("z"), VoteResponse(Term(9), granted=False, pre=True), Nanos(cluster.now))
    assert core.status().office is Office.PRE_CANDIDATE
    assert core.status().term == 0
    core.step(NodeId("b"), VoteResponse(Term(1), granted=True, pre=True), Nanos(cluster.now))
    assert core.status().office is Office.CANDIDATE


def test_a_report_of_an_older_write_does_not_make_the_own_vote_count() -> None:
    cluster = Cluster("abcd")
    cluster.hold_disk.add("a")
    core = cluster.replicas["a"].core
    assert core is not None
    _step(cluster, "b", "a", VoteRequest(Term(1), LogIndex(0), Term(0), pre=False, transfer=False))
    _step(cluster, "b", "a", TimeoutNow(Term(1)))
    for voter in "bc":
        core.step(NodeId(voter), VoteResponse(Term(2), granted=True, pre=False), Nanos(cluster.now))
    cluster.complete_write("a")
    assert core.status().office is Office.CANDIDATE
    cluster.resume_disk("a")
    assert core.status().office is Office.LEADER


def test_no_vote_is_given_in_a_term_whose_leader_is_known() -> None:
    cluster = Cluster("abc")
    cluster.isolate("a")
    _step(cluster, "b", "a", Heartbeat(Term(5), LogIndex(0), 1, LogIndex(0)))
    cluster.now += ELECTION_MS * MS
    _step(cluster, "c", "a", VoteRequest(Term(5), LogIndex(9), Term(4), pre=False, transfer=False))
    cluster.resume_disk("a")
    assert _grants(cluster, "a", pre=False) == []


def test_giving_a_vote_gives_the_candidate_a_whole_timeout() -> None:
    cluster = Cluster("abc")
    core = cluster.replicas["a"].core
    assert core is not None
    cluster.now = 999 * MS
    _step(cluster, "b", "a", VoteRequest(Term(5), LogIndex(0), Term(0), pre=False, transfer=False))
    _step(cluster, "c", "a", VoteRequest(Term(6), LogIndex(0), Term(0), pre=True, transfer=False))
    deadline = core.next_deadline()
    assert deadline is not None and deadline >= (999 + ELECTION_MS) * MS
    cluster.now += 300 * MS
    _step(cluster, "b", "a", VoteRequest(Term(5), LogIndex(0), Term(0), pre=False, transfer=False))
    deadline = core.next_deadline()
    assert deadline is not None and deadline >= cluster.now + ELECTION_MS * MS


def test_answers_to_appends_count_as_contact() -> None:
    cluster = Cluster("abc")
    cluster.elect("a")
    cluster.run(500)
    cluster.cut |= {("b", "a"), ("c", "a")}
    cluster.run(900)
    status = cluster.status("a")
    _step(cluster, "b", "a", AppendResponse(status.term, True, status.match["b"], status.term, LogIndex(0)))
    cluster.run(900)
    assert cluster.status("a").office is Office.LEADER
    cluster.run(200)
    assert cluster.status("a").office is not Office.LEADER


@pytest.mark.parametrize("sender", "bc")
def test_a_member_that_is_on_its_way_out_of_a_joint_configuration_gives_way_too(sender: str) -> None:
    b, c, leaving = (Member(NodeId(name), StoreId(f"store-{name}"), ReplicaRole.FULL) for name in "bca")
    stored = disk_with().load(Configuration((b, c), outgoing=(b, leaving)))
    settings = RaftConfig(
        group=GroupId("g"), node=leaving.node, heartbeat_ns=Nanos(MS), election_timeout_ns=Nanos(10 * MS)
    )
    core = RaftNode(settings, stored, (), store=leaving.store, rng=random.Random(1), now=Nanos(0))
    core.campaign(Nanos(0))
    core.step(NodeId(sender), VoteRequest(Term(1), LogIndex(0), Term(0), pre=True, transfer=False), Nanos(0))
    assert core.status().office is Office.FOLLOWER
