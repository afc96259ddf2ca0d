"""Faults as data: which links a fault cuts, what it stops, and which region it takes away.

A fault's place may be given by name or as the place of a leader at the time; `resolve` turns it into names.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from isochrone.drills.schema import FaultKind, FaultSection, LeaderOf, LinkPlaces
from isochrone.ids import NodeId, RegionId, ZoneId
from isochrone.topology.model import Topology
from isochrone.wire.shaping import LinkShape

Link = tuple[ZoneId, ZoneId]


@dataclass(frozen=True, slots=True)
class ResolvedFault:
    """A fault whose place is known."""

    kind: FaultKind
    description: str
    """In words, such as `kill-region us-east-1`."""
    node: NodeId | None = None
    """The node that is killed or paused."""
    region: RegionId | None = None
    """The region that is taken away. Clients in it are taken away too."""
    cut: frozenset[Link] = frozenset()
    """Links that carry nothing while the fault lasts."""


def resolve(fault: FaultSection, topology: Topology, leader_of: Callable[[str], NodeId]) -> ResolvedFault:
    """Find the place of a fault. `leader_of` gives the present leader of a keyspace's group, by prefix."""
    match fault.target:
        case LinkPlaces() as places:
            arrow = "<->" if places.both_ways else "->"
            description = f"{fault.kind} {places.from_} {arrow} {places.to}"
            return ResolvedFault(fault.kind, description, cut=_links_between(topology, places))
        case LeaderOf(leader_of=keyspace):
            node = leader_of(keyspace)
            region = topology.node(node).region
        case str() as name:
            node, region = NodeId(name), RegionId(name)
    if fault.kind in (FaultKind.KILL_NODE, FaultKind.PAUSE_NODE):
        return ResolvedFault(fault.kind, f"{fault.kind} {node}", node=node)
    return ResolvedFault(fault.kind, f"{fault.kind} {region}", region=region, cut=_links_of_region(topology, region))


def links_under(topology: Topology, faults: Iterable[ResolvedFault]) -> dict[Link, LinkShape]:
    """All links as they are while the given faults last."""
    cut = frozenset(link for fault in faults for link in fault.cut)
    return {link: LinkShape(cut=True) if link in cut else shape for link, shape in topology.links().items()}


def unshaped_links(topology: Topology) -> dict[Link, LinkShape]:
    """All links without delay."""
    return dict.fromkeys(topology.links(), LinkShape())


def _links_of_region(topology: Topology, region: RegionId) -> frozenset[Link]:
    inside = set(topology.region(region).zones)
    return frozenset(link for link in topology.links() if (link[0] in inside) != (link[1] in inside))


def _links_between(topology: Topology, places: LinkPlaces) -> frozenset[Link]:
    sources, targets = _zones_of(topology, places.from_), _zones_of(topology, places.to)
    links = {(source, target) for source in sources for target in targets}
    if places.both_ways:
        links |= {(target, source) for source, target in links}
    return frozenset(links)


def _zones_of(topology: Topology, place: str) -> tuple[ZoneId, ...]:
    for region in topology.regions:
        if region.id == place:
            return region.zones
    return (ZoneId(place),)
