"""Quorum arithmetic against a reference that tries every subset of voters."""

from itertools import combinations, product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isochrone.ids import NodeId, ReplicaRole, StoreId
from isochrone.regions.raft.quorum import Half, VoteOutcome, agreed_value, half_of, vote_outcome, voter_halves
from isochrone.wire.configurations import quorum_faults, resolved_sizes
from isochrone.wire.messages import Configuration, Member, QuorumSizes

NAMES = [NodeId(name) for name in "abcdefg"]


@st.composite
def _half(draw: st.DrawFn) -> Half:
    """Voters with quorums of any size that is allowed."""
    voters = tuple(sorted(draw(st.sets(st.sampled_from(NAMES), min_size=1))))
    count = len(voters)
    sizes = [QuorumSizes(commit, election) for commit in range(count + 1) for election in range(count + 1)]
    sound = [size for size in sizes if not list(quorum_faults(size, count, 0))]
    return Half(voters, resolved_sizes(draw(st.sampled_from(sound)), count))


halves = st.lists(_half(), min_size=1, max_size=2)


def _meets(nodes: set[NodeId], half: Half, needed: int) -> bool:
    return len(nodes & set(half.voters)) >= needed


@given(halves, st.fixed_dictionaries({name: st.integers(0, 9) for name in NAMES}))
def test_the_agreed_value_is_the_largest_that_a_quorum_of_every_half_has_reached(
    halves: list[Half], values: dict[NodeId, int]
) -> None:
    reached = [
        value
        for value in range(10)
        if all(_meets({n for n in NAMES if values[n] >= value}, half, half.quorums.commit) for half in halves)
    ]
    assert agreed_value(halves, values.__getitem__) == max(reached)


@given(halves, st.dictionaries(st.sampled_from(NAMES), st.booleans()))
def test_an_election_is_decided_as_soon_as_the_missing_votes_cannot_change_it(
    halves: list[Half], votes: dict[NodeId, bool]
) -> None:
    granted = {name for name, vote in votes.items() if vote}
    missing = [name for name in NAMES if name not in votes]
    endings = [
        all(_meets(granted | set(late), half, half.quorums.election) for half in halves)
        for size in range(len(missing) + 1)
        for late in combinations(missing, size)
    ]
    expected = VoteOutcome.WON if all(endings) else VoteOutcome.PENDING if any(endings) else VoteOutcome.LOST
    assert vote_outcome(halves, votes) is expected


@given(st.dictionaries(st.sampled_from(NAMES), st.sampled_from(ReplicaRole), min_size=1))
def test_learners_have_no_weight_and_witnesses_have(roles: dict[NodeId, ReplicaRole]) -> None:
    members = tuple(Member(node, StoreId("s"), role) for node, role in roles.items())
    half = half_of(members)
    assert half.voters == tuple(sorted(node for node in roles if roles[node] is not ReplicaRole.LEARNER))
    assert voter_halves(Configuration(members)) == (half,)
    assert voter_halves(Configuration(members, members)) == (half, half)


@pytest.mark.parametrize("count", range(1, 8))
def test_quorums_of_allowed_sizes_meet_and_hold_a_full_replica_and_those_of_other_sizes_need_not(count: int) -> None:
    """For every size and every number of witnesses, against all subsets."""
    voters = range(count)
    for commit, election, witnesses in product(range(1, count + 1), range(1, count + 1), range(count)):
        commits, elections = list(combinations(voters, commit)), list(combinations(voters, election))
        sound = (
            all(set(one) & set(other) for one in commits for other in elections)
            and all(set(one) & set(other) for one in elections for other in elections)
            and all(set(quorum) - set(range(witnesses)) for quorum in (*commits, *elections))
        )
        faults = list(quorum_faults(QuorumSizes(commit, election), count, witnesses))
        assert sound is not bool(faults), faults
