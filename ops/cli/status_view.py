"""A deployment's status as tables and as plain data. Pure."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from isochrone.ids import GroupId, LogIndex, NodeId, RegionId, ReplicaRole, Term, ZoneId
from isochrone.ops.cli.tables import heading, make_table
from isochrone.topology import Topology
from isochrone.wire.status import GroupStatus, NodeStatus, status_to_plain


@dataclass(frozen=True, slots=True)
class ReplicaRow:
    """One replica, as its node tells it."""

    group: GroupId
    node: NodeId
    region: RegionId
    zone: ZoneId
    role: ReplicaRole
    state: str
    """`leads`, `follows`, `elects` (knows no leader) or `silent` (its node does not answer)."""
    term: Term | None
    """This and what follows are None when the node is silent."""
    commit: LogIndex | None
    applied: LogIndex | None
    lag: int | None

    @property
    def leads(self) -> bool:
        """Whether it believes that it leads."""
        return self.state == "leads"


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
                    state=_state(own, spec.id),
                    term=None if own is None else own.term,
                    commit=None if own is None else own.commit,
                    applied=None if own is None else own.applied,
                    lag=None if own is None else commit - own.applied,
                )
            )
    return rows


def _state(own: GroupStatus | None, node: NodeId) -> str:
    if own is None:
        return "silent"
    if own.leader is None:
        return "elects"
    return "leads" if own.leader == node else "follows"


def render(topology: Topology, statuses: Sequence[NodeStatus]) -> Iterator[RenderableType]:
    """The status for people: a table for each group, one line for each replica."""
    yield Text(f"{topology.name}: {len(statuses)} of {len(topology.nodes)} nodes answer")
    rows = replica_rows(topology, statuses)
    for group in topology.groups:
        own = [row for row in rows if row.group == group.id]
        leader = max((row for row in own if row.leads), key=lambda row: row.term or 0, default=None)
        yield heading(f"{group.id}: " + (f"led by {leader.node}" if leader else "no leader"))
        yield _table(own)


def _table(rows: Sequence[ReplicaRow]) -> Table:
    table = make_table(("node", "zone", "role", "state", "term", "commit", "applied", "lag"), right_from=4)
    for row in rows:
        figures = ["-" if each is None else str(each) for each in (row.term, row.commit, row.applied, row.lag)]
        style = "red" if row.term is None else None
        table.add_row(row.node, row.zone, row.role, row.state, *figures, style=style)
    return table


def to_plain(topology: Topology, statuses: Sequence[NodeStatus], addresses: Mapping[NodeId, str]) -> dict[str, Any]:
    """The status as plain data: where the nodes are, all that they tell, and which of them do not answer."""
    answering = {status.node for status in statuses}
    return {
        "topology": topology.name,
        "addresses": {spec.id: addresses[spec.id] for spec in topology.nodes},
        "nodes": [status_to_plain(status) for status in statuses],
        "unreachable": [spec.id for spec in topology.nodes if spec.id not in answering],
    }
