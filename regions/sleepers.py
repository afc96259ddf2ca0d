"""The quiescent groups of a host: carries words between its cores and its node heartbeats (`node_heartbeats`)."""

from collections.abc import Callable, Iterable, Mapping

from isochrone.ids import GroupId, Nanos, NodeId
from isochrone.regions.node_heartbeats import NodeHeartbeats
from isochrone.regions.replica import Replica
from isochrone.wire.messages import NodeHeartbeat


class Sleepers:
    """See the module. `woken` is called for each group whose core was touched."""

    def __init__(self, node: NodeId, replicas: Mapping[GroupId, Replica], woken: Callable[[GroupId], None]) -> None:
        """`replicas` are those of the host, which may come and go."""
        self._heartbeats = NodeHeartbeats(node)
        self._replicas = replicas
        self._woken = woken

    def earliest(self, deadline: Nanos | None) -> Nanos | None:
        """`deadline`, or if that is sooner, when nodes have to be heard or told again."""
        own = self._heartbeats.deadline
        return deadline if own is None or (deadline is not None and deadline < own) else own

    def note(self, group: GroupId, now: Nanos) -> None:
        """A group's core has been touched: take from it whether it sleeps."""
        core = self._replicas[group].core
        if core.quiescent or group in self._heartbeats.slumbers:
            self._heartbeats.note(group, core.slumber, now)

    def receive(self, sender: NodeId, heartbeat: NodeHeartbeat, touched: Iterable[GroupId], now: Nanos) -> None:
        """Take a heartbeat. It speaks of what the messages before it led to, so they count: groups `touched` since."""
        for group in touched:
            self.note(group, now)
        self._wake(self._heartbeats.receive(sender, heartbeat, now), now)

    def restarted(self, nodes: Iterable[NodeId], now: Nanos) -> None:
        """New processes of these nodes have been heard, and that is durable."""
        for node in nodes:
            self._wake(self._heartbeats.restarted(node), now)

    def wake_for_work(self, replica: Replica, now: Nanos) -> None:
        """A replica's clients want something: if it sleeps, wake it with what is known of the other nodes.

        It would wake by itself, but give a quorum that it may have lost a whole timeout to answer.
        """
        if replica.core.quiescent:
            replica.core.wake(now, self._heartbeats.heard)

    def wake_if_silent(self, now: Nanos) -> None:
        """Wake the groups that sleep with a node which was not heard for too long."""
        deadline = self._heartbeats.deadline
        if deadline is not None and deadline <= now:
            self._wake(self._heartbeats.silent(now), now)

    def heartbeats(self, now: Nanos) -> list[tuple[NodeId, NodeHeartbeat]]:
        """What to send now, after everything that the touched groups send."""
        deadline = self._heartbeats.deadline
        return self._heartbeats.due(now) if deadline is not None and deadline <= now else []

    def _wake(self, groups: Iterable[GroupId], now: Nanos) -> None:
        for group in groups:
            self._replicas[group].core.wake(now, self._heartbeats.heard)
            self._woken(group)
