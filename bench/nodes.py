"""Three nodes of ours as plain processes, for benchmarks: one region, one group, one keyspace.

The group's voters are three full ones, or two and a witness, which keeps the log but not the state.

    with tempfile.TemporaryDirectory() as scratch, asyncio.Runner() as runner:
        with running_nodes(Path(scratch), runner) as nodes:
            print(nodes.addresses)

Whoever runs them stops them: on the way out each process that was started is ended, killed if it takes too long.
"""

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from etcd_cluster import STOP_S_MAX, wait_until

from isochrone.errors import DeadlineExceeded, Unavailable
from isochrone.wire.admin_grpc import AdminClient

PROGRAM = Path(sys.executable).with_name("isochrone")
ZONES = ("bench-a", "bench-b", "bench-c")
SPARE_ZONE = "bench-d"
REGION = "us-east-1"
GROUP = "us-east-1.zone"
PREFIX = b"bench/"
TOPOLOGY = """
name: bench
latencies: aws
regions:
  - {{name: {region}, zones: [{zones}]}}
keyspaces:
  - {{prefix: {prefix}, home: {region}, survive: zone, witness: {witness}}}
clock: {{source: bound, bound_ms: 5}}
"""
READY_S_MAX = 120.0


class Nodes:
    """The processes. They are stopped by `stop`, and may be started again."""

    def __init__(self, directory: Path, *, spare: bool = False, witness: bool = False) -> None:
        """Bootstrap in an empty directory; nothing runs yet.

        `spare`: with a fourth node, which has no replica. `witness`: the third voter is one.
        """
        zones = (*ZONES, SPARE_ZONE) if spare else ZONES
        text = TOPOLOGY.format(
            region=REGION, zones=", ".join(zones), prefix=PREFIX.decode(), witness=str(witness).lower()
        )
        self._witness = f"{ZONES[-1]}-1" if witness else None
        (directory / "topology.yaml").write_text(text)
        self._directory = directory
        self.root = directory / "cluster"
        """Of the cluster, for the commands of operators."""
        self.run("bootstrap", "topology.yaml", "--out", str(self.root))
        self._configs = {name: self.root / "nodes" / f"{name}.json" for name in (f"{zone}-1" for zone in zones)}
        plain = {name: json.loads(config.read_text()) for name, config in self._configs.items()}
        self.addresses: Mapping[str, str] = {name: str(config["listen"]) for name, config in plain.items()}
        self.etcd_addresses: Mapping[str, str] = plain[f"{ZONES[0]}-1"]["etcd_addresses"]
        self.stores: Mapping[str, Path] = {name: Path(config["data_directory"]) for name, config in plain.items()}
        """The directory of each node's store."""
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def run(self, *arguments: str) -> None:
        """Run a command of the command line, and wait for it."""
        done = subprocess.run(
            [str(PROGRAM), *arguments], cwd=self._directory, check=False, capture_output=True, text=True, timeout=60
        )
        if done.returncode:
            raise RuntimeError(f"isochrone {' '.join(arguments)}: {done.stderr.strip()}")

    def start(self) -> None:
        """Start all of them."""
        for name, config in self._configs.items():
            with (self._directory / f"{name}.log").open("ab") as log:
                command = [str(PROGRAM), "node", "--config", str(config)]
                self.processes[name] = subprocess.Popen(command, cwd=self._directory, stdout=log, stderr=log)

    def wait(self, runner: asyncio.Runner) -> str:
        """Wait until every node with a replica names the same leader; returns it."""
        found: list[str] = []

        def led() -> bool:
            for name, process in self.processes.items():
                if process.poll() is not None:
                    text = (self._directory / f"{name}.log").read_text(errors="replace").strip()
                    raise RuntimeError(f"{name} ended with status {process.returncode}: {text[-2000:]}")
            leader = runner.run(_leader([self.addresses[f"{zone}-1"] for zone in ZONES]))
            found.extend([leader] if leader else [])
            return leader is not None

        wait_until(led, READY_S_MAX, "every node knows the leader")
        return found[-1]

    def pids(self, leader: str) -> Mapping[str, int]:
        """By name, the leader's and the witness's by these words."""
        words = {self._witness: "witness", leader: "leader"}
        return {words.get(name, name): process.pid for name, process in self.processes.items()}

    def stop(self) -> None:
        """End all of them; those that do not end in time are killed."""
        for process in self.processes.values():
            process.terminate()
        for process in self.processes.values():
            try:
                process.wait(STOP_S_MAX)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.processes.clear()


@contextmanager
def running_nodes(
    directory: Path, runner: asyncio.Runner, *, spare: bool = False, witness: bool = False
) -> Iterator[tuple[Nodes, str]]:
    """Bootstrap and run the nodes; with them the name of the leader."""
    nodes = Nodes(directory, spare=spare, witness=witness)
    try:
        nodes.start()
        yield nodes, nodes.wait(runner)
    finally:
        nodes.stop()


async def _leader(addresses: Sequence[str]) -> str | None:
    """The node that all say leads; None while they differ or one does not answer."""

    async def ask(address: str) -> str | None:
        try:
            async with AdminClient(address) as admin:
                return (await admin.status(2.0)).groups[0].leader
        except (Unavailable, DeadlineExceeded):
            return None

    told = set(await asyncio.gather(*map(ask, addresses)))
    return told.pop() if len(told) == 1 else None
