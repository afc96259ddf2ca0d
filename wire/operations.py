"""What operators ask of a node about its groups, and how that ends; pure, for the admin channel.

A request is a msgpack array `[tag, group, field, …]`. The answer is nil where it was done, and otherwise
`[class, text, leader]`: the class is one of `isochrone.errors`, and says whether something may have happened.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import msgpack

from isochrone.errors import ERROR_BY_NAME, Indeterminate, InvalidRequest, IsochroneError, NotLeader
from isochrone.ids import GroupId, NodeId
from isochrone.wire.configurations import (
    configuration_from_plain,
    configuration_to_plain,
    members_from_plain,
    members_to_plain,
)
from isochrone.wire.messages import Configuration, Member
from isochrone.wire.pack import pack


@dataclass(frozen=True, slots=True)
class AddReplica:
    """Make an empty replica of a group on the node that is asked, for its leader to feed."""

    group: GroupId
    configuration: Configuration
    """The group's, with the store of the node that is asked as a learner or a witness in it."""


@dataclass(frozen=True, slots=True)
class ChangeMembers:
    """Asks the leader of a group to change who belongs to it."""

    group: GroupId
    put: tuple[Member, ...] = ()
    """Members to be added, or to have another role."""
    remove: tuple[NodeId, ...] = ()


@dataclass(frozen=True, slots=True)
class LeaveJoint:
    """Asks the leader of a group to end a joint configuration."""

    group: GroupId


@dataclass(frozen=True, slots=True)
class MoveLeader:
    """Asks the leader of a group to hand over to a full voter."""

    group: GroupId
    target: NodeId


Operation = AddReplica | ChangeMembers | LeaveJoint | MoveLeader


def encode_operation(operation: Operation) -> bytes:
    """A request as bytes."""
    match operation:
        case AddReplica(group, configuration):
            return pack((1, group, configuration_to_plain(configuration)))
        case ChangeMembers(group, put, remove):
            return pack((2, group, members_to_plain(put), remove))
        case LeaveJoint(group):
            return pack((3, group))
        case MoveLeader(group, target):
            return pack((4, group, target))


def decode_operation(data: bytes) -> Operation:
    """Parse a request. Raises `InvalidRequest` for bytes that are none."""
    try:
        tag, group, *fields = cast("tuple[object, ...]", msgpack.unpackb(data, use_list=False))
        return _DECODERS[cast("int", tag)](GroupId(_text(group)), *fields)
    except (ValueError, TypeError, KeyError, msgpack.UnpackException) as error:
        raise InvalidRequest(f"malformed operation of {len(data)} bytes") from error


def _change_members(group: GroupId, put: object, remove: object) -> ChangeMembers:
    if not isinstance(remove, tuple):
        raise TypeError("remove")
    return ChangeMembers(group, members_from_plain(put), tuple(NodeId(_text(node)) for node in remove))


_DECODERS: dict[int, Callable[..., Operation]] = {
    1: lambda group, configuration: AddReplica(group, configuration_from_plain(configuration)),
    2: _change_members,
    3: LeaveJoint,
    4: lambda group, target: MoveLeader(group, NodeId(_text(target))),
}


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("text")
    return value


def encode_outcome(error: IsochroneError | None) -> bytes:
    """How an operation ended, as bytes."""
    if error is None:
        return pack(None)
    return pack((type(error).__name__, str(error), error.leader if isinstance(error, NotLeader) else None))


def decode_outcome(group: GroupId, data: bytes) -> IsochroneError | None:
    """How an operation on `group` ended: the error, or None if it was done.

    Bytes that cannot be read, and classes that are not known, are `Indeterminate`.
    """
    try:
        plain = msgpack.unpackb(data, use_list=False)
        if plain is None:
            return None
        name, text, leader = plain
        cls = ERROR_BY_NAME.get(name)
    except (ValueError, TypeError, msgpack.UnpackException):
        return Indeterminate(f"the answer of {len(data)} bytes cannot be read")
    if cls is NotLeader:
        return NotLeader(group, leader)
    if cls is None:
        return Indeterminate(f"unknown error {name!r}: {text}")
    return cls(text)
