"""One node as a plain process, without Ray: for a witness site, systemd, Kubernetes.

SIGTERM and SIGINT stop the node in an orderly way. Whoever supervises the process starts it again on its own data; a
second process on the same data is refused by the lock on the directory.
"""

import asyncio
import signal

from isochrone.node.config import NodeConfig
from isochrone.node.interpreter_os import tune_interpreter
from isochrone.node.node import Node


async def run_node(config: NodeConfig, *, moved: bool = False) -> None:
    """Run a node until it is told to stop. `moved`: see `Node.open`.

    Raises:
        IsochroneError: the node did not start, or a fatal error ended it.
        InvariantViolation: a fault in Isochrone ended it.
    """
    node = await Node.open(config, moved=moved)
    tune_interpreter()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, node.request_stop)
    await node.wait_closed()
