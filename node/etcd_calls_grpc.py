"""etcd's KV and Lease services: each call becomes one question to the group, and its result the answer."""

from collections.abc import Callable
from functools import partial
from typing import Protocol, TypeVar, final

import grpc
from google.protobuf.message import DecodeError, Message

from isochrone.errors import IsochroneError, LeaseNotFound
from isochrone.ids import NS_PER_S
from isochrone.node.etcd_gathering import Gathering
from isochrone.node.etcd_group import GroupAccess
from isochrone.wire.commands import Operation, Query, Result
from isochrone.wire.etcd.answers_grpc import Speaker, answer_of
from isochrone.wire.etcd.checks_grpc import refusal_of
from isochrone.wire.etcd.errors import OWN_PREFIX, EtcdError, Status, status_of
from isochrone.wire.etcd.generated import rpc_pb2 as pb
from isochrone.wire.etcd.plain import PlainAnswers, plain_put, plain_range
from isochrone.wire.etcd.requests_grpc import (
    compact_of,
    delete_of,
    grant_of,
    put_of,
    range_of,
    ranges_of,
    txn_of,
)
from isochrone.wire.http2.calls import Call, Methods, StreamMethod, UnaryMethod
from isochrone.wire.kv import RANGE, DeleteRange, PackedResult, Put, Range, RangeResult, Txn
from isochrone.wire.leases import LeaseKeepAlive, LeaseList, LeaseRevoke, LeaseTimeToLive

TIMEOUT_S = 7.0
"""How long a group may take to answer, as in etcd with its default timers."""
ANSWERS_BACKLOG_BYTES_MAX = 16 << 20
"""Reads are refused while more waits for a client: it shall ask again, rather than be cut off for its own answers."""
PENDING_RENEWALS_MAX = 1_000
"""Most renewals of one stream under way; the next end the stream."""
KEYS_OF_TOOLS = (b"health", b"foo")
"""What etcd's tools read although nobody named it: `etcdctl endpoint health` to see whether a quorum answers, and
`etcdctl make-mirror` to learn the revision."""
MALFORMED = Status("INTERNAL", "the request is not a message of its method")
_KV, _LEASE = "/etcdserverpb.KV/", "/etcdserverpb.Lease/"
_M = TypeVar("_M", bound=Message)
_Parsed = TypeVar("_Parsed", bound=Message, covariant=True)


class _Parser(Protocol[_Parsed]):
    """The class of a message."""

    def FromString(self, data: bytes, /) -> _Parsed:  # noqa: N802
        ...


def fail(call: Call, status: Status) -> None:
    """End a call with an error."""
    call.fail(grpc.StatusCode[status.code].value[0], status.text)


def refuse(call: Call, error: EtcdError) -> None:
    """End a call with an error of etcd's."""
    fail(call, error.value)


def outside(access: GroupAccess, key: bytes, range_end: bytes = b"") -> Status | None:
    """The error for a key or a range that the endpoint does not serve; None if it does."""
    text = access.outside(key, range_end)
    if text is None:
        return None
    return Status(EtcdError.PERMISSION_DENIED.value.code, OWN_PREFIX + text)


def timeout_s(call: Call) -> float:
    """How long a call may take."""
    return TIMEOUT_S if call.timeout_ns is None else min(TIMEOUT_S, call.timeout_ns / NS_PER_S)


def parsed(call: Call, parser: _Parser[_M], data: bytes) -> _M | None:
    """A request that is right in itself; None if it is not, and the call has ended with the reason."""
    try:
        request = parser.FromString(data)
    except DecodeError:
        fail(call, MALFORMED)
        return None
    error = refusal_of(request)
    if error is not None:
        refuse(call, error)
        return None
    return request


@final
class GroupCalls:
    """The KV and Lease services of an endpoint."""

    def __init__(self, access: GroupAccess, speaker: Speaker) -> None:
        self._access = access
        self._speaker = speaker
        self._gathering = Gathering(access)
        self._plain = PlainAnswers(speaker.cluster_id, speaker.member_id)

    def methods(self) -> Methods:
        """By path."""
        asking = self._asking
        return {
            f"{_KV}Range": UnaryMethod(self._range),
            f"{_KV}Put": UnaryMethod(self._put),
            f"{_KV}DeleteRange": asking(pb.DeleteRangeRequest, delete_of),
            f"{_KV}Txn": asking(pb.TxnRequest, txn_of),
            f"{_KV}Compact": asking(pb.CompactionRequest, compact_of),
            f"{_LEASE}LeaseGrant": asking(pb.LeaseGrantRequest, grant_of),
            f"{_LEASE}LeaseRevoke": asking(pb.LeaseRevokeRequest, lambda request: LeaseRevoke(request.ID)),
            f"{_LEASE}LeaseTimeToLive": asking(
                pb.LeaseTimeToLiveRequest, lambda request: LeaseTimeToLive(request.ID, request.keys)
            ),
            f"{_LEASE}LeaseLeases": asking(pb.LeaseLeasesRequest, lambda _: LeaseList()),
            f"{_LEASE}LeaseKeepAlive": StreamMethod(partial(_KeepAlive, self)),
        }

    def _asking(self, parser: _Parser[_M], question_of: Callable[[_M], Operation | Query]) -> UnaryMethod:
        def handle(call: Call, data: bytes) -> None:
            request = parsed(call, parser, data)
            if request is not None:
                self._ask(call, question_of(request))

        return UnaryMethod(handle)

    def _range(self, call: Call, data: bytes) -> None:
        plain = plain_range(data)
        if plain is not None and self._access.serves(plain[0], b""):
            self._plain_range(call, *plain)
            return
        request = parsed(call, pb.RangeRequest, data)
        if request is None:
            return
        query = range_of(request)
        if query.key in KEYS_OF_TOOLS and not query.range_end and not self._access.serves(query.key, b""):
            self._access.ask(
                b"", Range(self._access.first_key), timeout_s(call), partial(self._answer_without_keys, call)
            )
        elif not request.serializable:
            self._ask(call, query)
        elif self._serves(call, query):
            self._access.ask_here(query.key, query, timeout_s(call), partial(self._answer, call))

    def _plain_range(self, call: Call, key: bytes, serializable: bool) -> None:
        query, told = Range(key), partial(self._answer, call)
        if not serializable:
            self._gathering.read(query, timeout_s(call), partial(self._answer_plain, call), told)
        elif self._access.replica is None:
            self._access.ask_here(key, query, timeout_s(call), told)
        else:
            try:
                self._answer_plain(call, self._gathering.read_here(query))
            except IsochroneError as error:
                self._access.refuse(told, error)

    def _put(self, call: Call, data: bytes) -> None:
        plain = plain_put(data)
        if plain is not None and self._access.serves(plain[0], b""):
            told, packed = partial(self._answer, call), partial(self._answer_plain, call)
            self._gathering.put(Put(*plain), timeout_s(call), packed, told)
            return
        request = parsed(call, pb.PutRequest, data)
        if request is not None:
            self._ask(call, put_of(request))

    def _answer_plain(self, call: Call, outcome: PackedResult | IsochroneError) -> None:
        if isinstance(outcome, IsochroneError):
            fail(call, status_of(outcome))
        elif call.backlog_bytes > ANSWERS_BACKLOG_BYTES_MAX and outcome[0] == RANGE:
            refuse(call, EtcdError.TOO_MANY_REQUESTS)
        else:
            call.answer(self._plain.answer(outcome, self._access.term))

    def _ask(self, call: Call, question: Operation | Query) -> None:
        if not self._serves(call, question):
            return
        key = question.key if isinstance(question, Put | DeleteRange | Range) else _first_key(question)
        self.ask(key, question, timeout_s(call), partial(self._answer, call))

    def ask(self, key: bytes, question: Operation | Query, seconds: float, told: Callable[..., None]) -> None:
        """See `GroupAccess.ask`."""
        self._access.ask(key, question, seconds, told)

    def _serves(self, call: Call, question: Operation | Query) -> bool:
        if isinstance(question, Put | DeleteRange | Range | Txn):
            for key, range_end in ranges_of(question):
                if (refusal := outside(self._access, key, range_end)) is not None:
                    fail(call, refusal)
                    return False
        return True

    def _answer(self, call: Call, outcome: Result | IsochroneError) -> None:
        if isinstance(outcome, IsochroneError):
            fail(call, status_of(outcome))
            return
        if isinstance(outcome, RangeResult) and call.backlog_bytes > ANSWERS_BACKLOG_BYTES_MAX:
            refuse(call, EtcdError.TOO_MANY_REQUESTS)
            return
        call.answer(answer_of(outcome, self.header(outcome.revision)).SerializeToString())

    def _answer_without_keys(self, call: Call, outcome: Result | IsochroneError) -> None:
        if isinstance(outcome, IsochroneError):
            fail(call, status_of(outcome))
            return
        call.answer(pb.RangeResponse(header=self.header(outcome.revision)).SerializeToString())

    def header(self, revision: int) -> pb.ResponseHeader:
        """The header of an answer."""
        return self._speaker.header(revision, self._access.term)

    @property
    def revision(self) -> int:
        """The group's, as applied here."""
        return self._access.revision


def _first_key(question: Operation | Query) -> bytes:
    if isinstance(question, Txn):
        return next((key for key, _ in ranges_of(question)), b"")
    return b""


@final
class _KeepAlive:
    """One stream of renewals. A lease that does not exist is answered with a time to live of 0."""

    def __init__(self, calls: GroupCalls, call: Call) -> None:
        self._calls = calls
        self._call = call
        self._under_way = 0
        self._ended = False

    def message(self, message: bytes) -> None:
        """See `StreamHandler`."""
        request = parsed(self._call, pb.LeaseKeepAliveRequest, message)
        if request is None:
            return
        if self._under_way >= PENDING_RENEWALS_MAX:
            refuse(self._call, EtcdError.TOO_MANY_REQUESTS)
            return
        self._under_way += 1
        told = partial(self._told, request.ID)
        self._calls.ask(b"", LeaseKeepAlive(request.ID), TIMEOUT_S, told)

    def _told(self, lease: int, outcome: Result | IsochroneError) -> None:
        self._under_way -= 1
        match outcome:
            case LeaseNotFound():
                header = self._calls.header(self._calls.revision)
                self._call.send(pb.LeaseKeepAliveResponse(header=header, ID=lease).SerializeToString())
            case IsochroneError():
                fail(self._call, status_of(outcome))
            case _:
                answer = answer_of(outcome, self._calls.header(outcome.revision))
                self._call.send(answer.SerializeToString())
        if self._ended and not self._under_way:
            self._call.finish()

    def ended(self) -> None:
        """See `StreamHandler`."""
        self._ended = True
        if not self._under_way:
            self._call.finish()

    def cancelled(self) -> None:
        """See `StreamHandler`. What is under way ends by itself."""
