"""What a host reads from its store: snapshots are closed however their attempts end, and lost ones are reported."""

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import pytest

from isochrone.ids import GroupId, LogIndex, Term
from isochrone.ports import Store
from isochrone.regions.raft.ready import SnapshotPart, SnapshotRead
from isochrone.regions.replica import Replica
from isochrone.regions.state.machine import GroupState
from isochrone.regions.store_reads import StoreReads
from isochrone.regions.work import Turn
from isochrone.wire.messages import Configuration

GROUP = GroupId("g")
READ = SnapshotRead(1, 100)


@dataclass
class Reader:
    """A snapshot of two pieces that knows whether it was closed."""

    pieces: list[tuple[bytes, bool] | None] = field(default_factory=lambda: [(b"x", False), (b"y", True)])
    closed: bool = False
    index = LogIndex(5)
    index_term = Term(1)
    configuration = Configuration(())

    async def read(self, _bytes_max: int) -> tuple[bytes, bool] | None:
        assert not self.closed
        return self.pieces.pop(0)

    def close(self) -> None:
        self.closed = True


class Bench:
    """One group whose core only notes what it is given; tasks run when the test lets them."""

    def __init__(self) -> None:
        self.given: list[tuple[int, SnapshotPart | None]] = []
        self.opened: list[Reader] = []
        self.tasks: list[Coroutine[None, None, None]] = []
        core = SimpleNamespace(snapshot_read=lambda attempt, part, _now: self.given.append((attempt, part)))
        replicas = {GROUP: cast("Replica", SimpleNamespace(core=core))}
        store = cast("Store", SimpleNamespace(open_snapshot=self._open))
        self.reads = StoreReads(store, replicas, lambda _: cast("GroupState", None), self.tasks.append, lambda: None)

    async def _open(self, _group: GroupId) -> Reader:
        self.opened.append(Reader())
        return self.opened[-1]

    def turn(self, *, read: bool = False, end: bool = False) -> None:
        turn: Any = Turn()
        turn.snapshot_reads = [(GROUP, READ)] * read
        turn.snapshot_ends = [(GROUP, READ.attempt)] * end
        self.reads.start(turn)
        assert not turn.asks_for_reads

    def run(self) -> None:
        while self.tasks:
            asyncio.run(self.tasks.pop(0))
        self.reads.hand_out(cast("Any", 0))


def test_a_snapshot_is_opened_once_read_piece_by_piece_and_closed_when_its_attempt_ends() -> None:
    bench = Bench()
    for _ in range(2):
        bench.turn(read=True)
        bench.run()
    assert [(attempt, part and (part.data, part.last)) for attempt, part in bench.given] == [
        (1, (b"x", False)),
        (1, (b"y", True)),
    ]
    assert len(bench.opened) == 1
    assert not bench.opened[0].closed
    bench.turn(end=True)
    assert bench.opened[0].closed


def test_an_attempt_that_ends_in_the_turn_that_asks_for_a_read_leaves_nothing_open() -> None:
    """A leader takes an acknowledgement and loses its office in one turn; nobody would ever close what is opened."""
    bench = Bench()
    bench.turn(read=True, end=True)
    bench.run()
    assert bench.given == [(1, None)]
    assert all(reader.closed for reader in bench.opened)


def test_a_snapshot_that_is_opened_after_its_attempt_has_ended_is_closed_again() -> None:
    bench = Bench()
    opening = bench._open

    async def open_late(group: GroupId) -> Reader:
        bench.turn(end=True)
        return await opening(group)

    bench.reads._store.open_snapshot = open_late  # type: ignore[method-assign,assignment]
    bench.turn(read=True)
    bench.run()
    assert bench.given == [(1, None)]
    assert [reader.closed for reader in bench.opened] == [True]


def test_what_the_store_can_no_longer_give_is_reported_as_lost() -> None:
    bench = Bench()
    bench.turn(read=True)
    bench.run()
    bench.opened[0].pieces = [None]
    bench.turn(read=True)
    bench.run()
    assert bench.given[-1] == (1, None)


def test_a_snapshot_that_goes_away_while_it_is_loaded_is_loaded_anew() -> None:
    """Nobody asks again: until the state is there, the replica applies nothing."""
    bench = Bench()
    loaded: list[tuple[object, int]] = []
    machines = [SimpleNamespace(restore=lambda _rows: None) for _ in range(2)]
    unused = list(machines)
    bench.reads._new_machine = lambda _: unused.pop(0)  # type: ignore[assignment,return-value]
    bench.reads._replicas[GROUP].loaded = lambda machine, index: loaded.append((machine, index))  # type: ignore[method-assign]
    lost, whole = Reader([None]), Reader([(b"", True)])
    readers = [lost, whole]

    async def open_next(_group: GroupId) -> Reader:
        return readers.pop(0)

    bench.reads._store.open_snapshot = open_next  # type: ignore[method-assign,assignment]
    turn: Any = Turn()
    turn.loads = [GROUP]
    bench.reads.start(turn)
    bench.run()
    assert loaded == [(machines[1], 5)]
    assert (lost.closed, whole.closed) == (True, True)


@pytest.mark.parametrize("awaited", [True, False])
def test_a_replica_goes_on_only_with_the_state_that_its_core_awaits(awaited: bool) -> None:
    """A snapshot may be loaded twice; the second time the first one has moved on."""
    core = SimpleNamespace(snapshot_loaded=lambda _index: awaited)
    taken: list[object] = []
    replica = SimpleNamespace(core=core, _service=SimpleNamespace(replaced=taken.append))
    Replica.loaded(cast("Replica", replica), cast("GroupState", "loaded"), LogIndex(5))
    assert taken == (["loaded"] if awaited else [])
