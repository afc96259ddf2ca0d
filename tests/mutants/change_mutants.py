"""Faults in what changes who leads and who belongs: transfers, membership."""

from planting import Mutant

TRANSFER = "regions/raft/transfer.py"
MEMBERSHIP = "regions/raft/membership.py"
CHANGES = "regions/raft/changes.py"
CONFIGURATION_LOG = "regions/raft/configuration_log.py"
ELECTION = "regions/raft/election.py"
NODE = "regions/raft/node.py"
QUORUM = "regions/raft/quorum.py"

_TRANSFER = "tests/unit/raft/test_transfer.py::test_"
_MEMBERSHIP = "tests/unit/raft/test_membership.py::test_"
_QUORUM = "tests/properties/raft/test_quorum.py::test_"

TRANSFER_MUTANTS = (
    Mutant(
        name="proposals are taken while the office is handed over",
        file=NODE,
        old="        transfer.refuse_while_under_way(self._state)\n",
        new="",
        test=_TRANSFER + "proposals_are_refused_meanwhile_and_served_by_the_new_leader",
    ),
    Mutant(
        name="a target that lacks entries is told to campaign",
        file=TRANSFER,
        old="    if state.progress[transfer.target].match < state.log.last_index:\n        return\n",
        new="",
        test=_TRANSFER + "a_target_that_is_behind_is_fed_first",
    ),
    Mutant(
        name="a transfer is never given up",
        file=TRANSFER,
        old="    state.transfer = Transfer(target, Nanos(now + state.config.election_timeout_ns))",
        new="    state.transfer = Transfer(target, Nanos(now + 1000 * state.config.election_timeout_ns))",
        test=_TRANSFER + "a_target_that_dies_costs_one_election_timeout",
    ),
    Mutant(
        name="the office is handed to a witness",
        file=TRANSFER,
        old="    return node in state.halves[0].voters and state.members[node].role is ReplicaRole.FULL",
        new="    return node in state.halves[0].voters and state.members[node].role is not ReplicaRole.LEARNER",
        test=_TRANSFER + "only_a_leader_hands_over_and_only_to_a_full_voter",
    ),
    Mutant(
        name="a leader that steps down keeps its transfer",
        file=ELECTION,
        old="    state.transfer = None\n",
        new="",
        test=_TRANSFER + "a_leader_that_steps_down_meanwhile_forgets_the_transfer",
    ),
)

MEMBERSHIP_MUTANTS = (
    Mutant(
        name="one half of a joint configuration commits",
        file=QUORUM,
        old="    return min(_reached([value_of(node)",
        new="    return max(_reached([value_of(node)",
        test=_MEMBERSHIP + "both_halves_decide_what_is_committed",
    ),
    Mutant(
        name="one half of a joint configuration elects",
        file=QUORUM,
        old="    return VoteOutcome.PENDING if VoteOutcome.PENDING in outcomes else VoteOutcome.WON",
        new="    return VoteOutcome.WON if VoteOutcome.WON in outcomes else VoteOutcome.PENDING",
        test=_MEMBERSHIP + "both_halves_elect_and_keep_a_leader",
    ),
    Mutant(
        name="a configuration is in force only when it is committed",
        file=CONFIGURATION_LOG,
        old='    _put_in_force(state)\n\n\ndef commit_advanced(state: RaftState, before: LogIndex) -> None:\n    """',
        new="\n\ndef commit_advanced(state: RaftState, before: LogIndex) -> None:\n    if is_committed(state):\n"
        '        _put_in_force(state)\n    """',
        test=_MEMBERSHIP + "two_obsolete_majorities_elect_no_two_leaders",
    ),
    Mutant(
        name="a configuration before an entry of the leader's term is committed",
        file=MEMBERSHIP,
        old="    if state.commit < state.term_start:\n",
        new="    if state.commit < 0:\n",
        test=_MEMBERSHIP + "nothing_is_changed_before_the_leader_has_committed_in_its_term",
    ),
    Mutant(
        name="two changes at a time",
        file=MEMBERSHIP,
        old="    if not configuration_log.is_committed(state):\n",
        new="    if False:\n",
        test=_MEMBERSHIP + "only_one_change_at_a_time",
    ),
    Mutant(
        name="a change of voters in one step",
        file=CHANGES,
        old="    return Configuration(target.members, outgoing, quorums, current.quorums, auto_leave)",
        new="    return target",
        test=_MEMBERSHIP + "a_learner_is_promoted_through_a_joint_configuration",
    ),
    Mutant(
        name="a configuration outlives its entry",
        file=CONFIGURATION_LOG,
        old="    kept = [logged for logged in held if logged.index < entries[0].index]\n",
        new="    kept = [logged for logged in held if logged.index < entries[0].index or logged is held[-1]]\n",
        test=_MEMBERSHIP + "an_uncommitted_configuration_is_rolled_back_with_its_entry",
    ),
    Mutant(
        name="only the leader that entered a joint configuration leaves it",
        file=MEMBERSHIP,
        old="        if logged.configuration.auto_leave and not state.is_relay:",
        new="        if logged.configuration.auto_leave and logged.index > state.term_start:",
        test=_MEMBERSHIP + "a_joint_configuration_is_left_by_the_next_leader",
    ),
    Mutant(
        name="a learner that lags is promoted",
        file=MEMBERSHIP,
        old="        _require_caught_up(state, node, now)\n",
        new="        replication.truncation_bound(state)\n",
        test=_MEMBERSHIP + "a_learner_that_is_behind_or_silent_is_not_promoted",
    ),
    Mutant(
        name="a new leader promotes a learner by what it itself lets others drop",
        file=MEMBERSHIP,
        old="max(replication.truncation_bound(state), state.term_start)",
        new="replication.truncation_bound(state)",
        test=_MEMBERSHIP + "a_new_leader_promotes_no_learner_that_may_lack_what_was_dropped_before_its_time",
    ),
    Mutant(
        name="a learner votes in quorums",
        file=QUORUM,
        old="    voters = tuple(sorted(member.node for member in members if member.role is not ReplicaRole.LEARNER))",
        new="    voters = tuple(sorted(member.node for member in members))",
        test=_QUORUM + "learners_have_no_weight_and_witnesses_have",
    ),
    Mutant(
        name="a leader that removed itself stays in office",
        file=MEMBERSHIP,
        old="        _step_down(state, now)\n",
        new="        state.votes.clear()\n",
        test=_MEMBERSHIP + "a_removed_leader_serves_until_the_end_and_hands_over",
    ),
    Mutant(
        name="a node removed by an uncommitted entry falls silent",
        file=CHANGES,
        old="        if logged.index <= commit:\n            break\n    return _role_in",
        new="        break\n    return _role_in",
        test=_MEMBERSHIP + "a_node_removed_by_an_uncommitted_entry_campaigns_while_it_holds_the_longest_log",
    ),
    Mutant(
        name="a removed witness begins to apply its log when it restarts",
        file=CHANGES,
        old="    return first is None or first.role is not ReplicaRole.WITNESS\n",
        new="    return True\n",
        test="tests/unit/regions/test_host_membership.py"
        "::test_a_removed_witness_that_restarts_applies_nothing_and_can_come_back",
    ),
    Mutant(
        name="what was known of a removed store is believed of its successor",
        file=MEMBERSHIP,
        old="            state.departing[node] = farewell\n",
        new="            state.departing[node] = farewell\n            continue\n",
        test="tests/unit/raft/test_membership.py::test_a_leader_forgets_at_once_what_a_removed_member_held",
    ),
    Mutant(
        name="a replica takes what its node was with another store for its own role",
        file=CHANGES,
        old="member is not None and member.store == store else None",
        new="member is not None else None",
        test="tests/unit/regions/test_replaced_store.py"
        "::test_a_node_that_held_state_joins_as_a_witness_whatever_the_log_says_of_its_former_store",
    ),
    Mutant(
        name="a replica forgets its state for what the log says of its former store",
        file=CHANGES,
        old="for logged in history_of(stored))\n",
        new="for logged in reversed(history_of(stored)))\n",
        test="tests/unit/regions/test_replaced_store.py"
        "::test_a_learner_whose_former_store_was_a_witness_keeps_its_state_over_a_restart",
    ),
    Mutant(
        name="a witness that became a learner is taken for a copy",
        file="regions/raft/state.py",
        old="        return not self.keeps_state and self.role is not ReplicaRole.WITNESS",
        new="        return False",
        test=_MEMBERSHIP + "a_removed_witness_that_is_added_as_a_learner_counts_for_nothing",
    ),
    Mutant(
        name="quorums to commit and to elect need not meet",
        file="wire/configurations.py",
        old="    if commit + election <= voters:",
        new="    if commit + election < voters:",
        test=_QUORUM + "quorums_of_allowed_sizes_meet_and_hold_a_full_replica_and_those_of_other_sizes_need_not",
    ),
    Mutant(
        name="two election quorums need not meet",
        file="wire/configurations.py",
        old="    if 2 * election <= voters:",
        new="    if 2 * election < voters:",
        test=_QUORUM + "quorums_of_allowed_sizes_meet_and_hold_a_full_replica_and_those_of_other_sizes_need_not",
    ),
)
