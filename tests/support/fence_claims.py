"""What a fence gate must do on any SQL database: run against SQLite and PostgreSQL.

A claim gets a database that holds the gates' table and `reports (body)` with one row, `empty`.
"""

import threading
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Any, Protocol

import pytest

from isochrone.client.fences import TOKEN_MAX, FenceGate
from isochrone.errors import ForeignToken, InvalidRequest, LockNotHeld, StaleToken

LOCK = b"app/report"
OTHER = b"app/\x00\xff other"


class Connection(Protocol):
    """What is used of a DB-API 2.0 connection."""

    def cursor(self) -> Any: ...
    def commit(self) -> None: ...
    def rollback(self) -> None: ...
    def close(self) -> None: ...


class Database(Protocol):
    """A database under test."""

    @property
    def gate(self) -> FenceGate: ...
    def connect(self) -> Connection: ...


def set_up(database: Database) -> None:
    """Make the tables."""
    with closing(database.connect()) as connection:
        cursor = connection.cursor()
        database.gate.create_table(cursor)
        database.gate.create_table(cursor)
        cursor.execute("CREATE TABLE reports (body TEXT NOT NULL)")
        cursor.execute("INSERT INTO reports VALUES ('empty')")
        connection.commit()


def rows(database: Database, query: str) -> list[tuple[Any, ...]]:
    """What a connection of its own sees."""
    with closing(database.connect()) as connection:
        cursor = connection.cursor()
        cursor.execute(query)
        return [tuple(row) for row in cursor.fetchall()]


def body(database: Database) -> str:
    ((text,),) = rows(database, "SELECT body FROM reports")
    return str(text)


def gates(database: Database) -> list[tuple[str, bytes, int]]:
    found = rows(database, "SELECT resource, lock_name, token FROM isochrone_fence_gates ORDER BY resource")
    return [(resource, bytes(lock), token) for resource, lock, token in found]


def write(database: Database, token: int, lock: bytes = LOCK, resource: str = "report") -> None:
    """A guarded write, whole: the gate, the write, the commit."""
    with closing(database.connect()) as connection:
        cursor = connection.cursor()
        database.gate.advance(cursor, resource, lock, token)
        cursor.execute(f"UPDATE reports SET body = 'by {token}'")
        connection.commit()


def a_paused_holder_is_refused(database: Database) -> None:
    """L1: a holder pauses past its lease between its lock and its write; the next one has written meanwhile."""
    with closing(database.connect()) as paused:
        write(database, 7)
        write(database, 8)
        with pytest.raises(StaleToken, match="larger token") as refused:
            database.gate.advance(paused.cursor(), "report", LOCK, 7)
        assert isinstance(refused.value, LockNotHeld)
        paused.rollback()
    assert body(database) == "by 8" and gates(database) == [("report", LOCK, 8)]


def a_refusal_changes_nothing_even_if_committed(database: Database) -> None:
    write(database, 8)
    with closing(database.connect()) as connection:
        cursor = connection.cursor()
        for lock, token in ((LOCK, 7), (OTHER, 9), (OTHER, 7), (OTHER, 8)):
            with pytest.raises(StaleToken if lock == LOCK else ForeignToken):
                database.gate.advance(cursor, "report", lock, token)
        connection.commit()
    assert gates(database) == [("report", LOCK, 8)]


def one_token_passes_again(database: Database) -> None:
    """A holder writes many times, and repeats a commit whose outcome it did not learn."""
    write(database, 7)
    write(database, 7)
    with closing(database.connect()) as connection:
        cursor = connection.cursor()
        for _ in range(3):
            database.gate.advance(cursor, "report", LOCK, 7)
        connection.commit()
    assert gates(database) == [("report", LOCK, 7)]


def a_holder_that_only_passed_shuts_older_ones_out(database: Database) -> None:
    """It need not have written: whoever comes first with the larger token may trust what it reads next."""
    write(database, 7)
    with closing(database.connect()) as connection:
        database.gate.advance(connection.cursor(), "report", LOCK, 8)
        connection.commit()
    with pytest.raises(StaleToken):
        write(database, 7)
    assert body(database) == "by 7" and gates(database) == [("report", LOCK, 8)]


def a_crash_after_the_gate_undoes_both(database: Database) -> None:
    """The gate of a holder that ended before its commit stands where it stood, for a later and for an older token."""
    for token in (9, 7):
        connection = database.connect()
        cursor = connection.cursor()
        database.gate.advance(cursor, "report", LOCK, token)
        cursor.execute("UPDATE reports SET body = 'half done'")
        connection.close()
        assert gates(database) == [] and body(database) == "empty"
    write(database, 8)
    connection = database.connect()
    database.gate.advance(connection.cursor(), "report", LOCK, 9)
    connection.close()
    write(database, 8)
    assert gates(database) == [("report", LOCK, 8)] and body(database) == "by 8"


def a_foreign_token_is_refused(database: Database) -> None:
    """Larger, equal or smaller: tokens of two locks say nothing of each other."""
    write(database, 8)
    for token in (7, 8, 9, TOKEN_MAX):
        with pytest.raises(ForeignToken):
            write(database, token, OTHER)
    write(database, 3, OTHER, "another")
    assert body(database) == "by 3"
    assert gates(database) == [("another", OTHER, 3), ("report", LOCK, 8)]


def what_is_no_token_is_refused(database: Database) -> None:
    """Before the database sees it, which may round or convert it."""
    wrong: Sequence[Any] = (0, -1, TOKEN_MAX + 1, 1 << 70, 7.5, "7", b"7", None, True, "7" * 1000)
    for token in wrong:
        with pytest.raises(InvalidRequest, match="not a fencing token") as refused:
            write(database, token)
        assert len(str(refused.value)) < 200
    assert gates(database) == []
    for token in (1, 1 << 32, TOKEN_MAX - 1, TOKEN_MAX):
        write(database, token)
    with pytest.raises(StaleToken):
        write(database, TOKEN_MAX - 1)


def names_are_data(database: Database) -> None:
    """Whatever a name holds, it is one gate's name."""
    names = ["'; DROP TABLE reports; --", "%s ? :a", "Report", "report ", "report", "報告"]
    for token, name in enumerate(names, 1):
        write(database, token, name.encode(), name)
    assert sorted(gates(database)) == sorted((name, name.encode(), token) for token, name in enumerate(names, 1))


def holders_that_race_write_in_token_order(database: Database) -> None:
    """Four holders with tokens mixed among them: the writes that were committed stand in the order of their tokens."""
    with closing(database.connect()) as connection:
        connection.cursor().execute("CREATE TABLE written (place INTEGER NOT NULL PRIMARY KEY, token BIGINT NOT NULL)")
        connection.commit()
    start = threading.Barrier(4)
    refused: list[int] = []
    failed: list[BaseException] = []

    def hold(first: int) -> None:
        try:
            with closing(database.connect()) as connection:
                start.wait(timeout=30)
                for token in range(first, 60, 4):
                    cursor = connection.cursor()
                    try:
                        database.gate.advance(cursor, "report", LOCK, token)
                    except StaleToken:
                        refused.append(token)
                        connection.rollback()
                        continue
                    cursor.execute(
                        f"INSERT INTO written SELECT 1 + COALESCE(MAX(place), 0), {token} FROM written",
                    )
                    connection.commit()
        except BaseException as error:
            failed.append(error)
            raise

    threads = [threading.Thread(target=hold, args=(first,)) for first in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert not failed
    committed = [token for (token,) in rows(database, "SELECT token FROM written ORDER BY place")]
    assert committed == sorted(committed) and committed[-1] == 59
    assert sorted([*committed, *refused]) == list(range(1, 60))


CLAIMS: list[Callable[[Database], None]] = [
    a_paused_holder_is_refused,
    a_refusal_changes_nothing_even_if_committed,
    one_token_passes_again,
    a_holder_that_only_passed_shuts_older_ones_out,
    a_crash_after_the_gate_undoes_both,
    a_foreign_token_is_refused,
    what_is_no_token_is_refused,
    names_are_data,
    holders_that_race_write_in_token_order,
]
