"""The options of one simulated run: plain data, drawn from a seed or given, printed before anything runs.

Each subsystem of the world draws from a generator of its own (`rng_for`), so that one draw more in one of them shifts
nothing in the others.
"""

import random
from dataclasses import dataclass, replace
from enum import StrEnum

from isochrone.errors import InvalidRequest


class Mode(StrEnum):
    """What a run is for."""

    LITE = "lite"
    """Three nodes and a short run: looks for broken invariants, cheap enough for every test run."""
    SWARM = "swarm"
    """Every option is drawn."""
    PERF = "perf"
    """No faults: measures the simulator, and what the protocols send."""


DURATION_MS = {Mode.LITE: 12_000, Mode.SWARM: 60_000, Mode.PERF: 60_000}
"""Length of the safety phase unless it is given, in virtual milliseconds."""
DURATION_MS_MIN, DURATION_MS_MAX = 1_000, 3_600_000
"""Between what it can be given."""


QUIET_ODDS, QUIET_RATE_PER_S = 0.2, 0.5
"""So often clients ask so seldom that groups fall asleep in between."""
FEW_ODDS, FEW_SHARE = 0.3, 0.3
"""So often a run has only this share of the kinds of fault that it would have: what takes several of one kind."""
LOG_CAP_BYTES_MIN = 20_000
"""Of a simulated group's log: well above what every replica keeps, and above any entry."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SimOptions:
    """Everything that a run depends on besides its fault schedule. Times are virtual."""

    seed: int
    mode: Mode
    topology: str
    """A file, or the name of a topology that ships with the simulator."""
    duration_ms: int
    """Length of the safety phase, in which faults run."""
    liveness_ms: int = 60_000
    """How long a healed world may take to serve again."""
    rate_per_s: float = 30.0
    """Operations of all clients together."""
    timeout_ms: int = 4_000
    """Deadline of each operation."""
    shared_share: float = 0.5
    """Share of operations on keys that all regions contend for."""
    jitter: float = 0.0
    """Uniform extra delay of a frame, as a share of the link's delay."""
    loss: float = 0.0
    """Probability that a frame vanishes."""
    duplicate: float = 0.0
    """Probability that a peer frame arrives twice."""
    reorder: float = 0.0
    """Probability that a peer frame ignores the order of its stream."""
    sync_ms_min: float = 0.5
    """A durable write takes a uniform time between this and `sync_ms_max`."""
    sync_ms_max: float = 2.0
    clocks_honest: bool = True
    """Clocks know how wrong they are."""
    clock_offset_ms_max: float = 0.0
    """Each node's wall clock starts up to so far from true time."""
    small_limits: bool = False
    """Tiny windows, caches and truncation steps, so that they are hit all the time."""
    small_logs: bool = False
    """Replicas keep a few entries of their logs, and snapshots come in small chunks."""
    log_cap_bytes: int = 0
    """The log cap of every group; 0: that of production, which no run reaches."""
    shuffle: bool = False
    """Run what is ready in a drawn order instead of asyncio's."""
    lease_reads: bool = False
    """Groups answer reads under leases; clocks keep the topology's drift bound then."""
    prefers_one: bool = False
    """Each group prefers one leader, not the one that campaigns first, instead of all in its home region."""
    quorum_shift: int = 0
    """So many replicas more than a majority commit; below 0 fewer, and more elect. For groups that can be so."""
    coordination: bool = False
    """Clients take locks under leases, campaign and watch, beside the key-value workload."""
    recipes: bool = False
    """Clients that take locks use the SDK's recipes, too: membership, barriers, queues."""
    fault_gap_ms: int = 4_000
    """Mean time between the starts of faults; 0: none."""
    fault_ms_min: int = 200
    """Shortest fault."""
    fault_ms_max: int = 6_000
    """Longest fault."""
    fault_weights: tuple[tuple[str, float], ...] = ()
    """Kinds of fault (`schedule.FaultKind`) and how often each is drawn."""
    steps_max: int = 50_000_000
    """Callbacks after which the run counts as running away."""

    def __post_init__(self) -> None:
        """Refuse what cannot run; the fault of whoever gave the options."""
        for name, low, high in _RANGES:
            value = getattr(self, name)
            if not low <= value <= high:
                allowed = f"{low} to {high}" if high < _ENDLESS else f"{low} or more"
                raise InvalidRequest(f"{name}: found {value}; allowed: {allowed}")
        if self.sync_ms_max < self.sync_ms_min:
            raise InvalidRequest(f"sync_ms_max: found {self.sync_ms_max:g}; allowed: at least sync_ms_min")
        if 0 < self.log_cap_bytes < LOG_CAP_BYTES_MIN:
            text = f"allowed: 0, or at least {LOG_CAP_BYTES_MIN}"
            raise InvalidRequest(f"log_cap_bytes: found {self.log_cap_bytes}; {text}")
        if self.fault_ms_max < self.fault_ms_min:
            raise InvalidRequest(f"fault_ms_max: found {self.fault_ms_max}; allowed: at least fault_ms_min")


_ENDLESS = float("inf")
_RANGES: tuple[tuple[str, float, float], ...] = (
    ("seed", 0, _ENDLESS),
    ("duration_ms", DURATION_MS_MIN, DURATION_MS_MAX),
    ("liveness_ms", 1_000, 3_600_000),
    ("rate_per_s", 0.1, 10_000),
    ("timeout_ms", 100, 60_000),
    ("shared_share", 0, 1),
    ("jitter", 0, 10),
    ("loss", 0, 0.5),
    ("duplicate", 0, 0.5),
    ("reorder", 0, 0.5),
    ("sync_ms_min", 0, 10_000),
    ("sync_ms_max", 0, 10_000),
    ("clock_offset_ms_max", 0, 60_000),
    ("quorum_shift", -2, 2),
    ("log_cap_bytes", 0, 1e12),
    ("fault_gap_ms", 0, 3_600_000),
    ("fault_ms_min", 1, 3_600_000),
    ("fault_ms_max", 1, 3_600_000),
    ("steps_max", 1, 1e12),
)


def rng_for(seed: int, name: str) -> random.Random:
    """The generator of one subsystem."""
    return random.Random(f"{seed}/{name}")


def draw_options(seed: int, mode: Mode, topology: str, duration_ms: int | None = None) -> SimOptions:
    """The options of a seed."""
    rng = rng_for(seed, "options")
    length_ms = duration_ms if duration_ms is not None else DURATION_MS[mode]
    if mode is Mode.PERF:
        return SimOptions(seed=seed, mode=mode, topology=topology, duration_ms=length_ms, fault_gap_ms=0)
    lite = mode is Mode.LITE
    loss, duplicate, reorder = (_sometimes(rng, 0.3, 0.0, high) for high in (0.05, 0.05, 0.05))
    sync_ms_min = rng.choice((0.0, 0.2, 1.0))
    options = SimOptions(
        seed=seed,
        mode=mode,
        topology=topology,
        duration_ms=length_ms,
        rate_per_s=rng.choice((5.0, 10.0, 20.0)) if lite else rng.choice((5.0, 15.0, 30.0, 60.0)),
        timeout_ms=rng.choice((1_000, 2_500, 4_000)),
        shared_share=rng.choice((0.2, 0.5, 0.9)),
        jitter=_sometimes(rng, 0.5, 0.0, 1.0),
        loss=loss,
        duplicate=duplicate,
        reorder=reorder,
        sync_ms_min=sync_ms_min,
        sync_ms_max=sync_ms_min + rng.choice((0.0, 2.0, 20.0)),
        clocks_honest=rng.random() < 0.7,
        clock_offset_ms_max=_sometimes(rng, 0.5, 0.0, 20.0),
        small_limits=rng.random() < 0.5,
        shuffle=rng.random() < 0.1,
        fault_gap_ms=rng.choice((1_500, 3_000)) if lite else rng.choice((1_000, 3_000, 8_000, 20_000)),
        fault_ms_max=rng.choice((1_500, 4_000)) if lite else rng.choice((1_500, 6_000, 20_000)),
        fault_weights=_draw_weights(rng),
        lease_reads=rng.random() < 0.5,
        prefers_one=rng.random() < 0.5,
        quorum_shift=rng.choice((0, 0, 0, 0, -2, -1, 1, 2)),
        small_logs=rng.random() < 0.5,
        log_cap_bytes=rng.choice((*[0] * 8, 25_000, 60_000)),
        coordination=rng.random() < 0.3,
        recipes=rng.random() < 0.5,
    )
    if lite:
        return options
    if rng.random() < QUIET_ODDS:
        options = replace(options, rate_per_s=QUIET_RATE_PER_S)
    if rng.random() < FEW_ODDS:
        few = tuple(each for each in options.fault_weights if rng.random() < FEW_SHARE)
        options = replace(options, fault_weights=few or options.fault_weights)
    return options


_KINDS_AND_WEIGHTS: tuple[tuple[str, float], ...] = (
    ("crash", 3.0),
    ("pause", 2.0),
    ("zombie", 1.0),
    ("flap", 0.7),
    ("crash-leader", 3.0),
    ("pause-leader", 2.0),
    ("cut-leader", 2.0),
    ("lose-region", 1.0),
    ("cut", 2.0),
    ("cut-both", 2.0),
    ("swizzle", 1.0),
    ("loss", 1.0),
    ("duplicate", 1.0),
    ("reorder", 1.0),
    ("delay", 1.0),
    ("fail-sync", 1.0),
    ("slow-disk", 1.0),
    ("hang-disk", 1.0),
    ("wipe-disk", 0.8),
    ("old-disk", 0.8),
    ("clock-step", 1.0),
    ("clock-rate", 1.0),
    ("transfer", 2.0),
    ("demote", 1.5),
    ("remove", 1.5),
    ("stall-leader", 2.0),
    ("usurp", 1.5),
    ("replace-store", 2.0),
)
"""Every kind of fault that a swarm draws from. `schedule` checks that the names are its own."""
FAULT_KINDS = tuple(kind for kind, _ in _KINDS_AND_WEIGHTS)
"""Their names."""


def _draw_weights(rng: random.Random) -> tuple[tuple[str, float], ...]:
    """A subset of the kinds: a run that mixes everything rarely goes deep into anything."""
    chosen = tuple((kind, weight) for kind, weight in _KINDS_AND_WEIGHTS if rng.random() < 0.5)
    return chosen or _KINDS_AND_WEIGHTS


def _sometimes(rng: random.Random, odds: float, low: float, high: float) -> float:
    """A uniform draw with some odds, else 0."""
    armed, value = rng.random() < odds, rng.uniform(low, high)
    return round(value, 4) if armed else 0.0
