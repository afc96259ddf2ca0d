"""What options make of a topology, and that a run with them does what they say."""

from dataclasses import replace

import pytest

from isochrone.drills.sim.case import SimResult, SimVerdict
from isochrone.drills.sim.options import Mode, draw_options
from isochrone.drills.sim.run_os import find_topology, run_case, shipped_topologies
from isochrone.drills.sim.schedule import Fault, FaultKind
from isochrone.drills.sim.variants import varied
from isochrone.ids import ReplicaRole
from isochrone.wire.configurations import quorum_faults
from isochrone.wire.messages import QuorumSizes

CALM = draw_options(1, Mode.PERF, "three-zones", 12_000)
GROUP = "us-east-1.zone"


def _run(schedule: tuple[Fault, ...] = (), **options: object) -> SimResult:
    result = run_case(replace(CALM, **options), schedule)  # type: ignore[arg-type]
    assert result.verdict is SimVerdict.HOLDS, result.reason
    return result


@pytest.mark.parametrize("topology", shipped_topologies())
@pytest.mark.parametrize("shift", range(-2, 3))
def test_shifted_quorums_are_sound(topology: str, shift: int) -> None:
    for group in varied(find_topology(topology), replace(CALM, quorum_shift=shift)).groups:
        voters = group.voters()
        witnesses = sum(voter.role is ReplicaRole.WITNESS for voter in voters)
        assert not list(quorum_faults(group.quorums, len(voters), witnesses))


@pytest.mark.parametrize(("shift", "commit", "election"), [(-2, 1, 3), (-1, 1, 3), (0, 2, 2), (1, 3, 2), (2, 3, 2)])
def test_fewer_commit_where_more_elect(shift: int, commit: int, election: int) -> None:
    (group,) = varied(find_topology("three-zones"), replace(CALM, quorum_shift=shift)).groups
    assert (group.commit_quorum(), group.election_quorum()) == (commit, election)


def test_quorums_that_a_witness_rules_out_stay_as_they_are() -> None:
    """With one replica to commit, the witness might hold a write alone."""
    *_, group = varied(find_topology("two-regions-and-witness"), replace(CALM, quorum_shift=-2)).groups
    assert group.quorums == QuorumSizes()


def test_one_preferred_replica_gets_the_leadership() -> None:
    assert _run().counters["elections_won"] == 1
    assert _run(prefers_one=True).counters["elections_won"] == 2


def test_reads_under_leases_send_less() -> None:
    assert _run(lease_reads=True).counters["frames_delivered"] < _run().counters["frames_delivered"]


def test_a_leader_that_does_not_hear_of_its_successor_answers_nothing_stale() -> None:
    """It has clients beside it that do not hear of that either, while those elsewhere write at the new leader."""
    successors = ("us-east-1b-1", "us-east-1c-1", "us-east-1a-1")
    usurped = tuple(
        Fault(1_000 + 3_000 * number, 2_000, FaultKind.USURP, (GROUP, successor))
        for number, successor in enumerate(successors)
    )
    result = _run(usurped, lease_reads=True, rate_per_s=100.0, shared_share=1.0)
    assert result.counters["elections_won"] == 4


def test_a_leader_is_stopped_between_the_look_at_its_clock_and_its_answer() -> None:
    """For longer than an election takes, so that the read finds its lease gone when the leader goes on."""
    stall = Fault(1_000, 2_500, FaultKind.STALL_LEADER, (GROUP,))
    assert _run((stall,), lease_reads=True).probes["replica.lease_ended_while_reading"] == 1
