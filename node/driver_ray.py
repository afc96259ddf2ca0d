"""This process as a driver of our Ray: connecting, calling supervisors, leaving.

Ray keeps one connection per process, and takes its settings from the environment and the working directory at the
moment of connecting; both are put back afterwards.
"""

import asyncio
import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
import ray._raylet
import ray.exceptions

from isochrone.errors import IsochroneError, Unavailable
from isochrone.ids import RegionId
from isochrone.node.head_ray import FOREIGN_VARIABLES, ray_environment
from isochrone.node.placement import Placement, choose_placement
from isochrone.node.supervisor_ray import NAMESPACE, start_supervisor, supervisor_name
from isochrone.topology import Topology

RETRY_PAUSE_S = 0.1
"""Between calls to a supervisor that is being started again."""


def connect(address: str, ray_directory: Path, directory: Path) -> None:
    """Join the Ray at `address`; does nothing if this process has joined it.

    Raises:
        Unavailable: this process has joined another Ray, or nobody answers.
    """
    if ray.is_initialized():
        joined = ray.get_runtime_context().gcs_address
        if joined != address:
            raise Unavailable(f"this process has already joined another Ray, at {joined}")
        return
    with _environment(ray_directory), _working_directory(directory):
        # The token of a Ray that this process joined before is kept by Ray until it is told to forget it.
        raylet: Any = ray._raylet  # Its type stubs leave these two out.
        raylet.Config.initialize("")
        raylet.AuthenticationTokenLoader.instance().reset_cache()
        on_sigterm = signal.getsignal(signal.SIGTERM)
        try:
            ray.init(
                address=address,
                namespace=NAMESPACE,
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
        except (ConnectionError, RuntimeError) as error:
            raise Unavailable(f"the Ray head at {address} does not answer: {error}") from error
        finally:
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGTERM, on_sigterm)  # Ray has put its own there.
    # Ray prints every killed worker on our standard output, whatever it is told about logs. We kill on purpose.
    ray._private.worker._worker_logs_enabled = False


def disconnect() -> None:
    """Leave the Ray that this process has joined, if any."""
    if ray.is_initialized():
        ray.shutdown()


def placement_of(topology: Topology) -> Placement:
    """How nodes are placed on the Ray that this process has joined. Raises `PlacementError`."""
    zones = [zone for region in topology.regions for zone in region.zones]
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return choose_placement(zones, [each["Labels"] for each in nodes if each["Alive"]])


def supervise(topology: Topology, region: RegionId, directory: Path) -> None:
    """Start a region's supervisor, or find the one that lives."""
    nodes = tuple(spec.id for spec in topology.nodes if spec.region == region)
    start_supervisor(region, directory, nodes, placement_of(topology))


async def call(region: RegionId, method: str, *arguments: Any, timeout_s: float) -> Any:
    """Call a region's supervisor, again and again while it is being started, until `timeout_s`.

    Raises:
        Unavailable: there is none, or it did not answer in time; the call may have happened.
        IsochroneError, KeyError: whatever the supervisor raises.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout_s
    while True:
        try:
            supervisor = ray.get_actor(supervisor_name(region), namespace=NAMESPACE)
            answer = getattr(supervisor, method).remote(*arguments)
            return await asyncio.wait_for(_awaitable(answer), max(0.0, deadline - loop.time()))
        except ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, IsochroneError | KeyError):
                raise error.cause from None
            raise
        except (ValueError, ray.exceptions.RayActorError) as error:
            if loop.time() > deadline:
                raise Unavailable(f"the supervisor of {region} does not run") from error
        except TimeoutError as error:
            raise Unavailable(f"the supervisor of {region} did not answer {method} in {timeout_s:g} s") from error
        await asyncio.sleep(RETRY_PAUSE_S)


def kill_supervisor(region: RegionId) -> bool:
    """Kill a region's supervisor and tell Ray not to start it again. False when there is none."""
    try:
        supervisor = ray.get_actor(supervisor_name(region), namespace=NAMESPACE)
    except ValueError:
        return False
    ray.kill(supervisor, no_restart=True)
    return True


def is_supervised(region: RegionId) -> bool:
    """Whether a region has a supervisor that lives or is being started again."""
    try:
        ray.get_actor(supervisor_name(region), namespace=NAMESPACE)
    except ValueError:
        return False
    return True


async def _awaitable(answer: Any) -> Any:
    return await answer


@contextmanager
def _environment(ray_directory: Path) -> Iterator[None]:
    before = dict(os.environ)
    for name in FOREIGN_VARIABLES:
        os.environ.pop(name, None)
    os.environ.update(ray_environment(ray_directory))
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextmanager
def _working_directory(directory: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(directory)
    try:
        yield
    finally:
        os.chdir(before)
