"""The supervisor of one region, as a Ray actor: keeps the region's nodes running, and no others.

Theory of operation. What should run is a `Target`, kept in a file; what to do is decided by `node.reconcile`. For each
node that lives there is one task (`_tend`) with a long call on the node's actor pending: it fails when the actor
dies. Tasks and calls change views and targets, wake the loop, and nothing else; the loop alone starts and kills.

Promises. A state-changing call that succeeds is durable: the target is on disk before it is answered. One that fails
may have happened; every call is idempotent, so it may be repeated.

Death of the supervisor. Node actors are detached and named, so they outlive it. Ray starts it again
(`max_restarts=-1`); it reads its target and finds the actors by name. An actor that it cannot find and that lives
nevertheless keeps the lock on its data directory, so nothing is run twice.
"""

import asyncio
import logging
import os
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import ray
import ray.exceptions

from isochrone.errors import Unavailable
from isochrone.ids import NS_PER_S, Nanos, NodeId, RegionId
from isochrone.node.actor_ray import actor_class, actor_name
from isochrone.node.config import ConfigError
from isochrone.node.files_os import load_config, write_durably
from isochrone.node.layout import Layout
from isochrone.node.logs_os import log_to_file
from isochrone.node.placement import Placement
from isochrone.node.process import ProcessId
from isochrone.node.processes_os import send, this_process
from isochrone.node.reconcile import (
    Kill,
    NodeView,
    Phase,
    Start,
    Target,
    encode_target,
    on_ended,
    on_killing,
    on_running,
    on_starting,
    parse_target,
    plan,
)

logger = logging.getLogger(__name__)

NAMESPACE = "isochrone"


@dataclass(frozen=True, slots=True)
class SupervisorState:
    """What a supervisor says of itself and its nodes."""

    process: ProcessId
    held: frozenset[NodeId]
    views: Mapping[NodeId, NodeView]
    processes: Mapping[NodeId, ProcessId]
    """Processes of the nodes that live."""


@final
class Supervisor:
    """Runs in its actor's event loop; one per region."""

    async def __init__(self, region: RegionId, directory: str, nodes: tuple[NodeId, ...], placement: Placement) -> None:  # type: ignore[misc]  # Ray awaits it
        self._layout = Layout(Path(directory))
        log_to_file(self._layout.log(supervisor_name(region)))
        self._region = region
        self._placement = placement
        self._target = self._load_target(nodes)
        self._views = {node: NodeView() for node in nodes}
        self._actors: dict[NodeId, Any] = {}
        self._processes: dict[NodeId, tuple[ProcessId, str]] = {}
        self._tending: dict[NodeId, asyncio.Task[None]] = {}
        self._changed = asyncio.Condition()
        for node in nodes:
            self._adopt(node)
        self._loop = asyncio.get_running_loop().create_task(self._reconcile_for_ever())
        self._loop.add_done_callback(_die_on_error)

    # ---- calls

    async def state(self) -> SupervisorState:
        """What should run, and what does."""
        processes = {node: process for node, (process, _) in self._processes.items()}
        return SupervisorState(this_process(), self._target.held, dict(self._views), processes)

    async def hold(self, node: NodeId, timeout_s: float) -> None:
        """Kill a node and keep it down. Returns when its process is gone.

        Raises:
            KeyError: the node is not of this region.
            StorageError: the target could not be written; nothing changed.
            Unavailable: the process is not gone after `timeout_s`; it is still held, and killed as soon as that goes.
        """
        await self._retarget(self._target.hold(node))
        await self._wait_for_phase(node, Phase.ABSENT, timeout_s)

    async def release(self, node: NodeId, timeout_s: float) -> None:
        """Let a held node run again. Returns when it is open.

        Raises:
            KeyError: the node is not of this region.
            StorageError: the target could not be written; nothing changed.
            Unavailable: the node is not open after `timeout_s`; it is still released, and tried again.
        """
        await self._retarget(self._target.release(node))
        await self._wait_for_phase(node, Phase.RUNNING, timeout_s)

    # ---- target

    def _load_target(self, nodes: tuple[NodeId, ...]) -> Target:
        path = self._layout.supervisor_state(self._region)
        if path.exists():
            return parse_target(path.read_text(encoding="utf-8"))
        target = Target(nodes)
        write_durably(path, encode_target(target))
        return target

    async def _retarget(self, target: Target) -> None:
        write_durably(self._layout.supervisor_state(self._region), encode_target(target))
        self._target = target
        await self._wake()

    async def _wait_for_phase(self, node: NodeId, phase: Phase, timeout_s: float) -> None:
        def reached() -> bool:
            return self._views[node].phase is phase

        async with self._changed:
            try:
                await asyncio.wait_for(self._changed.wait_for(reached), timeout_s)
            except TimeoutError as error:
                view = self._views[node]
                reason = f": {view.last_error}" if view.last_error else ""
                raise Unavailable(f"node {node} is {view.phase}, not {phase}, after {timeout_s:g} s{reason}") from error

    # ---- reconcile

    async def _reconcile_for_ever(self) -> None:
        while True:
            async with self._changed:
                step = plan(self._target, self._views, _now())
                for action in step.actions:
                    match action:
                        case Start(node):
                            self._start(node)
                        case Kill(node):
                            self._kill(node)
                if step.actions:
                    self._changed.notify_all()
                    continue
                pause_s = None if step.wake_at is None else max(0.0, (step.wake_at - _now()) / NS_PER_S)
                try:
                    await asyncio.wait_for(self._changed.wait(), pause_s)
                except TimeoutError:
                    continue  # The pause before a restart is over.

    async def _wake(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    def _adopt(self, node: NodeId) -> None:
        try:
            actor = ray.get_actor(actor_name(node), namespace=NAMESPACE)
        except ValueError:
            return  # Nobody of that name lives.
        self._tend_from_now(node, actor)

    def _start(self, node: NodeId) -> None:
        self._tend_from_now(node, None)

    def _tend_from_now(self, node: NodeId, actor: Any | None) -> None:
        self._views[node] = on_starting(self._views[node])
        task = asyncio.get_running_loop().create_task(self._tend(node, actor), name=f"tend {node}")
        task.add_done_callback(_die_on_error)
        self._tending[node] = task

    async def _tend(self, node: NodeId, actor: Any | None) -> None:
        """Follow one actor, new or adopted, from its start to its end."""
        try:
            actor = actor or self._new_actor(node)
            self._actors[node] = actor
            self._processes[node] = await actor.process.remote()
            await actor.open.remote()
            self._views[node] = on_running(self._views[node], _now())
            await self._wake()
            await actor.wait_closed.remote()
            error = "the node was stopped"
        except ConfigError as failure:
            error = str(failure)
        except ray.exceptions.RayTaskError as failure:
            error = str(failure.cause)
        except ray.exceptions.RayError as failure:
            error = _first_line(failure)
        if actor is not None:
            # Whatever ended the node, its process must not outlive it: it would hold the name and the lock.
            ray.kill(actor, no_restart=True)
        logger.warning("node %s ended: %s", node, error)
        self._actors.pop(node, None)
        self._processes.pop(node, None)
        self._views[node] = on_ended(self._views[node], _now(), error)
        await self._wake()

    def _new_actor(self, node: NodeId) -> Any:
        config_file = self._layout.node_config(node)
        selector = self._placement.selector(load_config(config_file).zone)
        return actor_class(node, NAMESPACE, selector).remote(str(config_file), str(self._layout.log(node)))

    def _kill(self, node: NodeId) -> None:
        self._views[node] = on_killing(self._views[node])
        process, ray_node = self._processes.get(node, (None, None))
        if process is not None and ray_node == ray.get_runtime_context().get_node_id():
            send(process, signal.SIGKILL)
        else:
            ray.kill(self._actors[node], no_restart=True)


def supervisor_name(region: RegionId) -> str:
    """The name under which a region's supervisor is found."""
    return f"supervisor/{region}"


def start_supervisor(region: RegionId, directory: Path, nodes: tuple[NodeId, ...], placement: Placement) -> Any:
    """Start a region's supervisor, or find the one that lives. Returns the actor's handle."""
    return (
        ray.remote(Supervisor)
        .options(
            name=supervisor_name(region),
            namespace=NAMESPACE,
            lifetime="detached",
            get_if_exists=True,
            num_cpus=0,
            max_restarts=-1,
            max_concurrency=100,
        )
        .remote(region, str(directory), nodes, placement)
    )


def _die_on_error(task: asyncio.Task[None]) -> None:
    # Without one of its tasks a supervisor would answer and not act. Ray starts it again.
    if not task.cancelled() and task.exception() is not None:
        logger.critical("a task of the supervisor failed", exc_info=task.exception())
        os._exit(1)


def _now() -> Nanos:
    return Nanos(time.monotonic_ns())


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
