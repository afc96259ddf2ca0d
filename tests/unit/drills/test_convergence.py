"""When all replicas match, and what is said when they do not."""

from dataclasses import replace

from isochrone.drills.convergence import leader_of, mismatch
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
from isochrone.topology import ClockSpec, Group, NodeSpec, Ordering, Replica, SurvivalGoal, Topology
from isochrone.wire.status import GroupStatus, NodeStatus

NODES = [NodeId("a"), NodeId("b"), NodeId("c")]
GROUP = GroupId("g")
TOPOLOGY = Topology(
    name="t",
    latencies="none",
    regions=(),
    nodes=tuple(NodeSpec(node, RegionId("r"), ZoneId("z"), None) for node in NODES),
    keyspaces=(),
    groups=(
        Group(
            GROUP,
            RegionId("r"),
            SurvivalGoal.ZONE,
            Ordering.LINEARIZABLE,
            tuple(Replica(node, ReplicaRole.FULL) for node in NODES),
            100,
            1000,
        ),
    ),
    clock=ClockSpec("bound", 1.0, 500.0),
    shapes={},
)


def status(node: NodeId, **changes: object) -> NodeStatus:
    group = GroupStatus(
        GROUP,
        ReplicaRole.FULL,
        NODES[0],
        Term(3),
        LogIndex(9),
        LogIndex(9),
        LogIndex(1),
        LogIndex(9),
        0,
        {},
        relay=False,
        last_timestamp=Timestamp(9),
    )
    return NodeStatus(
        node,
        RegionId("r"),
        ZoneId("z"),
        StoreId("s"),
        Incarnation(1),
        1,
        (replace(group, **changes),),  # type: ignore[arg-type]
        {},
    )


def test_all_match() -> None:
    assert mismatch(TOPOLOGY, [status(node) for node in NODES]) is None


def test_silent_node() -> None:
    assert mismatch(TOPOLOGY, [status(node) for node in NODES[:2]]) == "c gave no status"


def test_no_leader() -> None:
    assert mismatch(TOPOLOGY, [status(node, leader=None) for node in NODES]) == "group g has no leader"


def test_follower_behind_in_log_commit_or_application() -> None:
    for field in ("last", "commit", "applied"):
        text = mismatch(TOPOLOGY, [*map(status, NODES[:2]), status(NODES[2], **{field: LogIndex(8)})])
        assert text is not None and text.startswith("c holds entries of group g up to")


def test_leader_that_has_not_committed_its_log() -> None:
    statuses = [status(node, last=LogIndex(10)) for node in NODES]
    assert mismatch(TOPOLOGY, statuses) is not None


def test_follower_of_another_term_or_leader() -> None:
    for changes in ({"term": Term(2)}, {"leader": NODES[1]}):
        text = mismatch(TOPOLOGY, [*map(status, NODES[:2]), status(NODES[2], **changes)])
        assert text == "c does not follow a, the leader of group g"


def test_newest_of_two_that_claim_to_lead() -> None:
    old = status(NODES[1], leader=NODES[1], term=Term(2))
    assert leader_of([old, status(NODES[0])], GROUP) == NODES[0]
    assert leader_of([status(NODES[1])], GROUP) is None
