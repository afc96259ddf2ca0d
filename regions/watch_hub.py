"""Watches of one group at one node: what was written, to whom it matters, in order, from any revision that is kept.

**Theory of operation.** A watcher has a place in the order of all writes, up to which it was told. A watcher that keeps
up is *synced*: what is applied is put into its short list of events, found by an index over keys and prefixes. A
watcher that starts in the past, or whose list grows too long because nobody takes from it, is *behind*: its list is
dropped, and `take` reads on from the log of the history at its place, a bounded piece at a time, until it is synced
again. So a watcher costs bounded memory however slow its client is, and slows nobody down.

An event is made once and shared by all synced watchers; whoever encodes it for a wire keeps the bytes with it
(`Event.encoded`), so that it is encoded once, too.

The hub knows no clients: `applied` and `create` say which watchers have something, `take` hands it out.

Invariants:

1. Events of a watcher come in the order of the writes, each exactly once, none left out: from its start on, or from
   the place at which it is cancelled with the compacted revision.
2. The writes of one revision come in one batch, or in fragments that say so, if the watcher allows them.
3. A batch without events and with `progress` says that everything up to its revision was told.
"""

from bisect import bisect_right, insort
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from isochrone.errors import InvalidRequest, QueueFull
from isochrone.histograms import Histogram
from isochrone.ids import Nanos, Revision
from isochrone.probes import probe
from isochrone.regions.range_index import RangeIndex
from isochrone.regions.state.model import GroupData, KeyspaceState
from isochrone.wire.kv import check_range, in_range, prefix_end
from isochrone.wire.records import ORDER_BYTES, record_is_live, record_key, record_revision

PENDING_EVENTS_MAX = 1_000
PENDING_BYTES_MAX = 1 << 20
"""Most that waits for one watcher; beyond, it is behind and reads from the history."""
SCAN_RECORDS_MAX = 2_000
"""About how many records of the history `take` looks at for a watcher that is behind."""
SCAN_PIECES_MAX = 2
"""So many pieces of the history `take` looks at if it finds nothing in them."""
BATCH_BYTES_MAX = 1 << 20
"""Records of about so many bytes make a batch."""
WATCHERS_MAX = 100_000
"""Most watchers of one group at one node."""

_Place = TypeVar("_Place")
_ORDER_END = b"\xff\xff\xff\xff"


@dataclass(frozen=True, slots=True)
class WatchRequest:
    """What to watch."""

    key: bytes
    range_end: bytes = b""
    start_revision: int = 0
    """First revision of interest; 0 for whatever is written from now on."""
    prev_kv: bool = False
    """Tell what each key was before."""
    puts: bool = True
    deletes: bool = True
    """Which events are of interest."""
    fragment: bool = False
    """The writes of one revision may come in several batches."""


class Event:
    """One write, as watchers are told. `previous` is the version before it, where known and asked for."""

    __slots__ = ("encoded", "key", "previous", "record")

    def __init__(self, record: bytes, previous: bytes | None) -> None:
        self.record = record
        self.key = record_key(record)
        self.previous = previous
        self.encoded: dict[str, bytes] = {}
        """Encoded forms by the name of their wire."""

    def encoded_once(self, wire: str, encode: "Callable[[Event], bytes]") -> bytes:
        """The event in the form of a wire; encoded when first asked for."""
        found = self.encoded.get(wire)
        if found is None:
            found = self.encoded[wire] = encode(self)
        return found


@dataclass(frozen=True, slots=True)
class WatchBatch:
    """What to tell a watcher's client."""

    watcher: int
    revision: Revision
    """Of the group when the batch was made."""
    events: tuple[Event, ...] = ()
    fragment: bool = False
    """More of the last event's revision follows in the next batch."""
    compacted: Revision | None = None
    """The watcher is cancelled: what it was to see is compacted. It may start again from this revision."""
    progress: bool = False
    """Everything up to `revision` was told."""

    @property
    def is_empty(self) -> bool:
        """Whether it says nothing but that there is more of the history to look at."""
        return not (self.events or self.progress) and self.compacted is None


@dataclass(slots=True)
class _Watcher:
    identity: int
    request: WatchRequest
    told: bytes
    """Order of the last write that it was told of, or that does not matter to it."""
    synced: bool
    pending: list[Event] = field(default_factory=list)
    pending_bytes: int = 0
    read_to: bytes = b""
    """Order up to which `pending` holds all that matters, while it is behind."""
    ready: bool = False
    """It was said to have something, and has not been found without since."""
    ready_since: Nanos = Nanos(0)

    @property
    def next_revision(self) -> int:
        """The first revision of which it may still have to be told."""
        return int.from_bytes(self.told[:8], "big") + (self.told[8:] == _ORDER_END)


class WatchHub:
    """See the module."""

    def __init__(self, data: GroupData) -> None:
        """`data` is the state of the group, from whose history late watchers are served."""
        self._data = data
        self._watchers: dict[int, _Watcher] = {}
        self._last_identity = 0
        self._keys: dict[bytes, dict[int, _Watcher]] = {}
        self._prefixes: dict[bytes, dict[int, _Watcher]] = {}
        self._prefix_lengths: list[int] = []
        """Of each of `_prefixes`, in order."""
        self.lag_ns = Histogram()
        """Of each batch taken: for how long the watcher had not been told everything."""
        self.events_told = 0
        self._ranges: dict[tuple[bytes, bytes], dict[int, _Watcher]] = {}
        self._range_index = RangeIndex()

    def __len__(self) -> int:
        return len(self._watchers)

    @property
    def behind(self) -> int:
        """How many watchers read from the history, as they do not keep up, or began in the past."""
        return sum(not watcher.synced for watcher in self._watchers.values())

    # ---- life of a watcher

    def create(self, request: WatchRequest, now: Nanos = Nanos(0)) -> int:
        """Begin to watch; returns the watcher's id. If it starts in the past, it has something to `take` at once.

        Raises:
            InvalidRequest: no key, one that is too long, or a negative revision.
            QueueFull: too many watchers.
        """
        check_range(request.key, request.range_end)
        if request.start_revision < 0:
            raise InvalidRequest(f"start revision {request.start_revision} is negative")
        if len(self._watchers) >= WATCHERS_MAX:
            raise QueueFull(f"{len(self._watchers)} watchers of group {self._data.group} are there already")
        self._last_identity += 1
        start = request.start_revision or self._data.revision + 1
        synced = start > self._data.revision
        watcher = _Watcher(self._last_identity, request, _order_before(start), synced)
        if not synced:
            self._becomes_ready(watcher, now)
        self._watchers[watcher.identity] = watcher
        if synced:
            self._enter(watcher)
        return watcher.identity

    def cancel(self, identity: int) -> None:
        """Watch no more. Nothing happens if the watcher is gone."""
        watcher = self._watchers.get(identity)
        if watcher is not None:
            self._remove(watcher)

    def reset(self, data: GroupData, now: Nanos = Nanos(0)) -> list[int]:
        """The state was replaced by a later one: everybody reads on from its history. Returns who has something."""
        revision, self._data = self._data.revision, data
        for watcher in self._watchers.values():
            if watcher.synced:
                self._fall_behind(watcher, revision)
        return [watcher.identity for watcher in self._watchers.values() if self._becomes_ready(watcher, now)]

    # ---- what happens

    def applied(self, records: Sequence[bytes], now: Nanos = Nanos(0)) -> list[int]:
        """These were written, in this order. Returns the watchers that have something now and had nothing before."""
        ready: list[int] = []
        if not (self._keys or self._prefixes or self._ranges):
            return ready
        for record in records:
            event: Event | None = None
            for watcher in self._interested(record_key(record)):
                if not _matters(watcher.request, record) or record[:ORDER_BYTES] <= watcher.told:
                    continue
                if event is None:
                    event = Event(record, None)
                if watcher.request.prev_kv and event.previous is None:
                    event.previous = self._previous(record)
                self._add(watcher, event)
                if self._becomes_ready(watcher, now):
                    ready.append(watcher.identity)
        return ready

    def take(self, identity: int, now: Nanos = Nanos(0)) -> WatchBatch | None:
        """The next batch for a watcher; None if it has nothing, so that it will be named by `applied` again.

        A batch that holds nothing at all is not for the client: there is more of the history to look at, later.
        A watcher whose next revision is compacted is gone after the batch that says so.
        """
        watcher = self._watchers.get(identity)
        if watcher is None:
            return None
        if not watcher.synced and watcher.next_revision < self._data.compacted:
            probe("watch.compacted")
            self._remove(watcher)
            return WatchBatch(identity, self._data.revision, compacted=self._data.compacted)
        for _ in range(SCAN_PIECES_MAX):
            if watcher.synced or watcher.pending:
                break
            self._read_on(watcher)
        if not watcher.pending:
            if not watcher.synced:
                return WatchBatch(identity, self._data.revision)
            watcher.ready = False
            return None
        return self._batch(watcher, now)

    def progress(self, identity: int) -> WatchBatch | None:
        """How far a watcher is, if it was told everything; else None."""
        watcher = self._watchers.get(identity)
        if watcher is None or not watcher.synced or watcher.pending:
            return None
        return WatchBatch(identity, self._data.revision, progress=True)

    # ---- within

    def _becomes_ready(self, watcher: _Watcher, now: Nanos) -> bool:
        if watcher.ready:
            return False
        watcher.ready = True
        watcher.ready_since = now
        return True

    def _previous(self, record: bytes) -> bytes | None:
        """The version before; None if there was none, or if it may be forgotten."""
        if record_revision(record) <= self._data.compacted:
            return None
        return self._data.keyspace_of(record_key(record)).history.before(record)

    def _add(self, watcher: _Watcher, event: Event) -> None:
        watcher.pending.append(event)
        watcher.pending_bytes += len(event.record)
        if len(watcher.pending) > PENDING_EVENTS_MAX or watcher.pending_bytes > PENDING_BYTES_MAX:
            probe("watch.fell_behind")
            self._fall_behind(watcher, self._data.revision)

    def _fall_behind(self, watcher: _Watcher, revision: Revision) -> None:
        """Forget what waits for a watcher that kept up to `revision`; it reads that again."""
        self._leave(watcher)
        watcher.synced = False
        before = _just_before(watcher.pending[0]) if watcher.pending else _order_before(revision + 1)
        watcher.told = watcher.read_to = max(watcher.told, before)
        watcher.pending.clear()
        watcher.pending_bytes = 0

    def _batch(self, watcher: _Watcher, now: Nanos) -> WatchBatch:
        """Take from the list: whole revisions, unless the watcher allows fragments."""
        pending = watcher.pending
        count, size_bytes = 0, 0
        while count < len(pending) and (not count or size_bytes + len(pending[count].record) <= BATCH_BYTES_MAX):
            size_bytes += len(pending[count].record)
            count += 1
        if not watcher.request.fragment:
            while count < len(pending) and _same_revision(pending[count - 1], pending[count]):
                count += 1
        events = tuple(pending[:count])
        fragment = count < len(pending) and _same_revision(pending[count - 1], pending[count])
        del pending[:count]
        watcher.pending_bytes = sum(len(event.record) for event in pending)
        last = events[-1].record
        watcher.told = last[:ORDER_BYTES] if fragment else _order_before(record_revision(last) + 1)
        if not pending and not watcher.synced:
            watcher.told = max(watcher.told, watcher.read_to)
        self.lag_ns.record(now - watcher.ready_since)
        self.events_told += count
        return WatchBatch(watcher.identity, self._data.revision, events, fragment)

    def _read_on(self, watcher: _Watcher) -> None:
        """Read a piece of the history, always whole revisions."""
        request = watcher.request
        pieces: list[list[bytes]] = []
        horizon: int | None = None
        for state, _, _ in (
            self._data.parts(request.key, request.range_end) if request.range_end else self._home(request)
        ):
            log = state.history.log
            first = bisect_right(log, watcher.told, key=_order)
            last = first + SCAN_RECORDS_MAX
            if last < len(log):
                revision = record_revision(log[last - 1])
                last = state.history.first_from(revision + 1)
                if last < len(log):
                    horizon = revision if horizon is None else min(horizon, revision)
            pieces.append(log[first:last])
        records = sorted((record for piece in pieces for record in piece), key=_order)
        for record in records:
            if horizon is not None and record_revision(record) > horizon:
                break
            if in_range(record_key(record), request.key, request.range_end) and _matters(request, record):
                watcher.pending.append(Event(record, self._previous(record) if request.prev_kv else None))
        watcher.pending_bytes = sum(len(event.record) for event in watcher.pending)
        if horizon is None:
            watcher.synced = True
            self._enter(watcher)
            horizon = self._data.revision
        watcher.read_to = _order_before(horizon + 1)
        if not watcher.pending:
            watcher.told = max(watcher.told, watcher.read_to)

    def _home(self, request: WatchRequest) -> Iterable[tuple[KeyspaceState, bytes, bytes | None]]:
        try:
            return self._data.parts(request.key, b"")
        except InvalidRequest:
            return ()  # a key in no keyspace: nothing ever happens to it

    # ---- the index

    def _remove(self, watcher: _Watcher) -> None:
        del self._watchers[watcher.identity]
        if watcher.synced:
            self._leave(watcher)

    def _interested(self, key: bytes) -> list[_Watcher]:
        """A list of its own: whoever falls behind while it is told leaves the index."""
        found = list(self._keys.get(key, {}).values())
        if self._prefixes:
            length = 0  # each length once, and none beyond the key's
            while (at := bisect_right(self._prefix_lengths, length)) < len(self._prefix_lengths):
                length = self._prefix_lengths[at]
                if length > len(key):
                    break
                if (watchers := self._prefixes.get(key[:length])) is not None:
                    found += watchers.values()
        if self._ranges:
            for place in self._range_index.holding(key):
                found += self._ranges[place].values()
        return found

    def _enter(self, watcher: _Watcher) -> None:
        key, range_end = watcher.request.key, watcher.request.range_end
        if not range_end:
            self._keys.setdefault(key, {})[watcher.identity] = watcher
        elif range_end == prefix_end(key):
            if key not in self._prefixes:
                self._prefixes[key] = {}
                insort(self._prefix_lengths, len(key))
            self._prefixes[key][watcher.identity] = watcher
        else:
            if (key, range_end) not in self._ranges:
                self._ranges[key, range_end] = {}
                self._range_index.add(key, range_end)
            self._ranges[key, range_end][watcher.identity] = watcher

    def _leave(self, watcher: _Watcher) -> None:
        key, range_end = watcher.request.key, watcher.request.range_end
        if not range_end:
            _drop(self._keys, key, watcher)
        elif range_end == prefix_end(key):
            if _drop(self._prefixes, key, watcher):
                del self._prefix_lengths[bisect_right(self._prefix_lengths, len(key)) - 1]
        elif _drop(self._ranges, (key, range_end), watcher):
            self._range_index.remove(key, range_end)


def _drop(index: dict[_Place, dict[int, _Watcher]], place: _Place, watcher: _Watcher) -> bool:
    """Returns whether nobody is left at the place."""
    del index[place][watcher.identity]
    if not index[place]:
        del index[place]
        return True
    return False


def _matters(request: WatchRequest, record: bytes) -> bool:
    return request.puts if record_is_live(record) else request.deletes


def _order(record: bytes) -> bytes:
    return record[:ORDER_BYTES]


def _order_before(revision: int) -> bytes:
    return max(revision - 1, 0).to_bytes(8, "big") + _ORDER_END


def _just_before(event: Event) -> bytes:
    return (int.from_bytes(event.record[:ORDER_BYTES], "big") - 1).to_bytes(ORDER_BYTES, "big")


def _same_revision(first: Event, second: Event) -> bool:
    return first.record[:8] == second.record[:8]
