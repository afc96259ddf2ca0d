"""Carries calls to the nodes that can answer them.

It joins the pure parts: the directory and the leader views (`routing`), each call's state machine (`attempts`), and the
links to nodes (`links`). A call lives in the task of its caller, which waits for one future; whatever happens (an
answer, a refusal, news of a leader, a link up or down, a timer) is told to the call's state machine, and `_advance`
does what that wants next. Nothing polls.

A group is *used* from the first call to it. Then the client keeps links to all its replicas, witnesses too: they tell
who leads, so that a lost leader's successor is known as soon as it is known anywhere. With it they tell whether they
know newer replicas of the group than the client, which then asks for them: so it follows a group from node to node.
"""

import asyncio
import itertools
import logging
import math
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, TypeVar, final

from isochrone.client.alarm import Alarm
from isochrone.client.attempts import Call, Fail, Send, SessionRefused, Wait
from isochrone.client.connection import Connector
from isochrone.client.gathering import Gathering, WriteCommand
from isochrone.client.links import Link
from isochrone.client.routing import Directory, LeaderView, Route
from isochrone.client.watches import TakenApart, Watcher, take_apart
from isochrone.errors import Indeterminate, IsochroneError, Unavailable
from isochrone.ids import ClusterId, GroupId, NodeId, ReplicaRole
from isochrone.wire.session import (
    TIMEOUT_MS_MAX,
    Answer,
    ClientHello,
    DirectoryResponse,
    LeaderChanged,
    ReadRequest,
    ReadsAnswer,
    ReadsRequest,
    Refusal,
    SessionMessage,
    WatchEnded,
    WatchEvents,
    WatchProgress,
    WriteAnswer,
)

logger = logging.getLogger(__name__)

ENDPOINT_STAGGER_S = 0.3
"""Head start of each endpoint over the next one when a client connects."""

Response = Answer | ReadsAnswer
R = TypeVar("R", Answer, ReadsAnswer)
MakeRequest = Callable[[int, int], ReadRequest | ReadsRequest]
"""Makes a call's request from its number and what is left of the deadline, in milliseconds."""


class _Group:
    """What the client knows of a group, and its calls under way, oldest first."""

    __slots__ = ("_up", "calls", "leader_last", "nodes", "servers", "view")

    def __init__(self, up: Mapping[NodeId, Link]) -> None:
        self._up = up
        self.view = LeaderView()
        self.leader_last: NodeId | None = None
        self.nodes: frozenset[NodeId] = frozenset()
        self.servers: frozenset[NodeId] = frozenset()
        """Nodes that may serve requests: full replicas."""
        self.calls: dict[Pending[Any], None] = {}

    def ready(self, node: NodeId) -> bool:
        """Whether a node can take a request."""
        return node in self._up and node in self.servers


class Pending(Generic[R]):
    """A call under way."""

    __slots__ = ("anywhere", "call", "expected", "future", "group", "node", "sent_at", "wait_until", "what")

    def __init__(
        self,
        group: _Group,
        call: Call,
        what: WriteCommand | MakeRequest,
        future: asyncio.Future[R],
        expected: type[R],
        anywhere: bool,
    ) -> None:
        self.anywhere = anywhere
        """Any replica may answer; `node` is asked."""
        self.node: NodeId | None = None
        self.group = group
        self.call = call
        self.what = what
        self.future: asyncio.Future[R] = future
        """Its answer."""
        self.expected: type[R] = expected
        self.wait_until = math.inf
        """When the call must be looked at, whatever happens."""
        self.sent_at = 0.0


@final
class Dispatcher:
    """The calls, links and knowledge of one client."""

    def __init__(self, connector: Connector, hello: ClientHello, rng: random.Random) -> None:
        self._connector = connector
        self._hello = hello
        self._rng = rng
        self._loop = asyncio.get_running_loop()
        self._requests = itertools.count(1)
        self._links: dict[str, Link] = {}
        """By address."""
        self._up: dict[NodeId, Link] = {}
        self._cluster: ClusterId | None = None
        self._directory = Directory(())
        self._directory_source: asyncio.Future[Link] = self._loop.create_future()
        self._groups: dict[GroupId, _Group] = {}
        self._used: dict[GroupId, _Group] = {}
        self._pending: dict[int, Pending[Any]] = {}
        """Open attempts, by request."""
        self._gathering = Gathering()
        self._alarm = Alarm(self._look_at_calls)
        self._watchers: dict[int, Watcher] = {}
        """By the number of their present watch."""
        self._watching: dict[Watcher, None] = {}
        """All that are open."""
        self._closed = False
        self.errors: Counter[str] = Counter()
        """Calls that ended with an error, by its class."""
        self.attempts = 0
        self.retransmissions = 0
        self.leader_changes = 0

    async def start(self, endpoints: Sequence[str], timeout_s: float) -> None:
        """Learn the directory from the first endpoint that answers; the others are let go.

        Raises:
            Unavailable: none answered in time. The text says what happened at each.
        """
        deadline = self._loop.time() + timeout_s
        order = list(dict.fromkeys(endpoints))
        self._rng.shuffle(order)
        for endpoint in order:
            self._open(endpoint, None)
            if await self._wait_for_directory(min(ENDPOINT_STAGGER_S, deadline - self._loop.time())):
                break
        if not await self._wait_for_directory(deadline - self._loop.time()):
            problems = "; ".join(f"{address}: {link.problem or 'no answer'}" for address, link in self._links.items())
            raise Unavailable(f"no endpoint answered within {timeout_s} s ({problems})")
        source = self._directory_source.result()
        for address, link in list(self._links.items()):
            if link is not source:
                await link.close()
                del self._links[address]

    @property
    def directory(self) -> Directory:
        """The routes of all keyspaces, as far as they are known now."""
        return self._directory

    def route(self, key: bytes) -> Route:
        """Where a key lives. Raises `InvalidRequest` if it is in no keyspace."""
        return self._directory.find(key)

    async def execute(
        self,
        group_id: GroupId,
        deadline: float,
        what: WriteCommand | MakeRequest,
        expected: type[R],
        *,
        anywhere: bool = False,
    ) -> R:
        """Get a command or query answered by a group's leader, with as many attempts as that takes until `deadline`.

        With `anywhere` the nearest replica is asked instead, and another one when that does not answer. `expected` is
        how such a request is answered.

        Raises:
            Rejected: no attempt took effect.
            InvalidRequest: the request is wrong; no attempt took effect.
            Indeterminate: an attempt may have taken effect.
        """
        pending = self.begin(group_id, deadline, what, expected, anywhere=anywhere)
        try:
            return await pending.future
        finally:
            self.end(pending)

    def begin(
        self,
        group_id: GroupId,
        deadline: float,
        what: WriteCommand | MakeRequest,
        expected: type[R],
        *,
        anywhere: bool = False,
    ) -> Pending[R]:
        """Begin what `execute` does. Who begins a call awaits its future, and ends it, however that went."""
        if self._closed:
            raise Unavailable("the client is closed")
        group = self._used.get(group_id) or self._use(group_id)
        pending = Pending(group, Call(group_id, deadline), what, self._loop.create_future(), expected, anywhere)
        group.calls[pending] = None
        self._advance(pending)
        return pending

    def end(self, pending: Pending[R]) -> None:
        """Leave no trace of a call that is over, by whatever way."""
        del pending.group.calls[pending]
        for request in pending.call.open_requests:
            del self._pending[request]

    # Watches

    def begin_watch(self, watcher: Watcher) -> int:
        """See `WatchCarrier`."""
        number = next(self._requests)
        self._watchers[number] = watcher
        return number

    def end_watch(self, number: int) -> None:
        """See `WatchCarrier`."""
        self._watchers.pop(number, None)

    def nearest(self, group: GroupId, avoid: NodeId | None) -> NodeId | None:
        """See `WatchCarrier`: by measured round trips, then by name."""
        servers = self._use(group).servers
        times = {node: link.round_trip.smoothed_s for node, link in self._up.items() if node in servers}
        return min(times, key=lambda node: (node == avoid, times[node] is None, times[node] or 0.0, node), default=None)

    def send_to(self, node: NodeId, message: SessionMessage) -> None:
        """See `WatchCarrier`."""
        if link := self._up.get(node):
            link.send(message)

    def join(self, watcher: Watcher) -> None:
        """See `WatchCarrier`."""
        self._watching[watcher] = None

    def leave(self, watcher: Watcher) -> None:
        """See `WatchCarrier`."""
        self._watching.pop(watcher, None)

    def _nodes_changed(self) -> None:
        for watcher in list(self._watching):
            watcher.node_up()

    @property
    def reconnects(self) -> int:
        """Streams opened again."""
        return sum(max(0, link.opened - 1) for link in list(self._links.values()))

    @property
    def region(self) -> str:
        """Where the client is."""
        return self._hello.region

    def abandon_calls(self, reason: str) -> None:
        """End every call under way."""
        for group in self._groups.values():
            for pending in group.calls:
                if not pending.future.done():
                    self._fail(pending, pending.call.abandoned(reason))

    async def close(self) -> None:
        """End every call under way and every link."""
        self._closed = True
        for watcher in list(self._watching):
            watcher.close()
        self.abandon_calls("the client was closed")
        links = list(self._links.values())
        self._links.clear()
        await asyncio.gather(*(link.close() for link in links))
        self._alarm.end()

    # What links report

    @property
    def busy(self) -> bool:
        """Whether calls or watches are under way."""
        return bool(self._watching) or any(group.calls for group in self._groups.values())

    def link_up(self, link: Link, node: NodeId) -> None:
        """Calls that waited for this node may go on."""
        self._up[node] = link
        for group in self._groups.values():
            if node in group.nodes:
                self._advance_all(group)
        self._nodes_changed()

    def link_down(self, link: Link, node: NodeId) -> None:
        """Attempts at this node will not be answered; their calls go on elsewhere, or wait."""
        if self._up.get(node) is not link:
            return
        del self._up[node]
        for watcher in list(self._watching):
            watcher.node_down(node)
        for group in self._groups.values():
            for pending in group.calls:
                for request in pending.call.lost(node):
                    del self._pending[request]
            self._advance_all(group)

    def link_received(self, link: Link, node: NodeId, message: SessionMessage) -> None:
        """Take a message in."""
        match message:
            case WriteAnswer(requests, source, revision, payloads):
                self._time(link, requests[0])
                for request, payload in zip(requests, payloads, strict=True):
                    self._answered(request, Answer(request, source, revision, payload))
            case Answer(request) | ReadsAnswer(request):
                self._time(link, request)
                self._answered(request, message)
            case Refusal(request):
                self._refused(request, message)
            case WatchEvents():
                self._watch_events(message)
            case WatchProgress(watch=number) | WatchEnded(watch=number):
                if watcher := self._watchers.get(number):
                    watcher.received(message)
            case LeaderChanged(group):
                self._leader_changed(node, group, message)
                if self._directory.is_outdated(message):
                    link.ask_directory()
            case DirectoryResponse(_, routes):
                self._learn(self._directory.updated(routes))
                if not self._directory_source.done():
                    self._directory_source.set_result(link)
            case _:
                logger.warning("ignored a %s from %s: nodes do not send it", type(message).__name__, node)

    def _watch_events(self, message: WatchEvents) -> None:
        """A batch, decoded once for all watchers that it is for."""
        batch: TakenApart | None = None
        for number, sequence in message.watches:
            if watcher := self._watchers.get(number):
                batch = batch or take_apart(message)
                watcher.told(number, sequence, batch)

    def _time(self, link: Link, request: int) -> None:
        pending = self._pending.get(request)
        if pending is not None and pending.call.attempts == 1 and not pending.future.done():
            link.round_trip.record(self._loop.time() - pending.sent_at)

    def _answered(self, request: int, answer: Response) -> None:
        pending = self._pending.get(request)
        if pending is None or pending.future.done():
            return
        if isinstance(answer, pending.expected):
            pending.future.set_result(answer)
        else:
            self._fail(pending, Indeterminate(f"{answer.node} answered what was not asked"))

    def _refused(self, request: int, refusal: Refusal) -> None:
        pending = self._pending.get(request)
        if pending is None or pending.future.done():
            return
        del self._pending[request]
        error = pending.call.refused(refusal, self._loop.time(), self._rng)
        if error is not None:
            self._fail(pending, error)
        else:
            self._advance(pending)

    def _leader_changed(self, source: NodeId, group_id: GroupId, change: LeaderChanged) -> None:
        group = self._groups.setdefault(group_id, _Group(self._up))
        view = group.view.observe(change, source)
        if view is group.view:
            return
        group.view = view
        if view.leader is not None and view.leader != group.leader_last:
            self.leader_changes += group.leader_last is not None
            group.leader_last = view.leader
        self._advance_all(group)

    # Links and directory

    def _admit(self, cluster: ClusterId) -> bool:
        """Whether this is the cluster that answered first."""
        self._cluster = self._cluster or cluster
        return cluster == self._cluster

    def _open(self, address: str, expected: NodeId | None) -> None:
        if address not in self._links and not self._closed:  # Links that end may tell of others yet.
            self._links[address] = Link(
                address,
                expected,
                connector=self._connector,
                hello=self._hello,
                events=self,
                rng=self._rng,
                requests=self._requests,
                admit=self._admit,
            )

    def _learn(self, directory: Directory) -> None:
        self._directory = directory
        for group_id, group in self._used.items():
            self._link_replicas(group_id)
            self._advance_all(group)
        self._nodes_changed()

    def _use(self, group_id: GroupId) -> _Group:
        if group_id not in self._used:
            self._used[group_id] = self._groups.setdefault(group_id, _Group(self._up))
            self._link_replicas(group_id)
        return self._used[group_id]

    def _link_replicas(self, group_id: GroupId) -> None:
        """Keep a link to every replica of a group."""
        replicas = self._directory.replicas(group_id)
        group = self._groups[group_id]
        group.nodes = frozenset(replica.node for replica in replicas)
        group.servers = frozenset(replica.node for replica in replicas if replica.role is ReplicaRole.FULL)
        for replica in replicas:
            if replica.node not in self._up:
                self._open(replica.address, replica.node)

    async def _wait_for_directory(self, timeout_s: float) -> bool:
        try:
            async with asyncio.timeout(timeout_s):
                await asyncio.shield(self._directory_source)
        except TimeoutError:
            return False
        return True

    # Calls

    def _advance_all(self, group: _Group) -> None:
        for pending in list(group.calls):
            self._advance(pending)

    def _advance(self, pending: Pending[Any]) -> None:
        """Do what a call wants next, until it wants to wait."""
        if pending.future.done():
            return
        now = self._loop.time()
        view = self._nearest_view(pending, now) if pending.anywhere else pending.group.view
        step = pending.call.next(now, view, pending.group.ready)
        match step:
            case Send():
                until = self._send(pending, step.node, now)
            case Wait():
                until = step.until
            case Fail():
                self._fail(pending, step.error)
                return
        pending.wait_until = until
        self._alarm.set(until)

    def _fail(self, pending: Pending[Any], error: IsochroneError) -> None:
        pending.future.set_exception(error)
        pending.future.exception()  # Seen, even if the caller is cancelled at this moment.
        if not isinstance(error, SessionRefused):  # The writer goes on with a new session.
            self.errors[type(error).__name__] += 1

    def _look_at_calls(self, now: float) -> float:
        """The alarm: go on with the calls whose time has come. Returns the first time of those that are left."""
        for group in self._groups.values():
            for pending in [pending for pending in group.calls if pending.wait_until <= now]:
                self._advance(pending)
        waiting = [pending for group in self._groups.values() for pending in group.calls if not pending.future.done()]
        return min((pending.wait_until for pending in waiting), default=math.inf)

    def _nearest_view(self, pending: Pending[Any], now: float) -> LeaderView:
        """For a call that any replica may answer, the one to ask counts as the leader."""
        if pending.node not in self._up or pending.call.wants_another(now):
            pending.node = self.nearest(pending.call.group, pending.node)
        return LeaderView(leader=pending.node)

    def _send(self, pending: Pending[Any], node: NodeId, now: float) -> float:
        """Send an attempt. Returns until when to wait."""
        call, link = pending.call, self._up[node]
        self.attempts += 1
        if call.attempts and not call.settled:
            self.retransmissions += 1
        request = next(self._requests)
        self._pending[request] = pending
        pending.sent_at = now
        wait_until = call.sent(request, node, now, link.round_trip.patience_s)
        timeout_ms = min(int(1000 * (call.deadline - now)), TIMEOUT_MS_MAX) or 1
        if isinstance(pending.what, WriteCommand):
            self._gathering.add(link, call.group, request, timeout_ms, pending.what, len(pending.group.calls))
        else:
            link.send(pending.what(request, timeout_ms))
        return wait_until
