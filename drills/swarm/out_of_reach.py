"""Why a swarm may not reach a mark for a rare state, and the test that does. Any other mark should be reached."""

from collections.abc import Mapping

OUT_OF_REACH: Mapping[str, str] = {
    "host.snapshot_ended_while_it_was_opened": (
        "the leader must lose its office, or the learner leave, within the one read that opens its snapshot "
        "(tests/unit/regions/test_store_reads.py)"
    ),
    "intake.former_store_unheard": (
        "an answer of a lost store must wait for the very turn in which its node is named with another one "
        "(tests/unit/regions/test_replaced_store.py)"
    ),
    "raft.chunk_damaged": "simulated links damage nothing (tests/unit/raft/test_snapshots.py)",
    "raft.former_witness_named_a_learner": (
        "hosts refuse it, so an operator must name it so without asking them (tests/unit/raft/test_membership.py)"
    ),
    "raft.snapshot_attempt_given_up": (
        "a learner must be silent for thirty election timeouts, and hardly any fault lasts so long "
        "(tests/unit/raft/test_snapshots.py)"
    ),
    "raft.snapshot_overtaken_while_loaded": (
        "another snapshot must come within the few reads that load one (tests/unit/raft/test_snapshots.py)"
    ),
    "raft.staged_snapshot_overtaken_by_the_log": (
        "another leader, whose log begins earlier, must take over while a learner gets a snapshot "
        "(tests/unit/raft/test_snapshots.py)"
    ),
    "raft.suffix_kept_above_a_snapshot": (
        "a learner must get the very entry that its snapshot ends with, and more, from another leader while that "
        "is on its way (tests/unit/raft/test_snapshots.py)"
    ),
    "raft.taken_for_the_former_store": (
        "the word of a leader that knows of no change must come just after a node's new store was made "
        "(tests/unit/regions/test_replaced_store.py)"
    ),
    "state.sequence_below_the_mark": (
        "a command must wait in a stopped node until its client has had the answer elsewhere and gone on, and that "
        "node must lead when it reads it (tests/unit/regions/test_machine.py)"
    ),
    "state.session_expired": (
        "a client's session lives for ten minutes without a command, a run for two (tests/unit/regions/test_machine.py)"
    ),
    "storage.snapshot_lost": (
        "simulated nodes store in memory, not in LMDB (tests/integration/storage/test_snapshot_rows.py)"
    ),
    "watch.ended_by_another": (
        "only a stream of etcd's watchers ends them together, and nobody speaks etcd's API in a simulated world "
        "(tests/unit/node/test_etcd_watches.py)"
    ),
}
"""By mark."""
