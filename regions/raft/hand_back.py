"""Hand-back: a leader away from home gives its office to a preferred voter once that is steady.

A group has preferred voters: the full ones of its home region. After they were lost somebody else leads, and when they
are back that leader hands over by a transfer (`transfer`), so that clients at home are near their leader again.

**Steady** is a preferred voter that for a while, without a break, has answered and has kept up: at no time is it silent
for half an election timeout, or takes that long to hold what was committed. The while is five election timeouts.

**Damping.** Each hand-back that failed, or after which this replica led again within `_CAP_WAITS` such whiles, doubles
the while, up to that cap. A home that flaps is so left alone for longer and longer; one that has led for that long
starts afresh. A leader that a full replica made leader by a transfer was so chosen by an operator, and begins at the
cap: it stays for as long as that before it hands back.

Each replica counts only what befell itself: where several replicas take turns in leading for a home that flaps, each of
them backs off on its own. A relay hands over at once in any case (`relay`), and not by these rules.
"""

from isochrone.ids import Nanos, NodeId
from isochrone.probes import probe
from isochrone.regions.raft import transfer
from isochrone.regions.raft.ready import EventName
from isochrone.regions.raft.state import RaftState, Steadiness

_WAIT_TIMEOUTS = 5
"""For how many election timeouts a voter must have been steady, without damping."""
_CAP_WAITS = 64
"""The longest wait, as a multiple of the shortest."""


def took_office(state: RaftState, now: Nanos) -> None:
    """This replica leads from now on. How long it waits depends on what became of its last hand-back."""
    back, base = state.hand_back, _base_ns(state)
    back.steady.clear()
    back.looked = now
    if state.transferring and state.asked_by_full:
        back.wait_ns = _CAP_WAITS * base
    elif back.handed_at is not None and now - back.handed_at < _CAP_WAITS * base:
        probe("raft.hand_back_bounced")
        _double(state)
    else:
        back.wait_ns = base
    back.handed_at = None


def look(state: RaftState, now: Nanos) -> None:
    """On the leader, at least once for each heartbeat: hand over if it is time."""
    if not _is_away(state) or now - state.hand_back.looked < state.config.heartbeat_ns // 2:
        return
    back = state.hand_back
    back.looked = now
    for node in state.config.preferred_leaders:
        if transfer.is_full_voter(state, node):
            _judge(state, node, now)
        else:
            back.steady.pop(node, None)
    if state.transfer is not None:
        return
    for node in state.config.preferred_leaders:
        steady = back.steady.get(node)
        if steady is not None and now - steady.since >= back.wait_ns:
            state.event(EventName.HANDED_BACK, peer=node)
            back.handed_at = now
            transfer.begin(state, node, now)
            return


def has_an_heir(state: RaftState) -> bool:
    """Whether this replica leads in the place of a voter that may come back, and so has to look out for it."""
    return _is_away(state) and any(transfer.is_full_voter(state, node) for node in state.config.preferred_leaders)


def _is_away(state: RaftState) -> bool:
    """Whether this replica leads, as no relay, while others are preferred."""
    preferred = state.config.preferred_leaders
    return bool(preferred) and state.is_leader and not state.is_relay and state.node not in preferred


def given_up(state: RaftState) -> None:
    """A transfer has failed; if it was a hand-back, the next one waits longer."""
    back = state.hand_back
    if back.handed_at is not None:
        probe("raft.hand_back_failed")
        _double(state)
        back.handed_at = None
        back.steady.clear()


def _judge(state: RaftState, node: NodeId, now: Nanos) -> None:
    progress, patience_ns = state.progress[node], state.config.election_timeout_ns // 2
    steady = state.hand_back.steady.setdefault(node, Steadiness(now, state.commit, now))
    if progress.match >= steady.goal:
        steady.goal, steady.goal_at = state.commit, now
    if now - progress.last_contact >= patience_ns or now - steady.goal_at >= patience_ns:
        steady.since = steady.goal_at = now
        steady.goal = state.commit


def _base_ns(state: RaftState) -> int:
    return _WAIT_TIMEOUTS * state.config.election_timeout_ns


def _double(state: RaftState) -> None:
    back, base = state.hand_back, _base_ns(state)
    back.wait_ns = min(2 * max(back.wait_ns, base), _CAP_WAITS * base)
