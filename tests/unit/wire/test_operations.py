"""What operators ask crosses to a node whole, and what it answers says whether something may have happened."""

import pytest

from isochrone.errors import (
    STATUS_BY_ERROR,
    Indeterminate,
    InvalidRequest,
    InvariantViolation,
    IsochroneError,
    NotLeader,
)
from isochrone.ids import GroupId, NodeId, ReplicaRole, StoreId
from isochrone.wire.messages import Configuration, Member, QuorumSizes
from isochrone.wire.operations import (
    AddReplica,
    ChangeMembers,
    LeaveJoint,
    MoveLeader,
    Operation,
    decode_operation,
    decode_outcome,
    encode_operation,
    encode_outcome,
)
from isochrone.wire.pack import pack

G = GroupId("g")
MEMBERS = (
    Member(NodeId("a"), StoreId("1"), ReplicaRole.FULL),
    Member(NodeId("b"), StoreId("2"), ReplicaRole.WITNESS),
    Member(NodeId("c"), StoreId("3"), ReplicaRole.LEARNER),
)


@pytest.mark.parametrize(
    "operation",
    [
        AddReplica(G, Configuration(MEMBERS, quorums=QuorumSizes(2, 2))),
        ChangeMembers(G, MEMBERS[1:], (NodeId("a"),)),
        ChangeMembers(G),
        LeaveJoint(G),
        MoveLeader(G, NodeId("b")),
    ],
)
def test_an_operation_comes_back_as_it_was(operation: Operation) -> None:
    assert decode_operation(encode_operation(operation)) == operation


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        pack(7),
        pack(()),
        pack((9, "g")),
        pack((3, 5)),
        pack((3, "g", "more")),
        pack((4, "g")),
        pack((4, "g", 1)),
        pack((2, "g", (), "abc")),
        pack((2, "g", (("a", "1", "king"),), ())),
        pack((2, "g", 5, ())),
        pack((1, "g", "no configuration")),
    ],
)
def test_anything_else_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidRequest, match="malformed operation"):
        decode_operation(data)


def test_success_has_no_error() -> None:
    assert decode_outcome(G, encode_outcome(None)) is None


@pytest.mark.parametrize("cls", [cls for cls in STATUS_BY_ERROR if issubclass(cls, IsochroneError)])
def test_every_error_keeps_its_class_and_text(cls: type[IsochroneError]) -> None:
    error = NotLeader(G, NodeId("b")) if issubclass(cls, NotLeader) else cls("why")
    back = decode_outcome(G, encode_outcome(error))
    assert (type(back), str(back)) == (cls, str(error))
    assert getattr(back, "leader", None) == getattr(error, "leader", None)


@pytest.mark.parametrize(
    "data", [b"", b"\xc1", pack(3), pack(("Unavailable",)), pack((InvariantViolation.__name__, "x", None))]
)
def test_an_answer_that_cannot_be_understood_leaves_everything_open(data: bytes) -> None:
    assert isinstance(decode_outcome(G, data), Indeterminate)
