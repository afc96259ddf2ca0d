"""Linearizability per key, after Wing and Gong with Lowe's memo and Porcupine's split by key.

A history of a key is linearizable if every completed operation can be given one instant between its invocation
and its completion, and every indeterminate one an instant after its invocation or none, so that, executed in that
order, a register with put, get, delete and compare-and-set gives the answers that the clients got. Linearizability
is local (Herlihy and Wing): a history is linearizable if and only if each key's is.

The search walks the events of a key in order of time. At an invocation it tries to place the operation next; at a
completion of an operation that is not placed yet, nothing later may be placed before it, so the search goes back.
Configurations (set of operations placed, value) that were seen before are not tried again. Two shortcuts keep it fast,
both exact:
- a completed operation that is legal now and changes nothing is placed at once and for good: moving it to the front
  of any order that works gives an order that works;
- an indeterminate operation is placed only where it changes the value and the next operation depends on the value:
  elsewhere, leaving it out gives the same answers.

A budget in steps bounds the work; when it is used up the verdict is unknown. Operations that surely had no effect and
indeterminate gets tell nothing and are left out; indeterminate writes always stay.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from isochrone.drills.history import Operation, OperationKind, Outcome
from isochrone.drills.verdict import Check, Verdict

NAME = "linearizable"


@dataclass(frozen=True, slots=True)
class KeyResult:
    """The verdict on one key."""

    key: str
    verdict: Verdict
    steps: int
    reason: str


@dataclass(frozen=True, slots=True)
class LinearizabilityResult:
    """The verdict on a history."""

    verdict: Verdict
    operations: int
    """How many operations bore on the verdict."""
    keys: int
    steps: int
    bad_keys: tuple[KeyResult, ...]
    """The keys whose verdict is not true."""

    def as_check(self) -> Check:
        """As one line of a report."""
        looked_at = f"{self.operations} operations on {self.keys} keys, {self.steps} search steps"
        if self.verdict is Verdict.TRUE:
            return Check(NAME, self.verdict, f"an order exists for every key: {looked_at}.")
        first = next(key for key in self.bad_keys if key.verdict is self.verdict)
        others = len(self.bad_keys) - 1
        more = f" ({others} more keys do not hold or were not decided)" if others else ""
        return Check(NAME, self.verdict, f"key {first.key}: {first.reason}{more}; {looked_at}.")


def check_linearizability(operations: Iterable[Operation], steps_max: int) -> LinearizabilityResult:
    """Check every key of a history, the short ones first, within `steps_max` search steps in all."""
    by_key: dict[str, list[Operation]] = defaultdict(list)
    for operation in operations:
        if operation.outcome is Outcome.OK or (operation.outcome is Outcome.INFO and operation.is_write):
            by_key[operation.key].append(operation)
    results: list[KeyResult] = []
    steps_left = steps_max
    for key in sorted(by_key, key=lambda name: (len(by_key[name]), name)):
        result = check_key(key, by_key[key], steps_left)
        steps_left -= result.steps
        results.append(result)
    bad = tuple(result for result in results if result.verdict is not Verdict.TRUE)
    verdict = Verdict.TRUE
    if bad:
        verdict = Verdict.FALSE if any(result.verdict is Verdict.FALSE for result in bad) else Verdict.UNKNOWN
    counted = sum(len(group) for group in by_key.values())
    return LinearizabilityResult(verdict, counted, len(by_key), steps_max - steps_left, bad)


def check_key(key: str, operations: Sequence[Operation], steps_max: int) -> KeyResult:
    """Check one key's operations: completed ones and indeterminate writes."""
    search = _Search(list(operations))
    verdict = search.run(steps_max)
    match verdict:
        case Verdict.TRUE:
            reason = "an order exists"
        case Verdict.UNKNOWN:
            reason = f"not decided within the budget of {steps_max} steps for {len(operations)} operations"
        case Verdict.FALSE:
            reason = search.explain()
    return KeyResult(key, verdict, search.steps, reason)


def step(operation: Operation, value: str | None) -> tuple[bool, str | None]:
    """Execute an operation on a register: whether its answer is right, and the value after it."""
    known = operation.outcome is Outcome.OK
    match operation.kind:
        case OperationKind.PUT | OperationKind.INSERT:
            return True, operation.value
        case OperationKind.GET:
            return operation.value == value, value
        case OperationKind.DELETE:
            legal = not known or operation.succeeded is None or operation.succeeded == (value is not None)
            return legal, None
        case OperationKind.CAS:
            holds = operation.expected == value
            legal = not known or (operation.succeeded == holds and (holds or operation.found == value))
            return legal, operation.value if holds else value


def _is_blind(operation: Operation) -> bool:
    """Whether neither the operation's answer nor its effect depends on the value before it."""
    match operation.kind:
        case OperationKind.PUT | OperationKind.INSERT:
            return True
        case OperationKind.DELETE:
            return operation.outcome is Outcome.INFO
        case OperationKind.GET | OperationKind.CAS:
            return False


_END = -1


@dataclass(slots=True)
class _Search:
    """Events are numbered in order of time and doubly linked, so that a placed operation's are lifted out in O(1)."""

    operations: list[Operation]
    steps: int = 0
    best_placed: int = -1
    best_blocked: Operation | None = None
    best_value: str | None = None
    _events: list[tuple[int, bool]] = field(default_factory=list)
    """(operation, is a completion) by event; event 0 is a sentinel before the first."""
    _next: list[int] = field(default_factory=list)
    _previous: list[int] = field(default_factory=list)
    _completion_of: list[int] = field(default_factory=list)
    """Event by operation; `_END` for an indeterminate one, which completes after everything else."""

    def __post_init__(self) -> None:
        timed: list[tuple[int, bool, int]] = []
        for number, operation in enumerate(self.operations):
            timed.append((operation.invoke_ns, False, number))
            if operation.outcome is Outcome.OK:
                timed.append((operation.complete_ns, True, number))
        timed.sort()
        self._completion_of = [_END] * len(self.operations)
        self._events = [(_END, False)]
        for _, is_completion, number in timed:
            if is_completion:
                self._completion_of[number] = len(self._events)
            self._events.append((number, is_completion))
        count = len(self._events)
        self._next = [*range(1, count), _END]
        self._previous = list(range(-1, count - 1))

    def run(self, steps_max: int) -> Verdict:
        """Search for an order."""
        to_place = sum(1 for operation in self.operations if operation.outcome is Outcome.OK)
        value: str | None = None
        placed, placed_bits = 0, 0
        to_observe = False
        seen: set[tuple[int, str | None, bool]] = set()
        stack: list[tuple[int, str | None, bool, bool]] = []
        event = self._next[0]
        while placed < to_place:
            if self.steps >= steps_max:
                return Verdict.UNKNOWN
            self.steps += 1
            number, is_completion = self._events[event]
            if not is_completion:
                operation = self.operations[number]
                legal, after = step(operation, value)
                completed = operation.outcome is Outcome.OK
                changes = after != value
                for_good = legal and completed and not changes
                configuration = (placed_bits | 1 << number, after, not completed)
                wanted = legal and (completed or changes) and not (to_observe and _is_blind(operation))
                if wanted and configuration not in seen:
                    seen.add(configuration)
                    stack.append((event, value, to_observe, for_good))
                    self._lift(event, number)
                    placed += completed
                    placed_bits, value, to_observe = configuration
                    event = self._next[0]
                    continue
                if not for_good:
                    event = self._next[event]
                    continue
            if is_completion:
                self._remember_block(placed, number, value)
            forced = True
            while forced:
                if not stack:
                    return Verdict.FALSE
                event, value, to_observe, forced = stack.pop()
                number = self._events[event][0]
                self._unlift(event, number)
                placed -= self.operations[number].outcome is Outcome.OK
                placed_bits &= ~(1 << number)
            event = self._next[event]
        return Verdict.TRUE

    def explain(self) -> str:
        """Which operation blocked the longest order found."""
        if self.best_blocked is None:
            return "no order exists"
        operation = self.best_blocked
        value = "absent" if self.best_value is None else repr(self.best_value)
        return (
            f"no order exists; the longest one found has {self.best_placed} operations, leaves the key {value}, "
            f"and has no place for {describe(operation)}"
        )

    def _remember_block(self, placed: int, number: int, value: str | None) -> None:
        if placed > self.best_placed:
            self.best_placed, self.best_blocked, self.best_value = placed, self.operations[number], value

    def _lift(self, event: int, number: int) -> None:
        for lifted in (event, self._completion_of[number]):
            if lifted == _END:
                continue
            before, after = self._previous[lifted], self._next[lifted]
            self._next[before] = after
            if after != _END:
                self._previous[after] = before

    def _unlift(self, event: int, number: int) -> None:
        for lifted in (self._completion_of[number], event):
            if lifted == _END:
                continue
            before, after = self._previous[lifted], self._next[lifted]
            self._next[before] = lifted
            if after != _END:
                self._previous[after] = lifted


def describe(operation: Operation) -> str:
    """One operation in words, for reasons and reports."""
    who = f"process {operation.process} in {operation.region}"
    when = f"{operation.invoke_ns / 1e9:.6f} s to {operation.complete_ns / 1e9:.6f} s"
    match operation.kind:
        case OperationKind.GET:
            what = f"the get that returned {operation.value!r}"
        case OperationKind.CAS:
            found = "" if operation.succeeded else f", which found {operation.found!r}"
            what = f"the cas from {operation.expected!r} to {operation.value!r}{found}"
        case OperationKind.DELETE:
            found = {True: " that found a value", False: " that found nothing", None: ""}[operation.succeeded]
            what = f"the delete{found}"
        case OperationKind.PUT | OperationKind.INSERT:
            what = f"the {operation.kind} of {operation.value!r}"
    return f"{what} by {who}, {when}"
