"""What a host writes to its store: one batch of all groups at a time, with one sync.

What the groups want written gathers in the turn's `Turn` while a write is under way, and is the next batch. Rows wait
longer: those that come from applying entries ride along with the next log write. A restart replays what they lack from
the log, so they are not worth a sync of their own until they are many.
"""

import asyncio
from collections.abc import Callable, Mapping
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

    def __init__(self, store: Store, ended: Callable[[], None], failed: Callable[[Exception], None]) -> None:
        """`ended` is called when there is something `finished` to take, `failed` if the store cannot go on."""
        self._store = store
        self._tell_ended = ended
        self._tell_failed = failed
        self._rows: list[Row] = []
        """Those that wait, in the order in which they were made; a later one replaces an earlier one of its key."""
        self._write: Written | None = None
        """The one under way, or the last one."""
        self.under_way = False
        self.idle = asyncio.Event()
        """Set while no write is under way."""
        self.idle.set()
        self.finished: Written | None = None
        """The write that has ended and was not taken yet."""

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
        self._write = Written(batch, turn.releases)
        self.under_way = True
        self.idle.clear()
        self._store.write(batch, self._ended)

    def _ended(self, error: Exception | None) -> None:
        self.under_way = False
        self.idle.set()
        if error is None:
            self.finished = self._write
            self._tell_ended()
        else:
            self._tell_failed(error)
