"""A witness that leads: it feeds a full replica and hands over.

It takes no proposals and no reads. Once a full voter holds its whole log, it tells that voter to campaign at
once. If that comes to nothing within an election timeout, it tells the next best. A witness that hears no
quorum steps down like any leader.
"""

from isochrone.ids import Nanos, NodeId, ReplicaRole
from isochrone.probes import probe
from isochrone.regions.raft.quorum import is_voter
from isochrone.regions.raft.ready import EventName
from isochrone.regions.raft.state import RaftState
from isochrone.wire.messages import TimeoutNow


def hand_over(state: RaftState, now: Nanos) -> None:
    """On a relay: tell a full voter that has everything to take over, at most one in each election timeout."""
    timeout = state.config.election_timeout_ns
    if any(now - told < timeout for told in state.handed_over.values()):
        return
    ready = [
        node
        for node, progress in state.progress.items()
        if _votes_fully(state, node) and progress.match == state.log.last_index
    ]
    if not ready:
        return
    target = min(ready, key=lambda node: (state.handed_over.get(node, 0), node))
    state.handed_over[target] = now
    probe("raft.relay_handed_over")
    state.event(EventName.RELAY_HANDED_OVER, peer=target)
    state.send(target, TimeoutNow(state.term))


def _votes_fully(state: RaftState, node: NodeId) -> bool:
    return is_voter(state.halves, node) and state.members[node].role is ReplicaRole.FULL
