"""Leases: a leader answers reads from its own state, without asking anybody, while no other leader can exist.

**The promise.** A voter that hears a leader takes no part in an election for the election timeout T from then on, by
its own clock: it gives no vote and no pre-vote, and does not campaign. It stays bound when it forgets its leader, as
when a late message reveals a higher term. A voter that has restarted has forgotten whom it heard, so it is bound for
one T from its start; only one that has never been in any term cannot have promised anything.

**The lease.** For each peer the leader knows the time at which it sent the latest heartbeat that the peer has answered.
The peer heard that heartbeat after it was sent, so its promise lasts at least until T after the *sending*, if both
clocks ran alike. With clocks that run wrong by up to ρ, the leader's may show too little and the voter's too much: a
lease ends T · (1 - ρ) / (1 + ρ) after the sending. It rests on what a commit quorum has promised, because every
election quorum shares a voter with that. As with ReadIndex, an entry of the leader's own term must be committed.

**Afterwards.** The clock may have been read long before the state is: a process can be stopped in between. So whoever
answers a leased read asks `holds` again after it has read the state, with the clock read anew; if the lease has ended,
the read is asked for again by ReadIndex.

**Transfer.** A campaign at the leader's wish breaks the promises to that leader, and the message that causes it may
arrive at any time. So a leader that has sent one gives up its lease for the rest of its term. Leaders of earlier terms
have no lease left by then: theirs ended, or were given up, before this one was elected.

HAZARD: all this holds only while clocks keep their bound (`RaftConfig.clock_drift_ppm_max`) and show the time that a
machine was suspended (`CLOCK_BOOTTIME`). A virtual machine that is moved or restored to a snapshot may lose time that
no clock inside shows. Therefore leases are off unless asked for.

HAZARD: the voters' T must not be less than the leader's, and all must use leases. A group's settings may change only
while all its nodes are stopped; the topology gives a group with leases a name of its own.
"""

from isochrone.ids import Nanos, NodeId, Term
from isochrone.probes import probe
from isochrone.regions.raft.config import RaftConfig
from isochrone.regions.raft.progress import Progress
from isochrone.regions.raft.quorum import agreed_value
from isochrone.regions.raft.ready import ReadReady
from isochrone.regions.raft.state import RaftState

_ALWAYS = 1 << 62
"""Later than any reading of a clock: a leader keeps its promise to itself by leading."""
_MILLION = 1_000_000


# ---- the voter


def promise(state: RaftState, now: Nanos) -> None:
    """A leader was heard, or may have been before this replica's start: no other is elected with its help for T."""
    if state.config.lease_reads:
        state.promised_until = Nanos(now + state.config.election_timeout_ns)


def is_bound(state: RaftState, now: Nanos) -> bool:
    """Whether a promise keeps this replica out of elections."""
    return now < state.promised_until


# ---- the leader


def length_ns(config: RaftConfig) -> int:
    """How long after a heartbeat was sent its answer still protects the leader."""
    drift = config.clock_drift_ppm_max
    return config.election_timeout_ns * (_MILLION - drift) // (_MILLION + drift)


def note_round(state: RaftState, progress: Progress, now: Nanos) -> None:
    """A heartbeat leaves. One is timed at a time: an answer to it or to a later one counts from its sending."""
    if state.config.lease_reads and not progress.timed_round:
        progress.timed_round, progress.timed_sent = state.round, now


def note_answer(progress: Progress, round_: int) -> None:
    """A heartbeat of this round was answered."""
    if progress.timed_round and round_ >= progress.timed_round:
        progress.promised_since = progress.timed_sent
        progress.timed_round = 0


def holds(state: RaftState, term: Term, now: Nanos) -> bool:
    """Whether this replica led in `term` without a break until `now`, and nobody else did."""
    if not state.is_leader or state.term != term or state.lease_given_up or state.commit < state.term_start:
        return False
    return now < agreed_value(state.halves, lambda node: _protected_since(state, node)) + length_ns(state.config)


def _protected_since(state: RaftState, node: NodeId) -> int:
    return _ALWAYS if node == state.node else state.progress[node].promised_since


def give_up(state: RaftState) -> None:
    """On the leader: no leased read is answered any more in this term, one that was allowed already included."""
    state.lease_given_up = True


def flush(state: RaftState, now: Nanos) -> None:
    """On the leader: allow the reads that have gathered under the lease, or leave them to ReadIndex."""
    reads, state.leased_reads = state.leased_reads, []
    if holds(state, state.term, now):
        state.out.reads.append(ReadReady(tuple(reads), state.commit, state.term))
    else:
        probe("raft.lease_does_not_hold")
        state.new_reads.extend(reads)
