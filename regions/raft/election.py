"""Elections: pre-vote, votes, stickiness, check-quorum.

Rules (Ongaro's thesis, sections 3.4, 4.2.3, 6.4 and 9.6; etcd's published refinements):
- A campaign always starts with a pre-vote, which changes nothing anywhere. A real election that times out starts
  over with a pre-vote, so a replica that cannot win does not raise terms.
- A pre-candidate has forgotten its leader; otherwise two pre-candidates would refuse each other for ever.
- A granted pre-vote carries the request's term, a refusal the voter's own. A candidate that learns of a higher term
  from a refusal adopts it; otherwise a cohort with a high term and one with a long log block each other.
- Stickiness: a voter that heard from a live leader less than T ago ignores vote requests, unless the leader itself
  asked for the campaign. A leader ignores them too: it steps down by itself when it loses its quorum.
- A pre-candidate that grants a pre-vote to one with a newer log, or with the same log and an earlier place among the
  members, gives way to it, once for each lost leader. (Ours: see `_give_way`.)
- With leases that hold is a promise, kept by time alone: see `lease`.
- A leader that has not heard a quorum for T steps down, and is silent from then on.
- A vote, and any term that a message reveals, is durable before that message leaves.
- Nobody is elected without its own vote, durable, even if the others would do: they name a node, not a process. A
  zombie, whose disk is another process's, may hear the votes that its successor has asked for in the same term.
- A witness campaigns only while no leader is live, and only for a reason: it had to refuse a full voter whose log is
  older than its own, or there may be a full voter that does not know of it and so will never ask it.
"""

from isochrone.errors import check
from isochrone.ids import LogIndex, Nanos, NodeId, ReplicaRole, Term
from isochrone.probes import probe
from isochrone.regions.raft import hand_back, lease, replication, snapshots
from isochrone.regions.raft.progress import Progress
from isochrone.regions.raft.quorum import VoteOutcome, agreed_value, is_voter, vote_outcome
from isochrone.regions.raft.ready import EventName
from isochrone.regions.raft.state import Office, RaftState
from isochrone.wire.messages import EntryKind, VoteRequest, VoteResponse

_ALWAYS = 1 << 62
"""Later than any reading of a clock: a leader is always in contact with itself."""


def become_follower(state: RaftState, term: Term, leader: NodeId | None, now: Nanos) -> None:
    """Follow `leader` in `term`, or nobody yet. Work that only a leader can finish is given up."""
    check(term >= state.term, "a term never falls")
    if term > state.term:
        state.term = term
        state.vote = None
    if state.is_leader:
        _leave_leadership(state)
    if state.office is not Office.FOLLOWER or state.leader != leader:
        state.event(EventName.BECAME_FOLLOWER, peer=leader)
    state.office = Office.FOLLOWER
    state.transferring = False
    state.votes.clear()
    _set_leader(state, leader)
    if leader is not None:
        note_leader(state, now)
        state.gave_way = False
    reset_election_timer(state, now)


def note_leader(state: RaftState, now: Nanos) -> None:
    """The leader was heard: hold on to it."""
    state.leader_contact = now
    lease.promise(state, now)


def reset_election_timer(state: RaftState, now: Nanos) -> None:
    """Give the leader, or the election under way, one more timeout."""
    state.wake_up()
    state.election_deadline = deadline_after(state, now)


def deadline_after(state: RaftState, contact: Nanos) -> Nanos | None:
    """When to campaign if no leader is heard after `contact`; None on a learner, and on a witness without a reason."""
    if not state.may_campaign:
        return None
    if state.role is ReplicaRole.FULL:
        return Nanos(contact + state.draw_election_timeout())
    if state.role is ReplicaRole.WITNESS and _may_be_unknown(state):
        # Full voters come first.
        return Nanos(contact + state.config.election_timeout_ns + state.draw_election_timeout())
    return None


def _may_be_unknown(state: RaftState) -> bool:
    """On a witness: whether a full voter may not hold the configuration in force.

    1. a, b and the witness w; b is cut off. 2. a replaces w by the witness v: a and v commit it. 3. a dies, b returns.
    b asks a and w, which has no vote any more. Only b and v are a majority, and b has never heard of v.
    """
    return state.configurations[-1].index > state.held_by_full


def extend_election_timer(state: RaftState, now: Nanos) -> None:
    """The leader was heard again: as `reset_election_timer`, with the timeout that was drawn for it."""
    if state.election_deadline is not None and state.role is ReplicaRole.FULL:
        state.election_deadline = Nanos(now + state.election_timeout)
    else:
        reset_election_timer(state, now)


def campaign(state: RaftState, now: Nanos) -> None:
    """Start with a pre-vote."""
    if not is_voter(state.halves, state.node):
        probe("raft.campaign_of_one_removed_by_an_uncommitted_entry")
    if state.role is ReplicaRole.WITNESS and _may_be_unknown(state):
        probe("raft.witness_campaigned_unasked")
    state.wake_up()
    state.office = Office.PRE_CANDIDATE
    state.transferring = False
    _set_leader(state, None)
    state.event(EventName.BECAME_PRE_CANDIDATE)
    state.votes = {state.node: True}
    state.election_deadline = Nanos(now + state.draw_election_timeout())
    _request_votes(state, Term(state.term + 1), pre=True)
    _decide_pre_vote(state, now)


def campaign_for_real(state: RaftState, now: Nanos, *, transfer: bool) -> None:
    """Raise the term and ask for votes. The own vote counts once it is durable (`own_vote_durable`)."""
    check(transfer or not lease.is_bound(state, now), "nobody campaigns against a promise")
    state.wake_up()
    state.office = Office.CANDIDATE
    state.transferring = transfer
    state.term = Term(state.term + 1)
    state.vote = state.node
    _set_leader(state, None)
    state.event(EventName.BECAME_CANDIDATE)
    state.votes = {}
    state.election_deadline = Nanos(now + state.draw_election_timeout())
    _request_votes(state, state.term, pre=False)


def own_vote_durable(state: RaftState, now: Nanos) -> None:
    """The hard state with the own vote is on disk; now it counts."""
    if state.office is Office.CANDIDATE and state.vote == state.node:
        state.votes[state.node] = True
        _decide_vote(state, now)


def timed_out(state: RaftState, now: Nanos) -> None:
    """The election timer fired: no leader was heard, or the election led to nothing."""
    if not state.may_campaign:
        # Since the timer was set, a configuration without this replica has become final.
        become_follower(state, state.term, None, now)
    elif state.role is ReplicaRole.WITNESS and state.office is not Office.FOLLOWER:
        # One attempt for each reason: if a full voter still needs us, it will ask again.
        become_follower(state, state.term, None, now)
    else:
        campaign(state, now)


def on_vote_request(state: RaftState, sender: NodeId, request: VoteRequest, now: Nanos) -> None:
    """Grant or refuse. Terms have been dealt with, and requests to be ignored never get here."""
    up_to_date = state.log.is_up_to_date(request.last_index, request.last_term)
    if request.pre:
        granted = request.term > state.term and up_to_date
    else:
        free = state.vote == sender or (state.vote is None and state.leader is None)
        granted = request.term == state.term and free and up_to_date
    if not granted:
        state.event(EventName.VOTE_REFUSED, request.last_index, sender)
        _maybe_arm_witness(state, sender, up_to_date, now)
        state.send_when_durable(sender, VoteResponse(state.term, granted=False, pre=request.pre))
        return
    state.event(EventName.VOTE_GRANTED, request.last_index, sender)
    if not request.pre:
        state.vote = sender
        state.office = Office.FOLLOWER
        reset_election_timer(state, now)
    elif state.office is Office.PRE_CANDIDATE and _comes_before(state, sender, request):
        _give_way(state, now)
    state.send_when_durable(sender, VoteResponse(request.term, granted=True, pre=request.pre))


def _comes_before(state: RaftState, sender: NodeId, request: VoteRequest) -> bool:
    """Whether of two pre-candidates the other should go on: the newer log, then the earlier member, decides."""
    newer = (request.last_term, request.last_index) > (state.log.last_term, state.log.last_index)
    configuration = state.configuration
    order = [member.node for member in (*configuration.members, *configuration.outgoing)]
    # A replica that one of the two does not know of comes last: it was added later, or is on its way out.
    known = sender in order
    return newer or (known and (state.node not in order or order.index(sender) < order.index(state.node)))


def _give_way(state: RaftState, now: Nanos) -> None:
    """Leave the election to another pre-candidate, once for each lost leader.

    Replicas that lost the same leader time out within one round trip of each other. Each would win its
    pre-vote, take its own real vote, and across regions, where few votes can be spared, none would win. Only
    once, as the other may be unable to win: then both go on.
    """
    if state.gave_way:
        return
    state.gave_way = True
    probe("raft.gave_way")
    state.event(EventName.GAVE_WAY)
    state.office = Office.FOLLOWER
    state.votes.clear()
    reset_election_timer(state, now)


def on_vote_response(state: RaftState, sender: NodeId, response: VoteResponse, now: Nanos) -> None:
    """Count a vote that belongs to the campaign under way."""
    if response.pre and state.office is Office.PRE_CANDIDATE:
        if response.granted and response.term != state.term + 1:
            return
        state.votes.setdefault(sender, response.granted)
        _decide_pre_vote(state, now)
    elif not response.pre and state.office is Office.CANDIDATE and response.term == state.term:
        state.votes.setdefault(sender, response.granted)
        _decide_vote(state, now)


def ignores_vote_request(state: RaftState, request: VoteRequest, now: Nanos) -> bool:
    """Stickiness: whether a live leader makes this request not worth an answer."""
    if request.transfer:
        return False
    recent = state.quiescent or now - state.leader_contact < state.config.election_timeout_ns
    live = state.leader is not None and recent
    return state.is_leader or live or lease.is_bound(state, now)


def check_quorum(state: RaftState, now: Nanos) -> None:
    """Step down if no quorum was heard for an election timeout; else note when that would be.

    Contacts only move on, so until then there is no need to look again.
    """
    contact = agreed_value(state.halves, lambda node: _contact(state, node))
    state.quorum_deadline = Nanos(contact + state.config.election_timeout_ns)
    if now >= state.quorum_deadline:
        state.event(EventName.QUORUM_LOST)
        become_follower(state, state.term, None, now)


def _contact(state: RaftState, node: NodeId) -> int:
    if node == state.config.node:
        return _ALWAYS
    return state.progress[node].last_contact


def _become_leader(state: RaftState, now: Nanos) -> None:
    state.event(EventName.BECAME_LEADER)
    state.office = Office.LEADER
    state.election_deadline = None
    state.votes.clear()
    _set_leader(state, state.node)
    state.leader_contact = state.active_at = now
    start = LogIndex(state.log.last_index + 1)
    state.progress = {
        node: Progress(start, last_contact=now, retried=now) for node in state.members if node != state.node
    }
    state.uncommitted_bytes = state.log.bytes_between(state.commit, state.log.last_index)
    state.round = 0
    state.handed_over.clear()
    state.departing.clear()
    state.lease_given_up = False
    hand_back.took_office(state, now)
    # The barrier: only by committing an entry of its own term does a leader learn what is committed.
    state.term_start = start
    replication.append_entry(state, EntryKind.NOOP)
    state.heartbeat_deadline = Nanos(now + state.config.heartbeat_ns)
    check_quorum(state, now)


def _leave_leadership(state: RaftState) -> None:
    if state.waiting_reads or state.new_reads:
        probe("raft.deposed_leader_refuses_reads")
    for waiting in state.waiting_reads:
        state.out.refused_reads.extend(waiting.contexts)
    state.out.refused_reads.extend((*state.new_reads, *state.leased_reads))
    state.waiting_reads.clear()
    state.new_reads.clear()
    state.leased_reads.clear()
    for progress in state.progress.values():
        snapshots.end(state, progress)
    state.progress.clear()
    state.transfer = None
    state.departing.clear()
    state.broadcast = state.commit_news = False


def _set_leader(state: RaftState, leader: NodeId | None) -> None:
    if state.leader != leader:
        state.leader = leader
        state.event(EventName.LEADER_CHANGED, peer=leader)


def _request_votes(state: RaftState, term: Term, *, pre: bool) -> None:
    request = VoteRequest(term, state.log.last_index, state.log.last_term, pre, state.transferring)
    for node in sorted({node for half in state.halves for node in half.voters} - {state.node}):
        state.send_when_durable(node, request)


def _decide_pre_vote(state: RaftState, now: Nanos) -> None:
    match vote_outcome(state.halves, state.votes):
        case VoteOutcome.WON:
            campaign_for_real(state, now, transfer=False)
        case VoteOutcome.LOST:
            become_follower(state, state.term, None, now)
        case VoteOutcome.PENDING:
            pass


def _decide_vote(state: RaftState, now: Nanos) -> None:
    match vote_outcome(state.halves, state.votes):
        case VoteOutcome.WON if state.node not in state.votes:
            probe("raft.elected_before_its_own_vote")
        case VoteOutcome.WON:
            _become_leader(state, now)
        case VoteOutcome.LOST:
            become_follower(state, state.term, None, now)
        case VoteOutcome.PENDING:
            pass


def _maybe_arm_witness(state: RaftState, sender: NodeId, up_to_date: bool, now: Nanos) -> None:
    """A full voter's log lacks what this witness holds: unless a leader appears in time, feed it ourselves.

    Without this a group whose leader died after committing with the witness alone would stay without a leader.
    """
    member = state.members.get(sender)
    full = member is not None and member.role is ReplicaRole.FULL
    soon = Nanos(now + state.config.election_timeout_ns * 3 // 2)
    idle = state.office is Office.FOLLOWER and (state.election_deadline is None or state.election_deadline > soon)
    if state.role is ReplicaRole.WITNESS and state.may_campaign and full and idle and not up_to_date:
        probe("raft.witness_armed")
        state.event(EventName.WITNESS_ARMED, peer=sender)
        state.election_deadline = Nanos(now + state.draw_election_timeout())
