"""The replicated state machine of one group: applies entries, answers queries, survives restarts by rows.

Deterministic: equal logs give equal states, results and rows on every replica. What decides, decides here, at
apply; the leader's queues only order and wake. Time is the entry's timestamp. Which operations there are is
registered (`Handlers`); that each command runs once is the business of `sessions`.

What a compaction made superfluous is forgotten bit by bit, by every entry that is applied: no single entry takes long.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter

import msgpack

from isochrone.errors import InvalidRequest, IsochroneError, StorageError
from isochrone.ids import GroupId, KeyspaceId, Revision, Timestamp
from isochrone.ports import Row
from isochrone.records import quickly_made
from isochrone.regions.state import kv, leases, locks, sessions
from isochrone.regions.state.model import (
    TABLE_GROUP,
    TABLE_LEASES,
    TABLE_LOCKS,
    TABLE_RECORDS,
    TABLE_RESULTS,
    TABLE_SCRUBBED,
    TABLE_SESSIONS,
    ApplyContext,
    GroupData,
    Handlers,
    Happening,
    KeyspaceState,
    LeaseEvent,
    LockMoment,
    LockNotice,
)
from isochrone.regions.state.running import run_commands
from isochrone.wire.commands import Query, check_query, decode_batch
from isochrone.wire.kv import PackedResult, Range
from isochrone.wire.leases import CompactByRule, LeaseList, LeaseTimeToLive, LockTick, decode_housekeeping
from isochrone.wire.locks import LockQuery
from isochrone.wire.messages import Entry, EntryKind
from isochrone.wire.pack import pack
from isochrone.wire.records import record_is_live, record_key, record_lease

SCRUB_RECORDS_MAX = 500
"""About how many records an entry looks at to forget what is superseded, in each keyspace."""

_NO_KEYSPACE = KeyspaceId("")
_place = attrgetter("keyspace", "table")
_GROUP_KEY = b"group"
_SCRUBBED_KEY = b"scrubbed"


@quickly_made
@dataclass(frozen=True, slots=True)
class Applied:
    """What one entry did."""

    outcomes: tuple[bytes | IsochroneError, ...]
    """For each command, in order: its encoded result, or the error with which it was refused without effect."""
    rows: tuple[Row, ...]
    events: tuple[bytes, ...] = ()
    """Records of what was written, in order."""
    lease_events: tuple[LeaseEvent, ...] = ()
    lock_notices: tuple[LockNotice, ...] = ()
    lock_moments: tuple[LockMoment, ...] = ()
    happened: tuple[Happening, ...] = ()


class GroupState:
    """The state of one group."""

    def __init__(self, group: GroupId, keyspaces: Iterable[KeyspaceId], handlers: Handlers) -> None:
        """Start empty; `restore` brings stored rows in. `handlers` are the registered command families."""
        self.group = group
        self.data = GroupData(group, keyspaces)
        self._handlers = handlers

    @property
    def revision(self) -> Revision:
        """The group's revision."""
        return self.data.revision

    def restore(self, rows: Sequence[Row]) -> None:
        """Take over stored rows before the first apply; in pieces, if their order is kept: by keyspace, table, key."""
        for (keyspace, table), run in groupby(rows, key=_place):
            kept = [(row.key, row.value) for row in run if row.value is not None]
            if table == TABLE_GROUP:
                for _, value in kept:
                    self._restore_group(value)
            elif table == TABLE_RECORDS:
                self._restore_records(self.data.keyspace(keyspace), [record for _, record in kept])
            else:
                for key, value in kept:
                    self._restore_row(self.data.keyspace(keyspace), table, key, value)

    def _restore_records(self, state: KeyspaceState, records: Sequence[bytes]) -> None:
        for before, record in state.history.restore(records):
            lease = record_lease(before) if before is not None and record_is_live(before) else 0
            self.data.attach(record_key(record), lease, record_lease(record))

    def _restore_group(self, value: bytes) -> None:
        data = self.data
        revision, timestamp, compacted, compacted_timestamp = msgpack.unpackb(value)
        data.revision, data.timestamp = Revision(revision), Timestamp(timestamp)
        data.compacted, data.compacted_timestamp = Revision(compacted), Timestamp(compacted_timestamp)

    def _restore_row(self, state: KeyspaceState, table: int, key: bytes, value: bytes) -> None:
        match table:
            case _ if table == TABLE_SCRUBBED:
                state.history.scrubbed = Revision(int.from_bytes(value, "big"))
            case _ if table == TABLE_SESSIONS:
                state.add_session(sessions.parse_session_row_key(key), sessions.decode_session_row(value))
            case _ if table == TABLE_RESULTS:
                sessions.restore_results(state, key, value)
            case _ if table == TABLE_LOCKS:
                locks.restore_lock_row(self.data, state, key, value)
            case _ if table == TABLE_LEASES:
                leases.restore_lease(self.data, state.keyspace, key, value)
            case _:
                raise StorageError(f"group {self.group} has a row of unknown table {table}")

    def apply(self, entry: Entry) -> Applied:
        """Apply one committed entry."""
        if entry.kind is EntryKind.HOUSEKEEPING:
            return self._keep_house(entry)
        if entry.kind is not EntryKind.COMMANDS:
            return Applied((), ())
        commands = decode_batch(entry.data)
        try:
            context = ApplyContext(self.data, entry.term, self.data.keyspace(entry.keyspace))
        except InvalidRequest as error:
            return Applied((error,) * len(commands), ())
        outcomes = run_commands(context, self._handlers, commands, entry.timestamp)
        sessions.write_session_rows(context)
        return self._applied(context, outcomes)

    def _keep_house(self, entry: Entry) -> Applied:
        context = ApplyContext(self.data, entry.term, KeyspaceState(_NO_KEYSPACE, b""))
        for position, data in enumerate(decode_batch(entry.data)):
            context.begin(Timestamp(entry.timestamp + position))
            command = decode_housekeeping(data)
            match command:
                case CompactByRule():
                    kv.compact_by_rule(context, command)
                case LockTick(name):
                    locks.tick_lock(context, name)
                case _:
                    leases.apply_lease_command(context, command)
        return self._applied(context, ())

    def _applied(self, context: ApplyContext, outcomes: Sequence[bytes | IsochroneError]) -> Applied:
        self._scrub(context)
        context.rows[_NO_KEYSPACE, TABLE_GROUP, _GROUP_KEY] = self._group_row()
        rows = tuple([Row(self.group, name, table, key, value) for (name, table, key), value in context.rows.items()])
        return Applied(
            tuple(outcomes),
            rows,
            tuple(context.events),
            tuple(context.lease_events),
            tuple(context.lock_notices),
            tuple(context.lock_moments),
            tuple(context.happened),
        )

    def query(self, keyspace: KeyspaceId, query: Query, lease_remaining_ms: int = 0) -> PackedResult:
        """Answer a query from the state as it is. Raises `InvalidRequest`.

        `lease_remaining_ms` is what the leader has measured of the lease that is asked for.
        """
        self.data.keyspace(keyspace)
        check_query(query)
        match query:
            case Range():
                kv.check_range(self.data, query)
                return kv.run_range(self.data, query)
            case LeaseTimeToLive():
                return leases.time_to_live(self.data, query, lease_remaining_ms)
            case LeaseList():
                return leases.list_leases(self.data)
            case LockQuery():
                return locks.answer_query(self.data, query)
            case _:
                raise InvalidRequest(f"{type(query).__name__} is no question about the state")

    def _scrub(self, context: ApplyContext) -> None:
        compacted = self.data.compacted
        for state in self.data.keyspaces.values():
            if state.history.scrubbed >= compacted:
                continue
            for order in state.history.scrub(compacted, SCRUB_RECORDS_MAX):
                context.rows[state.keyspace, TABLE_RECORDS, order] = None
            scrubbed = state.history.scrubbed.to_bytes(8, "big")
            context.rows[state.keyspace, TABLE_SCRUBBED, _SCRUBBED_KEY] = scrubbed

    def _group_row(self) -> bytes:
        data = self.data
        return pack((data.revision, data.timestamp, data.compacted, data.compacted_timestamp))
