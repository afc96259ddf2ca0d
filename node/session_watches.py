"""The watches of one client's session: from the host's watches into the session's stream.

Batches are taken while little waits for the client. When more does, the watches rest, and go on when the stream has
been drained: what is written meanwhile stays in the state's history, not in memory that a slow client would fill.

A driver without tasks of its own.
"""

from functools import partial

from isochrone.errors import IsochroneError, QueueFull, RevisionCompacted, Unavailable
from isochrone.ids import GroupId
from isochrone.probes import probe
from isochrone.regions.host import Host
from isochrone.regions.watch_hub import WatchBatch, WatchRequest
from isochrone.regions.watching import Watch
from isochrone.wire.session import ClientSession, WatchCancel, WatchCreate, WatchEnded, WatchEvents, WatchProgress

WATCHES_MAX = 10_000
"""Most watches of one session."""
BACKLOG_BYTES_MAX = 4 << 20
"""Watches rest while more waits for the client."""


LEADERLESS_MAX = 3
"""After so many pings without a leader in between, a node that may be cut off from the group watches no more."""


class _Open:
    """A watch and how many batches of it were sent."""

    __slots__ = ("group", "leaderless", "sequence", "watch")

    def __init__(self, group: GroupId) -> None:
        self.group = group
        self.watch: Watch | None = None
        self.sequence = 0
        self.leaderless = 0
        """How often in a row progress was told without a leader."""


class SessionWatches:
    """See the module. `close` it with the session."""

    def __init__(self, session: ClientSession) -> None:
        self._session = session
        self._open: dict[int, _Open] = {}
        self._resting: dict[int, None] = {}
        """Watches that may have something, in the order in which they are to go on."""

    def create(self, host: Host, message: WatchCreate) -> None:
        """Begin a watch; one of the same number ends."""
        number = message.watch
        self.cancel(WatchCancel(number))
        request = WatchRequest(
            message.key,
            message.range_end,
            message.start_revision,
            prev_kv=message.prev_kv,
            puts=message.puts,
            deletes=message.deletes,
            fragment=True,
        )
        try:
            if len(self._open) >= WATCHES_MAX:
                raise QueueFull(f"the session has {WATCHES_MAX} watches already")
            opened = _Open(message.group)
            opened.watch = host.watch(message.group, request, partial(self._pump, number))
        except IsochroneError as error:
            self._session.send(WatchEnded(number, type(error).__name__, str(error), 0))
            return
        self._open[number] = opened
        self._tell_progress(number, opened)
        self._pump(number)

    def cancel(self, message: WatchCancel) -> None:
        """End a watch, if there is one of that number."""
        opened = self._open.pop(message.watch, None)
        self._resting.pop(message.watch, None)
        if opened is not None and opened.watch is not None:
            opened.watch.cancel()

    def tell_progress(self, host: Host) -> None:
        """Tell how far each watch is, and end those of groups that have lost their leader, as seen from here."""
        for number, opened in list(self._open.items()):
            replica = host.replicas.get(opened.group)
            led = replica is not None and replica.known_leader() is not None
            opened.leaderless = 0 if led else opened.leaderless + 1
            if opened.leaderless >= LEADERLESS_MAX:
                probe("session.watch_without_a_leader")
                self._end(number, Unavailable(f"this node knows no leader of group {opened.group}"))
            else:
                self._tell_progress(number, opened)

    def _tell_progress(self, number: int, opened: _Open) -> None:
        try:
            batch = opened.watch.progress() if opened.watch is not None else None
        except IsochroneError as error:
            self._end(number, error)
            return
        self._session.send(WatchProgress(number, opened.sequence, 0 if batch is None else batch.revision))

    def close(self) -> None:
        """End all watches."""
        for number in list(self._open):
            self.cancel(WatchCancel(number))

    def _pump(self, number: int) -> None:
        """Send what a watch has, as far as the client keeps up."""
        opened = self._open.get(number)
        if opened is None or opened.watch is None:
            return
        try:
            while self._session.backlog_bytes <= BACKLOG_BYTES_MAX:
                batch = opened.watch.take()
                if batch is None:
                    return
                self._send(number, opened, batch)
        except IsochroneError as error:
            self._end(number, error)
            return
        probe("session.watch_rests")
        if not self._resting:
            self._session.call_when_drained(self._resume)
        self._resting[number] = None

    def _resume(self) -> None:
        resting, self._resting = self._resting, {}
        for number in resting:
            self._pump(number)

    def _send(self, number: int, opened: _Open, batch: WatchBatch) -> None:
        if batch.compacted is not None:
            text = f"what the watch was to see is compacted; it can start from revision {batch.compacted}"
            self._end(number, RevisionCompacted(text), batch.compacted)
        elif batch.events:
            opened.sequence += 1
            records = tuple([event.record for event in batch.events])
            asked = any(event.previous is not None for event in batch.events)
            previous = tuple([event.previous for event in batch.events]) if asked else ()
            self._session.send(WatchEvents(number, opened.sequence, batch.revision, batch.fragment, records, previous))

    def _end(self, number: int, error: IsochroneError, compacted: int = 0) -> None:
        self.cancel(WatchCancel(number))
        self._session.send(WatchEnded(number, type(error).__name__, str(error), compacted))
