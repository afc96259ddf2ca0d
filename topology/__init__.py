"""Regions, zones, links and keyspaces; survival goals to derived replicas; timers; predicted latencies.

`load_topology` reads a file into a `Topology`. All but `load_os` is pure.
"""

from isochrone.topology.load_os import load_topology
from isochrone.topology.model import (
    ClockSpec,
    Compaction,
    Group,
    Keyspace,
    NodeSpec,
    Ordering,
    Problem,
    Region,
    Replica,
    SurvivalGoal,
    Topology,
    TopologyError,
)

__all__ = [
    "ClockSpec",
    "Compaction",
    "Group",
    "Keyspace",
    "NodeSpec",
    "Ordering",
    "Problem",
    "Region",
    "Replica",
    "SurvivalGoal",
    "Topology",
    "TopologyError",
    "load_topology",
]
