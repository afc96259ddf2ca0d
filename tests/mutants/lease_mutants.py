"""Faults in leases, and in handing the leadership back."""

from planting import Mutant

LEASE = "regions/raft/lease.py"
HAND_BACK = "regions/raft/hand_back.py"
TRANSFER = "regions/raft/transfer.py"
ELECTION = "regions/raft/election.py"
QUIESCENCE = "regions/raft/quiescence.py"
NODE = "regions/raft/node.py"
SETTINGS = "node/settings.py"

_LEASE = "tests/unit/raft/test_lease.py::test_"
_HOSTS = "tests/unit/regions/test_host_leases.py::test_"
_BACK = "tests/unit/raft/test_hand_back.py::test_"
_WORLD = "tests/unit/sim/test_variants.py::test_"
_SETTINGS = "tests/unit/node/test_settings.py::test_"

LEASE_MUTANTS = (
    Mutant(
        name="a lease is not dropped on transfer",
        file=TRANSFER,
        old="    lease.give_up(state)\n",
        new="",
        test=_LEASE + "a_lease_is_given_up_before_a_transfer",
    ),
    Mutant(
        name="a lease is not dropped on transfer, in a simulated world",
        file=TRANSFER,
        old="    lease.give_up(state)\n",
        new="",
        test=_WORLD + "a_leader_that_does_not_hear_of_its_successor_answers_nothing_stale",
    ),
    Mutant(
        name="a lease comes back when a transfer fails",
        file=TRANSFER,
        old="    state.event(EventName.TRANSFER_GIVEN_UP, peer=state.transfer.target)\n",
        new="    state.event(EventName.TRANSFER_GIVEN_UP, peer=state.transfer.target)\n"
        "    state.lease_given_up = False\n",
        test=_LEASE + "a_lease_stays_given_up_when_a_transfer_fails_because_its_message_may_be_late",
    ),
    Mutant(
        name="a restarted voter does not abstain",
        file=NODE,
        old="        if state.term > 0:\n            lease.promise(state, now)\n",
        new="",
        test=_LEASE + "a_voter_that_has_restarted_still_keeps_its_promise",
    ),
    Mutant(
        name="a higher term ends a voter's promise",
        file=ELECTION,
        old="        state.term = term\n        state.vote = None\n",
        new="        state.term = term\n        state.vote = None\n        state.promised_until = now\n",
        test=_LEASE + "a_voter_that_learns_of_a_higher_term_still_keeps_its_promise",
    ),
    Mutant(
        name="a bound voter that follows nobody answers candidates",
        file=ELECTION,
        old=" or live or lease.is_bound(state, now)",
        new=" or live",
        test=_LEASE + "a_voter_that_learns_of_a_higher_term_still_keeps_its_promise",
    ),
    Mutant(
        name="a lease counts from the answer",
        file=LEASE,
        old="        progress.promised_since = progress.timed_sent\n",
        new="        progress.promised_since = progress.last_contact\n",
        test=_LEASE + "a_lease_counts_from_the_sending_and_not_from_the_answer",
    ),
    Mutant(
        name="a lease takes clocks for right",
        file=LEASE,
        old="    drift = config.clock_drift_ppm_max\n",
        new="    drift = 0 * config.clock_drift_ppm_max\n",
        test=_LEASE + "clocks_that_run_wrong_by_the_bound_make_no_read_stale",
    ),
    Mutant(
        name="a lease before an entry of the leader's term is committed",
        file=LEASE,
        old=" or state.lease_given_up or state.commit < state.term_start:",
        new=" or state.lease_given_up:",
        test=_LEASE + "a_new_leader_gives_no_lease_read_before_an_entry_of_its_term_is_committed",
    ),
    Mutant(
        name="a lease outlives its term",
        file=LEASE,
        old="    if not state.is_leader or state.term != term or ",
        new="    if not state.is_leader or ",
        test=_LEASE + "a_lease_belongs_to_one_term",
    ),
    Mutant(
        name="a leased read is answered without another look at the clock",
        file="regions/replica_reads.py",
        old="            if ready.lease is None or self._core.lease_holds(ready.lease, self._monotonic()):\n",
        new="            if ready.lease is None or self._core.term == ready.lease:\n",
        test=_HOSTS + "a_process_stopped_between_the_check_of_its_lease_and_its_answer_answers_nothing_stale",
    ),
    Mutant(
        name="a lease rests on one half of a joint configuration",
        file=LEASE,
        old="agreed_value(state.halves, ",
        new="agreed_value(state.halves[:1], ",
        test=_LEASE + "a_lease_in_a_joint_configuration_takes_a_quorum_of_both_halves",
    ),
    Mutant(
        name="a bound voter campaigns when it is asked to",
        file=NODE,
        old=" and state.may_campaign and not lease.is_bound(state, now):",
        new=" and state.may_campaign:",
        test=_LEASE + "a_bound_voter_does_not_campaign_when_it_is_asked_to",
    ),
    Mutant(
        name="an answer to an earlier heartbeat renews the lease",
        file=LEASE,
        old="    if progress.timed_round and round_ >= progress.timed_round:",
        new="    if progress.timed_round:",
        test=_LEASE + "a_lease_counts_from_the_sending_and_not_from_the_answer",
    ),
    Mutant(
        name="only the first word of a leader is a promise",
        file=ELECTION,
        old="    state.leader_contact = now\n    lease.promise(state, now)\n",
        new="    if state.promised_until == 0:\n        lease.promise(state, now)\n    state.leader_contact = now\n",
        test=_LEASE + "a_voter_that_learns_of_a_higher_term_still_keeps_its_promise",
    ),
)

HAND_BACK_MUTANTS = (
    Mutant(
        name="the leadership is handed back to a voter that lags",
        file=HAND_BACK,
        old=" or now - steady.goal_at >= patience_ns:",
        new=":",
        test=_BACK + "nothing_goes_to_a_voter_that_lags",
    ),
    Mutant(
        name="the leadership is handed back to a voter that is silent now and then",
        file=HAND_BACK,
        old="    if now - progress.last_contact >= patience_ns or ",
        new="    if ",
        test=_BACK + "a_voter_whose_contact_breaks_again_and_again_is_not_steady",
    ),
    Mutant(
        name="only a voter that holds everything at once is steady",
        file=HAND_BACK,
        old="    if progress.match >= steady.goal:\n",
        new="    if progress.match >= state.commit:\n",
        test=_BACK + "a_voter_that_keeps_up_under_load_is_good_enough",
    ),
    Mutant(
        name="the leadership is handed back as soon as home answers",
        file=HAND_BACK,
        old=" and now - steady.since >= back.wait_ns:",
        new=":",
        test=_BACK + "leadership_goes_home_once_and_stays_there",
    ),
    Mutant(
        name="a home that flaps gets the leadership each time",
        file=HAND_BACK,
        old="    elif back.handed_at is not None and now - back.handed_at < _CAP_WAITS * base:",
        new="    elif False:",
        test=_BACK + "a_home_that_fails_whenever_it_leads_is_left_alone_for_longer_and_longer",
    ),
    Mutant(
        name="a home that flaps is given up",
        file=HAND_BACK,
        old="    back.wait_ns = min(2 * max(back.wait_ns, base), _CAP_WAITS * base)\n",
        new="    back.wait_ns = 2 * max(back.wait_ns, base)\n",
        test=_BACK + "a_home_that_fails_whenever_it_leads_is_left_alone_for_longer_and_longer",
    ),
    Mutant(
        name="a hand-back that failed is tried again at once",
        file=NODE,
        old="                hand_back.given_up(state)\n",
        new="                pass\n",
        test=_BACK + "a_hand_back_that_fails_is_tried_again_after_twice_as_long",
    ),
    Mutant(
        name="what an operator has moved goes home at once",
        file=HAND_BACK,
        old="        back.wait_ns = _CAP_WAITS * base\n",
        new="        back.wait_ns = base\n",
        test=_BACK + "a_leader_moved_away_by_an_operator_stays_for_long",
    ),
    Mutant(
        name="the heir of a relay counts as chosen by an operator",
        file=HAND_BACK,
        old="    if state.transferring and state.asked_by_full:\n",
        new="    if state.transferring:\n",
        test=_BACK + "home_is_reached_by_way_of_a_relay",
    ),
    Mutant(
        name="the heir of a removed leader counts as chosen by an operator",
        file=NODE,
        old="transfer.is_full_voter(state, sender)",
        new="sender not in state.members or transfer.is_full_voter(state, sender)",
        test=_BACK + "the_heir_of_a_removed_leader_goes_home_without_delay",
    ),
    Mutant(
        name="one preferred leader hands over to another",
        file=HAND_BACK,
        old=" and not state.is_relay and state.node not in preferred\n",
        new=" and not state.is_relay and state.node != preferred[0]\n",
        test=_BACK + "the_first_preferred_that_is_steady_is_taken",
    ),
    Mutant(
        name="a leader away from home sleeps",
        file=QUIESCENCE,
        old=" or hand_back.has_an_heir(state):",
        new=":",
        test=_BACK + "a_leader_away_from_home_does_not_sleep",
    ),
    Mutant(
        name="a leader that waits for nobody stays awake",
        file=HAND_BACK,
        old="    return _is_away(state) and any(",
        new="    return _is_away(state) or any(",
        test=_BACK + "a_group_that_nobody_at_home_may_lead_sleeps_where_it_is",
    ),
    Mutant(
        name="everybody outside of the home region should lead",
        file=SETTINGS,
        old=" if each.region == group.home),",
        new=" if each.region != group.home),",
        test=_SETTINGS + "the_home_region_should_lead",
    ),
)
