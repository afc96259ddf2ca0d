"""Replication: appending, feeding peers, matching logs, committing, and what replicas may drop.

Rules (Ongaro's thesis, sections 3.5, 3.6 and 10.2.1):
- A follower replaces entries only on a conflict of terms, never because a request is short or late.
- It acknowledges an index only when everything up to it is durable. A leader sends entries while its own write is
  under way, and counts itself only when that write is durable.
- Only entries of the leader's own term are committed by counting; older ones by implication.
- Entries are dropped (`compaction`) only up to `truncate_to`: committed, and durable on every full voter. So whichever
  full voter survives, whoever leads can feed it everything that it lacks.
"""

from collections.abc import Sequence

from isochrone.errors import InvariantViolation, QueueFull, StorageError, check
from isochrone.ids import KeyspaceId, LogIndex, Nanos, NodeId, ReplicaRole, Timestamp
from isochrone.probes import probe
from isochrone.regions.raft import configuration_log, snapshots
from isochrone.regions.raft.progress import Feed, Progress
from isochrone.regions.raft.quorum import agreed_value
from isochrone.regions.raft.ready import EventName, Fetch, Proposal
from isochrone.regions.raft.state import RaftState
from isochrone.wire.entries import make_entry
from isochrone.wire.messages import AppendRequest, AppendResponse, Entry, EntryKind, Heartbeat


def append_entry(state: RaftState, kind: EntryKind, proposal: Proposal | None = None, data: bytes = b"") -> Entry:
    """On the leader: add one entry to the log, with a timestamp above every one before it.

    What it holds comes from a client's `proposal`, or is `data` of the group's own.
    """
    floor = Timestamp(state.last_timestamp + 1)
    entry = make_entry(
        index=LogIndex(state.log.last_index + 1),
        term=state.term,
        kind=kind,
        timestamp=max(floor, proposal.timestamp) if proposal else floor,
        count=proposal.count if proposal else 1,
        keyspace=proposal.keyspace if proposal else KeyspaceId(""),
        trace=proposal.trace if proposal else b"",
        data=proposal.data if proposal else data,
    )
    state.log.append((entry,))
    state.last_timestamp = entry.last_timestamp
    state.uncommitted_bytes += len(entry.encoded)
    state.broadcast = True
    return entry


def propose(state: RaftState, proposals: Sequence[Proposal]) -> list[LogIndex]:
    """On the leader: append one entry for each proposal; all of them or none."""
    config = state.config
    size_bytes = sum(len(proposal.data) for proposal in proposals)
    # A quorum can commit without this replica's disk. If that hangs, the cache holds what cannot be evicted.
    beyond_cache_bytes = state.log.cached_bytes - 2 * config.cache_bytes_max
    held_bytes = max(state.uncommitted_bytes, beyond_cache_bytes)
    if held_bytes > 0 and held_bytes + size_bytes > config.uncommitted_bytes_max:
        raise QueueFull(f"group {config.group} holds {held_bytes} bytes that are uncommitted or not durable here")
    return [append_entry(state, proposal.kind, proposal).index for proposal in proposals]


def flush(state: RaftState) -> None:
    """On the leader: send what has gathered, once for each `Ready` rather than once for each proposal."""
    if not (state.broadcast or state.commit_news):
        return
    for peer, progress in state.progress.items():
        if not send_entries(state, peer, progress) and _has_news(state, peer, progress):
            state.send(peer, heartbeat_to(state, progress, 0, truncation_bound(state)))
    state.broadcast = state.commit_news = False


def _has_news(state: RaftState, peer: NodeId, progress: Progress) -> bool:
    """Whether more of what the peer holds is committed than it was told, and somebody waits for that there.

    The others hear with the next entries or heartbeat; a witness, which applies nothing, always does.
    """
    told = progress.told_commit
    if not progress.wants_news or told >= state.commit or told >= progress.match or progress.feed is not Feed.REPLICATE:
        return False
    member = state.members.get(peer)
    return member is None or member.role is not ReplicaRole.WITNESS


def on_heartbeat(state: RaftState, leader: NodeId, heartbeat: Heartbeat) -> None:
    """On a follower: learn what is committed.

    Raises:
        StorageError: the leader knows of this replica that it held more, durably, than it holds now.
    """
    if heartbeat.commit > state.log.last_index == 0 and state.role is not ReplicaRole.FULL:
        # It joins with a new store, and a leader that is out of date takes it for the one that it was before.
        probe("raft.taken_for_the_former_store")
        return
    if heartbeat.commit > state.log.last_index:
        # Within a term nothing takes back what was acknowledged, and a restart keeps what is durable.
        raise StorageError(
            f"the disk has lost entries that were synced: {leader} was told that group {state.config.group} is stored "
            f"up to entry {heartbeat.commit} at least, and the log ends at {state.log.last_index}. Its votes may be "
            "lost as well: remove this member, and let the node rejoin as a learner with a new store"
        )
    advance_commit(state, heartbeat.commit)


def heartbeat_to(state: RaftState, progress: Progress, round_: int, truncate_to: LogIndex) -> Heartbeat:
    """A heartbeat that never tells a peer of a commit index beyond what it is known to hold."""
    commit = min(state.commit, progress.match)
    progress.told_commit = max(progress.told_commit, commit)
    return Heartbeat(state.term, commit, round_, truncate_to)


def send_entries(state: RaftState, peer: NodeId, progress: Progress, *, even_if_empty: bool = False) -> bool:
    """Send whatever the peer lacks, as far as its window allows. Returns whether anything was sent."""
    config = state.config
    sent = False
    if progress.next <= state.log.truncated_index and not progress.waits:
        # Be the window full: whatever becomes of the requests in it, what comes after them is gone.
        snapshots.begin(state, peer, progress)
        return False
    while progress.can_send(config.inflight_messages_max, config.inflight_bytes_max):
        if progress.next > state.log.last_index and not (even_if_empty and not sent):
            break
        if progress.next < state.log.cache_first:
            probe("raft.peer_fed_from_storage")
            progress.fetching = True
            last = LogIndex(state.log.cache_first - 1)
            state.out.fetches.append(Fetch(peer, progress.next, last, config.append_bytes_max))
            break
        entries = state.log.cached_up_to(progress.next, state.log.last_index, config.append_bytes_max)
        _send_append(state, peer, progress, entries)
        sent = True
        if not entries:
            break
    return sent


def on_fetched(state: RaftState, peer: NodeId, entries: Sequence[Entry]) -> None:
    """Entries read from storage for a peer; stale ones are dropped, and the peer is looked at anew."""
    progress = state.progress.get(peer)
    if progress is None:
        return
    progress.fetching = False
    # The prefix may have been dropped meanwhile: then not even the entry before these can be named any more.
    current = bool(entries) and entries[0].index == progress.next > state.log.truncated_index
    if current and all(state.log.term_at(entry.index) == entry.term for entry in entries):
        _send_append(state, peer, progress, list(entries))
    send_entries(state, peer, progress)


def _send_append(state: RaftState, peer: NodeId, progress: Progress, entries: list[Entry]) -> None:
    previous = LogIndex(progress.next - 1)
    previous_term = state.log.term_at(previous)
    if previous_term is None:
        raise InvariantViolation(f"{peer} is to be fed after entry {previous}, which is not held")
    state.send(
        peer,
        AppendRequest(state.term, previous, previous_term, tuple(entries), state.commit, truncation_bound(state)),
    )
    last = entries[-1].index if entries else previous
    progress.told_commit = max(progress.told_commit, min(state.commit, last))
    if entries:
        progress.sent(entries[-1].index, sum(len(entry.encoded) for entry in entries))
    elif progress.feed is Feed.PROBE:
        progress.probing = True


def on_append_request(state: RaftState, sender: NodeId, request: AppendRequest) -> None:
    """On a follower: match, store, acknowledge once durable."""
    log = state.log
    if state.lacks_state():
        probe("raft.former_witness_named_a_learner")
        state.event(EventName.NO_STATE, peer=sender)
        return
    if request.previous_index < state.commit:
        # A late or repeated request. What is committed matches in any case.
        acknowledge(state, sender, state.commit)
        return
    if log.term_at(request.previous_index) != request.previous_term:
        hint = log.last_index_with_term_at_most(request.previous_index, request.previous_term)
        hint_term = log.term_at(hint)
        if hint_term is None:
            raise InvariantViolation(f"the hint {hint} lies outside the log")
        state.event(EventName.APPEND_REFUSED, request.previous_index, sender)
        state.reply(sender, AppendResponse(state.term, False, hint, hint_term, request.previous_index))
        return
    _store_new_entries(state, request.entries)
    last = LogIndex(request.previous_index + len(request.entries))
    advance_commit(state, min(request.commit, last))
    if state.lacks_state():
        return  # what was just stored names it so; an acknowledgement would let it be promoted
    acknowledge(state, sender, last)


def acknowledge(state: RaftState, leader: NodeId, index: LogIndex) -> None:
    """On a follower: say that the log matches up to `index`, once everything in memory now is durable."""
    state.send_when_durable(leader, AppendResponse(state.term, True, index, state.term, LogIndex(0), state.wants_news))


def want_news(state: RaftState, wanted: bool) -> bool:
    """On a follower: whether somebody waits here for what is committed. Returns whether there is something to send.

    Whoever begins to wait also waits for entries that are held already. If their acknowledgement said that nobody does,
    the leader may have no reason of its own to tell of them before its next heartbeat, so it is told.
    """
    begins, state.wants_news = wanted and not state.wants_news, wanted
    if not begins or state.leader is None or state.is_leader or state.lacks_state():
        return False
    if state.commit == state.log.last_index:
        return False
    probe("raft.news_wanted_of_entries_that_are_held")
    acknowledge(state, state.leader, state.commit)
    return True


def _store_new_entries(state: RaftState, entries: Sequence[Entry]) -> None:
    for position, entry in enumerate(entries):
        held = state.log.term_at(entry.index)
        if held == entry.term:
            continue
        check(entry.index > state.commit, f"entry {entry.index} conflicts with a committed one")
        if held is not None:
            probe("raft.suffix_replaced")
            state.event(EventName.SUFFIX_REPLACED, entry.index)
        state.log.replace_suffix(entry.index, entries[position:])
        configuration_log.log_changed(state, entries[position:])
        state.last_timestamp = max(state.last_timestamp, entries[-1].last_timestamp)
        return


def on_append_response(state: RaftState, sender: NodeId, response: AppendResponse) -> None:
    """On the leader: move a peer's progress, and with it perhaps the commit index."""
    progress = state.progress[sender]
    if response.accepted:
        check(response.index <= state.log.last_index, f"{sender} acknowledges entries that were never sent")
        begins_to_wait = response.wants_news and not progress.wants_news
        progress.wants_news = response.wants_news
        if progress.accepted(response.index) or begins_to_wait:
            progress.match_timestamp = state.log.cached_timestamp(progress.match)
            snapshots.on_match(state, progress)
            maybe_commit(state)
            # What the last ones acknowledge is committed already. Watchers and readers wait for it there, too.
            state.commit_news = state.commit_news or _has_news(state, sender, progress)
    else:
        hint = state.log.last_index_with_term_at_most(response.index, response.hint_term)
        if not progress.refused(response.rejected_index, hint):
            return
        send_entries(state, sender, progress, even_if_empty=True)
        return
    send_entries(state, sender, progress)


def on_heartbeat_response(state: RaftState, sender: NodeId, now: Nanos) -> None:
    """On the leader: a peer that lost a message is noticed here, since nothing else may follow to reveal it."""
    progress = state.progress[sender]
    if now - progress.retried < state.config.heartbeat_ns // 2:
        return
    progress.retried = now
    if progress.feed is Feed.SNAPSHOT:
        snapshots.on_contact(state, sender, progress, now)
        return
    progress.probing = False
    if progress.match < state.log.last_index or progress.feed is Feed.PROBE:
        _reopen_window(state, sender, progress)


def _reopen_window(state: RaftState, peer: NodeId, progress: Progress) -> None:
    """Send what is left to send, and at least a probe of what was sent: if that was lost, the refusal will show it."""
    if send_entries(state, peer, progress, even_if_empty=True) or progress.fetching:
        return
    if progress.next <= state.log.truncated_index:
        return
    probe("raft.window_full")
    # The window is full. If its requests are lost, only a request beyond them brings the answer that says so.
    _send_append(state, peer, progress, [])


def maybe_commit(state: RaftState) -> None:
    """On the leader: commit what a quorum of every half holds durably."""
    index = LogIndex(agreed_value(state.halves, lambda node: match_of(state, node)))
    if index > state.commit and state.log.term_at(index) == state.term:
        advance_commit(state, index)
        state.commit_news = True


def match_of(state: RaftState, node: NodeId) -> LogIndex:
    """On the leader: up to where `node` is known to hold the log durably."""
    return state.log.durable_index if node == state.config.node else state.progress[node].match


def advance_commit(state: RaftState, index: LogIndex) -> None:
    """Raise the commit index; never beyond the log."""
    if index <= state.commit:
        return
    check(index <= state.log.last_index, "nothing beyond the log is committed")
    if state.is_leader:
        state.uncommitted_bytes -= state.log.bytes_between(state.commit, index)
    before, state.commit = state.commit, index
    configuration_log.commit_advanced(state, before)


def truncation_bound(state: RaftState) -> LogIndex:
    """On the leader: everything up to here is committed, and durable on every full voter, whoever leads next."""
    bound = state.commit
    for node in state.full_voters:
        bound = min(bound, stored_by(state, node))
    return bound


def stored_by(state: RaftState, node: NodeId) -> LogIndex:
    """On the leader: up to where `node` is known to hold the log; 0 for a removed member that had its time."""
    if node == state.node:
        return state.log.durable_index
    progress = state.progress.get(node)
    return LogIndex(0) if progress is None else progress.match
