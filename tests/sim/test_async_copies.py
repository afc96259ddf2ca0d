"""Asynchronous copies in the simulated world: under any faults, each one ends where its leader is."""

from collections import Counter

import pytest

from isochrone.drills.sim.case import SimVerdict, case_to_text
from isochrone.drills.sim.options import Mode
from isochrone.drills.sim.run_os import draw_case, run_case
from isochrone.drills.sim.world import World
from isochrone.drills.workload import Recorder
from isochrone.ids import ReplicaRole

SEEDS, BATCHES = 32, 4


def copies(world: World) -> list[tuple[bool, ReplicaRole]]:
    """Of each copy whose node runs: whether it is where its leader is, and its role."""
    statuses = [status for machine in world.machines.values() if (status := machine.status()) is not None]
    groups = {(status.node, each.group): each for status in statuses for each in status.groups}
    found = []
    for group in world.topology.groups:
        (copy,) = group.learners()
        own, leader = groups.get((copy.node, group.id)), world.operator.leader_of(group.id)
        if own is not None and leader is not None:
            lead = groups[leader.name, group.id]
            equal = (own.last, own.commit, own.applied) == (lead.last, lead.last, lead.last)
            found.append((equal and own.last_timestamp == lead.last_timestamp, own.role))
    return found


@pytest.mark.parametrize("batch", range(BATCHES))
def test_copies_converge_once_faults_have_ended(batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    checked: Counter[tuple[bool, ReplicaRole]] = Counter()
    read_everything = World._read_everything

    async def look_first(world: World, recorder: Recorder) -> None:
        checked.update(copies(world))
        await read_everything(world, recorder)

    monkeypatch.setattr(World, "_read_everything", look_first)
    for seed in range(batch, SEEDS, BATCHES):
        case = draw_case(seed, Mode.LITE, "async-copies")
        result = run_case(case.options, case.schedule)
        assert result.verdict in (SimVerdict.HOLDS, SimVerdict.UNKNOWN), (
            f"seed {seed}: {result.reason}\n{case_to_text(case)}"
        )
    assert list(checked) == [(True, ReplicaRole.LEARNER)]
    assert checked.total() >= SEEDS / BATCHES, "most runs heal a core that holds a copy"
