"""What a million keys of 100 bytes cost three nodes: memory, disk, the time to start again, and that of a snapshot.

    .venv/bin/python bench/million_keys.py [--keys 1000000] [--output FILE.json]

Keys of 20 bytes with values of 100 are written through the SDK, in transactions. Then all nodes are stopped and started
again: `restart` lasts from the start of the processes to the answer to a linearizable read. Last, a fourth node joins
the group, whose state it gets as a snapshot: `snapshot` lasts from the command to the moment at which it has applied
what the leader had. The exit status is 1 if the restart took longer than `RESTART_S_MAX`.
"""

import argparse
import asyncio
import itertools
import json
import os
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import psutil
from etcd_cluster import wait_until
from figures import table
from nodes import GROUP, PREFIX, REGION, SPARE_ZONE, Nodes, running_nodes

from isochrone.client import Client
from isochrone.drills.report.report_os import describe_surroundings
from isochrone.wire.admin_grpc import AdminClient
from isochrone.wire.kv import Put

VALUE_BYTES = 100
KEYS_OF_TXN = 100
TXNS_UNDER_WAY = 32
PROGRESS_S = 2.0
RESTART_S_MAX = 30.0
SNAPSHOT_S_MAX = 300.0
SPARE = f"{SPARE_ZONE}-1"


@dataclass(frozen=True, slots=True)
class Figures:
    """What was measured."""

    keys: int
    load_s: float
    memory_bytes_max: int
    """Resident memory of the largest node once all is written."""
    memory_bytes_after_restart_max: int
    store_bytes_max: int
    """What the largest store occupies on disk."""
    restart_s: float
    restart_cpu_s_max: float
    """Processor time that the busiest node had taken by then."""
    snapshot_s: float


def key_of(number: int) -> bytes:
    """Keys are 20 bytes long and in no order of writing."""
    return PREFIX + b"%014x" % (number * 0x9E3779B97F4A7C15 % (1 << 56))


async def load_keys(nodes: Nodes, keys: int) -> float:
    """Write them; returns how long it took."""
    began, done, told_at = time.perf_counter(), 0, 0.0
    batches = itertools.count(0, KEYS_OF_TXN)
    async with await Client.connect(list(nodes.addresses.values()), region=REGION, timeout_s=60.0) as client:

        async def writer() -> None:
            nonlocal done, told_at
            while (first := next(batches)) < keys:
                numbers = range(first, min(first + KEYS_OF_TXN, keys))
                puts = [Put(key_of(number), number.to_bytes(8, "big") + bytes(VALUE_BYTES - 8)) for number in numbers]
                await client.kv.txn([], puts)
                done += len(puts)
                elapsed_s = time.perf_counter() - began
                if elapsed_s - told_at > PROGRESS_S:
                    told_at = elapsed_s
                    say(f"{done:,} of {keys:,} keys, {done / elapsed_s:,.0f}/s")

        await asyncio.gather(*(writer() for _ in range(TXNS_UNDER_WAY)))
    return time.perf_counter() - began


async def check_keys(nodes: Nodes, keys: int) -> None:
    """Read linearizably that all are there. Raises `RuntimeError` if they are not."""
    async with await Client.connect(list(nodes.addresses.values()), region=REGION, timeout_s=RESTART_S_MAX) as client:
        found = await client.kv.range(PREFIX, prefix=True, count_only=True, timeout_s=SNAPSHOT_S_MAX)
    if found.count != keys:
        raise RuntimeError(f"{found.count} keys are there, {keys} were written")


def restart(nodes: Nodes, runner: asyncio.Runner, keys: int) -> float:
    """Stop all and start them again; returns the seconds from the start to the answer to a read."""
    nodes.stop()
    began = time.perf_counter()
    nodes.start()
    nodes.wait(runner)
    runner.run(check_keys(nodes, keys))
    return time.perf_counter() - began


def snapshot(nodes: Nodes, runner: asyncio.Runner, leader: str) -> float:
    """Let the spare node join; returns the seconds until it has applied what the leader had."""
    applied = runner.run(applied_index(nodes.addresses[leader]))
    began = time.perf_counter()
    nodes.run("member", "add", GROUP, SPARE, "--dir", str(nodes.root))
    address = nodes.addresses[SPARE]
    wait_until(lambda: runner.run(applied_index(address)) >= applied, SNAPSHOT_S_MAX, f"{SPARE} has caught up")
    return time.perf_counter() - began


async def applied_index(address: str) -> int:
    """Up to which entry a node has applied; 0 while it has no replica."""
    async with AdminClient(address) as admin:
        groups = (await admin.status(10.0)).groups
    return groups[0].applied if groups else 0


def memory_bytes(nodes: Nodes) -> int:
    """Resident memory of the largest node."""
    return max(int(psutil.Process(process.pid).memory_info().rss) for process in nodes.processes.values())


def cpu_s_max(nodes: Nodes) -> float:
    """Processor time of the node that has taken most."""
    times = [psutil.Process(process.pid).cpu_times() for process in nodes.processes.values()]
    return max(float(each.user + each.system) for each in times)


def store_bytes(nodes: Nodes) -> int:
    """What the largest store occupies on disk."""
    files = {name: [file.stat() for file in store.rglob("*") if file.is_file()] for name, store in nodes.stores.items()}
    return max(sum(stat.st_blocks * 512 for stat in stats) for stats in files.values())


def say(text: str) -> None:
    """Tell how far it is, beside the figures."""
    print(text, file=sys.stderr, flush=True)


def measure(directory: Path, keys: int) -> Figures:
    """Do everything in turn; whatever was started is stopped in the end."""
    with asyncio.Runner() as runner, running_nodes(directory, runner, spare=True) as (nodes, _):
        load_s = runner.run(load_keys(nodes, keys))
        memory, store = memory_bytes(nodes), store_bytes(nodes)
        say("stopping all nodes and starting them again")
        restart_s = restart(nodes, runner, keys)
        memory_after, cpu_s = memory_bytes(nodes), cpu_s_max(nodes)
        say(f"started again in {restart_s:.1f} s; {SPARE} joins by a snapshot")
        snapshot_s = snapshot(nodes, runner, nodes.wait(runner))
    return Figures(keys, load_s, memory, memory_after, store, restart_s, cpu_s, snapshot_s)


def rows(figures: Figures) -> list[tuple[str, str]]:
    """The lines of the table."""
    mib = 1 << 20
    return [
        ("keys", f"{figures.keys:,}"),
        ("written in", f"{figures.load_s:.1f} s"),
        ("memory of a node, at most", f"{figures.memory_bytes_max / mib:,.0f} MiB"),
        ("memory of a node after the restart, at most", f"{figures.memory_bytes_after_restart_max / mib:,.0f} MiB"),
        ("store on disk, at most", f"{figures.store_bytes_max / mib:,.0f} MiB"),
        (f"restart of all nodes (at most {RESTART_S_MAX:g} s)", f"{figures.restart_s:.1f} s"),
        ("processor time of a node by then, at most", f"{figures.restart_cpu_s_max:.1f} s"),
        ("snapshot to a fourth node", f"{figures.snapshot_s:.1f} s"),
    ]


def main() -> int:
    """Measure, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keys", type=int, default=1_000_000)
    parser.add_argument("--directory", type=Path, help="where the nodes keep their data; a temporary one unless given")
    parser.add_argument("--output", type=Path, help="write the figures as JSON")
    arguments = parser.parse_args()
    if not 0 < arguments.keys <= 10_000_000:
        parser.error("--keys: allowed: 1 to 10000000")
    started, load_before = datetime.now(UTC), os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="bench-", dir=arguments.directory) as scratch:
        figures = measure(Path(scratch), arguments.keys)
    print(table(("what", "figure"), rows(figures)))
    print(f"load average {load_before:.2f} before, {os.getloadavg()[0]:.2f} after")
    if arguments.output:
        document = {"surroundings": asdict(describe_surroundings(started)), "figures": asdict(figures)}
        arguments.output.write_text(json.dumps(document, indent=2) + "\n")
    return 0 if figures.restart_s <= RESTART_S_MAX else 1


if __name__ == "__main__":
    sys.exit(main())
