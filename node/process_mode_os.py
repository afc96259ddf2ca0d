"""One node as a plain process, without Ray: for a witness site, systemd, Kubernetes.

SIGTERM and SIGINT stop the node in an orderly way. Whoever supervises the process starts it again on its own data; a
second process on the same data is refused by the lock on the directory.
"""

import asyncio
import logging
import signal
from collections.abc import Callable, Coroutine, Iterable, Mapping

from isochrone.node.config import NodeConfig
from isochrone.node.interpreter_os import tune_interpreter
from isochrone.node.metric_readings import Reading
from isochrone.node.node import Node

logger = logging.getLogger(__name__)

Export = Callable[[Callable[[], Iterable[Reading]], Mapping[str, str]], Coroutine[None, None, None]]
"""Sends metrics somewhere until it is cancelled. It is given what reads them, and labels that belong to each."""


async def run_node(config: NodeConfig, *, moved: bool = False, export: Export | None = None) -> None:
    """Run a node until it is told to stop. `moved`: see `Node.open`; `export` runs beside it.

    Raises:
        IsochroneError: the node did not start, or a fatal error ended it.
        InvariantViolation: a fault in Isochrone ended it.
    """
    node = await Node.open(config, moved=moved)
    tune_interpreter()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, node.request_stop)
    if export is None:
        await node.wait_closed()
        return
    exporting = loop.create_task(export(node.metrics.read, node.metrics.common))
    exporting.add_done_callback(_tell_end)
    try:
        await node.wait_closed()
    finally:
        exporting.cancel()
        await asyncio.gather(exporting, return_exceptions=True)


def _tell_end(exporting: asyncio.Task[None]) -> None:
    """The node goes on without its metrics being exported."""
    if not exporting.cancelled() and (error := exporting.exception()) is not None:
        logger.error("metrics are exported no more", exc_info=error)
