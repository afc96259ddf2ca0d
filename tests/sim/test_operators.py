"""What operators of a simulated world do to members comes about, and is undone."""

from dataclasses import replace

import pytest

from isochrone.drills.sim.case import SimVerdict
from isochrone.drills.sim.loop import START_S
from isochrone.drills.sim.options import Mode, draw_options
from isochrone.drills.sim.run_os import run_case
from isochrone.drills.sim.schedule import Fault, FaultKind
from isochrone.drills.sim.world import World
from isochrone.ids import GroupId, NodeId
from isochrone.wire.messages import Configuration

GROUP = GroupId("eu-central-1.region")
OPTIONS = replace(draw_options(1, Mode.PERF, "two-regions-and-witness", 8_000), rate_per_s=5.0)


@pytest.mark.parametrize(
    ("kind", "name", "steps"),
    [
        (FaultKind.REMOVE, "eu-west-1b-1", 2),
        (FaultKind.DEMOTE, "eu-west-1b-1", 1),
        (FaultKind.REMOVE, "eu-north-1a-1", 1),
        (FaultKind.DEMOTE, "eu-north-1a-1", 0),
    ],
)
def test_a_voter_that_an_operator_takes_out_is_put_back(kind: FaultKind, name: str, steps: int) -> None:
    """A full voter begins as a learner, a witness needs no such step; and a witness is never made a learner."""
    seen: list[Configuration] = []

    def made(world: World) -> None:
        def look(_: None) -> None:
            process = world.machines[NodeId("eu-central-1a-1")].process
            assert process is not None
            seen.append(process.host.replicas[GROUP].core.configuration)

        for time_s in (0.9, 5.0):
            world.loop.at(START_S + time_s, look, None)

    result = run_case(OPTIONS, (Fault(1_000, 5_000, kind, (GROUP, name)),), made)
    assert result.verdict is SimVerdict.HOLDS, result.reason
    before, meanwhile = seen
    members = {str(member.node) for member in meanwhile.members}
    assert (before != meanwhile, name not in members) == (steps > 0, kind is FaultKind.REMOVE)
    assert result.counters.get("operator_restore_done", 0) == steps
