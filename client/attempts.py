"""One call, from its first attempt to its outcome: a state machine without I/O.

A call is sent to whoever leads its group, and again when the leader changes, when the connection breaks, or when no
answer comes for a while: links may lose frames. That is safe for writes because every attempt repeats session and
sequence. The driver asks `next` what to do now, and reports what happened: `sent`, `refused`, `lost`. An answer
ends the call and needs no method. Nothing follows an attempt at once: having sent it, the driver waits.

Invariants:
1. **What is certain.** An attempt is *open* until its outcome is known. A refusal whose class is `Rejected` or
   `InvalidRequest` settles it as surely not applied. Any other end (another refusal, a broken connection) leaves the
   call *uncertain* for good. A call ends `Rejected` or `InvalidRequest` only if no attempt is open and it is not
   uncertain, or if the refusal is one that the group has stored: no other attempt can end otherwise then.
2. **No ping-pong.** After a refusal the call turns to the leader that is known or hinted at, but asks no node twice
   until there is news of the leader or a jittered delay is over, which grows with every refusal.
3. **No waiting in vain.** `Wait` always names a time, at the latest the deadline.

Reads follow the same rules. They have no effect, so nothing hangs on what is certain, but the error tells the caller
whether the group answered at all.

This module is pure.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass

from isochrone.client.routing import LeaderView
from isochrone.errors import (
    ERROR_BY_NAME,
    ConnectionLost,
    DeadlineExceeded,
    Indeterminate,
    InvalidRequest,
    IsochroneError,
    LeadershipLost,
    NotLeader,
    Rejected,
    SessionExpired,
    StorageError,
    Unavailable,
)
from isochrone.ids import GroupId, NodeId
from isochrone.records import quickly_made
from isochrone.wire.session import Refusal

PAUSE_FIRST_S = 0.02
PAUSE_LAST_S = 1.0
"""Bounds of the delay before a node that refused is asked again, unless there is news first."""

_TRANSIENT = (NotLeader, Unavailable, LeadershipLost, ConnectionLost, DeadlineExceeded, StorageError)
"""Refusals that another attempt may cure: another node leads, or will soon."""


_NO_VIEW = LeaderView()


class SessionRefused(Rejected):
    """The group does not know the session, and no attempt took effect: open a new session and call again."""


@quickly_made
@dataclass(frozen=True, slots=True)
class Send:
    """Send the request to `node` now."""

    node: NodeId


@quickly_made
@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing to do before `until`, unless something happens."""

    until: float


@dataclass(frozen=True, slots=True)
class Fail:
    """The call is over."""

    error: IsochroneError


Step = Send | Wait | Fail


class Call:
    """One call. Times are seconds of the driver's clock."""

    __slots__ = (
        "_hint",
        "_last_refusal",
        "_patience_factor",
        "_pause_s",
        "_pause_until",
        "_refused_by",
        "_retransmit_at",
        "_target",
        "_uncertain",
        "_view",
        "attempts",
        "deadline",
        "group",
        "open_requests",
    )

    def __init__(self, group: GroupId, deadline: float) -> None:
        self.group = group
        self.deadline = deadline
        self.open_requests: dict[int, NodeId] = {}
        """Requests of the attempts whose outcome is not known, and whom they asked."""
        self._uncertain = False
        self.attempts = 0
        """How many were sent."""
        self._target: int | None = None
        """The latest attempt while its outcome is awaited."""
        self._retransmit_at = 0.0
        self._patience_factor = 1
        self._view = _NO_VIEW
        self._refused_by: tuple[NodeId, ...] = ()
        self._hint: NodeId | None = None
        self._pause_s = PAUSE_FIRST_S
        self._pause_until = 0.0
        self._last_refusal: IsochroneError | None = None

    @property
    def settled(self) -> bool:
        """Whether it is certain that no attempt so far took effect."""
        return not self.open_requests and not self._uncertain

    def wants_another(self, now: float) -> bool:
        """Whether the latest attempt has failed, and it is time for one elsewhere."""
        return self.attempts > 0 and now >= (self._pause_until if self._target is None else self._retransmit_at)

    def next(self, now: float, view: LeaderView, ready: Callable[[NodeId], bool]) -> Step:
        """What to do now, given who leads and which nodes can take a request."""
        if now >= self.deadline:
            return Fail(self._out_of_time())
        if view is not self._view:
            if self._last_refusal is not None and view != self._view:
                self._refused_by = ()
                self._hint = None
            self._view = view
        if self._target is not None and now < self._retransmit_at:
            leader = view.leader
            if leader is not None and leader != self.open_requests[self._target] and self._may_ask(leader, ready):
                return Send(leader)
            return Wait(min(self._retransmit_at, self.deadline))
        if now >= self._pause_until:
            self._refused_by = ()
        if view.leader is not None and self._may_ask(view.leader, ready):
            return Send(view.leader)
        if self._hint is not None and self._may_ask(self._hint, ready):
            return Send(self._hint)
        return Wait(min(self._pause_until, self.deadline) if self._refused_by else self.deadline)

    def sent(self, request: int, node: NodeId, now: float, patience_s: float) -> float:
        """An attempt has left. Without an answer within `patience_s` (doubled at every further try) it is repeated.

        Returns until when to wait, unless something happens.
        """
        if self.open_requests:
            self._patience_factor *= 2
        self.attempts += 1
        self.open_requests[request] = node
        self._target = request
        self._retransmit_at = now + patience_s * self._patience_factor
        return min(self._retransmit_at, self.deadline)

    def refused(self, refusal: Refusal, now: float, rng: random.Random) -> IsochroneError | None:
        """An attempt was refused. Returns the error that ends the call, or None when it goes on."""
        node = self.open_requests.pop(refusal.request, None)
        if node is None:
            return None
        is_latest = self._target == refusal.request
        error = told_error(self.group, refusal)
        if refusal.stored:
            return error
        certain = isinstance(error, Rejected | InvalidRequest)
        if isinstance(error, SessionExpired) and self.settled:
            return SessionRefused(str(error))
        if not certain:
            self._uncertain = True
        if not isinstance(error, _TRANSIENT) and (self.settled or not certain):
            return error
        self._last_refusal = error
        self._refused_by = (*self._refused_by, node)
        if is_latest:
            self._target = None
            self._hint = refusal.leader
        self._pause_until = now + self._pause_s * rng.uniform(0.5, 1.0)
        self._pause_s = min(2 * self._pause_s, PAUSE_LAST_S)
        return None

    def lost(self, node: NodeId) -> list[int]:
        """The connection to `node` broke: attempts there will not be answered. Returns their requests."""
        requests = [request for request, there in self.open_requests.items() if there == node]
        for request in requests:
            del self.open_requests[request]
            self._uncertain = True
            if self._target == request:
                self._target = None
        return requests

    def abandoned(self, reason: str) -> IsochroneError:
        """The error for a call that is given up before its deadline."""
        return Unavailable(reason) if self.settled else ConnectionLost(f"{reason}; the outcome is not known")

    def _may_ask(self, node: NodeId, ready: Callable[[NodeId], bool]) -> bool:
        return node not in self._refused_by and ready(node)

    def _out_of_time(self) -> IsochroneError:
        error: IsochroneError
        if self.attempts == 0:
            known = f"{self._view.leader} leads it" if self._view.leader else "no leader is known"
            error = Unavailable(
                f"group {self.group} could not be reached in the time given ({known}); nothing was sent"
            )
        elif self.settled:
            error = Unavailable(f"group {self.group} refused every attempt; the last time: {self._last_refusal}")
        else:
            error = DeadlineExceeded(
                f"no answer from group {self.group} in the time given; {self.attempts} attempts sent"
            )
        error.__cause__ = self._last_refusal
        return error


def told_error(group: GroupId, refusal: Refusal) -> IsochroneError:
    """The error that a node of a group told."""
    cls = ERROR_BY_NAME.get(refusal.error)
    if cls is NotLeader:
        return NotLeader(group, refusal.leader)
    if cls is None or cls is IsochroneError:
        return Indeterminate(f"{refusal.node} answered with an unknown error {refusal.error!r}: {refusal.text}")
    return cls(f"{refusal.text} (from {refusal.node})")
