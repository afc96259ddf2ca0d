"""A `GroupState` with a log in front: commands go in as a leader would log them, rows are kept as a store would."""

from collections.abc import Sequence

from isochrone.errors import IsochroneError
from isochrone.ids import GroupId, KeyspaceId, LogIndex, Term, Timestamp
from isochrone.ports import Row
from isochrone.regions.state.families import HANDLERS
from isochrone.regions.state.machine import Applied, GroupState
from isochrone.wire.commands import (
    Command,
    OpenSession,
    Operation,
    Query,
    Result,
    SessionResult,
    decode_query,
    decode_result,
    encode_batch,
    encode_command,
    encode_query,
    encode_result,
)
from isochrone.wire.entries import make_entry
from isochrone.wire.kv import Range, RangeResult
from isochrone.wire.messages import Entry, EntryKind

GROUP, KEYSPACE, SECOND = GroupId("g"), KeyspaceId("k/"), KeyspaceId("m/")
TTL_MS = 1_000
NS_PER_MS = 1_000_000


class StateLog:
    """See the module."""

    def __init__(self, *keyspaces: KeyspaceId) -> None:
        self.keyspaces = keyspaces or (KEYSPACE, SECOND)
        self.state = GroupState(GROUP, self.keyspaces, HANDLERS)
        self.entries: list[Entry] = []
        self.now_ms = 1_000
        self.term = 1
        self.rows: dict[tuple[str, int, bytes], Row] = {}
        self.last = Applied((), ())

    def apply(self, *items: Command, keyspace: KeyspaceId = KEYSPACE) -> list[Result | IsochroneError]:
        """Apply commands as one entry."""
        return self.log(EntryKind.COMMANDS, [encode_command(item) for item in items], keyspace)

    def log(
        self, kind: EntryKind, commands: list[bytes], keyspace: KeyspaceId = KEYSPACE
    ) -> list[Result | IsochroneError]:
        """Apply encoded commands as one entry."""
        entry = make_entry(
            index=LogIndex(len(self.entries) + 1),
            term=Term(self.term),
            kind=kind,
            timestamp=Timestamp(self.now_ms * NS_PER_MS),
            count=len(commands),
            keyspace=keyspace,
            data=encode_batch(commands),
        )
        self.entries.append(entry)
        self.last = self.state.apply(entry)
        for row in self.last.rows:
            self.rows[row.keyspace, row.table, row.key] = row
        return [decode_result(o) if isinstance(o, bytes) else o for o in self.last.outcomes]

    def session(self) -> int:
        """Open a session."""
        result = self.apply(Command(0, 0, 0, OpenSession(b"", TTL_MS)))[0]
        assert isinstance(result, SessionResult)
        self.now_ms += 1
        return result.session

    def run(self, session: int, sequence: int, operation: Operation, acknowledged: int = 0) -> Result:
        """Apply one command; raises the error with which it is refused."""
        result = self.apply(Command(session, sequence, acknowledged, operation))[0]
        self.now_ms += 1
        if isinstance(result, IsochroneError):
            raise result
        return result

    def do(self, operation: Operation) -> Result:
        """Apply one command outside any session."""
        return self.run(0, 0, operation)

    def read(self, query: Range) -> RangeResult:
        """Read the state as it is."""
        result = self.ask(query)
        assert isinstance(result, RangeResult)
        return result

    def ask(self, query: Query) -> Result:
        """Ask the state as it is."""
        return decode_result(encode_result(self.state.query(KEYSPACE, decode_query(encode_query(query)))))

    def value(self, key: bytes) -> bytes | None:
        """Value of a key."""
        items = self.read(Range(key)).items
        return items[0].value if items else None

    def stored(self) -> Sequence[Row]:
        """The rows that a store would hold, in its order."""
        return [row for _, row in sorted(self.rows.items()) if row.value is not None]

    def restart(self) -> None:
        """Go on with a state that is built from the rows alone."""
        self.state = GroupState(GROUP, self.keyspaces, HANDLERS)
        self.state.restore(self.stored())


def same_state(first: GroupState, second: GroupState) -> bool:
    """Whether two states are equal in all that they hold."""
    ours, theirs = first.data, second.data
    marks = ("revision", "timestamp", "compacted", "compacted_timestamp", "leases", "attached", "locks", "keyspaces")
    return all(getattr(ours, name) == getattr(theirs, name) for name in marks)
