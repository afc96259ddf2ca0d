"""A deployment's status as a table and as plain data. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from rich.table import Table

from isochrone.ids import GroupId, LogIndex, NodeId, RegionId, ReplicaRole, Term, ZoneId
from isochrone.topology import Topology
from isochrone.wire.status import NodeStatus, status_to_plain


@dataclass(frozen=True, slots=True)
class ReplicaRow:
    """One replica, as its node tells it."""

    group: GroupId
    node: NodeId
    region: RegionId
    zone: ZoneId
    role: ReplicaRole
    leads: bool
    term: Term | None
    """This and what follows are None when the node does not answer."""
    commit: LogIndex | None
    applied: LogIndex | None
    lag: int | None


def replica_rows(topology: Topology, statuses: Iterable[NodeStatus]) -> list[ReplicaRow]:
    """One row for each replica that the topology names, in its order."""
    told = {(status.node, group.group): group for status in statuses for group in status.groups}
    rows = []
    for group in topology.groups:
        commit = max((each.commit for (_, name), each in told.items() if name == group.id), default=LogIndex(0))
        for replica in group.replicas:
            spec = topology.node(replica.node)
            own = told.get((replica.node, group.id))
            rows.append(
                ReplicaRow(
                    group=group.id,
                    node=spec.id,
                    region=spec.region,
                    zone=spec.zone,
                    role=replica.role,
                    leads=own is not None and own.leader == spec.id,
                    term=None if own is None else own.term,
                    commit=None if own is None else own.commit,
                    applied=None if own is None else own.applied,
                    lag=None if own is None else commit - own.applied,
                )
            )
    return rows


def render(topology: Topology, statuses: Sequence[NodeStatus]) -> Table:
    """The status as a table, one line per replica."""
    table = Table(title=f"{topology.name}: {len(statuses)} of {len(topology.nodes)} nodes answer", title_justify="left")
    for name in ("group", "node", "region", "zone", "role", "leader"):
        table.add_column(name)
    for name in ("term", "commit", "applied", "lag"):
        table.add_column(name, justify="right")
    group = None
    for row in replica_rows(topology, statuses):
        if group not in (None, row.group):
            table.add_section()
        group = row.group
        answers = row.term is not None
        figures = [str(row.term), str(row.commit), str(row.applied), str(row.lag)] if answers else ["-"] * 4
        leader = "leads" if row.leads else "" if answers else "no answer"
        style = None if answers else "red"
        table.add_row(row.group, row.node, row.region, row.zone, row.role, leader, *figures, style=style)
    return table


def to_plain(topology: Topology, statuses: Sequence[NodeStatus]) -> dict[str, Any]:
    """The status as plain data: all that the nodes tell, and which of them do not answer."""
    answering = {status.node for status in statuses}
    return {
        "topology": topology.name,
        "nodes": [status_to_plain(status) for status in statuses],
        "unreachable": [spec.id for spec in topology.nodes if spec.id not in answering],
    }
