"""The key-value state against a model that keeps a whole copy of the map for every revision."""

from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st
from state_log import KEYSPACE, SECOND, StateLog, same_state

from isochrone.errors import IsochroneError, RevisionCompacted
from isochrone.regions.state.families import HANDLERS
from isochrone.regions.state.machine import GroupState
from isochrone.wire.kv import (
    ALL,
    Compact,
    Compare,
    DeleteRange,
    Increment,
    KvOperation,
    Put,
    Range,
    Relation,
    Target,
    Txn,
    TxnResult,
    in_range,
)

Map = dict[bytes, tuple[bytes, int, int, int]]
"""Value, create revision, mod revision, version by key."""

KEYS = st.sampled_from([b"k/a", b"k/b", b"k/bb", b"k/c", b"m/a", b"m/b"])
ENDS = st.sampled_from([b"", b"", ALL, b"k/b", b"k/c", b"m", b"m/b", b"n"])
VALUES = st.sampled_from([b"", b"1", b"2", b"x"])
PUTS = st.builds(Put, KEYS, VALUES)
DELETES = st.builds(DeleteRange, KEYS, ENDS)
INCREMENTS = st.builds(Increment, KEYS, st.integers(-2, 2))
COMPARES = st.one_of(
    st.builds(
        Compare,
        KEYS,
        st.sampled_from([Target.VERSION, Target.CREATE, Target.MOD]),
        st.sampled_from([Relation.EQUAL, Relation.GREATER, Relation.LESS, Relation.NOT_EQUAL]),
        st.integers(0, 6),
        range_end=ENDS,
    ),
    st.builds(Compare, KEYS, st.just(Target.VALUE), st.sampled_from(Relation), value=VALUES, range_end=ENDS),
)
WRITES: st.SearchStrategy[KvOperation] = PUTS | DELETES | INCREMENTS
TXNS = st.recursive(
    WRITES,
    lambda inner: st.builds(
        Txn,
        st.lists(COMPARES, max_size=2).map(tuple),
        st.lists(inner, max_size=3).map(tuple),
        st.lists(inner, max_size=2).map(tuple),
    ),
    max_leaves=6,
)
STEPS = st.lists(TXNS | st.builds(Compact, st.integers(1, 25)) | st.just("restart"), max_size=25)


@dataclass
class Model:
    """Every revision's whole map; nothing is ever forgotten."""

    maps: list[Map]
    compacted: int = -1

    @property
    def now(self) -> Map:
        return self.maps[-1]

    def do(self, operation: KvOperation) -> bool:
        """Returns whether the branch taken first was the success branch."""
        before, after = self.now, dict(self.now)
        changed = [False]
        holds = self._run(operation, before, after, len(self.maps), changed)
        if changed[0]:
            self.maps.append(after)
        return holds

    def _run(self, operation: KvOperation, before: Map, after: Map, revision: int, changed: list[bool]) -> bool:
        match operation:
            case Put(key, value):
                self._set(after, key, value, revision)
                changed[0] = True
            case Increment(key, delta):
                held = int(after[key][0]) if key in after else 0
                self._set(after, key, b"%d" % (held + delta), revision)
                changed[0] = True
            case DeleteRange(key, end):
                for found in [found for found in after if in_range(found, key, end)]:
                    del after[found]
                    changed[0] = True
            case Txn(compares, success, failure):
                holds = all(self._holds(before, compare) for compare in compares)
                for inner in success if holds else failure:
                    self._run(inner, before, after, revision, changed)
                return holds
        return True

    def _set(self, after: Map, key: bytes, value: bytes, revision: int) -> None:
        _, created, _, version = after.get(key, (b"", revision, 0, 0))
        after[key] = (value, created, revision, version + 1)

    def _holds(self, before: Map, compare: Compare) -> bool:
        found = [item for key, item in sorted(before.items()) if in_range(key, compare.key, compare.range_end)]
        return all(self._fits(item, compare) for item in found) if found else self._fits(None, compare)

    def _fits(self, item: tuple[bytes, int, int, int] | None, compare: Compare) -> bool:
        if compare.target is Target.VALUE:
            return item is not None and _related(item[0], compare.value, compare.relation)
        numbers = {Target.VERSION: 3, Target.CREATE: 1, Target.MOD: 2}
        held = item[numbers[compare.target]] if item else 0
        return _related(held, compare.number, compare.relation)


def _related(held: object, given: object, relation: Relation) -> bool:
    smaller, larger = held < given, held > given  # type: ignore[operator]
    return {
        Relation.EQUAL: not smaller and not larger,
        Relation.NOT_EQUAL: smaller or larger,
        Relation.GREATER: larger,
        Relation.LESS: smaller,
        Relation.NOT_GREATER: not larger,
    }[relation]


def as_map(log: StateLog, revision: int) -> Map:
    items = log.read(Range(b"\0", ALL, revision=revision)).items
    assert [item.key for item in items] == sorted(item.key for item in items)
    return {item.key: (item.value, item.create_revision, item.mod_revision, item.version) for item in items}


@settings(max_examples=150, deadline=None)
@given(STEPS)
def test_every_revision_is_as_the_model_says_also_after_restarts(steps: list[KvOperation | Compact | str]) -> None:
    log = StateLog(KEYSPACE, SECOND)
    model = Model([{}, {}])
    for step in steps:
        match step:
            case str():
                log.restart()
            case Compact(revision):
                if model.compacted < revision < len(model.maps):
                    model.compacted = revision
                    log.do(step)
            case _:
                _do_both(log, model, step)
        assert log.state.revision == len(model.maps) - 1
    for revision in range(1, len(model.maps)):
        if revision >= model.compacted:
            assert as_map(log, revision) == model.maps[revision]
            counted = log.read(Range(b"\0", ALL, revision=revision, count_only=True))
            assert counted.count == len(model.maps[revision])
        else:
            try:
                as_map(log, revision)
            except RevisionCompacted:
                continue
            raise AssertionError(revision)
    _check_rows(log)


def _do_both(log: StateLog, model: Model, operation: KvOperation) -> None:
    before = log.state.revision
    try:
        result = log.do(operation)
    except IsochroneError:
        assert log.state.revision == before and log.last.events == ()
        return
    holds = model.do(operation)
    if isinstance(result, TxnResult):
        assert result.succeeded == holds


def _check_rows(log: StateLog) -> None:
    """A state from the rows, one from the log, and the one that went on are all equal."""
    replayed = GroupState(log.state.group, log.keyspaces, HANDLERS)
    for entry in log.entries:
        replayed.apply(entry)
    assert same_state(replayed, log.state)
    log.restart()
    assert same_state(replayed, log.state)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([b"k/%03d" % n for n in range(60)]), st.booleans())), st.data())
def test_sorted_keys_are_a_sorted_set(changes: list[tuple[bytes, bool]], data: st.DataObject) -> None:
    from isochrone.regions.state import sorted_keys

    whole, sorted_keys._CHUNK = sorted_keys._CHUNK, 4
    try:
        keys, model = sorted_keys.SortedKeys(), set[bytes]()
        for key, add in changes:
            if add and key not in model:
                keys.add(key)
                model.add(key)
            elif not add and key in model:
                keys.remove(key)
                model.remove(key)
        more = data.draw(st.lists(st.sampled_from([b"k/%03d" % n for n in range(60)]), unique=True))
        fresh = [key for key in more if key not in model]
        keys.add_all(fresh)
        model.update(fresh)
        start = data.draw(st.sampled_from([b"", b"k/010", b"k/02", b"k/059", b"z"]))
        end = data.draw(st.sampled_from([None, b"k/030", b"k/0", b"k/06"]))
        expected = sorted(key for key in model if key >= start and (end is None or key < end))
        assert list(keys.between(start, end)) == expected
        assert keys.count_between(start, end) == len(expected)
        assert len(keys) == len(model)
    finally:
        sorted_keys._CHUNK = whole
