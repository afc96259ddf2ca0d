"""What a node says of itself over the admin channel."""

from dataclasses import asdict, dataclass
from typing import Any

from isochrone.ids import (
    GroupId,
    Incarnation,
    LogIndex,
    NodeId,
    RegionId,
    ReplicaRole,
    StoreId,
    Term,
    Timestamp,
    ZoneId,
)
from isochrone.wire.messages import MAJORITY, QuorumSizes


@dataclass(frozen=True, slots=True)
class MemberStatus:
    """One member of a group, by the configuration in force at the replica that is asked."""

    node: NodeId
    store: StoreId
    role: ReplicaRole | None
    """None: a joint configuration removes it."""
    outgoing_role: ReplicaRole | None
    """What it votes as in the outgoing half of a joint configuration; None: it does not."""
    match: LogIndex | None
    """On the leader: the highest index known to be durable there. A learner lags by what it lacks of `last`."""
    match_timestamp: Timestamp | None = None
    """On the leader: the last timestamp of the entry at `match`, if memory held that when it was acknowledged."""


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
    retained_bytes: int
    """Encoded bytes of the log entries held; at the group's log cap, proposals are refused."""
    match: dict[NodeId, LogIndex]
    """On the leader: the highest index known to be durable on each replica, itself included. Empty elsewhere."""
    relay: bool
    """A witness that leads to feed a full replica and hand over."""
    last_timestamp: Timestamp
    """Of the last entry in its log; 0 for an empty log. Timestamps rise along the log, so by how much this one is
    smaller than the leader's is how far the replica is behind in time."""
    members: tuple[MemberStatus, ...] = ()
    """In order of name."""
    joint: bool = False
    """Between two configurations: both decide."""
    configuration_committed: bool = True
    """Whether the configuration in force is known to be final."""
    quorums: QuorumSizes = MAJORITY
    """Sizes of the quorums of those members that have a role."""


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
    etcd_address: str | None = None
    """`host:port` at which it speaks etcd's API; None if nowhere."""
    etcd_group: GroupId | None = None
    """The group for which it does."""


def status_to_plain(status: NodeStatus) -> dict[str, Any]:
    """As plain types, for msgpack and JSON."""
    return asdict(status)


def status_from_plain(plain: dict[str, Any]) -> NodeStatus:
    """Back from plain types."""
    groups = tuple(_group_from_plain(group) for group in plain.pop("groups"))
    return NodeStatus(**plain, groups=groups)


def _group_from_plain(plain: dict[str, Any]) -> GroupStatus:
    members = tuple(
        MemberStatus(**{**member, **{key: _role(member[key]) for key in ("role", "outgoing_role")}})
        for member in plain["members"]
    )
    known = {"role": ReplicaRole(plain["role"]), "members": members, "quorums": QuorumSizes(**plain["quorums"])}
    return GroupStatus(**{**plain, **known})


def _role(name: str | None) -> ReplicaRole | None:
    return None if name is None else ReplicaRole(name)
