"""Locks against a naive model that scans everything: who holds, who waits, that nobody waits for ever."""

from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st
from state_log import StateLog, same_state

from isochrone.errors import Deadlock, IsochroneError, LockHeld, LockNotHeld
from isochrone.regions.state.lock_table import compatible, covers, joined
from isochrone.regions.state.machine import GroupState
from isochrone.wire.leases import LeaseExpire, LeaseGrant, LockTick, encode_housekeeping
from isochrone.wire.locks import (
    WAIT_FOREVER,
    LockAcquire,
    LockEnd,
    LockMode,
    LockQuery,
    LockQueryResult,
    LockRelease,
    LockResult,
)
from isochrone.wire.messages import EntryKind

NAMES = [b"k/a", b"k/b", b"m/c"]
LEASES = [1, 2, 3, 4]
STEPS = st.lists(
    st.one_of(
        st.tuples(
            st.just("ask"),
            st.sampled_from(NAMES),
            st.sampled_from(LEASES),
            st.sampled_from(LockMode),
            st.sampled_from([WAIT_FOREVER, WAIT_FOREVER, 0, 20]),
        ),
        st.tuples(st.just("free"), st.sampled_from(NAMES), st.sampled_from(LEASES)),
        st.tuples(st.just("lose"), st.sampled_from(LEASES)),
        st.tuples(st.just("pass"), st.integers(1, 30)),
        st.just(("restart",)),
    ),
    max_size=50,
)


@dataclass
class Waiting:
    lease: int
    mode: LockMode
    deadline_ms: int
    converts: bool


Node = tuple[bytes | None, int]
"""A lease's request at a lock; with None, the lease."""


@dataclass
class Model:
    """One list of holders and one of waiting requests for each name."""

    held: dict[bytes, dict[int, LockMode]] = field(default_factory=lambda: {name: {} for name in NAMES})
    waiting: dict[bytes, list[Waiting]] = field(default_factory=lambda: {name: [] for name in NAMES})

    def admits(self, name: bytes, lease: int, mode: LockMode) -> bool:
        return all(compatible(held, mode) for other, held in self.held[name].items() if other != lease)

    def waits_for(self, node: Node) -> set[Node]:
        """What must come before: all that a lease waits for, or what keeps one of its requests from being granted."""
        name, lease = node
        if name is None:
            return {(at, lease) for at, queue in self.waiting.items() for request in queue if request.lease == lease}
        queue = self.waiting[name]
        place = next(place for place, request in enumerate(queue) if request.lease == lease)
        mode = queue[place].mode
        found: set[Node] = {(None, o) for o, m in self.held[name].items() if o != lease and not compatible(m, mode)}
        found |= {(name, ahead.lease) for ahead in queue[:place]}
        return found | {(None, ahead.lease) for ahead in queue[:place] if not compatible(ahead.mode, mode)}

    def on_a_cycle(self, node: Node) -> bool:
        reached, edge = set[Node](), self.waits_for(node)
        while edge - reached:
            reached |= edge
            edge = {further for other in edge for further in self.waits_for(other)} - reached
        return node in reached

    def deadlocked(self) -> bool:
        waiting = [(name, request.lease) for name, queue in self.waiting.items() for request in queue]
        return any(self.on_a_cycle(node) for node in waiting)

    def advance(self) -> None:
        for name, queue in self.waiting.items():
            while queue and self.admits(name, queue[0].lease, queue[0].mode):
                request = queue.pop(0)
                self.held[name][request.lease] = request.mode

    def drop_waiting(self, name: bytes, lease: int) -> None:
        self.waiting[name] = [request for request in self.waiting[name] if request.lease != lease]


class World:
    def __init__(self) -> None:
        self.log = StateLog()
        self.model = Model()
        self.number = 0
        self.token = 0
        """Of the last answer."""
        self.highest = {name[:2]: 0 for name in NAMES}
        """Largest token given out so far in each keyspace."""
        for lease in LEASES:
            self.log.do(LeaseGrant(lease, 30_000))

    def ask(self, name: bytes, lease: int, mode: LockMode, wait_ms: int) -> None:
        model = self.model
        self.tick_all()
        if any(request.lease == lease for request in model.waiting[name]):
            return
        self.number += 1
        operation = LockAcquire(name, lease, self.number, mode, wait_ms)
        held = model.held[name].get(lease)
        if held is not None and covers(held, mode):
            assert self.asked(operation) is LockEnd.GRANTED
            return
        wanted = mode if held is None else joined(held, mode)
        converting = [request for request in model.waiting[name] if request.converts]
        ahead = converting if held is not None else model.waiting[name]
        free = model.admits(name, lease, wanted) and not ahead
        if not free and not wait_ms:
            assert self.asked(operation) is LockHeld
            return
        if free:
            model.held[name][lease] = wanted
        else:
            deadline_ms = self.log.now_ms + wait_ms if wait_ms > 0 else 1 << 60
            request = Waiting(lease, wanted, deadline_ms, held is not None)
            model.waiting[name].insert(len(converting) if held is not None else len(model.waiting[name]), request)
        end = self.asked(operation)
        if free:
            assert self.token > self.highest[name[:2]]
            self.highest[name[:2]] = self.token
        self.end_cycles()
        waits = any(request.lease == lease for request in model.waiting[name])
        if model.held[name].get(lease) is wanted:
            assert end is LockEnd.GRANTED
        else:
            assert end is (LockEnd.WAITING if waits else Deadlock)

    def asked(self, operation: LockAcquire) -> LockEnd | type[IsochroneError]:
        """How it ended."""
        try:
            result = self.log.do(operation)
        except IsochroneError as error:
            return type(error)
        assert isinstance(result, LockResult)
        self.token = result.token
        return result.end

    def end_cycles(self) -> None:
        """Whoever was ended stood in a cycle, and nothing else ends anybody."""
        for notice in self.log.last.lock_notices:
            if notice.end is LockEnd.DEADLOCK:
                assert self.model.on_a_cycle((notice.name, notice.lease))
                self.model.drop_waiting(notice.name, notice.lease)
                self.model.advance()
        self.check_tokens()

    def check_tokens(self) -> None:
        for notice in self.log.last.lock_notices:
            if notice.end is LockEnd.GRANTED:
                assert notice.token > self.highest[notice.name[:2]]
                self.highest[notice.name[:2]] = notice.token

    def free(self, name: bytes, lease: int) -> None:
        held = lease in self.model.held[name]
        try:
            self.log.do(LockRelease(name, lease))
        except LockNotHeld:
            assert not held
            return
        assert held
        self.model.drop_waiting(name, lease)
        del self.model.held[name][lease]
        self.model.advance()
        self.check_tokens()

    def lose(self, lease: int) -> None:
        self.keep_house(LeaseExpire(lease, self.log.entries[-1].term, 0))
        for name in NAMES:
            self.model.drop_waiting(name, lease)
            self.model.held[name].pop(lease, None)
        self.model.advance()
        self.log.do(LeaseGrant(lease, 30_000))

    def tick_all(self) -> None:
        now_ms = self.log.now_ms
        self.keep_house(*[LockTick(name) for name in NAMES])
        for name, queue in self.model.waiting.items():
            self.model.waiting[name] = [request for request in queue if request.deadline_ms > now_ms]
        self.model.advance()

    def keep_house(self, *commands: LeaseExpire | LockTick) -> None:
        self.log.log(EntryKind.HOUSEKEEPING, [encode_housekeeping(command) for command in commands])
        self.log.now_ms += 1
        self.check_tokens()

    def check(self) -> None:
        assert not self.model.deadlocked()
        for name in NAMES:
            view = self.log.ask(LockQuery(name))
            assert isinstance(view, LockQueryResult)
            held = {item.lease: item.mode for item in view.requests if item.token}
            assert held == self.model.held[name]
            queue = [(item.lease, item.mode) for item in view.requests if not item.token]
            assert queue == [(request.lease, request.mode) for request in self.model.waiting[name]]
            modes = list(held.items())
            assert all(compatible(a, b) for i, (_, a) in enumerate(modes) for _, b in modes[i + 1 :])


@settings(max_examples=200, deadline=None)
@given(STEPS)
def test_locks_are_as_the_model_says_also_after_restarts(steps: list[tuple[object, ...]]) -> None:
    world = World()
    for step in steps:
        match step:
            case ("ask", bytes(name), int(lease), LockMode() as mode, int(wait_ms)):
                world.ask(name, lease, mode, wait_ms)
            case ("free", bytes(name), int(lease)):
                world.tick_all()
                world.free(name, lease)
            case ("lose", int(lease)):
                world.tick_all()
                world.lose(lease)
            case ("pass", int(ms)):
                world.log.now_ms += ms
                world.tick_all()
            case ("restart",):
                world.log.restart()
        world.check()
    before: GroupState = world.log.state
    world.log.restart()
    assert same_state(before, world.log.state)
