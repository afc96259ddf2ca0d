"""Where a key lives, and who leads its group.

The directory maps key ranges to groups; prefixes never overlap, so at most one holds a key. Members of a group come and
go: its nodes tell by a version which of them knows the newest, and a client asks who does. A client's view of a
group's leader is made of `LeaderChanged` messages from any of the group's nodes, which arrive in any order.

Invariants of a view:
1. Its term never falls.
2. Within a term a node's word on itself beats hearsay: who says that it leads is believed over others, and who says
   that it leads no longer is not believed to lead that term again, whoever may still say so.
3. A node leads no longer only if it has itself said before that it led. What others say of a node may arrive before
   what it said of itself as a candidate, which would else be taken for its resignation, for the rest of the term.

A view is only a hint where to send: a wrong one costs a refusal, never correctness.

This module is pure.
"""

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass, replace

from isochrone.errors import InvalidRequest
from isochrone.ids import GroupId, KeyspaceId, NodeId, RegionId, ReplicaRole, Term, ZoneId
from isochrone.probes import probe
from isochrone.wire.session import KeyspaceRoute, LeaderChanged


@dataclass(frozen=True, slots=True)
class Replica:
    """A node that holds a replica of a group."""

    node: NodeId
    address: str
    region: RegionId
    zone: ZoneId
    role: ReplicaRole


@dataclass(frozen=True, slots=True)
class Route:
    """One keyspace, its group and the group's replicas."""

    keyspace: KeyspaceId
    prefix: bytes
    group: GroupId
    replicas: tuple[Replica, ...]
    version: int
    """Higher is newer; see `KeyspaceRoute`."""


class Directory:
    """The routes of all keyspaces: those that one node told, save where another one has told newer ones."""

    def __init__(self, routes: Iterable[KeyspaceRoute]) -> None:
        self._told = tuple(routes)
        self._routes = sorted((_route(route) for route in self._told), key=lambda route: route.prefix)
        self._prefixes = [route.prefix for route in self._routes]
        self._versions = {route.group: route.version for route in self._told}

    def updated(self, routes: Iterable[KeyspaceRoute]) -> "Directory":
        """What a node has told now, but for the keyspaces of which this directory knows a newer route."""
        known = {route.keyspace: route for route in self._told}
        pairs = ((route, known.get(route.keyspace, route)) for route in routes)
        return Directory(max(pair, key=lambda route: route.version) for pair in pairs)

    def is_outdated(self, change: LeaderChanged) -> bool:
        """Whether who told this knows newer replicas of a group that keyspaces use."""
        return change.group in self._versions and change.version > self._versions[change.group]

    @property
    def prefixes(self) -> tuple[bytes, ...]:
        """The prefixes of all keyspaces, in order."""
        return tuple(self._prefixes)

    def find(self, key: bytes) -> Route:
        """The route of a key.

        Raises:
            InvalidRequest: the key lies in no keyspace. The text names the prefixes that exist.
        """
        # No prefix begins another one, so every prefix of the key is the largest that does not sort after it.
        position = bisect_right(self._prefixes, key) - 1
        if position >= 0 and key.startswith(self._prefixes[position]):
            return self._routes[position]
        known = ", ".join(_text(prefix) for prefix in self._prefixes) or "none"
        raise InvalidRequest(f"key {_text(key[:100])} lies in no keyspace; known prefixes: {known}")

    def replicas(self, group: GroupId) -> tuple[Replica, ...]:
        """The replicas of a group; empty for a group that no keyspace uses."""
        return next((route.replicas for route in self._routes if route.group == group), ())


@dataclass(frozen=True, slots=True)
class LeaderView:
    """What a client knows of a group's leader. `leader` is None while none is known for the term."""

    term: Term = Term(0)
    leader: NodeId | None = None
    resigned: NodeId | None = None
    """Who led the term and said that it leads no longer."""
    confirmed: bool = False
    """The leader has said itself that it leads."""

    def observe(self, change: LeaderChanged, source: NodeId) -> "LeaderView":
        """The view after `source` told `change`. The same object when nothing new was told."""
        leader = change.leader
        confirmed = leader == source
        if change.term > self.term:
            return LeaderView(change.term, leader, confirmed=confirmed)
        if change.term < self.term:
            return self
        if leader == self.leader:
            return replace(self, confirmed=True) if confirmed and not self.confirmed else self
        if leader is None:
            if source != self.leader:
                return self
            if not self.confirmed:
                probe("client.candidate_heard_late")
                return LeaderView(self.term, None, self.resigned)
            return LeaderView(self.term, None, resigned=source)
        if leader != self.resigned and (self.leader is None or confirmed):
            return LeaderView(self.term, leader, self.resigned, confirmed)
        return self


def _route(route: KeyspaceRoute) -> Route:
    replicas = tuple(
        Replica(node, address, RegionId(region), ZoneId(zone), ReplicaRole(role))
        for node, address, region, zone, role in route.replicas
    )
    return Route(route.keyspace, route.prefix, route.group, replicas, route.version)


def _text(data: bytes) -> str:
    return repr(data.decode(errors="backslashreplace"))
