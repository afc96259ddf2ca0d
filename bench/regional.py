"""This service and a three-member etcd in turn, on one machine, under the same loads; prints a table with ratios.

etcd is driven by h2load with prepared requests (locks and watches by a small HTTP/2 client), ours by the SDK in
this process, and then by the same clients as etcd at its endpoint of etcd's API. Ours is a region's group of three
full voters and, for writes, also one of two full voters and a witness. All write synced to the same directory, with
the same keys and values. Beside each figure stands the CPU time per operation, since on few cores the clients and
servers take it from each other. What a unary call costs servers that do nothing, grpc.aio and our own, is taken in the
same run. Below the table: every target, met or not.

This process looks for cycles of garbage as seldom as a node does: h2load, which it is compared with, has no collector.

    .venv/bin/python bench/regional.py [--seconds 3] [--only writes] [--check-perf l] [--output FILE.json]

Where etcd or h2load is missing it says how to install them and measures what it can of ours alone. Whatever it started
is stopped in the end. Look at ratios rather than at single figures, and at none taken while other programs were busy:
the load average is printed at both ends.
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
from check_perf import SECONDS as CHECK_PERF_S
from check_perf import CheckFailed, check_perf
from etcd_cluster import NotInstalled, require
from figures import Load, table
from h2load import WARM_UP_S, FailedLoad
from sides import (
    ETCD,
    IN_FLIGHT,
    KEY,
    SDK,
    SDK_WITNESS,
    VALUE,
    WITNESS_MEASURES,
    Side,
    Sides,
    etcd_sides,
    isochrone_sides,
    witness_sides,
)
from targets import CEILING, SERVERS, Judgement, Results, judge

from isochrone.drills.report.report_os import describe_surroundings
from isochrone.node.interpreter_os import tune_interpreter
from isochrone.wire.etcd.generated import rpc_pb2

SECONDS_MAX = 60
START_S = 20
"""About so long it takes to start and stop each system."""
NOTES = f"""\
'{SDK}': the leader and both followers keep log and state. '{SDK_WITNESS}': the third voter is a witness, which
keeps the log but not the state. In both a write is answered when a majority of the three logs has synced it.\
"""
HEADER = ("measure", "side", "in flight", "per s", "p50 ms", "p99 ms", "CPU us per operation", "ratio")

OpenSides = Callable[[Path, int, asyncio.Runner], AbstractContextManager[Sides]]
Checked = dict[str, Mapping[str, float]]
"""What `etcdctl check perf` said, by side."""


def say(text: str, end: str = "\n") -> None:
    """Tell how far it is, beside the figures."""
    print(text, end=end, file=sys.stderr, flush=True)


def measure(side: Side, wanted: Sequence[str]) -> dict[str, list[Load]]:
    """Take every point of the measures that the side has."""
    found: dict[str, list[Load]] = {}
    for name in wanted:
        for in_flight in IN_FLIGHT[name] if name in side.measures else ():
            say(f"{side.name}: {name}, {in_flight} in flight: ", end="")
            load = side.measures[name](in_flight)
            found.setdefault(name, []).append(load)
            say(f"{load.per_s:,.0f}/s, p50 {load.p50_ms:.2f} ms")
    return found


def rows(results: Results, wanted: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """The lines of the table: every point of every measure, and the ratios of ours to etcd's."""
    for name in wanted:
        etcd = {load.in_flight: load for load in results.get(ETCD, {}).get(name, [])}
        for side, found in results.items():
            for load in found.get(name, []):
                yield (name, *_cells(side, load), _ratio(load, etcd.get(load.in_flight) if side != ETCD else None))
        for side, found in results.items():
            if side != ETCD and etcd and name in found:
                best, theirs = (max(loads, key=lambda load: load.per_s) for loads in (found[name], etcd.values()))
                yield (f"{name}, best to best", side, *[""] * 5, _ratio(best, theirs))


def _cells(side: str, load: Load) -> tuple[str, ...]:
    cpu = ", ".join(f"{name} {us:.0f}" for name, us in load.cpu_us.items())
    return (side, str(load.in_flight), f"{load.per_s:,.0f}", f"{load.p50_ms:.2f}", f"{load.p99_ms:.2f}", cpu)


def _ratio(ours: Load, theirs: Load | None) -> str:
    return "" if theirs is None or not theirs.per_s else f"{ours.per_s / theirs.per_s:.2f}"


def verdicts(judgements: Sequence[Judgement]) -> Iterator[tuple[str, ...]]:
    """The lines of the second table."""
    for each in judgements:
        yield (each.what, f"{each.ratio:.2f}", f"{each.at_least:g}", "met" if each.met else "NOT MET")


def ceilings(seconds: int) -> dict[str, dict[str, list[Load]]]:
    """Servers that do nothing, with a write's bytes."""
    request = rpc_pb2.PutRequest(key=KEY, value=VALUE).SerializeToString()
    found: dict[str, dict[str, list[Load]]] = {}
    for server, described in SERVERS.items():
        say(f"echo of {described}, {', '.join(map(str, echo.IN_FLIGHT))} in flight: ", end="")
        loads = echo.ceiling(server, request, echo.IN_FLIGHT, seconds)
        found[server] = {CEILING: loads}
        say(", ".join(f"{load.per_s:,.0f}/s" for load in loads))
    return found


def measure_all(
    directory: Path | None, seconds: int, wanted: Sequence[str], check: str | None
) -> tuple[Results, Checked]:
    """All sides in turn, and the ceilings; what cannot run here is left out and named."""
    results: dict[str, dict[str, list[Load]]] = {}
    checked: Checked = {}
    systems: dict[str, OpenSides] = {ETCD: etcd_sides, "three nodes": isochrone_sides}
    if any(name in WITNESS_MEASURES for name in wanted):
        systems["three nodes, one a witness"] = witness_sides
    with asyncio.Runner() as runner:  # one for all: grpc.aio complains of a process that opens loop after loop
        for system, open_sides in systems.items():
            say(f"starting {system}")
            with tempfile.TemporaryDirectory(prefix="bench-", dir=directory) as scratch:
                try:
                    with open_sides(Path(scratch), seconds, runner) as sides:
                        for side in sides:
                            results[side.name] = measure(side, wanted)
                            if check and side.etcd_address:
                                checked |= check_side(side, check)
                except NotInstalled as missing:
                    say(f"{system}: cannot be measured in full: {missing}")
    try:
        require("h2load")
        results |= ceilings(seconds)
    except NotInstalled as missing:
        say(f"the ceilings are left out: {missing}")
    return results, checked


def check_side(side: Side, load: str) -> Checked:
    """What `etcdctl check perf` says of a side; nothing if it fails."""
    say(f"{side.name}: etcdctl check perf, a minute")
    try:
        return {side.name: check_perf(side.etcd_address, load)}
    except CheckFailed as failed:
        say(f"{side.name}: {failed}")
        return {}


def write_json(path: Path, results: Results, checked: Checked, started: datetime) -> None:
    """Everything that was measured, with machine and versions."""
    plain = {
        side: {name: [asdict(load) | {"per_s": load.per_s} for load in loads] for name, loads in found.items()}
        for side, found in results.items()
    }
    targets = [asdict(each) | {"met": each.met} for each in judge(results)]
    around = asdict(describe_surroundings(started))
    document = {"surroundings": around, "results": plain, "targets": targets, "etcdctl check perf": checked}
    path.write_text(json.dumps(document, indent=2) + "\n")


def parse_arguments() -> argparse.Namespace:
    """What to measure, and for how long."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=3, help="of each point, after a second of warming up")
    parser.add_argument("--only", action="append", choices=IN_FLIGHT, help="a measure to take; all unless given")
    parser.add_argument("--check-perf", choices=("s", "m", "l"), help="run etcdctl check perf as well (a minute each)")
    parser.add_argument("--directory", type=Path, help="where all keep their data; a temporary directory unless given")
    parser.add_argument("--output", type=Path, help="write the figures as JSON")
    arguments = parser.parse_args()
    if not 0 < arguments.seconds <= SECONDS_MAX:
        parser.error(f"--seconds: allowed: 1 to {SECONDS_MAX}")
    return arguments


def main() -> int:
    """Measure, print the tables, write the JSON."""
    arguments = parse_arguments()
    wanted = arguments.only or list(IN_FLIGHT)
    started, load_before = datetime.now(UTC), os.getloadavg()[0]
    points = sum(len(IN_FLIGHT[name]) * (3 + (name in WITNESS_MEASURES)) for name in wanted)
    points += len(SERVERS) * len(echo.IN_FLIGHT)
    about_s = points * (arguments.seconds + WARM_UP_S) + 3 * START_S + 2 * CHECK_PERF_S * bool(arguments.check_perf)
    tune_interpreter()
    say(f"{points} points of {arguments.seconds} s: about {about_s / 60:.0f} minutes")
    try:
        results, checked = measure_all(arguments.directory, arguments.seconds, wanted, arguments.check_perf)
    except FailedLoad as failed:
        print(f"no figures: {failed}", file=sys.stderr)
        return 1
    print(table(HEADER, rows(results, [*wanted, CEILING])) + f"\n\n{NOTES}")
    for side, told in checked.items():
        print(f"etcdctl check perf, {side}:", ", ".join(f"{name} {figure:g}" for name, figure in told.items()))
    if judgements := judge(results):
        print("\n" + table(("target", "ratio", "at least", ""), verdicts(judgements)) + "\n")
    print(
        f"load average {load_before:.2f} before, {os.getloadavg()[0]:.2f} after; {arguments.seconds} s for each point"
    )
    if arguments.output:
        write_json(arguments.output, results, checked, started)
    return 0


if __name__ == "__main__":
    sys.exit(main())
