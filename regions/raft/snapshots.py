"""Snapshots: how a replica that needs entries which the log no longer holds is brought to where the log begins.

By the truncation rule (`compaction`) no full voter ever needs one; learners do, and replicas that are new. A witness
has no state: it gets index, term and configuration of the leader's truncation point, and the log from there.

**Sending.** The leader's host opens a snapshot of its store and reads it chunk by chunk (`Ready.snapshot_reads`). One
chunk is under way at a time, and is kept here until it is acknowledged; it is sent again when half an election timeout
has brought no answer. The receiver's answer says how much it holds durably, and only an answer that acknowledges the
chunk under way moves on: late and repeated ones change nothing. A peer that makes no progress for long gives the
store's reader free; the next attempt begins anew.

**Receiving.** A chunk is staged durably before it is acknowledged, and the staging survives a restart. It is taken only
if it continues what is staged: same id, same position, and a checksum of everything up to its end that matches. An id
names one attempt of one leader, so pieces of two snapshots never mix. With the last chunk the store switches, in one
batch; the log goes, except for what follows an entry that has exactly the snapshot's index and term. Then the host
loads the rows (`Ready.load`); until it has, nothing is handed out to be applied.

A snapshot that brings nothing beyond the commit index is answered like a late append request.

(Published bugs that these rules exclude: a resume at a wrong offset, openraft#1113; chunks out of order taken for a
whole, camunda#4346; the checksum of the last chunk taken for that of all, camunda#57874; chunks of two attempts mixed,
smg#837; leaving this state only at exactly the snapshot's index, etcd-io/raft#124.)
"""

import google_crc32c

from isochrone.errors import check
from isochrone.ids import LogIndex, Nanos, NodeId, ReplicaRole
from isochrone.ports import StagedSnapshot
from isochrone.probes import probe
from isochrone.regions.raft import configuration_log
from isochrone.regions.raft.progress import Feed, Progress, SnapshotFeed
from isochrone.regions.raft.ready import EventName, SnapshotPart, SnapshotRead
from isochrone.regions.raft.state import RaftState
from isochrone.wire.messages import (
    AppendResponse,
    InstallSnapshot,
    SnapshotChunk,
    SnapshotId,
    SnapshotResponse,
)

PATIENCE_TIMEOUTS = 30
"""After so many election timeouts without progress an attempt is given up, and what it holds in the store freed."""

NOT_STORED = 0
"""The generation of what was staged since this replica started; its rows have one that only the store knows."""

# ---- on the leader


def begin(state: RaftState, peer: NodeId, progress: Progress) -> None:
    """The peer needs entries that the log no longer holds."""
    member = state.members.get(peer)
    bare = member is not None and member.role is ReplicaRole.WITNESS
    with_state = member is not None and member.role is ReplicaRole.LEARNER and state.keeps_state
    if not bare and not with_state:
        # A voter that lost what it acknowledged, a member that was removed; or only a relay could feed a learner.
        probe("raft.cannot_feed")
        state.event(EventName.CANNOT_FEED, progress.next, peer)
        return
    state.snapshot_attempts += 1
    feed = SnapshotFeed(state.snapshot_attempts, progressed=progress.last_contact, sent=progress.last_contact)
    progress.begin_snapshot(feed)
    state.event(EventName.SNAPSHOT_BEGUN, progress.next, peer)
    if with_state:
        state.out.snapshot_reads.append(SnapshotRead(feed.attempt, state.config.snapshot_chunk_bytes))
        return
    index = feed.index = state.log.truncated_index
    feed.chunk = SnapshotChunk(
        SnapshotId(state.term, feed.attempt, index, state.log.truncated_term),
        configuration_log.configuration_at(state, index),
        state.last_timestamp,
        with_state=False,
        position=0,
        data=b"",
        checksum=0,
        last=True,
    )
    state.send(peer, InstallSnapshot(state.term, feed.chunk))


def on_read(state: RaftState, attempt: int, part: SnapshotPart | None, now: Nanos) -> None:
    """The store has read the next rows of an attempt; None: it cannot read any further."""
    found = [(peer, progress) for peer, progress in state.progress.items() if _attempt_of(progress) == attempt]
    for peer, progress in found:
        feed = progress.snapshot
        if feed is None or feed.chunk is not None:
            continue
        if part is None:
            probe("raft.snapshot_lost_by_its_sender")
            _give_up(state, peer, progress)
            continue
        feed.index = part.index
        feed.chunk = SnapshotChunk(
            SnapshotId(state.term, attempt, part.index, part.index_term),
            part.configuration,
            state.last_timestamp,
            with_state=True,
            position=feed.position,
            data=part.data,
            checksum=int(google_crc32c.extend(feed.checksum, part.data)),
            last=part.last,
        )
        feed.sent = now
        state.send(peer, InstallSnapshot(state.term, feed.chunk))


def _attempt_of(progress: Progress) -> int | None:
    return progress.snapshot.attempt if progress.snapshot is not None else None


def on_response(state: RaftState, peer: NodeId, progress: Progress, response: SnapshotResponse, now: Nanos) -> None:
    """The peer says how much it holds durably; if that is all of the chunk under way, the next one is read."""
    feed = progress.snapshot
    if feed is None or feed.attempt != response.attempt or feed.chunk is None:
        state.event(EventName.STALE_MESSAGE, peer=peer)
        return
    if response.position != feed.chunk.end or feed.chunk.last:
        return
    feed.position, feed.checksum, feed.chunk = feed.chunk.end, feed.chunk.checksum, None
    feed.progressed = now
    state.out.snapshot_reads.append(SnapshotRead(feed.attempt, state.config.snapshot_chunk_bytes))


def on_contact(state: RaftState, peer: NodeId, progress: Progress, now: Nanos) -> None:
    """The peer has answered a heartbeat: if the chunk under way has been so for long, it or its answer is lost."""
    feed = progress.snapshot
    if feed is not None and feed.chunk is not None and now - feed.sent >= state.config.election_timeout_ns // 2:
        probe("raft.snapshot_chunk_sent_again")
        feed.sent = now
        state.send(peer, InstallSnapshot(state.term, feed.chunk))


def on_match(state: RaftState, progress: Progress) -> None:
    """The peer's match has risen: perhaps the log holds all that it needs now, by the snapshot or without it."""
    feed = progress.snapshot
    if feed is None:
        return
    enough = state.log.truncated_index if feed.index is None else min(feed.index, state.log.truncated_index)
    if progress.match >= enough:
        state.out.snapshot_ends.append(feed.attempt)
        progress.end_snapshot(Feed.REPLICATE)


def give_up_stuck(state: RaftState, now: Nanos) -> None:
    """End the attempts that have made no progress for long. When the peer is heard again, another one begins."""
    patience = PATIENCE_TIMEOUTS * state.config.election_timeout_ns
    for peer, progress in state.progress.items():
        if progress.snapshot is not None and now - progress.snapshot.progressed >= patience:
            probe("raft.snapshot_attempt_given_up")
            _give_up(state, peer, progress)


def _give_up(state: RaftState, peer: NodeId, progress: Progress) -> None:
    if progress.snapshot is not None:
        end(state, progress)
        state.event(EventName.SNAPSHOT_GIVEN_UP, progress.next, peer)
        progress.end_snapshot(Feed.PROBE)


def end(state: RaftState, progress: Progress) -> None:
    """The peer is fed no more by this leader: what its attempt holds in the store is freed."""
    if progress.snapshot is not None:
        state.out.snapshot_ends.append(progress.snapshot.attempt)


# ---- on the receiver


def on_install(state: RaftState, leader: NodeId, chunk: SnapshotChunk) -> None:
    """Stage a chunk, or say what is held; with the last one, install the snapshot."""
    if state.lacks_state():
        state.event(EventName.NO_STATE, chunk.id.index, leader)
        return
    if chunk.id.index <= state.commit:
        probe("raft.snapshot_of_nothing_new")
        accepted = AppendResponse(state.term, True, state.commit, state.term, LogIndex(0))
        state.send_when_durable(leader, accepted)
        return
    if chunk.with_state != state.keeps_state:
        state.event(EventName.NO_STATE, chunk.id.index, leader)
        return
    if state.out.chunk is not None:
        return  # One for each write; it will be sent again.
    staged = state.staged
    if staged is not None and (chunk.id.term, chunk.id.attempt) < (staged.id.term, staged.id.attempt):
        probe("raft.chunk_of_an_older_attempt")
        return
    if staged is None or staged.id != chunk.id:
        if staged is not None:
            probe("raft.snapshot_begun_anew")
        staged = StagedSnapshot(chunk.id, 0, 0, NOT_STORED)
    if chunk.position != staged.position:
        probe("raft.chunk_out_of_order")
        state.send_when_durable(leader, SnapshotResponse(state.term, chunk.id.attempt, staged.position))
        return
    if staged.generation != NOT_STORED:
        probe("raft.snapshot_resumed_after_a_restart")
    checksum = int(google_crc32c.extend(staged.checksum, chunk.data))
    if checksum != chunk.checksum:
        probe("raft.chunk_damaged")
        state.event(EventName.CHUNK_DAMAGED, chunk.id.index, leader)
        return
    state.out.chunk = chunk
    if chunk.last:
        _install(state, leader, chunk)
        return
    state.staged = StagedSnapshot(chunk.id, chunk.end, checksum, NOT_STORED)
    state.send_when_durable(leader, SnapshotResponse(state.term, chunk.id.attempt, chunk.end))


def _install(state: RaftState, leader: NodeId, chunk: SnapshotChunk) -> None:
    index = chunk.id.index
    kept = state.log.install(index, chunk.id.index_term)
    if chunk.with_state:
        probe("raft.snapshot_installed")
    else:
        probe("raft.bare_snapshot_installed")
    if kept:
        probe("raft.suffix_kept_above_a_snapshot")
    state.commit = state.handed_to_apply = index
    state.staged = None
    state.out.truncate_to = None  # What was to be dropped went with all that the snapshot replaces.
    state.last_timestamp = max(state.last_timestamp, chunk.timestamp)
    configuration_log.snapshot_installed(state, index, chunk.configuration, keeps_suffix=kept)
    if state.keeps_state:
        state.loading = index
    else:
        state.applied = index
        state.held_by_full = max(state.held_by_full, index)
    state.event(EventName.SNAPSHOT_INSTALLED, index, leader)
    state.send_when_durable(leader, AppendResponse(state.term, True, index, state.term, LogIndex(0)))


def loaded(state: RaftState, index: LogIndex) -> bool:
    """A state machine holds the snapshot up to `index`. Returns whether that is the one awaited: then what follows it
    may be applied.
    """
    if state.loading != index:
        probe("raft.snapshot_overtaken_while_loaded")
        return False
    check(state.handed_to_apply == index, "nothing is applied before the snapshot below it")
    state.loading = None
    state.applied = index
    return True
