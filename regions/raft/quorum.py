"""Quorum arithmetic over one or two halves of a configuration. Leaf module; everything is a pure function.

A joint configuration decides by a quorum in each half (Ongaro's thesis, section 4.3). How many voters make a quorum
belongs to the configuration: `wire.configurations` says which sizes are sound.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum

from isochrone.ids import NodeId, ReplicaRole
from isochrone.wire.configurations import resolved_sizes
from isochrone.wire.messages import MAJORITY, Configuration, Member, QuorumSizes


class VoteOutcome(Enum):
    """Where an election stands."""

    PENDING = "pending"
    WON = "won"
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class Half:
    """The voters that decide together, in order of name, and how many of them it takes."""

    voters: tuple[NodeId, ...]
    quorums: QuorumSizes
    """Resolved: never 0."""


def half_of(members: Iterable[Member], sizes: QuorumSizes = MAJORITY) -> Half:
    """The half that these members form; learners have no part in it."""
    voters = tuple(sorted(member.node for member in members if member.role is not ReplicaRole.LEARNER))
    return Half(voters, resolved_sizes(sizes, len(voters)))


def voter_halves(configuration: Configuration) -> tuple[Half, ...]:
    """The halves whose quorums decide: one, or two in a joint configuration."""
    members = half_of(configuration.members, configuration.quorums)
    if not configuration.joint:
        return (members,)
    return members, half_of(configuration.outgoing, configuration.outgoing_quorums)


def is_voter(halves: Iterable[Half], node: NodeId) -> bool:
    """Whether a node has a vote in any half."""
    return any(node in half.voters for half in halves)


def agreed_value(halves: Iterable[Half], value_of: Callable[[NodeId], int]) -> int:
    """The largest value that a commit quorum of every half has reached (a commit index, a round, a contact time)."""
    return min(_reached([value_of(node) for node in half.voters], half.quorums.commit) for half in halves)


def _reached(values: list[int], quorum: int) -> int:
    values.sort(reverse=True)
    return values[quorum - 1]


def vote_outcome(halves: Iterable[Half], votes: Mapping[NodeId, bool]) -> VoteOutcome:
    """Whether the votes so far decide an election. Lost in one half is lost; won needs every half."""
    outcomes = [_half_outcome(half, votes) for half in halves]
    if VoteOutcome.LOST in outcomes:
        return VoteOutcome.LOST
    return VoteOutcome.PENDING if VoteOutcome.PENDING in outcomes else VoteOutcome.WON


def _half_outcome(half: Half, votes: Mapping[NodeId, bool]) -> VoteOutcome:
    needed = half.quorums.election
    granted = sum(votes.get(node, False) for node in half.voters)
    refused = sum(not votes.get(node, True) for node in half.voters)
    if granted >= needed:
        return VoteOutcome.WON
    return VoteOutcome.LOST if len(half.voters) - refused < needed else VoteOutcome.PENDING
