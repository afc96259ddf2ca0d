"""etcd's Watch service: any number of watchers on one stream, each fed from a watch of the host.

Batches are taken while little waits for the client. When more does, the watchers rest and go on when it has been sent:
what is written meanwhile stays in the group's history, not in memory that a slow client would fill. An event is encoded
once, for all watchers of the node; watchers of a stream that want the same share a watch (`watch_lines`), and what
they are told differs in a few bytes.
"""

import asyncio
from dataclasses import dataclass
from functools import partial
from typing import final

from isochrone.errors import InvalidRequest, IsochroneError, QueueFull
from isochrone.node.etcd_calls_grpc import fail, outside, parsed
from isochrone.node.etcd_group import GroupAccess
from isochrone.node.turnstile import Turnstile
from isochrone.node.watch_lines import Line, Lines
from isochrone.probes import probe
from isochrone.regions.watch_hub import Event, WatchRequest
from isochrone.wire.etcd.answers_grpc import Speaker, encoded_event, watch_id_field
from isochrone.wire.etcd.errors import WATCH_ID_TAKEN, WATCH_RANGE_EMPTY, EtcdError, status_of
from isochrone.wire.etcd.generated import rpc_pb2 as pb
from isochrone.wire.http2.calls import Call, StreamMethod
from isochrone.wire.kv import ALL

WATCHERS_MAX = 10_000
"""Most watchers of one stream."""
BACKLOG_BYTES_MAX = 4 << 20
"""Watchers rest while more waits for the client."""
TOLD_BYTES_MAX = 1 << 20
"""About so much is sent before the backlog is looked at again."""
PROGRESS_INTERVAL_S = 600.0
"""How often watchers that ask for it hear how far they are while nothing happens, as in etcd."""
NO_WATCHER = -1
"""The id in answers that are about no watcher."""
PATH = "/etcdserverpb.Watch/Watch"


def watch_method(access: GroupAccess, speaker: Speaker) -> StreamMethod:
    """The one method of the service."""
    return StreamMethod(partial(_Stream, access, speaker, Turnstile()))


@dataclass(slots=True)
class _Watcher:
    line: Line
    progress_notify: bool
    tag: bytes
    """Its number, as it stands in an answer."""
    told: bool = False
    """It was told something since progress was last due."""


@final
class _Stream:
    """One stream."""

    def __init__(self, access: GroupAccess, speaker: Speaker, turnstile: Turnstile, call: Call) -> None:
        self._access = access
        self._speaker = speaker
        self._turnstile = turnstile
        self._call = call
        self._watchers: dict[int, _Watcher] = {}
        self._spent: dict[int, None] = {}
        """Ids of watchers that a compaction has ended: as in etcd they stay taken until the client cancels them."""
        self._next_id = 0
        self._lines = Lines(self._pump)
        self._resting: dict[Line, None] = {}
        """Lines that may have something, in the order in which they are to go on."""
        self._progress_asked = False
        """The client wants to know how far the stream is, and some watcher was behind."""
        self._even_at: int | None = None
        """The group's revision when all watchers were last found to be told everything; none was created since."""
        self._timer: asyncio.TimerHandle | None = None

    # What the client says.

    def message(self, message: bytes) -> None:
        """See `StreamHandler`."""
        request = parsed(self._call, pb.WatchRequest, message)
        if request is None:
            self._close()
            return
        match request.WhichOneof("request_union"):
            case "create_request":
                self._create(request.create_request)
            case "cancel_request":
                self._cancel(request.cancel_request.watch_id)
            case "progress_request":
                self._progress_asked = True
                self._tell_progress()
            case _:
                pass  # etcd ignores it, too: a later release may know more

    def ended(self) -> None:
        """See `StreamHandler`."""
        self._close()
        self._call.finish()

    def cancelled(self) -> None:
        """See `StreamHandler`."""
        self._close()

    def _create(self, request: pb.WatchCreateRequest) -> None:
        # etcd's way to say "from the beginning": no key.
        key = request.key or b"\0"
        reason = self._refusal(request, key)
        if reason is None:
            number = request.watch_id or self._free_id()
            try:
                line = self._lines.join(self._access.host, self._access.group, _wanted(request, key), number)
            except (InvalidRequest, QueueFull) as error:
                reason = status_of(error).text
        if reason is not None:
            self._send(pb.WatchResponse(watch_id=NO_WATCHER, created=True, canceled=True, cancel_reason=reason))
            return
        self._watchers[number] = _Watcher(line, request.progress_notify, watch_id_field(number))
        self._even_at = None
        if request.progress_notify and self._timer is None:
            self._plan_notices()
        self._send(pb.WatchResponse(watch_id=number, created=True))
        self._pump(line)

    def _refusal(self, request: pb.WatchCreateRequest, key: bytes) -> str | None:
        """Why the watcher is not created; None if it is."""
        refusal = outside(self._access, key, request.range_end)
        if refusal is not None:
            return refusal.text
        if request.range_end not in (b"", ALL) and key >= request.range_end:
            return WATCH_RANGE_EMPTY
        if request.watch_id and self._is_taken(request.watch_id):
            return WATCH_ID_TAKEN
        if len(self._watchers) + len(self._spent) >= WATCHERS_MAX:
            return EtcdError.TOO_MANY_REQUESTS.value.text
        return None

    def _is_taken(self, number: int) -> bool:
        return number in self._watchers or number in self._spent

    def _free_id(self) -> int:
        while self._is_taken(self._next_id):
            self._next_id += 1
        self._next_id += 1
        return self._next_id - 1

    def _cancel(self, number: int) -> None:
        if self._drop(number):
            self._send(pb.WatchResponse(watch_id=number, canceled=True))
            self._tell_progress()

    def _drop(self, number: int) -> bool:
        """Forget a watcher; whether there was one."""
        if self._watchers.pop(number, None) is None:
            spent = number in self._spent
            self._spent.pop(number, None)
            return spent
        self._lines.leave(number)
        return True

    # What happens.

    def _pump(self, line: Line) -> None:
        """Send what a line has, as far as the client keeps up."""
        if not line.members:
            return  # its watchers are gone
        try:
            while self._call.backlog_bytes <= BACKLOG_BYTES_MAX:
                if not line.untold and not self._take(line):
                    return
                self._tell(line)
        except IsochroneError as error:
            self._close()
            fail(self._call, status_of(error))
            return
        probe("etcd.watch_rests")
        if not self._resting:
            self._call.call_when_drained(self._resume)
        self._resting[line] = None

    def _resume(self) -> None:
        resting, self._resting = self._resting, {}
        for line in resting:
            self._pump(line)

    def _take(self, line: Line) -> bool:
        """Take the next batch of a line, if there is one to be told now."""
        batch = line.watch.take()
        if batch is None:
            self._tell_progress()
            return False
        if batch.is_empty:
            probe("etcd.watch_reads_on")
            self._turnstile.add(partial(self._pump, line))
            return False
        header = self._speaker.header(batch.revision, self._access.term)
        if batch.compacted is not None:
            header.ClearField("revision")  # as etcd answers
            for number in list(line.members):
                self._drop(number)
                self._spent[number] = None
                answer = pb.WatchResponse(
                    header=header, watch_id=number, canceled=True, compact_revision=batch.compacted
                )
                self._call.send(answer.SerializeToString())
        elif batch.events:
            line.batch = batch
            line.untold.extend(line.members)
        return True

    def _tell(self, line: Line) -> None:
        """Tell members of a line of its batch, as many as the client takes at a time."""
        batch = line.batch
        if batch is None:
            return
        header = pb.WatchResponse(header=self._speaker.header(batch.revision, self._access.term)).SerializeToString()
        wire, encode = ("etcd with previous", _with_previous) if line.request.prev_kv else ("etcd", _without_previous)
        rest = pb.WatchResponse(fragment=batch.fragment).SerializeToString()
        rest += b"".join([event.encoded_once(wire, encode) for event in batch.events])
        several = max(1, TOLD_BYTES_MAX // len(rest))
        answers: list[bytes] = []
        while line.untold and len(answers) < several:
            watcher = self._watchers[line.untold.popleft()]
            watcher.told = True
            answers.append(header + watcher.tag + rest)
        self._call.send_all(answers)

    # Progress.

    def _tell_progress(self) -> None:
        """Answer a question for progress once no watcher of the stream is behind."""
        if not self._progress_asked:
            return
        revision = self._access.revision
        if self._even_at != revision and not all(line.is_even() for line in self._lines):
            return
        self._even_at = revision
        self._progress_asked = False
        self._send(pb.WatchResponse(watch_id=NO_WATCHER))

    def _plan_notices(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(PROGRESS_INTERVAL_S, self._notify)

    def _notify(self) -> None:
        """Progress is due for watchers that asked for it and were told nothing."""
        self._plan_notices()
        for number, watcher in list(self._watchers.items()):  # what is said may end the stream
            if watcher.progress_notify and not watcher.told and watcher.line.is_even():
                self._send(pb.WatchResponse(watch_id=number))
            watcher.told = False

    def _send(self, answer: pb.WatchResponse) -> None:
        answer.header.CopyFrom(self._speaker.header(self._access.revision, self._access.term))
        self._call.send(answer.SerializeToString())

    def _close(self) -> None:
        for number in list(self._watchers):
            self._drop(number)
        if self._timer is not None:
            self._timer.cancel()


def _wanted(request: pb.WatchCreateRequest, key: bytes) -> WatchRequest:
    return WatchRequest(
        key,
        request.range_end,
        # Below 0 it is before everything, in etcd too.
        start_revision=request.start_revision if request.start_revision >= 0 else 1,
        prev_kv=request.prev_kv,
        puts=pb.WatchCreateRequest.NOPUT not in request.filters,
        deletes=pb.WatchCreateRequest.NODELETE not in request.filters,
        fragment=request.fragment,
    )


def _without_previous(event: Event) -> bytes:
    return encoded_event(event.record, None)


def _with_previous(event: Event) -> bytes:
    return encoded_event(event.record, event.previous)
