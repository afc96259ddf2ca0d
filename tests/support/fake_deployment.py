"""A deployment that is only bookkeeping, for tests of the drill runner in virtual time.

Each group keeps its data in one dictionary and has a leader while some full voter is connected to a quorum; a group
that lost its leader gets a new one `election_s` later. Calls take the round trip and the quorum's. `losing` plants a
fault: each newly elected leader forgets the newest acknowledged write.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from isochrone.client.results import ReadResult, WriteResult
from isochrone.errors import DeadlineExceeded
from isochrone.ids import (
    GroupId,
    Incarnation,
    LogIndex,
    NodeId,
    RegionId,
    ReplicaRole,
    Revision,
    StoreId,
    Term,
    Timestamp,
    ZoneId,
)
from isochrone.topology import Group, Topology
from isochrone.topology.predict import predicted_commit_ms
from isochrone.wire.shaping import LinkShape
from isochrone.wire.status import GroupStatus, NodeStatus

Links = Mapping[tuple[ZoneId, ZoneId], LinkShape]
SOFTWARE_S = 0.003


@dataclass
class _GroupState:
    leader: NodeId | None
    term: int = 1
    lost_at_s: float | None = None
    index: int = 1
    data: dict[bytes, bytes] = field(default_factory=dict)
    newest: bytes | None = None


class FakeDeployment:
    """Stands for `node.deployment.Deployment`."""

    def __init__(self, topology: Topology, *, election_s: float = 2.0, losing: bool = False) -> None:
        self.topology = topology
        self.directory = Path("nowhere")
        self.addresses = {node.id: f"fake:{number}" for number, node in enumerate(topology.nodes)}
        self.links = dict(topology.links())
        self.down: set[NodeId] = set()
        self.paused: set[NodeId] = set()
        self.calls: list[str] = []
        self.stopped = False
        self.never_heals = False
        self.silent: frozenset[NodeId] = frozenset()
        """Nodes that do not take links, although they are not paused."""
        self.starts = dict.fromkeys(self.addresses, 1)
        self.election_s = election_s
        self.losing = losing
        self.states = {group.id: _GroupState(group.replicas[0].node) for group in topology.groups}

    async def status(self) -> tuple[NodeStatus, ...]:
        return tuple(self._status(node) for node in (each.id for each in self.topology.nodes) if self._answers(node))

    def _answers(self, node: NodeId) -> bool:
        return node not in self.down | self.paused

    def _status(self, node: NodeId) -> NodeStatus:
        spec = self.topology.node(node)
        groups = []
        for group in self.topology.groups:
            role = next((replica.role for replica in group.replicas if replica.node == node), None)
            if role is not None:
                groups.append(self._group_status(group, node, role))
        return NodeStatus(
            node, spec.region, spec.zone, StoreId("s"), Incarnation(self.starts[node]), 1, tuple(groups), {}
        )

    def _group_status(self, group: Group, node: NodeId, role: ReplicaRole) -> GroupStatus:
        self.leader_of(group)
        state = self.states[group.id]
        behind = 1 if self.never_heals and node != state.leader else 0
        index = LogIndex(state.index - behind)
        return GroupStatus(
            group=group.id,
            role=role,
            leader=state.leader,
            term=Term(state.term),
            commit=index,
            applied=index,
            first=LogIndex(1),
            last=LogIndex(state.index),
            retained_bytes=0,
            match={},
            relay=False,
            last_timestamp=Timestamp(index),
        )

    async def kill_node(self, node: NodeId) -> None:
        self.calls.append(f"kill {node}")
        self.down.add(node)

    async def start_node(self, node: NodeId) -> None:
        self.calls.append(f"start {node}")
        self._start([node])

    def _start(self, nodes: list[NodeId]) -> None:
        for node in self.down.intersection(nodes):
            self.starts[node] += 1
        self.down.difference_update(nodes)

    async def pause_node(self, node: NodeId) -> None:
        self.calls.append(f"pause {node}")
        self.paused.add(node)

    async def resume_node(self, node: NodeId) -> None:
        self.calls.append(f"resume {node}")
        self.paused.discard(node)

    async def set_links(self, links: Links) -> frozenset[NodeId]:
        cut = sum(1 for shape in links.values() if shape.cut)
        self.calls.append(f"links, {cut} cut")
        self.links.update(links)
        return self.silent | self.paused

    async def kill_region(self, region: RegionId) -> None:
        self.calls.append(f"kill {region}")
        self.down.update(node.id for node in self.topology.nodes if node.region == region)

    async def start_region(self, region: RegionId) -> None:
        self.calls.append(f"start {region}")
        self._start([node.id for node in self.topology.nodes if node.region == region])

    async def stop(self) -> None:
        self.stopped = True

    def connected(self, source: ZoneId, target: ZoneId) -> bool:
        return source == target or not (self.links[source, target].cut or self.links[target, source].cut)

    def leader_of(self, group: Group) -> NodeId | None:
        """The leader now; elections happen on the way."""
        state = self.states[group.id]
        now_s = asyncio.get_running_loop().time()
        if state.leader is not None and self._has_quorum(group, state.leader):
            state.lost_at_s = None
            return state.leader
        if state.lost_at_s is None:
            state.lost_at_s = now_s
        if now_s - state.lost_at_s < self.election_s:
            return None
        able = [replica.node for replica in group.replicas if self._has_quorum(group, replica.node)]
        if not able:
            return None
        state.leader, state.term, state.lost_at_s = able[0], state.term + 1, None
        if self.losing and state.newest is not None:
            state.data.pop(state.newest, None)
        return state.leader

    def _has_quorum(self, group: Group, node: NodeId) -> bool:
        if not self._answers(node):
            return False
        zone = self.topology.node(node).zone
        heard = [
            replica
            for replica in group.replicas
            if self._answers(replica.node) and self.connected(zone, self.topology.node(replica.node).zone)
        ]
        return len(heard) >= group.survivors_needed()


class FakeClient:
    """Stands for the SDK's client."""

    def __init__(self, deployment: FakeDeployment, zone: ZoneId) -> None:
        self.deployment = deployment
        self.zone = zone
        self.sequence = 0
        self.closed = False

    async def put(self, key: bytes, value: bytes, *, timeout_s: float | None = None) -> WriteResult:
        def apply(data: dict[bytes, bytes]) -> tuple[bool, bytes | None]:
            data[key] = value
            return True, None

        return await self._write(key, apply, timeout_s)

    async def delete(self, key: bytes, *, timeout_s: float | None = None) -> WriteResult:
        return await self._write(key, lambda data: (data.pop(key, None) is not None, None), timeout_s)

    async def compare_and_set(
        self, key: bytes, expected: bytes | None, value: bytes | None, *, timeout_s: float | None = None
    ) -> WriteResult:
        def apply(data: dict[bytes, bytes]) -> tuple[bool, bytes | None]:
            found = data.get(key)
            if found != expected:
                return False, found
            assert value is not None
            data[key] = value
            return True, None

        return await self._write(key, apply, timeout_s)

    async def get(self, key: bytes, *, timeout_s: float | None = None) -> ReadResult:
        group, leader = await self._reach(key, timeout_s)
        return ReadResult(
            key=key,
            value=self.deployment.states[group].data.get(key),
            create_revision=Revision(0),
            mod_revision=Revision(0),
            version=0,
            timestamp=Timestamp(0),
            revision=Revision(0),
            group=group,
            replica=leader,
        )

    async def close(self) -> None:
        self.closed = True

    async def _write(
        self,
        key: bytes,
        apply: Callable[[dict[bytes, bytes]], tuple[bool, bytes | None]],
        timeout_s: float | None,
    ) -> WriteResult:
        group, leader = await self._reach(key, timeout_s)
        state = self.deployment.states[group]
        succeeded, previous = apply(state.data)
        state.index += 1
        if b"insert/" in key:
            state.newest = key
        self.sequence += 1
        return WriteResult(
            succeeded=succeeded,
            previous=previous,
            revision=Revision(state.index),
            timestamp=Timestamp(0),
            group=group,
            replica=leader,
            session=1,
            sequence=self.sequence,
        )

    async def _reach(self, key: bytes, timeout_s: float | None) -> tuple[GroupId, NodeId]:
        """Wait as long as a call takes; the group and its leader. Raises `DeadlineExceeded`."""
        deployment, topology = self.deployment, self.deployment.topology
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + (timeout_s or 10.0)
        keyspace = next(each for each in topology.keyspaces if key.startswith(each.prefix))
        group = topology.group(keyspace.group)
        while loop.time() < deadline_s:
            leader = deployment.leader_of(group)
            if leader is not None and deployment.connected(self.zone, topology.node(leader).zone):
                shaped = any(shape.delay_ms for shape in deployment.links.values())
                wire_ms = predicted_commit_ms(topology, group, self.zone, leader) if shaped else 0.0
                await asyncio.sleep(wire_ms / 1e3 + SOFTWARE_S)
                if deployment.leader_of(group) == leader:
                    return group.id, leader
            await asyncio.sleep(0.05)
        raise DeadlineExceeded("no answer")


class FakeHarness:
    """Stands for `drills.runner.Harness`."""

    def __init__(self, deployment: FakeDeployment) -> None:
        self.deployment = deployment
        self.clients: list[FakeClient] = []
        self.client_links: list[Links] = []

    async def bring_up(self, progress: Callable[[str], None]) -> FakeDeployment:
        progress("up")
        return self.deployment

    async def connect(self, deployment: object, region: RegionId, zone: ZoneId) -> FakeClient:
        assert deployment is self.deployment
        self.clients.append(FakeClient(self.deployment, zone))
        return self.clients[-1]

    def set_links(self, links: Links) -> None:
        self.client_links.append(dict(links))
