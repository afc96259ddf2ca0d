"""Random faults against the core: crashes at any write, cuts, loss, isolation; then a healed cluster must converge.

The harness checks safety all the time; these tests add that nothing acknowledged is lost and that progress returns.
"""

import random

import pytest
from raft_cluster import Cluster
from raft_faults import propose_somewhere, random_fault

from isochrone.ids import ReplicaRole

FULL, WITNESS, LEARNER = ReplicaRole.FULL, ReplicaRole.WITNESS, ReplicaRole.LEARNER
SHAPES: dict[str, dict[str, ReplicaRole]] = {
    "three full": {"a": FULL, "b": FULL, "c": FULL},
    "two full and a witness": {"a": FULL, "b": FULL, "w": WITNESS},
    "four full and a witness": {"a": FULL, "b": FULL, "c": FULL, "d": FULL, "w": WITNESS},
    "three full and a learner": {"a": FULL, "b": FULL, "c": FULL, "l": LEARNER},
    "two full, a witness and a learner": {"a": FULL, "b": FULL, "w": WITNESS, "l": LEARNER},
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("seed", range(30))
def test_nothing_acknowledged_is_lost(shape: str, seed: int) -> None:
    print(f"seed {seed}")
    rng = random.Random(f"faults/{shape}/{seed}")
    cluster = Cluster(
        SHAPES[shape],
        seed,
        disk_ms=rng.choice([0.1, 5, 60]),
        jitter_ms=rng.choice([0, 2, 80]),
        fetch_ms=rng.choice([0, 1, 300]),
        truncate_entries_min=rng.choice([1, 3]),
        keep_entries=rng.choice([0, 2, 1000]),
        cache_bytes_max=rng.choice([100, 400]),
        append_bytes_max=rng.choice([100, 1 << 20]),
        apply_bytes_max=rng.choice([100, 1 << 20]),
        inflight_messages_max=rng.choice([2, 128]),
        snapshot_chunk_bytes=rng.choice([1, 100, 1 << 20]),
    )
    cluster.snapshot_loss = rng.choice([0.0, 0.2])
    for number in range(80):
        cluster.run(rng.choice([5, 50, 400, 1500]))
        if rng.random() < 0.5:
            random_fault(cluster, rng)
        for _ in range(rng.randrange(4)):
            propose_somewhere(cluster, rng, number)
    cluster.settle()
    cluster.run(1_000)
    cluster.check_nothing_lost()
    assert cluster.chain, "the run did nothing"
