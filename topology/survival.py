"""Which losses a group survives: it keeps as many voters as a quorum takes, be it to commit or to elect.

Nothing more has to be asked. Witnesses are fewer than any quorum, so a quorum holds a full voter; and an election
quorum meets every commit quorum, so those who are left hold every acknowledged write.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import combinations

from isochrone.ids import RegionId, ReplicaRole, ZoneId
from isochrone.topology.latency import ASSUMED_ZONE_RTT_MS
from isochrone.topology.model import Group, Topology
from isochrone.wire.configurations import resolved_sizes
from isochrone.wire.messages import MAJORITY, QuorumSizes


@dataclass(frozen=True, slots=True)
class Voter:
    """Where a voter stands and what it stores."""

    zone: ZoneId
    region: RegionId
    role: ReplicaRole


class LossKind(StrEnum):
    """What is lost at once."""

    ZONE = "one zone"
    REGION = "one region"
    TWO_ZONES = "two zones"
    ZONE_AND_REGION = "a zone and another region"
    TWO_REGIONS = "two regions"


@dataclass(frozen=True, slots=True)
class Loss:
    """One way to lose voters of a group, and whether it still commits and elects afterwards."""

    kind: LossKind
    lost: tuple[str, ...]
    """Names of zones and regions."""
    voters_left: int
    keeps_quorum: bool


def voters_of(topology: Topology, group: Group) -> tuple[Voter, ...]:
    """The places of a group's voters."""
    nodes = [(topology.node(replica.node), replica.role) for replica in group.voters()]
    return tuple(Voter(node.zone, node.region, role) for node, role in nodes)


def voters_left(voters: Sequence[Voter], lost: Collection[str]) -> int:
    """How many voters remain when zones and regions are lost. No zone has the name of a region."""
    return sum(voter.zone not in lost and voter.region not in lost for voter in voters)


def losses(voters: Sequence[Voter], quorums: QuorumSizes = MAJORITY) -> tuple[Loss, ...]:
    """Every loss of one or two failure domains that hold voters."""
    sizes = resolved_sizes(quorums, len(voters))
    needed = max(sizes.commit, sizes.election)
    found: list[Loss] = []
    for kind, lost in _domains(voters):
        left = voters_left(voters, lost)
        found.append(Loss(kind, lost, left, left >= needed))
    return tuple(found)


def _domains(voters: Sequence[Voter]) -> Iterator[tuple[LossKind, tuple[str, ...]]]:
    zones = list(dict.fromkeys(voter.zone for voter in voters))
    regions = list(dict.fromkeys(voter.region for voter in voters))
    region_of = {voter.zone: voter.region for voter in voters}
    yield from ((LossKind.ZONE, (zone,)) for zone in zones)
    yield from ((LossKind.REGION, (region,)) for region in regions)
    yield from ((LossKind.TWO_ZONES, pair) for pair in combinations(zones, 2))
    for zone in zones:
        yield from ((LossKind.ZONE_AND_REGION, (zone, region)) for region in regions if region != region_of[zone])
    yield from ((LossKind.TWO_REGIONS, pair) for pair in combinations(regions, 2))


def warnings(topology: Topology) -> tuple[str, ...]:
    """What is allowed but deserves a second look."""
    found: list[str] = []
    for group in topology.groups:
        count = len(group.voters())
        if count % 2 == 0:
            found.append(
                f"group {group.id} has an even number of voters ({count}): it survives no more losses than with "
                f"{count - 1}, and needs one more acknowledgement"
            )
    found += [
        f"no RTT between the zones of {region.id} is known; {ASSUMED_ZONE_RTT_MS} ms is assumed"
        for region in topology.regions
        if region.zone_rtt_assumed
    ]
    return tuple(found)
