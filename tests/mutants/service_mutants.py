"""Faults planted in what a group's state is made of beyond keys: leases, watches, locks."""

from planting import Mutant

LESSOR = "regions/lessor.py"
LEASES = "regions/state/leases.py"
HUB = "regions/watch_hub.py"
LOCKS = "regions/state/locks.py"
TABLE = "regions/state/lock_table.py"
HISTORY = "regions/state/history.py"

_LESSOR = "tests/unit/regions/test_lessor.py::test_"
_HUB = "tests/unit/regions/test_watch_hub.py::test_"
_LOCKS = "tests/unit/regions/state/test_locks.py::test_"
_LINES = "tests/unit/node/test_watch_lines.py::test_"
_COMPACTION = "tests/unit/regions/test_compaction.py::test_"
_SCOPE = "tests/properties/state/test_lock_scope.py::test_"
_DEADLOCKS = "tests/unit/regions/state/test_deadlocks.py::test_"
_SDK = "tests/unit/client/test_watches.py::test_"
_SQL_FENCE = "tests/integration/client/test_fences_sqlite.py::test_the_gate_keeps_its_claims"
_HOST = "tests/unit/regions/test_host_client_leases.py::test_"

SERVICE_MUTANTS = (
    Mutant(
        name="the results of a request are one answer, however large",
        file="node/service.py",
        old="            if size_bytes >= WRITE_ANSWER_BYTES_TARGET:\n",
        new="            if False:\n",
        test="tests/unit/node/test_service.py::test_results_that_are_large_together_are_told_apart",
    ),
    Mutant(
        name="only ranges count among the answers that are made together",
        file="regions/state_service.py",
        old=" if answer[0] == RANGE else len(encode_result(answer))",
        new=" if answer[0] == RANGE else 0",
        test="tests/unit/node/test_service.py::test_what_is_told_of_locks_and_leases_counts_as_well",
    ),
    Mutant(
        name="queries that came together count as one of those that wait",
        file="regions/replica_reads.py",
        old="    return len(read.queries) if isinstance(read, Reads) else 1\n",
        new="    return 1\n",
        test="tests/unit/regions/test_host.py::test_queries_that_came_together_are_counted_each",
    ),
    Mutant(
        name="queries that were answered are counted among those that wait",
        file="regions/replica_reads.py",
        old="        self.waiting -= _count(read)\n",
        new="",
        test="tests/unit/regions/test_host.py::test_queries_that_came_together_are_counted_each",
    ),
    Mutant(
        name="a question for the leader travels with those for any replica",
        file="client/reads.py",
        old="        check_answerable_anywhere((query,))\n",
        new="",
        test="tests/unit/client/test_reads.py::test_a_question_for_the_leader_that_is_asked_elsewhere_leaves_the_others",
    ),
    Mutant(
        name="a watch that another one has ended is called",
        file="regions/watching.py",
        old="            ready = self._ready.get(identity)\n",
        new="            ready = self._ready[identity]\n",
        test="tests/unit/node/test_etcd_watches.py::"
        "test_a_stream_that_is_refused_while_an_entry_is_told_takes_its_other_watchers_along_and_nobody_else",
    ),
    Mutant(
        name="the index of ranges passes over those whose block starts below the key",
        file="regions/range_index.py",
        old="                found.extend([(start, end) for end, start in block.by_end[above:]])\n",
        new="                pass\n",
        test=_HUB + "thousands_of_different_ranges_are_told_of_what_lies_in_them",
    ),
    Mutant(
        name="a lease is watched that its own entry has ended",
        file="regions/lessor.py",
        old="                    if event.lease in self._leases:  # it may have been revoked by the same entry\n",
        new="                    if True:\n",
        test="tests/unit/regions/test_lessor.py::test_a_lease_that_one_entry_grants_and_revokes_is_not_watched",
    ),
    Mutant(
        name="a wait for a lock may be longer than a timestamp can tell",
        file="wire/locks.py",
        old="not WAIT_FOREVER <= operation.wait_ms <= LOCK_WAIT_MS_MAX",
        new="not WAIT_FOREVER <= operation.wait_ms",
        test="tests/unit/regions/state/test_bounds.py::test_a_wait_is_shorter_than_a_timestamp_can_tell",
    ),
    Mutant(
        name="keys that a transaction looks at are not counted",
        file="regions/state/txn.py",
        old="        self._records -= records\n",
        new="",
        test="tests/unit/regions/state/test_bounds.py::test_how_many_keys_a_transaction_looks_at_is_bounded",
    ),
    Mutant(
        name="a session may run far ahead of what it acknowledges",
        file="regions/state/sessions.py",
        old="    if command.sequence > session.acknowledged + SESSION_IN_FLIGHT_MAX:\n",
        new="    if len(session.results) > SESSION_IN_FLIGHT_MAX:\n",
        test="tests/unit/regions/test_machine.py::test_a_sequence_far_ahead_is_refused_and_keeps_no_rows",
    ),
    Mutant(
        name="a renewal is told as refused that was done",
        file="regions/state_service.py",
        old="            read.done(self._failed(Indeterminate(text)))\n",
        new="            read.done(self._failed(Unavailable(text)))\n",
        test=_HOST + "without_its_regions_lease_a_node_neither_proposes_nor_reveals",
    ),
    Mutant(
        name="a raised epoch is forgotten at a restart",
        file=LOCKS,
        old="    _set_token(context, state, epoch << TOKEN_COUNTER_BITS)\n",
        new="    state.token = epoch << TOKEN_COUNTER_BITS\n",
        test=_LOCKS + "the_epoch_of_tokens_is_raised_above_what_a_restored_copy_knows_of",
    ),
    Mutant(
        name="a regional and a global lock of one name both exist",
        file="regions/state/model.py",
        old="        if place and key.startswith(self._prefixes[place - 1]):\n",
        new="        if place:\n",
        test=_SCOPE + "no_name_is_a_lock_of_two_owners",
    ),
    Mutant(
        name="a topology may give a name to a regional and to a global keyspace",
        file="topology/resolve.py",
        old="section.prefix.startswith(other.prefix) or other.prefix.startswith(section.prefix)",
        new="section.prefix == other.prefix",
        test=_SCOPE + "no_name_is_a_lock_of_two_owners",
    ),
    Mutant(
        name="a rule keeps a revision less than it says",
        file="regions/state/kv.py",
        old="limits.append(data.revision - command.revisions)",
        new="limits.append(data.revision - command.revisions + 1)",
        test=_COMPACTION + "no_rule_takes_what_it_promises_to_keep",
    ),
    Mutant(
        name="a rule forgets what is younger than it says",
        file="regions/state/kv.py",
        old="oldest = context.timestamp - command.age_ms * NS_PER_MS",
        new="oldest = context.timestamp - command.age_ms * NS_PER_MS // 2",
        test=_COMPACTION + "no_rule_takes_what_it_promises_to_keep",
    ),
    Mutant(
        name="the topology's history is not what the leader keeps",
        file="regions/loading.py",
        old="self._region_lease, settings.compaction)",
        new="self._region_lease)",
        test=_COMPACTION + "replicas_forget_by_the_rule_and_then_sleep",
    ),
    Mutant(
        name="a compaction forgets a version of its own revision that the log still holds",
        file=HISTORY,
        old="kept_from or record[:ORDER_BYTES]",
        new="record[:ORDER_BYTES]",
        test="tests/properties/state/test_history_model.py::test_a_compaction_changes_nothing_from_its_revision_on",
    ),
    Mutant(
        name="a renewal is answered while an expiry is on its way",
        file=LESSOR,
        old="        if watched.logged is not None:\n            probe",
        new="        if watched.logged is None and watched.asked:\n            probe",
        test=_LESSOR + "a_renewal_waits_while_an_expiry_is_on_its_way",
    ),
    Mutant(
        name="a renewal does not clear what was noted",
        file=LESSOR,
        old="        if watched.noted:\n            watched.asked",
        new="        if watched.noted and watched.asked:\n            watched.asked",
        test=_LESSOR + "a_renewal_after_a_checkpoint_is_answered_only_when_the_log_has_cleared_it",
    ),
    Mutant(
        name="an office begins with the whole time to live",
        file=LESSOR,
        old=" if lease.checkpoint_ms is None else min(lease.ttl_ms, lease.checkpoint_ms)\n",
        new="\n",
        test=_LESSOR + "leaders_that_change_faster_than_the_time_to_live_do_not_keep_a_lease_alive",
    ),
    Mutant(
        name="an expiry of another term ends a lease",
        file=LEASES,
        old="            if term != context.term or generation != lease.generation:\n",
        new="            if generation != lease.generation:\n",
        test=_LESSOR + "a_stalled_former_leader_ends_no_lease",
    ),
    Mutant(
        name="an expiry from before a renewal ends a lease",
        file=LEASES,
        old="            if term != context.term or generation != lease.generation:\n",
        new="            if term != context.term:\n",
        test=_LESSOR + "an_expiry_from_before_a_logged_renewal_ends_nothing",
    ),
    Mutant(
        name="a renewal rests on the leader's own lease",
        file="regions/replica_reads.py",
        old="leased=not renews",
        new="leased=True",
        test="tests/unit/regions/test_replica.py::test_a_renewal_asks_for_a_round_even_where_reads_are_leased",
    ),
    Mutant(
        name="a leader that has lost its office tells what it knows no more",
        file="regions/replica_reads.py",
        old=" and service.office.term is None:\n",
        new=" and service is None:\n",
        test="tests/unit/regions/test_replica.py::"
        "test_what_only_a_leader_knows_is_not_told_by_one_that_has_lost_its_office",
    ),
    Mutant(
        name="a result is revealed without the region's lease",
        file="regions/replica.py",
        old="        if not self._region_lease(self.group, pending.keyspace):\n",
        new="        if not pending.keyspace:\n",
        test=_HOST + "without_its_regions_lease_a_node_neither_proposes_nor_reveals",
    ),
    Mutant(
        name="a watcher that is behind skips what is compacted in silence",
        file=HUB,
        old="        if not watcher.synced and watcher.next_revision < self._data.compacted:\n",
        new="        if not watcher.synced and watcher.next_revision < 0:\n",
        test=_HUB + "a_compacted_start_is_told_with_the_revision_to_start_from",
    ),
    Mutant(
        name="what waits for a slow watcher grows without bound",
        file=HUB,
        old="        if len(watcher.pending) > PENDING_EVENTS_MAX or watcher.pending_bytes > PENDING_BYTES_MAX:\n",
        new="        if len(watcher.pending) < 0:\n",
        test=_HUB + "nobody_takes_and_memory_stays_bounded",
    ),
    Mutant(
        name="a watcher that falls behind forgets its place",
        file=HUB,
        old="        before = _just_before(watcher.pending[0]) if watcher.pending else _order_before(revision + 1)\n",
        new="        before = _order_before(revision + 1)\n",
        test=_HUB + "nobody_takes_and_memory_stays_bounded",
    ),
    Mutant(
        name="who wants what is compatible overtakes the queue",
        file=LOCKS,
        old=" and not (lock.converting or (held is None and lock.queued))\n",
        new="\n",
        test=_LOCKS + "x_is_not_starved_by_a_stream_of_s",
    ),
    Mutant(
        name="cycles of waits are not looked for",
        file=TABLE,
        old="                if further == start:\n",
        new="                if further is start:\n",
        test=_DEADLOCKS + "of_two_that_upgrade_the_younger_fails",
    ),
    Mutant(
        name="the queue is no part of the graph of waits",
        file=TABLE,
        old="            if not compatible(ahead.mode, request.mode):\n",
        new="            if not request:\n",
        test=_DEADLOCKS + "a_queue_alone_can_close_a_cycle",
    ),
    Mutant(
        name="whoever stands ahead is waited for in all that it wants",
        file=TABLE,
        old="            yield name, ahead.lease\n",
        new="            yield name, ahead.lease\n            yield _NO_NAME, ahead.lease\n",
        test=_DEADLOCKS + "standing_behind_one_that_excludes_nothing_is_no_wait_for_all_that_it_wants",
    ),
    Mutant(
        name="cycles are looked for through the new request alone",
        file=TABLE,
        old="        return self._cycle_from((_NO_NAME, lease)) or (",
        new="        return (",
        test=_DEADLOCKS + "a_conversion_may_close_a_cycle_by_another_wait_of_its_lease",
    ),
    Mutant(
        name="a conversion that is granted past a queue closes no cycle",
        file=LOCKS,
        old="    _end_cycles(context, name, request)\n",
        new="    if not free:\n        _end_cycles(context, name, request)\n",
        test=_DEADLOCKS + "a_conversion_granted_past_a_queue_may_close_a_cycle",
    ),
    Mutant(
        name="a lock above may be given up while one below is waited for",
        file=LOCKS,
        old="    if (lease, name) in data.locks.below:\n",
        new="    if (lease, name) in data.locks.below and lock.converting:\n",
        test=_DEADLOCKS + "a_lock_is_not_given_up_while_one_below_it_is_waited_for",
    ),
    Mutant(
        name="a conversion forgets what its lease asked for before",
        file=LOCKS,
        old="operation.hierarchical or (held is not None and held.hierarchical)",
        new="operation.hierarchical",
        test=_DEADLOCKS + "a_conversion_keeps_what_its_lease_asked_for_before",
    ),
    Mutant(
        name="there is no lock-delay",
        file=LOCKS,
        old="    if not clean and held.delay_ms:\n",
        new="    if clean and held.delay_ms:\n",
        test=_LOCKS + "after_an_unclean_loss_nobody_is_granted_before_the_delay_is_over",
    ),
    Mutant(
        name="tokens begin anew after a restart",
        file=LOCKS,
        old="        state.token = msgpack.unpackb(value)\n",
        new="        pass\n",
        test=_LOCKS + "tokens_rise_over_all_locks_and_restarts_and_when_the_counter_is_full",
    ),
    Mutant(
        name="anyone may release a lock",
        file=LOCKS,
        old="    if lock is None or held is None or operation.token not in (0, held.token):\n",
        new="    if lock and held is None and lock.held:\n        held = next(iter(lock.held.values()))\n"
        "    if lock is None or held is None:\n",
        test=_LOCKS + "releasing_what_one_does_not_hold_is_an_error_and_releases_nothing",
    ),
    Mutant(
        name="a lost batch of a watch goes unnoticed",
        file="client/watches.py",
        old="        if sequence != self._sequence + 1:\n",
        new="        if sequence < 0:\n",
        test=_SDK + "lost_frames_are_noticed_and_made_good",
    ),
    Mutant(
        name="a watch joins others that have something to be told yet",
        file="node/watch_lines.py",
        old="if line is None or not line.is_even():",
        new="if line is None:",
        test=_LINES + "who_comes_while_the_client_is_slow_is_not_told_what_was_before",
    ),
    Mutant(
        name="a watch joins others in the middle of a batch",
        file="node/watch_lines.py",
        old="not self.untold and ",
        new="",
        test=_LINES + "a_line_whose_members_were_not_all_told_is_not_joined",
    ),
    Mutant(
        name="what did not fit into an answer is not asked for again",
        file="client/reads.py",
        old="                together = together[told:]\n",
        new="                together = together[len(together) :]\n",
        test="tests/unit/client/test_reads.py::test_what_did_not_fit_into_the_answer_is_asked_for_again",
    ),
    Mutant(
        name="a query's error ends the others of its request",
        file="node/service.py",
        old="first if alike and isinstance",
        new="first if isinstance",
        test="tests/unit/node/test_service.py::test_the_first_query_s_error_is_not_that_of_all",
    ),
    Mutant(
        name="progress does not show that a batch was lost",
        file="client/watches.py",
        old="                if sequence != self._sequence:\n",
        new="                if sequence < 0:\n",
        test=_SDK + "lost_frames_are_noticed_and_made_good",
    ),
    Mutant(
        name="a caller that does not take is told on and on",
        file="client/watches.py",
        old="        if len(self._buffer) > BUFFER_EVENTS_MAX or self._buffer_bytes > BUFFER_BYTES_MAX:\n",
        new="        if len(self._buffer) < 0:\n",
        test=_SDK + "a_caller_that_does_not_take_lets_the_watch_rest",
    ),
    Mutant(
        name="a node that is cut off keeps its watches",
        file="node/session_watches.py",
        old="            if opened.leaderless >= LEADERLESS_MAX:\n",
        new="            if opened.leaderless < 0:\n",
        test=_SDK + "a_node_that_is_cut_off_from_its_group_lets_its_watches_go",
    ),
    Mutant(
        name="the watches of a session outlive it",
        file="node/service.py",
        old="            watches.close()\n",
        new="            pass\n",
        test=_SDK + "many_watches_on_one_session_end_with_it",
    ),
    Mutant(
        name="a fence gate lets tokens of other locks pass",
        file="wire/kv.py",
        old="token is not None and name == lock",
        new="token is not None and name",
        test="tests/unit/regions/state/test_txn.py::test_a_fence_gate_lets_no_token_of_another_lock_pass",
    ),
    Mutant(
        name="a spoilt gate lets the highest token pass",
        file="wire/kv.py",
        old="NO_TOKEN = NUMBER_MAX + 1\n",
        new="NO_TOKEN = NUMBER_MAX\n",
        test="tests/unit/regions/state/test_txn.py::test_a_fence_gate_lets_no_stale_token_pass",
    ),
    Mutant(
        name="a fence gate lets smaller tokens pass",
        file="wire/kv.py",
        old="Compare(gate, Target.TOKEN, Relation.NOT_GREATER, token, lock)",
        new="Compare(gate, Target.TOKEN, Relation.NOT_EQUAL, token, lock)",
        test="tests/unit/regions/state/test_txn.py::test_a_fence_gate_lets_no_stale_token_pass",
    ),
    Mutant(
        name="a fence gate of a SQL database lets smaller tokens pass",
        file="client/fences.py",
        old=" AND gate.token <= excluded.token",
        new="",
        test=_SQL_FENCE + "[DELETE-a_paused_holder_is_refused]",
    ),
    Mutant(
        name="a fence gate of a SQL database lets tokens of other locks pass",
        file="client/fences.py",
        old="gate.lock_name = excluded.lock_name AND ",
        new="",
        test=_SQL_FENCE + "[DELETE-a_foreign_token_is_refused]",
    ),
    Mutant(
        name="a fence gate of a SQL database lets a token pass once only",
        file="client/fences.py",
        old="gate.token <= excluded.token",
        new="gate.token < excluded.token",
        test=_SQL_FENCE + "[DELETE-one_token_passes_again]",
    ),
)
