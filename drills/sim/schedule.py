"""The fault schedule of a simulated run, as data: drawn from the seed before anything runs.

A run is a function of its options and its schedule, so a schedule can be cut down while the fault that it shows stays,
and be kept in a file. Faults may overlap and may exceed what the topology survives; then the world only has to stay
safe until they end. What a fault finds already so (a node that is down, a leader that is not there) it leaves alone.

Only two kinds are for good: a wiped and a restored disk, whose node never comes back. A store that is replaced is lost
as well, and its node comes back as another replica. A schedule whose lost stores would leave a group without a quorum,
or with no full replica, is refused: it could not be told from a lost one.
"""

import random
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from isochrone.drills.sim.options import SimOptions, rng_for
from isochrone.errors import InvalidRequest
from isochrone.ids import NodeId, ReplicaRole
from isochrone.topology.model import Group, Topology
from isochrone.wire.messages import MAJORITY


class FaultKind(StrEnum):
    """What goes wrong. `amount` is what the kind's text says, else unused."""

    CRASH = "crash"
    """A node's process is killed; of the batches not yet synced the first `amount` survive. Started at the end."""
    PAUSE = "pause"
    """A node's process is stopped; what is sent to it waits. Resumed at the end."""
    ZOMBIE = "zombie"
    """A new process takes a node's disk and address over, and the old one goes on beside it until the end: it hears
    peers and sends to them, but it has no disk and no clients. `amount` 1: its writes never return; 0: they fail."""
    FLAP = "flap"
    """A node crashes and starts again every `amount` milliseconds."""
    CRASH_LEADER = "crash-leader"
    """As `crash`, for the leader of a group at that time."""
    PAUSE_LEADER = "pause-leader"
    STALL_LEADER = "stall-leader"
    """A group's leader is stopped in the midst of a turn, as soon as it has a read to serve: it has just looked at its
    clock, and goes on at the end as if it were still that time."""
    CUT_LEADER = "cut-leader"
    """Nothing passes between the group's leader and anybody."""
    LOSE_REGION = "lose-region"
    """A region is cut off, then its processes are killed. Started again at the end."""
    CUT = "cut"
    """Nothing passes from the first place (a region, zone or node) to the second."""
    CUT_BOTH = "cut-both"
    """Nothing passes between two places."""
    SWIZZLE = "swizzle"
    """Nodes are cut off one by one, then come back one by one in another order: targets are both orders joined."""
    LOSS = "loss"
    """Frames vanish with probability `amount`."""
    DUPLICATE = "duplicate"
    """Peer frames arrive twice with probability `amount`."""
    REORDER = "reorder"
    """Peer frames leave their order with probability `amount`."""
    DELAY = "delay"
    """Frames take up to `amount` milliseconds longer."""
    FAIL_SYNC = "fail-sync"
    """A node's next durable write fails, which ends the node; `amount` 1: the batch is there nevertheless."""
    SLOW_DISK = "slow-disk"
    """A node's durable writes take `amount` milliseconds longer."""
    HANG_DISK = "hang-disk"
    """A node's durable writes do not return before the end."""
    WIPE_DISK = "wipe-disk"
    """A node crashes and its disk comes back empty: it must refuse to serve, for good."""
    OLD_DISK = "old-disk"
    """A node crashes and its disk comes back as a restored copy: it must refuse to serve, for good."""
    REPLACE_STORE = "replace-store"
    """A node crashes and its store is gone. At the end an operator gives it an empty one, with which it rejoins."""
    TRANSFER = "transfer"
    """An operator asks a group's leader to hand over to a node."""
    USURP = "usurp"
    """An operator asks a group's leader to hand over to a node, and nothing gets into the leader's zone from elsewhere.
    Neither the leader nor the clients beside it hear that it was replaced."""
    DEMOTE = "demote"
    """An operator asks that a full voter of a group become a learner, and at the end that it become one again."""
    REMOVE = "remove"
    """An operator asks that a voter leave a group, and at the end that it join again: a full one as a learner."""
    CLOCK_STEP = "clock-step"
    """A node's wall clock is `amount` milliseconds ahead of true time."""
    CLOCK_RATE = "clock-rate"
    """A node's clocks gain `amount` parts per million."""


_MS_MAX = 3_600_000.0
_AMOUNTS = {
    FaultKind.LOSS: (0.0, 1.0),
    FaultKind.DUPLICATE: (0.0, 1.0),
    FaultKind.REORDER: (0.0, 1.0),
    FaultKind.FLAP: (1.0, _MS_MAX),
    FaultKind.CLOCK_STEP: (-_MS_MAX, _MS_MAX),
    FaultKind.CLOCK_RATE: (-999_999.0, 1_000_000.0),
}
"""What `amount` may be where that is not 0 to `_MS_MAX`. A clock that loses a million in a million stands still."""
FOR_GOOD = (FaultKind.WIPE_DISK, FaultKind.OLD_DISK)
_OF_A_GROUP = (FaultKind.CRASH_LEADER, FaultKind.PAUSE_LEADER, FaultKind.STALL_LEADER, FaultKind.CUT_LEADER)
_OF_A_REPLICA = (FaultKind.TRANSFER, FaultKind.USURP, FaultKind.DEMOTE, FaultKind.REMOVE)
_OF_MEMBERS = (FaultKind.DEMOTE, FaultKind.REMOVE)
_OF_STORES = (*FOR_GOOD, FaultKind.REPLACE_STORE)
_OF_LINKS = (FaultKind.CUT, FaultKind.CUT_BOTH)
_OF_THE_NETWORK = (FaultKind.LOSS, FaultKind.DUPLICATE, FaultKind.REORDER, FaultKind.DELAY)


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault. Times are virtual milliseconds from the start of the safety phase."""

    at_ms: int
    duration_ms: int
    kind: FaultKind
    targets: tuple[str, ...] = ()
    amount: float = 0.0

    @property
    def description(self) -> str:
        """In words, such as `crash a-1`."""
        return " ".join((self.kind.value, *self.targets))


Schedule = tuple[Fault, ...]


def draw_schedule(options: SimOptions, topology: Topology) -> Schedule:
    """The schedule of a seed. It ends with the safety phase."""
    rng = rng_for(options.seed, "schedule")
    kinds = [FaultKind(kind) for kind, _ in options.fault_weights]
    weights = [weight for _, weight in options.fault_weights]
    faults: list[Fault] = []
    if not options.fault_gap_ms or not kinds:
        return ()
    at_ms = rng.expovariate(1 / options.fault_gap_ms)
    while at_ms < options.duration_ms - options.fault_ms_min:
        kind = rng.choices(kinds, weights)[0]
        longest_ms = min(options.fault_ms_max, options.duration_ms - round(at_ms))
        duration_ms = rng.randint(min(options.fault_ms_min, longest_ms), longest_ms)
        fault = Fault(round(at_ms), duration_ms, kind, _draw_targets(kind, topology, rng), _draw_amount(kind, rng))
        tried = [*faults, fault]
        recoverable = unrecoverable(topology, lost_nodes(tried)) is None and not _loses_a_changed_group(tried)
        if recoverable and _problem(fault, options, topology) is None:
            faults.append(fault)
        at_ms += rng.expovariate(1 / options.fault_gap_ms)
    return tuple(faults)


def _draw_targets(kind: FaultKind, topology: Topology, rng: random.Random) -> tuple[str, ...]:
    nodes = [node.id for node in topology.nodes]
    if kind in _OF_THE_NETWORK:
        return ()
    if kind in _OF_A_GROUP:
        return (rng.choice(topology.groups).id,)
    if kind in _OF_A_REPLICA:
        group = rng.choice(topology.groups)
        return group.id, rng.choice(group.replicas).node
    if kind is FaultKind.LOSE_REGION:
        return (rng.choice(topology.regions).id,)
    if kind is FaultKind.SWIZZLE:
        chosen = rng.sample(nodes, rng.randint(1, len(nodes)))
        return (*chosen, *rng.sample(chosen, len(chosen)))
    if kind in _OF_LINKS:
        return tuple(rng.sample(rng.choice(_places(topology)), 2))
    return (rng.choice(nodes),)


def _places(topology: Topology) -> list[list[str]]:
    """The kinds of place between which a cut can be drawn: regions, zones and nodes, where there are two of them."""
    regions: list[str] = [region.id for region in topology.regions]
    zones: list[str] = [zone for region in topology.regions for zone in region.zones]
    nodes: list[str] = [node.id for node in topology.nodes]
    return [places for places in (regions, zones, nodes) if len(places) > 1]


def _draw_amount(kind: FaultKind, rng: random.Random) -> float:
    match kind:
        case FaultKind.CRASH | FaultKind.CRASH_LEADER | FaultKind.FAIL_SYNC | FaultKind.ZOMBIE:
            return float(rng.randrange(2))
        case FaultKind.FLAP:
            return float(rng.choice((100, 500, 1_500)))
        case FaultKind.LOSS | FaultKind.DUPLICATE | FaultKind.REORDER:
            return rng.choice((0.05, 0.2, 0.5))
        case FaultKind.DELAY | FaultKind.SLOW_DISK:
            return float(rng.choice((20, 200, 1_000)))
        case FaultKind.CLOCK_STEP:
            return float(rng.choice((-2_000, -300, -50, 50, 300, 2_000)))
        case FaultKind.CLOCK_RATE:
            return float(rng.choice((-100_000, -500, 500, 100_000)))
        case _:
            return 0.0


def lost_nodes(schedule: Iterable[Fault]) -> list[NodeId]:
    """Nodes that lose what they remember, and never come back, or come back as other replicas."""
    return sorted({NodeId(fault.targets[0]) for fault in schedule if fault.kind in _OF_STORES})


def unrecoverable(topology: Topology, lost: Iterable[NodeId]) -> str | None:
    """Why a group could not serve without these nodes, or None."""
    gone = set(lost)
    return next((reason for group in topology.groups if (reason := _group_lost(group, gone))), None)


def changes_members(schedule: Iterable[Fault]) -> bool:
    """Whether a group may end with other members than the topology has."""
    return any(fault.kind in (*_OF_MEMBERS, FaultKind.REPLACE_STORE) for fault in schedule)


def _loses_a_changed_group(schedule: Iterable[Fault]) -> bool:
    """Whether a store is lost beside another change of members: what is left need not hold a quorum then."""
    kinds = {fault.kind for fault in schedule}
    return sum(not kinds.isdisjoint(each) for each in (FOR_GOOD, _OF_MEMBERS, (FaultKind.REPLACE_STORE,))) > 1


def _group_lost(group: Group, gone: set[NodeId]) -> str | None:
    left = [replica for replica in group.voters() if replica.node not in gone]
    if len(left) < group.survivors_needed():
        needed = group.survivors_needed()
        return f"group {group.id} keeps {len(left)} of {len(group.voters())} voters, and needs {needed}"
    if not any(replica.role is ReplicaRole.FULL for replica in left):
        return f"group {group.id} keeps no full replica"
    return None


def check_schedule(schedule: Schedule, options: SimOptions, topology: Topology) -> None:
    """Refuse a schedule that cannot run.

    Raises:
        InvalidRequest: a place is unknown, a time or amount impossible, or a group loses its quorum for good. The
            fault of whoever wrote the schedule.
    """
    for number, fault in enumerate(schedule):
        problem = _problem(fault, options, topology)
        if problem is not None:
            raise InvalidRequest(f"schedule[{number}] ({fault.description}): {problem}")
    reason = unrecoverable(topology, lost_nodes(schedule))
    if _loses_a_changed_group(schedule):
        raise InvalidRequest(
            "the schedule loses a store and changes the members of a group otherwise; no quorum need be left then"
        )
    if reason is not None:
        raise InvalidRequest(f"the schedule destroys for good: {', '.join(lost_nodes(schedule))}; then {reason}")


def _problem(fault: Fault, options: SimOptions, topology: Topology) -> str | None:
    if fault.at_ms < 0 or fault.duration_ms < 1 or fault.at_ms + fault.duration_ms > options.duration_ms:
        return (
            f"it lasts from {fault.at_ms} to {fault.at_ms + fault.duration_ms} ms, outside 0 to {options.duration_ms}"
        )
    if fault.kind in _OF_THE_NETWORK:
        known: Iterable[str] = ()
        count = 0
    elif fault.kind in _OF_A_GROUP:
        known, count = [group.id for group in topology.groups], 1
    elif fault.kind in _OF_A_REPLICA:
        known, count = _group_and_node(fault.targets, topology), 2
    elif fault.kind is FaultKind.LOSE_REGION:
        known, count = [region.id for region in topology.regions], 1
    elif fault.kind in _OF_LINKS:
        known, count = [place for places in _places(topology) for place in places], 2
    else:
        known = [node.id for node in topology.nodes]
        count = len(fault.targets) if fault.kind is FaultKind.SWIZZLE else 1
    if len(fault.targets) != count:
        return f"found {len(fault.targets)} targets; allowed: {count}"
    unknown = [target for target in fault.targets if target not in known]
    if unknown:
        return f"{unknown[0]!r} is not known; known are {', '.join(known)}"
    if fault.kind is FaultKind.SWIZZLE and not _is_swizzle(fault.targets):
        return "targets are the nodes in the order in which they are cut off, then the same ones as they come back"
    if fault.kind in _OF_LINKS and fault.targets[0] == fault.targets[1]:
        return f"found {fault.targets[0]} twice; allowed: two places"
    if fault.kind in _OF_A_REPLICA and not _is_group_and_node(fault.targets, topology):
        return f"found {', '.join(fault.targets)}; allowed: a group and the node of one of its replicas"
    low, high = _AMOUNTS.get(fault.kind, (0.0, _MS_MAX))
    if not low <= fault.amount <= high:
        return f"amount: found {fault.amount:g}; allowed: {low:g} to {high:g}"
    if fault.kind in FOR_GOOD and options.log_cap_bytes:
        return "allowed: no lost disk with a log cap, for at the cap the group waits for it until somebody removes it"
    if fault.kind is FaultKind.REPLACE_STORE and any(group.quorums != MAJORITY for group in topology.groups):
        return "a group has quorums of fixed sizes, which it may lack while the node is no member of it"
    drift_max_ppm = topology.clock.drift_max_ppm
    if fault.kind is FaultKind.CLOCK_RATE and options.lease_reads and abs(fault.amount) > drift_max_ppm:
        return (
            f"amount: found {fault.amount:g}; allowed: at most {drift_max_ppm} ppm either way, as leases rest on that"
        )
    return None


def _group_and_node(targets: tuple[str, ...], topology: Topology) -> list[str]:
    """What may be named: every group, and the nodes of the one that is named."""
    replicas = [each.node for group in topology.groups if group.id in targets[:1] for each in group.replicas]
    return [*(group.id for group in topology.groups), *replicas]


def _is_group_and_node(targets: tuple[str, ...], topology: Topology) -> bool:
    return any(
        targets[0] == group.id and targets[1] in [each.node for each in group.replicas] for group in topology.groups
    )


def _is_swizzle(targets: tuple[str, ...]) -> bool:
    half = len(targets) // 2
    return bool(targets) and sorted(targets[:half]) == sorted(targets[half:])
