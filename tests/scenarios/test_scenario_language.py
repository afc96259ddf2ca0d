"""The scenario language: what it refuses, that rewriting is stable, and that its checks bite."""

import pytest
from scenario_claims import Claims
from scenario_commands import run_scenario
from scenario_format import ScenarioError, difference, parse_scenario, rewritten

from isochrone.ids import LogIndex, NodeId, ReplicaRole, StoreId, Term
from isochrone.ports import StoredGroup, TermRun
from isochrone.wire.messages import (
    AppendResponse,
    Configuration,
    HardState,
    Heartbeat,
    Member,
    RaftMessage,
    VoteRequest,
    VoteResponse,
)

SMALL = """# Why.

add-nodes a b c
----
(nothing)

# A comment between blocks.
campaign a
dump b
----
a: campaign
  became_pre_candidate term=0 index=0
  -> b VoteRequest term=1 log=0/0 pre
  -> c VoteRequest term=1 log=0/0 pre
b: full follower term=0 vote=none commit=0 applied=0 log=1..0
  disk term=0 vote=none commit=0 []
"""


def _run(text: str) -> str:
    return rewritten(text, run_scenario(text, "x.txt"))


def test_a_run_that_leaves_what_is_expected_changes_nothing() -> None:
    assert _run(SMALL) == SMALL


@pytest.mark.parametrize(
    "damaged",
    [
        SMALL.replace("(nothing)\n", ""),
        SMALL.replace("(nothing)", "something\nelse"),
        SMALL.replace("  -> c VoteRequest term=1 log=0/0 pre\n", ""),
        SMALL.replace("term=0 index=0", "term=5 index=5"),
        SMALL.rstrip("\n"),
    ],
)
def test_rewriting_gives_the_same_text_whatever_was_expected_before(damaged: str) -> None:
    assert _run(damaged) == SMALL
    assert _run(_run(damaged)) == SMALL


def test_a_changed_trace_is_shown_line_by_line() -> None:
    expected = SMALL.replace("-> c VoteRequest term=1", "-> c VoteRequest term=7")
    found = difference(expected, _run(expected), "x.txt").splitlines()
    assert "-  -> c VoteRequest term=7 log=0/0 pre" in found
    assert "+  -> c VoteRequest term=1 log=0/0 pre" in found
    assert " campaign a" in found
    assert not difference(SMALL, _run(SMALL), "x.txt")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "x.txt:1: a scenario without a command"),
        ("# only a comment\n", "x.txt:1: a scenario without a command"),
        ("add-nodes a", "x.txt:1: a command must be followed by ----"),
        ("add-nodes a\n\ncampaign a\n----\n", "x.txt:2: a command must be followed by ----"),
        ("add-nodes a\n# why\n----\n", "x.txt:2: a command must be followed by ----"),
        ("# why\n----\n", "x.txt:2: a trace without a command"),
        ("add-nodes a down=(a\n----\n", "x.txt:1: a list without its closing bracket: add-nodes a down=(a"),
        ('add-nodes "a\n----\n', 'x.txt:1: No closing quotation: add-nodes "a'),
        ("add-nodes a election=1 election=2\n----\n", "x.txt:1: option election is given twice"),
        ("Add a\n----\n", "x.txt:1: not the name of a command: Add"),
        ('""\n----\n', "x.txt:1: not the name of a command: "),
    ],
)
def test_a_text_that_is_no_scenario_is_refused(text: str, message: str) -> None:
    with pytest.raises(ScenarioError) as caught:
        parse_scenario(text, "x.txt")
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("depose a", "there is no command depose; there are add-nodes, "),
        ("campaign z", "there is no node z"),
        ("campaign", "campaign needs a node"),
        ("campaign a b", "campaign does not take b"),
        ("propose a x speed=9", "propose does not take speed"),
        ("propose a x count=many", "not a number: many"),
        ("add-nodes d", "the nodes are there already"),
        ("deliver to=z", "there is no node z"),
        ("deliver kind=Gossip", "there is no kind of message Gossip; there are VoteRequest, "),
        ("drop", "no such message is on its way"),
        ("sync a", "a has no write under way"),
        ("fail-sync a", "a has no write under way"),
        ("restart a", "a is up, or never ran"),
        ("start a", "a has run already"),
        ("disk a 1 1", "a has run already; add it with down=(a)"),
        ("wipe a", "a is up; crash it first"),
        ("cut a b c", "cut takes two nodes and perhaps one-way"),
        ("trace loud", "a trace shows all, events, none, not loud"),
        ("elect a by=(z)", "there is no node z"),
    ],
)
def test_a_command_that_cannot_be_done_is_refused(command: str, message: str) -> None:
    with pytest.raises(ScenarioError) as caught:
        run_scenario(f"add-nodes a b c\n{command}\n----\n", "x.txt")
    assert str(caught.value).startswith(f"x.txt:2: {message}")


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("campaign a", "a scenario begins with add-nodes"),
        ("add-nodes", "add-nodes needs names, each once"),
        ("add-nodes a a", "add-nodes needs names, each once"),
        ("add-nodes a jitter=(a:501)", "not a node and a jitter of at most 500 ms: a:501"),
        ("add-nodes a jitter=(b:5)", "not a node and a jitter of at most 500 ms: b:5"),
        ("add-nodes a down=(b)", "there is no node b"),
    ],
)
def test_nodes_that_cannot_be_added_are_refused(command: str, message: str) -> None:
    with pytest.raises(ScenarioError) as caught:
        run_scenario(f"{command}\n----\n", "x.txt")
    assert str(caught.value) == f"x.txt:1: {message}"


def test_a_crashed_node_does_nothing() -> None:
    with pytest.raises(ScenarioError, match=r"x\.txt:2: a is down"):
        run_scenario("add-nodes a b c down=(a)\ncampaign a\n----\n", "x.txt")


def test_a_group_that_never_falls_silent_is_reported() -> None:
    with pytest.raises(AssertionError, match=r"x\.txt:3: stabilize limit=3: not quiet after 3 steps"):
        run_scenario("add-nodes a b c\ncampaign a\nstabilize limit=3\n----\n", "x.txt")


A, B, C = NodeId("a"), NodeId("b"), NodeId("c")
MEMBERS = tuple(Member(node, StoreId(f"store-{node}"), ReplicaRole.FULL) for node in (A, B, C))
GROUP = Configuration(MEMBERS)


def _claims(last: int) -> Claims:
    """All three disks hold term 2, a vote for a, and entries of term 1 up to `last`."""
    runs = (TermRun(LogIndex(1), Term(1)),) if last else ()
    disk = StoredGroup(
        Configuration(MEMBERS), HardState(Term(2), A), LogIndex(0), Term(0), LogIndex(last), runs, LogIndex(0)
    )
    empty = StoredGroup(Configuration(MEMBERS), HardState(), LogIndex(0), Term(0), LogIndex(0), (), LogIndex(0))
    return Claims(
        lambda node: (StoreId(f"store-{node}"), empty if node == C else disk), lambda node: StoreId(f"store-{node}")
    )


@pytest.mark.parametrize(
    ("message", "breach"),
    [
        (VoteRequest(Term(3), LogIndex(4), Term(1), True, False), "a log is claimed that is not durable"),
        (VoteRequest(Term(3), LogIndex(3), Term(1), False, False), "a vote leaves before it is durable"),
        (VoteResponse(Term(3), granted=True, pre=False), "a vote leaves before it is durable"),
        (VoteResponse(Term(3), granted=False, pre=False), "a term leaves before it is durable"),
        (AppendResponse(Term(2), True, LogIndex(4), Term(2), LogIndex(0)), "acknowledged before they are durable"),
        (Heartbeat(Term(2), LogIndex(1), 1, LogIndex(0)), "c is told of a commit beyond its log"),
        (Heartbeat(Term(2), LogIndex(0), 1, LogIndex(1)), "a full voter may need what is dropped"),
    ],
)
def test_a_message_whose_claim_is_not_durable_fails_the_scenario(message: RaftMessage, breach: str) -> None:
    with pytest.raises(AssertionError, match=breach):
        _claims(3).sends(A, C, message, GROUP)


def test_a_second_vote_of_a_term_fails_the_scenario() -> None:
    claims = _claims(3)
    claims.sends(A, B, VoteRequest(Term(2), LogIndex(3), Term(1), False, False), GROUP)
    claims.sends(B, A, VoteResponse(Term(2), granted=True, pre=False), GROUP)
    with pytest.raises(AssertionError, match="a vote leaves before it is durable"):
        claims.sends(B, C, VoteResponse(Term(2), granted=True, pre=False), GROUP)


def test_a_commit_without_a_quorum_of_disks_fails_the_scenario() -> None:
    _claims(3).commits(Configuration(MEMBERS), LogIndex(3))
    with pytest.raises(AssertionError, match="entry 4 is committed, but only 0"):
        _claims(3).commits(Configuration(MEMBERS), LogIndex(4))


def test_two_leaders_of_a_term_fail_the_scenario() -> None:
    claims = _claims(3)
    claims.leads(A, Term(2))
    with pytest.raises(AssertionError, match="two leaders in term 2"):
        claims.leads(B, Term(2))
