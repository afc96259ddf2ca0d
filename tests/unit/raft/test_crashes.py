"""Every write of a scripted run is once the last before a crash, just before or just after it becomes durable.

The script elects a leader, appends, loses the leader, elects another and appends again. Nothing acknowledged may be
lost, and no vote given twice (the harness compares every vote that leaves with those that left before).
"""

from collections.abc import Callable

import pytest
from raft_cluster import Cluster

from isochrone.errors import NotLeader
from isochrone.ids import ReplicaRole

FULL, WITNESS = ReplicaRole.FULL, ReplicaRole.WITNESS
SHAPES = {
    "three full": {"a": FULL, "b": FULL, "c": FULL},
    "two full and a witness": {"a": FULL, "b": FULL, "w": WITNESS},
}


def _propose(cluster: Cluster, data: bytes) -> None:
    for name, replica in cluster.replicas.items():
        if replica.core is not None and replica.core.status().match:
            try:
                cluster.propose(name, data)
            except NotLeader:
                continue


def _script(shape: dict[str, ReplicaRole], on_write: Callable[[Cluster, str], None]) -> Cluster:
    cluster = Cluster(shape, disk_ms=4, truncate_entries_min=2)
    cluster.on_write = lambda name: on_write(cluster, name)
    core = cluster.replicas["a"].core
    assert core is not None
    core.campaign(cluster.now)  # type: ignore[arg-type]
    cluster.drain("a")
    cluster.run(120)
    for number in range(3):
        _propose(cluster, b"one %d" % number)
        cluster.run(7)
    cluster.isolate("a")
    for number in range(2):
        _propose(cluster, b"two %d" % number)
    cluster.run(3_500)
    _propose(cluster, b"three")
    cluster.run(60)
    cluster.heal()
    _propose(cluster, b"four")
    cluster.run(600)
    cluster.on_write = lambda _name: None
    cluster.settle()
    cluster.run(500)
    return cluster


def _count_writes(shape: dict[str, ReplicaRole]) -> int:
    writes: list[str] = []
    cluster = _script(shape, lambda _cluster, name: writes.append(name))
    assert len(cluster.acknowledged) >= 4
    return len(writes)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kept", [0, 1], ids=["before", "after"])
@pytest.mark.parametrize("everyone", [False, True], ids=["one", "all"])
def test_a_crash_at_any_write_loses_nothing(shape: str, kept: int, everyone: bool) -> None:
    total = _count_writes(SHAPES[shape])
    assert total > 20
    for position in range(total):
        seen = 0

        def crash_there(cluster: Cluster, name: str, at: int = position) -> None:
            nonlocal seen
            seen += 1
            if seen != at + 1:
                return
            for victim in list(cluster.replicas) if everyone else [name]:
                if cluster.replicas[victim].core is not None:
                    cluster.crash(victim, keep=kept if victim == name else 0)
                    cluster.at(cluster.now + 300_000_000, lambda v=victim: cluster.start(v))  # type: ignore[misc]

        cluster = _script(SHAPES[shape], crash_there)
        assert seen > position, f"write {position} was never reached"
        cluster.check_nothing_lost()
        assert len(cluster.acknowledged) >= 1, f"crash at write {position}"
