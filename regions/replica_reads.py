"""The linearizable queries of one replica: asked of the core, answered when the state reflects all that they must see.

Each query, or several that are answered together, has a number, the core's *context* of it. The core says when a quorum
has confirmed that this replica led after the query came, and up to where the log must be applied; then it is answered
from memory. Those that wait for a renewal or a lock are handed to the service instead, which ends them later.
"""

from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import final

from isochrone.errors import InvariantViolation, IsochroneError, NotLeader
from isochrone.ids import GroupId, Nanos, NodeId, Revision
from isochrone.probes import probe
from isochrone.regions.raft.node import RaftNode
from isochrone.regions.raft.ready import ReadReady
from isochrone.regions.requests import Read, Reads
from isochrone.regions.state_service import StateService, answer_bytes
from isochrone.wire.leases import LeaseKeepAlive, LeaseTimeToLive
from isochrone.wire.locks import LockWait

ANSWERS_BYTES_MAX = 16 << 20
"""Answers to reads of about so many bytes are made in one turn; the rest waits, so that others get their turn."""


@final
class ReplicaReads:
    """See the module."""

    def __init__(
        self,
        group: GroupId,
        core: RaftNode,
        monotonic: Callable[[], Nanos],
        service: Callable[[], StateService | None],
        known_leader: Callable[[], NodeId | None],
    ) -> None:
        """Nothing is asked yet.

        Args:
            group: the replica's.
            core: the replica's.
            monotonic: reads the node's monotonic clock.
            service: what serves from the state; None where no state is kept.
            known_leader: the leader that clients can use.
        """
        self._group = group
        self._core = core
        self._monotonic = monotonic
        self._service = service
        self._known_leader = known_leader
        self._asked: dict[int, Read | Reads] = {}
        """By context."""
        self.waiting = 0
        """How many queries wait for their answer."""
        self._last_context = 0
        self._confirmed: deque[ReadReady] = deque()
        self.put_off = False
        """Some are left for the next turn, though they could be answered now."""

    @property
    def asked(self) -> int:
        """How many came; those that are answered together count once."""
        return self._last_context

    def ask(self, read: Read | Reads) -> None:
        """Queue one query, or several. Raises `NotLeader`."""
        self._last_context += 1
        # A renewal rests on nobody else leading since it came; a leader's own lease is no proof of that to a client.
        renews = isinstance(read, Read) and isinstance(read.query, LeaseKeepAlive)
        try:
            self._core.read_index(self._last_context, leased=not renews)
        except NotLeader:
            raise self._not_leader() from None
        self._asked[self._last_context] = read
        self.waiting += _count(read)

    def refuse(self, contexts: Sequence[int]) -> None:
        """This replica does not lead any more, or never did."""
        for context in contexts:
            self._ended(context).fail(self._not_leader(), self._revision)

    def confirmed(self, reads: Sequence[ReadReady]) -> None:
        """The core lets these be answered, once the log is applied as far as each says."""
        self._confirmed.extend(reads)

    def answer(self) -> bool:
        """Answer the reads whose state is applied, as many as may be answered in one turn.

        Returns whether any was asked for again: its lease has ended.
        """
        applied = self._core.applied_index
        asked_again = self.put_off = False
        left_bytes = ANSWERS_BYTES_MAX
        while self._confirmed and self._confirmed[0].index <= applied:
            if left_bytes <= 0:
                probe("replica.reads_put_off")
                self.put_off = True
                break
            ready = self._confirmed.popleft()
            ends: list[Callable[[], None]] = []
            for context in ready.contexts:
                end, size_bytes = self._answer(self._asked[context])
                ends.append(end)
                left_bytes -= size_bytes
                if left_bytes <= 0:
                    break
            answered, rest = ready.contexts[: len(ends)], ready.contexts[len(ends) :]
            if rest:
                self._confirmed.appendleft(ReadReady(rest, ready.index, ready.lease))
            # Only now: the process may have been stopped at any point before.
            if ready.lease is None or self._core.lease_holds(ready.lease, self._monotonic()):
                for context, end in zip(answered, ends, strict=True):
                    self._ended(context)
                    end()
            else:
                probe("replica.lease_ended_while_reading")
                asked_again = True
                self._ask_again(answered)
        return asked_again

    def fail_all(self, error: IsochroneError) -> None:
        """The host stops."""
        asked, self._asked, self.waiting = self._asked, {}, 0
        self._confirmed.clear()
        for read in asked.values():
            read.fail(error, self._revision)

    def _ended(self, context: int) -> Read | Reads:
        read = self._asked.pop(context)
        self.waiting -= _count(read)
        return read

    def _ask_again(self, contexts: Sequence[int]) -> None:
        try:
            for context in contexts:
                self._core.read_index(context, leased=False)
        except NotLeader:
            self.refuse(contexts)

    def _answer(self, read: Read | Reads) -> tuple[Callable[[], None], int]:
        """What ends a read, and the bytes of its answers. They are those of now, but where it may wait for the log."""
        service = self._service()
        if service is None:
            raise InvariantViolation(f"a witness of group {self._group} was asked to read")
        if isinstance(read, Reads):
            answers = service.answer_all(read.keyspace, read.queries)
            return partial(read.done, answers, self._revision), sum(map(answer_bytes, answers))
        query = read.query
        if isinstance(query, LeaseKeepAlive | LeaseTimeToLive | LockWait) and service.office.term is None:
            # Confirmed while this replica led; what only a leader knows is gone since then.
            probe("replica.office_ended_before_the_answer")
            return partial(read.fail, self._not_leader(), self._revision), 0
        match query:
            case LeaseKeepAlive():
                return partial(service.renew, read, query), 0
            case LockWait():
                return partial(service.wait, read, query), 0
            case _:
                outcome = service.answer(read)
                return partial(read.done, outcome), len(outcome.payload)

    @property
    def _revision(self) -> Revision:
        service = self._service()
        return Revision(0) if service is None else service.machine.revision

    def _not_leader(self) -> NotLeader:
        return NotLeader(self._group, self._known_leader())


def _count(read: Read | Reads) -> int:
    return len(read.queries) if isinstance(read, Reads) else 1
