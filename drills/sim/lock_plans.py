"""Which locks a simulated process wants to hold at a time, in which modes and in which order: drawn from a seed.

Orders differ, so such processes close cycles of waits; holders of weaker modes want stronger ones, two at a time; some
locks are taken from the root of a hierarchy down.
"""

import random
from dataclasses import dataclass
from typing import TypeAlias

from isochrone.wire.locks import LockMode

LOCKS, ROWS = 2, 2
"""Locks of each keyspace that are taken alone, and together with others."""
BRANCHES = ("a", "b")
"""Of the hierarchy of each keyspace."""

_CONVERSIONS = (
    (LockMode.S, LockMode.X),
    (LockMode.S, LockMode.X),
    (LockMode.IX, LockMode.X),
    (LockMode.IX, LockMode.S),
)


@dataclass(frozen=True, slots=True)
class Want:
    """One lock of several."""

    name: str
    mode: LockMode
    then: LockMode | None = None
    """What it is asked to give besides, once it is held."""
    hierarchical: bool = False


Plan: TypeAlias = tuple[Want, ...]
"""In the order of asking."""


def election(keyspace: str) -> str:
    """The election of a keyspace."""
    return f"{keyspace}leader"


def lone_locks(keyspace: str) -> list[str]:
    """The locks of a keyspace that are taken alone."""
    return [f"{keyspace}lock/{number}" for number in range(LOCKS)]


def _rows(keyspace: str) -> list[str]:
    return [f"{keyspace}row/{number}" for number in range(ROWS)]


def _root(keyspace: str) -> str:
    return f"{keyspace}tree"


def lock_names(keyspace: str) -> list[str]:
    """All locks of a keyspace, its election among them."""
    branches = [f"{_root(keyspace)}/{branch}" for branch in BRANCHES]
    return [election(keyspace), *lone_locks(keyspace), *_rows(keyspace), _root(keyspace), *branches]


def draw_plan(rng: random.Random, keyspace: str) -> Plan:
    """All rows, one row in two modes, or a way down the tree."""
    match rng.randrange(3):
        case 0:
            names = rng.sample(_rows(keyspace), ROWS)
            return tuple(Want(name, rng.choice((LockMode.X, LockMode.X, *LockMode))) for name in names)
        case 1:
            mode, then = rng.choice(_CONVERSIONS)
            return (Want(_rows(keyspace)[0], mode, then),)
        case _:
            leaf = rng.choice((LockMode.S, LockMode.X))
            above = (LockMode.IX, LockMode.SIX) if leaf is LockMode.X else (LockMode.IS, LockMode.IX, LockMode.S)
            branch = f"{_root(keyspace)}/{rng.choice(BRANCHES)}"
            return (
                Want(_root(keyspace), rng.choice(above), hierarchical=True),
                Want(branch, leaf, hierarchical=True),
            )
