"""What a node does for its clients: answers session messages from the host, and tells clients who leads.

Routes follow the members of the groups that have a replica here: each is as of the last configuration that this replica
knows to be final, with its index for a version. A replica that was removed tells who belongs to the group instead. Of
other groups a node only knows what the topology says.

A driver without tasks of its own: everything happens in callbacks of the session streams and of the host.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial

from isochrone.errors import InvalidRequest, IsochroneError, NotLeader, Unavailable
from isochrone.ids import NS_PER_MS, GroupId, KeyspaceId, Nanos, NodeId, Revision, Term
from isochrone.node.session_watches import SessionWatches
from isochrone.node.turnstile import Turnstile
from isochrone.regions.host import Host
from isochrone.regions.raft.changes import all_members
from isochrone.regions.requests import Outcome
from isochrone.wire.commands import COMMAND_BYTES_MAX, decode_query, encode_result
from isochrone.wire.kv import KEY_BYTES_MAX, PackedResult
from isochrone.wire.session import (
    TIMEOUT_MS_MAX,
    Answer,
    ClientSession,
    DirectoryRequest,
    DirectoryResponse,
    KeyspaceRoute,
    LeaderChanged,
    Ping,
    Place,
    Pong,
    ReadRequest,
    ReadsAnswer,
    ReadsRequest,
    Refusal,
    SessionMessage,
    WatchCancel,
    WatchCreate,
    WriteAnswer,
    WriteRequest,
)

QUERY_BYTES_MAX = 2 * KEY_BYTES_MAX + 256
"""No valid query is larger."""
TRACE_BYTES = 25
"""A trace context is so long, or empty (`Entry.trace`)."""
BACKLOG_BYTES_MAX = 16 << 20
"""Reads are refused while more waits for a client: it shall ask again, rather than be cut off for its own answers."""


WRITE_ANSWER_BYTES_TARGET = 1 << 20
"""When the results in an answer have so many bytes, the next ones go into another: no frame could hold them all."""


class ClientService:
    """Serves every session of one node."""

    def __init__(
        self, node: NodeId, routes: Iterable[KeyspaceRoute], places: Mapping[NodeId, Place] | None = None
    ) -> None:
        """Serve these keyspaces; `attach` the host before the first session opens.

        Args:
            node: this one.
            routes: as of the bootstrap.
            places: of all nodes that may come to hold a replica; those of the routes if not given.
        """
        self._node = node
        self._routes = tuple(routes)
        self._group_of: dict[KeyspaceId, GroupId] = {route.keyspace: route.group for route in self._routes}
        replicas = [replica for route in self._routes for replica in route.replicas]
        of_routes = {node: (address, region, zone) for node, address, region, zone, _ in replicas}
        self._places: Mapping[NodeId, Place] = of_routes if places is None else places
        self._sessions: dict[int, ClientSession] = {}
        self._watches: dict[int, SessionWatches] = {}
        """Of the sessions that have watched anything."""
        self._host: Host | None = None
        self._turnstile = Turnstile()
        self.refusals: Counter[str] = Counter()
        """Requests that were answered with an error, by its class."""

    def attach(self, host: Host) -> None:
        """Serve from this host."""
        self._host = host

    @property
    def host(self) -> Host:
        """The host; a session before `attach` is a fault of the composition."""
        if self._host is None:
            raise RuntimeError("a session was opened before the node was composed")
        return self._host

    def leader_changed(self, group: GroupId, term: Term, leader: NodeId | None) -> None:
        """Tell every client."""
        news = LeaderChanged(group, term, leader, self._version(group))
        for session in self._sessions.values():
            session.send(news)

    def opened(self, session: ClientSession) -> None:
        """A client has connected: tell it who leads."""
        self._sessions[id(session)] = session
        self._tell_leaders(session)

    def closed(self, session: ClientSession) -> None:
        """A client is gone. What it asked for goes on."""
        del self._sessions[id(session)]
        watches = self._watches.pop(id(session), None)
        if watches is not None:
            watches.close()

    def received(self, session: ClientSession, message: SessionMessage) -> None:
        """Handle one message of a client."""
        match message:
            case WriteRequest():
                self._write(session, message)
            case ReadRequest():
                self._read(session, message)
            case ReadsRequest():
                self._read_all(session, message)
            case DirectoryRequest(request):
                session.send(DirectoryResponse(request, self.routes()))
            case Ping(request):
                self._tell_leaders(session)
                if watches := self._watches.get(id(session)):
                    watches.tell_progress(self.host)
                session.send(Pong(request))
            case WatchCreate():
                self._watches.setdefault(id(session), SessionWatches(session, self._turnstile)).create(
                    self.host, message
                )
            case WatchCancel():
                if watches := self._watches.get(id(session)):
                    watches.cancel(message)
            case _:
                pass  # Messages that only nodes send; a client that sends them gets no answer.

    def _tell_leaders(self, session: ClientSession) -> None:
        for group, term, leader in self.host.leaders():
            session.send(LeaderChanged(group, term, leader, self._version(group)))

    def _version(self, group: GroupId) -> int:
        found = self.host.committed_configuration(group)
        return 0 if found is None else found.index

    def routes(self) -> tuple[KeyspaceRoute, ...]:
        """The routes of all keyspaces, as far as this node knows them."""
        return tuple(self._current(route) for route in self._routes)

    def _current(self, route: KeyspaceRoute) -> KeyspaceRoute:
        found = self.host.committed_configuration(route.group)
        if found is None or found.index == 0:
            return route
        replicas = tuple(
            (member.node, *self._places[member.node], member.role.value)
            for member in all_members(found.configuration).values()
            if member.node in self._places
        )
        return replace(route, replicas=replicas, version=found.index)

    def _write(self, session: ClientSession, request: WriteRequest) -> None:
        # Several commands have fewer bytes than one may have.
        error = self._wrong_target(request) or _oversized("command", request.commands[0], COMMAND_BYTES_MAX)
        if error is None and len(request.trace) not in (0, TRACE_BYTES):
            text = f"trace context has {len(request.trace)} bytes; it takes {TRACE_BYTES}, or none"
            error = InvalidRequest(text)
        if error is not None:
            self._answer_writes(session, request.requests, (error,) * len(request.requests), Revision(0))
            return
        timeout_ns = Nanos(min(request.timeout_ms, TIMEOUT_MS_MAX) * NS_PER_MS)
        done = partial(self._answer_writes, session, request.requests)
        self.host.write(request.group, request.keyspace, request.commands, request.trace, timeout_ns, done)

    def _answer_writes(
        self,
        session: ClientSession,
        requests: Sequence[int],
        outcomes: Sequence[bytes | IsochroneError],
        revision: Revision,
    ) -> None:
        """Answer a request's commands together, but for those that were refused, and what is too large for that."""
        answered: list[int] = []
        payloads: list[bytes] = []
        size_bytes = 0
        for request, outcome in zip(requests, outcomes, strict=True):
            if not isinstance(outcome, bytes):
                session.send(self._refusal(request, outcome))
                continue
            answered.append(request)
            payloads.append(outcome)
            size_bytes += len(outcome)
            if size_bytes >= WRITE_ANSWER_BYTES_TARGET:
                session.send(WriteAnswer(tuple(answered), self._node, revision, tuple(payloads)))
                answered, payloads, size_bytes = [], [], 0
        if answered:
            session.send(WriteAnswer(tuple(answered), self._node, revision, tuple(payloads)))

    def _read(self, session: ClientSession, request: ReadRequest) -> None:
        done = partial(self._answer_read, session, request.request)
        error = self._wrong_target(request) or _oversized("query", request.query, QUERY_BYTES_MAX)
        if error := error or _behind(session):
            done(_refused(error))
        else:
            self.host.read(request.group, request.keyspace, request.query, done)

    def _read_all(self, session: ClientSession, request: ReadsRequest) -> None:
        done = partial(self._answer_reads, session, request)
        error = self._wrong_target(request) or _oversized("query", max(request.queries, key=len), QUERY_BYTES_MAX)
        error = error or _behind(session)
        try:
            if error is not None:
                raise error
            queries = [decode_query(query) for query in request.queries]
            if not request.applied:
                self.host.read_all(request.group, request.keyspace, queries, done)
                return
            done(self.host.read_applied(request.group, request.keyspace, queries), self.host.revision(request.group))
        except IsochroneError as refused:
            session.send(self._refusal(request.request, refused))

    def _answer_reads(
        self,
        session: ClientSession,
        request: ReadsRequest,
        outcomes: Sequence[PackedResult | IsochroneError],
        revision: Revision,
    ) -> None:
        """Answer the queries of a request, or as many as fitted; one error of all is that of the request."""
        first = outcomes[0]
        alike = all(outcome is first for outcome in outcomes)
        error = first if alike and isinstance(first, IsochroneError) else _behind(session)
        if error is not None:
            session.send(self._refusal(request.request, error))
            return
        payloads: list[bytes] = []
        errors: list[tuple[int, str, str]] = []
        for outcome in outcomes:
            if isinstance(outcome, IsochroneError):
                refusal = self._refusal(request.request, outcome)
                errors.append((len(payloads), refusal.error, refusal.text))
                payloads.append(b"")
            else:
                payloads.append(encode_result(outcome))
        age_ms = self.host.applied_age_ms(request.group) if request.applied else None
        session.send(ReadsAnswer(request.request, self._node, revision, age_ms, tuple(payloads), tuple(errors)))

    def _wrong_target(self, request: WriteRequest | ReadRequest | ReadsRequest) -> IsochroneError | None:
        group = self._group_of.get(request.keyspace)
        if group != request.group:
            return InvalidRequest(f"keyspace {request.keyspace!r} lies in group {group}, not in {request.group}")
        if request.timeout_ms <= 0:
            return Unavailable("the deadline passed before the request arrived; it was not applied")
        return None

    def _answer_read(self, session: ClientSession, request: int, outcome: Outcome) -> None:
        if outcome.payload and (error := _behind(session)):
            outcome = _refused(error)
        self._answer(session, request, outcome)

    def _answer(self, session: ClientSession, request: int, outcome: Outcome) -> None:
        if outcome.error is None:
            session.send(Answer(request, self._node, outcome.revision, outcome.payload))
        else:
            session.send(self._refusal(request, outcome.error))

    def _refusal(self, request: int, error: IsochroneError) -> Refusal:
        self.refusals[type(error).__name__] += 1
        leader = error.leader if isinstance(error, NotLeader) else None
        return Refusal(request, self._node, type(error).__name__, str(error), leader, error.stored)


def _behind(session: ClientSession) -> IsochroneError | None:
    """Why a client is not given more to read: it has not taken what there is."""
    if session.backlog_bytes <= BACKLOG_BYTES_MAX:
        return None
    return Unavailable(f"{session.backlog_bytes} bytes wait for this client already")


def _oversized(what: str, data: bytes, bytes_max: int) -> IsochroneError | None:
    if len(data) <= bytes_max:
        return None
    return InvalidRequest(f"{what} has {len(data)} bytes; at most {bytes_max} are allowed")


def _refused(error: IsochroneError) -> Outcome:
    return Outcome(b"", Revision(0), error)
