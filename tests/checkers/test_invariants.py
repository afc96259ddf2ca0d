"""Each continuous check finds a history that breaks it, and lets pass one that nearly does."""

from collections.abc import Callable, Sequence

import pytest

from isochrone.drills.checkers.invariants import Invariant, Invariants
from isochrone.ids import GroupId, LogIndex, NodeId, ReplicaRole, StoreId, Term, Timestamp
from isochrone.ports import LogWrite, StoredGroup, TermRun
from isochrone.wire.entries import make_entry
from isochrone.wire.messages import (
    AppendResponse,
    Configuration,
    Entry,
    EntryKind,
    HardState,
    HeartbeatResponse,
    Member,
    SnapshotChunk,
    SnapshotId,
    VoteRequest,
    VoteResponse,
)

G = GroupId("g")
A, B, C = NodeId("a"), NodeId("b"), NodeId("c")
FULL, WITNESS, LEARNER = ReplicaRole.FULL, ReplicaRole.WITNESS, ReplicaRole.LEARNER


def entry(index: int, term: int, data: bytes = b"", *, timestamp: int = 0, commands: bool = True) -> Entry:
    kind = EntryKind.COMMANDS if commands else EntryKind.NOOP
    stamp = Timestamp(timestamp or 10 * index)
    return make_entry(index=LogIndex(index), term=Term(term), kind=kind, timestamp=stamp, data=data)


def entries(first: int, *terms: int) -> tuple[Entry, ...]:
    return tuple(entry(index, term) for index, term in enumerate(terms, start=first))


def hard(term: int, vote: str | None = None, commit: int = 0) -> HardState:
    return HardState(Term(term), NodeId(vote) if vote else None, LogIndex(commit))


def log(held: Sequence[Entry] = (), *, state: HardState | None = None, truncate_to: int | None = None) -> LogWrite:
    return LogWrite(G, state, tuple(held), LogIndex(truncate_to) if truncate_to is not None else None)


def snapshot(index: int, term: int, *, with_state: bool = True, state: HardState | None = None) -> LogWrite:
    """The last chunk of a snapshot."""
    name = SnapshotId(Term(9), 1, LogIndex(index), Term(term))
    configuration = Configuration((Member(A, StoreId("s"), FULL),))
    chunk = SnapshotChunk(name, configuration, Timestamp(1), with_state, 0, b"", 0, last=True)
    return LogWrite(G, state, chunk=chunk)


def stored(state: HardState, *terms: int, truncated: tuple[int, int] = (0, 0), applied: int = 0) -> StoredGroup:
    first = truncated[0] + 1
    runs = [TermRun(LogIndex(first + n), Term(term)) for n, term in enumerate(terms) if n == 0 or terms[n - 1] != term]
    member = Member(A, StoreId("s"), FULL)
    last = LogIndex(truncated[0] + len(terms))
    truncated_index, truncated_term = LogIndex(truncated[0]), Term(truncated[1])
    configuration = Configuration((member,))
    return StoredGroup(configuration, state, truncated_index, truncated_term, last, tuple(runs), LogIndex(applied))


def apply(watch: Invariants, node: NodeId, term: int, *applied: Entry) -> None:
    for each in applied:
        watch.applied(G, node, Term(term), each)


History = Callable[[Invariants], None]


def two_leaders(watch: Invariants) -> None:
    watch.led(G, A, FULL, Term(2))
    watch.led(G, B, FULL, Term(2))


def two_leaders_in_two_terms(watch: Invariants) -> None:
    watch.led(G, A, FULL, Term(2))
    watch.led(G, B, FULL, Term(3))
    watch.led(GroupId("another"), B, FULL, Term(2))


def leader_replaces_its_own_entries(watch: Invariants) -> None:
    watch.wrote(G, A, log(entries(1, 1, 1), state=hard(2, "a")))
    watch.led(G, A, FULL, Term(2))
    watch.wrote(G, A, log(entries(2, 2)))


def deposed_leader_replaces_its_entries(watch: Invariants) -> None:
    watch.wrote(G, A, log(entries(1, 1, 1), state=hard(2, "a")))
    watch.led(G, A, FULL, Term(2))
    watch.led(G, B, FULL, Term(3))
    watch.wrote(G, A, log(entries(2, 3), state=hard(3)))


def same_place_other_entry(watch: Invariants) -> None:
    watch.wrote(G, A, log([entry(1, 1, b"x")]))
    watch.wrote(G, B, log([entry(1, 1, b"y")]))


def same_place_other_prefix(watch: Invariants) -> None:
    watch.wrote(G, A, log(entries(1, 1, 3)))
    watch.wrote(G, B, log(entries(1, 2, 3)))


def other_term_other_entry(watch: Invariants) -> None:
    watch.wrote(G, A, log([entry(1, 1, b"x")]))
    watch.wrote(G, B, log([entry(1, 2, b"y")]))
    watch.wrote(G, B, log([entry(1, 1, b"x")]))


def leader_lacks_what_was_committed(watch: Invariants) -> None:
    watch.wrote(G, A, log(entries(1, 1, 1)))
    apply(watch, A, 1, *entries(1, 1, 1))
    watch.wrote(G, B, log(entries(1, 1)))
    watch.led(G, B, FULL, Term(2))


def leader_holds_another_entry(watch: Invariants) -> None:
    watch.wrote(G, A, log(entries(1, 1, 1)))
    apply(watch, A, 1, *entries(1, 1, 1))
    watch.wrote(G, B, log(entries(1, 1, 2)))
    watch.led(G, B, FULL, Term(3))


def commit_known_after_the_election_of_who_lacks_it(watch: Invariants) -> None:
    watch.wrote(G, A, log(entries(1, 1)))
    watch.led(G, A, FULL, Term(1))
    watch.restarted(G, B, stored(hard(0)))
    watch.led(G, B, FULL, Term(2))
    apply(watch, A, 1, entry(1, 1))


def late_winner_of_an_older_term(watch: Invariants) -> None:
    """Its votes were under way while a later term's leader was elected and committed."""
    watch.wrote(G, A, log(entries(1, 1)))
    apply(watch, A, 1, entry(1, 1))
    watch.wrote(G, B, log(entries(1, 1, 3)))
    watch.led(G, B, FULL, Term(3))
    apply(watch, B, 3, *entries(1, 1, 3))
    watch.led(G, A, FULL, Term(2))


def leader_truncated_what_was_committed(watch: Invariants) -> None:
    watch.wrote(G, A, log(entries(1, 1, 1, 1), state=hard(1, commit=2)))
    apply(watch, B, 1, *entries(1, 1, 1))
    watch.wrote(G, A, log(truncate_to=2))
    watch.led(G, A, FULL, Term(2))


def two_entries_applied_at_an_index(watch: Invariants) -> None:
    apply(watch, A, 1, entry(1, 1, b"x"))
    apply(watch, B, 2, entry(1, 2, b"x"))


def gap_in_what_is_applied(watch: Invariants) -> None:
    apply(watch, A, 1, *entries(1, 1, 1))
    apply(watch, B, 1, entry(2, 1))


def applied_again_after_a_restart(watch: Invariants) -> None:
    watch.wrote(G, A, log(entries(1, 1, 1), state=hard(1, commit=2)))
    apply(watch, A, 1, *entries(1, 1, 1))
    watch.restarted(G, A, stored(hard(1, commit=2), 1, 1, applied=1))
    apply(watch, A, 1, entry(2, 1))


def applied_twice_in_one_life(watch: Invariants) -> None:
    apply(watch, A, 1, *entries(1, 1, 1), entry(2, 1))


def snapshot_of_another_history(watch: Invariants) -> None:
    apply(watch, A, 1, *entries(1, 1, 1, 1))
    watch.wrote(G, C, snapshot(3, 2))


def snapshot_of_what_nobody_applied(watch: Invariants) -> None:
    apply(watch, A, 1, *entries(1, 1, 1))
    watch.wrote(G, C, snapshot(3, 1))


def snapshot_of_what_is_committed_already(watch: Invariants) -> None:
    apply(watch, A, 1, *entries(1, 1, 1, 1))
    watch.wrote(G, C, log(entries(1, 1, 1, 1), state=hard(1, commit=3)))
    watch.wrote(G, C, snapshot(2, 1))


def gap_after_a_snapshot(watch: Invariants) -> None:
    apply(watch, A, 1, *entries(1, 1, 1, 1, 1, 1))
    watch.wrote(G, C, snapshot(3, 1))
    apply(watch, C, 1, entry(5, 1))


def suffix_kept_after_another_entry(watch: Invariants) -> None:
    """What followed entry 2 of term 1 must not follow the one of term 2."""
    apply(watch, A, 2, *entries(1, 1, 2))
    watch.wrote(G, C, log(entries(1, 1, 1, 1), state=hard(1)))
    watch.wrote(G, C, snapshot(2, 2, state=hard(2, commit=2)))
    watch.restarted(G, C, stored(hard(2, commit=2), 1, truncated=(2, 2), applied=2))


def snapshot_and_what_follows(watch: Invariants) -> None:
    """The suffix stays after the very entry, and a witness takes a snapshot of what nobody has applied yet."""
    apply(watch, A, 1, *entries(1, 1, 1, 1))
    watch.wrote(G, C, log(entries(1, 1, 1, 1, 1), state=hard(1)))
    watch.wrote(G, C, snapshot(3, 1, state=hard(1, commit=3)))
    watch.restarted(G, C, stored(hard(1, commit=3), 1, truncated=(3, 1), applied=3))
    apply(watch, C, 1, entry(4, 1))
    watch.wrote(G, B, snapshot(4, 1, with_state=False))


def states_differ(watch: Invariants) -> None:
    watch.state_at(G, A, LogIndex(5), 17)
    watch.state_at(G, B, LogIndex(5), 18)


def states_differ_at_different_indexes(watch: Invariants) -> None:
    watch.state_at(G, A, LogIndex(5), 17)
    watch.state_at(G, B, LogIndex(6), 18)
    watch.state_at(G, B, LogIndex(5), 17)


def commit_falls(watch: Invariants) -> None:
    watch.observed(G, A, Term(1), LogIndex(5))
    watch.observed(G, A, Term(1), LogIndex(4))


def stored_commit_falls(watch: Invariants) -> None:
    watch.wrote(G, A, log(state=hard(1, commit=5)))
    watch.wrote(G, A, log(state=hard(1, commit=4)))


def stored_commit_falls_in_a_restart(watch: Invariants) -> None:
    watch.wrote(G, A, log(entries(1, 1, 1), state=hard(1, commit=2)))
    watch.restarted(G, A, stored(hard(1, commit=1), 1, 1))


def commit_forgotten_in_a_restart(watch: Invariants) -> None:
    """Only what is stored of it must come back, and it may come back raised to what is applied."""
    watch.wrote(G, A, log(entries(1, 1, 1, 1), state=hard(1, commit=1)))
    watch.observed(G, A, Term(1), LogIndex(3))
    watch.restarted(G, A, stored(hard(1, commit=2), 1, 1, 1, applied=2))
    watch.observed(G, A, Term(1), LogIndex(2))


def term_falls(watch: Invariants) -> None:
    watch.observed(G, A, Term(3), LogIndex(0))
    watch.observed(G, A, Term(2), LogIndex(0))


def stored_term_falls(watch: Invariants) -> None:
    watch.wrote(G, A, log(state=hard(3)))
    watch.wrote(G, A, log(state=hard(2)))


def stored_term_falls_in_a_restart(watch: Invariants) -> None:
    watch.wrote(G, A, log(state=hard(3)))
    watch.restarted(G, A, stored(hard(2)))


def term_in_memory_falls_in_a_restart(watch: Invariants) -> None:
    """It was not durable, so nobody has heard of it."""
    watch.wrote(G, A, log(state=hard(2)))
    watch.observed(G, A, Term(3), LogIndex(0))
    watch.restarted(G, A, stored(hard(2)))
    watch.observed(G, A, Term(2), LogIndex(0))


def vote_changes(watch: Invariants) -> None:
    watch.wrote(G, A, log(state=hard(3, "b")))
    watch.wrote(G, A, log(state=hard(3, "c")))


def vote_changes_in_a_restart(watch: Invariants) -> None:
    watch.wrote(G, A, log(state=hard(3, "b")))
    watch.restarted(G, A, stored(hard(3)))


def vote_changes_on_a_disk_put_back(watch: Invariants) -> None:
    """Both its start and its later vote fit the old disk, but not what was voted before."""
    watch.wrote(G, A, log(state=hard(3, "b")))
    watch.restarted(G, A, stored(hard(2)))
    watch.wrote(G, A, log(state=hard(3, "c")))


def votes_in_two_terms(watch: Invariants) -> None:
    watch.wrote(G, A, log(state=hard(3)))
    watch.wrote(G, A, log(state=hard(3, "b")))
    watch.restarted(G, A, stored(hard(3, "b")))
    watch.wrote(G, A, log(state=hard(4, "c")))


def vote_of_another_voter_on_the_same_node(watch: Invariants) -> None:
    watch.wrote(G, A, log(entries(1, 3), state=hard(3, "b")))
    watch.replaced(G, A)
    watch.restarted(G, A, stored(hard(0)))
    watch.wrote(G, A, log(state=hard(3, "c")))


def timestamps_fall(watch: Invariants) -> None:
    apply(watch, A, 1, entry(1, 1, timestamp=50), entry(2, 1, timestamp=50))


def timestamps_rise(watch: Invariants) -> None:
    apply(watch, A, 1, entry(1, 1, timestamp=50), entry(2, 1, timestamp=51))


def vote_leaves_early(watch: Invariants) -> None:
    watch.wrote(G, A, log(state=hard(3)))
    watch.sent(G, A, B, VoteResponse(Term(3), granted=True, pre=False))


def vote_for_another_leaves(watch: Invariants) -> None:
    watch.wrote(G, A, log(state=hard(3, "c")))
    watch.sent(G, A, B, VoteResponse(Term(3), granted=True, pre=False))


def own_vote_leaves_early(watch: Invariants) -> None:
    watch.wrote(G, A, log(state=hard(2)))
    watch.sent(G, A, B, VoteRequest(Term(3), LogIndex(0), Term(0), pre=False, transfer=False))


def votes_leave_in_time(watch: Invariants) -> None:
    watch.wrote(G, A, log(entries(1, 1), state=hard(3, "b")))
    watch.sent(G, A, B, VoteResponse(Term(3), granted=True, pre=False))
    watch.sent(G, A, C, VoteResponse(Term(3), granted=False, pre=False))
    watch.sent(G, A, C, VoteResponse(Term(9), granted=True, pre=True))
    watch.sent(G, A, B, VoteRequest(Term(4), LogIndex(1), Term(1), pre=True, transfer=False))


def unwritten_log_is_claimed(watch: Invariants) -> None:
    watch.wrote(G, A, log(entries(1, 1), state=hard(1)))
    watch.sent(G, A, B, VoteRequest(Term(2), LogIndex(2), Term(1), pre=True, transfer=False))


def acknowledged_early(watch: Invariants) -> None:
    watch.wrote(G, A, log(entries(1, 1), state=hard(1)))
    watch.sent(G, A, B, AppendResponse(Term(1), True, LogIndex(2), Term(1), LogIndex(0)))


def acknowledged_in_time(watch: Invariants) -> None:
    watch.wrote(G, A, log(entries(1, 1, 1), state=hard(1)))
    watch.sent(G, A, B, AppendResponse(Term(1), True, LogIndex(2), Term(1), LogIndex(0)))
    watch.sent(G, A, B, AppendResponse(Term(1), False, LogIndex(2), Term(1), LogIndex(9)))


def claims_leave_after_what_replaced_them(watch: Invariants) -> None:
    """Both waited for one batch, in which a later leader's entries replace what they tell of."""
    watch.restarted(G, A, stored(hard(0)))
    watch.wrote(G, A, log(entries(1, 1, 1), state=hard(1)))
    watch.wrote(G, A, log(entries(1, 2), state=hard(2, "a")))
    watch.sent(G, A, B, VoteRequest(Term(2), LogIndex(2), Term(1), pre=False, transfer=False))
    watch.sent(G, A, B, AppendResponse(Term(1), True, LogIndex(2), Term(0), LogIndex(0)))


def replaced_log_is_acknowledged_in_the_new_term(watch: Invariants) -> None:
    watch.wrote(G, A, log(entries(1, 1, 1), state=hard(1)))
    watch.wrote(G, A, log(entries(1, 2), state=hard(2)))
    watch.sent(G, A, B, AppendResponse(Term(2), True, LogIndex(2), Term(0), LogIndex(0)))


def term_leaves_early(watch: Invariants) -> None:
    watch.wrote(G, A, log(state=hard(1)))
    watch.sent(G, A, B, HeartbeatResponse(Term(2), 1))


def term_leaves_in_time(watch: Invariants) -> None:
    watch.wrote(G, A, log(state=hard(2)))
    watch.sent(G, A, B, HeartbeatResponse(Term(2), 1))


def log_shrinks_in_a_restart(watch: Invariants) -> None:
    watch.wrote(G, A, log(entries(1, 1, 1), state=hard(1)))
    watch.restarted(G, A, stored(hard(1), 1))


def log_changes_in_a_restart(watch: Invariants) -> None:
    watch.wrote(G, A, log(entries(1, 1, 2), state=hard(2)))
    watch.restarted(G, A, stored(hard(2), 1, 1))


def log_comes_back_truncated(watch: Invariants) -> None:
    watch.wrote(G, A, log(entries(1, 1, 1, 2), state=hard(2, commit=2)))
    watch.wrote(G, A, log(truncate_to=2))
    watch.restarted(G, A, stored(hard(2, commit=2), 2, truncated=(2, 1)))
    watch.wrote(G, A, log(entries(4, 2)))


def hole_in_a_log(watch: Invariants) -> None:
    watch.wrote(G, A, log(entries(1, 1)))
    watch.wrote(G, A, log(entries(3, 1)))


def uncommitted_entries_truncated(watch: Invariants) -> None:
    watch.wrote(G, A, log(entries(1, 1, 1), state=hard(1, commit=1)))
    watch.wrote(G, A, log(truncate_to=2))


def missing_entries_truncated(watch: Invariants) -> None:
    watch.wrote(G, A, log(entries(1, 1), state=hard(1, commit=1)))
    watch.wrote(G, A, log(truncate_to=2))


def witness_answers(watch: Invariants) -> None:
    watch.served(G, A, WITNESS, "read")


def relay_takes_commands(watch: Invariants) -> None:
    watch.led(G, A, WITNESS, Term(2))
    watch.wrote(G, B, log([entry(1, 2, commands=False), entry(2, 2)]))


def relay_feeds(watch: Invariants) -> None:
    watch.led(G, C, FULL, Term(1))
    watch.led(G, A, WITNESS, Term(2))
    watch.wrote(G, B, log([entry(1, 1), entry(2, 2, commands=False)]))
    watch.served(G, C, FULL, "write")


def learner_leads(watch: Invariants) -> None:
    watch.led(G, A, LEARNER, Term(2))


def learner_answers(watch: Invariants) -> None:
    """Learners serve stale reads, and never lead."""
    watch.served(G, A, LEARNER, "read")
    watch.led(G, B, FULL, Term(2))


BAD: list[tuple[Invariant, History, str]] = [
    (Invariant.ONE_LEADER_PER_TERM, two_leaders, "leads term 2, which a leads too"),
    (Invariant.LEADER_APPEND_ONLY, leader_replaces_its_own_entries, "replaced its entries 2 to 2"),
    (Invariant.LOG_MATCHING, same_place_other_entry, "two entries at index 1 of term 1"),
    (Invariant.LOG_MATCHING, same_place_other_prefix, "follows term 1 elsewhere, 2 here"),
    (Invariant.LEADER_COMPLETENESS, leader_lacks_what_was_committed, "without entry 2 of term 1"),
    (Invariant.LEADER_COMPLETENESS, leader_holds_another_entry, "a log from 1 with 1-1 of term 1, 2-2 of term 2"),
    (Invariant.LEADER_COMPLETENESS, commit_known_after_the_election_of_who_lacks_it, "node b: it leads term 2"),
    (Invariant.APPLIED_PREFIX, two_entries_applied_at_an_index, "where another replica applied entry 1 of term 1"),
    (Invariant.APPLIED_PREFIX, gap_in_what_is_applied, "entry 2 was applied after entry 0"),
    (Invariant.APPLIED_PREFIX, applied_twice_in_one_life, "entry 2 was applied after entry 2"),
    (Invariant.APPLIED_PREFIX, snapshot_of_another_history, "applied there was one of term 1"),
    (Invariant.APPLIED_PREFIX, snapshot_of_what_nobody_applied, "applied there was one of term None"),
    (Invariant.APPLIED_PREFIX, gap_after_a_snapshot, "entry 5 was applied after entry 3"),
    (Invariant.DISK_KEEPS_WHAT_IT_HOLDS, snapshot_of_what_is_committed_already, "3 was committed already"),
    (Invariant.DISK_KEEPS_WHAT_IT_HOLDS, suffix_kept_after_another_entry, "after the restart it is a log from 3"),
    (Invariant.EQUAL_STATE, states_differ, "differs from that of a"),
    (Invariant.COMMIT_NEVER_FALLS, commit_falls, "from 5 to 4"),
    (Invariant.COMMIT_NEVER_FALLS, stored_commit_falls, "from 5 to 4"),
    (Invariant.COMMIT_NEVER_FALLS, stored_commit_falls_in_a_restart, "after the restart it is 1"),
    (Invariant.TERM_NEVER_FALLS, term_falls, "from 3 to 2"),
    (Invariant.TERM_NEVER_FALLS, stored_term_falls, "from 3 to 2"),
    (Invariant.TERM_NEVER_FALLS, stored_term_falls_in_a_restart, "after the restart it is 2"),
    (Invariant.ONE_VOTE_PER_TERM, vote_changes, "changed from b to c"),
    (Invariant.ONE_VOTE_PER_TERM, vote_changes_in_a_restart, "after the restart it is None"),
    (Invariant.ONE_VOTE_PER_TERM, vote_changes_on_a_disk_put_back, "voted for b and for c in term 3"),
    (Invariant.RISING_TIMESTAMPS, timestamps_fall, "entry 2 has timestamp 50, after 50"),
    (Invariant.DURABLE_BEFORE_SENT, vote_leaves_early, "while term 3 with a vote for nobody is durable"),
    (Invariant.DURABLE_BEFORE_SENT, vote_for_another_leaves, "vote for b in term 3"),
    (Invariant.DURABLE_BEFORE_SENT, own_vote_leaves_early, "vote for a in term 3"),
    (Invariant.DURABLE_BEFORE_SENT, unwritten_log_is_claimed, "claims entry 2 of term 1"),
    (Invariant.DURABLE_BEFORE_SENT, acknowledged_early, "acknowledges entry 2 to b"),
    (Invariant.DURABLE_BEFORE_SENT, replaced_log_is_acknowledged_in_the_new_term, "acknowledges entry 2 to b"),
    (Invariant.DURABLE_BEFORE_SENT, term_leaves_early, "term 2 leaves while term 1 is durable"),
    (Invariant.DISK_KEEPS_WHAT_IT_HOLDS, log_shrinks_in_a_restart, "1-2 of term 1 was durable"),
    (Invariant.DISK_KEEPS_WHAT_IT_HOLDS, log_changes_in_a_restart, "2-2 of term 2 was durable"),
    (Invariant.DISK_KEEPS_WHAT_IT_HOLDS, hole_in_a_log, "entry 3 was written to a log that holds 1 to 1"),
    (Invariant.DISK_KEEPS_WHAT_IT_HOLDS, uncommitted_entries_truncated, "only those up to 1 are committed"),
    (Invariant.DISK_KEEPS_WHAT_IT_HOLDS, missing_entries_truncated, "holds 1 to 1 was truncated to 2"),
    (Invariant.WITNESS_NEVER_SERVES, witness_answers, "answered a read"),
    (Invariant.WITNESS_NEVER_SERVES, relay_takes_commands, "relay of term 2, took the commands of entry 2"),
    (Invariant.LEARNER_NEVER_LEADS, learner_leads, "a learner leads term 2"),
]

NEARLY_BAD: list[History] = [
    two_leaders_in_two_terms,
    deposed_leader_replaces_its_entries,
    other_term_other_entry,
    late_winner_of_an_older_term,
    leader_truncated_what_was_committed,
    applied_again_after_a_restart,
    states_differ_at_different_indexes,
    commit_forgotten_in_a_restart,
    term_in_memory_falls_in_a_restart,
    votes_in_two_terms,
    vote_of_another_voter_on_the_same_node,
    timestamps_rise,
    votes_leave_in_time,
    acknowledged_in_time,
    claims_leave_after_what_replaced_them,
    term_leaves_in_time,
    log_comes_back_truncated,
    snapshot_and_what_follows,
    relay_feeds,
    learner_answers,
]


@pytest.mark.parametrize(("invariant", "history", "evidence"), BAD, ids=lambda each: getattr(each, "__name__", ""))
def test_a_bad_history_is_found(invariant: Invariant, history: History, evidence: str) -> None:
    watch = Invariants()
    history(watch)
    found = [violation for violation in watch.violations if violation.invariant is invariant]
    assert found, f"found only {watch.violations}"
    assert any(evidence in str(violation) for violation in found), [str(violation) for violation in found]


@pytest.mark.parametrize("history", NEARLY_BAD, ids=lambda each: each.__name__)
def test_a_history_that_is_nearly_bad_passes(history: History) -> None:
    watch = Invariants()
    history(watch)
    assert watch.violations == []


def test_every_invariant_has_a_bad_history() -> None:
    assert {invariant for invariant, _, _ in BAD} == set(Invariant)
