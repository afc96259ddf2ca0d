"""The fence gate on SQLite: the claims for every database, and what two racing holders meet there."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Literal

import pytest
from fence_claims import CLAIMS, LOCK, Database, body, gates, set_up, write

from isochrone.client.fences import Cursor, Dialect, FenceGate
from isochrone.errors import ForeignToken, StaleToken


class Sqlite:
    """A database in a file."""

    gate = FenceGate(Dialect.SQLITE)

    def __init__(self, path: Path) -> None:
        self._path = path

    def connect(
        self, busy_s: float = 60.0, begin: Literal["DEFERRED", "IMMEDIATE"] = "IMMEDIATE"
    ) -> sqlite3.Connection:
        return sqlite3.connect(self._path, timeout=busy_s, isolation_level=begin)


@pytest.fixture(params=["DELETE", "WAL"])
def database(tmp_path: Path, request: pytest.FixtureRequest) -> Sqlite:
    made = Sqlite(tmp_path / "reports.sqlite")
    with closing(made.connect()) as connection:
        connection.execute(f"PRAGMA journal_mode = {request.param}")
    set_up(made)
    return made


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.__name__)
def test_the_gate_keeps_its_claims(database: Sqlite, claim: Callable[[Database], None]) -> None:
    claim(database)


@pytest.mark.parametrize("ends", ["commit", "rollback"])
@pytest.mark.parametrize(("first", "second"), [(8, 7), (7, 8)])
def test_a_second_holder_waits_for_the_first(database: Sqlite, ends: str, first: int, second: int) -> None:
    """It is not judged while the first one's transaction is open."""
    with closing(database.connect()) as holder, closing(database.connect(busy_s=0)) as racer:
        database.gate.advance(holder.cursor(), "report", LOCK, first)
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            database.gate.advance(racer.cursor(), "report", LOCK, second)
        racer.rollback()
        getattr(holder, ends)()
    if ends == "commit" and second < first:
        with pytest.raises(StaleToken):
            write(database, second)
        assert gates(database) == [("report", LOCK, first)] and body(database) == "empty"
    else:
        write(database, second)
        assert gates(database) == [("report", LOCK, second)] and body(database) == f"by {second}"


def test_a_transaction_that_read_before_it_was_overtaken_cannot_pass(tmp_path: Path) -> None:
    """With a write-ahead log a reader holds no writer up, so its snapshot may be old when it comes to the gate."""
    database = Sqlite(tmp_path / "reports.sqlite")
    with closing(database.connect()) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
    set_up(database)
    with closing(database.connect(begin="DEFERRED")) as reader:
        reader.execute("BEGIN")
        assert reader.execute("SELECT body FROM reports").fetchone() == ("empty",)
        write(database, 7)
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            database.gate.advance(reader.cursor(), "report", LOCK, 8)
        reader.rollback()
        database.gate.advance(reader.cursor(), "report", LOCK, 8)
        assert reader.execute("SELECT body FROM reports").fetchone() == ("by 7",)
        reader.commit()
    assert gates(database) == [("report", LOCK, 8)]


def test_rows_may_have_any_form(database: Sqlite) -> None:
    """The gate reads no column of a row, so a connection that makes mappings of rows serves as well."""
    write(database, 8)
    with closing(database.connect()) as connection:
        connection.row_factory = lambda cursor, row: {"row": row}
        typed: Cursor = connection.cursor()
        with pytest.raises(StaleToken):
            database.gate.advance(typed, "report", LOCK, 7)
        with pytest.raises(ForeignToken):
            database.gate.advance(typed, "report", b"other", 9)


def test_the_database_itself_refuses_a_gate_without_a_token(database: Sqlite) -> None:
    with closing(database.connect()) as connection, pytest.raises(sqlite3.IntegrityError):
        connection.execute("INSERT INTO isochrone_fence_gates VALUES ('report', ?, 0)", (LOCK,))
