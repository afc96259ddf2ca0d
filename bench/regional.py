"""This service and a three-member etcd in turn, on one machine, under the same loads; prints a table with ratios.

etcd is driven by h2load with prepared requests (locks and watches by a small HTTP/2 client), ours by the SDK in
this process. Both write synced to the same directory, with the same keys and values. Beside each figure stands the CPU
time per operation, since on few cores the clients and servers take it from each other. What a unary call costs servers
that do nothing, grpc.aio and our own, is taken in the same run.

    .venv/bin/python bench/regional.py [--seconds 5] [--only writes] [--check-perf l] [--output FILE.json]

Where etcd or h2load is missing it says how to install them and measures ours alone. Look at ratios rather than at
single figures, and at none taken while other programs were busy: the load average is printed at both ends.
"""

import argparse
import asyncio
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import echo
from etcd_cluster import EtcdCluster, NotInstalled, require
from figures import Load, table
from h2load import FailedLoad
from sides import IN_FLIGHT, KEY, VALUE, Side, check_perf, etcd_side, isochrone_side

from isochrone.drills.report.report_os import describe_surroundings
from isochrone.wire.etcd.generated import rpc_pb2

CEILING = "unary echo ceiling"
SERVERS = ("aio", "http2")
"""Whose ceilings are taken, by the names of `bench/echo.py`."""
SECONDS_MAX = 60
HEADER = ("measure", "side", "in flight", "per s", "p50 ms", "p99 ms", "CPU us per operation", "ratio")

OpenSide = Callable[[Path, int, asyncio.Runner], AbstractContextManager[Side]]
Results = dict[str, dict[str, list[Load]]]
"""By side, by measure: its points."""


def measure(side: Side, wanted: Sequence[str]) -> dict[str, list[Load]]:
    """Take every point of the measures that the side has."""
    found: dict[str, list[Load]] = {}
    for name in wanted:
        for in_flight in IN_FLIGHT[name] if name in side.measures else ():
            load = side.measures[name](in_flight)
            found.setdefault(name, []).append(load)
            print(f"{side.name}: {name}, {in_flight} in flight: {load.per_s:,.0f}/s", file=sys.stderr, flush=True)
    return found


def rows(results: Results, wanted: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """The lines of the table: every point of every measure, and the ratio of ours to etcd's."""
    for name in wanted:
        etcd = {load.in_flight: load for load in results.get("etcd", {}).get(name, [])}
        for side, found in results.items():
            for load in found.get(name, []):
                peer = etcd.get(load.in_flight) if side != "etcd" else None
                yield (name, *_cells(side, load), _ratio(load, peer))
        ours = results.get("isochrone", {}).get(name, [])
        if etcd and ours:
            best, best_of_ours = (max(loads, key=lambda load: load.per_s) for loads in (etcd.values(), ours))
            yield (f"{name}, best to best", *[""] * 6, _ratio(best_of_ours, best))


def ceiling(server: str, seconds: int) -> list[Load]:
    """A server that does nothing, with a write's bytes."""
    request = rpc_pb2.PutRequest(key=KEY, value=VALUE).SerializeToString()
    return echo.ceiling(server, request, echo.IN_FLIGHT, seconds)


def _cells(side: str, load: Load) -> tuple[str, ...]:
    cpu = ", ".join(f"{name} {us:.0f}" for name, us in load.cpu_us.items())
    return (side, str(load.in_flight), f"{load.per_s:,.0f}", f"{load.p50_ms:.2f}", f"{load.p99_ms:.2f}", cpu)


def _ratio(ours: Load, theirs: Load | None) -> str:
    return "" if theirs is None or not theirs.per_s else f"{ours.per_s / theirs.per_s:.2f}"


def measure_all(directory: Path | None, seconds: int, wanted: Sequence[str]) -> Results:
    """Both sides in turn, and the ceiling; what cannot run here is left out and named."""
    results: Results = {}
    sides: tuple[OpenSide, ...] = (etcd_side, isochrone_side)
    with asyncio.Runner() as runner:  # one for all: grpc.aio complains of a process that opens loop after loop
        for open_side in sides:
            with tempfile.TemporaryDirectory(prefix="bench-", dir=directory) as scratch:
                try:
                    with open_side(Path(scratch), seconds, runner) as side:
                        results[side.name] = measure(side, wanted)
                except NotInstalled as missing:
                    print(f"etcd is left out: {missing}", file=sys.stderr)
    try:
        require("h2load")
    except NotInstalled as missing:
        print(f"the ceiling is left out: {missing}", file=sys.stderr)
    else:
        results |= {name: {CEILING: ceiling(name, seconds)} for name in SERVERS}
    return results


def write_json(path: Path, results: Results, checked: Mapping[str, float], started: datetime) -> None:
    """Everything that was measured, with machine and versions."""
    plain = {
        side: {name: [asdict(load) | {"per_s": load.per_s} for load in loads] for name, loads in found.items()}
        for side, found in results.items()
    }
    around = asdict(describe_surroundings(started))
    document = {"surroundings": around, "results": plain, "etcdctl check perf": dict(checked)}
    path.write_text(json.dumps(document, indent=2) + "\n")


def main() -> int:
    """Measure, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=5, help="of each point, after a second of warming up")
    parser.add_argument("--only", action="append", choices=IN_FLIGHT, help="a measure to take; all unless given")
    parser.add_argument("--check-perf", choices=("s", "m", "l"), help="run etcdctl check perf as well (a minute)")
    parser.add_argument("--directory", type=Path, help="where both keep their data; a temporary directory unless given")
    parser.add_argument("--output", type=Path, help="write the figures as JSON")
    arguments = parser.parse_args()
    if not 0 < arguments.seconds <= SECONDS_MAX:
        parser.error(f"--seconds: allowed: 1 to {SECONDS_MAX}")
    wanted = arguments.only or list(IN_FLIGHT)
    started, load_before = datetime.now(UTC), os.getloadavg()[0]
    checked: Mapping[str, float] = {}
    try:
        results = measure_all(arguments.directory, arguments.seconds, wanted)
        if arguments.check_perf and "etcd" in results:
            with tempfile.TemporaryDirectory(dir=arguments.directory) as scratch, EtcdCluster(Path(scratch)) as etcd:
                checked = check_perf(etcd.leader.address, arguments.check_perf)
    except FailedLoad as failed:
        print(f"no figures: {failed}", file=sys.stderr)
        return 1
    print(table(HEADER, rows(results, [*wanted, CEILING])))
    if checked:
        print("etcdctl check perf against etcd:", ", ".join(f"{name} {figure:g}" for name, figure in checked.items()))
    print(
        f"load average {load_before:.2f} before, {os.getloadavg()[0]:.2f} after; {arguments.seconds} s for each point"
    )
    if arguments.output:
        write_json(arguments.output, results, checked, started)
    return 0


if __name__ == "__main__":
    sys.exit(main())
