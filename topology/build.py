"""From a checked document to a `Topology`: names, links, replicas and timers, in that order.

Each step runs only on what the earlier ones found sound, so one fault does not cause a second report; every fault that
can be known is reported in one run.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from isochrone.errors import check
from isochrone.ids import GroupId, KeyspaceId, NodeId, RegionId, ReplicaRole, ZoneId
from isochrone.topology.derive import (
    Goal,
    UnsatisfiableError,
    copy_fault,
    derive_voters,
    placement_faults,
    sizes_faults,
)
from isochrone.topology.latency import LatencyMatrix, Place
from isochrone.topology.links import Links, build_links
from isochrone.topology.model import (
    Compaction,
    Group,
    Keyspace,
    NodeSpec,
    Ordering,
    Problem,
    Region,
    Replica,
    SurvivalGoal,
    Topology,
    TopologyError,
)
from isochrone.topology.resolve import (
    Faults,
    Numbered,
    check_home,
    check_prefixes,
    check_zones_have_nodes,
    one_of,
    resolve_clock,
    resolve_nodes,
    resolve_overrides,
    resolve_placement,
    resolve_regions,
)
from isochrone.topology.schema import KeyspaceSection, ReadDocument, TimersSection, TopologyDocument
from isochrone.topology.survival import Voter
from isochrone.topology.timers import Timers, derive_timers, timer_faults
from isochrone.wire.messages import MAJORITY, QuorumSizes


@dataclass(frozen=True, slots=True)
class Reference:
    """Measured data that a topology rests on. `matrix` is None where the one asked for cannot be read."""

    matrix: LatencyMatrix | None
    places: Mapping[RegionId, Place]
    zone_rtts: Mapping[RegionId, float]


@dataclass(frozen=True, slots=True)
class _GroupPlan:
    """A group before its nodes and timers are known."""

    id: GroupId
    home: RegionId
    goal: SurvivalGoal
    ordering: Ordering
    voters: tuple[Voter, ...]
    quorums: QuorumSizes
    copy_zone: ZoneId | None
    """Where its asynchronous copy stands, if it has one."""
    lease_reads: bool


def build_topology(read: ReadDocument, reference: Reference, file: str, earlier: Sequence[Problem] = ()) -> Topology:
    """The topology of a document. `earlier` are faults that the caller has found already.

    Raises:
        TopologyError: there is any fault, an earlier one included; it carries all of them.
    """
    document, faulty = read.document, read.faulty
    faults = Faults(file, [*earlier, *read.problems])
    clock = resolve_clock(document.clock, faults)
    for key, items in (("regions", document.regions), ("keyspaces", document.keyspaces)):
        if not items and key not in faulty:
            faults.add(key, "an empty list", "at least one")
    keyspaces = read.numbered("keyspaces", document.keyspaces)
    check_prefixes(keyspaces, faults)
    before = len(faults.problems)
    regions = resolve_regions(read.numbered("regions", document.regions), reference.places, faults)
    if "regions" in faulty:
        # Names that would be missed may belong to the regions that could not be read.
        raise TopologyError(tuple(faults.problems))
    node_sections = None if document.nodes is None else read.numbered("nodes", document.nodes)
    nodes = resolve_nodes(node_sections, regions, faults)
    if "nodes" not in faulty:
        check_zones_have_nodes(nodes, regions, faults)
    overrides = resolve_overrides(read.numbered("links", document.links), regions, faults)
    placed = len(faults.problems) == before and not faulty & {"nodes", "links", "latencies"}
    links: Links | None = None
    if placed and reference.matrix is not None:
        links = build_links(regions, reference.matrix, reference.zone_rtts, overrides)
        regions = [replace(region, zone_rtt_assumed=region.id in links.assumed) for region in regions]
        _check_missing(links, regions, reference.matrix, faults)
        placed = not links.missing
    plans = _plan_groups(keyspaces, regions, links if placed else None, faults)
    groups: list[Group] = []
    if links is not None and placed and "keyspaces" not in faulty and len(plans) == len(keyspaces):
        groups = _groups(list(plans.values()), nodes, links, document, faults)
    if faults.problems or links is None:
        check(bool(faults.problems), "links are missing only where a fault was found")
        raise TopologyError(tuple(faults.problems))
    return Topology(
        document.name,
        document.latencies,
        tuple(regions),
        tuple(nodes),
        tuple(_keyspace(section, plans[section.prefix]) for section in document.keyspaces),
        tuple(groups),
        clock,
        links.shapes,
    )


def _check_missing(links: Links, regions: Sequence[Region], matrix: LatencyMatrix, faults: Faults) -> None:
    """Report regions that no figure ties to others, once each, then single pairs without a figure."""
    unknown = [region.id for region in regions if region.id not in matrix.regions]
    for position, region in enumerate(regions):
        lacks = [b if a == region.id else a for a, b in links.missing if region.id in (a, b)]
        if region.id in unknown and lacks:
            allowed = f"{one_of(region.id, matrix.regions, f'region of the {matrix.name} matrix')}; or links both ways"
            faults.add(f"regions[{position}].name", region.id, allowed)
    for a, b in links.missing:
        if a not in unknown and b not in unknown:
            found = f"no delay from {a} to {b} in the {matrix.name} matrix"
            faults.add("links", found, "an override with its delay_ms")


def _plan_groups(
    sections: Numbered[KeyspaceSection], regions: Sequence[Region], links: Links | None, faults: Faults
) -> dict[str, _GroupPlan]:
    """The group of each keyspace whose home and voters are sound, by prefix. Without links only names are checked."""
    rtts = _region_rtts(regions, links) if links is not None else {}
    sites = [region.id for region in regions if region.witness_site]
    plans: dict[str, _GroupPlan] = {}
    for position, section in sections:
        path = f"keyspaces[{position}]"
        goal = Goal(RegionId(section.home), SurvivalGoal(section.survive), section.witness)
        home_known = check_home(section, path, regions, faults)
        voters: Sequence[Voter] | None = None
        if section.placement is not None:
            below = f"{path}.placement"
            voters = resolve_placement(section.placement, goal.home, below, regions, faults)
            wrong = placement_faults(voters, goal, sites) if voters is not None and home_known else []
            for found, allowed in wrong:
                faults.add(below, found, allowed)
            if section.witness:
                faults.add(f"{path}.witness", "true beside placement", "witnesses named in placement.witnesses")
        elif home_known and links is not None:
            try:
                voters = derive_voters(goal, regions, rtts)
            except UnsatisfiableError as error:
                faults.add(f"{path}.survive", f"{section.survive} with {error.found}", error.allowed)
        copy_zone = _copy_zone(section, goal, voters or (), f"{path}.async_copy", regions, faults)
        if voters is not None:
            plans[section.prefix] = _GroupPlan(
                group_name(section),
                goal.home,
                goal.survive,
                Ordering(section.ordering),
                tuple(voters),
                _quorums(section, voters, goal, f"{path}.quorums", faults),
                copy_zone,
                section.lease_reads,
            )
    return plans


def _copy_zone(
    section: KeyspaceSection,
    goal: Goal,
    voters: Sequence[Voter],
    path: str,
    regions: Sequence[Region],
    faults: Faults,
) -> ZoneId | None:
    """The first zone of the region that is to hold the asynchronous copy."""
    if section.async_copy is None:
        return None
    region = next((region for region in regions if region.id == section.async_copy), None)
    if region is None:
        allowed = [each.id for each in regions if copy_fault(each, goal, voters) is None]
        faults.add(path, section.async_copy, one_of(section.async_copy, allowed, "region"))
        return None
    fault = copy_fault(region, goal, voters)
    if fault is not None:
        faults.add(path, *fault)
    return region.zones[0]


def _quorums(section: KeyspaceSection, voters: Sequence[Voter], goal: Goal, path: str, faults: Faults) -> QuorumSizes:
    if section.quorums is None:
        return MAJORITY
    quorums = QuorumSizes(section.quorums.commit, section.quorums.election)
    for found, allowed in sizes_faults(voters, goal, quorums):
        faults.add(path, found, allowed)
    return quorums


def _region_rtts(regions: Sequence[Region], links: Links) -> dict[tuple[RegionId, RegionId], float]:
    """Median round trips between the first zones of regions."""
    first = {region.id: region.zones[0] for region in regions}
    return {
        (a, b): links.shapes[first[a], first[b]].delay_ms + links.shapes[first[b], first[a]].delay_ms
        for a in first
        for b in first
        if a != b
    }


def group_name(section: KeyspaceSection) -> GroupId:
    """The name that equal homes, goals, orderings and overrides share: `us-east-1.zone`, `us-east-1.zone.external`.

    A placement by hand is named by a short digest of its zones, so that it does not depend on the rest of the file. An
    asynchronous copy is a replica of the whole group, so keyspaces with different ones cannot share a group:
    `us-east-1.zone.copy-eu-west-1`.
    """
    parts = [section.home, section.survive]
    if section.ordering != "linearizable":
        parts.append(section.ordering)
    if section.witness:
        parts.append("witness")
    if section.placement is not None:
        placement = f"{sorted(section.placement.voters)} {sorted(section.placement.witnesses)}"
        parts.append(f"placed-{hashlib.blake2b(placement.encode(), digest_size=4).hexdigest()}")
    if section.quorums is not None:
        parts.append(f"quorums-{section.quorums.commit}-{section.quorums.election}")
    if section.async_copy is not None:
        parts.append(f"copy-{section.async_copy}")
    if section.lease_reads:
        parts.append("leased")
    return GroupId(".".join(parts))


def _groups(
    plans: Sequence[_GroupPlan],
    nodes: Sequence[NodeSpec],
    links: Links,
    document: TopologyDocument,
    faults: Faults,
) -> list[Group]:
    """The distinct groups, in the order of the file, each zone's replicas spread over its nodes."""
    distinct = {plan.id: plan for plan in plans}
    for key, names in (("timers", document.timers), ("compaction", document.compaction)):
        for name in names:
            if name not in distinct:
                faults.add(f"{key}.{name}", "no such group", one_of(name, distinct, "group"))
    load: dict[NodeId, int] = {node.id: 0 for node in nodes}
    groups: list[Group] = []
    for plan in distinct.values():
        replicas: list[Replica] = []
        places = [(voter.zone, voter.role) for voter in plan.voters]
        if plan.copy_zone is not None:
            places.append((plan.copy_zone, ReplicaRole.LEARNER))
        for zone, role in places:
            node = _least_loaded(zone, nodes, load)
            load[node] += 1
            replicas.append(Replica(node, role))
        chosen = _timers(plan, links, document.timers.get(plan.id), faults)
        kept = document.compaction.get(plan.id)
        groups.append(
            Group(
                plan.id,
                plan.home,
                plan.goal,
                plan.ordering,
                tuple(replicas),
                chosen.heartbeat_ms,
                chosen.election_timeout_ms,
                plan.quorums,
                plan.lease_reads,
                Compaction() if kept is None else Compaction(kept.keep_seconds, kept.keep_revisions),
            )
        )
    return groups


def _least_loaded(zone: ZoneId, nodes: Sequence[NodeSpec], load: Mapping[NodeId, int]) -> NodeId:
    return min((node.id for node in nodes if node.zone == zone), key=lambda node: load[node])


def _timers(plan: _GroupPlan, links: Links, section: TimersSection | None, faults: Faults) -> Timers:
    zones = [voter.zone for voter in plan.voters]
    tail_rtt_ms = max((links.tail_rtt_ms[a, b] for a in zones for b in zones if a != b), default=0.0)
    across_regions = len({voter.region for voter in plan.voters}) > 1
    if section is None:
        return derive_timers(tail_rtt_ms, across_regions)
    chosen = derive_timers(tail_rtt_ms, across_regions, section.heartbeat_ms)
    if section.election_timeout_ms is not None:
        chosen = Timers(chosen.heartbeat_ms, section.election_timeout_ms)
    for field, found, allowed in timer_faults(chosen, tail_rtt_ms, across_regions):
        faults.add(f"timers.{plan.id}.{field}", found, allowed)
    return chosen


def _keyspace(section: KeyspaceSection, plan: _GroupPlan) -> Keyspace:
    return Keyspace(KeyspaceId(section.prefix), section.prefix.encode(), plan.home, plan.goal, plan.ordering, plan.id)
