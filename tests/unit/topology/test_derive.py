"""Replicas derived from goals, rule by rule."""

from itertools import combinations

import pytest

from isochrone.ids import ReplicaRole
from isochrone.topology.derive import Goal, UnsatisfiableError, derive_voters, placement_faults
from isochrone.topology.model import Region, SurvivalGoal
from isochrone.topology.survival import Voter

FULL, WITNESS = ReplicaRole.FULL, ReplicaRole.WITNESS
ZONE, REGION = SurvivalGoal.ZONE, SurvivalGoal.REGION


def region(name: str, zones: int, site: bool = False) -> Region:
    return Region(name, tuple(f"{name}{letter}" for letter in "abcdefgh"[:zones]), name, 0.0, 0.0, site)


def rtts_by_order(regions: list[Region]) -> dict[tuple[str, str], float]:
    """Round trips that grow with the distance in the list: neighbours are 10 ms apart."""
    rtts: dict[tuple[str, str], float] = {}
    for (i, a), (j, b) in combinations(enumerate(regions), 2):
        rtts[a.id, b.id] = rtts[b.id, a.id] = 10.0 * (j - i)
    return rtts


def derive(regions: list[Region], goal: SurvivalGoal, home: str = "p", witness: bool = False) -> list[str]:
    voters = derive_voters(Goal(home, goal, witness), regions, rtts_by_order(regions))
    return [f"{voter.zone}:{voter.role}" if voter.role is WITNESS else voter.zone for voter in voters]


def test_goal_zone_takes_the_first_three_zones_of_the_home() -> None:
    assert derive([region("p", 5), region("q", 3)], ZONE) == ["pa", "pb", "pc"]


def test_goal_zone_may_make_the_last_voter_a_witness() -> None:
    assert derive([region("p", 3)], ZONE, witness=True) == ["pa", "pb", "pc:witness"]


@pytest.mark.parametrize("zones", [1, 2])
def test_goal_zone_needs_three_zones(zones: int) -> None:
    with pytest.raises(UnsatisfiableError, match=rf"{zones} zone\(s\) in p; goal zone: three zones"):
        derive([region("p", zones), region("q", 3)], ZONE)


def test_goal_region_is_two_two_one_over_home_next_and_third() -> None:
    assert derive([region("p", 3), region("q", 2), region("r", 1)], REGION) == ["pa", "pb", "qa", "qb", "ra"]


def test_next_and_third_are_the_nearest_to_the_home_not_the_first_in_the_file() -> None:
    regions = [region("far", 3), region("q", 3), region("p", 3), region("r", 3), region("s", 3)]
    rtts = rtts_by_order(regions) | {("p", "r"): 5.0, ("p", "q"): 10.0}
    voters = derive_voters(Goal("p", REGION, False), regions, rtts)
    assert [voter.zone for voter in voters] == ["pa", "pb", "ra", "rb", "qa"]


def test_the_single_voter_may_be_a_witness() -> None:
    regions = [region("p", 3), region("q", 3), region("r", 3)]
    assert derive(regions, REGION, witness=True) == ["pa", "pb", "qa", "qb", "ra:witness"]


def test_two_regions_and_a_witness_site() -> None:
    regions = [region("p", 3), region("w", 1, site=True), region("q", 3)]
    assert derive(regions, REGION) == ["pa", "pb", "qa", "qb", "wa:witness"]


def test_a_witness_site_is_used_among_three_regions_only_where_a_witness_is_asked_for() -> None:
    regions = [region("p", 2), region("q", 2), region("w", 1, site=True), region("r", 2)]
    assert derive(regions, REGION) == ["pa", "pb", "qa", "qb", "ra"]
    assert derive(regions, REGION, witness=True) == ["pa", "pb", "qa", "qb", "wa:witness"]


def test_a_home_of_one_zone_spreads_over_the_nearest_five_regions() -> None:
    regions = [region("p", 1), *(region(name, 3) for name in "qrstuv")]
    assert derive(regions, REGION) == ["pa", "qa", "ra", "sa", "ta"]
    assert derive(regions, REGION, witness=True) == ["pa", "qa", "ra", "sa", "ta:witness"]


@pytest.mark.parametrize("count", [3, 4])
def test_a_home_of_one_zone_spreads_over_three_regions_where_there_are_less_than_five(count: int) -> None:
    regions = [region("p", 1), *(region(name, 3) for name in "qrs"[: count - 1])]
    assert derive(regions, REGION) == ["pa", "qa", "ra"]


def test_a_next_region_of_one_zone_spreads_too() -> None:
    assert derive([region("p", 3), region("q", 1), region("r", 3)], REGION) == ["pa", "qa", "ra"]


def test_two_regions_of_one_zone_and_a_witness_site() -> None:
    regions = [region("p", 1), region("q", 1), region("w", 1, site=True)]
    assert derive(regions, REGION) == ["pa", "qa", "wa:witness"]


@pytest.mark.parametrize(
    "others",
    [[], [region("q", 3)], [region("w", 1, site=True)], [region("w", 1, site=True), region("x", 1, site=True)]],
)
def test_goal_region_needs_three_regions_or_two_and_a_site(others: list[Region]) -> None:
    with pytest.raises(UnsatisfiableError, match="three regions, or two and a witness site"):
        derive([region("p", 3), *others], REGION)


def by_hand(*voters: tuple[str, ReplicaRole]) -> list[Voter]:
    """Voters from zone names: the region is the name without its last letter."""
    return [Voter(zone, zone[:-1], role) for zone, role in voters]


@pytest.mark.parametrize(
    ("voters", "goal", "found"),
    [
        ([("pa", FULL), ("pa", FULL), ("pb", FULL)], ZONE, "zone pa 2 times"),
        ([("pa", FULL), ("pb", FULL), ("wa", FULL)], ZONE, "a full voter in the witness site w"),
        ([("qa", FULL), ("qb", FULL), ("qc", FULL)], ZONE, "no full voter in p"),
        ([("pa", FULL), ("pb", WITNESS), ("pc", WITNESS)], ZONE, "2 witnesses"),
        ([("pa", FULL), ("pb", FULL)], ZONE, "1 of 2 voters left without pa"),
        ([("pa", FULL)], ZONE, "0 of 1 voters left without pa"),
        ([("pa", FULL), ("pb", FULL), ("qa", FULL)], REGION, "1 of 3 voters left without p"),
    ],
)
def test_faults_of_voters_placed_by_hand(voters: list[tuple[str, ReplicaRole]], goal: SurvivalGoal, found: str) -> None:
    faults = placement_faults(by_hand(*voters), Goal("p", goal, False), ["w"])
    assert found in [fault for fault, _ in faults]


@pytest.mark.parametrize(
    ("voters", "goal"),
    [
        ([("pa", FULL), ("pb", FULL), ("wa", WITNESS)], ZONE),
        ([("pa", FULL), ("pb", FULL), ("pc", FULL), ("pd", FULL)], ZONE),
        ([("pa", FULL), ("qa", FULL), ("wa", WITNESS)], REGION),
        ([("pa", FULL), ("pb", FULL), ("qa", FULL), ("qb", WITNESS), ("ra", WITNESS)], REGION),
    ],
)
def test_sound_placements_by_hand(voters: list[tuple[str, ReplicaRole]], goal: SurvivalGoal) -> None:
    assert placement_faults(by_hand(*voters), Goal("p", goal, False), ["w"]) == []
