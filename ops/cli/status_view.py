"""A deployment's status as tables and as plain data. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from isochrone.ids import NS_PER_MS, GroupId, LogIndex, NodeId, RegionId, ReplicaRole, Term, Timestamp, ZoneId
from isochrone.node.members import view_group
from isochrone.ops.cli.kv_view import text
from isochrone.ops.cli.tables import heading, make_table
from isochrone.topology import Group, Topology
from isochrone.wire.status import GroupStatus, NodeStatus, status_to_plain


@dataclass(frozen=True, slots=True)
class ReplicaRow:
    """One replica, as its node tells it."""

    group: GroupId
    node: NodeId
    region: RegionId
    zone: ZoneId
    role: ReplicaRole
    """As the replica says; the topology's while its node is silent."""
    state: str
    """`leads`, `follows`, `elects` (knows no leader) or `silent` (its node does not answer)."""
    term: Term | None
    """This, `commit` and `applied` are None when the node is silent."""
    commit: LogIndex | None
    applied: LogIndex | None
    lag: int | None
    """Entries that it has to apply to reach the highest commit index told. Of a silent node: what it has not
    acknowledged of that, by its leader's word; None if the leader has not heard it either."""
    lag_ms: float | None
    """How much older the newest entry in its log is than the newest one told. Of a silent node likewise."""

    @property
    def leads(self) -> bool:
        """Whether it believes that it leads."""
        return self.state == "leads"


def replica_rows(topology: Topology, statuses: Sequence[NodeStatus]) -> list[ReplicaRow]:
    """One row for each member of each group; where nobody tells the members, for those that the topology names."""
    told = {(status.node, group.group): group for status in statuses for group in status.groups}
    rows = []
    for group in topology.groups:
        replicas = {node: each for (node, name), each in told.items() if name == group.id}
        for node, role in _members(topology, statuses, group):
            spec = topology.node(node)
            own = replicas.get(node)
            lag, lag_ms = _lag(spec.id, replicas)
            rows.append(
                ReplicaRow(
                    group=group.id,
                    node=spec.id,
                    region=spec.region,
                    zone=spec.zone,
                    role=role,
                    state=_state(own, spec.id),
                    term=None if own is None else own.term,
                    commit=None if own is None else own.commit,
                    applied=None if own is None else own.applied,
                    lag=lag,
                    lag_ms=lag_ms,
                )
            )
    return rows


def _members(topology: Topology, statuses: Sequence[NodeStatus], group: Group) -> list[tuple[NodeId, ReplicaRole]]:
    """In the topology's order: by the configuration in force, as far as the topology knows the nodes."""
    members = view_group(topology, statuses, group.id).members
    roles = {each.node: role for each in members if (role := each.role or each.outgoing_role) is not None}
    if not roles:
        return [(replica.node, replica.role) for replica in group.replicas]
    return [(spec.id, roles[spec.id]) for spec in topology.nodes if spec.id in roles]


def _lag(node: NodeId, replicas: Mapping[NodeId, GroupStatus]) -> tuple[int | None, float | None]:
    """How far a replica is behind in entries and in milliseconds, by what the replicas of its group tell."""
    commit = max((each.commit for each in replicas.values()), default=LogIndex(0))
    newest = max((each.last_timestamp for each in replicas.values()), default=Timestamp(0))
    own = replicas.get(node)
    if own is not None:
        return commit - own.applied, (newest - own.last_timestamp) / NS_PER_MS
    leaders = [each for leader, each in replicas.items() if each.leader == leader]
    leader = max(leaders, key=lambda each: each.term, default=None)
    known = next((each for each in leader.members if each.node == node), None) if leader else None
    if known is None or not known.match:
        return None, None
    timestamp = known.match_timestamp
    return max(0, commit - known.match), None if timestamp is None else (newest - timestamp) / NS_PER_MS


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
        prefixes = " ".join(text(each.prefix) for each in topology.keyspaces if each.group == group.id)
        yield heading(f"{group.id}: " + (f"led by {leader.node}" if leader else "no leader") + f"; keys {prefixes}")
        yield _table(own)
        yield from (Text(_lag_in_words(row)) for row in own if row.role is ReplicaRole.LEARNER)
        endpoints = [each.etcd_address for each in statuses if each.etcd_group == group.id and each.etcd_address]
        if endpoints:
            yield Text(f"etcd's API: {','.join(endpoints)}", no_wrap=True)


def _lag_in_words(row: ReplicaRow) -> str:
    """How far a learner is behind, which nobody waits for."""
    silent = " (by its leader's word: its node does not answer)" if row.term is None else ""
    if row.lag is None:
        return f"learner {row.node} in {row.region}: its lag is not known: neither its node nor a leader tells it"
    entries = f"{row.lag} {'entry' if row.lag == 1 else 'entries'}"
    lag = entries if row.lag_ms is None else f"{entries}, {row.lag_ms:.0f} ms"
    return f"learner {row.node} in {row.region}: lags by {lag}{silent}"


def _table(rows: Sequence[ReplicaRow]) -> Table:
    table = make_table(("node", "zone", "role", "state", "term", "commit", "applied", "lag"), right_from=4)
    for row in rows:
        figures = ["-" if each is None else str(each) for each in (row.term, row.commit, row.applied, row.lag)]
        style = "red" if row.term is None else None
        table.add_row(row.node, row.zone, row.role, row.state, *figures, style=style)
    return table


def to_plain(topology: Topology, statuses: Sequence[NodeStatus], addresses: Mapping[NodeId, str]) -> dict[str, Any]:
    """The status as plain data: where the nodes are, all that they tell, the replicas and their lag, who is silent."""
    answering = {status.node for status in statuses}
    return {
        "topology": topology.name,
        "addresses": {spec.id: addresses[spec.id] for spec in topology.nodes},
        "nodes": [status_to_plain(status) for status in statuses],
        "replicas": [asdict(row) for row in replica_rows(topology, statuses)],
        "unreachable": [spec.id for spec in topology.nodes if spec.id not in answering],
    }
