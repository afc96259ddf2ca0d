"""What operators do to a world: hand leadership over, and take voters out of groups and put them back.

An operator asks the leader of the moment and takes no for an answer; whatever was asked may still come about, or half
of it. So the world asks again, in the liveness phase, until every group is as its topology has it.
"""

from collections import Counter
from collections.abc import Callable, Mapping

from isochrone.drills.convergence import leader_of
from isochrone.drills.sim.loop import SimLoop
from isochrone.drills.sim.machine import Machine
from isochrone.ids import GroupId, NodeId, ReplicaRole
from isochrone.regions.host import Host
from isochrone.regions.replica import Outcome
from isochrone.wire.messages import Configuration, Member


class Operator:
    """See the module."""

    def __init__(
        self, loop: SimLoop, machines: Mapping[NodeId, Machine], configurations: Mapping[GroupId, Configuration]
    ) -> None:
        self.counters: Counter[str] = Counter()
        """What was asked, and how it ended."""
        self._loop = loop
        self._machines = machines
        self._configurations = configurations
        self._changed: dict[GroupId, None] = {}
        """Groups whose members were to be changed."""

    def leader_of(self, group: GroupId) -> Machine | None:
        """The machine that leads a group, as far as the machines themselves know."""
        statuses = [status for machine in self._machines.values() if (status := machine.status()) is not None]
        leader = leader_of(statuses, group)
        return None if leader is None else self._machines[leader]

    def transfer(self, group: GroupId, target: NodeId) -> bool:
        """Ask the leader to hand over to a node; returns whether there was one to ask."""
        return self._ask(group, "transfer", lambda host, done: host.transfer_leadership(group, target, done))

    def demote(self, group: GroupId, node: NodeId) -> bool:
        """Ask that a full voter become a learner."""
        member = self._member(group, node)
        if member is None or member.role is not ReplicaRole.FULL:
            return False
        self._changed[group] = None
        return self._put(group, "demote", Member(member.node, member.store, ReplicaRole.LEARNER))

    def remove(self, group: GroupId, node: NodeId) -> bool:
        """Ask that a voter leave the group."""
        member = self._member(group, node)
        if member is None or member.role is ReplicaRole.LEARNER:
            return False
        self._changed[group] = None
        return self._ask(group, "remove", lambda host, done: host.change_membership(group, remove=[node], done=done))

    def restore(self) -> str | None:
        """Ask for the next step towards the members of the topology; what is still to do, or None."""
        waits = [reason for group in list(self._changed) if (reason := self.restore_group(group)) is not None]
        return waits[0] if waits else None

    def restore_group(self, group: GroupId) -> str | None:
        """As `restore`, for one group."""
        leader = self.leader_of(group)
        if leader is None or leader.process is None:
            return f"group {group} has no leader to put its members back"
        current = {member.node: member for member in leader.process.host.replicas[group].core.configuration.members}
        for member in self._configurations[group].members:
            found = current.get(member.node)
            if found == member:
                continue
            joins_as = ReplicaRole.LEARNER if member.role is ReplicaRole.FULL else member.role
            role = member.role if found is not None else joins_as
            self._put(group, "restore", Member(member.node, member.store, role))
            return f"{member.node} is not back in group {group} as {member.role}"
        return None

    def _member(self, group: GroupId, node: NodeId) -> Member | None:
        return next((member for member in self._configurations[group].members if member.node == node), None)

    def _put(self, group: GroupId, what: str, member: Member) -> bool:
        return self._ask(group, what, lambda host, done: host.change_membership(group, put=[member], done=done))

    def _ask(self, group: GroupId, what: str, ask: Callable[[Host, Callable[[Outcome], None]], None]) -> bool:
        leader = self.leader_of(group)
        if leader is None or leader.process is None:
            return False

        def done(outcome: Outcome) -> None:
            self.counters[f"{what}_{type(outcome.error).__name__ if outcome.error else 'done'}"] += 1

        self._loop.run_in(leader.process.group, ask, leader.process.host, done)
        return True
