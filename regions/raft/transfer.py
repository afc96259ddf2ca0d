"""Leadership transfer: a leader hands its office to a full voter of its choice.

Rules (Ongaro's thesis, section 3.10; etcd's published refinements):
- While a transfer is under way the leader takes no proposals, so that the target can catch up. When the target holds
  the whole log and all of it is committed, the leader tells it to campaign at once (`TimeoutNow`). Waiting for the
  commit lets the old leader answer whoever waits, so that a transfer leaves no outcome unknown.
- That campaign skips the pre-vote, and voters do not hold on to the leader (`VoteRequest.transfer`).
- A transfer that has not led to another leader within an election timeout is given up, and the leader serves on.

HAZARD: a `TimeoutNow` may arrive at any later time, and the campaign that it causes breaks the promise on which leases
rest. So a leader that has sent one gives no lease reads any more in its term, whatever becomes of the transfer.
"""

from isochrone.errors import InvalidRequest, Unavailable
from isochrone.ids import Nanos, NodeId, ReplicaRole
from isochrone.probes import probe
from isochrone.regions.raft import lease
from isochrone.regions.raft.ready import EventName
from isochrone.regions.raft.state import RaftState, Transfer
from isochrone.wire.messages import TimeoutNow


def begin(state: RaftState, target: NodeId, now: Nanos) -> None:
    """On the leader: start to hand over to `target`. Without effect if that is under way, or for the leader itself.

    Raises:
        InvalidRequest: the target is not a full voter.
        Unavailable: a transfer to another target is under way.
    """
    if not is_full_voter(state, target):
        raise InvalidRequest(f"{target} is not a full voter of group {state.config.group}, so it cannot lead it")
    if state.transfer is not None:
        if state.transfer.target != target:
            raise _under_way(state, state.transfer)
        return
    if target == state.node:
        return
    state.transfer = Transfer(target, Nanos(now + state.config.election_timeout_ns))
    state.event(EventName.TRANSFER_BEGUN, peer=target)
    advance(state, now)


def advance(state: RaftState, now: Nanos) -> None:
    """On the leader: tell the target to campaign as soon as it can, again for each heartbeat: messages get lost."""
    transfer = state.transfer
    if transfer is None or state.commit < state.log.last_index or not is_full_voter(state, transfer.target):
        return
    if state.progress[transfer.target].match < state.log.last_index:
        return
    if transfer.told is not None:
        if now - transfer.told < state.config.heartbeat_ns:
            return
        probe("raft.transfer_told_again")
    transfer.told = now
    lease.give_up(state)
    state.send(transfer.target, TimeoutNow(state.term))


def expire(state: RaftState, now: Nanos) -> bool:
    """On the leader: give a transfer up whose time has run out. Returns whether there was one."""
    if state.transfer is None or now < state.transfer.deadline:
        return False
    probe("raft.transfer_given_up")
    state.event(EventName.TRANSFER_GIVEN_UP, peer=state.transfer.target)
    state.transfer = None
    return True


def refuse_while_under_way(state: RaftState) -> None:
    """On the leader: nothing is proposed while the target catches up. Raises `Unavailable`."""
    if state.transfer is not None:
        raise _under_way(state, state.transfer)


def is_full_voter(state: RaftState, node: NodeId) -> bool:
    """Whether `node` votes in the configuration that the group has or moves to, and holds the state."""
    return node in state.halves[0].voters and state.members[node].role is ReplicaRole.FULL


def _under_way(state: RaftState, transfer: Transfer) -> Unavailable:
    return Unavailable(f"the leadership of group {state.config.group} is being handed over to {transfer.target}")
