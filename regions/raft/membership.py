"""Changes of membership on the leader: propose, leave the joint configuration, let go of who was removed.

Rules (Ongaro's thesis, section 4.3; the amendment to its single-server changes, raft-dev, July 2015):
- A leader proposes a configuration only after an entry of its own term is committed, and only while no other
  configuration is uncommitted. Without the first rule two leaders in turn may change the same configuration to two
  that share no quorum.
- A joint configuration is left only when it is committed. If it says so (`auto_leave`), whoever leads then leaves it,
  also one elected half-way (etcd#12136).
- A learner is promoted only when it has caught up, and holds whatever a witness may have dropped.
- A leader that has removed itself goes on without counting itself, until the entry that removes it is committed and
  handed out. Then it asks the best voter to take over, and steps down.
- Members that were removed are fed for a while, so that they learn of it and fall silent.

HAZARD: a removed replica that never learns of it goes on asking for pre-votes. It changes nothing thereby: its log
ends before the entry that removed it, and voters that hear a leader ignore it.
"""

from collections.abc import Sequence

from isochrone.errors import LearnerBehind, Unavailable
from isochrone.ids import LogIndex, Nanos, NodeId
from isochrone.probes import probe
from isochrone.regions.raft import configuration_log, election, replication, snapshots, transfer
from isochrone.regions.raft.changes import left_configuration, planned_change, promoted
from isochrone.regions.raft.progress import Feed, Progress
from isochrone.regions.raft.ready import EventName
from isochrone.regions.raft.state import RaftState
from isochrone.wire.configurations import encode_configuration
from isochrone.wire.messages import Configuration, EntryKind, Member, QuorumSizes, TimeoutNow

_FAREWELL_TIMEOUTS = 2
"""For how many election timeouts a removed member is fed."""


def propose(
    state: RaftState, members: Sequence[Member], quorums: QuorumSizes, *, auto_leave: bool, now: Nanos
) -> LogIndex:
    """Append the configuration that leads to these members. See `RaftNode.propose_configuration`."""
    transfer.refuse_while_under_way(state)
    _require_settled(state)
    if state.configuration.joint:
        raise Unavailable(f"group {state.config.group} is in a joint configuration, which must be left first")
    planned = planned_change(state.configuration, members, quorums, auto_leave=auto_leave)
    for node in promoted(state.configuration, planned):
        _require_caught_up(state, node, now)
    return _append(state, planned, now)


def leave_joint(state: RaftState, now: Nanos) -> LogIndex:
    """Append what follows the joint configuration. See `RaftNode.leave_joint`."""
    _require_settled(state)
    if not state.configuration.joint:
        raise Unavailable(f"group {state.config.group} is in no joint configuration")
    return _append(state, left_configuration(state.configuration), now)


def _require_settled(state: RaftState) -> None:
    group = state.config.group
    if state.commit < state.term_start:
        raise Unavailable(f"the leader of group {group} has committed nothing in its term yet; try again")
    if not configuration_log.is_committed(state):
        raise Unavailable(f"a change of the members of group {group} is under way; try again")


def _require_caught_up(state: RaftState, node: NodeId, now: Nanos) -> None:
    """A learner is ready when all that is committed is at most on its way to it, and it answers.

    What is on its way is bounded by the window, so it will hold the rest one round trip from now.
    """
    if node == state.node:
        raise Unavailable(f"{node} leads the group until its own demotion is carried out; try again")
    progress = state.progress[node]
    # Leaders before this one may have let go of all that was committed then, and so of nothing from its own term on.
    bound = max(replication.truncation_bound(state), state.term_start)
    if progress.match < bound:
        raise LearnerBehind(
            f"can only promote a learner member which is in sync with leader: {node} holds the log up to "
            f"{progress.match} only, and others may drop it up to {bound}; try again"
        )
    behind = progress.feed is not Feed.REPLICATE or progress.next <= state.commit
    # While the group sleeps nobody is asked; the nodes of those who do so too watch each other.
    asleep = state.quiescent and node not in state.slept_without
    silent = not asleep and now - progress.last_contact >= state.config.election_timeout_ns
    if behind or silent:
        raise LearnerBehind(
            f"can only promote a learner member which is in sync with leader: {node} holds {progress.match} of "
            f"{state.commit}; try again"
        )


def _append(state: RaftState, configuration: Configuration, now: Nanos) -> LogIndex:
    entry = replication.append_entry(state, EntryKind.CONFIGURATION, data=encode_configuration(configuration))
    configuration_log.log_changed(state, (entry,))
    farewell = Nanos(now + _FAREWELL_TIMEOUTS * state.config.election_timeout_ns)
    for node in state.progress:
        if node not in state.members and node not in state.departing:
            state.departing[node] = farewell
            # Whoever answers to its name from now on may have another store: what was known of it is forgotten.
            _begin_anew(state, node, entry.index, now)
    for node in state.members:
        # Who comes back while it is still fed may come with another store, of which nothing is known.
        returned = state.departing.pop(node, None) is not None
        if node != state.node and (returned or node not in state.progress):
            if returned:
                probe("raft.removed_member_returned")
            _begin_anew(state, node, entry.index, now)
    state.progress = dict(sorted(state.progress.items()))
    return entry.index


def _begin_anew(state: RaftState, node: NodeId, index: LogIndex, now: Nanos) -> None:
    """Nothing is known of a member from now on, be it new."""
    if node in state.progress:
        snapshots.end(state, state.progress[node])
    state.progress[node] = Progress(index, last_contact=now, retried=now)


def follow_up(state: RaftState, now: Nanos) -> None:
    """On the leader: do what the configuration in force asks of it once it is committed."""
    logged = state.configurations[-1]
    if state.departing:
        _let_go(state, logged.index, now)
    if state.commit < max(logged.index, state.term_start):
        return
    if logged.configuration.joint:
        if logged.configuration.auto_leave and not state.is_relay:
            if logged.index < state.term_start:
                probe("raft.joint_left_by_a_later_leader")
            _append(state, left_configuration(logged.configuration), now)
    elif state.node not in state.halves[0].voters and state.handed_to_apply >= logged.index:
        _step_down(state, now)


def _let_go(state: RaftState, index: LogIndex, now: Nanos) -> None:
    """Stop feeding removed members that know of it, or that had their time."""
    for node, deadline in list(state.departing.items()):
        progress = state.progress[node]
        knows = min(state.commit, progress.match) >= index
        if knows:
            bound = replication.truncation_bound(state)
            state.send(node, replication.heartbeat_to(state, progress, 0, bound))
        elif now < deadline:
            continue
        else:
            probe("raft.removed_member_never_knew")
        snapshots.end(state, progress)
        del state.departing[node], state.progress[node]


def _step_down(state: RaftState, now: Nanos) -> None:
    """This leader has removed itself, and that is final."""
    probe("raft.removed_leader_stepped_down")
    state.event(EventName.REMOVED_LEADER)
    heirs = [
        node
        for node, progress in state.progress.items()
        if transfer.is_full_voter(state, node) and progress.match == state.log.last_index
    ]
    if heirs:
        state.send(heirs[0], TimeoutNow(state.term))
    election.become_follower(state, state.term, None, now)
