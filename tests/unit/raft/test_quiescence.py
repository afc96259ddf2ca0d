"""Groups that sleep: when one replica falls asleep, what wakes it, and where its timers then stand.

There is no host here, so nobody watches the sleepers: the tests wake them by hand where a host would.
"""

from collections.abc import Callable
from dataclasses import replace

import pytest
from raft_cluster import ELECTION_MS, HEARTBEAT_MS, MS, Cluster

from isochrone.errors import Unavailable
from isochrone.ids import LogIndex, Nanos, NodeId, ReplicaRole, Term
from isochrone.regions.raft.node import RaftNode
from isochrone.regions.raft.ready import EventName, Slumber
from isochrone.wire.messages import (
    AppendRequest,
    AppendResponse,
    Configuration,
    Heartbeat,
    HeartbeatResponse,
    Quiesce,
    RaftMessage,
    TimeoutNow,
    VoteRequest,
)

FULL, WITNESS, LEARNER = ReplicaRole.FULL, ReplicaRole.WITNESS, ReplicaRole.LEARNER
OTHERS = {"d": WITNESS, "e": LEARNER}
T_NS = ELECTION_MS * MS


def _cluster(roles: dict[str, ReplicaRole] | str = "abc", *, after_ms: int = ELECTION_MS, **options: float) -> Cluster:
    cluster = Cluster(roles, quiesce_after_ns=after_ms * MS, **options)  # type: ignore[arg-type]
    cluster.elect("a")
    return cluster


def _asleep(roles: dict[str, ReplicaRole] | str = "abc", **options: float) -> Cluster:
    cluster = _cluster(roles, **options)
    assert cluster.run_until(lambda: all(_sleeps(cluster)), 5_000)
    return cluster


def _sleeps(cluster: Cluster) -> list[bool]:
    return [replica.core.quiescent for replica in cluster.replicas.values() if replica.core is not None]


def _core(cluster: Cluster, name: str) -> RaftNode:
    core = cluster.replicas[name].core
    assert core is not None
    return core


def _step(cluster: Cluster, target: str, sender: str, message: RaftMessage) -> None:
    _core(cluster, target).step(NodeId(sender), message, Nanos(cluster.now))
    cluster.drain(target)


def _wake(cluster: Cluster, name: str, heard_ms_ago: dict[str, float]) -> None:
    heard = {node: cluster.now - round(ms * MS) for node, ms in heard_ms_ago.items()}
    _core(cluster, name).wake(Nanos(cluster.now), lambda node: Nanos(heard[node]))
    cluster.drain(name)


@pytest.mark.parametrize("roles", ["a", "abc", {"a": FULL, "b": FULL, "c": FULL} | OTHERS], ids=["one", "three", "all"])
def test_an_idle_group_falls_silent_and_stays_so(roles: dict[str, ReplicaRole] | str) -> None:
    cluster = _asleep(roles)
    words = [target for _, target, message in cluster.sent if isinstance(message, Quiesce)]
    assert words == [name for name in cluster.replicas if name != "a"]
    cluster.run(HEARTBEAT_MS)
    sent = len(cluster.sent)
    cluster.run(3_600_000)
    assert len(cluster.sent) == sent
    assert all(_sleeps(cluster))
    assert all(_core(cluster, name).next_deadline() is None for name in cluster.replicas)
    assert (cluster.leader(), cluster.status("a").term) == ("a", 1)


def test_who_sleeps_runs_no_timer() -> None:
    """Not even when ticked: a host may tick early, late or for nothing."""
    cluster = _asleep({"a": FULL, "b": FULL, "c": FULL} | OTHERS)
    cluster.run(60_000)
    sent = len(cluster.sent)
    for name in cluster.replicas:
        _core(cluster, name).tick(Nanos(cluster.now))
        cluster.drain(name)
    assert len(cluster.sent) == sent
    assert all(_sleeps(cluster))


def test_a_group_sleeps_only_after_the_time_without_work() -> None:
    cluster = _cluster(after_ms=700)
    for _ in range(10):
        cluster.run(600)
        index = cluster.propose("a", b"x")
        assert cluster.run_until(lambda index=index: cluster.committed(index), 100)
        assert not any(_sleeps(cluster))
    began = cluster.now
    assert cluster.run_until(lambda: all(_sleeps(cluster)), 2_000)
    assert 600 * MS <= cluster.now - began <= (700 + 2 * HEARTBEAT_MS) * MS


def test_a_read_is_work() -> None:
    cluster = _cluster(after_ms=700)
    for _ in range(10):
        cluster.run(600)
        cluster.read("a")
        assert not any(_sleeps(cluster))


def test_a_group_without_the_setting_never_sleeps() -> None:
    cluster = Cluster("abc")
    cluster.elect("a")
    cluster.run(20_000)
    assert not any(isinstance(message, Quiesce) for _, _, message in cluster.sent)


def _propose(cluster: Cluster) -> None:
    cluster.propose("a", b"x")


def _read(cluster: Cluster) -> None:
    cluster.read("a")


def _transfer(cluster: Cluster) -> None:
    _core(cluster, "a").transfer_leadership(NodeId("b"), Nanos(cluster.now))
    cluster.drain("a")


@pytest.mark.parametrize("work", [_propose, _read, _transfer])
def test_work_wakes_everyone_and_is_done(work: Callable[[Cluster], None]) -> None:
    cluster = _asleep({"a": FULL, "b": FULL, "c": FULL} | OTHERS)
    cluster.run(60_000)
    work(cluster)
    cluster.run(100)
    assert not any(_sleeps(cluster))
    assert cluster.leader() == ("b" if work is _transfer else "a")
    assert cluster.committed(2) is (work is _propose)
    assert list(cluster.replicas["a"].reads) == ([0] if work is _read else [])
    assert cluster.run_until(lambda: all(_sleeps(cluster)), 5_000), "and then they sleep again"


def test_a_learner_of_a_group_that_sleeps_is_promoted() -> None:
    """It sleeps and holds everything, so it is not taken for one that does not answer."""
    cluster = _asleep({"a": FULL, "b": FULL, "c": FULL} | OTHERS)
    cluster.run(60_000)
    promoted = [replace(each, role=FULL) if each.node == "e" else each for each in cluster.configuration.members]
    cluster.change("a", promoted)
    assert cluster.run_until(lambda: cluster.status("e").configuration == Configuration(tuple(promoted)), 500)
    assert cluster.run_until(lambda: all(_sleeps(cluster)), 5_000), "and then they sleep again"


@pytest.mark.parametrize("member", ["c", "d"])
def test_a_group_with_a_voter_that_does_not_answer_does_not_sleep(member: str) -> None:
    cluster = _cluster({"a": FULL, "b": FULL, "c": FULL} | OTHERS)
    cluster.run(500)
    cluster.crash(member)
    cluster.run(20_000)
    assert not any(_sleeps(cluster))
    cluster.start(member)
    assert cluster.run_until(lambda: all(_sleeps(cluster)), 5_000)


def _asleep_without_e() -> Cluster:
    """The learner went away, a write followed, and the others sleep."""
    cluster = _cluster({"a": FULL, "b": FULL, "c": FULL} | OTHERS)
    cluster.run(500)
    cluster.crash("e")
    cluster.propose("a", b"missed")
    assert cluster.run_until(lambda: all(_sleeps(cluster)), 5_000)
    return cluster


def test_a_group_sleeps_without_a_learner_that_does_not_answer_for_a_timeout() -> None:
    cluster = _cluster({"a": FULL, "b": FULL, "c": FULL} | OTHERS, after_ms=HEARTBEAT_MS)
    assert cluster.run_until(lambda: all(_sleeps(cluster)), 5_000)
    cluster.crash("e")
    cluster.propose("a", b"missed")
    began = cluster.now
    assert cluster.run_until(lambda: all(_sleeps(cluster)), 5_000)
    assert T_NS - HEARTBEAT_MS * MS <= cluster.now - began <= T_NS + 2 * HEARTBEAT_MS * MS
    sent = len(cluster.sent)
    cluster.run(3_600_000)
    assert len(cluster.sent) == sent
    slumber = _core(cluster, "a").slumber
    assert slumber is not None
    assert (slumber.watched, slumber.absent) == ((NodeId("b"), NodeId("c"), NodeId("d")), (NodeId("e"),))


def test_a_learner_that_comes_back_is_fed_and_then_all_sleep() -> None:
    cluster = _asleep_without_e()
    cluster.start("e")
    cluster.run(5_000)
    assert not _core(cluster, "e").quiescent, "nobody told it to sleep, so its node and the leader's differ"
    _wake(cluster, "a", dict.fromkeys("bcde", 0.0))
    assert cluster.run_until(lambda: all(_sleeps(cluster)), 5_000)
    assert cluster.status("e").applied == cluster.status("a").commit == 2
    slumber = _core(cluster, "a").slumber
    assert slumber is not None
    assert slumber.absent == ()


def test_any_word_of_a_learner_that_it_slept_without_wakes_the_leader() -> None:
    cluster = _asleep_without_e()
    _step(cluster, "a", "e", HeartbeatResponse(Term(1), 1))
    assert not _core(cluster, "a").quiescent


def test_a_learner_that_the_group_sleeps_without_is_not_promoted() -> None:
    cluster = _cluster({"a": FULL, "b": FULL, "c": FULL} | OTHERS)
    cluster.run(500)
    cluster.crash("e")  # It holds the whole log, but nobody knows whether it still does.
    for _ in range(4):
        cluster.read("a")
        cluster.run(500)
    assert cluster.run_until(lambda: all(_sleeps(cluster)), 5_000)
    promoted = [replace(each, role=FULL) if each.node == "e" else each for each in cluster.configuration.members]
    with pytest.raises(Unavailable, match="e holds 1 of 1"):
        _core(cluster, "a").propose_configuration(promoted, now=Nanos(cluster.now))


def test_a_group_does_not_sleep_before_a_learner_that_answers_has_caught_up() -> None:
    cluster = _cluster({"a": FULL, "b": FULL, "c": FULL} | OTHERS)
    cluster.run(500)
    cluster.hold_disk.add("e")
    cluster.propose("a", b"x")
    cluster.run(20_000)
    assert not any(_sleeps(cluster))
    cluster.resume_disk("e")
    assert cluster.run_until(lambda: all(_sleeps(cluster)), 5_000)


def test_a_group_sleeps_with_a_learner_that_is_many_heartbeats_away() -> None:
    far = 4 * HEARTBEAT_MS
    cluster = _cluster(
        {"a": FULL, "b": FULL, "c": FULL, "e": LEARNER}, delay_ms=lambda a, b: far if "e" in (a, b) else 5.0
    )
    cluster.propose("a", b"x")
    assert cluster.run_until(lambda: all(_sleeps(cluster)), 10_000)
    assert cluster.status("e").applied == 2


def test_a_group_whose_leader_s_disk_hangs_does_not_sleep() -> None:
    cluster = _cluster()
    cluster.run(500)
    cluster.hold_disk.add("a")
    index = cluster.propose("a", b"x")
    cluster.run(5_000)
    assert cluster.committed(index)
    assert not any(_sleeps(cluster))
    cluster.resume_disk("a")
    assert cluster.run_until(lambda: all(_sleeps(cluster)), 5_000)


def test_a_group_with_a_member_that_lacks_entries_does_not_sleep() -> None:
    cluster = _cluster()
    cluster.run(500)
    cluster.hold_disk.add("c")
    cluster.propose("a", b"x")
    cluster.run(5_000)
    assert not any(_sleeps(cluster))


def test_a_follower_that_is_not_where_its_leader_is_stays_awake() -> None:
    """Its timer is not stopped by a word that reached it early or late."""
    cluster = _cluster()
    cluster.run(500)
    term, last = cluster.status("b").term, cluster.status("b").last
    for index in (last - 1, last + 1):
        _step(cluster, "b", "a", Quiesce(term, LogIndex(index)))
        assert not cluster.status("b").quiescent
        assert _core(cluster, "b").next_deadline() is not None
    _step(cluster, "b", "a", Quiesce(term, last))
    assert cluster.status("b").quiescent


def test_a_follower_that_does_not_know_the_commit_stays_awake() -> None:
    cluster = _cluster()
    cluster.run(500)
    cluster.isolate("c")
    term, last = cluster.status("b").term, cluster.status("b").last
    previous = cluster.replicas["b"].disk.term_at(last)
    entry = next(m.entries[0] for _, _, m in cluster.sent if isinstance(m, AppendRequest) and m.entries)
    assert previous == entry.term
    cluster.isolate("a", "b", "c")
    cluster.propose("a", b"x")
    append = next(m for _, to, m in reversed(cluster.sent) if isinstance(m, AppendRequest) and to == "b")
    _step(cluster, "b", "a", append)
    cluster.run(20)
    assert cluster.replicas["b"].disk.last_index == last + 1
    _step(cluster, "b", "a", Quiesce(term, LogIndex(last + 1)))
    assert not cluster.status("b").quiescent


def test_late_answers_do_not_wake_the_leader() -> None:
    cluster = _asleep()
    status = cluster.status("a")
    for message in (
        HeartbeatResponse(status.term, 1),
        AppendResponse(status.term, True, status.last, status.term, LogIndex(0)),
        AppendResponse(Term(0), False, LogIndex(0), Term(0), LogIndex(1)),
    ):
        _step(cluster, "a", "b", message)
        assert cluster.status("a").quiescent, message


def test_what_shows_that_a_member_is_awake_wakes_the_leader() -> None:
    for refused in (True, False):
        cluster = _asleep()
        status = cluster.status("a")
        if refused:
            message: RaftMessage = AppendResponse(status.term, False, LogIndex(0), Term(0), status.last)
        else:
            message = VoteRequest(Term(status.term + 1), status.last, status.term, pre=True, transfer=False)
        _step(cluster, "a", "b", message)
        assert not cluster.status("a").quiescent
        cluster.run(50)
        assert not any(_sleeps(cluster)), "it wakes the others too"
        cluster.run(500)
        assert (cluster.leader(), cluster.status("a").term) == ("a", 1)


def test_a_request_of_a_stranger_wakes_nobody() -> None:
    cluster = _asleep()
    _step(cluster, "a", "z", VoteRequest(Term(2), LogIndex(1), Term(1), pre=True, transfer=False))
    assert cluster.status("a").quiescent


@pytest.mark.parametrize(
    "word", [Heartbeat(Term(1), LogIndex(1), 9, LogIndex(0)), Heartbeat(Term(1), LogIndex(1), 0, LogIndex(0))]
)
@pytest.mark.parametrize("follower", ["b", "d", "e"])
def test_any_other_word_of_the_leader_wakes_a_follower(word: RaftMessage, follower: str) -> None:
    cluster = _asleep({"a": FULL, "b": FULL, "c": FULL} | OTHERS)
    _step(cluster, follower, "a", word)
    assert not cluster.status(follower).quiescent
    assert (_core(cluster, follower).next_deadline() is not None) is (follower == "b")


def test_a_sleeping_follower_holds_on_to_its_leader() -> None:
    cluster = _asleep()
    cluster.run(60_000)
    for pre in (True, False):
        _step(cluster, "b", "c", VoteRequest(Term(2), LogIndex(9), Term(1), pre=pre, transfer=False))
    status = cluster.status("b")
    assert (status.quiescent, status.term, status.leader) == (True, 1, "a")


def test_a_word_to_take_over_wakes_a_follower() -> None:
    cluster = _asleep()
    _step(cluster, "b", "a", TimeoutNow(Term(1)))
    assert not cluster.status("b").quiescent
    cluster.run(200)
    assert cluster.leader() == "b"
    assert not any(_sleeps(cluster))


def test_a_leader_of_a_later_term_ends_the_sleep_of_all_that_hear_it() -> None:
    cluster = _asleep()
    for name in "ab":
        _step(cluster, name, "c", Heartbeat(Term(7), LogIndex(1), 1, LogIndex(0)))
        status = cluster.status(name)
        assert (status.quiescent, status.term, status.leader) == (False, 7, "c")
    assert _core(cluster, "a").next_deadline() is not None


def test_a_follower_wakes_as_if_its_leader_had_been_heard_when_the_node_was() -> None:
    cluster = _asleep()
    cluster.run(60_000)
    _wake(cluster, "b", {"a": 900})
    deadline = _core(cluster, "b").next_deadline()
    assert deadline is not None
    assert cluster.now + T_NS - 900 * MS <= deadline <= cluster.now + 1.5 * T_NS - 900 * MS
    request = VoteRequest(Term(2), LogIndex(9), Term(1), pre=True, transfer=False)
    _step(cluster, "b", "c", request)
    assert cluster.events_of("b")[-1] is EventName.VOTE_IGNORED, "it was heard less than a timeout ago"
    _wake(cluster, "c", {"a": 1_000})
    _step(cluster, "c", "b", request)
    assert cluster.events_of("c")[-1] is EventName.VOTE_GRANTED


def test_a_wake_never_takes_back_what_was_heard_since() -> None:
    cluster = _asleep()
    cluster.run(100)
    _wake(cluster, "b", {"a": 3_600_000})
    deadline = _core(cluster, "b").next_deadline()
    assert deadline is not None
    assert deadline >= cluster.now + T_NS - 150 * MS


def test_a_woken_leader_that_no_quorum_was_heard_of_steps_down_at_once() -> None:
    cluster = _asleep()
    cluster.run(60_000)
    _wake(cluster, "a", {"b": 1_000, "c": 1_001})
    cluster.run(1)
    assert EventName.QUORUM_LOST in cluster.events_of("a")


def test_a_woken_leader_that_a_quorum_was_heard_of_goes_on() -> None:
    cluster = _asleep()
    cluster.run(60_000)
    _wake(cluster, "a", {"b": 900, "c": 60_000})
    cluster.run(50)
    assert not any(_sleeps(cluster)), "its round wakes them"
    cluster.run(900)
    assert (cluster.leader(), cluster.status("a").term) == ("a", 1)


def test_a_leader_that_wakes_for_work_has_one_timeout_to_find_its_quorum() -> None:
    cluster = _asleep()
    cluster.run(60_000)
    cluster.isolate("a")
    context = cluster.read("a")
    cluster.run(ELECTION_MS - 1)
    assert cluster.status("a").match
    cluster.run(2)
    assert not cluster.status("a").match
    assert cluster.replicas["a"].refused_reads == [context], "no read was answered on the strength of its sleep"


def test_a_leader_has_no_lease_when_it_wakes() -> None:
    """However recently it was told that its followers' nodes live, and while the others have another leader."""
    cluster = _asleep(lease_reads=True)
    cluster.run(60_000)
    cluster.isolate("a")
    for name in "bc":
        _wake(cluster, name, {"a": 1_000})
    assert cluster.run_until(lambda: cluster.leader() in {"b", "c"}, 4_000)
    new_leader = cluster.leader()
    assert new_leader is not None
    index = cluster.propose(new_leader, b"new")
    assert cluster.run_until(lambda: cluster.committed(index), 100)
    _wake(cluster, "a", {"b": 0, "c": 0})
    context = cluster.read("a")
    cluster.run(ELECTION_MS)
    assert cluster.replicas["a"].refused_reads == [context]


def test_a_leased_read_is_work() -> None:
    cluster = _asleep(lease_reads=True)
    context = cluster.read("a")
    cluster.run(100)
    assert list(cluster.replicas["a"].reads) == [context]
    assert not any(_sleeps(cluster))


def test_waking_someone_who_is_awake_changes_nothing() -> None:
    cluster = _cluster()
    cluster.run(250)
    before = [_core(cluster, name).next_deadline() for name in "abc"]
    for name in "abc":
        _wake(cluster, name, dict.fromkeys("abc", 900.0))
    assert [_core(cluster, name).next_deadline() for name in "abc"] == before


def test_who_sleeps_says_whom_to_watch() -> None:
    cluster = _asleep({"a": FULL, "b": FULL, "c": FULL} | OTHERS)
    a, times = NodeId("a"), (Nanos(HEARTBEAT_MS * MS), Nanos(T_NS))
    members = tuple(NodeId(name) for name in "bcde")
    assert _core(cluster, "a").slumber == Slumber(a, Term(1), members, *times)
    for name in "bcde":
        assert _core(cluster, name).slumber == Slumber(a, Term(1), (a,), *times)
    cluster.propose("a", b"x")
    assert _core(cluster, "a").slumber is None


def test_a_crash_of_a_sleeper_is_like_any_other() -> None:
    cluster = _asleep()
    cluster.crash("a")
    for name in "bc":
        _wake(cluster, name, {"a": 1_000})
    assert cluster.run_until(lambda: cluster.leader() in {"b", "c"}, 1.5 * ELECTION_MS)
    cluster.start("a")
    assert cluster.run_until(lambda: all(_sleeps(cluster)), 5_000)
    assert len(set(cluster.leaders.values())) == 2
