"""A status survives its way over the admin channel."""

import msgpack

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
from isochrone.wire.messages import QuorumSizes
from isochrone.wire.pack import pack
from isochrone.wire.status import GroupStatus, MemberStatus, NodeStatus, status_from_plain, status_to_plain


def test_a_status_is_read_back_with_the_members_of_a_joint_configuration() -> None:
    leaving = MemberStatus(NodeId("a"), StoreId("s"), None, ReplicaRole.WITNESS, LogIndex(3), Timestamp(5))
    joining = MemberStatus(NodeId("b"), StoreId("t"), ReplicaRole.LEARNER, None, None)
    index = LogIndex(7)
    group = GroupStatus(
        GroupId("g"),
        ReplicaRole.FULL,
        NodeId("a"),
        Term(2),
        index,
        index,
        index,
        index,
        0,
        match={NodeId("a"): index},
        relay=False,
        last_timestamp=Timestamp(9),
        members=(leaving, joining),
        joint=True,
        configuration_committed=False,
        quorums=QuorumSizes(2, 4),
    )
    status = NodeStatus(
        NodeId("a"),
        RegionId("r"),
        ZoneId("z"),
        StoreId("s"),
        Incarnation(1),
        1,
        (group,),
        {"counter": 1},
        etcd_address="127.0.0.1:2379",
        etcd_group=GroupId("g"),
    )
    assert status_from_plain(msgpack.unpackb(pack(status_to_plain(status)))) == status
