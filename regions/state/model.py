"""What the state machine holds, in memory and as rows of the store.

Everything is kept by keyspace, so that a keyspace can move to another group. A row is written for every change,
in the order of the changes; together the rows rebuild the state.
"""

import heapq
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import cast

import msgpack

from isochrone.ids import KeyspaceId, Revision, Timestamp
from isochrone.wire.commands import CommandResult, KeyValue, Operation
from isochrone.wire.pack import pack

TABLE_GROUP = 0
"""One row, in the keyspace of no name: the group's revision."""
TABLE_KEYS = 1
TABLE_SESSIONS = 2
TABLE_RESULTS = 3

_U64 = struct.Struct(">Q")
_RESULT_KEY = struct.Struct(">QQ")


@dataclass(slots=True)
class Session:
    """A client's session: what it needs for each of its commands to take effect once."""

    ttl_ns: int
    last_used: Timestamp
    acknowledged: int = 0
    results: dict[int, bytes] = field(default_factory=dict)
    """Encoded result of every sequence above `acknowledged` that has been applied."""

    @property
    def expires_after(self) -> Timestamp:
        """Last timestamp at which the session lives, unless it is used again."""
        return Timestamp(self.last_used + self.ttl_ns)

    def expired(self, now: Timestamp) -> bool:
        """Whether the session was unused for longer than its time to live."""
        return now > self.expires_after


@dataclass(slots=True)
class KeyspaceState:
    """The state of one keyspace."""

    keyspace: KeyspaceId
    prefix: bytes
    keys: dict[bytes, KeyValue] = field(default_factory=dict)
    sessions: dict[int, Session] = field(default_factory=dict)
    expiries: list[tuple[Timestamp, int]] = field(default_factory=list, compare=False)
    """An index into `sessions`: a heap of (a time before which it does not expire, id), some of sessions now gone."""

    def add_session(self, number: int, session: Session) -> None:
        """Take in a session."""
        self.sessions[number] = session
        heapq.heappush(self.expiries, (session.expires_after, number))
        if len(self.expiries) > 2 * len(self.sessions):
            # Most are of sessions that were closed long before their time.
            self.expiries = [(session.expires_after, number) for number, session in self.sessions.items()]
            heapq.heapify(self.expiries)

    def expired_sessions(self, now: Timestamp) -> Iterator[int]:
        """Sessions that have expired. Cheap however many live: each is looked at about once in its time to live."""
        while self.expiries and self.expiries[0][0] < now:
            number = heapq.heappop(self.expiries)[1]
            session = self.sessions.get(number)
            if session is None:
                continue
            if session.expired(now):
                yield number
            else:
                heapq.heappush(self.expiries, (session.expires_after, number))


@dataclass(slots=True)
class ApplyContext:
    """What a command handler may use besides the keyspace's state. Time is the entry's, never the wall clock's."""

    revision: Revision
    """The group's revision so far; `next_revision` raises it."""
    timestamp: Timestamp
    rows: dict[tuple[KeyspaceId, int, bytes], bytes | None]
    """Changed rows; None deletes."""

    def next_revision(self) -> Revision:
        """Count one applied write."""
        self.revision = Revision(self.revision + 1)
        return self.revision


Handler = Callable[[KeyspaceState, Operation, ApplyContext], CommandResult]
"""Applies one kind of operation. Deterministic; changes the state and records the rows that it changed."""

Handlers = Mapping[type[object], Handler]
"""A command family: handlers by type of operation. The host takes families by registration."""


def encode_key_row(item: KeyValue) -> bytes:
    """A key's row; the key itself is the row's key."""
    return pack((item.value, item.create_revision, item.mod_revision, item.version, item.timestamp))


def decode_key_row(key: bytes, value: bytes) -> KeyValue:
    """Back from a key's row."""
    return KeyValue(key, *msgpack.unpackb(value))


def session_row_key(session: int) -> bytes:
    """Row key of a session."""
    return _U64.pack(session)


def parse_session_row_key(key: bytes) -> int:
    """Back from a session's row key."""
    return cast("int", _U64.unpack(key)[0])


def encode_session_row(session: Session) -> bytes:
    """A session's row, without its results, which have rows of their own."""
    return pack((session.ttl_ns, session.last_used, session.acknowledged))


def decode_session_row(value: bytes) -> Session:
    """Back from a session's row."""
    ttl_ns, last_used, acknowledged = msgpack.unpackb(value)
    return Session(ttl_ns, last_used, acknowledged)


def result_row_key(session: int, sequence: int) -> bytes:
    """Row key of a stored result."""
    return _RESULT_KEY.pack(session, sequence)


def parse_result_row_key(key: bytes) -> tuple[int, int]:
    """Back from a result's row key: session and sequence."""
    session, sequence = _RESULT_KEY.unpack(key)
    return session, sequence
