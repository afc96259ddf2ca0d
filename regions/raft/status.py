"""What a replica says of itself, for people and tests."""

from dataclasses import dataclass

from isochrone.ids import LogIndex, NodeId, ReplicaRole, Term, Timestamp
from isochrone.regions.raft import configuration_log, replication
from isochrone.regions.raft.progress import Feed
from isochrone.regions.raft.state import Office, RaftState
from isochrone.wire.messages import Configuration


@dataclass(frozen=True, slots=True)
class PeerStatus:
    """How a leader feeds one peer."""

    feed: Feed
    match: LogIndex
    next: LogIndex
    inflight: int
    """Unacknowledged requests with entries."""
    match_timestamp: Timestamp | None
    """See `Progress.match_timestamp`."""


@dataclass(frozen=True, slots=True)
class RaftStatus:
    """A snapshot of one replica."""

    role: ReplicaRole
    office: Office
    leader: NodeId | None
    term: Term
    vote: NodeId | None
    commit: LogIndex
    applied: LogIndex
    first: LogIndex
    last: LogIndex
    last_timestamp: Timestamp
    """Of the last entry; if memory does not hold it, the largest that this log has held."""
    retained_bytes: int
    """Encoded bytes of the entries held."""
    match: dict[NodeId, LogIndex]
    """On the leader: how far each replica is known to be durable, itself included."""
    peers: dict[NodeId, PeerStatus]
    """On the leader: how every other member is fed."""
    relay: bool
    configuration: Configuration
    """The one in force."""
    configuration_committed: bool
    """Whether that is known to be final."""
    quiescent: bool


def status_of(state: RaftState) -> RaftStatus:
    """The state in short."""
    match_ = {node: replication.match_of(state, node) for node in state.members} if state.is_leader else {}
    return RaftStatus(
        role=state.role,
        office=state.office,
        leader=state.leader,
        term=state.term,
        vote=state.vote,
        commit=state.commit,
        applied=state.applied,
        first=state.log.first_index,
        last=state.log.last_index,
        last_timestamp=state.log.cached_timestamp(state.log.last_index) or state.last_timestamp,
        retained_bytes=state.log.retained_bytes,
        match=match_,
        peers={
            node: PeerStatus(peer.feed, peer.match, peer.next, len(peer.inflight), peer.match_timestamp)
            for node, peer in state.progress.items()
        },
        relay=state.is_relay,
        configuration=state.configuration,
        configuration_committed=configuration_log.is_committed(state),
        quiescent=state.quiescent,
    )
