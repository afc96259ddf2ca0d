"""A node as a Ray actor: one actor, one process, one node.

The actor has `max_restarts=0`: Ray reports its death and restarts nothing. Only the region's supervisor starts a node
again, on its own data. A zombie that Ray has lost sight of keeps the lock on the data directory, so the node
that is to replace it refuses to start until the zombie is gone.

Ray puts the working directory of the driver on every actor's `sys.path`. Were that the root of a source tree, each room
could be imported by a second name, and one module would be two. So drivers connect from the data directory, and an
actor that finds such a path refuses to run.
"""

import asyncio
import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import ray

from isochrone.errors import InvariantViolation, IsochroneError, check
from isochrone.node.files_os import load_config
from isochrone.node.interpreter_os import tune_interpreter
from isochrone.node.logs_os import log_to_file
from isochrone.node.process import ProcessId
from isochrone.node.processes_os import this_process

if TYPE_CHECKING:
    from isochrone.node.node import Node


class NodeFailed(Exception):
    """A node did not start, or ended unasked. Unlike the errors of the tree it crosses processes as it is."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(kind, text)
        self.kind = kind
        """Name of the error's class."""
        self.text = text

    def __str__(self) -> str:
        return f"{self.kind}: {self.text}"


@final
class NodeActor:
    """Runs one node in the actor's event loop."""

    async def __init__(self, config_file: str, log_file: str) -> None:  # type: ignore[misc]  # Ray awaits it
        check(importlib.util.find_spec("regions") is None, "a source tree stands on the actor's sys.path")
        check(type(asyncio.get_running_loop()).__module__.startswith("asyncio"), "the actor runs on a foreign loop")
        log_to_file(Path(log_file))
        self._config = load_config(Path(config_file))
        self._opening: asyncio.Task[Node] | None = None

    async def process(self) -> tuple[ProcessId, str]:
        """The actor's process, and the id of the Ray node on which it runs."""
        return this_process(), ray.get_runtime_context().get_node_id()

    async def open(self) -> None:
        """Open the node, or wait until it is open. Idempotent. Raises `NodeFailed` when it cannot be opened."""
        with _as_node_failed():
            await self._node()
            tune_interpreter()

    async def wait_closed(self) -> None:
        """Return when the node was stopped. Raises `NodeFailed` with the error that ended it."""
        with _as_node_failed():
            await (await self._node()).wait_closed()

    async def _node(self) -> "Node":
        # The supervisor needs this module for the class only, so what a node is made of is imported here.
        from isochrone.node.node import Node

        if self._opening is None:
            self._opening = asyncio.get_running_loop().create_task(Node.open(self._config))
        return await asyncio.shield(self._opening)


@contextmanager
def _as_node_failed() -> Iterator[None]:
    try:
        yield
    except (IsochroneError, InvariantViolation) as error:
        raise NodeFailed(type(error).__name__, str(error)) from error


def actor_name(node: str) -> str:
    """The name under which a node's actor is found again by a supervisor that lost it."""
    return f"node/{node}"


def actor_class(node: str, namespace: str, label_selector: dict[str, str] | None) -> Any:
    """The actor class of a node, placed by `label_selector` where there is one."""
    placed = {} if label_selector is None else {"label_selector": label_selector}
    # A node is placed by its zone and asks for no CPU, so any number of them fits on a small machine.
    return ray.remote(NodeActor).options(
        name=actor_name(node),
        namespace=namespace,
        lifetime="detached",
        get_if_exists=True,
        num_cpus=0,
        max_restarts=0,
        max_concurrency=100,
        **placed,
    )
