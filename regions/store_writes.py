"""What a host writes to its store: one batch of all groups at a time, with one sync.

What the groups want written gathers in the turn's `Turn` while a write is under way, and is the next batch. Rows wait
longer: those that come from applying entries ride along with the next log write. A restart replays what they lack from
the log, so they are not worth a sync of their own until they are many.
"""

from collections import deque
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass

from isochrone.ids import Incarnation, NodeId
from isochrone.ports import Row, Store, WriteBatch
from isochrone.regions.work import Release, Turn

ROWS_MAX = 50_000
"""Rows that may wait for a log write; beyond, they are written on their own."""


@dataclass(frozen=True, slots=True)
class Written:
    """A batch, and what follows when it is durable, in order."""

    batch: WriteBatch
    releases: list[Release]


class StoreWrites:
    """The writes of one host. At most one is under way."""

    def __init__(
        self, store: Store, spawn: Callable[[Coroutine[None, None, None]], None], wake: Callable[[], None]
    ) -> None:
        """`spawn` runs a task whose failure ends the host; `wake` asks for a turn, to take what has `finished`."""
        self._store = store
        self._spawn = spawn
        self._wake = wake
        self._rows: list[Row] = []
        """Those that wait, in the order in which they were made; a later one replaces an earlier one of its key."""
        self.under_way = False
        self.finished: deque[Written] = deque()
        """Writes that have ended and were not taken yet, in order."""

    def keep_rows(self, turn: Turn) -> None:
        """Take over the rows of a turn. Those of groups whose state was replaced are void."""
        self._rows += turn.rows
        turn.rows = []
        for group in turn.replaced:
            self._rows = [row for row in self._rows if row.group != group]
            turn.applied.pop(group, None)
        turn.replaced = []

    def needed(self, turn: Turn, fresh: Mapping[NodeId, Incarnation]) -> bool:
        """Whether anything must be written now; if not, everything that the turn's releases rest on is durable."""
        return bool(turn.logs or fresh or len(self._rows) > ROWS_MAX)

    def begin(self, turn: Turn, fresh: Mapping[NodeId, Incarnation]) -> None:
        """Write what the turn and its predecessors want written, and the incarnations in `fresh`."""
        batch = WriteBatch(tuple(turn.logs), tuple(self._rows), turn.applied, fresh)
        self._rows = []
        self.under_way = True
        self._spawn(self._write(Written(batch, turn.releases)))

    async def _write(self, write: Written) -> None:
        await self._store.write(write.batch)
        self.under_way = False
        self.finished.append(write)
        self._wake()
