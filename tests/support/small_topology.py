"""A small topology file, and waiting for what real processes do."""

import asyncio
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from isochrone.errors import DeadlineExceeded, Unavailable
from isochrone.wire.admin_grpc import AdminClient
from isochrone.wire.status import NodeStatus

DEADLINE_S = 60.0
REPOSITORY = Path(__file__).parents[2]
PROGRAM = Path(sys.executable).with_name("isochrone")

ONE_REGION = """
name: one-region
latencies: aws
regions:
  - {name: us-east-1, zones: [us-east-1a, us-east-1b, us-east-1c]}
keyspaces:
  - {prefix: us/, home: us-east-1, survive: zone}
clock: {source: bound, bound_ms: 5}
"""


def write_topology(directory: Path, text: str = ONE_REGION) -> Path:
    """Write a topology file."""
    path = directory / "topology-given.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def isochrone(*arguments: object, cwd: Path, timeout_s: float = 100.0) -> "subprocess.CompletedProcess[str]":
    """Run the command line as a program."""
    command = [str(PROGRAM), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, cwd=cwd, check=False)


def eventually(condition: Callable[[], bool], what: str) -> None:
    """Wait until other processes have brought something about."""
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, f"not within {DEADLINE_S:g} s: {what}"
        time.sleep(0.05)


def status_of(address: str) -> NodeStatus | None:
    """What the node at an address says of itself; None when it does not answer."""

    async def ask() -> NodeStatus | None:
        try:
            async with AdminClient(address) as admin:
                return await admin.status(2.0)
        except (Unavailable, DeadlineExceeded):
            return None

    return asyncio.run(ask())
