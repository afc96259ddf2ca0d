"""Why a swarm may not reach a mark for a rare state, and the test that does. Any other mark should be reached."""

from collections.abc import Mapping

_NO_ENDPOINT = "nobody speaks etcd's API in a simulated world"

OUT_OF_REACH: Mapping[str, str] = {
    "client.lease_alarm_not_set": "simulated alarms can always be set (tests/unit/client/test_lease_deadlines.py)",
    "client.lease_alarm_not_set_anew": "simulated alarms can always be set (tests/unit/client/test_lease_deadlines.py)",
    "client.lease_deserted": (
        "every simulated task leaves the leases that it has entered (tests/unit/client/test_lease_deadlines.py)"
    ),
    "client.list_overtaken_by_compaction": (
        "a list is read in pieces of a thousand keys, and a run has fewer "
        "(tests/unit/client/test_old_and_paged_reads.py)"
    ),
    "etcd.reads_asked_again": f"{_NO_ENDPOINT} (tests/unit/node/test_etcd_gathering.py)",
    "etcd.watch_reads_on": f"{_NO_ENDPOINT} (tests/unit/node/test_etcd_watches.py)",
    "etcd.watch_rests": f"{_NO_ENDPOINT} (tests/unit/node/test_etcd_watches.py)",
    "host.snapshot_ended_while_it_was_opened": (
        "the leader must lose its office, or the learner leave, within the one read that opens its snapshot "
        "(tests/unit/regions/test_store_reads.py)"
    ),
    "intake.former_store_unheard": (
        "an answer of a lost store must wait for the very turn in which its node is named with another one "
        "(tests/unit/regions/test_replaced_store.py)"
    ),
    "leases.expiry_overtaken": (
        "an expiry must wait in a node from one of its offices to the next, and a node proposes what is due in the "
        "turn in which it finds that (tests/unit/regions/test_lessor.py)"
    ),
    "raft.cannot_feed": (
        "a voter must have lost what it acknowledged, which simulated disks do not, or a witness must lead just when a "
        "learner needs what its log no longer holds (tests/unit/raft/test_snapshots.py)"
    ),
    "raft.chunk_damaged": "simulated links damage nothing (tests/unit/raft/test_snapshots.py)",
    "raft.chunk_of_an_older_attempt": (
        "a leader must lose a snapshot that it sends, and a chunk of it come after the first one of its next attempt "
        "(tests/unit/raft/test_snapshots.py)"
    ),
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
    "replica.reads_put_off": (
        "the answers of one turn must have 16 MiB, more than all the keys of a run "
        "(tests/unit/node/test_wild_clients.py)"
    ),
    "replica.region_lease_ended_before_the_answer": (
        "every node may serve every keyspace (tests/unit/regions/test_host_client_leases.py)"
    ),
    "session.watch_reads_on": (
        "a watcher must look at thousands of writes that do not matter to it, and a run has fewer "
        "(tests/unit/node/test_wild_clients.py)"
    ),
    "session.watch_rests": "nothing ever waits in a simulated stream (tests/unit/client/test_watches.py)",
    "state.results_of_a_keyspace_full": (
        "half a GiB of results must wait, and the SDK acknowledges them (tests/unit/regions/state/test_bounds.py)"
    ),
    "state.sequence_below_the_mark": (
        "a command must wait in a stopped node until its client has had the answer elsewhere and gone on, and that "
        "node must lead when it reads it (tests/unit/regions/test_machine.py)"
    ),
    "state.sequence_too_far_ahead": "the SDK goes no further than it may (tests/unit/regions/test_machine.py)",
    "state.session_expired": (
        "a client's session lives for ten minutes without a command, a run for two (tests/unit/regions/test_machine.py)"
    ),
    "storage.snapshot_lost": (
        "simulated nodes store in memory, not in LMDB (tests/integration/storage/test_snapshot_rows.py)"
    ),
    "watch.ended_by_another": (
        f"only a stream of etcd's watchers ends them together, and {_NO_ENDPOINT} "
        "(tests/unit/node/test_etcd_watches.py)"
    ),
    "watch.fell_behind": (
        "a thousand events must wait for one watcher, and simulated streams take what there is "
        "(tests/unit/regions/test_watch_hub.py)"
    ),
}
"""By mark."""
