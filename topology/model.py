"""The topology as data: where things are, how far apart, and which replicas hold which keys.

Theory of operation: a topology file states places, links and survival goals; `topology.build` turns it into one
`Topology`, which every other room reads and nobody changes. All of it is immutable and comparable, so two nodes
that read equal files hold equal topologies.

Invariants, kept by `topology.build`: names are unique; every zone has a node; every ordered pair of zones has a
link; a zone holds at most one voter of a group; every quorum of a group holds a full replica, and meets those that it
must; the first replica of a group is a full voter in its home region, and campaigns at once at bootstrap.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from isochrone.errors import InvalidRequest
from isochrone.ids import GroupId, KeyspaceId, NodeId, RegionId, ReplicaRole, ZoneId
from isochrone.wire.configurations import resolved_sizes
from isochrone.wire.messages import MAJORITY, QuorumSizes
from isochrone.wire.shaping import LinkShape


@dataclass(frozen=True, slots=True)
class Problem:
    """One fault in one file."""

    file: str
    path: str
    """The key, such as `keyspaces[0].home`; or a position, where the file cannot be read as YAML."""
    found: str
    allowed: str

    def __str__(self) -> str:
        return f"{self.file}: {self.path}: found {self.found}; allowed: {self.allowed}"


class TopologyError(InvalidRequest):
    """A topology file is wrong; its author is at fault. `problems` holds every fault that one reading finds."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = problems


class SurvivalGoal(StrEnum):
    """What may be lost without losing acknowledged writes or the ability to write."""

    ZONE = "zone"
    REGION = "region"


class Ordering(StrEnum):
    """How writes of a keyspace are ordered against the rest of the world."""

    LINEARIZABLE = "linearizable"
    """By revision of the group; no commit-wait."""
    EXTERNAL = "external"
    """By commit timestamp, after a commit-wait; for cross-group transactions and strong snapshots."""


@dataclass(frozen=True, slots=True)
class Region:
    """A place with its zones. Coordinates are degrees, for drawing only."""

    id: RegionId
    zones: tuple[ZoneId, ...]
    city: str
    latitude: float
    longitude: float
    witness_site: bool = False
    """Its nodes hold witnesses only."""
    zone_rtt_assumed: bool = False
    """No figure for the RTT between its zones is known, so a typical one is used."""


@dataclass(frozen=True, slots=True)
class NodeSpec:
    """A node and its place. `address` is `host:port`, or None where whoever starts the node chooses it."""

    id: NodeId
    region: RegionId
    zone: ZoneId
    address: str | None


@dataclass(frozen=True, slots=True)
class Keyspace:
    """A key prefix and the group that holds it."""

    id: KeyspaceId
    prefix: bytes
    home: RegionId
    goal: SurvivalGoal
    ordering: Ordering
    group: GroupId


@dataclass(frozen=True, slots=True)
class Replica:
    """One replica of a group: its node and what it stores."""

    node: NodeId
    role: ReplicaRole


@dataclass(frozen=True, slots=True)
class Compaction:
    """How much of its history a group keeps. It compacts as far as either bound allows, and never the present."""

    keep_seconds: int | None = 3600
    """What was superseded longer ago is forgotten; None: age forgets nothing."""
    keep_revisions: int | None = 1_000_000
    """What was superseded before the last so many revisions is forgotten; None: their number forgets nothing."""


@dataclass(frozen=True, slots=True)
class Group:
    """One Raft group at bootstrap."""

    id: GroupId
    home: RegionId
    goal: SurvivalGoal
    ordering: Ordering
    replicas: tuple[Replica, ...]
    """Voters, then the learners that hold asynchronous copies. The first one is a full voter in the home region; it
    campaigns at once at bootstrap."""
    heartbeat_ms: int
    election_timeout_ms: int
    """The base T: timeouts are drawn from [T, 1.5 T]."""
    quorums: QuorumSizes = MAJORITY
    lease_reads: bool = False
    """The leader answers reads under a lease."""
    compaction: Compaction = Compaction()

    def voters(self) -> tuple[Replica, ...]:
        """Replicas that vote, full ones and witnesses."""
        return tuple(replica for replica in self.replicas if replica.role is not ReplicaRole.LEARNER)

    def learners(self) -> tuple[Replica, ...]:
        """Replicas that do not vote and that nothing waits for: asynchronous copies in other regions."""
        return tuple(replica for replica in self.replicas if replica.role is ReplicaRole.LEARNER)

    def commit_quorum(self) -> int:
        """Voters that commit a write, the leader included."""
        return resolved_sizes(self.quorums, len(self.voters())).commit

    def election_quorum(self) -> int:
        """Voters that elect a leader."""
        return resolved_sizes(self.quorums, len(self.voters())).election

    def survivors_needed(self) -> int:
        """Voters that must be left so that nothing committed is lost and the group goes on."""
        return max(self.commit_quorum(), self.election_quorum())


@dataclass(frozen=True, slots=True)
class ClockSpec:
    """Where the clock bound comes from.

    `bound_ms` is the half-width of the clock interval: for source `bound` what the operator vouches for, for source
    `kernel` the widest that is accepted. `offset_max_ms` is the largest lead of a timestamp that a replica accepts.
    `drift_max_ppm` is how wrong a node's monotonic clock may run, in parts per million of true time.
    """

    source: str
    bound_ms: float
    offset_max_ms: float
    drift_max_ppm: int = 100_000


@dataclass(frozen=True, slots=True)
class Topology:
    """A whole deployment. Look-ups by a name that is not in it raise `KeyError`."""

    name: str
    latencies: str
    """The matrix that the links come from: its name or its file."""
    regions: tuple[Region, ...]
    nodes: tuple[NodeSpec, ...]
    keyspaces: tuple[Keyspace, ...]
    groups: tuple[Group, ...]
    clock: ClockSpec
    shapes: Mapping[tuple[ZoneId, ZoneId], LinkShape] = field(hash=False)
    """One shape for each ordered pair of different zones."""

    def link(self, source: ZoneId, target: ZoneId) -> LinkShape:
        """The one-way link between two zones; inside one zone there is no delay."""
        return LinkShape() if source == target else self.shapes[source, target]

    def links(self) -> dict[tuple[ZoneId, ZoneId], LinkShape]:
        """The links of all ordered pairs of zones, a zone with itself included."""
        zones = [zone for region in self.regions for zone in region.zones]
        return {(source, target): self.link(source, target) for source in zones for target in zones}

    def rtt_ms(self, zone_a: ZoneId, zone_b: ZoneId) -> float:
        """The median round trip between two zones: both delays, and half of each uniform jitter."""
        there, back = self.link(zone_a, zone_b), self.link(zone_b, zone_a)
        return there.delay_ms + back.delay_ms + (there.jitter_ms + back.jitter_ms) / 2

    def region(self, region: RegionId) -> Region:
        """The region of this name."""
        return {each.id: each for each in self.regions}[region]

    def node(self, node: NodeId) -> NodeSpec:
        """The node of this name."""
        return {each.id: each for each in self.nodes}[node]

    def group(self, group: GroupId) -> Group:
        """The group of this name."""
        return {each.id: each for each in self.groups}[group]


def majority(voters: int) -> int:
    """The smallest count such that any two sets of so many voters share one."""
    return voters // 2 + 1
