"""Holds a conversation with a server of etcd's API and writes down the answers, so that two servers can be compared.

Requests go one after the other. After each of them the conversation waits until every watcher has been told all that it
must be told: an observer, a watcher of all keys from the first revision on, shows which events there are. So the
transcript depends on the requests alone, and every watcher is held against the observer on the way.

What two correct servers may differ in is not written down: ids of clusters and members, terms, ids of leases that the
server chose (numbered instead), seconds of a lease's time that have passed, the order of leases and of a lease's keys.
"""

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any, final

import grpc
import grpc.aio
from etcd_requests import PREFIX, Call, CancelWatch, CreateWatch, Request
from google.protobuf import text_format
from google.protobuf.message import Message

from isochrone.wire.etcd.generated import kv_pb2
from isochrone.wire.etcd.generated import rpc_pb2 as pb
from isochrone.wire.etcd.services_grpc import METHODS, client_call

CALL_S_MAX = 20.0
PASSED_S_MAX = 30
"""So many seconds of a lease's time may have passed in a conversation."""
NO_LEASE = 123_456_789
"""Stands in a request for a lease that the server has not made yet."""
PREFIX_END = PREFIX[:-1] + bytes((PREFIX[-1] + 1,))


@dataclass(slots=True)
class Exchange:
    """A request, what was answered, and what watchers were told because of it; all as text."""

    request: str
    answer: str = ""
    told: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return "\n".join((f"> {self.request}", f"< {self.answer}", *(f"  {line}" for line in self.told)))


def differences(ours: Sequence[Exchange], theirs: Sequence[Exchange]) -> Iterator[str]:
    """Where two transcripts of the same requests differ."""
    for number, (one, other) in enumerate(zip_longest(ours, theirs)):
        if one != other:
            yield f"request {number}:\n{one}\n--- and\n{other}"


async def converse(address: str, requests: Sequence[Request]) -> list[Exchange]:
    """Make all requests of a server that nobody else uses; returns what it answered."""
    # No proxy and no retries: the answers are the server's own.
    async with grpc.aio.insecure_channel(address, options=[("grpc.enable_retries", 0)]) as channel:
        conversation = Conversation(channel)
        await conversation.start()
        try:
            return [await conversation.exchange(request) for request in requests]
        finally:
            await conversation.close()


@final
class Conversation:
    """One conversation; see `converse`."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._channel = channel
        self._leases: list[int] = []
        """Those whose ids the server chose, in order."""
        self._compacted = -1
        self._observed = 0
        self._observer = WatchStream(channel)
        self._watches = WatchStream(channel)

    async def start(self) -> None:
        """Begin to observe."""
        request = pb.WatchCreateRequest(key=PREFIX, range_end=PREFIX_END, start_revision=1)
        await self._observer.create(request)

    async def close(self) -> None:
        """End the streams."""
        await asyncio.gather(self._observer.close(), self._watches.close())

    async def exchange(self, request: Request) -> Exchange:
        """Make one request."""
        match request:
            case Call(path, message):
                made = Exchange(f"{path} {text_of(message)}")
                if isinstance(message, pb.CompactionRequest):
                    await self._cancel_unsure_watchers()
                made.answer = await self._call(path, self._resolved(message))
            case CreateWatch(message):
                made = Exchange(f"watch {text_of(message)}")
                made.answer = self._written(await self._watches.create(message))
            case CancelWatch(watch_id):
                made = Exchange(f"cancel watch {watch_id}")
                answer = await self._watches.cancel(watch_id)
                made.answer = "nothing" if answer is None else self._written(answer)
                self._watches.watchers.pop(watch_id, None)
        made.told = await self._told()
        return made

    async def _call(self, path: str, request: Message) -> str:
        call = client_call(self._channel, path)
        try:
            if METHODS[path].request_streams:
                async with asyncio.timeout(CALL_S_MAX):
                    answer = await anext(aiter(call(iter([request]))))
            else:
                answer = await call(request, timeout=CALL_S_MAX)
        except grpc.aio.AioRpcError as error:
            return f"{error.code().name}: {error.details()}"
        if isinstance(request, pb.LeaseGrantRequest) and request.ID == 0:
            self._leases.append(answer.ID)
        if isinstance(request, pb.CompactionRequest):
            self._compacted = request.revision
        return self._written(answer)

    async def _cancel_unsure_watchers(self) -> None:
        """Cancel the watchers that began in the past and were told nothing yet.

        They may have found out that there is nothing, or not yet, and then a compaction ends them: by chance, in etcd.
        """
        for watch_id, watcher in list(self._watches.watchers.items()):
            if watcher.request.start_revision != 0 and not watcher.events:
                await self._watches.cancel(watch_id)
                del self._watches.watchers[watch_id]

    async def _told(self) -> list[str]:
        """Wait until observer and watchers are up to date; what the watchers were told since the last time."""
        key = pb.RangeRequest(key=PREFIX, range_end=PREFIX_END, count_only=True)
        revision = (await client_call(self._channel, "/etcdserverpb.KV/Range")(key, timeout=CALL_S_MAX)).header.revision
        (observer,) = self._observer.watchers.values()
        # Revisions rise with events alone, so the newest revision is that of the newest event.
        await self._observer.until(
            lambda: revision == 1 or observer.last_revision == revision, f"the observer sees revision {revision}"
        )
        news = observer.events[self._observed :]
        self._observed = len(observer.events)
        lines = []
        for watch_id, watcher in sorted(self._watches.watchers.items()):
            watcher.expect(news if watcher.checked else observer.events)
            start = watcher.request.start_revision
            if start != 0 and start < self._compacted and not watcher.checked:
                await self._watches.until(lambda: watcher.ended is not None, f"{watcher} is cancelled")  # noqa: B023
            else:
                await self._watches.until(watcher.is_up_to_date, f"{watcher} is told all")
                watcher.check()
            watcher.checked = True
            lines += [f"watcher {watch_id}: {self._written(event)}" for event in watcher.fresh()]
            if watcher.ended is not None:
                lines.append(f"watcher {watch_id} ended: {self._written(watcher.ended)}")
                del self._watches.watchers[watch_id]
        return lines

    def _resolved(self, message: Message) -> Message:
        """A request with the leases that the server chose instead of what stands for them."""
        made = type(message)()
        made.CopyFrom(message)
        for holder, name in lease_fields(made):
            number = getattr(holder, name)
            if number < 0:
                setattr(holder, name, self._leases[-number - 1] if -number <= len(self._leases) else NO_LEASE)
        return made

    def _written(self, message: Message) -> str:
        """An answer as text, without what servers may differ in."""
        made = type(message)()
        made.CopyFrom(message)
        for header in headers(made):
            header.cluster_id = header.member_id = header.raft_term = 0
        for holder, name in lease_fields(made):
            if getattr(holder, name) in self._leases:
                setattr(holder, name, -1 - self._leases.index(getattr(holder, name)))
        match made:
            case pb.LeaseTimeToLiveResponse():
                if 0 <= made.grantedTTL - made.TTL <= PASSED_S_MAX:
                    made.TTL = made.grantedTTL
                made.keys.sort()
            case pb.LeaseLeasesResponse():
                made.leases.sort(key=lambda lease: lease.ID)
        return text_of(made)


@dataclass(slots=True)
class Watcher:
    """One watcher: what it asked for, and what it was told."""

    request: pb.WatchCreateRequest
    since: int
    """The first revision that it must be told of."""
    events: list[kv_pb2.Event] = field(default_factory=list)
    expected: list[kv_pb2.Event] = field(default_factory=list)
    ended: pb.WatchResponse | None = None
    checked: bool = False
    written: int = 0

    @property
    def last_revision(self) -> int:
        """Of the newest event."""
        return self.events[-1].kv.mod_revision if self.events else 0

    def expect(self, events: Sequence[kv_pb2.Event]) -> None:
        """Expect those of these events that this watcher must be told of."""
        self.expected += filter(self._wants, events)

    def is_up_to_date(self) -> bool:
        """Whether it was told as many events as it must be."""
        return len(self.events) >= len(self.expected)

    def check(self) -> None:
        """Raise `AssertionError` unless it was told just what it must be."""
        told, expected = (list(map(bare, events[self.written :])) for events in (self.events, self.expected))
        if told != expected:
            raise AssertionError(f"watcher of {self.request} was told {self.events}, not {self.expected}")

    def _wants(self, event: kv_pb2.Event) -> bool:
        noput, nodelete = pb.WatchCreateRequest.NOPUT, pb.WatchCreateRequest.NODELETE
        filtered = noput if event.type == kv_pb2.Event.PUT else nodelete
        key, end = self.request.key, self.request.range_end
        inside = event.kv.key >= key and (end == b"\0" or event.kv.key < end) if end else event.kv.key == key
        return inside and event.kv.mod_revision >= self.since and filtered not in self.request.filters

    def fresh(self) -> list[kv_pb2.Event]:
        """The events that were not asked for yet."""
        events, self.written = self.events[self.written :], len(self.events)
        return events


@final
class WatchStream:
    """One watch stream, with its watchers by id."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.watchers: dict[int, Watcher] = {}
        self._stream: Any = client_call(channel, "/etcdserverpb.Watch/Watch")()
        self._changed = asyncio.Event()
        self._creating: pb.WatchCreateRequest | None = None
        self._created: pb.WatchResponse | None = None
        self._cancelled: pb.WatchResponse | None = None
        self._progress: pb.WatchResponse | None = None
        self._reader = asyncio.create_task(self._read())

    async def create(self, request: pb.WatchCreateRequest) -> pb.WatchResponse:
        """Create a watcher; returns the server's answer, which may be that it is cancelled at once."""
        self._creating, self._created = request, None
        await self._stream.write(pb.WatchRequest(create_request=request))
        await self.until(lambda: self._created is not None, f"an answer to {request}")
        assert self._created is not None
        return self._created

    async def cancel(self, watch_id: int) -> pb.WatchResponse | None:
        """Cancel a watcher; the server's answer, None if it gives none, as to a watcher that never was."""
        self._cancelled = self._progress = None
        await self._stream.write(pb.WatchRequest(cancel_request=pb.WatchCancelRequest(watch_id=watch_id)))
        await self._stream.write(pb.WatchRequest(progress_request=pb.WatchProgressRequest()))
        # Control messages are answered in order, so the notice of progress comes after the answer if there is one.
        await self.until(lambda: self._progress is not None, f"progress after cancelling {watch_id}")
        return self._cancelled

    async def until(self, condition: Any, what: str) -> None:
        """Wait for what the stream brings."""
        try:
            async with asyncio.timeout(CALL_S_MAX):
                while not condition():
                    if self._reader.done():
                        self._reader.result()
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise AssertionError(f"not within {CALL_S_MAX:g} s: {what}") from None

    async def close(self) -> None:
        """End the stream."""
        self._stream.cancel()
        await asyncio.gather(self._reader, return_exceptions=True)

    async def _read(self) -> None:
        try:
            async for response in self._stream:
                self._receive(response)
                self._changed.set()
        finally:
            self._changed.set()

    def _receive(self, response: pb.WatchResponse) -> None:
        if response.created:
            assert self._creating is not None, response
            if not response.canceled:
                since = self._creating.start_revision or response.header.revision + 1
                self.watchers[response.watch_id] = Watcher(self._creating, since)
            self._creating, self._created = None, response
        elif response.canceled:
            self._cancelled = response
            if response.watch_id in self.watchers:
                self.watchers[response.watch_id].ended = response
        elif response.events:
            self.watchers[response.watch_id].events.extend(response.events)
        else:
            self._progress = response


def text_of(message: Message) -> str:
    """A message on one line; long values are cut."""
    text = text_format.MessageToString(message, as_one_line=True)
    return text if len(text) < 4000 else f"{text[:200]} ... {len(text)} characters"


def bare(event: kv_pb2.Event) -> bytes:
    """An event without what only some watchers ask for."""
    return kv_pb2.Event(type=event.type, kv=event.kv).SerializeToString(deterministic=True)


def lease_fields(message: Message) -> Iterator[tuple[Any, str]]:
    """Every field that holds the id of a lease."""
    for each in nested(message):
        for descriptor in each.DESCRIPTOR.fields:
            unset = descriptor.containing_oneof is not None and not each.HasField(descriptor.name)
            if descriptor.name in ("lease", "ID") and not unset:
                yield each, descriptor.name


def headers(message: Message) -> Iterator[pb.ResponseHeader]:
    """Every header in an answer."""
    return (each for each in nested(message) if isinstance(each, pb.ResponseHeader))


def nested(message: Message) -> Iterator[Message]:
    """A message and all in it."""
    yield message
    for descriptor, value in message.ListFields():
        if descriptor.message_type is not None:
            for each in value if descriptor.is_repeated else [value]:
                yield from nested(each)
