"""Random changes of membership among random faults; then a healed group must converge with nothing lost.

The harness checks all the time that no term has two leaders, that every commit lies on the disks of a quorum of each
half with a full replica among it, and that no witness may drop what a full voter needs.
"""

import random
from collections import Counter

import pytest
from raft_cluster import Cluster
from raft_faults import propose_somewhere, random_fault

from isochrone.errors import IsochroneError
from isochrone.ids import Nanos, NodeId, ReplicaRole, StoreId
from isochrone.wire.configurations import quorum_faults
from isochrone.wire.messages import Member, QuorumSizes

FULL, WITNESS, LEARNER = ReplicaRole.FULL, ReplicaRole.WITNESS, ReplicaRole.LEARNER
SHAPES: dict[str, dict[str, ReplicaRole]] = {
    "one": {"a": FULL},
    "three full": {"a": FULL, "b": FULL, "c": FULL},
    "two full and a witness": {"a": FULL, "b": FULL, "w": WITNESS},
    "four full and a witness": {"a": FULL, "b": FULL, "c": FULL, "d": FULL, "w": WITNESS},
}
REPLICAS_MAX = 9


class Operator:
    """Changes the members of a group at random, at whoever believes to lead it."""

    def __init__(self, cluster: Cluster, rng: random.Random) -> None:
        self._cluster = cluster
        self._rng = rng
        self.done: Counter[str] = Counter()

    def act(self) -> None:
        """Try one change; what the core refuses does not happen."""
        leaders = [n for n, each in self._cluster.replicas.items() if each.core and each.core.status().match]
        if not leaders:
            return
        leader = self._rng.choice(leaders)
        configuration = self._cluster.status(leader).configuration
        if configuration.joint:
            self.leave(leader)
            return
        members = {member.node: member for member in configuration.members}
        for _ in range(self._rng.choice([1, 1, 2, 3])):
            self._edit(members)
        quorums = self._rng.choice([QuorumSizes(), configuration.quorums, self._sizes(members)])
        try:
            self._cluster.change(leader, members.values(), quorums=quorums, auto_leave=self._rng.random() < 0.8)
        except IsochroneError as refusal:
            self.done[f"refused as {type(refusal).__name__}"] += 1
        else:
            self.done["changed"] += 1

    def leave(self, leader: str) -> None:
        core = self._cluster.replicas[leader].core
        assert core is not None
        try:
            core.leave_joint(Nanos(self._cluster.now))
        except IsochroneError:
            return
        self._cluster.drain(leader)
        self.done["left"] += 1

    def _edit(self, members: dict[NodeId, Member]) -> None:
        rng = self._rng
        name = rng.choice(sorted(members)) if members else NodeId("a")
        match rng.randrange(4):
            case 0:
                self._add(members)
            case 1:
                learners = [node for node, member in members.items() if member.role is LEARNER]
                if learners:
                    node = rng.choice(learners)
                    members[node] = Member(node, members[node].store, FULL)
            case 2:
                members.pop(name, None)
            case 3 if name in members and members[name].role is FULL:
                members[name] = Member(name, members[name].store, LEARNER)

    def _add(self, members: dict[NodeId, Member]) -> None:
        """A new replica, or one that was removed, as what it was."""
        roles = self._cluster.roles
        absent = [name for name in roles if name not in members]
        if absent and self._rng.random() < 0.5:
            name = self._rng.choice(absent)
            role = WITNESS if roles[name] is WITNESS else LEARNER
            members[NodeId(name)] = Member(NodeId(name), StoreId(f"store-{name}"), role)
        elif len(roles) < REPLICAS_MAX:
            role = self._rng.choice([LEARNER, LEARNER, WITNESS])
            member = self._cluster.add(f"n{len(roles)}", role)
            members[member.node] = member

    def _sizes(self, members: dict[NodeId, Member]) -> QuorumSizes:
        roles = [member.role for member in members.values()]
        witnesses, voters = roles.count(WITNESS), roles.count(WITNESS) + roles.count(FULL)
        sizes = [QuorumSizes(c, e) for c in range(1, voters + 1) for e in range(1, voters + 1)]
        sound = [size for size in sizes if not list(quorum_faults(size, voters, witnesses))]
        return self._rng.choice(sound or [QuorumSizes()])


def run(shape: str, seed: int) -> Counter[str]:
    rng = random.Random(f"membership/{shape}/{seed}")
    cluster = Cluster(
        SHAPES[shape],
        seed,
        disk_ms=rng.choice([0.1, 5, 60]),
        jitter_ms=rng.choice([0, 2, 80]),
        truncate_entries_min=rng.choice([1, 3]),
        cache_bytes_max=rng.choice([100, 400, 4000]),
        append_bytes_max=rng.choice([100, 1 << 20]),
        inflight_messages_max=rng.choice([2, 128]),
    )
    operator = Operator(cluster, rng)
    for number in range(100):
        cluster.run(rng.choice([5, 30, 50, 400, 1500]))
        if rng.random() < 0.3:
            random_fault(cluster, rng)
        if rng.random() < 0.08:
            _calm(cluster)
            cluster.run(3_000)
        if rng.random() < 0.5:
            operator.act()
        for _ in range(rng.randrange(3)):
            propose_somewhere(cluster, rng, number)
    _finish_change(cluster, operator)
    cluster.settle(120_000)
    cluster.run(1_000)
    cluster.check_nothing_lost()
    assert cluster.chain, "the run did nothing"
    return operator.done


def _calm(cluster: Cluster) -> None:
    cluster.loss = cluster.duplication = 0.0
    cluster.heal()
    for name in list(cluster.hold_disk):
        cluster.resume_disk(name)
    for name, replica in cluster.replicas.items():
        if replica.core is None:
            cluster.start(name)


def _finish_change(cluster: Cluster, operator: Operator) -> None:
    """Heal, and leave a joint configuration that waits for an operator."""
    _calm(cluster)
    for _ in range(60):
        cluster.run(1_000)
        leader = cluster.leader()
        if leader is None:
            continue
        status = cluster.status(leader)
        if status.configuration_committed and not status.configuration.joint:
            return
        if status.configuration.joint:
            operator.leave(leader)
    raise AssertionError("a healed group does not finish its change")


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("seed", range(12))
def test_nothing_is_lost_while_members_come_and_go(shape: str, seed: int) -> None:
    print(f"seed {seed}")
    done = run(shape, seed)
    assert done["changed"], f"no change took place: {done}"
