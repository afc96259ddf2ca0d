"""A group's members as tables and as plain data. Pure."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from isochrone.ids import LogIndex, NodeId, RegionId, ReplicaRole, StoreId, ZoneId
from isochrone.node.members import GroupView, voters_and_quorum
from isochrone.ops.cli.tables import counted, heading, make_table
from isochrone.wire.messages import Member
from isochrone.wire.status import MemberStatus


@dataclass(frozen=True, slots=True)
class MemberRow:
    """One member of a group."""

    node: NodeId
    region: RegionId | None
    """This and the zone are None for a node that the topology does not have."""
    zone: ZoneId | None
    store: StoreId
    role: ReplicaRole | None
    """None: it is leaving."""
    outgoing_role: ReplicaRole | None
    """What it votes as until the joint configuration is left; None outside of one, and for one that joins."""
    state: str
    """`leads`, `follows`, `silent` (its node does not answer) or `lost` (its node answers with another store)."""
    match: LogIndex | None
    """By the leader: the highest index known to be durable there."""
    lag: int | None
    """What it lacks of the leader's log."""


def member_rows(view: GroupView) -> list[MemberRow]:
    """One row for each member, in order of name."""
    places = {spec.id: spec for spec in view.topology.nodes}
    rows = []
    for member in view.members:
        place = places.get(member.node)
        rows.append(
            MemberRow(
                node=member.node,
                region=place.region if place else None,
                zone=place.zone if place else None,
                store=member.store,
                role=member.role,
                outgoing_role=member.outgoing_role,
                state=_state(view, member),
                match=member.match,
                lag=_lag(view, member),
            )
        )
    return rows


def _state(view: GroupView, member: MemberStatus) -> str:
    if member.node not in view.stores:
        return "silent"
    if not view.answers(member):
        return "lost"
    return "leads" if member.node == view.leader else "follows"


def _lag(view: GroupView, member: MemberStatus) -> int | None:
    if view.told is None or member.match is None:
        return None
    return max(0, view.told.last - member.match)


def render_members(view: GroupView) -> Iterator[RenderableType]:
    """The members for people."""
    joint = view.told is not None and view.told.joint
    yield heading(f"{view.group}: " + (f"led by {view.leader}" if view.leader else "no leader"))
    if view.told is None:
        yield Text("no node that answers has a replica of it")
        return
    table = make_table(("node", "zone", "store", "role", "state", "match", "lag"), right_from=5)
    for row in member_rows(view):
        figures = ["-" if each is None else str(each) for each in (row.match, row.lag)]
        style = "red" if row.state in ("silent", "lost") else None
        table.add_row(row.node, row.zone or "?", row.store, _role(row, joint), row.state, *figures, style=style)
    yield table
    yield Text(_summary(view))


def _role(row: MemberRow, joint: bool) -> str:
    role = row.role or "leaves"
    if not joint or row.outgoing_role == row.role:
        return role
    return f"{row.outgoing_role} > {role}" if row.outgoing_role else f"joins > {role}"


def _summary(view: GroupView) -> str:
    assert view.told is not None
    members = [Member(each.node, each.store, each.role) for each in view.members if each.role is not None]
    voters, quorum = voters_and_quorum(members, view.told.quorums)
    text = f"{counted(voters, 'voter')}, of which {quorum} must be left: survives the loss of {voters - quorum}"
    voting = [each for each in view.members if each.role in (ReplicaRole.FULL, ReplicaRole.WITNESS)]
    away = sum(_state(view, each) in ("silent", "lost") for each in voting)
    if away:
        text += f"; {away} away now"
    if view.told.joint:
        text += "; half-way to these members, both halves decide until the joint configuration is left"
    elif not view.told.configuration_committed:
        text += "; not yet known to be committed"
    return text


def members_to_plain(view: GroupView) -> dict[str, Any]:
    """The members as plain data."""
    return {
        "group": view.group,
        "leader": view.leader,
        "term": view.told.term if view.told else None,
        "joint": view.told is not None and view.told.joint,
        "members": [asdict(row) for row in member_rows(view)],
    }
