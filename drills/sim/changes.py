"""What operators do to a world: hand leadership over, take voters out of groups and put them back, replace lost stores.

An operator asks the leader of the moment and takes no for an answer; whatever was asked may still come about, or half
of it. So the world asks again, in the liveness phase, until every group is as its topology has it.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace

from isochrone.drills.convergence import leader_of
from isochrone.drills.sim.loop import SimLoop
from isochrone.drills.sim.machine import Machine
from isochrone.errors import IsochroneError
from isochrone.ids import GroupId, NodeId, ReplicaRole, store_id
from isochrone.ports import StoreIdentity, first_incarnation
from isochrone.regions.host import Host
from isochrone.regions.requests import Done
from isochrone.wire.messages import Configuration, Member

REJOIN_INTERVAL_S = 1.0


class Operator:
    """See the module."""

    def __init__(
        self, loop: SimLoop, machines: Mapping[NodeId, Machine], configurations: Mapping[GroupId, Configuration]
    ) -> None:
        self.counters: Counter[str] = Counter()
        """What was asked, and how it ended."""
        self._loop = loop
        self._machines = machines
        self._configurations = dict(configurations)
        """What each group is to be: the topology's members, with the stores that they have now."""
        self._replacements: Counter[NodeId] = Counter()
        self._changed: dict[GroupId, None] = {}
        """Groups whose members were to be changed."""

    def leader_of(self, group: GroupId) -> Machine | None:
        """The machine that leads a group, as far as the machines themselves know."""
        statuses = [status for machine in self._machines.values() if (status := machine.status()) is not None]
        leader = leader_of(statuses, group)
        return None if leader is None else self._machines[leader]

    def transfer(self, group: GroupId, target: NodeId) -> bool:
        """Ask the leader to hand over to a node; returns whether there was one to ask."""
        return self._ask(
            group, "transfer", lambda host, done: host.administration.transfer_leadership(group, target, done)
        )

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
        return self._remove(group, node)

    def replace_store(self, node: NodeId) -> None:
        """Give a node an empty store in place of the one that is gone, as `node.bootstrap_os` does.

        It takes part in no group with it; `restore` then lets it rejoin.
        """
        self._replacements[node] += 1
        count = self._replacements[node]
        machine = self._machines[node]
        cluster, store = machine.settings.hello.cluster, store_id(f"store-{node}", count)
        machine.give_store(StoreIdentity(cluster, node, store, first_incarnation(count)))
        for group, configuration in self._configurations.items():
            if self._member(group, node) is not None:
                members = [replace(each, store=store) if each.node == node else each for each in configuration.members]
                self._configurations[group] = replace(configuration, members=tuple(members))
                self._changed[group] = None
                self._rejoin(group)

    def _rejoin(self, group: GroupId) -> None:
        """Ask for one step after another until the group is as it is to be."""
        if self.restore_group(group) is not None:
            self._loop.at(self._loop.now_s + REJOIN_INTERVAL_S, self._rejoin, group)

    def restore(self) -> str | None:
        """Ask for the next step towards the members of the topology; what is still to do, or None."""
        waits = [reason for group in list(self._changed) if (reason := self.restore_group(group)) is not None]
        return waits[0] if waits else None

    def restore_group(self, group: GroupId) -> str | None:
        """As `restore`, for one group."""
        leader = self.leader_of(group)
        if leader is None or leader.process is None:
            return f"group {group} has no leader to put its members back"
        configuration = leader.process.host.replicas[group].core.configuration
        current = {member.node: member for member in configuration.members}
        for member in self._configurations[group].members:
            found = current.get(member.node)
            if found == member:
                continue
            joins_as = ReplicaRole.LEARNER if member.role is ReplicaRole.FULL else member.role
            if found is not None and found.store != member.store:
                self._remove(group, member.node)
            elif found is not None:
                self._put(group, "restore", member)
            elif not self._is_elsewhere_with_a_lost_store(member.node):
                self._join(leader.process.host, group, replace(member, role=joins_as))
            return f"{member.node} is not back in group {group} as {member.role}"
        return None

    def _is_elsewhere_with_a_lost_store(self, node: NodeId) -> bool:
        """Whether a group still counts on a store that the node has no longer: then the node is not heard there."""
        for group in self._configurations:
            leader, member = self.leader_of(group), self._member(group, node)
            if member is None:
                continue
            if leader is None or leader.process is None:
                return True
            members = leader.process.host.replicas[group].members
            if node in members and members[node].store != member.store:
                return True
        return False

    def _join(self, leader: Host, group: GroupId, member: Member) -> None:
        """First the replica, then the member: the leader would count on one that is not there."""
        machine, configuration = self._machines[member.node], leader.replicas[group].core.configuration
        if machine.process is not None and group in machine.process.host.replicas:
            self._put(group, "restore", member)
        else:
            joined = Configuration((*configuration.members, member), quorums=configuration.quorums)
            machine.add_replica(group, joined, self._counted("join"))

    def _member(self, group: GroupId, node: NodeId) -> Member | None:
        return next((member for member in self._configurations[group].members if member.node == node), None)

    def _remove(self, group: GroupId, node: NodeId) -> bool:
        return self._ask(
            group, "remove", lambda host, done: host.administration.change_membership(group, remove=[node], done=done)
        )

    def _put(self, group: GroupId, what: str, member: Member) -> bool:
        return self._ask(
            group, what, lambda host, done: host.administration.change_membership(group, put=[member], done=done)
        )

    def _ask(self, group: GroupId, what: str, ask: Callable[[Host, Done], None]) -> bool:
        leader = self.leader_of(group)
        if leader is None or leader.process is None:
            return False

        counted = self._counted(what)
        self._loop.run_in(leader.process.group, ask, leader.process.host, lambda outcome: counted(outcome.error))
        return True

    def _counted(self, what: str) -> Callable[[IsochroneError | None], None]:
        def done(error: IsochroneError | None) -> None:
            self.counters[f"{what}_{type(error).__name__ if error else 'done'}"] += 1

        return done
