"""Log compaction: what a replica drops from the head of its log, and what happens when it may not.

Rules:
1. Nobody drops an entry beyond `truncate_to`, the leader's word for what is committed and durable on every full voter
   of every configuration that may yet be in force (`replication.truncation_bound`). So no full voter that comes back
   ever needs an entry that is gone, whoever leads.
2. A replica with state drops only what it has applied. The host stores the rows of what is applied no later than the
   truncation, so a restart never needs a dropped entry.
3. The last entry stays: after a restart its timestamp is the floor for the timestamps that follow.
4. A replica with state keeps a tail (`keep_entries`, `keep_bytes`) for learners that were away for a while. A leader
   also keeps what any replica in contact still lacks, up to half of the log cap, or a busy log might outrun a learner
   from one snapshot to the next.
5. What rule 1 keeps is bounded by the log cap. At the cap the leader refuses proposals and says for whom; nothing is
   dropped silently. A new leader's no-op and a change of the configuration are not refused: they are the way out.
"""

from isochrone.errors import Unavailable
from isochrone.ids import LogIndex, Nanos
from isochrone.probes import probe
from isochrone.regions.raft import configuration_log, replication
from isochrone.regions.raft.state import RaftState


def truncate(state: RaftState, bound: LogIndex) -> None:
    """Drop the prefix up to the leader's `bound`, as far as this replica can, once that is worth a write."""
    state.held_by_full = max(state.held_by_full, bound)
    target = LogIndex(min(bound, _spare(state)))
    if _worth_it(state, target):
        state.log.truncate_prefix(target)
        configuration_log.prefix_dropped(state)
        state.out.truncate_to = target


def _spare(state: RaftState) -> LogIndex:
    """Up to where this replica can do without its log, for its own part."""
    log, config = state.log, state.config
    if not state.keeps_state:
        return LogIndex(min(state.commit, log.durable_index, log.last_index - 1))
    kept_after = max(log.last_index - config.keep_entries, log.newest_within(config.keep_bytes))
    return LogIndex(min(state.applied, log.durable_index, log.last_index - 1, kept_after))


def _worth_it(state: RaftState, target: LogIndex) -> bool:
    low, config = state.log.truncated_index, state.config
    if target - low >= config.truncate_entries_min:
        return True
    return target > low and state.log.holds_bytes_up_to(target) >= config.truncate_bytes_min


def truncate_leader(state: RaftState, now: Nanos) -> None:
    """On the leader: drop what it may tell others to drop, and no replica in contact still lacks."""
    if not _worth_it(state, _spare(state)):
        return
    bound = replication.truncation_bound(state)
    if state.log.retained_bytes < state.config.log_bytes_max // 2:
        silent_since = now - state.config.election_timeout_ns
        needed = [progress.held for progress in state.progress.values() if progress.last_contact > silent_since]
        bound = min([bound, *(state.log.truncated_index if held is None else held for held in needed)])
    truncate(state, bound)


def check_cap(state: RaftState) -> None:
    """On the leader: refuse proposals while the log is at its cap.

    So a log exceeds its cap by what was proposed last, at most, and a large proposal is taken once there is any room.

    Raises:
        Unavailable: says which replica the log is kept for. It ends when that one returns or is removed.
    """
    retained_bytes, most_bytes = state.log.retained_bytes, state.config.log_bytes_max
    if retained_bytes < most_bytes:
        return
    probe("raft.log_cap")
    raise Unavailable(
        f"log cap: the log of group {state.config.group} retains {retained_bytes} of at most {most_bytes} bytes, "
        + _held_back_by(state)
    )


def _held_back_by(state: RaftState) -> str:
    bound = replication.truncation_bound(state)
    if bound == state.commit:
        return f"and nothing after entry {state.commit} is committed"
    holder = min(state.full_voters, key=lambda node: (replication.stored_by(state, node), node))
    return f"for replica {holder}, which has stored nothing after entry {bound}"
