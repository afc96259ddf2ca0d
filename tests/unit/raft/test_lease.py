"""Lease reads are never stale, and each rule that this takes is needed.

The harness checks every released read against all that was acknowledged before it was asked. In most of these tests an
old leader, cut off, is asked for a read in every millisecond, while its peers try in every millisecond to elect another
one and to have it acknowledge a write.
"""

from collections.abc import Callable
from dataclasses import replace

import pytest
from raft_cluster import ELECTION_MS, HEARTBEAT_MS, Cluster

from isochrone.errors import NotLeader
from isochrone.ids import GroupId, Nanos, NodeId, ReplicaRole, Term
from isochrone.regions.raft.config import RaftConfig
from isochrone.regions.raft.lease import length_ns
from isochrone.regions.raft.node import RaftNode
from isochrone.regions.raft.ready import EventName
from isochrone.regions.raft.state import Office
from isochrone.wire.messages import TimeoutNow, VoteRequest, VoteResponse

DRIFT_PPM = 100_000


def _delay(slow: dict[tuple[str, str], float]) -> Callable[[str, str], float]:
    return lambda source, target: slow.get((source, target), 1.0)


def _led_by_a(
    slow: dict[tuple[str, str], float] | None = None, ppm: dict[str, int] | None = None, **options: object
) -> Cluster:
    config = {"lease_reads": True, "clock_drift_ppm_max": DRIFT_PPM, **options}
    cluster = Cluster("abc", delay_ms=_delay(slow or {}), jitter_ms=0, **config)
    cluster.clock_ppm.update(ppm or {})
    cluster.elect("a")
    cluster.run(3 * HEARTBEAT_MS + 50)
    return cluster


def _core(cluster: Cluster, name: str) -> RaftNode:
    core = cluster.replicas[name].core
    assert core is not None
    return core


def _is_leased(cluster: Cluster, name: str = "a") -> bool:
    """Whether a read is answered at once."""
    before = cluster.replicas[name].leased_reads
    read = cluster.read(name)
    answered = read in cluster.replicas[name].reads
    assert answered == (cluster.replicas[name].leased_reads > before)
    return answered


def _reads_until_replaced(cluster: Cluster, successor: str, limit_ms: int) -> int:
    """Ask `a` for reads until `successor` leads and has acknowledged a write, and for as long again.

    Returns how many reads a lease has answered.
    """
    answered, index, end_ms, elapsed_ms = 0, None, limit_ms, 0
    while elapsed_ms < end_ms:
        try:
            answered += _is_leased(cluster)
        except NotLeader:
            pass
        status = cluster.status(successor)
        if index is None and status.match:
            index, end_ms = cluster.propose(successor, b"newer"), 2 * elapsed_ms + 50
        elif index is None and status.office is not Office.CANDIDATE:
            cluster.force_campaign(successor)
        cluster.run(1)
        elapsed_ms += 1
    assert index is not None and cluster.committed(index), f"{successor} has not replaced a"
    return answered


def _run_until_the_lease_ends(cluster: Cluster) -> None:
    while _is_leased(cluster):
        cluster.run(1)


def test_a_read_is_answered_at_once_without_any_message() -> None:
    cluster = _led_by_a()
    sent = len(cluster.sent)
    assert _is_leased(cluster)
    assert len(cluster.sent) == sent


def test_a_group_that_did_not_ask_for_leases_has_none() -> None:
    cluster = _led_by_a(lease_reads=False)
    assert not _is_leased(cluster)
    cluster.run(5)
    assert cluster.replicas["a"].reads, "ReadIndex has answered it"


def test_a_read_that_no_lease_covers_is_answered_by_read_index() -> None:
    cluster = _led_by_a({("b", "a"): 40.0, ("c", "a"): 40.0})
    cluster.isolate("a")
    _run_until_the_lease_ends(cluster)
    cluster.replicas["a"].reads.clear()
    cluster.heal()
    cluster.run(HEARTBEAT_MS + 45)
    assert len(cluster.replicas["a"].reads) == 1, "the one that found the lease ended"
    cluster.run(HEARTBEAT_MS)
    assert _is_leased(cluster), "and the answer has renewed the lease"


def test_a_lease_ends_its_length_after_the_heartbeat_was_sent() -> None:
    cluster = _led_by_a()
    last = _core(cluster, "a").next_deadline()
    assert last is not None
    cluster.run((last - cluster.now) / 1e6 + 5)  # The next heartbeats are out and answered.
    cluster.isolate("a")
    end = last + ELECTION_MS * 1_000_000 * 9 // 11
    cluster.run((end - 1_000_000 - cluster.now) / 1e6)
    assert _is_leased(cluster)
    cluster.run(2)
    assert not _is_leased(cluster)


def test_the_length_of_a_lease() -> None:
    def length(timeout: int, drift: int) -> int:
        node, group = NodeId("a"), GroupId("g")
        return length_ns(
            RaftConfig(
                group=group,
                node=node,
                heartbeat_ns=Nanos(100),
                election_timeout_ns=Nanos(timeout),
                clock_drift_ppm_max=drift,
            )
        )

    assert length(1_000_000, 0) == 1_000_000
    assert length(1_100_000, 100_000) == 900_000
    assert length(1_000_000, 500) == 999_000
    with pytest.raises(ValueError, match="ppm"):
        length(1_000_000, 1_000_000)


@pytest.mark.parametrize("leader_ppm", [-DRIFT_PPM, 0, DRIFT_PPM])
@pytest.mark.parametrize("voter_ppm", [-DRIFT_PPM, 0, DRIFT_PPM])
def test_clocks_that_run_wrong_by_the_bound_make_no_read_stale(leader_ppm: int, voter_ppm: int) -> None:
    cluster = _led_by_a(ppm={"a": leader_ppm, "b": voter_ppm, "c": voter_ppm})
    cluster.run(3 * ELECTION_MS)
    assert cluster.leader() == "a"
    cluster.isolate("a")
    answered = _reads_until_replaced(cluster, "b", 2 * ELECTION_MS)
    assert answered > 0.6 * ELECTION_MS


def test_a_lease_counts_from_the_sending_and_not_from_the_answer() -> None:
    """Answers take 400 ms here, so a lease counted from them would outlast the promises."""
    cluster = _led_by_a({("b", "a"): 400.0, ("c", "a"): 400.0})
    cluster.run(2 * ELECTION_MS)
    cluster.cut |= {("a", "b"), ("a", "c")}
    answered = _reads_until_replaced(cluster, "b", 2 * ELECTION_MS)
    assert answered > 100


def test_a_lease_is_given_up_before_a_transfer() -> None:
    cluster = _led_by_a()
    assert _is_leased(cluster)
    core = _core(cluster, "a")
    term = core.term
    core.transfer_leadership(NodeId("b"), cluster.clock("a"))
    assert not core.lease_holds(term, cluster.clock("a")), "before the message has left"
    cluster.drain("a")
    cluster.cut |= {("b", "a"), ("c", "a")}
    assert not _is_leased(cluster)
    answered = _reads_until_replaced(cluster, "b", 500)
    assert not answered


def test_a_lease_stays_given_up_when_a_transfer_fails_because_its_message_may_be_late() -> None:
    cluster = _led_by_a()
    cluster.cut.add(("a", "b"))
    core = _core(cluster, "a")
    core.transfer_leadership(NodeId("b"), cluster.clock("a"))
    cluster.drain("a")
    cluster.cut.clear()
    cluster.sent.clear()
    cluster.hold_disk.add("b")  # It is told again, but its campaign waits for its disk.
    told = TimeoutNow(core.term)
    cluster.cut.add(("a", "b"))
    cluster.run(ELECTION_MS + 10)
    assert EventName.TRANSFER_GIVEN_UP in cluster.events_of("a")
    cluster.cut.clear()
    cluster.run(2 * HEARTBEAT_MS)
    assert cluster.leader() == "a"
    assert not _is_leased(cluster)
    cluster.run(10)
    assert cluster.replicas["a"].reads, "reads go on by ReadIndex"
    cluster.cut |= {("b", "a"), ("c", "a")}
    cluster.hold_disk.clear()
    _core(cluster, "b").step(NodeId("a"), told, cluster.clock("b"))
    cluster.drain("b")
    answered = _reads_until_replaced(cluster, "b", 500)
    assert not answered
    cluster.heal()
    cluster.run(3 * HEARTBEAT_MS)
    assert _is_leased(cluster, "b"), "the next leader has a lease of its own"
    _core(cluster, "b").transfer_leadership(NodeId("a"), cluster.clock("b"))
    cluster.drain("b")
    cluster.run(3 * HEARTBEAT_MS)
    assert _is_leased(cluster), "and so has the first one in a later term"


def test_a_leader_that_steps_down_has_no_lease_left() -> None:
    cluster = _led_by_a()
    cluster.isolate("a")
    cluster.run(1.1 * ELECTION_MS)
    core = _core(cluster, "a")
    assert EventName.QUORUM_LOST in cluster.events_of("a") and core.term == 1
    assert not core.lease_holds(Term(1), cluster.clock("a"))


def test_a_lease_belongs_to_one_term() -> None:
    """A read that was allowed in one term is not answered in another, however firmly the same replica leads then."""
    cluster = _led_by_a()
    core = _core(cluster, "a")
    for successor, leader in (("b", "a"), ("a", "b")):
        _core(cluster, leader).transfer_leadership(NodeId(successor), cluster.clock(leader))
        cluster.drain(leader)
        cluster.run(3 * HEARTBEAT_MS)
        assert not core.lease_holds(Term(1), cluster.clock("a"))
    assert core.lease_holds(Term(3), cluster.clock("a"))


def _rest_on_c(cluster: Cluster) -> None:
    """Let the lease of `a` rest on the promise of `c` alone, while `b` is bound no more and wants to lead."""
    cluster.cut_between("a", "b")
    cluster.run(2 * ELECTION_MS)
    assert cluster.leader() == "a" and _is_leased(cluster)


def test_a_voter_that_has_restarted_still_keeps_its_promise() -> None:
    cluster = _led_by_a()
    _rest_on_c(cluster)
    cluster.crash("c")
    cluster.cut_between("a", "c")
    cluster.start("c")
    answered = _reads_until_replaced(cluster, "b", 3 * ELECTION_MS)
    assert answered > 100


def test_a_voter_that_learns_of_a_higher_term_still_keeps_its_promise() -> None:
    """A late refusal of some earlier campaign makes it forget whom it follows, but not what it promised."""
    cluster = _led_by_a()
    _rest_on_c(cluster)
    cluster.cut_between("a", "c")
    _core(cluster, "c").step(NodeId("b"), VoteResponse(Term(9), granted=False, pre=False), cluster.clock("c"))
    cluster.drain("c")
    assert cluster.status("c").leader is None
    answered = _reads_until_replaced(cluster, "b", 3 * ELECTION_MS)
    assert answered > 100


@pytest.mark.parametrize("pre", [True, False])
def test_a_bound_voter_answers_no_candidate(pre: bool) -> None:
    cluster = _led_by_a()
    cluster.sent.clear()
    for term in (2, 9):
        request = VoteRequest(Term(term), cluster.status("c").last, Term(1), pre, transfer=False)
        _core(cluster, "c").step(NodeId("b"), request, cluster.clock("c"))
    cluster.drain("c")
    assert cluster.events_of("c").count(EventName.VOTE_IGNORED) == 2
    assert not cluster.sent
    assert cluster.status("c").term == 1


def test_a_bound_voter_does_not_campaign_when_it_is_asked_to() -> None:
    cluster = _led_by_a()
    _rest_on_c(cluster)
    cluster.sent.clear()
    _core(cluster, "c").campaign(cluster.clock("c"))
    cluster.drain("c")
    assert not any(isinstance(message, VoteRequest) and source == "c" for source, _, message in cluster.sent)
    cluster.cut_between("a", "c")
    answered = _reads_until_replaced(cluster, "c", 3 * ELECTION_MS)
    assert answered > 100


def test_a_voter_that_was_never_in_any_term_has_promised_nothing() -> None:
    """So a new group elects its first leader without waiting."""
    cluster = Cluster("abc", lease_reads=True)
    cluster.elect("a")
    assert cluster.now < 100_000_000


def test_a_new_leader_gives_no_lease_read_before_an_entry_of_its_term_is_committed() -> None:
    cluster = _led_by_a()
    index = cluster.propose("a", b"x")
    cluster.run_until(lambda: cluster.committed(index), 10)
    cluster.crash("a")
    assert cluster.status("b").commit < index, "b does not know yet that x is committed"
    assert cluster.run_until(lambda: cluster.leader() in ("b", "c"), 3 * ELECTION_MS)
    leader = str(cluster.leader())
    cluster.hold_disk |= {"b", "c"}
    cluster.run(3 * HEARTBEAT_MS)
    assert not _is_leased(cluster, leader)
    for name in ("b", "c"):
        cluster.resume_disk(name)
    cluster.run(HEARTBEAT_MS)
    assert _is_leased(cluster, leader)


def test_a_lease_in_a_joint_configuration_takes_a_quorum_of_both_halves() -> None:
    cluster = _led_by_a()
    first, *others = cluster.configuration.members
    added = [cluster.add(name) for name in "de"]
    cluster.change("a", [first, *others, *added])
    cluster.run(500)
    cluster.change("a", [first, *(replace(member, role=ReplicaRole.FULL) for member in added)], auto_leave=False)
    cluster.run(500)
    assert cluster.status("a").configuration_committed and cluster.status("a").configuration.joint
    assert _is_leased(cluster)
    cluster.cut |= {pair for name in "bc" for pair in (("a", name), (name, "a"))}
    _run_until_the_lease_ends(cluster)
    assert cluster.leader() == "a", "d and e alone cannot keep b and c from electing another one"


def test_a_read_allowed_before_a_pause_is_not_answered_after_it() -> None:
    """The leader allows a read by an old reading of its clock, and is stopped for two election timeouts meanwhile."""
    cluster = _led_by_a()
    core = _core(cluster, "a")
    before = cluster.clock("a")
    cluster.isolate("a")
    paused = cluster.replicas["a"]
    paused.core = None  # Stopped: it does nothing, but its clock goes on.
    cluster.run(2 * ELECTION_MS)
    index = cluster.propose(str(cluster.leader()), b"newer")
    assert cluster.run_until(lambda: cluster.committed(index), 100)
    core.read_index(1)
    (read,) = core.ready(before).reads
    assert read.lease is not None and read.index < index, "by the old reading it still leads"
    assert not core.lease_holds(read.lease, cluster.clock("a"))
    core.read_index(1, leased=False)
    ready = core.ready(before)
    assert not ready.reads and ready.messages, "a round of heartbeats would have to confirm it"
