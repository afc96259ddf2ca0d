"""Faults in compaction, the log cap and snapshots."""

from planting import Mutant

COMPACTION = "regions/raft/compaction.py"
CHANGES = "regions/raft/changes.py"
SNAPSHOTS = "regions/raft/snapshots.py"
LOG = "regions/raft/log.py"
REPLICATION = "regions/raft/replication.py"
NODE = "regions/raft/node.py"
PROGRESS = "regions/raft/progress.py"
STORE_WRITES = "regions/store_writes.py"
BOUNDS = "regions/storage/log_bounds.py"
SNAPSHOT_BOUNDS = "regions/storage/snapshot_bounds.py"
ROWS = "regions/storage/snapshot_lmdb.py"

_COMPACTION = "tests/unit/raft/test_compaction.py::test_"
_SNAPSHOTS = "tests/unit/raft/test_snapshots.py::test_"
_STORE = "tests/contract/storage/test_snapshots.py::test_"
_READS = "tests/unit/regions/test_store_reads.py::test_"

SNAPSHOT_MUTANTS = (
    Mutant(
        name="what was to be dropped is dropped after the snapshot that replaced it",
        file=SNAPSHOTS,
        old="    state.out.truncate_to = None  #",
        new="    #",
        test=_SNAPSHOTS + "what_was_to_be_dropped_is_forgotten_when_a_snapshot_takes_its_place_in_the_same_write",
    ),
    Mutant(
        name="a full replica drops what it has not applied",
        file=COMPACTION,
        old="min(state.applied, log.durable_index,",
        new="min(state.commit, log.durable_index,",
        test=_COMPACTION + "nothing_is_dropped_before_it_is_applied",
    ),
    Mutant(
        name="what a full voter needs is dropped when an uncommitted entry demotes it",
        file=CHANGES,
        old="        if logged.index <= commit:\n            break\n    return tuple(found)\n",
        new="        break\n    return tuple(found)\n",
        test=_COMPACTION + "what_a_full_voter_needs_is_kept_until_it_is_certainly_none_any_more",
    ),
    Mutant(
        name="a snapshot that goes away while it is loaded is never loaded",
        file="regions/store_reads.py",
        old="            machine = self._new_machine(group)\n",
        new="            return\n",
        test="tests/unit/regions/test_store_reads.py::test_a_snapshot_that_goes_away_while_it_is_loaded_is_loaded_anew",
    ),
    Mutant(
        name="no tail is kept for learners",
        file=COMPACTION,
        old="log.last_index - 1, kept_after))",
        new="log.last_index - 1))",
        test=_COMPACTION + "every_replica_drops_what_all_full_voters_hold_and_keeps_a_tail",
    ),
    Mutant(
        name="the log cap is not looked at",
        file=COMPACTION,
        old="    if retained_bytes < most_bytes:",
        new="    if retained_bytes >= 0:",
        test=_COMPACTION + "at_the_log_cap_proposals_are_refused_until_the_lagging_voter_returns",
    ),
    Mutant(
        name="a leader outruns the snapshot under way",
        file=COMPACTION,
        old="        bound = min([bound, *(state.log.truncated_index if held is None else held for held in needed)])",
        new="        bound = min([bound, *needed[:0]])",
        test=_SNAPSHOTS + "a_leader_drops_nothing_that_follows_a_snapshot_under_way",
    ),
    Mutant(
        name="a suffix is kept whatever the term below it",
        file=LOG,
        old="        kept = self.truncated_index < index and self.term_at(index) == term",
        new="        kept = self.truncated_index < index and self.term_at(index) is not None",
        test=_SNAPSHOTS + "the_log_above_a_snapshot_is_kept_only_after_the_very_same_entry",
    ),
    Mutant(
        name="a chunk is taken wherever it belongs",
        file=SNAPSHOTS,
        old="    if chunk.position != staged.position:",
        new="    if chunk.position > staged.position + (1 << 40):",
        test=_SNAPSHOTS + "a_chunk_out_of_order_is_answered_with_what_is_held",
    ),
    Mutant(
        name="a damaged chunk is taken",
        file=SNAPSHOTS,
        old="    if checksum != chunk.checksum:",
        new="    if checksum < 0:",
        test=_SNAPSHOTS + "a_damaged_chunk_is_not_taken",
    ),
    Mutant(
        name="chunks of two attempts are mixed",
        file=SNAPSHOTS,
        old="    if staged is None or staged.id != chunk.id:",
        new="    if staged is None or staged.id.index != chunk.id.index:",
        test=_SNAPSHOTS + "chunks_of_two_attempts_never_mix",
    ),
    Mutant(
        name="an older attempt starts over",
        file=SNAPSHOTS,
        old="    if staged is not None and (chunk.id.term, chunk.id.attempt) < (staged.id.term, staged.id.attempt):",
        new="    if staged is None and chunk.id.attempt < 0:",
        test=_SNAPSHOTS + "chunks_of_two_attempts_never_mix",
    ),
    Mutant(
        name="a snapshot that brings nothing new is installed",
        file=SNAPSHOTS,
        old="    if chunk.id.index <= state.commit:",
        new="    if chunk.id.index < 0:",
        test=_SNAPSHOTS + "a_snapshot_that_brings_nothing_new_changes_nothing",
    ),
    Mutant(
        name="a chunk is acknowledged before it is durable",
        file=SNAPSHOTS,
        old="    state.send_when_durable(leader, SnapshotResponse(state.term, chunk.id.attempt, chunk.end))",
        new="    state.send(leader, SnapshotResponse(state.term, chunk.id.attempt, chunk.end))",
        test=_SNAPSHOTS + "a_chunk_is_acknowledged_only_when_it_is_durable",
    ),
    Mutant(
        name="snapshot state is left only at exactly its index",
        file=SNAPSHOTS,
        old="    if progress.match >= enough:",
        new="    if progress.match == enough:",
        test=_SNAPSHOTS + "a_learner_that_got_beyond_the_snapshot_is_fed_from_the_log",
    ),
    Mutant(
        name="a full voter that lost entries is papered over with a snapshot",
        file=SNAPSHOTS,
        old="    with_state = member is not None and member.role is ReplicaRole.LEARNER and state.keeps_state",
        new="    with_state = member is not None and state.keeps_state",
        test=_SNAPSHOTS + "a_full_voter_that_forgot_what_it_acknowledged_gets_no_snapshot",
    ),
    Mutant(
        name="a chunk that the log has overtaken is staged",
        file="regions/raft/durability.py",
        old="        state.staged = chunk = None\n",
        new="        state.staged = None\n",
        test=_SNAPSHOTS + "a_chunk_that_the_log_overtakes_in_the_same_turn_is_not_staged",
    ),
    Mutant(
        name="a former witness acknowledges a snapshot that it did not take",
        file=SNAPSHOTS,
        old="    if state.lacks_state():",
        new="    if False:",
        test=_SNAPSHOTS + "a_former_witness_does_not_acknowledge_a_snapshot_even_of_what_it_has_committed",
    ),
    Mutant(
        name="the snapshot for a removed learner stays open",
        file="regions/raft/membership.py",
        old="    if node in state.progress:\n        snapshots.end(state, state.progress[node])\n",
        new="",
        test=_SNAPSHOTS + "the_snapshot_for_a_learner_that_is_removed_is_freed",
    ),
    Mutant(
        name="a snapshot is opened for an attempt that has ended",
        file="regions/store_reads.py",
        old="        if attempt not in self._readers:\n            return None\n",
        new="        self._readers.setdefault(attempt, None)\n",
        test=_READS + "an_attempt_that_ends_in_the_turn_that_asks_for_a_read_leaves_nothing_open",
    ),
    Mutant(
        name="a full window hides that the log has moved on",
        file=REPLICATION,
        old="    if progress.next <= state.log.truncated_index and not progress.waits:\n",
        new="    if progress.next <= state.log.truncated_index and not (progress.waits or progress.inflight):\n",
        test=_SNAPSHOTS + "a_full_window_of_lost_requests_does_not_hide_that_the_log_has_moved_on[witness]",
    ),
    Mutant(
        name="what follows a snapshot is applied before it is loaded",
        file=NODE,
        old="        if state.handed_to_apply >= state.commit or state.loading is not None:",
        new="        if state.handed_to_apply >= state.commit:",
        test=_SNAPSHOTS + "nothing_is_applied_before_the_snapshot_is_loaded",
    ),
    Mutant(
        name="a snapshot does not count as contact",
        file=NODE,
        old="                    state.progress[sender].last_contact = now\n                    snapshots.on_response(",
        new="                    snapshots.on_response(",
        test=_SNAPSHOTS + "an_answer_to_a_chunk_counts_as_contact",
    ),
    Mutant(
        name="rows of the old state are written over the snapshot's",
        file=STORE_WRITES,
        old="            self._rows = [row for row in self._rows if row.group != group]\n",
        new="",
        test="tests/unit/regions/test_host_snapshots.py::test_rows_that_wait_for_a_write_are_void_when_a_snapshot_takes_their_place",
    ),
    Mutant(
        name="entries are dropped that no row reflects",
        file=BOUNDS,
        old="    return 0 < group.applied < group.truncated_index",
        new="    return False",
        test="tests/contract/storage/test_store.py::test_a_breach_of_the_rules_is_the_callers_fault_and_changes_nothing",
    ),
    Mutant(
        name="a store forgets the configuration whose entry it drops",
        file=BOUNDS,
        old="        configuration=gone[-1] if gone else group.configuration,\n        truncated_index=index,",
        new="        configuration=group.configuration,\n        truncated_index=index,",
        test="tests/contract/storage/test_store.py::test_configurations_move_with_the_log[memory]",
    ),
    Mutant(
        name="the configuration whose entry is dropped is not made durable",
        file="regions/storage/records.py",
        old="    if after.configuration is not before.configuration:",
        new="    if after.configuration is None:",
        test="tests/contract/storage/test_store.py::test_configurations_move_with_the_log[lmdb]",
    ),
    Mutant(
        name="a replica keeps configurations without their entries for ever",
        file="regions/raft/configuration_log.py",
        old="    while len(state.configurations) > 1 and state.configurations[1].index <= state.log.truncated_index:",
        new="    while len(state.configurations) < 1:",
        test=_COMPACTION + "configurations_go_with_the_entries_that_hold_them_but_for_the_one_that_still_holds",
    ),
    Mutant(
        name="a store keeps a suffix after another entry",
        file=BOUNDS,
        old="<= group.last_index and term_at(group, index) == chunk.id.index_term",
        new="<= group.last_index",
        test=_STORE + "the_log_above_a_snapshot_is_kept_only_after_the_very_same_entry",
    ),
    Mutant(
        name="a store stages a damaged chunk",
        file=SNAPSHOT_BOUNDS,
        old="    check(checksum == chunk.checksum, ",
        new="    check(True, ",
        test=_STORE + "a_chunk_that_does_not_fit_is_refused_and_changes_nothing",
    ),
    Mutant(
        name="a snapshot brings rows with long keys out of order",
        file=ROWS,
        old="            rows.sort(key=lambda row: (row.keyspace, row.table, row.key))\n",
        new="",
        test=_STORE + "rows_come_in_order_however_long_their_keys_are[lmdb]",
    ),
    Mutant(
        name="a snapshot shows what was written after its moment",
        file=ROWS,
        old="                self._saved[key] = stored\n",
        new="",
        test=_STORE + "a_snapshot_is_read_as_of_one_moment_whatever_is_written_meanwhile[lmdb]",
    ),
)
