"""What a region's supervisor does next: target and observation in, actions out.

Theory of operation. The *target* says which nodes of the region should run: all of them, save those that are held.
It is durable (`node.supervisor_ray` writes it before a change is answered). The *views* say what is seen of each
node; they are volatile and are learned again after a restart of the supervisor. `plan` compares the two. It is asked
again after every change and at `wake_at`; it may be asked at any time and any number of times.

Invariants:
1. At most one process per node is asked for: a node is started only from phase ABSENT. (A zombie that the supervisor
   does not see is kept out by the lock on the node's data directory: the start fails and is tried again.)
2. A held node is never started, and is killed when it is seen alive.
3. Restarts are tried for ever and are at most `BACKOFF_MAX` apart; the first one comes at once.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from isochrone.ids import NS_PER_MS, NS_PER_S, Nanos, NodeId

BACKOFF_FIRST = Nanos(200 * NS_PER_MS)
"""Pause before the second restart in a row; it doubles with each further one."""
BACKOFF_MAX = Nanos(5 * NS_PER_S)
STABLE_AFTER = Nanos(10 * NS_PER_S)
"""A node that has run for so long is forgiven its earlier failures."""


class Phase(StrEnum):
    """What is seen of a node's process."""

    ABSENT = "absent"
    """There is none."""
    STARTING = "starting"
    """There is one; its store is not open yet."""
    RUNNING = "running"
    KILLING = "killing"
    """There is one, and it has been killed; its end has not been seen yet."""


@dataclass(frozen=True, slots=True)
class NodeView:
    """What the supervisor knows of one node."""

    phase: Phase = Phase.ABSENT
    failures: int = 0
    """Ends that nobody asked for, in a row."""
    running_since: Nanos | None = None
    start_at: Nanos = Nanos(0)
    """Not to be started before."""
    last_error: str | None = None
    """Why it last ended unasked; kept for the operator."""


@dataclass(frozen=True, slots=True)
class Target:
    """Which nodes of a region should run."""

    nodes: tuple[NodeId, ...]
    held: frozenset[NodeId] = frozenset()

    def hold(self, node: NodeId) -> "Target":
        """The node should not run. Raises `KeyError` for a node of another region."""
        return replace(self, held=self.held | {self._own(node)})

    def release(self, node: NodeId) -> "Target":
        """The node should run. Raises `KeyError` for a node of another region."""
        return replace(self, held=self.held - {self._own(node)})

    def _own(self, node: NodeId) -> NodeId:
        if node not in self.nodes:
            raise KeyError(f"{node} is not one of {', '.join(self.nodes)}")
        return node


@dataclass(frozen=True, slots=True)
class Start:
    """Start a process for the node on its own data, or adopt the one that lives."""

    node: NodeId


@dataclass(frozen=True, slots=True)
class Kill:
    """Kill the node's process."""

    node: NodeId


Action = Start | Kill


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do now, and when to ask again at the latest (None: only after a change)."""

    actions: tuple[Action, ...]
    wake_at: Nanos | None


def plan(target: Target, views: Mapping[NodeId, NodeView], now: Nanos) -> Plan:
    """Compare target and views, node by node in the target's order."""
    actions: list[Action] = []
    wakes: list[Nanos] = []
    for node in target.nodes:
        view = views.get(node, NodeView())
        match view.phase:
            case Phase.ABSENT if node not in target.held:
                if view.start_at <= now:
                    actions.append(Start(node))
                else:
                    wakes.append(view.start_at)
            case Phase.STARTING | Phase.RUNNING if node in target.held:
                actions.append(Kill(node))
            case _:
                pass
    return Plan(tuple(actions), min(wakes, default=None))


def on_starting(view: NodeView) -> NodeView:
    """A process was asked for."""
    return replace(view, phase=Phase.STARTING)


def on_running(view: NodeView, now: Nanos) -> NodeView:
    """The process says that its node is open. One that was killed meanwhile stays so."""
    if view.phase is Phase.KILLING:
        return view
    return replace(view, phase=Phase.RUNNING, running_since=now)


def on_killing(view: NodeView) -> NodeView:
    """The process was killed at our wish."""
    return replace(view, phase=Phase.KILLING)


def on_ended(view: NodeView, now: Nanos, error: str | None) -> NodeView:
    """The process is gone. Decides when it may be started again."""
    if view.phase is Phase.KILLING:
        return NodeView(last_error=view.last_error, start_at=now)
    lived = Nanos(0) if view.running_since is None else Nanos(now - view.running_since)
    failures = 1 if lived >= STABLE_AFTER else view.failures + 1
    return NodeView(failures=failures, start_at=Nanos(now + backoff(failures)), last_error=error)


def backoff(failures: int) -> Nanos:
    """Pause before the restart after so many failures in a row, in nanoseconds."""
    if failures <= 1:
        return Nanos(0)
    return Nanos(min(BACKOFF_MAX, BACKOFF_FIRST << min(failures - 2, 16)))


def encode_target(target: Target) -> str:
    """The target as the text of its file."""
    return json.dumps({"nodes": list(target.nodes), "held": sorted(target.held)}) + "\n"


def parse_target(text: str) -> Target:
    """Parse what `encode_target` wrote. Raises `ValueError`, `KeyError` or `TypeError` for anything else."""
    plain = json.loads(text)
    return Target(tuple(NodeId(node) for node in plain["nodes"]), frozenset(NodeId(node) for node in plain["held"]))
