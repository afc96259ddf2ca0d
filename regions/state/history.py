"""The versions of the keys of one keyspace: what they are, what they were, and what changed when.

**Theory of operation.** Every write appends a record (`wire.records`). `_versions` holds the records of each key in
order, a tombstone among them; a key with one version, as most have, costs no list. `log` holds all records from
revision `scrubbed` on in the order of the writes: watchers catch up from it, and timestamps are looked up in it.

A compaction at r only sets a mark, of which this class knows nothing but what it is told. `scrub` then forgets, a few
at a time, every version below r that a later one at or below r supersedes, and tombstones below r. What happened at r
itself stays in the log, so a watcher may start there.

Invariants: the records are exactly the keyspace's rows; `restore` with them gives an equal history. A record in the
log is among its key's versions.

HAZARD: a record of a removed key is found as long as no compaction has passed it: `current` hides it, `_versions`
does not.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence

from isochrone.ids import Revision
from isochrone.regions.state.sorted_keys import SortedKeys
from isochrone.wire.records import (
    LIVE_AT,
    ORDER_BYTES,
    record_is_live,
    record_key,
    record_lease,
    record_revision,
    record_timestamp,
)


class History:
    """See the module."""

    __slots__ = ("_dead", "_order", "_versions", "log", "scrubbed")

    def __init__(self) -> None:
        self._versions: dict[bytes, bytes | list[bytes]] = {}
        self._order = SortedKeys()
        self._dead = 0
        """How many keys have a tombstone as their last version."""
        self.log: list[bytes] = []
        self.scrubbed = Revision(0)
        """Versions below this revision that nobody can ask for are forgotten."""

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, History):
            return NotImplemented
        mine, theirs = list(self.records()), list(other.records())
        return mine == theirs and self.log == other.log and self.scrubbed == other.scrubbed

    __hash__ = None  # type: ignore[assignment]

    def restore(self, records: Sequence[bytes]) -> list[tuple[bytes | None, bytes]]:
        """Take over records: in the order in which they were written, before the first write, after `scrubbed`.

        Returns those that hang on a lease or follow another version of their key, with the one before; most do neither.
        """
        versions = self._versions
        fresh: list[bytes] = []
        noted: list[tuple[bytes | None, bytes]] = []
        for record in records:
            key = record_key(record)
            held = versions.get(key)
            if held is not None or record_lease(record):
                noted.append((held[-1] if isinstance(held, list) else held, record))
            if held is None:
                versions[key] = record
                fresh.append(key)
                self._dead += not record_is_live(record)
            else:
                self._supersede(key, held, record)
        self._order.add_all(fresh)
        scrubbed: int = self.scrubbed
        self.log.extend(records[bisect_left(records, scrubbed, key=record_revision) :])
        return noted

    def records(self) -> Iterator[bytes]:
        """All versions of all keys, by key."""
        for key in self._order.between(b"", None):
            held = self._versions[key]
            yield from (held,) if isinstance(held, bytes) else held

    # ---- writing

    def append(self, key: bytes, record: bytes) -> None:
        """Take in the next version of a key."""
        held = self._versions.get(key)
        if held is None:
            self._versions[key] = record
            self._order.add(key)
            self._dead += 1 - record[LIVE_AT]
        else:
            self._supersede(key, held, record)
        self.log.append(record)

    def _supersede(self, key: bytes, held: bytes | list[bytes], record: bytes) -> None:
        """Put the next version of a key behind those that it has."""
        if isinstance(held, bytes):
            self._versions[key] = held = [held]
        self._dead += held[-1][LIVE_AT] - record[LIVE_AT]
        held.append(record)

    # ---- reading

    def current(self, key: bytes) -> bytes | None:
        """The key as it is; None if it is absent."""
        held = self._versions.get(key)
        if held is None:
            return None
        record = held if isinstance(held, bytes) else held[-1]
        return record if record[LIVE_AT] else None

    def at(self, key: bytes, revision: int) -> bytes | None:
        """The key as it was at a revision; None if it was absent. The revision must not be compacted."""
        held = self._versions.get(key)
        return None if held is None else _as_of(held, revision)

    def before(self, record: bytes) -> bytes | None:
        """The key of a record as it was before it; None if it was absent, or if that is forgotten."""
        held = self._versions.get(record_key(record))
        if not isinstance(held, list):
            return None
        place = bisect_left(held, record[:ORDER_BYTES], key=_order)
        return held[place - 1] if place and record_is_live(held[place - 1]) else None

    def between(self, start: bytes, end: bytes | None, revision: int | None = None) -> Iterator[bytes]:
        """Records of the keys in a range as they are, or as they were at a revision, in order of the keys."""
        versions = self._versions
        for key in self._order.between(start, end):
            held = versions[key]
            if revision is not None:
                found = _as_of(held, revision)
                if found is not None:
                    yield found
            else:
                record = held if isinstance(held, bytes) else held[-1]
                if record_is_live(record):
                    yield record

    def count_between(self, start: bytes, end: bytes | None, revision: int | None = None) -> int:
        """How many records `between` would return. Cheap for the present where nothing lies deleted."""
        if revision is None and not self._dead:
            return self._order.count_between(start, end)
        return sum(1 for _ in self.between(start, end, revision))

    def revision_at(self, timestamp: int) -> Revision | None:
        """The revision of the last write up to a timestamp; None if the log has none."""
        place = bisect_right(self.log, timestamp, key=record_timestamp)
        return Revision(record_revision(self.log[place - 1])) if place else None

    def timestamp_at(self, revision: int) -> int | None:
        """The timestamp of the last write up to a revision; None if the log has none."""
        place = bisect_right(self.log, revision, key=record_revision)
        return record_timestamp(self.log[place - 1]) if place else None

    def first_from(self, revision: int) -> int:
        """Place in the log of the first write from a revision on."""
        return bisect_left(self.log, revision, key=record_revision)

    # ---- forgetting

    def scrub(self, compacted: int, records_max: int) -> list[bytes]:
        """Forget what a compaction has superseded. Returns the first bytes (`ORDER_BYTES`) of what is gone.

        Looks at about `records_max` records, and always at whole revisions; `scrubbed` tells how far it came.
        """
        last = min(records_max, self.first_from(compacted))
        while 0 < last < len(self.log) and record_revision(self.log[last]) == record_revision(self.log[last - 1]):
            last += 1
        gone: list[bytes] = []
        # What a key's newest record supersedes is all that its older ones do. Once for each key: a version is taken
        # from the front of a list, which costs as much as the key has versions.
        for record in {record_key(record): record for record in self.log[:last]}.values():
            self._forget_before(record, gone)
        del self.log[:last]
        behind = self.log and record_revision(self.log[0]) < compacted
        self.scrubbed = Revision(record_revision(self.log[0]) if behind else compacted)
        if not behind:
            for record in self.log[: self.first_from(compacted + 1)]:
                self._forget_before(record, gone, kept_from=record_revision(record).to_bytes(8, "big"))
        return gone

    def _forget_before(self, record: bytes, gone: list[bytes], kept_from: bytes | None = None) -> None:
        """Forget the versions of the record's key that it supersedes, and itself if it is a tombstone.

        With `kept_from`, a revision as it begins a record: nothing of that revision or later, so that what the log
        holds is always in `_versions` too, also where a key was written twice in one revision.
        """
        key = record_key(record)
        held = self._versions[key]
        with_itself = kept_from is None and not record_is_live(record)
        if isinstance(held, bytes):
            if with_itself:
                gone.append(held[:ORDER_BYTES])
                self._remove(key)
            return
        place = bisect_left(held, kept_from or record[:ORDER_BYTES], key=_order) + with_itself
        gone.extend(version[:ORDER_BYTES] for version in held[:place])
        del held[:place]
        if len(held) == 1:
            self._versions[key] = held[0]
        elif not held:
            self._remove(key)

    def _remove(self, key: bytes) -> None:
        self._dead -= 1
        del self._versions[key]
        self._order.remove(key)


def _order(record: bytes) -> bytes:
    return record[:ORDER_BYTES]


def _as_of(held: bytes | list[bytes], revision: int) -> bytes | None:
    if isinstance(held, bytes):
        return held if record_revision(held) <= revision and record_is_live(held) else None
    place = bisect_right(held, revision, key=record_revision)
    if not place or not record_is_live(held[place - 1]):
        return None
    return held[place - 1]
