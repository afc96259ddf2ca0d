"""What a node says of itself over the admin channel."""

from dataclasses import asdict, dataclass
from typing import Any

from isochrone.ids import GroupId, Incarnation, LogIndex, NodeId, RegionId, ReplicaRole, StoreId, Term, ZoneId


@dataclass(frozen=True, slots=True)
class GroupStatus:
    """One replica's view of its group."""

    group: GroupId
    role: ReplicaRole
    leader: NodeId | None
    """Who leads, as far as this replica knows."""
    term: Term
    commit: LogIndex
    applied: LogIndex
    """Equal to `commit` on a witness, which applies nothing."""
    first: LogIndex
    """First index still held in the log."""
    last: LogIndex
    match: dict[NodeId, LogIndex]
    """On the leader: the highest index known to be durable on each replica, itself included. Empty elsewhere."""
    relay: bool
    """A witness that leads to feed a full replica and hand over."""


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """One node."""

    node: NodeId
    region: RegionId
    zone: ZoneId
    store: StoreId
    incarnation: Incarnation
    pid: int
    groups: tuple[GroupStatus, ...]
    counters: dict[str, int]
    """Messages dropped and why, commits, batches, shaper lateness in microseconds, and the like."""


def status_to_plain(status: NodeStatus) -> dict[str, Any]:
    """As plain types, for msgpack and JSON."""
    return asdict(status)


def status_from_plain(plain: dict[str, Any]) -> NodeStatus:
    """Back from plain types."""
    groups = tuple(GroupStatus(**{**group, "role": ReplicaRole(group["role"])}) for group in plain.pop("groups"))
    return NodeStatus(**plain, groups=groups)
