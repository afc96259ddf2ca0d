"""A cluster of plain processes: `isochrone node`, on a directory of `isochrone bootstrap`."""

import json
import subprocess
import sys
from pathlib import Path

from small_topology import status_of

RUN = """
import atexit, sys
atexit.register(lambda: print("ray" in sys.modules))
from isochrone.ops.cli.main import main
main()
"""


class Cluster:
    """A bootstrapped directory and the processes started from it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.running: list[subprocess.Popen[str]] = []
        self.by_node: dict[str, subprocess.Popen[str]] = {}

    def config_file(self, node: str) -> Path:
        return self.root / "nodes" / f"{node}.json"

    def address(self, node: str) -> str:
        return str(json.loads(self.config_file(node).read_text(encoding="utf-8"))["listen"])

    def etcd_address(self, node: str) -> str:
        """Where a node speaks etcd's API."""
        return str(json.loads(self.config_file(node).read_text(encoding="utf-8"))["etcd_addresses"][node])

    def start(self, node: str, *options: str) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [sys.executable, "-c", RUN, "node", "--config", str(self.config_file(node)), *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.root,
        )
        self.running.append(process)
        self.by_node[node] = process
        return process

    def kill(self, node: str) -> None:
        """SIGKILL; returns when the process is gone."""
        process = self.by_node.pop(node)
        self.running.remove(process)
        process.kill()
        process.communicate()

    def leader(self, *nodes: str) -> str | None:
        statuses = [status_of(self.address(node)) for node in nodes]
        leaders = {status.groups[0].leader if status else None for status in statuses}
        return leaders.pop() if len(leaders) == 1 else None

    def fails(self, node: str) -> str:
        """Start a node that must not start; returns what it says."""
        output, errors = self.start(node).communicate(timeout=60)
        assert self.running.pop().returncode == 1
        assert output == "False\n"
        assert "Traceback" not in errors
        return errors.strip().splitlines()[-1]

    def end(self) -> None:
        for process in self.running:
            process.kill()
            process.communicate()
