"""Faults in what lets groups sleep, and in what keeps a host's turns cheap."""

from planting import Mutant

QUIESCENCE = "regions/raft/quiescence.py"
MEMBERSHIP = "regions/raft/membership.py"
HEARTBEATS = "regions/node_heartbeats.py"
SLEEPERS = "regions/sleepers.py"
DEADLINES = "regions/deadlines.py"
HOST = "regions/host.py"
NODE = "regions/raft/node.py"
ELECTION = "regions/raft/election.py"
INTAKE = "regions/intake.py"

_CORE = "tests/unit/raft/test_quiescence.py::test_"
_BEATS = "tests/unit/regions/test_node_heartbeats.py::test_"
_HOSTS = "tests/unit/regions/test_quiescent_hosts.py::test_"
_DEADLINES = "tests/properties/raft/test_deadlines.py::test_"
_MEMBERSHIP = "tests/unit/regions/test_host_membership.py::test_"

CORE_MUTANTS = (
    Mutant(
        name="a group sleeps although a member lacks entries",
        file=QUIESCENCE,
        old="    caught_up = progress.match == last and progress.feed is Feed.REPLICATE\n",
        new="    caught_up = True\n",
        test=_CORE + "a_group_with_a_member_that_lacks_entries_does_not_sleep",
    ),
    Mutant(
        name="a group sleeps although a member does not answer",
        file=QUIESCENCE,
        old="    return caught_up and (progress.acked_round >= state.round - 1 or is_learner(state, peer))\n",
        new="    return caught_up\n",
        test=_CORE + "a_group_with_a_voter_that_does_not_answer_does_not_sleep",
    ),
    Mutant(
        name="a group sleeps although its leader's disk hangs",
        file=QUIESCENCE,
        old=" or state.log.durable_index < last",
        new="",
        test=_CORE + "a_group_whose_leader_s_disk_hangs_does_not_sleep",
    ),
    Mutant(
        name="a group sleeps as soon as it is settled",
        file=QUIESCENCE,
        old="    if after is None or now - state.active_at < after or not _is_settled(state, now):",
        new="    if after is None or not _is_settled(state, now):",
        test=_CORE + "a_group_sleeps_only_after_the_time_without_work",
    ),
    Mutant(
        name="a learner that sleeps is taken for one that does not answer",
        file=MEMBERSHIP,
        old="    silent = not asleep and now",
        new="    silent = now",
        test=_CORE + "a_learner_of_a_group_that_sleeps_is_promoted",
    ),
    Mutant(
        name="a learner that a group sleeps without is promoted",
        file=MEMBERSHIP,
        old="    asleep = state.quiescent and node not in state.slept_without\n",
        new="    asleep = state.quiescent\n",
        test=_CORE + "a_learner_that_the_group_sleeps_without_is_not_promoted",
    ),
    Mutant(
        name="a dead learner keeps its group awake",
        file=QUIESCENCE,
        old="        _is_absent(state, peer, now) or _knows",
        new="        _knows",
        test=_CORE + "a_group_sleeps_without_a_learner_that_does_not_answer_for_a_timeout",
    ),
    Mutant(
        name="a dead voter does not keep its group awake",
        file=QUIESCENCE,
        old="    return silent and is_learner(state, peer)\n",
        new="    return silent\n",
        test=_CORE + "a_group_with_a_voter_that_does_not_answer_does_not_sleep",
    ),
    Mutant(
        name="a learner that is absent is told to sleep",
        file=QUIESCENCE,
        old="        if peer not in state.slept_without:\n            state.send",
        new="        if peer:\n            state.send",
        test=_HOSTS + "a_learner_that_is_away_costs_one_message_per_interval_and_is_fed_when_it_returns[cut from it]",
    ),
    Mutant(
        name="a far learner must answer as fast as a voter",
        file=QUIESCENCE,
        old="    return caught_up and (progress.acked_round >= state.round - 1 or is_learner(state, peer))\n",
        new="    return caught_up and progress.acked_round >= state.round - 1\n",
        test=_CORE + "a_group_sleeps_with_a_learner_that_is_many_heartbeats_away",
    ),
    Mutant(
        name="a read is not work",
        file=QUIESCENCE,
        old=" or state.new_reads or state.leased_reads",
        new=" or state.leased_reads",
        test=_CORE + "a_read_is_work",
    ),
    Mutant(
        name="a leased read is not work",
        file=QUIESCENCE,
        old=" or state.leased_reads",
        new="",
        test=_CORE + "a_leased_read_is_work",
    ),
    Mutant(
        name="a follower sleeps wherever its log ends",
        file=QUIESCENCE,
        old=" == state.commit == message.last_index:",
        new=" == state.commit:",
        test=_CORE + "a_follower_that_is_not_where_its_leader_is_stays_awake",
    ),
    Mutant(
        name="a follower sleeps without knowing the commit",
        file=QUIESCENCE,
        old=" == log.durable_index == state.commit == ",
        new=" == log.durable_index == ",
        test=_CORE + "a_follower_that_does_not_know_the_commit_stays_awake",
    ),
    Mutant(
        name="late answers wake the leader",
        file=QUIESCENCE,
        old="        case HeartbeatResponse():\n            return\n",
        new="",
        test=_CORE + "late_answers_do_not_wake_the_leader",
    ),
    Mutant(
        name="a sleeping leader ignores requests for votes",
        file=QUIESCENCE,
        old='            probe("quiescence.woken_by_a_member")\n            wake_leader(state, now, lambda _: now)',
        new='            probe("quiescence.woken_by_a_member")',
        test=_CORE + "what_shows_that_a_member_is_awake_wakes_the_leader",
    ),
    Mutant(
        name="a stranger wakes a group",
        file=NODE,
        old="        if state.quiescent and sender in state.progress:\n",
        new="        if state.quiescent and state.is_leader:\n",
        test=_CORE + "a_request_of_a_stranger_wakes_nobody",
    ),
    Mutant(
        name="a woken leader counts from its waking",
        file=QUIESCENCE,
        old="        progress.last_contact = max(progress.last_contact, min(now, heard(peer)))",
        new="        progress.last_contact = now",
        test=_CORE + "a_woken_leader_that_no_quorum_was_heard_of_steps_down_at_once",
    ),
    Mutant(
        name="a woken leader forgets who was heard meanwhile",
        file=QUIESCENCE,
        old="        progress.last_contact = max(progress.last_contact, min(now, heard(peer)))\n",
        new="        progress.last_contact = max(progress.last_contact, 0 * heard(peer))\n",
        test=_CORE + "a_woken_leader_that_a_quorum_was_heard_of_goes_on",
    ),
    Mutant(
        name="a woken leader takes the heartbeats of nodes for leases",
        file=QUIESCENCE,
        old="    state.quorum_deadline = now\n",
        new="    state.quorum_deadline = now\n    for progress in state.progress.values():\n"
        "        progress.promised_since = progress.last_contact\n",
        test=_CORE + "a_leader_has_no_lease_when_it_wakes",
    ),
    Mutant(
        name="a woken leader waits for its next heartbeat",
        file=QUIESCENCE,
        old="    reading.start_round(state, now)\n",
        new="    state.heartbeat_deadline = Nanos(now + state.config.heartbeat_ns)\n",
        test=_CORE + "what_shows_that_a_member_is_awake_wakes_the_leader",
    ),
    Mutant(
        name="a woken follower gives its leader a new timeout",
        file=QUIESCENCE,
        old="election.deadline_after(state, state.leader_contact)",
        new="election.deadline_after(state, now)",
        test=_CORE + "a_follower_wakes_as_if_its_leader_had_been_heard_when_the_node_was",
    ),
    Mutant(
        name="a sleeping follower forgets its leader",
        file=ELECTION,
        old="    recent = state.quiescent or now - state.leader_contact",
        new="    recent = now - state.leader_contact",
        test=_CORE + "a_sleeping_follower_holds_on_to_its_leader",
    ),
    Mutant(
        name="a sleeping follower runs its election timer",
        file=QUIESCENCE,
        old="    state.quiescent = True\n    state.election_deadline = None\n",
        new="    state.quiescent = True\n",
        test=_CORE + "who_sleeps_runs_no_timer",
    ),
)

WATCH_MUTANTS = (
    Mutant(
        name="the digest knows no terms",
        file=HEARTBEATS,
        old='f"{term}/{group}"',
        new='f"{group}"',
        test=_BEATS + "any_difference_is_a_mismatch_and_is_told_at_once[term]",
    ),
    Mutant(
        name="a mismatch is not told",
        file=HEARTBEATS,
        old="                peer.tell_mismatch = True\n",
        new="                peer.tell_mismatch = False\n",
        test=_HOSTS + "a_lost_word_to_sleep_is_noticed_at_the_next_heartbeat",
    ),
    Mutant(
        name="a mismatch wakes only the leader's side",
        file=HEARTBEATS,
        old="            woken.extend(peer.followed.hashes)\n",
        new="",
        test=_BEATS + "a_follower_that_sleeps_under_a_node_which_leads_nothing_wakes",
    ),
    Mutant(
        name="a leader told of a mismatch sleeps on",
        file=HEARTBEATS,
        old="            woken.extend(peer.led.hashes)\n",
        new="            woken.clear()\n",
        test=_BEATS + "any_difference_is_a_mismatch_and_is_told_at_once[other]",
    ),
    Mutant(
        name="silence is not noticed",
        file=HEARTBEATS,
        old="            if peer.missed and now - peer.heard >= peer.timeout_ns:",
        new="            if peer.missed and peer.timeout_ns < 0:",
        test=_BEATS + "silence_for_a_timeout_wakes_both_sides",
    ),
    Mutant(
        name="the silence of an absent learner wakes its group",
        file=HEARTBEATS,
        old="                woken.extend(group for group in peer.groups() if group not in peer.absent)\n",
        new="                woken.extend(peer.groups())\n",
        test=_BEATS + "a_node_may_be_missed_by_one_group_and_absent_from_another",
    ),
    Mutant(
        name="an absent learner is not told of the sleep",
        file=HEARTBEATS,
        old="            for node in (*slumber.watched, *slumber.absent):\n",
        new="            for node in slumber.watched:\n",
        test=_BEATS + "the_silence_of_an_absent_learner_wakes_nobody_and_its_word_does",
    ),
    Mutant(
        name="a node that restarted is taken for the one that slept",
        file=HEARTBEATS,
        old="        return peer.groups()\n\n    def silent",
        new="        return []\n\n    def silent",
        test=_BEATS + "a_new_process_of_a_peer_wakes_all_that_sleeps_with_it",
    ),
    Mutant(
        name="the host does not say who restarted",
        file=HOST,
        old="            self._sleepers.restarted(write.batch.incarnations, now)\n",
        new="",
        test=_HOSTS + "a_new_process_wakes_its_groups_with_its_first_word",
    ),
    Mutant(
        name="a digest is compared with what was true before its turn",
        file=SLEEPERS,
        old="        for group in touched:\n            self.note(group, now)\n",
        new="",
        test=_HOSTS + "a_word_and_the_digest_that_reflects_it_may_come_in_one_turn",
    ),
    Mutant(
        name="a leader cut off in its sleep gets a new timeout by work",
        file=SLEEPERS,
        old="            replica.core.wake(now, self._heartbeats.heard)\n\n    def wake_if_silent",
        new="            replica.core.wake(now, lambda _: now)\n\n    def wake_if_silent",
        test=_HOSTS + "a_leader_cut_off_in_its_sleep_answers_no_read_and_loses_its_office",
    ),
    Mutant(
        name="heartbeats are sent at each node's own times",
        file=HEARTBEATS,
        old="                peer.beat_at = Nanos((now // peer.heartbeat_ns + 1) * peer.heartbeat_ns)",
        new="                peer.beat_at = Nanos(now + peer.heartbeat_ns)",
        test=_BEATS + "one_message_for_each_peer_and_interval_however_many_groups_sleep",
    ),
    Mutant(
        name="answers of removed members are dropped",
        file=INTAKE,
        old="            return member is not None and member.store == envelope.store",
        new="            return False",
        test=_HOSTS + "a_change_of_members_wakes_the_group_and_who_stays_sleeps_again",
    ),
    Mutant(
        name="a removed member forgets its removal",
        file="regions/raft/durability.py",
        old="    must_store |= not state.may_campaign",
        new="    must_store |= False and not state.may_campaign",
        test=_MEMBERSHIP + "a_removed_replica_restarts_and_stays_quiet",
    ),
    Mutant(
        name="a deadline that comes nearer is not noticed",
        file=DEADLINES,
        old="        if alarm is None or deadline < alarm:\n",
        new="        if alarm is None:\n",
        test=_DEADLINES + "every_group_comes_due_exactly_when_a_scan_finds_it",
    ),
    Mutant(
        name="a deadline that moved on is lost",
        file=DEADLINES,
        old="                self._push(group, deadline)\n            else:",
        new="                pass\n            else:",
        test=_DEADLINES + "every_group_comes_due_exactly_when_a_scan_finds_it",
    ),
)
