"""A topology as tables for people and as plain values for programs."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from itertools import combinations
from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from isochrone.ids import ReplicaRole
from isochrone.ops.cli.tables import counted, heading, make_table
from isochrone.topology.model import Compaction, Group, Region, Topology
from isochrone.topology.predict import Prediction, async_copies, predictions
from isochrone.topology.survival import Loss, LossKind, losses, voters_of, warnings

_LISTED_MAX = 6
"""A longer list of losses is told by its exceptions, if those are fewer."""


def topology_to_plain(topology: Topology) -> dict[str, Any]:
    """Everything that `show` tells, as plain types. Times are in milliseconds."""
    return {
        "name": topology.name,
        "latencies": topology.latencies,
        "regions": [asdict(region) for region in topology.regions],
        "rtt_ms": {a.id: {b.id: _region_rtt_ms(topology, a, b) for b in topology.regions} for a in topology.regions},
        "nodes": [asdict(node) for node in topology.nodes],
        "keyspaces": [{**asdict(keyspace), "prefix": keyspace.prefix.decode()} for keyspace in topology.keyspaces],
        "groups": [_group_to_plain(topology, group) for group in topology.groups],
        "clock": asdict(topology.clock),
        "warnings": list(warnings(topology)),
    }


def _group_to_plain(topology: Topology, group: Group) -> dict[str, Any]:
    places = [{**asdict(topology.node(replica.node)), "role": replica.role} for replica in group.replicas]
    return {
        **asdict(group),
        "replicas": [{"node": place.pop("id"), **place} for place in places],
        "quorum": group.commit_quorum(),
        "election_quorum": group.election_quorum(),
        "keyspaces": _keyspaces_of(topology, group),
        "losses": [asdict(loss) for loss in losses(voters_of(topology, group), group.quorums)],
        "async_copies": [asdict(copy) for copy in async_copies(topology, group)],
        "predictions": [asdict(prediction) for prediction in predictions(topology, group)],
    }


def _keyspaces_of(topology: Topology, group: Group) -> list[str]:
    return [str(keyspace.id) for keyspace in topology.keyspaces if keyspace.group == group.id]


def _region_rtt_ms(topology: Topology, a: Region, b: Region) -> float | None:
    """Between the first zones of two regions; within one the mean over its zone pairs, None with one zone."""
    if a != b:
        return round(topology.rtt_ms(a.zones[0], b.zones[0]), 3)
    rtts = [topology.rtt_ms(one, other) for one, other in combinations(a.zones, 2)]
    return round(sum(rtts) / len(rtts), 3) if rtts else None


def render(topology: Topology) -> Iterator[RenderableType]:
    """The parts of `show`, top to bottom."""
    clock = topology.clock
    counts = f"{counted(len(topology.regions), 'region')}, {counted(len(topology.nodes), 'node')}"
    yield Text.assemble((topology.name, "bold"), f": {counts}")
    yield Text(
        f"links: {topology.latencies}; clock: {clock.source}, bound {clock.bound_ms:g} ms, "
        f"offset at most {clock.offset_max_ms:g} ms"
    )
    yield heading("Regions")
    yield _regions_table(topology)
    yield heading("Median round trips, ms (diagonal: between zones)")
    yield _rtt_table(topology)
    if any(region.zone_rtt_assumed for region in topology.regions):
        yield Text("* assumed")
    for group in topology.groups:
        yield from _render_group(topology, group)
    yield Text("")
    for warning in warnings(topology):
        yield Text.assemble(("warning: ", "yellow"), warning)


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]], right_from: int | None = None) -> Table:
    table = make_table(columns, right_from=right_from)
    for row in rows:
        table.add_row(*[Text(cell) for cell in row])
    return table


def _regions_table(topology: Topology) -> Table:
    rows = []
    for region in topology.regions:
        place = f"{region.city}\n{region.latitude:.1f}, {region.longitude:.1f}"
        zones: list[str] = []
        nodes: list[str] = []
        for zone in region.zones:
            inside = [str(node.id) for node in topology.nodes if node.zone == zone]
            nodes += inside
            zones += [zone, *[""] * (len(inside) - 1)]  # Each zone stands beside its first node.
        holds = ReplicaRole.WITNESS if region.witness_site else ReplicaRole.FULL
        rows.append((region.id, holds, place, "\n".join(zones), "\n".join(nodes)))
    return _table(("region", "holds", "place", "zones", "nodes"), rows)


def _rtt_table(topology: Topology) -> Table:
    rows = []
    for a in topology.regions:
        cells = [_region_rtt_ms(topology, a, b) for b in topology.regions]
        marks = ["*" if a == b and a.zone_rtt_assumed else "" for b in topology.regions]
        shown = ["-" if cell is None else f"{cell:.1f}{mark}" for cell, mark in zip(cells, marks, strict=True)]
        rows.append((a.id, *shown))
    columns = ("from \\ to", *(region.id for region in topology.regions))
    return _table(columns, rows, right_from=1)


def _history_in_words(kept: Compaction) -> str:
    bounds = []
    if kept.keep_seconds is not None:
        bounds.append(f"for {kept.keep_seconds} s")
    if kept.keep_revisions is not None:
        bounds.append(f"over {kept.keep_revisions} revisions")
    return f"keeps what is superseded {' and at most '.join(bounds) or 'until it is compacted by hand'}"


def _render_group(topology: Topology, group: Group) -> Iterator[RenderableType]:
    yield heading(f"Group {group.id}: keyspaces {', '.join(_keyspaces_of(topology, group))}")
    leases = ", reads under leases" if group.lease_reads else ""
    yield Text(f"home {group.home}, survives the loss of a {group.goal}, ordering {group.ordering}{leases}")
    yield Text(
        f"{_quorums_in_words(group)}, heartbeat {group.heartbeat_ms} ms, "
        f"election timeout {group.election_timeout_ms} to {group.election_timeout_ms * 3 // 2} ms; "
        f"{_history_in_words(group.compaction)}\n"
    )
    rows = []
    for replica in group.replicas:
        node = topology.node(replica.node)
        rows.append((node.id, node.region, node.zone, str(replica.role)))
    yield _table(("node", "region", "zone", "role"), rows)
    yield heading("What may be lost (places without a voter do not matter)")
    yield _losses_table(losses(voters_of(topology, group), group.quorums))
    for copy in async_copies(topology, group):
        yield Text(
            f"The asynchronous copy in {copy.region} does not vote, and no write waits for it. If {group.home} is lost "
            f"for good, the copy lacks what was proposed in the last {copy.delay_ms:.1f} ms at least, and more while a "
            "link or a node is slow or down: isochrone status shows its lag."
        )
    if group.lease_reads:
        yield heading("Predicted commit latency, ms (disk and software on top)")
        yield _predictions_table(topology, group, lambda each: each.commit_ms)
        yield heading("Predicted linearizable read latency while the leader has a lease, ms (software on top)")
        yield _predictions_table(topology, group, lambda each: each.read_ms)
    else:
        yield heading("Predicted commit and linearizable read latency, ms (disk and software on top)")
        yield _predictions_table(topology, group, lambda each: each.commit_ms)


def _quorums_in_words(group: Group) -> str:
    commit, election, voters = group.commit_quorum(), group.election_quorum(), len(group.voters())
    if commit == election:
        return f"quorum {commit} of {voters}"
    return f"quorums {commit} to commit and {election} to elect of {voters}"


def _losses_table(found: Sequence[Loss]) -> Table:
    rows = []
    for kind in LossKind:
        keeps = [" + ".join(loss.lost) for loss in found if loss.kind is kind and loss.keeps_quorum]
        stops = [" + ".join(loss.lost) for loss in found if loss.kind is kind and not loss.keeps_quorum]
        if keeps or stops:
            rows.append((str(kind), _listed(keeps, stops), _listed(stops, keeps)))
    return _table(("lost", "keeps all writes and goes on", "stops until it is back"), rows)


def _listed(these: Sequence[str], others: Sequence[str]) -> str:
    """A set of losses in few words."""
    if not these:
        return "-"
    if not others:
        return "any"
    if len(these) > _LISTED_MAX and len(others) < len(these):
        return f"any but {', '.join(others)}"
    return "\n".join(these)


def _predictions_table(topology: Topology, group: Group, figure: Callable[[Prediction], float]) -> Table:
    found = {(each.client_region, each.leader_region): each for each in predictions(topology, group)}
    leaders = list(dict.fromkeys(leader for _, leader in found))
    rows = [
        (region.id, *(f"{figure(found[region.id, leader]):.1f}" for leader in leaders)) for region in topology.regions
    ]
    columns = ("client in", *(f"leader in {leader}" for leader in leaders))
    return _table(columns, rows, right_from=1)
