"""Quiescence: a group in which nothing happens costs nothing. What one replica does for it; pure.

**Theory of operation.** A leader that had no work for `quiesce_after_ns`, and whose voters all hold its whole log,
know that all of it is committed and have answered its last rounds, tells them to sleep (`Quiesce`) instead of starting
another round. From then on it neither sends heartbeats nor counts its quorum, and the followers run no election timer.
Whether leader and followers live is watched for all quiescent groups of two nodes together, by one small message per
heartbeat interval (`regions.node_heartbeats`), and whoever watches wakes a replica by `wake`.

A learner does not vote, and may be a long way off. One that answers keeps the group awake until it holds the whole log.
One that has not answered for an election timeout does not: the leader sleeps without it. The node heartbeats go on
telling its node of the sleep. It does not sleep, so the first of them that it hears makes the two differ, which wakes
the leader, and it is fed.

A leader wakes by itself as soon as there is anything to do: a proposal, a read, a transfer, an answer that shows that a
member lacks something, a request for votes. It then starts a round at once, which wakes the members. A follower wakes
by any other word of a leader, and whenever its election timer is set or it campaigns.

Invariants:

1. A quiescent leader is settled: log, commit index and its own disk agree, nothing waits, and it knew the same of every
   voter, and of every learner but those in `slept_without`. `ready` looks for work each time, so that none can lie
   there unseen.
2. A quiescent follower holds exactly the log that its leader slept on, durably, and knows that all of it is committed.
3. Sleep changes nothing that is stored, and nothing about who may vote for whom, except that a quiescent follower
   holds on to its leader (stickiness) until it wakes.
4. A replica that wakes takes up its timers where they would stand, had each word of the peer's node been one of the
   peer's replica. So failover takes no longer than without quiescence.

HAZARD: the contact times of a leader that woke are no evidence that anybody follows it: they say when nodes were heard,
or are set as for a new leader. Only the step-down may rest on them; what needs proof (reads, leases) rests on rounds.

HAZARD: a replica that nobody watches sleeps for ever. Whoever sets `quiesce_after_ns` must run the node heartbeats.

HAZARD: a group with a voter that is down does not sleep. Losing a node wakes every group that it belongs to.

HAZARD: where a learner's node lives and its replica does not (it was never made, or must be made anew), the group
sleeps by fits and starts.
"""

from collections.abc import Callable

from isochrone.ids import LogIndex, Nanos, NodeId, ReplicaRole
from isochrone.probes import probe
from isochrone.regions.raft import election, hand_back, reading
from isochrone.regions.raft.progress import Feed, Progress
from isochrone.regions.raft.ready import EventName, Slumber
from isochrone.regions.raft.state import RaftState
from isochrone.wire.messages import AppendResponse, HeartbeatResponse, Quiesce, RaftMessage


def look_for_work(state: RaftState, now: Nanos) -> None:
    """On the leader: note whether there is any, and wake for it."""
    if state.broadcast or state.commit_news or state.new_reads or state.leased_reads or state.transfer is not None:
        state.active_at = now
        if state.quiescent:
            probe("quiescence.woken_by_work")
            wake_leader(state, now, lambda _: now)


def fall_asleep(state: RaftState, now: Nanos) -> bool:
    """On the leader, when a round is due: sleep instead if that is possible. Returns whether it did."""
    after = state.config.quiesce_after_ns
    if after is None or now - state.active_at < after or not _is_settled(state, now):
        return False
    state.slept_without = tuple(peer for peer in state.progress if _is_absent(state, peer, now))
    for peer in state.progress:
        if peer not in state.slept_without:
            state.send(peer, Quiesce(state.term, state.log.last_index))
    if state.slept_without:
        probe("quiescence.slept_without_a_learner")
    state.quiescent = True
    state.event(EventName.QUIESCED)
    return True


def _is_settled(state: RaftState, now: Nanos) -> bool:
    last = state.log.last_index
    if state.commit < last or state.log.durable_index < last or state.applied < last:
        return False
    if state.is_relay or state.waiting_reads or state.transfer is not None or hand_back.has_an_heir(state):
        return False
    if state.configuration.joint or state.departing:
        return False
    return all(
        _is_absent(state, peer, now) or _knows_everything(state, peer, progress, last)
        for peer, progress in state.progress.items()
    )


def _knows_everything(state: RaftState, peer: NodeId, progress: Progress, last: LogIndex) -> bool:
    """Whether a member has answered one of the last two rounds, and those told it to commit all of the log.

    Without work for `quiesce_after_ns`, the last two rounds were started after the last commit. Heartbeats are as far
    apart as voters are, so a learner may be many rounds away: it need not have answered the last ones.
    """
    caught_up = progress.match == last and progress.feed is Feed.REPLICATE
    return caught_up and (progress.acked_round >= state.round - 1 or is_learner(state, peer))


def is_learner(state: RaftState, peer: NodeId) -> bool:
    """Whether a member is one, and no voter in either half."""
    member = state.members.get(peer)
    return member is not None and member.role is ReplicaRole.LEARNER


def _is_absent(state: RaftState, peer: NodeId, now: Nanos) -> bool:
    """Whether this is a learner that has not answered for an election timeout."""
    silent = now - state.progress[peer].last_contact >= state.config.election_timeout_ns
    return silent and is_learner(state, peer)


def on_quiesce(state: RaftState, leader: NodeId, message: Quiesce) -> None:
    """On a follower: sleep if it is just where its leader is; else the node heartbeats will show that it is not."""
    log = state.log
    if not log.last_index == log.durable_index == state.commit == message.last_index:
        probe("quiescence.not_where_the_leader_is")
        return
    state.quiescent = True
    state.election_deadline = None
    state.event(EventName.QUIESCED, peer=leader)


def on_message(state: RaftState, sender: NodeId, message: RaftMessage, now: Nanos) -> None:
    """On a quiescent leader: wake if a message says that a member does not sleep; late ones do not."""
    if message.term < state.term:
        return
    match message:
        case _ if sender in state.slept_without:
            probe("quiescence.woken_by_an_absent_learner")
            wake_leader(state, now, lambda _: now)
        case HeartbeatResponse():
            return
        case AppendResponse(accepted=True, index=index) if index <= state.log.last_index:
            return
        case _:
            probe("quiescence.woken_by_a_member")
            wake_leader(state, now, lambda _: now)


def wake_leader(state: RaftState, now: Nanos, heard: Callable[[NodeId], Nanos]) -> None:
    """On a quiescent leader: begin to lead again; `heard` says when each member's node was last heard."""
    state.wake_up()
    state.active_at = now
    for peer, progress in state.progress.items():
        progress.last_contact = max(progress.last_contact, min(now, heard(peer)))
    state.quorum_deadline = now
    reading.start_round(state, now)


def wake(state: RaftState, now: Nanos, heard: Callable[[NodeId], Nanos]) -> None:
    """End quiescence, if there is any; `heard` says when each member's node was last heard."""
    if not state.quiescent:
        return
    if state.is_leader:
        wake_leader(state, now, heard)
        return
    state.wake_up()
    if state.leader is not None:
        state.leader_contact = max(state.leader_contact, min(now, heard(state.leader)))
    state.election_deadline = election.deadline_after(state, state.leader_contact)


def slumber(state: RaftState) -> Slumber | None:
    """What the node heartbeats have to watch, if this replica sleeps."""
    if not state.quiescent or state.leader is None:
        return None
    absent = state.slept_without
    watched = tuple(peer for peer in state.progress if peer not in absent) if state.is_leader else (state.leader,)
    config = state.config
    return Slumber(state.leader, state.term, watched, config.heartbeat_ns, config.election_timeout_ns, absent)
