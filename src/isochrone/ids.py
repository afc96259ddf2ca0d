"""Identifiers and the few numbers that every room uses.

All are plain strings and integers at run time; the distinct types only keep them from being mixed up.
"""

from enum import StrEnum
from typing import NewType

NodeId = NewType("NodeId", str)
"""Name of a node, unique in the cluster; such as `us-east-1a-1`. It never changes its meaning."""
RegionId = NewType("RegionId", str)
ZoneId = NewType("ZoneId", str)
GroupId = NewType("GroupId", str)
"""Name of a Raft group, such as `us-east-1.zone`."""
KeyspaceId = NewType("KeyspaceId", str)
"""Name of a keyspace: its key prefix, as text."""
ClusterId = NewType("ClusterId", str)
StoreId = NewType("StoreId", str)
"""Name of one data directory, drawn at bootstrap. A voter is `(node, store)`: a wiped disk is another voter.

A store that takes the place of others ends in a dot and their number (`store_id`).
"""

Term = NewType("Term", int)
LogIndex = NewType("LogIndex", int)
"""Position in a group's log; the first entry has index 1, 0 stands before it."""
Revision = NewType("Revision", int)
"""A group's log-order counter of applied writes."""
Timestamp = NewType("Timestamp", int)
"""Nanoseconds since the Unix epoch; a hybrid logical clock whose logical part is +1 ns."""
Incarnation = NewType("Incarnation", int)
"""Start counter of a node, over all its stores; a higher one is a later process (`ports.first_incarnation`)."""
Nanos = NewType("Nanos", int)
"""A reading of a monotonic clock, or a span of time, in nanoseconds."""


def store_id(drawn: str, replacements: int) -> StoreId:
    """The name of a store that so many of its node's came before; `drawn` at random, without a dot."""
    return StoreId(f"{drawn}.{replacements}" if replacements else drawn)


def is_later_store(store: StoreId, than: StoreId) -> bool:
    """Whether of two stores of one node the first took the place of the second."""
    return _replacements(store) > _replacements(than)


def _replacements(store: StoreId) -> int:
    _, dot, count = store.rpartition(".")
    return int(count) if dot and count.isdecimal() else 0


NS_PER_MS = 1_000_000
NS_PER_S = 1_000_000_000


class ReplicaRole(StrEnum):
    """What a replica stores and whether it votes."""

    FULL = "full"
    """Log and state; votes."""
    WITNESS = "witness"
    """Log only; votes. It never serves reads, takes proposals or sends snapshots."""
    LEARNER = "learner"
    """Log and state; no vote."""
