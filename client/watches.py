"""Watches: what is written, in order, from wherever the client is, for as long as it listens.

A `Watcher` asks the nearest node that holds the keys, and another one when that falls silent: it knows the place in the
order of writes up to which it was told, so nothing is told twice or left out. What it was told waits in a bounded
buffer; a caller that does not take from it lets the watch rest, and later it goes on from that place.

When what comes next has been compacted, the watcher reads the keys as they are, and hands that out as a `WatchGap`:
what happened in between is not known.

A node that knows no leader for a while ends its watches, and they go on elsewhere: it may be cut off from its group.
"""

import asyncio
import random
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self, final

from isochrone.errors import (
    STATUS_BY_ERROR,
    DeadlineExceeded,
    InvalidRequest,
    IsochroneError,
    QueueFull,
    Unavailable,
)
from isochrone.ids import GroupId, NodeId, Revision
from isochrone.probes import probe
from isochrone.wire.kv import RangeResult
from isochrone.wire.records import ORDER_BYTES, KeyValue, decode_record
from isochrone.wire.session import SessionMessage, WatchCancel, WatchCreate, WatchEnded, WatchEvents, WatchProgress

BUFFER_EVENTS_MAX = 10_000
BUFFER_BYTES_MAX = 32 << 20
"""What waits for the caller, after which the watch rests until half of it is taken."""
RETRY_FIRST_S = 0.05
RETRY_LAST_S = 2.0
_ORDER_END = b"\xff\xff\xff\xff"


@dataclass(frozen=True, slots=True)
class WatchEvent:
    """One write."""

    item: KeyValue
    """The key as it was set; a removed key has version 0 and no value."""
    previous: KeyValue | None
    """What it was before, if that was asked for and is known."""

    @property
    def deleted(self) -> bool:
        """Whether the key was removed."""
        return self.item.version == 0


@dataclass(frozen=True, slots=True)
class WatchGap:
    """What was written up to `revision` since the last event is compacted; these are the keys as of then."""

    revision: Revision
    items: tuple[KeyValue, ...]


@dataclass(frozen=True, slots=True)
class TakenApart:
    """A batch of events, decoded: all watchers that get it share what it holds."""

    events: tuple[tuple[bytes, WatchEvent, int], ...]
    """Each with its order and its size."""
    next_revision: int
    """Everything below was told with it; 0 if that is not known, as it has no events."""


def take_apart(message: WatchEvents) -> TakenApart:
    """Decode the events of a message."""
    previous = message.previous or (None,) * len(message.records)
    events = tuple([_event(record, before) for record, before in zip(message.records, previous, strict=True)])
    if not events:
        return TakenApart(events, 0)
    revision = int.from_bytes(events[-1][0][:8], "big")
    return TakenApart(events, revision if message.fragment else revision + 1)


def _event(record: bytes, before: bytes | None) -> tuple[bytes, WatchEvent, int]:
    told = WatchEvent(decode_record(record), None if before is None else decode_record(before))
    return record[:ORDER_BYTES], told, len(record) + len(before or b"")


class WatchCarrier(Protocol):
    """Carries a watch to a node; the dispatcher is one."""

    def join(self, watcher: "Watcher") -> None:
        """Tell a watcher of nodes that come and go, until it leaves."""

    def leave(self, watcher: "Watcher") -> None:
        """A watcher is closed."""

    def begin_watch(self, watcher: "Watcher") -> int:
        """A new number for a watch; what is told under it goes to `watcher` until `end_watch`."""

    def end_watch(self, number: int) -> None:
        """Listen no more to what is told under this number."""

    def nearest(self, group: GroupId, avoid: NodeId | None) -> NodeId | None:
        """The nearest connected node with the group's state, `avoid` only if it is the only one; or None."""

    def send_to(self, node: NodeId, message: SessionMessage) -> None:
        """Send to a node; lost if it is not connected."""


@final
class Watcher:
    """One watch: iterate over it, and `close` it (or use it as a context manager). From one task only.

    Iteration raises `InvalidRequest` or `QueueFull` if the cluster refuses the watch; it ends when the watcher or its
    client is closed. It waits for as long as nothing happens.
    """

    def __init__(
        self,
        carrier: WatchCarrier,
        create: WatchCreate,
        list_again: Callable[[], Awaitable[RangeResult]],
        rng: random.Random,
    ) -> None:
        """Made by `Client.watch`; `create` says what to watch, its number does not count."""
        self._carrier = carrier
        self._create = create
        self._list_again = list_again
        self._rng = rng
        self._loop = asyncio.get_running_loop()
        self._next_revision = create.start_revision
        self._told = b""
        self._number: int | None = None
        self._node: NodeId | None = None
        self._avoided: NodeId | None = None
        """The node that ended the watch last."""
        self._sequence = 0
        self._buffer: deque[tuple[WatchEvent, int]] = deque()
        """Events and their sizes."""
        self._buffer_bytes = 0
        self._gap = False
        """After what is in the buffer something is lost."""
        self._error: IsochroneError | None = None
        self._closed = False
        self._waiting: asyncio.Future[None] | None = None
        """What the caller waits for, done once something has happened."""
        self._timer: asyncio.TimerHandle | None = None
        self._retry_s = RETRY_FIRST_S
        carrier.join(self)
        self._open()

    @property
    def next_revision(self) -> Revision:
        """Everything below was told, or does not matter; 0 while no node has answered and no start was named."""
        return Revision(self._next_revision)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> WatchEvent | WatchGap:
        while True:
            if self._buffer:
                return self._next_event()
            if self._error is not None:
                raise self._error
            if self._closed:
                raise StopAsyncIteration
            if not self._gap:
                await self._news()
            elif gap := await self._bridge():
                return gap

    async def _news(self) -> None:
        """Wait until something has happened."""
        self._waiting = self._loop.create_future()
        await self._waiting

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Watch no more. Idempotent."""
        self._closed = True
        self._carrier.leave(self)
        self._let_go()
        if self._timer is not None:
            self._timer.cancel()
        self._wake()

    async def revisions(self) -> AsyncGenerator[tuple[WatchEvent, ...] | WatchGap, None]:
        """As iteration, but all that was written at one revision comes together: nobody sees half of a transaction."""
        async for told in self:
            if isinstance(told, WatchGap):
                yield told
                continue
            revision, events = told.item.mod_revision, [told]
            while self._may_follow(revision):
                if self._buffer:
                    events.append(self._next_event())
                else:
                    await self._news()
            # Else it is torn: by a gap, where the keys as they are now, which come next, tell all of it, or by the end.
            if self._buffer or self._next_revision > revision:
                yield tuple(events)

    def _may_follow(self, revision: Revision) -> bool:
        """Whether there is more of a revision, or may be."""
        if self._buffer:
            return self._buffer[0][0].item.mod_revision == revision
        return self._next_revision <= revision and not (self._gap or self._error or self._closed)

    def _next_event(self) -> WatchEvent:
        event, size_bytes = self._buffer.popleft()
        self._buffer_bytes -= size_bytes
        if self._number is None:
            self._open()
        return event

    async def _bridge(self) -> WatchGap | None:
        """Read what there is; None if that could not be read yet."""
        try:
            found = await self._list_again()
        except (Unavailable, DeadlineExceeded):
            probe("client.gap_cannot_be_read")
            await asyncio.sleep(self._retry_s * self._rng.uniform(0.5, 1.0))
            self._retry_s = min(2 * self._retry_s, RETRY_LAST_S)
            return None
        if self._closed:
            return None
        self._gap = False
        self._next_revision = found.revision + 1
        self._told = found.revision.to_bytes(8, "big") + _ORDER_END
        self._open()
        return WatchGap(found.revision, found.items)

    # ---- at which node

    def _open(self) -> None:
        """Watch at the nearest node, unless the watch is open or has to rest."""
        if self._number is not None or self._closed or self._gap or self._error is not None:
            return
        if len(self._buffer) > BUFFER_EVENTS_MAX // 2 or self._buffer_bytes > BUFFER_BYTES_MAX // 2:
            return
        if self._timer is not None and not self._timer.cancelled() and self._timer.when() > self._loop.time():
            return  # Soon: the last attempt failed.
        node = self._carrier.nearest(self._create.group, self._avoided)
        if node is None:
            return  # `node_up` tells when there is one.
        self._number = self._carrier.begin_watch(self)
        self._node = node
        self._sequence = 0
        create = self._create
        message = WatchCreate(
            self._number,
            create.group,
            create.key,
            create.range_end,
            self._next_revision,
            create.prev_kv,
            create.puts,
            create.deletes,
        )
        self._carrier.send_to(node, message)
        # The question may get lost; whoever answers at all answers sooner than this.
        self._wait_for(self._number, 2 * RETRY_LAST_S)

    def _wait_for(self, number: int, patience_s: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(patience_s, self._unanswered, number)

    def _unanswered(self, number: int) -> None:
        if number == self._number:
            self._avoided = self._node
            self._again()

    def _let_go(self) -> None:
        if self._number is None or self._node is None:
            return
        self._carrier.end_watch(self._number)
        self._carrier.send_to(self._node, WatchCancel(self._number))
        self._number = self._node = None

    def _again(self) -> None:
        """Watch anew after a while, perhaps elsewhere."""
        self._let_go()
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(self._retry_s * self._rng.uniform(0.5, 1.0), self._open)
        self._retry_s = min(2 * self._retry_s, RETRY_LAST_S)

    def node_up(self) -> None:
        """A node with the group's state has been connected."""
        self._open()

    def node_down(self, node: NodeId) -> None:
        """The stream to a node is gone."""
        if node == self._node:
            self._again()

    # ---- what is told

    def told(self, number: int, sequence: int, batch: TakenApart) -> None:
        """Events under a number, the present one or an old one."""
        if number != self._number:
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if sequence != self._sequence + 1:
            self._again()  # One was lost on the way.
            return
        self._sequence = sequence
        self._retry_s = RETRY_FIRST_S
        for order, event, size_bytes in batch.events:
            if order > self._told:  # Else it was told before, when the watch was open elsewhere.
                self._told = order
                self._buffer.append((event, size_bytes))
                self._buffer_bytes += size_bytes
        self._next_revision = max(self._next_revision, batch.next_revision)
        if len(self._buffer) > BUFFER_EVENTS_MAX or self._buffer_bytes > BUFFER_BYTES_MAX:
            self._let_go()
        self._wake()

    def received(self, message: WatchProgress | WatchEnded) -> None:
        """A message under the present number."""
        if message.watch != self._number:
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        match message:
            case WatchProgress(_, sequence, revision):
                if sequence != self._sequence:
                    self._again()
                elif revision:
                    self._next_revision = max(self._next_revision, revision + 1)
            case WatchEnded():
                self._ended(message)
        self._wake()

    def _ended(self, message: WatchEnded) -> None:
        error = _ERRORS.get(message.error, IsochroneError)(message.text)
        if message.compacted:
            self._let_go()
            self._gap = True
        elif isinstance(error, InvalidRequest | QueueFull):
            self._let_go()
            self._error = error
        else:
            self._avoided = self._node
            self._again()


def _plain(cls: type[Exception]) -> bool:
    return issubclass(cls, IsochroneError) and cls.__init__ is Exception.__init__


_ERRORS: dict[str, type[IsochroneError]] = {
    cls.__name__: cls for cls in STATUS_BY_ERROR if issubclass(cls, IsochroneError) and _plain(cls)
}
"""Errors by name, but those that need more than a text."""
