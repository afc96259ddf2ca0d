"""Faults in the Raft core."""

from planting import Mutant

ELECTION = "regions/raft/election.py"
NODE = "regions/raft/node.py"
REPLICATION = "regions/raft/replication.py"
COMPACTION = "regions/raft/compaction.py"
READING = "regions/raft/reading.py"
LOG = "regions/raft/log.py"
QUORUM = "regions/raft/quorum.py"
PROGRESS = "regions/raft/progress.py"

_ELECTIONS = "tests/unit/raft/test_elections.py::test_"
_REPLICATION = "tests/unit/raft/test_replication.py::test_"
_READING = "tests/unit/raft/test_reading.py::test_"
_WITNESS = "tests/unit/raft/test_witness.py::test_"
_PROGRESS = "tests/unit/raft/test_progress.py::test_"

ELECTION_MUTANTS = (
    Mutant(
        name="a vote request leaves before the own vote is durable",
        file=ELECTION,
        old="        state.send_when_durable(node, request)",
        new="        state.send(node, request)",
        test=_ELECTIONS + "vote_requests_leave_only_after_the_term_and_own_vote_are_durable",
    ),
    Mutant(
        name="a vote leaves before it is durable",
        file=ELECTION,
        old="    state.send_when_durable(sender, VoteResponse(request.term, granted=True, pre=request.pre))",
        new="    state.send(sender, VoteResponse(request.term, granted=True, pre=request.pre))",
        test=_ELECTIONS + "a_vote_lost_with_its_write_was_never_sent",
    ),
    Mutant(
        name="a candidate counts its own vote before it is durable",
        file=ELECTION,
        old="    state.votes = {}\n",
        new="    state.votes = {state.node: True}\n",
        test=_ELECTIONS + "a_candidate_does_not_count_its_own_vote_before_it_is_durable",
    ),
    Mutant(
        name="a candidate is elected without its own vote",
        file=ELECTION,
        old="        case VoteOutcome.WON if state.node not in state.votes:\n",
        new="        case VoteOutcome.WON if False:\n",
        test=_ELECTIONS + "the_votes_of_all_others_elect_nobody_whose_own_vote_is_not_durable",
    ),
    Mutant(
        name="two votes in one term",
        file=ELECTION,
        old="        free = state.vote == sender or (state.vote is None and state.leader is None)",
        new="        free = True",
        test=_ELECTIONS + "a_vote_is_given_once_in_a_term_also_across_a_restart",
    ),
    Mutant(
        name="a vote in a term whose leader is known",
        file=ELECTION,
        old="(state.vote is None and state.leader is None)",
        new="state.vote is None",
        test=_ELECTIONS + "no_vote_is_given_in_a_term_whose_leader_is_known",
    ),
    Mutant(
        name="a vote without a look at the log",
        file=ELECTION,
        old="        granted = request.term == state.term and free and up_to_date",
        new="        granted = request.term == state.term and free",
        test=_ELECTIONS + "only_a_log_as_new_as_the_voters_gets_its_vote",
    ),
    Mutant(
        name="a learner that is asked refuses its vote",
        file=ELECTION,
        old="    if not granted:\n",
        new="    if not granted or state.role is ReplicaRole.LEARNER:\n",
        test="tests/scenarios/test_scenarios.py::test_a_scenario_leaves_its_trace[learner_must_vote]",
    ),
    Mutant(
        name="an answer of a later term counts as contact",
        file=NODE,
        old="        if not self._settle_term(sender, message, now):\n            return\n",
        new="        if isinstance(message, HeartbeatResponse) and state.is_leader:\n"
        "            state.progress[sender].last_contact = now\n"
        "            return\n        if not self._settle_term(sender, message, now):\n            return\n",
        test="tests/scenarios/test_scenarios.py::test_a_scenario_leaves_its_trace[phantom_contact]",
    ),
    Mutant(
        name="a longer log is taken for a newer one",
        file=LOG,
        old="        return (last_term, last_index) >= (self.last_term, self.last_index)",
        new="        return last_index >= self.last_index",
        test=_ELECTIONS + "only_a_log_as_new_as_the_voters_gets_its_vote",
    ),
    Mutant(
        name="a pre-vote raises the voter's term",
        file=NODE,
        old="            if message.pre:\n                return True\n",
        new="",
        test=_ELECTIONS + "a_pre_vote_changes_nothing",
    ),
    Mutant(
        name="a campaign without a pre-vote",
        file=ELECTION,
        old="    else:\n        campaign(state, now)\n",
        new="    else:\n        campaign_for_real(state, now, transfer=False)\n",
        test=_ELECTIONS + "a_replica_that_was_cut_off_returns_without_a_change_of_leader_or_term",
    ),
    Mutant(
        name="a refusal without the higher term",
        file=ELECTION,
        old="VoteResponse(state.term, granted=False, pre=request.pre))",
        new="VoteResponse(request.term, granted=False, pre=request.pre))",
        test=_ELECTIONS + "a_high_term_with_a_short_log_and_a_low_term_with_a_long_log_agree",
    ),
    Mutant(
        name="a stale heartbeat is not answered",
        file=NODE,
        old="            case Heartbeat():\n                state.reply(",
        new="            case Heartbeat():\n                (lambda *_: None)(",
        test=_ELECTIONS + "a_replica_stuck_in_a_higher_term_rejoins",
    ),
    Mutant(
        name="no stickiness to a live leader",
        file=ELECTION,
        old="    return state.is_leader or live or ",
        new="    return state.is_leader or ",
        test=_ELECTIONS + "a_follower_of_a_live_leader_ignores_votes_unless_the_leader_asked_for_them",
    ),
    Mutant(
        name="stickiness also where the leader asked for the campaign",
        file=ELECTION,
        old="    if request.transfer:\n        return False\n",
        new="",
        test=_ELECTIONS + "a_follower_of_a_live_leader_ignores_votes_unless_the_leader_asked_for_them",
    ),
    Mutant(
        name="a pre-candidate keeps its lost leader",
        file=ELECTION,
        old="    _set_leader(state, None)\n    state.event(EventName.BECAME_PRE_CANDIDATE)",
        new="    state.event(EventName.BECAME_PRE_CANDIDATE)",
        test=_ELECTIONS + "two_pre_candidates_do_not_hold_on_to_their_lost_leader",
    ),
    Mutant(
        name="no check-quorum",
        file=ELECTION,
        old="    state.quorum_deadline = Nanos(contact + state.config.election_timeout_ns)",
        new="    state.quorum_deadline = Nanos(now + state.config.election_timeout_ns)",
        test=_ELECTIONS + "a_leader_without_a_quorum_steps_down_within_one_timeout_and_is_silent_from_then_on",
    ),
    Mutant(
        name="a late grant of an earlier pre-vote counts",
        file=ELECTION,
        old="        if response.granted and response.term != state.term + 1:\n            return\n",
        new="",
        test=_ELECTIONS + "a_late_grant_of_an_earlier_pre_vote_elects_nobody",
    ),
    Mutant(
        name="the own vote counts on the report of an older write",
        file=NODE,
        old="        if token.term != state.term:\n            return\n",
        new="",
        test=_ELECTIONS + "a_report_of_an_older_write_does_not_make_the_own_vote_count",
    ),
    Mutant(
        name="half of an even group is a quorum",
        file="wire/configurations.py",
        old="    majority = voters // 2 + 1",
        new="    majority = (voters + 1) // 2",
        test=_ELECTIONS + "half_of_an_even_group_is_no_quorum",
    ),
    Mutant(
        name="a pre-candidate gives way again and again",
        file=ELECTION,
        old="    if state.gave_way:\n        return\n",
        new="",
        test="tests/scenarios/test_scenarios.py::test_a_scenario_leaves_its_trace[give_way_once]",
    ),
)

REPLICATION_MUTANTS = (
    Mutant(
        name="a former witness without its state acknowledges entries to hear news",
        file=REPLICATION,
        old="state.is_leader or state.lacks_state():",
        new="state.is_leader:",
        test="tests/unit/raft/test_membership.py::test_"
        "a_former_witness_that_knows_itself_named_a_learner_acknowledges_nothing_to_hear_news",
    ),
    Mutant(
        name="an entry of an older term is committed by counting",
        file=REPLICATION,
        old="    if index > state.commit and state.log.term_at(index) == state.term:",
        new="    if index > state.commit:",
        test=_REPLICATION + "an_entry_of_an_older_term_is_not_committed_by_counting",
    ),
    Mutant(
        name="no no-op barrier: older entries are never committed",
        file=ELECTION,
        old="    replication.append_entry(state, EntryKind.NOOP)\n",
        new="",
        test=_REPLICATION + "a_new_leader_appends_a_no_op_and_commits_the_old_entries_with_it",
    ),
    Mutant(
        name="a leader counts itself before its own write is durable",
        file=REPLICATION,
        old="    return state.log.durable_index if node == state.config.node else",
        new="    return state.log.last_index if node == state.config.node else",
        test=_REPLICATION + "a_leader_counts_itself_only_when_its_own_write_is_durable",
    ),
    Mutant(
        name="a follower acknowledges before its write is durable",
        file=REPLICATION,
        old="    state.send_when_durable(leader, AppendResponse(",
        new="    state.send(leader, AppendResponse(",
        test=_REPLICATION + "a_follower_acknowledges_only_what_is_durable",
    ),
    Mutant(
        name="a late report of an overtaken write counts (ABA)",
        file=LOG,
        old="        if epoch != self.epoch:\n            return False\n",
        new="",
        test=_REPLICATION + "a_late_report_of_an_overtaken_write_does_not_count",
    ),
    Mutant(
        name="a short request removes what stands behind it",
        file=REPLICATION,
        old="        if held == entry.term:\n            continue\n",
        new="",
        test=_REPLICATION + "a_short_or_late_request_removes_nothing",
    ),
    Mutant(
        name="a suffix in conflict is kept",
        file=LOG,
        old="        if first <= self.last_index:\n            self._drop_suffix(first)\n        self.append(entries)",
        new="        self.append([entry for entry in entries if entry.index > self.last_index])",
        test=_REPLICATION + "the_logs_of_figure_7_are_reconciled_in_few_round_trips",
    ),
    Mutant(
        name="an acknowledgement claims the whole log",
        file=REPLICATION,
        old="    last = LogIndex(request.previous_index + len(request.entries))\n",
        new="    last = state.log.last_index\n",
        test=_REPLICATION + "an_acknowledgement_never_claims_entries_that_the_request_did_not_bring",
    ),
    Mutant(
        name="no check of the previous entry's term",
        file=REPLICATION,
        old="    if log.term_at(request.previous_index) != request.previous_term:",
        new="    if log.term_at(request.previous_index) is None:",
        test="tests/scenarios/test_scenarios.py::test_a_scenario_leaves_its_trace[figure_7]",
    ),
    Mutant(
        name="a follower commits what the request did not match",
        file=REPLICATION,
        old="    advance_commit(state, min(request.commit, last))\n",
        new="    advance_commit(state, min(request.commit, log.last_index))\n",
        test=_REPLICATION + "a_follower_commits_only_what_the_request_matched",
    ),
    Mutant(
        name="conflict hints go back by single entries",
        file=LOG,
        old="            index = LogIndex(self._run_firsts[position] - 1)\n            position -= 1",
        new="            index = LogIndex(index - 1)\n            break",
        test=_REPLICATION + "probing_a_long_divergent_log_takes_a_round_per_term",
    ),
    Mutant(
        name="a heartbeat tells a commit index beyond the match",
        file=REPLICATION,
        old="    commit = min(state.commit, progress.match)\n",
        new="    commit = state.commit\n",
        test=_REPLICATION + "a_heartbeat_never_names_a_commit_index_beyond_what_its_receiver_is_known_to_hold",
    ),
    Mutant(
        name="the last to acknowledge is not told of the commit",
        file=REPLICATION,
        old="            state.commit_news = state.commit_news or _has_news(state, sender, progress)\n",
        new="",
        test=_REPLICATION + "the_last_to_acknowledge_is_told_of_the_commit_at_once",
    ),
    Mutant(
        name="a follower where nobody waits is told of each commit",
        file=REPLICATION,
        old="    if not progress.wants_news or told >= state.commit",
        new="    if told >= state.commit",
        test=_REPLICATION + "a_follower_where_nobody_waits_hears_of_a_commit_with_other_messages",
    ),
    Mutant(
        name="a follower where somebody begins to wait is not told of what it holds",
        file=REPLICATION,
        old="        if progress.accepted(response.index) or begins_to_wait:\n",
        new="        if progress.accepted(response.index):\n",
        test=_REPLICATION + "a_follower_where_somebody_begins_to_wait_hears_at_once_of_what_it_holds_and_what_follows",
    ),
    Mutant(
        name="whom entries tell of a commit is told again",
        file=REPLICATION,
        old="    progress.told_commit = max(progress.told_commit, min(state.commit, last))\n",
        new="",
        test=_REPLICATION + "whom_entries_tell_of_a_commit_is_told_of_it_only_once",
    ),
    Mutant(
        name="a witness is told of each commit",
        file=REPLICATION,
        old="    return member is None or member.role is not ReplicaRole.WITNESS\n",
        new="    return True\n",
        test=_REPLICATION + "a_witness_hears_of_commits_without_messages_of_its_own",
    ),
    Mutant(
        name="timestamps follow the clock down",
        file=REPLICATION,
        old="        timestamp=max(floor, proposal.timestamp) if proposal else floor,",
        new="        timestamp=proposal.timestamp if proposal else floor,",
        test=_REPLICATION + "timestamps_rise_along_the_log_whatever_the_clocks_say",
    ),
    Mutant(
        name="a new leader forgets the timestamps of others",
        file=REPLICATION,
        old="        state.last_timestamp = max(state.last_timestamp, entries[-1].last_timestamp)\n",
        new="",
        test=_REPLICATION + "timestamps_rise_along_the_log_whatever_the_clocks_say",
    ),
    Mutant(
        name="the window has no end",
        file=PROGRESS,
        old="(len(self.inflight) < messages_max and self.inflight_bytes < bytes_max)",
        new="True",
        test=_REPLICATION + "the_window_bounds_bytes",
    ),
    Mutant(
        name="uncommitted bytes have no bound",
        file=REPLICATION,
        old="    if held_bytes > 0 and held_bytes + size_bytes > config.uncommitted_bytes_max:",
        new="    if False:",
        test=_REPLICATION + "uncommitted_bytes_are_bounded_and_released_by_commits",
    ),
    Mutant(
        name="what is not durable is evicted from memory",
        file=LOG,
        old="        count = min(index, self.durable_index) + 1 - self._cache_first",
        new="        count = index + 1 - self._cache_first",
        test=_REPLICATION + "nothing_is_evicted_that_storage_cannot_give_back",
    ),
    Mutant(
        name="a stale refusal moves the probe",
        file=PROGRESS,
        old="        if rejected != self.next - 1:\n            return False\n",
        new="",
        test=_PROGRESS + "a_refusal_of_another_probe_is_stale",
    ),
    Mutant(
        name="a leader takes entries of a second leader of its term",
        file=NODE,
        old='            raise InvariantViolation(f"{leader} leads group',
        new='            str(f"{leader} leads group',
        test=_REPLICATION + "two_leaders_of_one_term_are_noticed",
    ),
)

READING_MUTANTS = (
    Mutant(
        name="reads do not wait for an entry of the leader's own term",
        file=READING,
        old="    return state.commit >= state.term_start",
        new="    return True",
        test=_READING + "reads_wait_until_an_entry_of_the_leaders_own_term_is_committed",
    ),
    Mutant(
        name="a read is answered without a round",
        file=READING,
        old="    return state.round if node == state.config.node else state.progress[node].acked_round",
        new="    return state.round",
        test=_READING + "a_leader_that_does_not_know_yet_that_it_was_deposed_answers_no_read",
    ),
    Mutant(
        name="an answer to an earlier round confirms a read",
        file=NODE,
        old="                    progress.acked_round = max(progress.acked_round, message.round)",
        new="                    progress.acked_round = state.round",
        test=_READING + "an_answer_to_an_earlier_round_confirms_nothing",
    ),
    Mutant(
        name="a deposed leader keeps its reads",
        file=ELECTION,
        old="        state.out.refused_reads.extend(waiting.contexts)\n    state.out",
        new="        state.out.refused_reads.clear()\n    state.out",
        test=_READING + "a_deposed_leader_never_answers_a_read",
    ),
    Mutant(
        name="each read starts a round of its own",
        file=READING,
        old="WaitingRead(state.round, state.commit, state.new_reads))\n        state.new_reads = []",
        new="WaitingRead(state.round, state.commit, state.new_reads[:1]))\n        del state.new_reads[:1]",
        test=_READING + "reads_of_one_turn_share_a_round",
    ),
)

WITNESS_MUTANTS = (
    Mutant(
        name="a witness truncates without bound",
        file=COMPACTION,
        old="    target = LogIndex(min(bound, _spare(state)))",
        new="    target = _spare(state)",
        test=_WITNESS + "a_witness_drops_only_what_every_full_voter_holds",
    ),
    Mutant(
        name="the truncation bound forgets a full voter that is away",
        file=REPLICATION,
        old="        bound = min(bound, stored_by(state, node))\n",
        new="        bound = min(bound, stored_by(state, state.node))\n",
        test=_WITNESS + "a_witness_drops_only_what_every_full_voter_holds",
    ),
    Mutant(
        name="a witness votes without a look at the log",
        file=ELECTION,
        old="    up_to_date = state.log.is_up_to_date(request.last_index, request.last_term)\n",
        new="    up_to_date = state.role is ReplicaRole.WITNESS or state.log.is_up_to_date(\n"
        "        request.last_index, request.last_term\n    )\n",
        test=_WITNESS + "what_was_committed_with_the_witness_alone_survives_the_leader",
    ),
    Mutant(
        name="a witness drops its last entry",
        file=COMPACTION,
        old="log.durable_index, log.last_index - 1))",
        new="log.durable_index, log.last_index))",
        test=_WITNESS + "a_witness_keeps_its_last_entry_so_that_timestamps_rise_across_its_restart",
    ),
    Mutant(
        name="a relay takes proposals and reads",
        file=NODE,
        old="        if not state.is_leader or state.is_relay:",
        new="        if not state.is_leader:",
        test=_WITNESS + "a_relay_refuses_proposals_and_reads",
    ),
    Mutant(
        name="a witness campaigns without a reason",
        file=ELECTION,
        old="    if state.role is ReplicaRole.FULL:\n",
        new="    if state.role is not ReplicaRole.LEARNER:\n",
        test=_WITNESS + "a_witness_never_campaigns_without_a_reason",
    ),
    Mutant(
        name="a follower passes over it that it has lost what it acknowledged",
        file=REPLICATION,
        old="    if heartbeat.commit > state.log.last_index:\n",
        new="    if heartbeat.commit > state.log.last_index:\n        return\n    if False:\n",
        test="tests/scenarios/test_scenarios.py::test_a_scenario_leaves_its_trace[disk_that_lies]",
    ),
    Mutant(
        name="a refusal for another reason than an old log arms a witness",
        file=ELECTION,
        old=" and full and idle and not up_to_date:",
        new=" and full and idle:",
        test=_WITNESS + "a_refusal_at_the_wish_of_a_live_leader_or_of_a_newer_log_arms_nobody",
    ),
    Mutant(
        name="a witness is never armed",
        file=ELECTION,
        old=" and full and idle and not up_to_date:",
        new=" and full and idle and up_to_date and not up_to_date:",
        test=_WITNESS + "what_was_committed_with_the_witness_alone_survives_the_leader",
    ),
    Mutant(
        name="a witness takes over when told",
        file=NODE,
        old="state.office is Office.FOLLOWER and state.role is ReplicaRole.FULL and state.may_campaign:",
        new="state.office is Office.FOLLOWER and state.may_campaign:",
        test=_WITNESS + "a_witness_does_not_take_over_when_told",
    ),
    Mutant(
        name="a witness that a full voter may not know of waits to be asked by it",
        file=ELECTION,
        old="    return state.configurations[-1].index > state.held_by_full\n",
        new="    return False\n",
        test="tests/scenarios/test_scenarios.py::test_a_scenario_leaves_its_trace[w4_witness_swapped_unknown]",
    ),
    Mutant(
        name="a witness campaigns unasked although all full voters know of it",
        file=ELECTION,
        old="    return state.configurations[-1].index > state.held_by_full\n",
        new="    return True\n",
        test=_WITNESS + "a_witness_never_campaigns_without_a_reason",
    ),
    Mutant(
        name="a relay hands over to a replica that lacks entries",
        file="regions/raft/relay.py",
        old="        if _votes_fully(state, node) and progress.match == state.log.last_index\n",
        new="        if _votes_fully(state, node)\n",
        test="tests/scenarios/test_scenarios.py::test_a_scenario_leaves_its_trace[w1_relay]",
    ),
    Mutant(
        name="two witnesses commit alone",
        file="wire/configurations.py",
        old="    if witnesses >= min(commit, election):",
        new="    if witnesses > voters:",
        test="tests/properties/raft/test_quorum.py::test_quorums_of_allowed_sizes_meet_and_hold_a_full_replica_and_those_of_other_sizes_need_not",
    ),
)
