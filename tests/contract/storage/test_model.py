"""Any sequence of batches leaves a store with what a dumb model says it holds."""

import asyncio
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stores import RIGS, G, entry, hard_state, make_durable, row

from isochrone.ids import LogIndex
from isochrone.ports import LogWrite, Store, WriteBatch


@dataclass(frozen=True)
class Step:
    """A batch, described relative to what the log holds when it is written."""

    replaced: int
    """How many of the last entries are replaced, as far as they are not committed."""
    appended: int
    next_term: bool
    committed: int
    """How far the commit index rises, within the log."""
    applied: int
    truncated: int
    rows: tuple[tuple[bytes, bytes | None], ...]
    waits: bool
    """Whether all writes so far are awaited after this one."""
    reopens: bool


@dataclass
class Model:
    """What the store should hold."""

    terms: dict[int, int] = field(default_factory=dict)
    rows: dict[bytes, bytes] = field(default_factory=dict)
    last: int = 0
    truncated: int = 0
    truncated_term: int = 0
    term: int = 1
    commit: int = 0
    applied: int = 0

    def batch(self, step: Step) -> WriteBatch:
        """The step as a batch; the model moves on."""
        self.term += step.next_term
        first = max(self.last - step.replaced, self.commit, self.truncated) + 1
        entries = tuple(entry(index, self.term) for index in range(first, first + step.appended))
        if entries:
            self.terms = {index: term for index, term in self.terms.items() if index < first}
            self.terms |= {item.index: item.term for item in entries}
            self.last = entries[-1].index
        self.commit = min(self.last, self.commit + step.committed)
        self.applied = min(self.commit, self.applied + step.applied)
        truncate_to = min(self.applied, self.truncated + step.truncated)
        if truncate_to > self.truncated:
            self.truncated, self.truncated_term = truncate_to, self.terms[truncate_to]
            self.terms = {index: term for index, term in self.terms.items() if index > truncate_to}
        for key, value in step.rows:
            if value is None:
                self.rows.pop(key, None)
            else:
                self.rows[key] = value
        write = LogWrite(G, hard_state(self.term, None, self.commit), entries, LogIndex(truncate_to))
        rows = tuple(row(key, value) for key, value in step.rows)
        return WriteBatch(logs=(write,), rows=rows, applied={G: LogIndex(self.applied)})

    async def compare(self, store: Store) -> None:
        """Check that the store holds what the model does."""
        bounds = await store.load(G)
        assert bounds.hard_state == hard_state(self.term, None, self.commit)
        assert (bounds.last_index, bounds.applied) == (self.last, self.applied)
        assert (bounds.truncated_index, bounds.truncated_term) == (self.truncated, self.truncated_term)
        runs = [index for index in self.terms if self.terms.get(index - 1) != self.terms[index]]
        assert [(run.first, run.term) for run in bounds.term_runs] == [(index, self.terms[index]) for index in runs]
        if self.terms:
            held = await store.read_entries(G, LogIndex(self.truncated + 1), LogIndex(self.last), 1 << 30)
            assert {item.index: item.term for item in held} == self.terms
        assert [(item.key, item.value) for item in await store.read_rows(G)] == sorted(self.rows.items())


small = st.integers(0, 4)
keys = st.sampled_from([b"", b"a", b"a\0", b"b", b"l" * 500, b"l" * 600 + b"a", b"l" * 600 + b"b"])
steps = st.builds(
    Step,
    replaced=small,
    appended=st.integers(0, 6),
    next_term=st.booleans(),
    committed=small,
    applied=small,
    truncated=small,
    rows=st.lists(st.tuples(keys, st.none() | st.binary(max_size=8)), max_size=4).map(tuple),
    waits=st.booleans(),
    reopens=st.sampled_from([True, False, False, False]),
)


@pytest.mark.parametrize("name", sorted(RIGS))
@settings(max_examples=30, deadline=None)
@given(plan=st.lists(steps, min_size=1, max_size=12))
def test_a_store_holds_what_the_model_says(name: str, plan: list[Step]) -> None:
    async def main(directory: Path) -> None:
        rig = RIGS[name](directory)
        store, model = rig.open(), Model()
        writes: list[asyncio.Task[None]] = []
        for step in plan:
            writes.append(asyncio.create_task(make_durable(store, model.batch(step))))
            if step.waits or step.reopens:
                await asyncio.gather(*writes)
                writes.clear()
                await model.compare(store)
            if step.reopens:
                store = await rig.reopen(store)
                await model.compare(store)
        await asyncio.gather(*writes)
        store = await rig.reopen(store)
        await model.compare(store)
        await store.close()

    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(main(Path(directory)))
