"""Node heartbeats: two nodes watch each other for all quiescent groups that they share. Pure; one object per host.

**Theory of operation.** While a group sleeps (`raft.quiescence`), its leader's node and each member's node send each
other one `NodeHeartbeat` per heartbeat interval, however many groups sleep between them. It carries a digest of the
(group, term) pairs that its sender leads asleep with the receiver as a member; the receiver compares it with what it
sleeps under that sender. Links between two nodes keep their order, and a group's own messages leave before the digest
that reflects them, so while nothing is lost the two agree whenever they are compared. What ends the sleep:

- *Silence*: nothing was heard of a node for the smallest election timeout among the groups that sleep with it. All of
  them wake, as if their replicas there had been heard when the node was: followers campaign when they would have
  without sleep, and a leader that hears no quorum of nodes steps down at once. Groups that fell asleep without a
  learner on that node (`Slumber.absent`) sleep on.
- *A new incarnation*: the other process knows nothing of any sleep. All groups that sleep with it wake.
- *A mismatch*: a message was lost, or one side woke without the other's knowledge: a leader that stepped down while
  its followers slept, a follower that never heard the word to sleep. The receiver wakes what it sleeps under the sender
  and says so at once (`mismatch`); the sender wakes all that it leads asleep with the receiver.

Waking too often costs a few heartbeats and nothing else, so no case is told apart further.

Invariants:

1. What is watched here is what the cores say (`RaftNode.slumber`), noted before each digest is compared or sent.
2. A group sleeps only while every node in its `Slumber.watched` was heard within the election timeout, up to the
   lateness of the host's timer.
3. Digests depend on no order: the sum of a hash for each pair, kept as groups fall asleep and wake.

HAZARD: a duplicate or late `NodeHeartbeat` counts as a sign of life, so a link that repeats old ones can delay the
discovery of a death by as long as it holds them back. gRPC streams repeat nothing.

HAZARD: two different sets of equal size have the same 63-bit checksum with negligible but positive probability; a
follower that sleeps by such an accident wakes when its leader's node falls silent, or with the group.
"""

import hashlib
from dataclasses import dataclass, field

from isochrone.ids import GroupId, Nanos, NodeId, Term
from isochrone.probes import probe
from isochrone.regions.raft.ready import Slumber
from isochrone.wire.messages import NodeHeartbeat

_NUMBER_MAX = (1 << 63) - 1


@dataclass(slots=True)
class _Sleepers:
    """Groups that sleep under one node, by the hashes of their (group, term), and the sum of those."""

    hashes: dict[GroupId, int] = field(default_factory=dict)
    checksum: int = 0

    def add(self, group: GroupId, term: Term) -> None:
        digest = hashlib.blake2b(f"{term}/{group}".encode(), digest_size=8).digest()
        self.hashes[group] = hashed = int.from_bytes(digest, "big")
        self.checksum = (self.checksum + hashed) & _NUMBER_MAX

    def discard(self, group: GroupId) -> None:
        self.checksum = (self.checksum - self.hashes.pop(group, 0)) & _NUMBER_MAX

    @property
    def digest(self) -> tuple[int, int]:
        return len(self.hashes), self.checksum


@dataclass(slots=True)
class _Peer:
    """What this node and one other watch each other for."""

    led: _Sleepers = field(default_factory=_Sleepers)
    """Groups that this node leads asleep and the peer belongs to."""
    followed: _Sleepers = field(default_factory=_Sleepers)
    """Groups that sleep here under a leader on the peer."""
    absent: dict[GroupId, None] = field(default_factory=dict)
    """Those of `led` that sleep without the peer, so that its silence is no news to them."""
    heard: Nanos = Nanos(0)
    """When the peer was heard last, or when the first of the groups fell asleep that miss it."""
    beat_at: Nanos = Nanos(0)
    """When to send it the next heartbeat."""
    heartbeat_ns: Nanos = Nanos(0)
    """Smallest interval among the groups that sleep, or slept since all were awake."""
    timeout_ns: Nanos = Nanos(0)
    """Likewise, of their election timeouts."""
    tell_mismatch: bool = False

    @property
    def watched(self) -> bool:
        return bool(self.led.hashes or self.followed.hashes)

    @property
    def missed(self) -> bool:
        """Whether its silence would wake anything."""
        return bool(self.followed.hashes) or len(self.led.hashes) > len(self.absent)  # All of `absent` are led.

    def groups(self) -> list[GroupId]:
        return [*self.led.hashes, *self.followed.hashes]

    def deadline(self) -> Nanos:
        """When it is to be told again, or heard at the latest."""
        return Nanos(min(self.beat_at, self.heard + self.timeout_ns)) if self.missed else self.beat_at


class NodeHeartbeats:
    """See the module. Time is an argument; what a method returns, the host carries out."""

    def __init__(self, node: NodeId) -> None:
        """`node`: the one that this is. No group sleeps yet."""
        self._node = node
        self.slumbers: dict[GroupId, Slumber] = {}
        """The groups that were last noted asleep; changed by `note` only."""
        self._peers: dict[NodeId, _Peer] = {}
        self.deadline: Nanos | None = None
        """When `silent` and `due` are needed next; None while nothing has to be watched or told."""

    def note(self, group: GroupId, slumber: Slumber | None, now: Nanos) -> None:
        """Take what a group's replica says of its sleep: None when it is awake."""
        old = self.slumbers.get(group)
        if old == slumber:
            return
        if old is not None:
            del self.slumbers[group]
            for node in (*old.watched, *old.absent):
                self._sleepers(node, old).discard(group)
                self._peers[node].absent.pop(group, None)
        if slumber is not None:
            self.slumbers[group] = slumber
            for node in (*slumber.watched, *slumber.absent):
                peer = self._peers.setdefault(node, _Peer())
                self._watch(peer, slumber, now)
                if node in slumber.absent:
                    peer.absent[group] = None
                elif not peer.missed:
                    peer.heard = now
                self._sleepers(node, slumber).add(group, slumber.term)

    def _sleepers(self, node: NodeId, slumber: Slumber) -> _Sleepers:
        return self._peers[node].led if slumber.leader == self._node else self._peers[node].followed

    def _watch(self, peer: _Peer, slumber: Slumber, now: Nanos) -> None:
        if peer.watched:
            peer.heartbeat_ns = min(peer.heartbeat_ns, slumber.heartbeat_ns)
            peer.timeout_ns = min(peer.timeout_ns, slumber.election_timeout_ns)
        else:
            peer.heartbeat_ns, peer.timeout_ns = slumber.heartbeat_ns, slumber.election_timeout_ns
            peer.beat_at = now
        self._look_at(now)

    def receive(self, sender: NodeId, message: NodeHeartbeat, now: Nanos) -> list[GroupId]:
        """Take a heartbeat of another node. Returns the groups to wake."""
        peer = self._peers.setdefault(sender, _Peer())
        peer.heard = now
        woken: list[GroupId] = []
        if (message.count, message.checksum) != peer.followed.digest:
            probe("quiescence.mismatch")
            woken.extend(peer.followed.hashes)
            if message.count:
                peer.tell_mismatch = True
                self._look_at(now)
        if message.mismatch:
            probe("quiescence.told_of_mismatch")
            woken.extend(peer.led.hashes)
        return woken

    def restarted(self, node: NodeId) -> list[GroupId]:
        """A new process of `node` has been heard. Returns the groups to wake."""
        peer = self._peers.get(node)
        if peer is None or not peer.watched:
            return []
        probe("quiescence.peer_restarted")
        return peer.groups()

    def silent(self, now: Nanos) -> list[GroupId]:
        """The groups to wake because a node was not heard for too long."""
        woken: list[GroupId] = []
        for peer in self._peers.values():
            if peer.missed and now - peer.heard >= peer.timeout_ns:
                probe("quiescence.peer_silent")
                woken.extend(group for group in peer.groups() if group not in peer.absent)
        return woken

    def due(self, now: Nanos) -> list[tuple[NodeId, NodeHeartbeat]]:
        """The heartbeats to send now, after all messages of groups that have gathered."""
        beats = []
        for node, peer in self._peers.items():
            beats_now = peer.watched and peer.beat_at <= now
            if beats_now:
                # On multiples of the interval, so that a node's peers hear it, and miss it, at the same time.
                peer.beat_at = Nanos((now // peer.heartbeat_ns + 1) * peer.heartbeat_ns)
            if beats_now or peer.tell_mismatch:
                beats.append((node, NodeHeartbeat(*peer.led.digest, peer.tell_mismatch)))
                peer.tell_mismatch = False
        times = [peer.deadline() for peer in self._peers.values() if peer.watched]
        self.deadline = min(times) if times else None
        return beats

    def _look_at(self, time: Nanos) -> None:
        self.deadline = time if self.deadline is None else min(self.deadline, time)

    def heard(self, node: NodeId) -> Nanos:
        """When a node was heard last; a node that was never watched, at 0."""
        peer = self._peers.get(node)
        return peer.heard if peer is not None else Nanos(0)
