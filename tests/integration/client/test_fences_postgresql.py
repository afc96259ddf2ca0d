"""The fence gate on PostgreSQL: the claims for every database, and two racing holders at each isolation level."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing

import psycopg
import pytest
from fence_claims import CLAIMS, LOCK, Database, body, gates, set_up, write
from postgresql import postgresql
from psycopg import IsolationLevel
from psycopg.rows import dict_row

from isochrone.client.fences import Cursor, Dialect, FenceGate
from isochrone.errors import ForeignToken, StaleToken

pytestmark = pytest.mark.interop

WAIT_S = 30.0
LEVELS = [IsolationLevel.READ_COMMITTED, IsolationLevel.REPEATABLE_READ, IsolationLevel.SERIALIZABLE]
SNAPSHOTS = LEVELS[1:]


class Postgresql:
    """A schema of the server's database."""

    gate = FenceGate(Dialect.POSTGRESQL)

    def __init__(self, server: str, schema: str) -> None:
        self._server = server
        self._schema = schema

    def connect(self, level: IsolationLevel = IsolationLevel.READ_COMMITTED) -> psycopg.Connection:
        connection = psycopg.connect(f"{self._server} options='-c search_path={self._schema}'")
        connection.isolation_level = level
        return connection

    def until_somebody_waits(self) -> None:
        """For a lock that another transaction holds."""
        deadline = time.monotonic() + WAIT_S
        with psycopg.connect(self._server, autocommit=True) as connection:
            while connection.execute("SELECT 1 FROM pg_locks WHERE NOT granted").fetchone() is None:
                assert time.monotonic() < deadline, "nobody waits"
                time.sleep(0.01)


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with postgresql() as started:
        yield started


@pytest.fixture
def database(server: str) -> Iterator[Postgresql]:
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute("CREATE SCHEMA tested")
        made = Postgresql(server, "tested")
        set_up(made)
        yield made
        connection.execute("DROP SCHEMA tested CASCADE")


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.__name__)
def test_the_gate_keeps_its_claims(database: Postgresql, claim: Callable[[Database], None]) -> None:
    claim(database)


@pytest.mark.parametrize("level", LEVELS, ids=lambda level: level.name)
@pytest.mark.parametrize("ends", ["commit", "rollback"])
@pytest.mark.parametrize(("first", "second"), [(8, 7), (7, 8), (7, 7)])
@pytest.mark.parametrize("before", [None, 5], ids=["new gate", "old gate"])
def test_a_second_holder_waits_for_the_first(
    database: Postgresql, level: IsolationLevel, ends: str, first: int, second: int, before: int | None
) -> None:
    """It is judged by what the first one left; or, with a snapshot, told to begin anew if that is not what it saw."""
    if before is not None:
        write(database, before)
    with closing(database.connect(level)) as holder, closing(database.connect(level)) as racer:
        database.gate.advance(holder.cursor(), "report", LOCK, first)
        with ThreadPoolExecutor(1) as pool:
            passed: Future[None] = pool.submit(database.gate.advance, racer.cursor(), "report", LOCK, second)
            database.until_somebody_waits()
            assert not passed.done()
            getattr(holder, ends)()
            error = passed.exception(WAIT_S)
        if ends == "commit" and level in SNAPSHOTS:
            assert isinstance(error, psycopg.errors.SerializationFailure)
        elif ends == "commit" and second < first:
            assert isinstance(error, StaleToken)
        else:
            assert error is None
            racer.execute(f"UPDATE reports SET body = 'by {second}'")
            racer.commit()
            assert body(database) == f"by {second}"
        racer.rollback()
    if ends == "commit":
        if second < first:
            with pytest.raises(StaleToken):
                write(database, second)
        else:
            write(database, second)
    assert gates(database) == [("report", LOCK, max(first, second) if ends == "commit" else second)]


@pytest.mark.parametrize("level", SNAPSHOTS, ids=lambda level: level.name)
@pytest.mark.parametrize("token", [6, 7, 8, 9])
def test_a_snapshot_from_before_another_passed_cannot_pass(
    database: Postgresql, level: IsolationLevel, token: int
) -> None:
    """Neither with an older nor with a later token: what was read for the write is old."""
    write(database, 5)
    with closing(database.connect(level)) as reader:
        reader.execute("SELECT body FROM reports")
        write(database, 8)
        with pytest.raises(psycopg.errors.SerializationFailure):
            database.gate.advance(reader.cursor(), "report", LOCK, token)
        reader.rollback()
    assert gates(database) == [("report", LOCK, 8)]


def test_a_refused_holder_holds_the_next_up_until_it_rolls_back(database: Postgresql) -> None:
    """The refused statement locks the row, so the reason that it is given is the true one."""
    write(database, 8)
    with closing(database.connect()) as refused, closing(database.connect()) as later:
        with pytest.raises(StaleToken):
            database.gate.advance(refused.cursor(), "report", LOCK, 7)
        with ThreadPoolExecutor(1) as pool:
            passed: Future[None] = pool.submit(database.gate.advance, later.cursor(), "report", LOCK, 9)
            database.until_somebody_waits()
            assert not passed.done()
            refused.rollback()
            passed.result(WAIT_S)
        later.commit()
    assert gates(database) == [("report", LOCK, 9)]


def test_gates_of_two_resources_do_not_wait_for_each_other(database: Postgresql) -> None:
    with closing(database.connect()) as first, closing(database.connect()) as second:
        database.gate.advance(first.cursor(), "report", LOCK, 7)
        second.execute("SET lock_timeout = '10s'")
        database.gate.advance(second.cursor(), "another", LOCK, 7)
        second.commit()
        first.commit()
    assert gates(database) == [("another", LOCK, 7), ("report", LOCK, 7)]


def test_a_holder_whose_server_process_dies_leaves_the_gate_as_it_was(database: Postgresql) -> None:
    """Killed between gate and commit, the server undoes both, and the next holder need not wait for it."""
    write(database, 5)
    with closing(database.connect()) as holder, closing(database.connect()) as other:
        cursor = holder.cursor()
        database.gate.advance(cursor, "report", LOCK, 9)
        cursor.execute("UPDATE reports SET body = 'half done'")
        other.execute("SELECT pg_terminate_backend(%s, 10000)", [holder.info.backend_pid])
        with pytest.raises(psycopg.OperationalError):
            holder.commit()
    assert gates(database) == [("report", LOCK, 5)] and body(database) == "by 5"
    write(database, 8)
    assert gates(database) == [("report", LOCK, 8)] and body(database) == "by 8"


def test_rows_may_have_any_form(database: Postgresql) -> None:
    write(database, 8)
    with closing(database.connect()) as connection:
        typed: Cursor = connection.cursor(row_factory=dict_row)
        with pytest.raises(StaleToken):
            database.gate.advance(typed, "report", LOCK, 7)
        with pytest.raises(ForeignToken):
            database.gate.advance(typed, "report", b"other", 9)


def test_a_name_that_the_database_cannot_hold_is_the_drivers_error(database: Postgresql) -> None:
    with pytest.raises(psycopg.DataError):
        write(database, 7, resource="a\x00b")
    assert gates(database) == []
