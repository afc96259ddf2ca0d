"""Quorum arithmetic over one or two halves of a configuration. Leaf module; everything is a pure function.

A joint configuration decides by a majority in each half (Ongaro's thesis, section 4.3).
"""

from collections.abc import Callable, Iterable
from enum import Enum

from isochrone.ids import NodeId, ReplicaRole
from isochrone.wire.messages import Configuration, Member


class VoteOutcome(Enum):
    """Where an election stands."""

    PENDING = "pending"
    WON = "won"
    LOST = "lost"


def voters(members: Iterable[Member]) -> tuple[NodeId, ...]:
    """The voting nodes among `members`, in order of name."""
    return tuple(sorted(member.node for member in members if member.role is not ReplicaRole.LEARNER))


def voter_halves(configuration: Configuration) -> tuple[tuple[NodeId, ...], ...]:
    """The voter sets whose majorities decide: one, or two in a joint configuration."""
    halves = (voters(configuration.members), voters(configuration.outgoing))
    return halves if configuration.outgoing else halves[:1]


def agreed_value(halves: Iterable[tuple[NodeId, ...]], value_of: Callable[[NodeId], int]) -> int:
    """The largest value that a majority of every half has reached (a commit index, a round, a contact time)."""
    return min(_majority_value([value_of(node) for node in half]) for half in halves)


def _majority_value(values: list[int]) -> int:
    values.sort(reverse=True)
    return values[len(values) // 2]


def vote_outcome(halves: Iterable[tuple[NodeId, ...]], votes: dict[NodeId, bool]) -> VoteOutcome:
    """Whether the votes so far decide an election. Lost in one half is lost; won needs every half."""
    outcomes = [_half_outcome(half, votes) for half in halves]
    if VoteOutcome.LOST in outcomes:
        return VoteOutcome.LOST
    return VoteOutcome.PENDING if VoteOutcome.PENDING in outcomes else VoteOutcome.WON


def _half_outcome(half: tuple[NodeId, ...], votes: dict[NodeId, bool]) -> VoteOutcome:
    needed = len(half) // 2 + 1
    granted = sum(votes.get(node, False) for node in half)
    refused = sum(not votes.get(node, True) for node in half)
    if granted >= needed:
        return VoteOutcome.WON
    return VoteOutcome.LOST if len(half) - refused < needed else VoteOutcome.PENDING
