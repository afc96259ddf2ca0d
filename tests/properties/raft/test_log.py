"""`RaftLog` against a model that keeps every entry in a dictionary."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from isochrone.ids import LogIndex, Term, Timestamp
from isochrone.ports import StoredGroup, TermRun
from isochrone.regions.raft.log import RaftLog
from isochrone.wire.entries import make_entry
from isochrone.wire.messages import Configuration, Entry, EntryKind, HardState

fractions = st.floats(0, 1)


def _entry(index: int, term: int, size: int) -> Entry:
    return make_entry(
        index=LogIndex(index),
        term=Term(term),
        kind=EntryKind.COMMANDS,
        timestamp=Timestamp(index),
        data=bytes(size),
    )


def _between(low: int, high: int, fraction: float) -> LogIndex:
    return LogIndex(low + round((high - low) * fraction))


class LogMachine(RuleBasedStateMachine):
    """Writes end in order; `writes` are those under way, as (last index, epoch) when they were handed out."""

    @initialize(
        terms=st.lists(st.integers(1, 4), max_size=8).map(sorted), truncated=st.integers(0, 3), kept=st.integers(0, 8)
    )
    def start(self, terms: list[int], truncated: int, kept: int) -> None:
        self.truncated = (truncated, 1 if truncated else 0)
        self.entries = {truncated + n: _entry(truncated + n, term, n) for n, term in enumerate(terms, start=1)}
        runs: list[TermRun] = []
        for index, entry in self.entries.items():
            if not runs or runs[-1].term != entry.term:
                runs.append(TermRun(LogIndex(index), entry.term))
        stored = StoredGroup(
            configuration=Configuration(()),
            hard_state=HardState(),
            truncated_index=LogIndex(self.truncated[0]),
            truncated_term=Term(self.truncated[1]),
            last_index=LogIndex(self.last),
            term_runs=tuple(runs),
            applied=LogIndex(0),
            entry_bytes=[len(entry.encoded) for entry in self.entries.values()],
        )
        tail = list(self.entries.values())[-kept:] if kept else []
        self.log = RaftLog(stored, tail)
        self.disk = dict(self.entries)
        self.writes: list[tuple[int, int, list[Entry]]] = []

    @property
    def last(self) -> int:
        return max(self.entries, default=self.truncated[0])

    def _term(self, index: int) -> int | None:
        if index == self.truncated[0]:
            return self.truncated[1]
        return self.entries[index].term if index in self.entries else None

    def _make(self, first: int, rises: list[int], sizes: int) -> list[Entry]:
        made: list[Entry] = []
        term = self._term(first - 1) or 0
        for offset, rise in enumerate(rises):
            term = max(1, term + rise)
            made.append(_entry(first + offset, term, sizes))
        return made

    @rule(rises=st.lists(st.sampled_from([0, 0, 1, 2]), max_size=5), size=st.integers(0, 60))
    def append(self, rises: list[int], size: int) -> None:
        made = self._make(self.last + 1, rises, size)
        self.log.append(made)
        self.entries.update({entry.index: entry for entry in made})

    @rule(fraction=fractions, rises=st.lists(st.sampled_from([0, 1]), min_size=1, max_size=4))
    def replace_suffix(self, fraction: float, rises: list[int]) -> None:
        first = _between(self.truncated[0] + 1, self.last + 1, fraction)
        made = self._make(first, rises, 5)
        self.log.replace_suffix(first, made)
        self.entries = {index: entry for index, entry in self.entries.items() if index < first}
        self.entries.update({entry.index: entry for entry in made})

    @rule()
    def hand_out(self) -> None:
        taken = self.log.take_unhanded()
        assert taken == [self.entries[entry.index] for entry in taken]
        assert not taken or taken[-1].index == self.last
        self.writes.append((self.last, self.log.epoch, taken))

    @precondition(lambda self: self.writes)
    @rule()
    def write_ends(self) -> None:
        last, epoch, entries = self.writes.pop(0)
        if entries:
            self.disk = {index: entry for index, entry in self.disk.items() if index < entries[0].index}
            self.disk.update({entry.index: entry for entry in entries})
        assert self.log.mark_durable(LogIndex(last), epoch) is (epoch == self.log.epoch)

    @rule(fraction=fractions)
    def truncate_prefix(self, fraction: float) -> None:
        index = _between(self.truncated[0], self.log.durable_index, fraction)
        if index == self.truncated[0]:
            return
        term = self.entries[index].term
        self.log.truncate_prefix(index)
        self.truncated = (index, term)
        self.entries = {i: entry for i, entry in self.entries.items() if i > index}

    @rule(fraction=fractions)
    def evict(self, fraction: float) -> None:
        self.log.evict(_between(self.truncated[0], self.last, fraction))

    @rule(fraction=fractions, term=st.integers(0, 12))
    def hint(self, fraction: float, term: int) -> None:
        index = _between(self.truncated[0], self.last + 3, fraction)
        candidates = [i for i in self.entries if i <= index and self.entries[i].term <= term]
        expected = max(candidates, default=self.truncated[0])
        assert self.log.last_index_with_term_at_most(index, Term(term)) == expected

    @rule(fraction=fractions, bytes_max=st.integers(0, 300))
    def read(self, fraction: float, bytes_max: int) -> None:
        first = _between(self.log.cache_first, self.last + 1, fraction)
        entries = self.log.cached_up_to(first, LogIndex(self.last), bytes_max)
        assert entries == [self.entries[first + n] for n in range(len(entries))]
        if first <= self.last:
            size = sum(len(entry.encoded) for entry in entries)
            assert len(entries) == 1 or (entries and size <= bytes_max)
            following = self.entries.get(first + len(entries))
            assert following is None or size + len(following.encoded) > bytes_max

    @invariant()
    def agrees(self) -> None:
        if not hasattr(self, "log"):
            return
        log = self.log
        assert (log.truncated_index, log.truncated_term) == self.truncated
        assert (log.first_index, log.last_index) == (self.truncated[0] + 1, self.last)
        assert log.last_term == self._term(self.last)
        assert [log.term_at(LogIndex(i)) for i in range(self.last + 3)] == [self._term(i) for i in range(self.last + 3)]
        assert log.cached(log.cache_first, log.last_index) == [
            self.entries[i] for i in range(log.cache_first, self.last + 1)
        ]
        assert log.cached_bytes == sum(len(self.entries[i].encoded) for i in range(log.cache_first, self.last + 1))
        assert log.truncated_index <= log.durable_index <= log.handed_index <= log.last_index
        sizes = {i: len(entry.encoded) for i, entry in self.entries.items()}
        assert log.retained_bytes == sum(sizes.values())
        for low in range(self.truncated[0], self.last + 1):
            size = sum(sizes[i] for i in range(low + 1, self.last + 1))
            assert log.bytes_between(LogIndex(low), LogIndex(self.last)) == size
            assert log.newest_within(size) == low
            assert log.newest_within(size + 1) == low

    @invariant()
    def durable_means_on_disk(self) -> None:
        """And whatever left memory can be read back."""
        if not hasattr(self, "log"):
            return
        for index in range(self.truncated[0] + 1, self.log.durable_index + 1):
            assert self.disk[index] == self.entries[index]
        assert self.log.cache_first <= self.log.durable_index + 1


LogMachine.TestCase.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)
TestRaftLog = LogMachine.TestCase
