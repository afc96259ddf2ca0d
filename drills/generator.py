"""What the clients of one region do next: arrivals, kinds, keys and values, all drawn from a seeded generator.

Keys:
- an insert gets a key that is used once, for the durability check;
- all other operations draw a key in rotation: one of the region's own, or one that all regions share and contend for.
A key is replaced by a fresh one when it has seen `operations_max` operations, or `indeterminate_max` of them are in
flight or of unknown outcome. So no key ever gathers more than that many indeterminate operations, which bounds the
checker's work, and none need be dropped from the history.

Values are unique in a run, so that a read tells which write it saw.
"""

import random
from dataclasses import dataclass, field
from itertools import accumulate

from isochrone.drills.history import OperationKind, Outcome
from isochrone.drills.schema import KeysSection, WorkloadSection


@dataclass(slots=True)
class RotatingKey:
    """One key and what has happened to it so far."""

    key: str
    operations: int = 0
    unsettled: int = 0
    """In flight, or of unknown outcome for good."""
    last_seen: str | None = None
    """The value that a client last wrote or read: what a cas expects."""


@dataclass(slots=True)
class KeyRing:
    """The keys in rotation of all regions. Shared between the generators, as the shared keys are."""

    settings: KeysSection
    _slots: dict[tuple[str, str, int], RotatingKey] = field(default_factory=dict)
    _generation: int = 0

    def draw(self, rng: random.Random, keyspace: str, region: str) -> RotatingKey:
        """A key to operate on, counted as one unsettled operation."""
        shared = rng.random() < self.settings.shared_share
        owner = "shared" if shared else region
        slot = (keyspace, owner, rng.randrange(self.settings.shared if shared else self.settings.own))
        key = self._slots.get(slot)
        if key is None or self._is_worn(key):
            self._generation += 1
            key = self._slots[slot] = RotatingKey(f"{keyspace}{owner}/{self._generation}")
        key.operations += 1
        key.unsettled += 1
        return key

    def _is_worn(self, key: RotatingKey) -> bool:
        settings = self.settings
        return key.operations >= settings.operations_max or key.unsettled >= settings.indeterminate_max


@dataclass(frozen=True, slots=True)
class Plan:
    """One operation to perform."""

    kind: OperationKind
    keyspace: str
    key: str
    value: str | None = None
    expected: str | None = None
    rotating: RotatingKey | None = None

    def settle(self, outcome: Outcome, seen: str | None) -> None:
        """Tell the key what came of it; `seen` is its value as far as the answer tells."""
        if self.rotating is None:
            return
        if outcome is not Outcome.INFO:
            self.rotating.unsettled -= 1
        if outcome is Outcome.OK:
            self.rotating.last_seen = seen


@dataclass(slots=True)
class Generator:
    """The operations of one region's clients, in order."""

    region: str
    rate_per_s: float
    workload: WorkloadSection
    ring: KeyRing
    rng: random.Random
    _count: int = 0
    _kinds: dict[OperationKind, float] = field(init=False)
    _keyspaces: dict[str, float] = field(init=False)

    def __post_init__(self) -> None:
        """Take the shares of the workload, as `random.choices` likes them best: cumulated."""
        mix = self.workload.mix
        shares = {
            OperationKind.INSERT: mix.insert,
            OperationKind.PUT: mix.put,
            OperationKind.GET: mix.get,
            OperationKind.CAS: mix.cas,
            OperationKind.DELETE: mix.delete,
        }
        self._kinds = dict(zip(shares, accumulate(shares.values()), strict=True))
        spaces = self.workload.keyspaces
        self._keyspaces = dict(zip(spaces, accumulate(spaces.values()), strict=True))

    def gap_s(self) -> float:
        """Time to the next arrival."""
        if self.workload.arrivals == "fixed":
            return 1.0 / self.rate_per_s
        return self.rng.expovariate(self.rate_per_s)

    def next(self) -> Plan:
        """The next operation; it counts as unsettled until `Plan.settle`."""
        self._count += 1
        kind = self.rng.choices(list(self._kinds), cum_weights=list(self._kinds.values()))[0]
        keyspace = self.rng.choices(list(self._keyspaces), cum_weights=list(self._keyspaces.values()))[0]
        value = f"{self.region}#{self._count}".ljust(self.workload.value_bytes, ".")
        if kind is OperationKind.INSERT:
            return Plan(kind, keyspace, f"{keyspace}insert/{self.region}/{self._count}", value)
        rotating = self.ring.draw(self.rng, keyspace, self.region)
        if kind is OperationKind.GET:
            return Plan(kind, keyspace, rotating.key, rotating=rotating)
        if kind is OperationKind.DELETE:
            return Plan(kind, keyspace, rotating.key, rotating=rotating)
        expected = rotating.last_seen if kind is OperationKind.CAS else None
        return Plan(kind, keyspace, rotating.key, value, expected, rotating)
