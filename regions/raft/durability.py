"""What a replica is to make durable next, and what may leave only then.

A risen commit index alone is not worth a write: it goes along with the next one. Everything else that changes the
log, the hard state or what is staged of a snapshot is one write for each `Ready`; messages that wait for it leave with
it.
"""

from isochrone.probes import probe
from isochrone.regions.raft.ready import AppendToken, AppendWork
from isochrone.regions.raft.state import RaftState


def append_work(state: RaftState) -> AppendWork | None:
    """Take what has gathered to be stored, or to wait for what is being stored; None if there is neither."""
    out = state.out
    entries = tuple(state.log.take_unhanded())
    must_store = state.term != state.stored.term or state.vote != state.stored.vote
    # A replica that forgot that it is no voter any more would ask for votes for ever, and nobody would tell it.
    must_store |= not state.may_campaign and state.stored.commit < state.configurations[-1].index <= state.commit
    stores = bool(entries) or must_store or out.truncate_to is not None or out.chunk is not None
    if not stores and not out.when_durable:
        return None
    hard_state = state.hard_state()
    changed = stores and hard_state != state.stored
    if changed:
        state.stored = hard_state
    chunk = out.chunk
    obsolete = stores and state.staged is not None and state.staged.id.index <= state.commit
    if obsolete:
        probe("raft.staged_snapshot_overtaken_by_the_log")
        # The log has brought as much: whatever is staged goes, and so does a chunk that is only on its way there.
        state.staged = chunk = None
    token = AppendToken(state.term, state.log.last_index, state.log.epoch)
    if chunk is not None and chunk.last:
        state.installed = token
    return AppendWork(
        token,
        hard_state if changed else None,
        entries,
        out.truncate_to,
        tuple(out.when_durable),
        chunk,
        obsolete,
    )
