"""Reading a group's rows as they were at one moment, and deleting the rows of dead generations, in bounded steps.

A long read transaction would do the first, but it would keep every page that is freed meanwhile from being used again:
with a busy store, gigabytes within minutes. (Nor is it possible: without LMDB's lock file, readers are not protected
from writers.) So a snapshot remembers what it still has to read and somebody is about to change: the old value, once
for each row. What it remembers is bounded; beyond, the snapshot is lost and must be begun again.
"""

from collections.abc import Iterator, Mapping
from heapq import merge
from itertools import groupby
from operator import itemgetter
from typing import TypeAlias

import lmdb

from isochrone.ids import GroupId
from isochrone.ports import StoredGroup
from isochrone.probes import probe
from isochrone.regions.storage import layout
from isochrone.wire.rows import encode_row

SAVED_BYTES_MAX = 256 << 20
"""Most bytes of rows that one snapshot remembers."""
SWEPT_ROWS_MAX = 512
"""Most dead rows that go in one commit."""

_Transaction: TypeAlias = "lmdb.Transaction[bytes]"
_Database: TypeAlias = "lmdb._Database"  # the class has no public name


class Snapshot:
    """One snapshot that is being read. Belongs to the storage thread."""

    def __init__(self, group: GroupId, bounds: StoredGroup, prefix: bytes) -> None:
        """`bounds` are the group's now, and `prefix` begins the keys of its rows in force."""
        self.group = group
        self.bounds = bounds
        self.lost = False
        self._prefix = prefix
        self._next = prefix
        """Every row with a smaller key has been read."""
        self._saved: dict[bytes, bytes | None] = {}
        """Rows yet to be read that have changed: as they were; None: not there."""
        self._saved_bytes = 0

    def save(self, txn: _Transaction, rows: _Database, changes: Mapping[bytes, bytes | None]) -> None:
        """These rows are about to change, in a transaction that may yet fail."""
        if self.lost:
            return
        for key in changes:
            if key.startswith(self._prefix) and key >= self._next and key not in self._saved:
                stored = txn.get(key, db=rows)
                self._saved[key] = stored
                self._saved_bytes += len(key) + len(stored or b"")
        if self._saved_bytes > SAVED_BYTES_MAX:
            probe("storage.snapshot_lost")
            self.lost = True
            self._saved.clear()

    def read(self, txn: _Transaction, bytes_max: int) -> tuple[bytes, bool]:
        """The next rows, in order, and whether they are the last.

        Rows whose keys begin alike and were cut stay together, be they more than fit: their stored keys tell no order.
        """
        chunks: list[bytes] = []
        size_bytes = 0
        for _, near in groupby(self._rows(txn), key=lambda item: layout.order_of(item[0])):
            stored = list(near)
            rows = [layout.decode_row(self.group, *item) for item in stored]
            rows.sort(key=lambda row: (row.keyspace, row.table, row.key))
            chunk = b"".join([encode_row(row.keyspace, row.table, row.key, row.value or b"") for row in rows])
            if chunks and size_bytes + len(chunk) > bytes_max:
                self._advance(stored[0][0])
                return b"".join(chunks), False
            chunks.append(chunk)
            size_bytes += len(chunk)
        return b"".join(chunks), True

    def _rows(self, txn: _Transaction) -> Iterator[tuple[bytes, bytes]]:
        """Keys and stored values of the rows yet to be read, as they were, in order."""
        saved = [(key, stored) for key, stored in self._saved.items() if stored is not None]
        saved.sort()
        present = (item for item in self._present(txn) if item[0] not in self._saved)
        return merge(present, saved, key=itemgetter(0))

    def _present(self, txn: _Transaction) -> Iterator[tuple[bytes, bytes]]:
        with txn.cursor() as cursor:
            cursor.set_range(self._next)
            for key, stored in cursor:
                if not key.startswith(self._prefix):
                    return
                yield key, stored

    def _advance(self, key: bytes) -> None:
        self._next = key
        for passed in [saved for saved in self._saved if saved < key]:
            self._saved_bytes -= len(passed) + len(self._saved.pop(passed) or b"")


class DeadRows:
    """Generations of rows that nobody needs. Belongs to the storage thread."""

    def __init__(self) -> None:
        """None yet."""
        self._prefixes: list[bytes] = []

    def add(self, prefix: bytes) -> None:
        """The rows whose keys begin so are dead, from the next transaction on."""
        self._prefixes.append(prefix)

    def sweep(self, txn: _Transaction, rows: _Database) -> None:
        """Delete some dead rows along with a transaction, which may yet fail."""
        if not self._prefixes:
            return
        prefix = self._prefixes[0]
        with txn.cursor(rows) as cursor:
            if not cursor.set_range(prefix) or not cursor.key().startswith(prefix):
                # Nothing is left, as of an earlier commit: nobody writes dead rows.
                self._prefixes.pop(0)
                return
            for _ in range(SWEPT_ROWS_MAX):
                if not cursor.delete() or not cursor.key().startswith(prefix):
                    return
