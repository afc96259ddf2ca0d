"""A replica's view of its log: what is durable, what is on its way to disk, and recent entries in memory.

The whole log is known by its term runs (one record for each change of term), so the term of any index is known
without I/O, and so are the sizes of all entries (eight bytes for each). Entries themselves are kept from `cache_first`
on; older ones are read from storage by the host when a peer needs them.

Invariants:
1. truncated_index <= durable_index <= last_index, and durable_index <= handed_index <= last_index.
2. Term runs are contiguous, with rising terms, and cover exactly truncated_index + 1 … last_index.
3. Entries above `handed_index` have not been given to storage yet. Entries above `durable_index` are always in
   the cache: what is not durable cannot be read back.
4. `epoch` rises whenever a suffix is replaced, and with a snapshot, so that a late report of a write that was
   overtaken is recognised:
   1. entry 5 of term 2 is on its way to disk; 2. a leader of term 3 replaces it; 3. a leader of term 4 brings
   entry 5 of term 2 back. The first write's report then names an entry equal to the present one, while the disk
   is about to hold term 3's. Counting it as durable would let a majority forget it.
"""

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import accumulate

from isochrone.errors import check
from isochrone.ids import LogIndex, Term, Timestamp
from isochrone.ports import StoredGroup, TermRun
from isochrone.probes import probe
from isochrone.wire.messages import Entry


class RaftLog:
    """The log of one replica. Mutable; owned by one `RaftNode`."""

    def __init__(self, stored: StoredGroup, tail: Sequence[Entry]) -> None:
        """Start from what storage holds; `tail` are the entries to keep in memory, up to the last one."""
        self.truncated_index = stored.truncated_index
        self.truncated_term = stored.truncated_term
        self.last_index = stored.last_index
        self.durable_index = stored.last_index
        self.handed_index = stored.last_index
        self.epoch = 0
        self.cached_bytes = sum(len(entry.encoded) for entry in tail)
        self._run_firsts: list[int] = [run.first for run in stored.term_runs]
        self._run_terms: list[Term] = [run.term for run in stored.term_runs]
        self._cache: list[Entry] = list(tail)
        self._cache_first = LogIndex(tail[0].index if tail else stored.last_index + 1)
        self._start_bytes = 0
        self._end_bytes = array("Q", accumulate(stored.entry_bytes))
        """Where each entry held ends, and `_start_bytes` where the first begins, counted in bytes of the whole log."""
        check(not tail or tail[-1].index == stored.last_index, "the tail in memory must reach the end of the log")
        held = stored.last_index - stored.truncated_index
        check(len(self._end_bytes) == held, f"{len(self._end_bytes)} sizes are given for {held} entries")

    @property
    def first_index(self) -> LogIndex:
        """Index of the first entry still held, in memory or in storage."""
        return LogIndex(self.truncated_index + 1)

    @property
    def cache_first(self) -> LogIndex:
        """First index whose entry is in memory; one past the last when none is."""
        return self._cache_first

    @property
    def last_term(self) -> Term:
        """Term of the last entry."""
        return self._run_terms[-1] if self._run_terms else self.truncated_term

    @property
    def retained_bytes(self) -> int:
        """Encoded bytes of all entries held, in memory or in storage."""
        return self._position(self.last_index) - self._start_bytes

    def bytes_between(self, low: LogIndex, high: LogIndex) -> int:
        """Encoded bytes of the entries above `low` up to `high`, all of them held."""
        return self._position(high) - self._position(low)

    def holds_bytes_up_to(self, index: LogIndex) -> int:
        """Encoded bytes of the entries held up to `index`, which is held itself, or the last one truncated."""
        position = index - self.truncated_index
        return self._end_bytes[position - 1] - self._start_bytes if position else 0

    def newest_within(self, bytes_max: int) -> LogIndex:
        """The lowest index such that the entries above it take no more than `bytes_max`."""
        lowest = self._position(self.last_index) - bytes_max
        if lowest <= self._start_bytes:
            return self.truncated_index
        return LogIndex(self.first_index + bisect_left(self._end_bytes, lowest))

    def _position(self, index: LogIndex) -> int:
        return self._end_bytes[index - self.first_index] if index > self.truncated_index else self._start_bytes

    @property
    def term_runs(self) -> tuple[TermRun, ...]:
        """Runs of equal terms, in order."""
        return tuple(TermRun(LogIndex(f), t) for f, t in zip(self._run_firsts, self._run_terms, strict=True))

    def term_at(self, index: LogIndex) -> Term | None:
        """Term of the entry at `index`, or None if it is not held (truncated, or past the end)."""
        if index == self.truncated_index:
            return self.truncated_term
        if not self.truncated_index < index <= self.last_index:
            return None
        return self._run_terms[bisect_right(self._run_firsts, index) - 1]

    def cached_timestamp(self, index: LogIndex) -> Timestamp | None:
        """Last timestamp of the entry at `index`, or None if memory does not hold it."""
        held = self._cache_first <= index <= self.last_index
        return self._cache[index - self._cache_first].last_timestamp if held else None

    def is_up_to_date(self, last_index: LogIndex, last_term: Term) -> bool:
        """Whether a log that ends at (last_index, last_term) is at least as new as this one."""
        return (last_term, last_index) >= (self.last_term, self.last_index)

    def last_index_with_term_at_most(self, index: LogIndex, term: Term) -> LogIndex:
        """Largest index up to `index` whose term is not above `term`; the truncation point bounds it below.

        The conflict hint of both sides: each skips whole terms, so probing takes one round per term.
        """
        position = bisect_right(self._run_firsts, min(index, self.last_index)) - 1
        while position >= 0 and self._run_terms[position] > term:
            probe("raft.hint_skips_a_term")
            index = LogIndex(self._run_firsts[position] - 1)
            position -= 1
        return max(min(index, self.last_index), self.truncated_index)

    def cached(self, first: LogIndex, last: LogIndex) -> list[Entry]:
        """Entries `first..last` from memory; all must be there."""
        check(first >= self._cache_first, f"entry {first} is not in memory, which starts at {self._cache_first}")
        return self._cache[first - self._cache_first : last + 1 - self._cache_first]

    def cached_up_to(self, first: LogIndex, last: LogIndex, bytes_max: int) -> list[Entry]:
        """Like `cached`, cut after `bytes_max` bytes but never empty unless `first > last`."""
        check(first >= self._cache_first, f"entry {first} is not in memory, which starts at {self._cache_first}")
        start, end = first - self._cache_first, last + 1 - self._cache_first
        total = 0
        # What lies beyond the cut is not looked at: for a peer far behind it may be most of the cache.
        for position in range(start, end):
            total += len(self._cache[position].encoded)
            if total > bytes_max and position > start:
                return self._cache[start:position]
        return self._cache[start:end]

    def append(self, entries: Sequence[Entry]) -> None:
        """Add entries after the last one."""
        for entry in entries:
            check(entry.index == self.last_index + 1, f"entry {entry.index} does not follow {self.last_index}")
            if entry.term != self.last_term or not self._run_terms:
                check(entry.term >= self.last_term, "terms never fall within a log")
                self._run_firsts.append(entry.index)
                self._run_terms.append(entry.term)
            self._cache.append(entry)
            self._end_bytes.append(self._position(self.last_index) + len(entry.encoded))
            self.last_index = entry.index
            self.cached_bytes += len(entry.encoded)

    def replace_suffix(self, first: LogIndex, entries: Sequence[Entry]) -> None:
        """Drop everything from `first` on, then add `entries`."""
        if first <= self.last_index:
            self._drop_suffix(first)
        self.append(entries)

    def _drop_suffix(self, first: LogIndex) -> None:
        check(first > self.truncated_index, "a truncated entry cannot be replaced")
        self.epoch += 1
        del self._end_bytes[first - self.first_index :]
        self.last_index = LogIndex(first - 1)
        self.durable_index = min(self.durable_index, self.last_index)
        self.handed_index = min(self.handed_index, self.last_index)
        while self._run_firsts and self._run_firsts[-1] >= first:
            self._run_firsts.pop()
            self._run_terms.pop()
        keep = max(0, first - self._cache_first)
        self.cached_bytes -= sum(len(entry.encoded) for entry in self._cache[keep:])
        del self._cache[keep:]
        self._cache_first = min(self._cache_first, first)

    def take_unhanded(self) -> list[Entry]:
        """Entries not yet given to storage; from now on they count as given."""
        if self.handed_index == self.last_index:
            return []
        entries = self.cached(LogIndex(self.handed_index + 1), self.last_index)
        self.handed_index = self.last_index
        return entries

    def mark_durable(self, index: LogIndex, epoch: int) -> bool:
        """Note that a write up to `index` has ended. Returns False for a report that was overtaken (invariant 4)."""
        if epoch != self.epoch:
            return False
        self.durable_index = max(self.durable_index, min(index, self.last_index))
        return True

    def truncate_prefix(self, index: LogIndex) -> None:
        """Forget entries up to and including `index`, which must be durable."""
        check(index <= self.durable_index, f"entry {index} is truncated before it is durable")
        term = self.term_at(index)
        if index <= self.truncated_index or term is None:
            return
        self._drop_head(index + 1 - self._cache_first)
        self._start_bytes = self._position(index)
        del self._end_bytes[: index - self.truncated_index]
        self.truncated_index, self.truncated_term = index, term
        position = bisect_right(self._run_firsts, index + 1) - 1
        del self._run_firsts[:position], self._run_terms[:position]
        if index == self.last_index:
            self._run_firsts.clear()
            self._run_terms.clear()
        elif self._run_firsts[0] <= index:
            self._run_firsts[0] = index + 1

    def install(self, index: LogIndex, term: Term) -> bool:
        """A snapshot takes the place of everything up to `index`; returns whether what follows is kept.

        It is kept if the entry at `index` is held, with this very `term`. Everything up to `index` counts as durable,
        as whatever follows from that is made durable after the snapshot.
        """
        kept = self.truncated_index < index and self.term_at(index) == term
        self.epoch += 1
        if kept:
            self.durable_index = max(self.durable_index, index)
            self.handed_index = max(self.handed_index, index)
            self.truncate_prefix(index)
            return True
        self.truncated_index, self.truncated_term = index, term
        self.last_index = self.durable_index = self.handed_index = index
        self.cached_bytes = self._start_bytes = 0
        self._end_bytes = array("Q")
        self._run_firsts.clear()
        self._run_terms.clear()
        self._cache.clear()
        self._cache_first = LogIndex(index + 1)
        return False

    def evict(self, index: LogIndex) -> None:
        """Drop entries up to and including `index` from memory only, as far as storage can give them back.

        May leave a small part of them for a later call.
        """
        count = min(index, self.durable_index) + 1 - self._cache_first
        # The rest of the list moves up, so a few entries are not worth it: they wait for more.
        if count * 8 >= len(self._cache):
            self._drop_head(count)

    def _drop_head(self, count: int) -> None:
        if count > 0:
            self.cached_bytes -= sum(len(entry.encoded) for entry in self._cache[:count])
            del self._cache[:count]
            self._cache_first = LogIndex(self._cache_first + count)
