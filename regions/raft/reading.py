"""Linearizable reads by ReadIndex (Ongaro's thesis, section 6.4), batched.

A read that arrives at the leader notes the commit index, provided that an entry of the leader's own term is committed;
otherwise it waits for that. All reads of one turn share one heartbeat round. When a quorum has answered that round or a
later one, nobody else led when the reads arrived, and they may be answered from state applied up to the noted index.
Rounds are cumulative, so a lost heartbeat costs only time.
"""

from isochrone.ids import Nanos, NodeId
from isochrone.regions.raft import lease, replication
from isochrone.regions.raft.quorum import agreed_value
from isochrone.regions.raft.ready import ReadReady
from isochrone.regions.raft.state import RaftState, WaitingRead


def start_round(state: RaftState, now: Nanos) -> None:
    """Send a heartbeat of a new round to every peer, and tie to it the reads that have none yet."""
    state.round += 1
    if state.new_reads and _knows_commit(state):
        state.waiting_reads.append(WaitingRead(state.round, state.commit, state.new_reads))
        state.new_reads = []
    bound = replication.truncation_bound(state)
    for peer, progress in state.progress.items():
        lease.note_round(state, progress, now)
        state.send(peer, replication.heartbeat_to(state, progress, state.round, bound))
    state.heartbeat_deadline = Nanos(now + state.config.heartbeat_ns)
    release_confirmed(state)


def flush(state: RaftState, now: Nanos) -> None:
    """Start one round for all reads that have gathered and that no lease covers."""
    if state.leased_reads:
        lease.flush(state, now)
    if state.new_reads and _knows_commit(state):
        start_round(state, now)


def release_confirmed(state: RaftState) -> None:
    """Release the reads whose round a quorum has answered."""
    confirmed = agreed_value(state.halves, lambda node: _acked_round(state, node)) if state.waiting_reads else 0
    while state.waiting_reads and state.waiting_reads[0].round <= confirmed:
        waiting = state.waiting_reads.popleft()
        state.out.reads.append(ReadReady(tuple(waiting.contexts), waiting.index))


def _knows_commit(state: RaftState) -> bool:
    return state.commit >= state.term_start


def _acked_round(state: RaftState, node: NodeId) -> int:
    return state.round if node == state.config.node else state.progress[node].acked_round
