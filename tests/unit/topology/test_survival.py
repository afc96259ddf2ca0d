"""What a group survives."""

from pathlib import Path

from isochrone.ids import ReplicaRole
from isochrone.topology import load_topology
from isochrone.topology.survival import LossKind, Voter, losses, voters_left, warnings


def voters(*zones: str) -> list[Voter]:
    return [Voter(zone, zone[:-1], ReplicaRole.FULL) for zone in zones]


def kept(*zones: str) -> set[tuple[str, ...]]:
    return {loss.lost for loss in losses(voters(*zones)) if loss.keeps_quorum}


def test_three_zones_survive_one_of_them() -> None:
    assert kept("pa", "pb", "pc") == {("pa",), ("pb",), ("pc",)}


def test_two_two_one() -> None:
    found = losses(voters("pa", "pb", "qa", "qb", "ra"))
    by_kind = {kind: {loss.lost for loss in found if loss.kind is kind and loss.keeps_quorum} for kind in LossKind}
    assert len(by_kind[LossKind.ZONE]) == 5
    assert by_kind[LossKind.REGION] == {("p",), ("q",), ("r",)}
    assert len(by_kind[LossKind.TWO_ZONES]) == 10
    assert by_kind[LossKind.ZONE_AND_REGION] == {("pa", "r"), ("pb", "r"), ("qa", "r"), ("qb", "r")}
    assert by_kind[LossKind.TWO_REGIONS] == set()


def test_four_voters_survive_no_more_than_three() -> None:
    assert kept("pa", "qa", "ra", "sa") == {(zone,) for zone in ("pa", "qa", "ra", "sa", "p", "q", "r", "s")}


def test_a_lost_region_takes_its_zones() -> None:
    assert voters_left(voters("pa", "pb", "qa"), {"p"}) == 1
    assert voters_left(voters("pa", "pb", "qa"), {"p", "pa"}) == 1


def test_an_even_number_of_voters_is_a_warning(tmp_path: Path) -> None:
    file = tmp_path / "even.yaml"
    file.write_text(
        """
name: even
latencies: aws
regions: [{name: us-east-1, zones: 4}]
keyspaces:
  - prefix: a
    home: us-east-1
    survive: zone
    placement: {voters: [us-east-1a, us-east-1b, us-east-1c, us-east-1d]}
"""
    )
    topology = load_topology(file)
    (warning,) = warnings(topology)
    assert "even number of voters (4)" in warning
    assert topology.groups[0].id in warning
