"""Configurations as plain data, and what any one of them must fulfil.

With N voters, of whom W are witnesses, and quorums of Qc voters that commit and Qe that elect, each half fulfils:

1. Qc + Qe > N: whoever is elected meets every committed entry;
2. 2 Qe > N: no two leaders are elected in one term;
3. W < min(Qc, Qe): every quorum holds a full replica.

Source of 1: Howard, Malkhi, Spiegelman, "Flexible Paxos: Quorum intersection revisited" (OPODIS 2016). That work needs
no more, as its proposers own disjoint ballots; a Raft term has one leader because of 2.
"""

from collections.abc import Iterator, Sequence
from typing import cast

import msgpack

from isochrone.errors import InvalidRequest
from isochrone.ids import NodeId, ReplicaRole, StoreId
from isochrone.wire.messages import Configuration, Member, QuorumSizes
from isochrone.wire.pack import pack

_PlainMember = tuple[str, str, str]
_PlainSizes = tuple[int, int]
_Plain = tuple[tuple[_PlainMember, ...], tuple[_PlainMember, ...], _PlainSizes, _PlainSizes, bool]


def configuration_to_plain(configuration: Configuration) -> tuple[object, ...]:
    """A configuration as plain types."""
    return (
        members_to_plain(configuration.members),
        members_to_plain(configuration.outgoing),
        (configuration.quorums.commit, configuration.quorums.election),
        (configuration.outgoing_quorums.commit, configuration.outgoing_quorums.election),
        configuration.auto_leave,
    )


def configuration_from_plain(plain: object) -> Configuration:
    """Back from `configuration_to_plain`. Raises `ValueError` for anything else."""
    try:
        members, outgoing, quorums, outgoing_quorums, auto_leave = cast("_Plain", plain)
        if type(auto_leave) is not bool:
            raise ValueError("auto_leave")
        return Configuration(
            members_from_plain(members),
            members_from_plain(outgoing),
            _sizes(quorums),
            _sizes(outgoing_quorums),
            auto_leave,
        )
    except (TypeError, ValueError) as error:
        raise ValueError("not the form of a configuration") from error


def encode_configuration(configuration: Configuration) -> bytes:
    """The data of a log entry that holds a configuration."""
    return pack(configuration_to_plain(configuration))


def decode_configuration(data: bytes) -> Configuration:
    """Back from `encode_configuration`. Raises `ValueError` for anything else."""
    try:
        plain = msgpack.unpackb(data, use_list=False)
    except (TypeError, msgpack.UnpackException) as error:
        raise ValueError("not the form of a configuration") from error
    return configuration_from_plain(plain)


def members_to_plain(members: Sequence[Member]) -> tuple[_PlainMember, ...]:
    """Members as plain types."""
    return tuple((member.node, member.store, member.role.value) for member in members)


def members_from_plain(plain: object) -> tuple[Member, ...]:
    """Back from `members_to_plain`. Raises `TypeError` or `ValueError` for anything else."""
    members = cast("Sequence[_PlainMember]", plain)
    for fields in members:
        if tuple(map(type, fields)) != (str, str, str):
            raise ValueError("a member")
    return tuple(Member(NodeId(node), StoreId(store), ReplicaRole(role)) for node, store, role in members)


def _sizes(plain: _PlainSizes) -> QuorumSizes:
    if tuple(map(type, plain)) != (int, int) or min(plain) < 0:
        raise ValueError("sizes of quorums")
    return QuorumSizes(*plain)


def resolved_sizes(sizes: QuorumSizes, voters: int) -> QuorumSizes:
    """The sizes of quorums of so many voters, with a majority where nothing else is said."""
    majority = voters // 2 + 1
    return QuorumSizes(sizes.commit or majority, sizes.election or majority)


def quorum_faults(sizes: QuorumSizes, voters: int, witnesses: int) -> Iterator[tuple[str, str]]:
    """What is wrong with quorums of so many voters, some of them witnesses, as (found, allowed) pairs."""
    quorums = resolved_sizes(sizes, voters)
    commit, election = quorums.commit, quorums.election
    for name, size in (("commit", commit), ("election", election)):
        if size > voters:
            yield f"a {name} quorum of {size} of {voters} voters", f"at most {voters}"
    if commit + election <= voters:
        found = f"quorums of {commit} to commit and {election} to elect among {voters} voters, which need not meet"
        yield found, f"together more than {voters}, or an elected leader may lack what was committed"
    if 2 * election <= voters:
        found = f"an election quorum of {election} of {voters} voters"
        yield found, f"at least {voters // 2 + 1}, or two leaders may be elected in one term"
    if witnesses >= min(commit, election):
        found = f"{witnesses} {'witness' if witnesses == 1 else 'witnesses'}"
        yield (
            found,
            f"fewer witnesses than any quorum ({min(commit, election)} of {voters}), which must hold full replicas",
        )


def check_configuration(configuration: Configuration) -> None:
    """Raise `InvalidRequest`, with the reason, unless the configuration can run a group."""
    _check_half(configuration.members, configuration.quorums, "the group")
    stores: dict[NodeId, StoreId] = {member.node: member.store for member in configuration.members}
    if configuration.joint:
        _check_half(configuration.outgoing, configuration.outgoing_quorums, "the outgoing half")
        for member in configuration.outgoing:
            if stores.get(member.node, member.store) != member.store:
                raise InvalidRequest(_another_store(member, stores[member.node]))


def _check_half(members: Sequence[Member], sizes: QuorumSizes, what: str) -> None:
    nodes = [member.node for member in members]
    for node in nodes:
        if nodes.count(node) > 1:
            raise InvalidRequest(f"{what} would have {node} twice")
    roles = [member.role for member in members]
    witnesses = roles.count(ReplicaRole.WITNESS)
    full = roles.count(ReplicaRole.FULL)
    if not full:
        raise InvalidRequest(f"{what} would have no full voter")
    for found, allowed in quorum_faults(sizes, full + witnesses, witnesses):
        raise InvalidRequest(f"{what} would have {found}; allowed: {allowed}")


def _another_store(member: Member, store: StoreId) -> str:
    return (
        f"{member.node} is a member with store {member.store}; with store {store} it is another replica: "
        "remove the member first"
    )
