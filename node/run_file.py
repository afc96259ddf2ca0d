"""The run file: what runs in a deployment directory, so that any later command can find it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from isochrone.ids import NodeId
from isochrone.node.process import ProcessId

RUN_VERSION = 1


@dataclass(frozen=True, slots=True)
class RunFile:
    """What was started. Whether it still lives, the processes tell."""

    head: ProcessId
    """The Ray head: leader of the session in which everything runs."""
    ray_directory: Path
    """Ray's own directory: sockets, logs, token."""
    ray_address: str | None
    """`host:port` of the Ray head; None while it starts."""
    addresses: Mapping[NodeId, str]


def encode_run_file(run: RunFile) -> str:
    """The run file's text."""
    plain = {
        "version": RUN_VERSION,
        "head": {"pid": run.head.pid, "started": run.head.started},
        "ray_directory": str(run.ray_directory),
        "ray_address": run.ray_address,
        "addresses": dict(run.addresses),
    }
    return json.dumps(plain, indent=2) + "\n"


def parse_run_file(text: str) -> RunFile:
    """Parse what `encode_run_file` wrote. Raises `ValueError`, `KeyError` or `TypeError` for anything else."""
    plain = json.loads(text)
    if plain["version"] != RUN_VERSION:
        raise ValueError(f"version {plain['version']}")
    return RunFile(
        head=ProcessId(plain["head"]["pid"], plain["head"]["started"]),
        ray_directory=Path(plain["ray_directory"]),
        ray_address=plain["ray_address"],
        addresses={NodeId(node): address for node, address in plain["addresses"].items()},
    )
