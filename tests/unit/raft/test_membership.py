"""Changes of membership: what a leader refuses, how a joint configuration comes and goes, and published bugs."""

import pytest
from raft_cluster import ELECTION_MS, Cluster

from isochrone.errors import InvalidRequest, Unavailable
from isochrone.ids import LogIndex, Nanos, NodeId, ReplicaRole, StoreId
from isochrone.regions.raft.progress import Feed
from isochrone.regions.raft.ready import EventName
from isochrone.wire.messages import AppendResponse, Configuration, Member, QuorumSizes

FULL, WITNESS, LEARNER = ReplicaRole.FULL, ReplicaRole.WITNESS, ReplicaRole.LEARNER


def member(name: str, role: ReplicaRole = FULL) -> Member:
    return Member(NodeId(name), StoreId(f"store-{name}"), role)


def full(*names: str) -> tuple[Member, ...]:
    return tuple(member(name) for name in names)


def led_by(leader: str, names: str = "abc", **options: float) -> Cluster:
    """A group with a leader that has committed in its term."""
    cluster = Cluster(names, **options)  # type: ignore[arg-type]  # keywords of the cluster
    cluster.elect(leader)
    cluster.run(500)
    return cluster


def settled(cluster: Cluster, names: str) -> bool:
    """Whether someone leads a committed configuration, not a joint one, whose members are these."""
    leader = cluster.leader()
    if leader is None:
        return False
    status = cluster.status(leader)
    there = "".join(each.node for each in status.configuration.members)
    return status.configuration_committed and not status.configuration.joint and there == names


def with_learner(cluster: Cluster, leader: str, name: str) -> Cluster:
    """The cluster with one more replica, which has caught up as a learner."""
    learner = cluster.add(name)
    cluster.change(leader, (*cluster.status(leader).configuration.members, learner))
    assert cluster.run_until(lambda: cluster.status(name).last == cluster.status(leader).last, 5_000)
    cluster.run(300)
    return cluster


# ---- the plain course


def test_a_learner_gets_the_log_and_has_no_weight() -> None:
    cluster = with_learner(led_by("a"), "a", "d")
    assert cluster.status("d").role is LEARNER
    cluster.isolate("b", "c")
    index = cluster.propose("a", b"x")
    cluster.run(500)
    assert not cluster.committed(index)


def test_a_learner_is_promoted_through_a_joint_configuration() -> None:
    cluster = with_learner(led_by("a"), "a", "d")
    joint = cluster.change("a", full(*"abcd"))
    status = cluster.status("a").configuration
    assert (status.outgoing, status.auto_leave) == (full(*"abc"), True)
    assert cluster.run_until(lambda: settled(cluster, "abcd"), 5_000)
    assert cluster.status("a").last == joint + 1
    index = cluster.propose("a", b"x")
    cluster.isolate("b", "c")
    cluster.run(20)
    cluster.settle()
    assert cluster.committed(index)
    assert all(cluster.status(name).configuration == Configuration(full(*"abcd")) for name in "abcd")


def test_a_joint_configuration_without_automatic_leave_waits_for_an_operator() -> None:
    cluster = with_learner(led_by("a"), "a", "d")
    joint = cluster.change("a", full(*"abcd"), auto_leave=False)
    cluster.run(2_000)
    assert cluster.status("a").last == joint
    with pytest.raises(Unavailable, match="joint"):
        cluster.change("a", full(*"abc"))
    core = cluster.replicas["a"].core
    assert core is not None
    core.leave_joint(Nanos(cluster.now))
    cluster.drain("a")
    assert cluster.run_until(lambda: settled(cluster, "abcd"), 5_000)
    with pytest.raises(Unavailable, match="no joint"):
        core.leave_joint(Nanos(cluster.now))


@pytest.mark.parametrize("silent", ["bc", "de"])
def test_both_halves_decide_what_is_committed(silent: str) -> None:
    """The leader and two others are three of the five, but a quorum of one half only."""
    cluster = led_by("a")
    for name in "de":
        with_learner(cluster, "a", name)
    cluster.change("a", full(*"ade"), auto_leave=False)
    cluster.run(500)
    cluster.isolate(*silent)
    cluster.run(20)
    index = cluster.propose("a", b"x")
    cluster.run(300)
    assert not cluster.committed(index)
    cluster.heal()
    assert cluster.run_until(lambda: cluster.committed(index), 5_000)


def test_both_halves_elect_and_keep_a_leader() -> None:
    cluster = led_by("a")
    for name in "de":
        with_learner(cluster, "a", name)
    cluster.change("a", full(*"ade"), auto_leave=False)
    cluster.run(500)
    cluster.isolate("a", "d", "e")
    assert cluster.run_until(lambda: cluster.leader() is None, 3 * ELECTION_MS), "half of the halves kept a leader"
    cluster.run(10_000)
    assert cluster.leader() is None
    cluster.heal()
    assert cluster.run_until(lambda: cluster.leader() is not None, 10_000)


@pytest.mark.parametrize("silent", ["bc", "de"])
def test_a_joint_configuration_confirms_reads_in_both_halves(silent: str) -> None:
    cluster = led_by("a")
    for name in "de":
        with_learner(cluster, "a", name)
    cluster.change("a", full(*"ade"), auto_leave=False)
    cluster.run(500)
    cluster.isolate(*silent)
    cluster.run(20)
    context = cluster.read("a")
    cluster.run(300)
    assert context not in cluster.replicas["a"].reads


def test_quorums_of_chosen_sizes_decide() -> None:
    """Two of five commit; then four must elect."""
    cluster = led_by("a", "abcde")
    cluster.change("a", full(*"abcde"), quorums=QuorumSizes(2, 4))
    assert cluster.run_until(
        lambda: settled(cluster, "abcde") and cluster.status("a").configuration.quorums.commit == 2, 5_000
    )
    cluster.isolate("a", "b")
    index = cluster.propose("a", b"x")
    assert cluster.run_until(lambda: cluster.committed(index), 1_000)
    cluster.run(10_000)
    assert cluster.leader() == "a"
    cluster.crash("a")
    cluster.run(20_000)
    assert cluster.leader() is None, "three elected where four are needed"
    cluster.heal()
    assert cluster.run_until(lambda: cluster.leader() is not None, 20_000)
    cluster.settle()
    cluster.check_nothing_lost()


def test_a_learner_that_is_promoted_can_campaign_from_then_on() -> None:
    """Also if it never hears from its leader again."""
    cluster = with_learner(led_by("a"), "a", "d")
    core = cluster.replicas["d"].core
    assert core is not None
    assert core.next_deadline() is None
    cluster.change("a", full(*"abcd"))
    assert cluster.run_until(lambda: cluster.status("d").role is FULL, 50)
    assert core.next_deadline() is not None


# ---- what is refused


def test_invalid_configurations_are_refused_with_the_reason() -> None:
    cluster = led_by("a")
    for members, quorums, reason in (
        ((), QuorumSizes(), "no full voter"),
        ((member("a", LEARNER),), QuorumSizes(), "no full voter"),
        ((*full(*"abc"), member("d")), QuorumSizes(), "joins as a learner"),
        ((*full(*"ab"), member("c", WITNESS)), QuorumSizes(), "in place"),
        ((*full(*"ab"), Member(NodeId("c"), StoreId("other"), FULL)), QuorumSizes(), "another replica"),
        ((*full(*"abc"), member("a")), QuorumSizes(), "twice"),
        (full(*"abc"), QuorumSizes(1, 2), "need not meet"),
        (full(*"abc"), QuorumSizes(3, 1), "two leaders"),
        (full(*"abc"), QuorumSizes(4, 2), "at most 3"),
        ((*full(*"abc"), member("v", WITNESS), member("w", WITNESS)), QuorumSizes(2, 4), "fewer witnesses"),
        (full(*"abc"), QuorumSizes(), "already"),
    ):
        with pytest.raises(InvalidRequest, match=reason):
            cluster.change("a", members, quorums=quorums)


def test_only_one_change_at_a_time() -> None:
    cluster = led_by("a")
    cluster.isolate("a")
    cluster.change("a", (*full(*"abc"), cluster.add("d")))
    with pytest.raises(Unavailable, match="under way"):
        cluster.change("a", full(*"ab"))


def test_nothing_is_changed_before_the_leader_has_committed_in_its_term() -> None:
    """Otherwise two leaders in turn may make two groups of one (raft-dev, July 2015)."""
    cluster = Cluster("abc")
    cluster.elect("a")
    with pytest.raises(Unavailable, match="nothing in its term"):
        cluster.change("a", full(*"ab"))


def test_nothing_is_changed_while_the_leadership_is_handed_over() -> None:
    cluster = led_by("a")
    cluster.isolate("b")
    cluster.propose("a", b"x")
    core = cluster.replicas["a"].core
    assert core is not None
    core.transfer_leadership(NodeId("b"), Nanos(cluster.now))
    with pytest.raises(Unavailable, match="handed over"):
        cluster.change("a", full(*"ab"))


def test_a_learner_that_is_behind_or_silent_is_not_promoted() -> None:
    cluster = led_by("a")
    cluster.change("a", (*full(*"abc"), cluster.add("d")))
    cluster.isolate("d")
    cluster.run(500)
    with pytest.raises(Unavailable, match="others may drop it up to"):
        cluster.change("a", full(*"abcd"))
    cluster.heal()
    cluster.run(1_000)
    cluster.isolate("d")
    cluster.run(2 * ELECTION_MS)
    with pytest.raises(Unavailable, match="d holds 2 of 2"):
        cluster.change("a", full(*"abcd"))
    cluster.heal()
    cluster.run(1_000)
    cluster.change("a", full(*"abcd"))
    assert cluster.run_until(lambda: settled(cluster, "abcd"), 5_000)


def test_a_new_leader_promotes_no_learner_that_may_lack_what_was_dropped_before_its_time() -> None:
    """It has not heard all full voters yet, and does not know what earlier leaders let others drop."""
    in_order = led_by("a", append_bytes_max=1, jitter_ms=0.0)
    cluster = with_learner(in_order, "a", "d")
    cluster.isolate("d")
    held = cluster.status("a").last
    for _ in range(3):
        cluster.propose("a", b"x")
    cluster.run(500)
    cluster.crash("a")
    assert cluster.run_until(lambda: cluster.leader() is not None, 10 * ELECTION_MS)
    leader = cluster.leader()
    assert leader is not None
    cluster.lose = lambda source, _target, message: (
        source == "d" and isinstance(message, AppendResponse) and message.accepted and message.index > held + 1
    )
    cluster.heal()
    cluster.run(500)
    status = cluster.status(leader)
    learner = status.peers[NodeId("d")]
    assert (learner.feed, learner.match, learner.next) == (Feed.REPLICATE, held + 1, status.last + 1)
    with pytest.raises(Unavailable, match=f"others may drop it up to {status.last}"):
        cluster.change(leader, full(*"abcd"))
    cluster.lose = lambda _source, _target, _message: False
    cluster.run(500)
    cluster.change(leader, full(*"abcd"))
    assert cluster.run_until(lambda: settled(cluster, "abcd"), 5_000)


def test_a_leader_that_was_demoted_does_not_promote_itself_before_it_has_stepped_down() -> None:
    cluster = led_by("a")
    cluster.change("a", (member("a", LEARNER), *full("b", "c")), auto_leave=False)
    cluster.run(500)
    core = cluster.replicas["a"].core
    assert core is not None
    index = core.leave_joint(Nanos(cluster.now))
    for name in "bc":
        core.step(NodeId(name), AppendResponse(core.term, True, index, core.term, LogIndex(0)), Nanos(cluster.now))
    assert core.status().commit == index
    with pytest.raises(Unavailable, match="until its own demotion"):
        core.propose_configuration(full(*"abc"), now=Nanos(cluster.now))


# ---- leaders that leave, and members that were removed


def test_a_removed_leader_serves_until_the_end_and_hands_over() -> None:
    """It does not count itself, and no election timeout passes before its heir leads."""
    cluster = led_by("a", "abcd")
    cluster.change("a", full(*"bcd"))
    assert cluster.run_until(lambda: cluster.leader() not in (None, "a"), ELECTION_MS / 2)
    assert EventName.REMOVED_LEADER in cluster.events_of("a")
    cluster.run(5_000)
    assert settled(cluster, "bcd")
    assert cluster.status("a").configuration == Configuration(full(*"bcd"))
    core = cluster.replicas["a"].core
    assert core is not None
    cluster.run(5_000)
    assert core.next_deadline() is None, "a removed replica still wants to campaign"


def test_a_leader_that_removes_itself_does_not_count_itself() -> None:
    cluster = led_by("a", "abcd")
    cluster.change("a", full(*"bcd"), auto_leave=False)
    cluster.run(500)
    core = cluster.replicas["a"].core
    assert core is not None
    cluster.isolate("a", "b")
    index = core.leave_joint(Nanos(cluster.now))
    cluster.drain("a")
    cluster.run(500)
    assert cluster.status("a").commit < index
    cluster.heal()
    assert cluster.run_until(lambda: settled(cluster, "bcd"), 10_000)


def test_a_removed_member_learns_of_it_and_falls_silent() -> None:
    cluster = led_by("a", "abcd")
    cluster.change("a", full(*"abc"))
    assert cluster.run_until(lambda: settled(cluster, "abc"), 5_000)
    cluster.run(500)
    assert cluster.status("d").configuration == Configuration(full(*"abc"))
    cluster.isolate("d")
    sent = len(cluster.sent)
    cluster.run(10_000)
    assert not [1 for source, _, _ in cluster.sent[sent:] if source == "d"]


def test_a_leader_forgets_at_once_what_a_removed_member_held() -> None:
    """Whoever answers to its name meanwhile may have another store, and must not be told of what the old one had."""
    cluster = with_learner(led_by("a"), "a", "d")
    assert cluster.status("a").peers[NodeId("d")].match == cluster.status("a").last
    cluster.change("a", full("a", "b", "c"))
    assert cluster.status("a").peers[NodeId("d")].match == 0


def test_what_a_removed_member_still_acknowledges_is_not_counted_for_its_successor() -> None:
    cluster = led_by("a")
    cluster.isolate("c")
    cluster.propose("a", b"x")
    cluster.change("a", full(*"ab"))
    assert cluster.run_until(lambda: settled(cluster, "ab"), 5_000)
    core, term, last = cluster.replicas["a"].core, cluster.status("a").term, cluster.status("a").last
    assert core is not None
    refused = AppendResponse(term, False, LogIndex(1), term, LogIndex(last - 1))
    for answer in (refused, AppendResponse(term, True, LogIndex(2), term, LogIndex(0))):
        core.step(NodeId("c"), answer, Nanos(cluster.now))
    assert cluster.status("a").peers[NodeId("c")].match == 2, "the old store has part of the log"
    cluster.change("a", (*full(*"ab"), Member(NodeId("c"), StoreId("another"), LEARNER)))
    assert cluster.status("a").peers[NodeId("c")].match == 0


def test_a_removed_member_that_never_learned_of_it_disturbs_nobody() -> None:
    cluster = led_by("a", "abcd")
    cluster.isolate("d")
    cluster.change("a", full(*"abc"))
    assert cluster.run_until(lambda: settled(cluster, "abc"), 5_000)
    cluster.run(10 * ELECTION_MS)
    cluster.heal()
    term = cluster.status("a").term
    cluster.run(20_000)
    assert (cluster.leader(), cluster.status("a").term) == ("a", term)
    assert EventName.BECAME_PRE_CANDIDATE in cluster.events_of("d")


def test_a_node_removed_by_an_uncommitted_entry_campaigns_while_it_holds_the_longest_log() -> None:
    """Without it nobody could be elected (openraft#2091)."""
    cluster = led_by("a", "abcd")
    cluster.change("a", full(*"bcd"), auto_leave=False)
    cluster.run(500)
    core = cluster.replicas["a"].core
    assert core is not None
    cluster.isolate("a", "b")
    core.leave_joint(Nanos(cluster.now))
    cluster.drain("a")
    cluster.run(200)
    cluster.crash("b")
    cluster.crash("c")
    assert cluster.run_until(lambda: cluster.leader() is None, 3 * ELECTION_MS)
    # The entry that removes a is on a alone. c and d have only the joint configuration, whose outgoing half needs
    # three of a, b, c and d: so the vote of a, which c and d do not get, as their logs are older.
    cluster.heal()
    cluster.start("c")
    assert cluster.run_until(lambda: settled(cluster, "bcd"), 20_000)
    assert cluster.events_of("a").count(EventName.BECAME_LEADER) == 2


# ---- leader changes half-way


def test_a_joint_configuration_is_left_by_the_next_leader() -> None:
    """etcd#12136: the leader that entered it died before it could leave."""
    cluster = led_by("a", "abcd")
    cluster.isolate("a", "b", "c")
    joint = cluster.change("a", full(*"abc"))
    assert cluster.run_until(lambda: all(cluster.status(name).last >= joint for name in "bc"), 1_000)
    cluster.crash("a")
    cluster.heal()
    assert cluster.run_until(lambda: settled(cluster, "abc"), 20_000)
    assert cluster.leader() in ("b", "c")


def test_an_uncommitted_configuration_is_rolled_back_with_its_entry() -> None:
    cluster = led_by("a")
    before = cluster.status("a").configuration
    learner = cluster.add("d")
    cluster.isolate("a")
    cluster.change("a", (*full(*"abc"), learner))
    assert cluster.status("a").configuration != before
    assert cluster.run_until(lambda: cluster.leader() in ("b", "c"), 10_000)
    leader = cluster.leader()
    assert leader is not None
    cluster.propose(leader, b"x")
    cluster.settle()
    cluster.run(100)
    assert cluster.status("a").configuration == before
    assert EventName.CONFIGURATION_ROLLED_BACK in cluster.events_of("a")
    cluster.crash("a")
    cluster.start("a")
    assert cluster.status("a").configuration == before


def test_single_server_changes_of_two_leaders_make_no_two_groups() -> None:
    """The schedule of Ongaro's amendment: each leader changes what the other does not know of."""
    cluster = led_by("a", "abcd")
    learner = cluster.add("e")
    cluster.isolate("a", "e")
    cluster.change("a", (*full(*"abcd"), learner))
    cluster.run(100)
    assert cluster.run_until(lambda: cluster.leader() in ("b", "c", "d"), 10_000)
    second = cluster.leader()
    assert second is not None
    cluster.run(200)
    cluster.change(second, full(*"bcd"))
    assert cluster.run_until(lambda: settled(cluster, "bcd"), 5_000)
    index = cluster.propose(second, b"x")
    cluster.run(500)
    cluster.crash(second)
    cluster.heal()
    cluster.run(10_000)
    assert cluster.leader() in set("bcd") - {second}
    cluster.start(second)
    cluster.settle()
    assert cluster.committed(index)
    cluster.check_nothing_lost()


def test_two_obsolete_majorities_elect_no_two_leaders() -> None:
    """etcd-io/raft#469: d and e were added; b knows, c does not. No term may have two leaders."""
    cluster = led_by("a")
    for name in "de":
        with_learner(cluster, "a", name)
    cluster.isolate("a", "b", "d", "e")
    cluster.change("a", full(*"abcde"))
    assert cluster.run_until(lambda: settled(cluster, "abcde"), 5_000)
    cluster.isolate("c")
    cluster.crash("a")
    cluster.heal()
    cluster.cut_between("c", "b")
    cluster.cut_between("c", "d")
    cluster.cut_between("c", "e")
    cluster.start("a")
    cluster.force_campaign("c")
    cluster.force_campaign("b")
    cluster.run(20_000)  # The cluster checks that each term has one leader.
    cluster.settle()
    cluster.check_nothing_lost()


def test_a_promoted_voter_that_still_takes_itself_for_a_learner_votes() -> None:
    """etcd's campaign_learner_must_vote: the others have the entry that promotes it, and need its vote."""
    cluster = led_by("a", "ab")
    with_learner(cluster, "a", "c")
    cluster.isolate("c")
    cluster.change("a", full(*"abc"))
    assert cluster.run_until(lambda: settled(cluster, "abc"), 5_000)
    cluster.crash("a")
    cluster.run(2_000)
    assert cluster.status("c").role is LEARNER
    cluster.heal()
    assert cluster.run_until(lambda: cluster.leader() == "b", 10_000)
    assert EventName.VOTE_GRANTED in cluster.events_of("c")


# ---- witnesses


@pytest.mark.parametrize("crash_after_ms", [0, 5, 12, 25, 40, 60])
def test_w4_a_witness_is_swapped_while_the_leader_dies(crash_after_ms: int) -> None:
    """Whatever was committed, in whichever half, was held by a full replica; the cluster checks every commit."""
    cluster = led_by("a", {"a": FULL, "b": FULL, "w": WITNESS})  # type: ignore[arg-type]  # roles by name
    first = cluster.propose("a", b"before")
    cluster.run(100)
    new = cluster.add("x", WITNESS)
    cluster.change("a", (*full("a", "b"), new))
    middle = cluster.propose("a", b"middle")
    cluster.run(crash_after_ms)
    cluster.crash("a")
    cluster.run(20_000)
    cluster.start("a")
    assert cluster.run_until(lambda: settled(cluster, "abw") or settled(cluster, "abx"), 30_000)
    leader = cluster.leader()
    assert leader is not None
    last = cluster.propose(leader, b"after")
    cluster.settle()
    assert cluster.committed(first) and cluster.committed(last)
    assert not cluster.committed(middle) or cluster.chain[middle - 1][2] in (b"middle", b"")
    cluster.check_nothing_lost()


def test_a_removed_witness_that_is_added_as_a_learner_counts_for_nothing() -> None:
    """It has no state for what it dropped from its log, so it must not be taken for a copy."""
    roles = {"a": FULL, "b": FULL, "w": WITNESS}
    cluster = led_by("a", roles, truncate_entries_min=4)  # type: ignore[arg-type]  # roles by name
    for number in range(20):
        cluster.propose("a", b"%d" % number)
        cluster.run(50)
    assert cluster.status("w").first > 1
    cluster.change("a", full("a", "b"))
    assert cluster.run_until(lambda: settled(cluster, "ab"), 5_000)
    cluster.run(3 * ELECTION_MS)
    cluster.change("a", (*full("a", "b"), member("w", LEARNER)))
    cluster.run(3_000)
    assert EventName.NO_STATE in cluster.events_of("w")
    with pytest.raises(Unavailable):
        cluster.change("a", full("a", "b", "w"))


def test_a_former_witness_that_knows_itself_named_a_learner_acknowledges_nothing_to_hear_news() -> None:
    roles = {"a": FULL, "b": FULL, "w": WITNESS}
    cluster = led_by("a", roles)  # type: ignore[arg-type]  # roles by name
    cluster.change("a", full("a", "b"))
    assert cluster.run_until(lambda: settled(cluster, "ab"), 5_000)
    cluster.change("a", (*full("a", "b"), member("w", LEARNER)))
    cluster.run(3_000)
    core, status = cluster.replicas["w"].core, cluster.status("w")
    assert core is not None and status.role is LEARNER and status.commit < status.last
    assert not core.want_news(False) and not core.want_news(True)


def test_a_configuration_survives_a_restart_also_where_its_entry_was_truncated() -> None:
    roles = {"a": FULL, "b": FULL, "w": WITNESS}
    cluster = led_by("a", roles, truncate_entries_min=4)  # type: ignore[arg-type]  # roles by name
    with_learner(cluster, "a", "c")
    expected = cluster.status("a").configuration
    for number in range(20):
        cluster.propose("a", b"%d" % number)
        cluster.run(50)
    assert cluster.replicas["w"].disk.base == expected
    cluster.crash("w")
    cluster.start("w")
    assert cluster.status("w").configuration == expected
