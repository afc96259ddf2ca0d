"""From the sections of a file to places and references: every name is checked here, none later.

Each function takes what earlier ones resolved, adds its faults to `Faults`, and returns what is sound, so that one
reading reports the faults of all sections.
"""

import difflib
import string
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from isochrone.ids import NodeId, RegionId, ReplicaRole, ZoneId
from isochrone.topology.latency import Place
from isochrone.topology.links import LinkOverride
from isochrone.topology.model import ClockSpec, NodeSpec, Problem, Region
from isochrone.topology.schema import (
    ClockSection,
    KeyspaceSection,
    LinkSection,
    NodeSection,
    PlacementSection,
    RegionSection,
)
from isochrone.topology.survival import Voter

KERNEL_BOUND_MAX_MS = 100.0
"""The widest clock bound accepted from the kernel, unless the file says otherwise."""


SectionT = TypeVar("SectionT")
Numbered = Sequence[tuple[int, SectionT]]
"""Items of a list, each with its position in the file."""


@dataclass(slots=True)
class Faults:
    """Gathers the problems of one file."""

    file: str
    problems: list[Problem] = field(default_factory=list)

    def add(self, path: str, found: str, allowed: str) -> None:
        """Report one fault."""
        self.problems.append(Problem(self.file, path, found, allowed))


def one_of(name: str, names: Iterable[str], kind: str) -> str:
    """What to write in place of an unknown name: all names if they are few, else the nearest."""
    known = list(dict.fromkeys(names))
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    if len(known) <= 9:
        return f"a {kind}: {', '.join(known) or 'there is none'}"
    return f"a {kind}: one of {len(known)}, such as {', '.join(close or known[:3])}"


def resolve_regions(
    sections: Numbered[RegionSection], places: Mapping[RegionId, Place], faults: Faults
) -> list[Region]:
    """Regions with their zones and coordinates. Of regions with one name the first one counts."""
    regions: dict[RegionId, Region] = {}
    owners: dict[str, str] = {section.name: "the name of a region" for _, section in sections}
    for position, section in sections:
        path = f"regions[{position}]"
        region = RegionId(section.name)
        if region in regions:
            faults.add(f"{path}.name", f"{region} again", "each region once")
            continue
        zones = _zone_names(section)
        for zone in zones:
            if zone in owners:
                faults.add(f"{path}.zones", f"{zone}, {owners[zone]}", "names that no other zone or region has")
            owners[zone] = f"a zone of {region}"
        place = _place(section, places.get(region), path, faults)
        regions[region] = Region(region, zones, place.city, place.latitude, place.longitude, section.witness_site)
    if sections and all(section.witness_site for _, section in sections):
        faults.add("regions", "witness sites only", "at least one region that is not a witness site")
    return list(regions.values())


def _zone_names(section: RegionSection) -> tuple[ZoneId, ...]:
    if isinstance(section.zones, list):
        return tuple(ZoneId(name) for name in section.zones)
    dash = "" if section.name[-1].isdigit() else "-"
    return tuple(ZoneId(f"{section.name}{dash}{letter}") for letter in string.ascii_lowercase[: section.zones])


def _place(section: RegionSection, known: Place | None, path: str, faults: Faults) -> Place:
    city = section.city or (known.city if known else section.name)
    match section.latitude, section.longitude:
        case float(latitude), float(longitude):
            return Place(city, latitude, longitude)
        case None, None if known is not None:
            return Place(city, known.latitude, known.longitude)
        case None, None:
            faults.add(
                path, f"no coordinates for {section.name}", "latitude and longitude: it is no known cloud region"
            )
        case _:
            faults.add(path, "one of latitude and longitude", "both or none")
    return Place(city, 0.0, 0.0)


def resolve_nodes(sections: Numbered[NodeSection] | None, regions: Sequence[Region], faults: Faults) -> list[NodeSpec]:
    """The nodes; by default one for each zone, named after it."""
    region_of = {zone: region.id for region in regions for zone in region.zones}
    if sections is None:
        return [NodeSpec(NodeId(f"{zone}-1"), region, zone, None) for zone, region in region_of.items()]
    nodes: dict[NodeId, NodeSpec] = {}
    addresses: dict[str, str] = {}
    for position, section in sections:
        path = f"nodes[{position}]"
        node, zone = NodeId(section.name), ZoneId(section.zone)
        if node in nodes:
            faults.add(f"{path}.name", f"{node} again", "each node once")
        if section.address is not None:
            if not 1 <= int(section.address.rpartition(":")[2]) <= 65_535:
                faults.add(f"{path}.address", section.address, "a port from 1 to 65535")
            if section.address in addresses:
                allowed = f"an address that no other node has ({addresses[section.address]} has it)"
                faults.add(f"{path}.address", section.address, allowed)
            addresses[section.address] = node
        if zone not in region_of:
            faults.add(f"{path}.zone", zone, one_of(zone, region_of, "zone"))
            continue
        nodes.setdefault(node, NodeSpec(node, region_of[zone], zone, section.address))
    return list(nodes.values())


def check_zones_have_nodes(nodes: Sequence[NodeSpec], regions: Sequence[Region], faults: Faults) -> None:
    """Every zone needs a node, or it is not there."""
    taken = {node.zone for node in nodes}
    for region in regions:
        for zone in region.zones:
            if zone not in taken:
                faults.add("nodes", f"no node in zone {zone}", "at least one node in each zone")


def resolve_overrides(sections: Numbered[LinkSection], regions: Sequence[Region], faults: Faults) -> list[LinkOverride]:
    """Link overrides as sets of zones."""
    sides: dict[str, frozenset[ZoneId]] = {region.id: frozenset(region.zones) for region in regions}
    sides |= {zone: frozenset({zone}) for region in regions for zone in region.zones}
    overrides: list[LinkOverride] = []
    for position, section in sections:
        path = f"links[{position}]"
        unknown = [(key, name) for key, name in (("from", section.from_), ("to", section.to)) if name not in sides]
        for key, name in unknown:
            faults.add(f"{path}.{key}", name, one_of(name, sides, "region or zone"))
        if section.delay_ms is None and section.jitter_ms is None and section.loss is None:
            faults.add(path, "no change", "at least one of delay_ms, jitter_ms, loss")
        if unknown:
            continue
        sources, targets = sides[section.from_], sides[section.to]
        if sources == targets and len(sources) == 1:
            faults.add(f"{path}.to", f"{section.to}, the same zone", "another zone: inside a zone there is no link")
        overrides.append(LinkOverride(sources, targets, section.delay_ms, section.jitter_ms, section.loss))
    return overrides


def check_prefixes(sections: Numbered[KeyspaceSection], faults: Faults) -> None:
    """No prefix may start with another, or a key would have two homes."""
    for count, (position, section) in enumerate(sections):
        for other_position, other in sections[:count]:
            if section.prefix.startswith(other.prefix) or other.prefix.startswith(section.prefix):
                allowed = f"a prefix that does not overlap {other.prefix!r} of keyspaces[{other_position}]"
                faults.add(f"keyspaces[{position}].prefix", repr(section.prefix), allowed)


def check_home(section: KeyspaceSection, path: str, regions: Sequence[Region], faults: Faults) -> bool:
    """Whether a keyspace's home is a region that can be one."""
    homes = [region.id for region in regions if not region.witness_site]
    if section.home in homes:
        return True
    known = section.home in [region.id for region in regions]
    found = f"{section.home}, a witness site" if known else section.home
    faults.add(f"{path}.home", found, one_of(section.home, homes, "region"))
    return False


def resolve_placement(
    section: PlacementSection, home: RegionId, path: str, regions: Sequence[Region], faults: Faults
) -> list[Voter] | None:
    """Voters placed by hand, full ones in the home region first; None if a zone is unknown."""
    region_of = {zone: region.id for region in regions for zone in region.zones}
    voters: list[Voter] = []
    sound = True
    for key, names, role in (
        ("voters", section.voters, ReplicaRole.FULL),
        ("witnesses", section.witnesses, ReplicaRole.WITNESS),
    ):
        for position, name in enumerate(names):
            zone = ZoneId(name)
            if zone in region_of:
                voters.append(Voter(zone, region_of[zone], role))
            else:
                faults.add(f"{path}.{key}[{position}]", name, one_of(name, region_of, "zone"))
                sound = False
    voters.sort(key=lambda voter: (voter.role is ReplicaRole.WITNESS, voter.region != home))
    return voters if sound else None


def resolve_clock(section: ClockSection, faults: Faults) -> ClockSpec:
    """The clock's source and bounds."""
    if section.source == "bound" and section.bound_ms is None:
        faults.add("clock.bound_ms", "nothing", "half of the clock interval's width in ms, required by source bound")
    bound_ms = KERNEL_BOUND_MAX_MS if section.bound_ms is None else section.bound_ms
    if section.offset_max_ms < 2 * bound_ms:
        found = f"{section.offset_max_ms:g} ms"
        allowed = f"at least {2 * bound_ms:g} ms, twice the bound: two good clocks can differ by so much"
        faults.add("clock.offset_max_ms", found, allowed)
    return ClockSpec(section.source, bound_ms, section.offset_max_ms, section.drift_max_ppm)
