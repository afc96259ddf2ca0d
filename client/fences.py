"""A fence for what a SQL database holds: who writes under an older token than the one seen last is refused.

A lock alone keeps nobody from writing late: a holder may sleep between looking at its lock and writing, while the lock
goes to another. So the database itself remembers, per resource, the largest fencing token that it let pass, and moves
it in the same transaction as the guarded write::

    fence = FenceGate(Dialect.POSTGRESQL)

    def write(lock: Lock, body: str) -> None:
        with connection.transaction(), connection.cursor() as cursor:
            fence.advance(cursor, "report", lock.name, lock.token)
            cursor.execute("UPDATE reports SET body = %s WHERE name = 'report'", [body])

    async with client.lock("app/report", ttl_s=30) as lock:
        await asyncio.to_thread(write, lock, body)

Cursors are those of DB-API 2.0; no driver is imported. They block, so they belong on a thread: a lock is not renewed
while its event loop is blocked. What runs on a thread is not cancelled with the body when the lock is lost; the fence
is what stops it. (For what the platform's own groups hold: `wire.fence_gates.fenced`.)

Invariants. The token of a gate only rises, and its lock stays the one that came first. Of two committed transactions
that passed one gate, the one with the larger token is the later in the database's order of commits. One token passes
any number of times, so that a holder may write often and repeat what it does not know to be done; whether such a
repetition does harm is up to the write.

Theory. `advance` is one statement that inserts the gate's row, or updates it if the row's lock is the same and its
token not larger. It locks the row until the transaction ends, whether the token passes or not, so transactions at one
gate go one after the other. What a second holder meets while the first one's transaction is open:

- PostgreSQL, `READ COMMITTED`: it waits; then the condition is judged anew against what was committed, or against the
  old row if the first was rolled back.
- PostgreSQL, `REPEATABLE READ` and `SERIALIZABLE`: it waits, and fails with a serialization failure (40001) if the
  first was committed; likewise whoever took its snapshot before another passed. Roll back, and repeat the transaction.
- SQLite: it waits for the write lock, at most the connection's busy timeout, and then fails with `SQLITE_BUSY`. So
  does, at once, a transaction that began with a read and was overtaken: use `BEGIN IMMEDIATE` (with `sqlite3`:
  `isolation_level="IMMEDIATE"`).

HAZARD: in autocommit mode each statement is a transaction, so a write can come after its gate was passed by another.
`advance` cannot see that. Nor may the two be parted by a savepoint that only one of them is rolled back to.

HAZARD: a gate knows only the tokens that came to it. Until a new holder has been there, and committed, an older one may
still write. So a holder passes the gate before it reads what its write depends on: then no older one changes it.

HAZARD: transactions that pass several gates wait for each other in a circle unless all pass them in the same order.

HAZARD: the gate forgets with the database. A backup restored or a replica promoted without the last commits takes
older tokens again, as far as it has gone back itself. So does a row deleted by hand.

HAZARD: lock names are those of one cluster. Locks of two clusters are told apart only if their names differ.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final, LiteralString, Protocol

from isochrone.errors import ForeignToken, InvalidRequest, StaleToken

TOKEN_MAX: Final = (1 << 63) - 1
"""Tokens are positive and fit into 64 bits with a sign."""


class Cursor(Protocol):
    """What is used of a DB-API 2.0 cursor."""

    @property
    def rowcount(self) -> int:
        """Rows that the last statement changed."""
        ...

    def execute(self, operation: LiteralString, parameters: Sequence[str | bytes | int], /) -> object:
        """Run one statement."""
        ...

    def fetchone(self) -> object:
        """The next row of the last query, None after the last."""
        ...


class Dialect(Enum):
    """A kind of database, with its type for bytes and its driver's mark for a parameter."""

    SQLITE = ("BLOB", "?")
    """SQLite 3.24 or later, through `sqlite3` or another driver with the parameter style `qmark`."""
    POSTGRESQL = ("BYTEA", "%s")
    """PostgreSQL, through `psycopg` or another driver with the parameter style `format` or `pyformat`."""


@dataclass(frozen=True, slots=True)
class FenceGate:
    """The gates of a database, in the table `isochrone_fence_gates`; see the module. Safe to share among threads."""

    dialect: Dialect

    def create_table(self, cursor: Cursor) -> None:
        """Create the table of gates if it is not there; in PostgreSQL in the first schema of the search path.

        Do it once, when the database is set up: PostgreSQL may fail it where two do it at once.
        """
        blob, _ = self.dialect.value
        cursor.execute(
            "CREATE TABLE IF NOT EXISTS isochrone_fence_gates ("
            "resource TEXT NOT NULL PRIMARY KEY, "
            f"lock_name {blob} NOT NULL, "
            "token BIGINT NOT NULL CHECK (token > 0))",
            (),
        )

    def advance(self, cursor: Cursor, resource: str, lock: bytes, token: int) -> None:
        """Let a holder of a lock pass the gate of a resource, or refuse it and change nothing.

        It counts once the caller commits the transaction, and is undone if the caller rolls it back. Call it first in
        the transaction of the guarded write, and roll back if it raises. The first to pass a gate binds it to its lock.

        Args:
            cursor: of a connection that is in a transaction, or begins one with the statement; not in autocommit mode.
            resource: names the gate: what the lock guards.
            lock: the lock's name.
            token: of the caller's grant.

        Raises:
            StaleToken: the gate has seen a larger token: the lock has had a later holder.
            ForeignToken: the gate belongs to another lock.
            InvalidRequest: no grant has such a token.
            Exception: what the driver raises, among it serialization failures, after which the transaction may be
                repeated.
        """
        if type(token) is not int or not 0 < token <= TOKEN_MAX:
            raise InvalidRequest(f"{token!r:.64} is not a fencing token: those are integers from 1 to 2^63 - 1")
        _, mark = self.dialect.value
        cursor.execute(
            "INSERT INTO isochrone_fence_gates AS gate (resource, lock_name, token) "
            f"VALUES ({mark}, {mark}, {mark}) "
            "ON CONFLICT (resource) DO UPDATE SET token = excluded.token "
            "WHERE gate.lock_name = excluded.lock_name AND gate.token <= excluded.token",
            (resource, lock, token),
        )
        # A driver that does not count reports -1; then nobody passes.
        if cursor.rowcount == 1:
            return
        # The refused statement has locked the row, so this reads what it was judged by.
        cursor.execute(
            f"SELECT 1 FROM isochrone_fence_gates WHERE resource = {mark} AND lock_name = {mark}", (resource, lock)
        )
        if cursor.fetchone() is None:
            raise ForeignToken(f"the gate of {resource[:64]!r} belongs to another lock than {lock[:64]!r}")
        raise StaleToken(f"the gate of {resource[:64]!r} has seen a larger token of lock {lock[:64]!r} than {token}")
