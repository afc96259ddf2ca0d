"""A replica that receives from a leader, without a cluster: one step and one write at a time."""

import random

from raft_cluster import GROUP, MS
from raft_disk import Disk

from isochrone.ids import Nanos, NodeId, ReplicaRole, StoreId, Term
from isochrone.regions.raft.config import RaftConfig
from isochrone.regions.raft.node import RaftNode
from isochrone.regions.raft.ready import AppendWork
from isochrone.wire.messages import Configuration, InstallSnapshot, Member, RaftMessage, SnapshotChunk

FULL, WITNESS, LEARNER = ReplicaRole.FULL, ReplicaRole.WITNESS, ReplicaRole.LEARNER
TERM = Term(5)
"""Of the leader."""


class Receiver:
    """A learner `l` or a witness `w` whose disk writes when it is told to."""

    def __init__(self, disk: Disk | None = None, name: str = "l") -> None:
        self.disk = disk or Disk()
        members = {"a": FULL, "b": FULL, "l": LEARNER, "w": WITNESS}
        self.configuration = Configuration(
            tuple(Member(NodeId(node), StoreId(node), role) for node, role in members.items())
        )
        self.name = name
        self.works: list[AppendWork] = []
        self.sent: list[RaftMessage] = []
        self.committed: list[int] = []
        self.loads = 0
        self.start()

    def start(self) -> None:
        """Also again: what was not written is lost."""
        config = RaftConfig(
            group=GROUP,
            node=NodeId(self.name),
            heartbeat_ns=Nanos(100 * MS),
            election_timeout_ns=Nanos(1000 * MS),
            truncate_entries_min=4,
        )
        stored = self.disk.load(self.configuration)
        base = stored.applied if self.name == "l" else stored.hard_state.commit
        tail = self.disk.entries[max(0, min(base + 1, stored.last_index) - stored.truncated_index - 1) :]
        self.works.clear()
        self.core = RaftNode(config, stored, tail, store=StoreId(self.name), rng=random.Random(1), now=Nanos(0))

    def step(self, message: RaftMessage) -> None:
        self.core.step(NodeId("a"), message, Nanos(0))
        self.take()

    def take(self) -> None:
        ready = self.core.ready(Nanos(0))
        self.sent.extend(outgoing.message for outgoing in ready.messages)
        if ready.append is not None:
            self.works.append(ready.append)
        self.committed.extend(entry.index for entry in ready.committed)
        if ready.committed:
            self.core.applied(ready.committed[-1].index)
        self.loads += ready.load

    def write(self) -> None:
        """Everything handed out becomes durable."""
        while self.works:
            work = self.works.pop(0)
            self.disk.write(work, None)
            self.core.persisted(work.token, Nanos(0))
            self.sent.extend(outgoing.message for outgoing in work.release)
            self.take()

    def give(self, chunk: SnapshotChunk) -> RaftMessage | None:
        """A chunk, and what is answered once everything is durable."""
        self.sent.clear()
        self.step(InstallSnapshot(TERM, chunk))
        self.write()
        return self.sent[-1] if self.sent else None
