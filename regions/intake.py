"""Which messages of peers a host takes, and when.

Three things can be wrong with a message that arrived whole, and each would undo what the rest of the node relies on:

1. Its sender is not who the group's configuration names: another store under a member's name (a wiped or copied disk),
   or a node that is no member and answers what nobody asked it. Not even its incarnation is noted; that would shut out
   the node whose name it bears. *Requests* of a node that is no member are taken: it may have joined, and even lead, by
   an entry that is not in the log here yet. For the same reason so are those of a store that took the place of a
   member's (`ids.is_later_store`), and those of any store where this node itself is no member: what a replica that was
   removed knows of members is out of date.
2. Its sender has been replaced: a process of a lower incarnation than one seen before is a zombie. A new incarnation is
   held back until it is durable here, so that no restart of ours forgets who the zombies are.
3. Its entries come from too far ahead of this node's clock. They are not taken, and neither are the heartbeats of the
   leader that sent them, so to that leader this node is unreachable: where this happens to a quorum, it is deposed.

HAZARD: a peer takes a zombie's answers until it has heard the new process. Those that rest on a write cannot come, as
one process has the disk; but a leader that is cut off from all but a zombie may confirm by it a read that is stale. The
lock on the data directory keeps two processes from one disk on one machine. Whoever gives a disk to another machine
must see to it that the old process is dead.

The inbox is bounded; what does not fit is dropped, as a network would.
"""

from collections import Counter, deque
from collections.abc import Mapping

from isochrone.clocks.hlc import HybridLogicalClock
from isochrone.errors import ClockUnsynchronized
from isochrone.ids import GroupId, Incarnation, NodeId, StoreId, Timestamp, is_later_store
from isochrone.ports import Clock
from isochrone.probes import probe
from isochrone.wire.messages import (
    AppendRequest,
    AppendResponse,
    Envelope,
    Heartbeat,
    HeartbeatResponse,
    InstallSnapshot,
    Member,
    NodeHeartbeat,
    PeerMessage,
    SnapshotResponse,
    VoteResponse,
)

INBOX_MAX = 65_536
"""Most peer messages that wait for a turn; beyond, new ones are dropped."""

_NONE = Incarnation(0)
_ANSWERS = (AppendResponse, HeartbeatResponse, SnapshotResponse, VoteResponse)


class Intake:
    """The peer messages of one host, from their arrival to its next turn."""

    def __init__(
        self,
        node: NodeId,
        incarnations: Mapping[NodeId, Incarnation],
        clock: Clock,
        hlc: HybridLogicalClock,
        counters: Counter[str],
    ) -> None:
        """`node`: this one. `incarnations` are those that are durable; what is dropped is counted in `counters`."""
        self._node = node
        self.stores: dict[NodeId, StoreId] = {}
        """The store of every node that shares a group with this one; where groups differ, the latest."""
        self.incarnations = dict(incarnations)
        """Highest incarnation seen of each peer."""
        self._durable = dict(incarnations)
        self._not_durable: dict[NodeId, Incarnation] = {}
        self._clock = clock
        self._hlc = hlc
        self._counters = counters
        self._members: dict[GroupId, Mapping[NodeId, Member]] = {}
        self._former: dict[GroupId, dict[NodeId, Member]] = {}
        """Members that were removed. Their answers tell a leader that they know of it."""
        self._inbox: deque[tuple[NodeId, PeerMessage]] = deque()
        self._held: list[Envelope] = []
        self._ahead: dict[GroupId, tuple[NodeId, Timestamp]] = {}
        """Who sent entries from too far ahead last, and from when."""

    def __bool__(self) -> bool:
        """Whether messages wait for a turn."""
        return bool(self._inbox)

    def set_members(self, group: GroupId, members: Mapping[NodeId, Member]) -> None:
        """Take messages of a group from its members, and requests from others."""
        former = self._former.setdefault(group, {})
        former |= self._members.get(group, {})
        if any(former.get(node, member).store != member.store for node, member in members.items()):
            self._forget_former_stores(group, members)
        self._members[group] = members
        # A replica that was removed hears of no store that is replaced, and would shut out its node from other groups.
        known = [each for each in self._members.values() if self._node in each]
        self.stores = {}
        for member in (member for each in known for member in each.values()):
            store = self.stores.setdefault(member.node, member.store)
            if is_later_store(member.store, store):
                self.stores[member.node] = member.store

    def _forget_former_stores(self, group: GroupId, members: Mapping[NodeId, Member]) -> None:
        """A node has come back with another store: what its former one said of itself is not true of this one."""
        former = self._former[group]
        returned = [node for node, member in members.items() if former.get(node, member).store != member.store]
        for node in returned:
            del former[node]
        kept = [(sender, item) for sender, item in self._inbox if not (sender in returned and _is_of(group, item))]
        if len(kept) < len(self._inbox):
            probe("intake.former_store_unheard")
        self._inbox = deque(kept)

    def receive(self, envelope: Envelope) -> None:
        """Keep, hold back or drop what has arrived."""
        if self._is_stranger(envelope):
            self._counters["messages_of_strangers"] += len(envelope.messages)
        elif envelope.incarnation < self.incarnations.get(envelope.sender, _NONE):
            probe("intake.old_incarnation")
            self._counters["messages_of_old_incarnations"] += len(envelope.messages)
        elif envelope.incarnation > self._durable.get(envelope.sender, _NONE):
            self.incarnations[envelope.sender] = self._not_durable[envelope.sender] = envelope.incarnation
            self._held.append(envelope)
        else:
            self._keep(envelope)

    def _is_stranger(self, envelope: Envelope) -> bool:
        store = self.stores.get(envelope.sender)
        if store is None or is_later_store(envelope.store, store):
            return not any(self._is_heard(envelope, item) for item in envelope.messages)
        return store != envelope.store

    def _is_heard(self, envelope: Envelope, item: PeerMessage) -> bool:
        if isinstance(item, NodeHeartbeat):
            return self.stores.get(envelope.sender) == envelope.store
        members = self._members.get(item.group)
        if members is None:
            return False
        member = members.get(envelope.sender)
        if isinstance(item.message, _ANSWERS):
            member = member or self._former[item.group].get(envelope.sender)
            return member is not None and member.store == envelope.store
        if member is None or member.store == envelope.store or self._node not in members:
            return True
        if is_later_store(envelope.store, member.store):
            probe("intake.later_store_heard")
            return True
        return False

    def _keep(self, envelope: Envelope) -> None:
        for item in envelope.messages:
            if not self._is_heard(envelope, item):
                self._counters["messages_of_strangers"] += 1
            elif len(self._inbox) >= INBOX_MAX:
                self._counters["messages_over_the_inbox"] += 1
            else:
                self._inbox.append((envelope.sender, item))

    def not_durable(self) -> dict[NodeId, Incarnation]:
        """The incarnations that are still to be made durable."""
        return dict(self._not_durable)

    def persisted(self, incarnations: Mapping[NodeId, Incarnation]) -> None:
        """These incarnations are durable: what was held back for them may be taken."""
        if not incarnations:
            return
        self._durable.update(incarnations)
        for node, incarnation in incarnations.items():
            if self._not_durable.get(node) == incarnation:
                del self._not_durable[node]
        held, self._held = self._held, []
        for envelope in held:
            if envelope.incarnation == self._durable.get(envelope.sender):
                self._keep(envelope)
            elif envelope.incarnation == self.incarnations[envelope.sender]:
                self._held.append(envelope)

    def take(self) -> list[tuple[NodeId, PeerMessage]]:
        """The messages for this turn, in the order of their arrival."""
        if not self._inbox:
            return []
        inbox, self._inbox = self._inbox, deque()
        return [(sender, item) for sender, item in inbox if not self._ahead_of_clock(sender, item)]

    def _ahead_of_clock(self, sender: NodeId, item: PeerMessage) -> bool:
        if isinstance(item, NodeHeartbeat):
            return False
        match item.message:
            case AppendRequest(entries=entries) if entries:
                timestamp = entries[-1].last_timestamp
            case InstallSnapshot(chunk=chunk):
                timestamp = chunk.timestamp
            case Heartbeat() if item.group in self._ahead and self._ahead[item.group][0] == sender:
                timestamp = self._ahead[item.group][1]
            case _:
                return False
        try:
            latest = self._clock.now().latest
        except ClockUnsynchronized:
            return isinstance(item.message, AppendRequest | InstallSnapshot)
        try:
            self._hlc.observe(timestamp, latest)
        except ClockUnsynchronized:
            self._ahead[item.group] = (sender, timestamp)
            probe("intake.ahead_of_clock")
            self._counters["messages_ahead_of_clock"] += 1
            return True
        self._ahead.pop(item.group, None)
        return False


def _is_of(group: GroupId, item: PeerMessage) -> bool:
    return not isinstance(item, NodeHeartbeat) and item.group == group
