"""Why a swarm may not reach a mark for a rare state, and the test that does. Any other mark should be reached."""

from collections.abc import Mapping

OUT_OF_REACH: Mapping[str, str] = {
    "intake.former_store_unheard": (
        "no node of a simulated world gets a new store for a lost one (tests/unit/regions/test_replaced_store.py)"
    ),
    "raft.former_witness_named_a_learner": (
        "hosts refuse it, so an operator must name it so without asking them (tests/unit/raft/test_membership.py)"
    ),
    "raft.chunk_damaged": "simulated links damage nothing (tests/unit/raft/test_snapshots.py)",
    "raft.snapshot_attempt_given_up": (
        "a learner must be silent for thirty election timeouts; no fault lasts so long (tests/unit/raft/test_snapshots.py)"
    ),
    "raft.suffix_kept_above_a_snapshot": (
        "a learner must get the very entry that its snapshot ends with, and more, by another leader while the snapshot "
        "is on its way (tests/unit/raft/test_snapshots.py)"
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
}
"""By mark."""
