"""Faults in the host, the state machine and the stores."""

from planting import Mutant

HOST = "regions/host.py"
WRITES = "regions/store_writes.py"
INTAKE = "regions/intake.py"
REPLICA = "regions/replica.py"
MACHINE = "regions/state/machine.py"
RUNNING = "regions/state/running.py"
SESSIONS = "regions/state/sessions.py"
BOUNDS = "regions/storage/log_bounds.py"
LMDB = "regions/storage/store_lmdb.py"
DIRECTORY = "regions/storage/directory_os.py"

_HOST = "tests/unit/regions/test_host.py::test_"
_REFUSALS = "tests/unit/regions/state/test_refusals.py::test_"
_REPLACED = "tests/unit/regions/test_replaced_store.py::test_"
_MACHINE = "tests/unit/regions/test_machine.py::test_"
_STATE = "tests/unit/regions/state/test_"
_TURNS = "tests/unit/regions/test_turns.py::test_"
_MANY = "tests/properties/state/test_entry_of_many.py::test_an_entry_of_many_commands_does_what_many_entries_do"
_CONTRACT = "tests/contract/storage/test_store.py::test_"
_DAMAGE = "tests/integration/storage/test_damage.py::test_"
_DIRECTORY = "tests/integration/storage/test_directory.py::test_"

HOST_MUTANTS = (
    Mutant(
        name="a host releases messages before the write has ended",
        file=HOST,
        old="            self._turn = Turn()\n",
        new="            self._end_write(turn.releases, self._clock.monotonic())\n"
        "            turn.releases = []\n            self._turn = Turn()\n",
        test=_HOST + "a_write_is_acknowledged_only_when_a_quorum_has_synced_it",
    ),
    Mutant(
        name="commands that wait are bounded in number alone",
        file=HOST,
        old="            if replica.queued_bytes >= QUEUED_BYTES_MAX:\n",
        new="            if False:\n",
        test=_HOST + "commands_that_wait_are_bounded_in_number_and_in_bytes",
    ),
    Mutant(
        name="a host goes on after a failed sync",
        file=WRITES,
        old="            self._tell_failed(error)\n",
        new="            self.finished = self._write\n            self._tell_ended()\n",
        test=_HOST + "a_failed_sync_ends_the_host_and_tells_everyone",
    ),
    Mutant(
        name="what hangs on a write leaves a turn of the loop late",
        file=HOST,
        old="StoreWrites(store, self._turns.take, self._fail)",
        new="StoreWrites(store, self._turns.wake, self._fail)",
        test=_TURNS + "what_hangs_on_a_write_leaves_when_it_has_ended_and_not_a_turn_of_the_loop_later",
    ),
    Mutant(
        name="a host stops with a write under way",
        file=HOST,
        old="        await self._writes.idle.wait()\n",
        new="",
        test=_TURNS + "a_host_stops_after_the_write_under_way",
    ),
    Mutant(
        name="a host goes on after a violated invariant",
        file=HOST,
        old="            self._fail(error)\n            return None\n",
        new="            return None\n",
        test=_HOST + "a_violated_invariant_in_a_turn_ends_the_host",
    ),
    Mutant(
        name="a stale incarnation is accepted",
        file=INTAKE,
        old="        elif envelope.incarnation < self.incarnations.get(envelope.sender, _NONE):",
        new="        elif envelope.incarnation < _NONE:",
        test=_HOST + "messages_of_an_older_incarnation_or_of_another_store_are_dropped",
    ),
    Mutant(
        name="another store under a member's name is accepted",
        file=INTAKE,
        old="        return store != envelope.store\n",
        new="        return False\n",
        test=_HOST + "a_stranger_under_a_member_s_name_does_not_shut_the_member_out",
    ),
    Mutant(
        name="a store that took the place of a member's is not heard",
        file=INTAKE,
        old="        if is_later_store(envelope.store, member.store):\n",
        new="        if False:\n",
        test=_REPLACED + "a_voter_that_was_away_hears_the_node_that_leads_with_another_store_since",
    ),
    Mutant(
        name="an answer of a lost store is counted for the one that took its place",
        file=INTAKE,
        old="            self._forget_former_stores(group, members)\n",
        new="            pass\n",
        test=_REPLACED + "an_answer_of_the_lost_store_that_is_already_here_is_not_counted_either",
    ),
    Mutant(
        name="what a removed replica held is counted for the one that comes back",
        file="regions/raft/membership.py",
        old="(returned or node not in state.progress)",
        new="(node not in state.progress)",
        test="tests/unit/raft/test_membership.py"
        "::test_what_a_removed_member_still_acknowledges_is_not_counted_for_its_successor",
    ),
    Mutant(
        name="a removed replica shuts a replaced store out of all groups",
        file=INTAKE,
        old="for each in self._members.values() if self._node in each]",
        new="for each in self._members.values()]",
        test=_REPLACED + "a_removed_replica_shuts_out_no_node_that_has_another_store_since",
    ),
    Mutant(
        name="a removed replica hears only the stores that it knew",
        file=INTAKE,
        old=" or self._node not in members:\n",
        new=":\n",
        test=_REPLACED + "a_removed_replica_shuts_out_no_node_that_has_another_store_since",
    ),
    Mutant(
        name="a node's incarnations begin anew with its store",
        file="src/isochrone/ports.py",
        old="Incarnation(replacements << _STARTS_BITS)",
        new="Incarnation(0)",
        test=_REPLACED + "a_node_with_a_new_store_is_heard_joins_and_counts",
    ),
    Mutant(
        name="a new incarnation is heard before it is durable",
        file=INTAKE,
        old="            self._held.append(envelope)\n        else:",
        new="            self._keep(envelope)\n        else:",
        test=_HOST + "a_new_incarnation_is_durable_before_its_messages_are_handled",
    ),
    Mutant(
        name="entries from far ahead of the clock are taken",
        file=INTAKE,
        old='            self._counters["messages_ahead_of_clock"] += 1\n            return True',
        new='            self._counters["messages_ahead_of_clock"] += 1\n            return False',
        test=_HOST + "entries_far_ahead_of_a_follower_s_clock_are_not_taken",
    ),
    Mutant(
        name="a read is answered before it is applied far enough",
        file="regions/replica_reads.py",
        old="        while self._confirmed and self._confirmed[0].index <= applied:",
        new="        while self._confirmed:",
        test="tests/unit/regions/test_replica.py::test_a_read_waits_until_what_it_must_reflect_is_applied",
    ),
    Mutant(
        name="a lost leader calls its open writes refused",
        file=REPLICA,
        old='        error = LeadershipLost(f"the leader of group {self.group} lost',
        new='        error = Unavailable(f"the leader of group {self.group} lost',
        test=_HOST + "whoever_waits_for_a_write_learns_that_the_leader_lost_its_office",
    ),
    Mutant(
        name="reads that wait have no bound",
        file=HOST,
        old="        if replica.reads.waiting >= WAITING_READS_MAX:",
        new="        if False:",
        test=_HOST + "reads_that_cannot_be_confirmed_are_bounded",
    ),
)

STATE_MUTANTS = (
    Mutant(
        name="a repeated command runs again",
        file=RUNNING,
        old="        context.happened.append(Happening.COMMAND_REPEATED)\n        return sessions.told_again(stored)\n",
        new="        pass\n",
        test=_MACHINE + "a_repeated_sequence_returns_the_stored_result_without_effect",
    ),
    Mutant(
        name="a refusal is not stored",
        file=RUNNING,
        old="        raise sessions.store_refusal(context, command, use, error) from None\n",
        new="        raise error\n",
        test=_REFUSALS + "a_copy_in_the_same_entry_is_refused_though_the_command_between_lets_it_run",
    ),
    Mutant(
        name="a stored refusal is told like one that is not",
        file="node/service.py",
        old="str(error), leader, error.stored)",
        new="str(error), leader)",
        test="tests/unit/node/test_service.py::test_a_refusal_that_the_group_has_stored_is_told_as_such_each_time",
    ),
    Mutant(
        name="a stored refusal leaves the outcome open",
        file="client/attempts.py",
        old="        if refusal.stored:\n            return error\n",
        new="",
        test="tests/unit/client/test_outcomes.py::"
        "test_a_stored_refusal_is_told_though_an_earlier_attempt_was_not_answered",
    ),
    Mutant(
        name="the result of a command is stored under another session",
        file=SESSIONS,
        old="result_row_key(number, Timestamp(at))] = pack(results)\n",
        new="result_row_key(0, Timestamp(at))] = pack(results)\n",
        test=_HOST + "state_and_dedupe_survive_a_restart_of_everyone",
    ),
    Mutant(
        name="the results of an entry are one row, however large",
        file=SESSIONS,
        old="        if size_bytes >= RESULT_ROW_BYTES_TARGET:\n",
        new="        if False:\n",
        test=_MACHINE + "no_row_of_results_outgrows_a_piece_of_a_snapshot",
    ),
    Mutant(
        name="a row of results is deleted while one of them is not acknowledged",
        file="regions/state/model.py",
        old="        while rows and rows[0][0] <= self.acknowledged:\n",
        new="        while rows:\n",
        test=_MACHINE + "the_results_of_an_entry_are_one_row_until_the_last_of_them_is_acknowledged",
    ),
    Mutant(
        name="a command runs in an expired session",
        file=SESSIONS,
        old="    if session is not None and session.expired(context.timestamp):",
        new="    if session is None and session is not None:",
        test=_MACHINE + "an_unused_session_expires_by_entry_time_and_never_executes",
    ),
    Mutant(
        name="a sequence below the mark runs again",
        file=SESSIONS,
        old="    if sequence <= session.acknowledged:\n",
        new="    if sequence < 0:\n",
        test=_MACHINE + "an_acknowledged_sequence_is_refused_as_indeterminate",
    ),
    Mutant(
        name="what is acknowledged counts against the room of a session until the entry ends",
        file=SESSIONS,
        old="    _forget_results(state, use)\n    if session",
        new="    if session",
        test=_MANY,
    ),
    Mutant(
        name="what is acknowledged counts against the room of a keyspace until the entry ends",
        file=SESSIONS,
        old="            _forget_results(state, each)\n",
        new="            pass\n",
        test=_MANY,
    ),
    Mutant(
        name="results that are acknowledged are not forgotten when the entry ends",
        file=SESSIONS,
        old="        _forget_results(context.home, use)\n",
        new="",
        test=_MANY,
    ),
    Mutant(
        name="a session whose command was refused does not expire within the entry",
        file=SESSIONS,
        old="    if sequence <= session.acknowledged:\n",
        new="    context.used_sessions.setdefault(command.session, SessionUse(session, session.acknowledged))\n"
        "    if sequence <= session.acknowledged:\n",
        test=_MACHINE + "a_session_is_not_used_by_a_command_that_it_refuses",
    ),
    Mutant(
        name="removed keys are not counted",
        file="regions/state/history.py",
        old="        self._dead += held[-1][LIVE_AT] - record[LIVE_AT]\n",
        new="",
        test=_STATE + "mvcc.py::test_removed_keys_do_not_count",
    ),
    Mutant(
        name="a put may have a number where its form has a truth value",
        file="wire/kv.py",
        old="            and type(prev_kv) is bool\n",
        new="",
        test="tests/properties/wire/test_wild_requests.py::test_a_put_is_taken_apart_as_its_form_says",
    ),
    Mutant(
        name="the branch of a transaction is not chosen by its compares",
        file="regions/state/txn.py",
        old="    return txn.success if holds else txn.failure\n",
        new="    return txn.success\n",
        test=_STATE + "txn.py::test_a_transaction_takes_one_branch_at_one_revision",
    ),
    Mutant(
        name="compares of nested transactions see what was written before them",
        file="regions/state/txn.py",
        old="    holds = next(way)\n    results",
        new="    next(way)\n    holds = all(_holds(context.data, compare) for compare in txn.compares)\n    results",
        test=_STATE + "txn.py::test_compares_look_at_the_state_before_the_transaction",
    ),
    Mutant(
        name="a compaction forgets what can still be read",
        file="regions/state/history.py",
        old="        last = min(records_max, self.first_from(compacted))\n",
        new="        last = min(records_max, self.first_from(compacted + 1))\n",
        test=_STATE + "mvcc.py::test_after_a_compaction_its_own_revision_can_be_watched_and_read",
    ),
    Mutant(
        name="reads below a compaction are answered",
        file="regions/state/kv.py",
        old="    if revision < data.compacted:\n",
        new="    if revision < 0:\n",
        test=_STATE + "mvcc.py::test_after_a_compaction_its_own_revision_can_be_watched_and_read",
    ),
    Mutant(
        name="the group's marks are not kept as a row",
        file=MACHINE,
        old="        context.rows[_NO_KEYSPACE, TABLE_GROUP, _GROUP_KEY] = self._group_row()\n",
        new="",
        test=_MACHINE + "rows_rebuild_the_state_and_equal_logs_give_equal_states",
    ),
)

STORE_MUTANTS = (
    Mutant(
        name="a store acknowledges before its commit",
        file=LMDB,
        old="            put = partial(image_lmdb.put_batches, self._image, steps=steps)\n",
        new="            self._tell([partial(write.done, None) for write in writes])\n"
        "            put = partial(image_lmdb.put_batches, self._image, steps=steps)\n",
        test="tests/contract/storage/test_failures.py::test_nothing_is_acknowledged_before_the_commit_that_covers_it[lmdb]",
    ),
    Mutant(
        name="a failed commit is tried again",
        file=LMDB,
        old='            self._failure = f"commit failed: {error}"\n            failure = StorageError(self._failure)\n'
        "            failure.__cause__ = error\n            self._reject(writes, failure)\n            return False\n",
        new="            return self._commit_writes(writes, steps, groups)\n",
        test=_DAMAGE + "a_commit_is_never_tried_again",
    ),
    Mutant(
        name="a store opens without syncing",
        file="regions/storage/image_lmdb.py",
        old="        sync=True,\n",
        new="        sync=False,\n",
        test=_DAMAGE + "the_environment_syncs_data_and_meta_page",
    ),
    Mutant(
        name="a foreign store is accepted",
        file=DIRECTORY,
        old="        if replace(found, incarnation=expected.incarnation) != expected:",
        new="        if replace(found, incarnation=expected.incarnation) is None:",
        test=_DIRECTORY + "a_store_opens_only_for_its_own",
    ),
    Mutant(
        name="a copied store is accepted",
        file=DIRECTORY,
        old="        if medium != image.medium and not moved:",
        new="        if False:",
        test=_DIRECTORY + "a_copy_is_refused_and_a_move_accepted_once_said",
    ),
    Mutant(
        name="the incarnation is not raised at the start",
        file=DIRECTORY,
        old="Incarnation(found.incarnation + 1)",
        new="Incarnation(found.incarnation)",
        test=_DIRECTORY + "each_opening_raises_the_incarnation",
    ),
    Mutant(
        name="a vote may be changed in its term",
        file=BOUNDS,
        old="    same_vote = new.term > old.term or old.vote is None or new.vote == old.vote",
        new="    same_vote = True",
        test=_CONTRACT + "a_breach_of_the_rules_is_the_callers_fault_and_changes_nothing",
    ),
    Mutant(
        name="rows ahead of the log are taken",
        file=BOUNDS,
        old="        check(applied <= group.last_index, ",
        new="        check(True, ",
        test=_CONTRACT + "a_breach_of_the_rules_is_the_callers_fault_and_changes_nothing",
    ),
    Mutant(
        name="a committed entry may be replaced",
        file=BOUNDS,
        old='    check(first > group.hard_state.commit, f"{name}: entry {first} would replace a committed one")\n',
        new="",
        test=_CONTRACT + "a_breach_of_the_rules_is_the_callers_fault_and_changes_nothing",
    ),
    Mutant(
        name="what was applied counts as uncommitted after a restart",
        file=BOUNDS,
        old="    return replace(group, hard_state=replace(group.hard_state, commit=group.applied))",
        new="    return group",
        test=_CONTRACT + "a_reopened_store_knows_that_what_was_applied_was_committed",
    ),
)
