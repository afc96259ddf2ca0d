"""How long are writes out when a region is lost? Many losses in one running deployment.

Each round: load from all regions on one keyspace; kill the region that leads it (links cut first); measure; bring the
region back; wait until every replica matches. At the end every acknowledged write is read back. Prints a table and
writes the figures as JSON.

Example: .venv/bin/python bench/region_loss.py --losses 20 --output region_loss.json
"""

import argparse
import asyncio
import json
import random
import statistics
import sys
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from isochrone.drills.checkers.durability import DurabilityResult, check_durability
from isochrone.drills.convergence import leader_of
from isochrone.drills.faults import unshaped_links
from isochrone.drills.generator import Generator, KeyRing, Plan
from isochrone.drills.harness_os import LocalHarness
from isochrone.drills.history import OperationKind, Outcome
from isochrone.drills.injector import FaultInjector
from isochrone.drills.measure import failed_writes, recovery_time_s
from isochrone.drills.record import FaultRun
from isochrone.drills.report.report_os import describe_surroundings
from isochrone.drills.runner import FINAL_READ_TIMEOUT_S, loop_now_ns, wait_until_matching
from isochrone.drills.schema import ClientSection, FaultSection, KeysSection, MixSection, WorkloadSection
from isochrone.drills.workload import KeyValueClient, Recorder, run_clients, run_together
from isochrone.ids import NodeId, RegionId
from isochrone.topology import Topology, load_topology

TOPOLOGY = Path(__file__).parents[1] / "deploy/topologies/three-regions.yaml"
RATE_PER_S = 25.0
TIMEOUT_S = 4.0
BEFORE_S, LOST_S = 1.5, 7.0
"""Load before each loss, and how long the region stays lost."""


@dataclass(frozen=True, slots=True)
class Round:
    """One loss."""

    region: str
    recovery_s: float | None
    failed: int
    """Writes from outside the lost region that failed."""
    election_timeouts: float | None
    heal_s: float
    new_leader: NodeId | None


async def run_round(
    keyspace: str,
    injector: FaultInjector,
    clients: list[tuple[KeyValueClient, Generator]],
    recorder: Recorder,
) -> Round:
    """Lose the leading region once."""
    loop = asyncio.get_running_loop()
    topology = injector.deployment.topology
    group = topology.group(next(each.group for each in topology.keyspaces if each.id == keyspace))
    fault = FaultSection.model_validate({"kill-region": {"leader-of": keyspace}, "start_s": 0.0, "end_s": LOST_S})
    runs: list[FaultRun] = []

    async def lose() -> None:
        await asyncio.sleep(BEFORE_S)
        run = await injector.start(fault)
        runs.append(run)
        await asyncio.sleep(LOST_S)
        await injector.end(run)

    start_s = loop.time()
    await run_together([run_clients(clients, recorder, start_s + BEFORE_S + LOST_S, TIMEOUT_S), lose()])
    ended_s = loop.time()
    new_leader = leader_of(await injector.deployment.status(), group.id)
    await wait_until_matching(injector.deployment, lambda line: None)
    recovery_s = recovery_time_s(recorder.operations, keyspace, runs[0])
    timeouts = None if recovery_s is None else recovery_s * 1e3 / (1.5 * group.election_timeout_ms)
    failed = failed_writes(recorder.operations, keyspace, runs[0])
    return Round(str(runs[0].fault.region), recovery_s, failed, timeouts, loop.time() - ended_s, new_leader)


async def read_back(recorder: Recorder, client: KeyValueClient, region: str) -> DurabilityResult:
    """Read every key that was written, and compare."""
    left = iter([item for item in recorder.operations if item.outcome is not Outcome.FAIL])

    async def read_on() -> None:
        for item in left:
            plan = Plan(OperationKind.GET, item.keyspace, item.key)
            await recorder.perform(client, region, plan, FINAL_READ_TIMEOUT_S, final=True)

    await run_together([read_on() for _ in range(64)])
    return check_durability(recorder.operations)


async def bench(topology_file: Path, keyspace: str, losses: int, seed: int, directory: Path) -> dict[str, object]:
    """Bring a deployment up, lose regions, and sum up."""
    topology = load_topology(topology_file)
    harness = LocalHarness(topology_file, directory, seed)
    deployment = await harness.bring_up(print)
    try:
        injector = FaultInjector(deployment, harness.set_links, loop_now_ns, lambda line: None, [])
        await injector.set_links(unshaped_links(topology))
        workload = insert_workload(topology, keyspace)
        ring = KeyRing(KeysSection())
        clients: list[tuple[KeyValueClient, Generator]] = []
        for section in workload.clients:
            rng = random.Random(f"{seed}/{section.region}")
            zone = topology.region(RegionId(section.region)).zones[0]
            client: KeyValueClient = await harness.connect(deployment, RegionId(section.region), zone)
            clients.append((client, Generator(section.region, section.rate_per_s, workload, ring, rng)))
        await injector.set_links(topology.links())
        recorder = Recorder(loop_now_ns)
        rounds: list[Round] = []
        print("round  lost region      writes again timeouts failed match after  new leader")
        for number in range(1, losses + 1):
            rounds.append(await run_round(keyspace, injector, clients, recorder))
            print_round(number, rounds[-1])
        durability = await read_back(recorder, clients[0][0], workload.clients[0].region)
        await asyncio.gather(*(connected.close() for connected, _ in clients))
        return summary(topology, keyspace, rounds, durability)
    finally:
        await deployment.stop()
        harness.close()


def insert_workload(topology: Topology, keyspace: str) -> WorkloadSection:
    """Inserts into one keyspace, at a fixed rate from every region."""
    return WorkloadSection(
        duration_s=BEFORE_S + LOST_S,
        arrivals="fixed",
        clients=[ClientSection(region=region.id, rate_per_s=RATE_PER_S) for region in topology.regions],
        mix=MixSection(insert=1.0, put=0.0, get=0.0, cas=0.0, delete=0.0),
        keyspaces={keyspace: 1.0},
    )


def print_round(number: int, done: Round) -> None:
    """One line of the table."""
    recovery = "none" if done.recovery_s is None else f"{done.recovery_s * 1e3:,.0f} ms"
    timeouts = "" if done.election_timeouts is None else f"{done.election_timeouts:.2f}"
    figures = f"{recovery:>12} {timeouts:>8} {done.failed:6d} {done.heal_s:9.1f} s"
    print(f"{number:5d}  {done.region:16} {figures}  {done.new_leader}")


def summary(topology: Topology, keyspace: str, rounds: list[Round], durability: DurabilityResult) -> dict[str, object]:
    """The figures over all rounds. A loss without recovery is counted, and is not in the percentiles.

    An election timeout is the longest one that a replica may draw: 1.5 T of the topology.
    """
    group = topology.group(next(each.group for each in topology.keyspaces if each.id == keyspace))
    known = sorted(done.recovery_s * 1e3 for done in rounds if done.recovery_s is not None)
    timeout_ms = 1.5 * group.election_timeout_ms
    return {
        "topology": topology.name,
        "keyspace": keyspace,
        "losses": len(rounds),
        "losses_without_recovery": len(rounds) - len(known),
        "recovery_ms": [None if done.recovery_s is None else round(done.recovery_s * 1e3, 1) for done in rounds],
        "failed_writes": [done.failed for done in rounds],
        "lost_regions": [done.region for done in rounds],
        "p50_ms": round(statistics.median(known), 1) if known else None,
        "worst_ms": round(known[-1], 1) if known else None,
        "election_timeout_ms": timeout_ms,
        "p50_election_timeouts": round(statistics.median(known) / timeout_ms, 2) if known else None,
        "worst_election_timeouts": round(known[-1] / timeout_ms, 2) if known else None,
        "acknowledged_writes": durability.acknowledged,
        "acknowledged_writes_lost": len(durability.lost),
        "acknowledged_writes_unread": len(durability.unread),
    }


def main() -> None:
    """Parse the arguments, run, print and write. Exits with 1 if an acknowledged write is lost or not read."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--topology", type=Path, default=TOPOLOGY)
    parser.add_argument("--keyspace", default="global/", help="a keyspace with survival goal region")
    parser.add_argument("--losses", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--output", type=Path, default=Path("region_loss.json"))
    arguments = parser.parse_args()
    started_at = datetime.now(UTC)
    output = arguments.output.absolute()  # Ray's driver changes the working directory.
    topology_file = arguments.topology.absolute()
    with tempfile.TemporaryDirectory(prefix="isochrone-bench-") as directory:
        figures = asyncio.run(
            bench(topology_file, arguments.keyspace, arguments.losses, arguments.seed, Path(directory))
        )
    surroundings = describe_surroundings(started_at)
    figures |= {"started_at": surroundings.started_at, "elapsed_s": round(surroundings.elapsed_s, 1)}
    figures |= {"versions": surroundings.versions, "machine": surroundings.machine}
    output.write_text(json.dumps(figures, indent=2) + "\n", "utf-8")
    for name in ("p50", "worst"):
        print(f"{name:6} {figures[f'{name}_ms']} ms = {figures[f'{name}_election_timeouts']} election timeouts")
    print(f"acknowledged writes lost: {figures['acknowledged_writes_lost']} of {figures['acknowledged_writes']}")
    sys.exit(1 if figures["acknowledged_writes_lost"] or figures["acknowledged_writes_unread"] else 0)


if __name__ == "__main__":
    main()
