"""The watches of one client's session: from the host's watches into the session's stream.

Batches are taken while little waits for the client. When more does, the watches rest, and go on when the stream has
been drained: what is written meanwhile stays in the state's history, not in memory that a slow client would fill.
Watches of one session that want the same get it in one message (`watch_lines`).

A driver without tasks of its own.
"""

from functools import partial

from isochrone.errors import IsochroneError, QueueFull, RevisionCompacted, Unavailable
from isochrone.node.turnstile import Turnstile
from isochrone.node.watch_lines import Line, Lines
from isochrone.probes import probe
from isochrone.regions.host import Host
from isochrone.regions.watch_hub import WatchBatch, WatchRequest
from isochrone.wire.session import ClientSession, WatchCancel, WatchCreate, WatchEnded, WatchEvents, WatchProgress

WATCHES_MAX = 10_000
"""Most watches of one session."""
BACKLOG_BYTES_MAX = 4 << 20
"""Watches rest while more waits for the client."""


LEADERLESS_MAX = 3
"""After so many pings without a leader in between, a node that may be cut off from the group watches no more."""


class _Open:
    """A watch of the session: how many batches of it were sent."""

    __slots__ = ("leaderless", "sequence")

    def __init__(self) -> None:
        self.sequence = 0
        self.leaderless = 0
        """How often in a row progress was told without a leader."""


class SessionWatches:
    """See the module. `close` it with the session."""

    def __init__(self, session: ClientSession, turnstile: Turnstile) -> None:
        """`turnstile`: where those that start in the past wait for their turn to read on."""
        self._session = session
        self._turnstile = turnstile
        self._open: dict[int, _Open] = {}
        self._lines = Lines(self._pump)
        self._resting: dict[Line, None] = {}
        """Lines that may have something, in the order in which they are to go on."""

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
            line = self._lines.join(host, message.group, request, number)
        except IsochroneError as error:
            self._session.send(WatchEnded(number, type(error).__name__, str(error), 0))
            return
        self._open[number] = _Open()
        self._tell_progress(number, line)
        self._pump(line)

    def cancel(self, message: WatchCancel) -> None:
        """End a watch, if there is one of that number."""
        self._open.pop(message.watch, None)
        self._lines.leave(message.watch)

    def tell_progress(self, host: Host) -> None:
        """Tell how far each watch is, and end those of groups that have lost their leader, as seen from here."""
        for number, opened in list(self._open.items()):
            line = self._lines.get(number)
            if line is None:
                continue  # ended with another one
            replica = host.replicas.get(line.group)
            led = replica is not None and replica.known_leader() is not None
            opened.leaderless = 0 if led else opened.leaderless + 1
            if opened.leaderless >= LEADERLESS_MAX:
                probe("session.watch_without_a_leader")
                self._end(number, Unavailable(f"this node knows no leader of group {line.group}"))
            else:
                self._tell_progress(number, line)

    def _tell_progress(self, number: int, line: Line) -> None:
        try:
            batch = line.watch.progress()
        except IsochroneError as error:
            self._end(number, error)
            return
        revision = 0 if batch is None else batch.revision
        self._session.send(WatchProgress(number, self._open[number].sequence, revision))

    def close(self) -> None:
        """End all watches."""
        for number in list(self._open):
            self.cancel(WatchCancel(number))

    def _pump(self, line: Line) -> None:
        """Send what a line has, as far as the client keeps up."""
        if not line.members:
            return  # its watches have ended
        try:
            while self._session.backlog_bytes <= BACKLOG_BYTES_MAX:
                batch = line.watch.take()
                if batch is None:
                    return
                if batch.is_empty:
                    probe("session.watch_reads_on")
                    self._turnstile.add(partial(self._pump, line))
                    return
                self._send(line, batch)
        except IsochroneError as error:
            for number in list(line.members):
                self._end(number, error)
            return
        probe("session.watch_rests")
        if not self._resting:
            self._session.call_when_drained(self._resume)
        self._resting[line] = None

    def _resume(self) -> None:
        resting, self._resting = self._resting, {}
        for line in resting:
            self._pump(line)

    def _send(self, line: Line, batch: WatchBatch) -> None:
        if batch.compacted is not None:
            text = f"what the watch was to see is compacted; it can start from revision {batch.compacted}"
            for number in list(line.members):
                self._end(number, RevisionCompacted(text), batch.compacted)
        elif batch.events:
            told: list[tuple[int, int]] = []
            for number in line.members:
                opened = self._open[number]
                opened.sequence += 1
                told.append((number, opened.sequence))
            records = tuple([event.record for event in batch.events])
            # Events are shared with those who ask for more.
            previous = tuple([event.previous for event in batch.events]) if line.request.prev_kv else ()
            self._session.send(WatchEvents(tuple(told), batch.revision, batch.fragment, records, previous))

    def _end(self, number: int, error: IsochroneError, compacted: int = 0) -> None:
        self.cancel(WatchCancel(number))
        self._session.send(WatchEnded(number, type(error).__name__, str(error), compacted))
