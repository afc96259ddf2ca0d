"""From a survival goal to replicas: in which zones a group's voters stand, and which of them are witnesses.

Rules:

- goal `zone`: three voters in the first three zones of the home region; the last one may be a witness;
- goal `region`, three or more regions: 2-2-1 over home, next and third; the single one may be a witness;
- goal `region`, two regions and a witness site: 2 + 2 full voters and one witness;
- goal `region` where home or next has one zone: one voter in each of the nearest 5 regions, else 3; the last may be
  a witness;
- *next* and *third* are the nearest to home by RTT, with ties broken by the order of the file;
- a witness site holds witnesses only: it counts where a witness is asked for, or where there are too few regions;
- goal `zone` with an asynchronous copy: one learner more, in the first zone of the region named. It does not vote, so
  neither quorums nor timers nor predicted latencies know of it.

In every result the first voter is a full one in the home region's first zone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from isochrone.errors import InvariantViolation
from isochrone.ids import RegionId, ReplicaRole
from isochrone.topology.model import Region, SurvivalGoal, majority
from isochrone.topology.survival import LossKind, Voter, losses
from isochrone.wire.configurations import quorum_faults
from isochrone.wire.messages import MAJORITY, QuorumSizes

RegionRtts = Mapping[tuple[RegionId, RegionId], float]
"""Median RTT in ms by ordered pair of different regions."""


class UnsatisfiableError(Exception):
    """The regions and zones there are cannot meet the goal. The topology's author is at fault."""

    def __init__(self, found: str, allowed: str) -> None:
        super().__init__(f"{found}; {allowed}")
        self.found = found
        self.allowed = allowed


@dataclass(frozen=True, slots=True)
class Goal:
    """What a keyspace asks for."""

    home: RegionId
    survive: SurvivalGoal
    witness: bool


def derive_voters(goal: Goal, regions: Sequence[Region], rtts: RegionRtts) -> tuple[Voter, ...]:
    """The voters that meet a goal. Raises `UnsatisfiableError`; the home must be one of `regions`."""
    home = next(region for region in regions if region.id == goal.home)
    if goal.survive is SurvivalGoal.ZONE:
        return _across_zones(home, goal.witness)
    by_distance = sorted((region for region in regions if region != home), key=lambda region: rtts[home.id, region.id])
    full = [region for region in by_distance if not region.witness_site]
    sites = [region for region in by_distance if region.witness_site]
    if len(full) + bool(sites) < 2:
        found = f"regions besides the home: {len(full)}, witness sites: {len(sites)}"
        raise UnsatisfiableError(found, "goal region: three regions, or two and a witness site")
    use_sites = goal.witness or len(full) < 2
    last = [region for region in by_distance if region != full[0] and (use_sites or not region.witness_site)]
    if len(home.zones) < 2 or len(full[0].zones) < 2:
        return _one_in_each(home, full, last, goal.witness)
    third = last[0]
    role = _last_role(third, goal.witness)
    return (*_full(home, 2), *_full(full[0], 2), Voter(third.zones[0], third.id, role))


def _across_zones(home: Region, witness: bool) -> tuple[Voter, ...]:
    if len(home.zones) < 3:
        found = f"{len(home.zones)} zone(s) in {home.id}"
        raise UnsatisfiableError(found, "goal zone: three zones in the home region")
    return (*_full(home, 2), Voter(home.zones[2], home.id, _last_role(home, witness)))


def _one_in_each(home: Region, full: Sequence[Region], last: Sequence[Region], witness: bool) -> tuple[Voter, ...]:
    """One voter in each of the nearest 5 regions, home included; where there are fewer, 3."""
    for count in (5, 3):
        between = full[: count - 2]
        rest = [region for region in last if region not in between]
        if len(between) == count - 2 and rest:
            role = _last_role(rest[0], witness)
            single = (_full(region, 1)[0] for region in (home, *between))
            return (*single, Voter(rest[0].zones[0], rest[0].id, role))
    raise InvariantViolation("a second region and a third one or a site were counted before")


def _full(region: Region, count: int) -> tuple[Voter, ...]:
    return tuple(Voter(zone, region.id, ReplicaRole.FULL) for zone in region.zones[:count])


def _last_role(region: Region, witness: bool) -> ReplicaRole:
    return ReplicaRole.WITNESS if witness or region.witness_site else ReplicaRole.FULL


def copy_fault(region: Region, goal: Goal, voters: Sequence[Voter]) -> tuple[str, str] | None:
    """Why an asynchronous copy cannot stand in a region, as a (found, allowed) pair; None if it can."""
    if goal.survive is SurvivalGoal.REGION:
        return f"{region.id} beside goal region", "with goal zone only: goal region has voters in other regions"
    if region.id == goal.home:
        return f"{region.id}, the home region", "another region than the home: the copy is for the loss of that"
    if region.witness_site:
        return f"{region.id}, a witness site", "a region that holds state"
    if any(voter.region == region.id for voter in voters):
        return f"{region.id}, where a voter stands", "a region without a voter of the group"
    return None


def placement_faults(voters: Sequence[Voter], goal: Goal, sites: Sequence[RegionId]) -> list[tuple[str, str]]:
    """What is wrong with voters placed by hand, as (found, allowed) pairs."""
    faults: list[tuple[str, str]] = []
    full = [voter for voter in voters if voter.role is ReplicaRole.FULL]
    witnesses = len(voters) - len(full)
    zones = [voter.zone for voter in voters]
    faults += [
        (f"zone {zone} {zones.count(zone)} times", "at most one voter of a group in a zone")
        for zone in dict.fromkeys(zones)
        if zones.count(zone) > 1
    ]
    faults += [
        (f"a full voter in the witness site {voter.region}", "witnesses only in a witness site")
        for voter in full
        if voter.region in sites
    ]
    if all(voter.region != goal.home for voter in full):
        faults.append((f"no full voter in {goal.home}", "at least one full voter in the home region"))
    if witnesses >= majority(len(voters)):
        allowed = f"fewer witnesses than a quorum ({majority(len(voters))} of {len(voters)})"
        faults.append((f"{witnesses} witnesses", allowed))
    faults += [(found, f"goal {goal.survive}: a quorum left") for found in _unmet_losses(voters, goal, MAJORITY)]
    return faults


def sizes_faults(voters: Sequence[Voter], goal: Goal, quorums: QuorumSizes) -> list[tuple[str, str]]:
    """What is wrong with sizes of quorums given by hand, as (found, allowed) pairs."""
    witnesses = sum(voter.role is ReplicaRole.WITNESS for voter in voters)
    faults = list(quorum_faults(quorums, len(voters), witnesses))
    if faults:
        return faults
    needed = f"at least {max(quorums.commit, quorums.election)}, to commit and to elect"
    return [(found, f"goal {goal.survive}: {needed}") for found in _unmet_losses(voters, goal, quorums)]


def _unmet_losses(voters: Sequence[Voter], goal: Goal, quorums: QuorumSizes) -> list[str]:
    """The losses that a goal wants survived and that are not, each in words."""
    kinds = {LossKind.ZONE} if goal.survive is SurvivalGoal.ZONE else {LossKind.ZONE, LossKind.REGION}
    return [
        f"{loss.voters_left} of {len(voters)} voters left without {loss.lost[0]}"
        for loss in losses(voters, quorums)
        if loss.kind in kinds and not loss.keeps_quorum
    ]
