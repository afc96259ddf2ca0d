"""Quorum arithmetic against a reference that tries every subset of voters."""

from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from isochrone.ids import NodeId, ReplicaRole, StoreId
from isochrone.regions.raft.quorum import VoteOutcome, agreed_value, vote_outcome, voter_halves, voters
from isochrone.wire.messages import Configuration, Member

NAMES = [NodeId(name) for name in "abcdefg"]
halves = st.lists(
    st.sets(st.sampled_from(NAMES), min_size=1).map(lambda nodes: tuple(sorted(nodes))), min_size=1, max_size=2
)


def _is_quorum(nodes: set[NodeId], half: tuple[NodeId, ...]) -> bool:
    return 2 * len(nodes & set(half)) > len(half)


@given(halves, st.fixed_dictionaries({name: st.integers(0, 9) for name in NAMES}))
def test_the_agreed_value_is_the_largest_that_a_quorum_of_every_half_has_reached(
    halves: list[tuple[NodeId, ...]], values: dict[NodeId, int]
) -> None:
    reached = [
        value
        for value in range(10)
        if all(_is_quorum({name for name in NAMES if values[name] >= value}, half) for half in halves)
    ]
    assert agreed_value(halves, values.__getitem__) == max(reached)


@given(halves, st.dictionaries(st.sampled_from(NAMES), st.booleans()))
def test_an_election_is_decided_as_soon_as_the_missing_votes_cannot_change_it(
    halves: list[tuple[NodeId, ...]], votes: dict[NodeId, bool]
) -> None:
    granted = {name for name, vote in votes.items() if vote}
    missing = [name for name in NAMES if name not in votes]
    endings = [
        all(_is_quorum(granted | set(late), half) for half in halves)
        for size in range(len(missing) + 1)
        for late in combinations(missing, size)
    ]
    expected = VoteOutcome.WON if all(endings) else VoteOutcome.PENDING if any(endings) else VoteOutcome.LOST
    assert vote_outcome(halves, votes) is expected


@given(st.dictionaries(st.sampled_from(NAMES), st.sampled_from(ReplicaRole), min_size=1))
def test_learners_have_no_weight_and_witnesses_have(roles: dict[NodeId, ReplicaRole]) -> None:
    members = tuple(Member(node, StoreId("s"), role) for node, role in roles.items())
    assert voters(members) == tuple(sorted(node for node in roles if roles[node] is not ReplicaRole.LEARNER))
    assert voter_halves(Configuration(members)) == (voters(members),)
    assert voter_halves(Configuration(members, members)) == (voters(members), voters(members))
