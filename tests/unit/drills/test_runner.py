"""Whole drills in virtual time, on a deployment that is only bookkeeping: faults, verdicts and endings."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
from fake_deployment import FakeDeployment, FakeHarness
from virtual_time import run_virtual

from isochrone.drills.history import OperationKind, Outcome
from isochrone.drills.record import DrillRecord
from isochrone.drills.results import Results, judge
from isochrone.drills.runner import run_drill
from isochrone.drills.schema import DrillDocument, cross_check
from isochrone.drills.verdict import ExitStatus, Verdict
from isochrone.errors import Unavailable
from isochrone.ids import NodeId
from isochrone.topology import Group, Topology, load_topology

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def topology() -> Topology:
    return load_topology(ROOT / "deploy/topologies/three-regions.yaml")


def drill(faults: list[dict[str, object]], **expect: object) -> DrillDocument:
    return DrillDocument.model_validate(
        {
            "name": "test",
            "topology": "three-regions.yaml",
            "workload": {
                "warm_up_s": 2.0,
                "duration_s": 24.0,
                "timeout_s": 3.0,
                "clients": [
                    {"region": "us-east-1", "rate_per_s": 10.0},
                    {"region": "eu-west-1", "rate_per_s": 10.0},
                    {"region": "ap-northeast-1", "rate_per_s": 10.0},
                ],
                "keyspaces": {"global/": 3.0, "us/": 1.0, "eu/": 1.0},
            },
            "faults": faults,
            "expect": {
                "operations_beside_each_fault_min": 20,
                "contended_operations_min": 20,
                "recovery_within_s": {"global/": 5.0},
                **expect,
            },
        }
    )


KILL_LEADING_REGION = [{"kill-region": {"leader-of": "global/"}, "start_s": 4.0, "end_s": 14.0}]


def run(document: DrillDocument, deployment: FakeDeployment) -> tuple[DrillRecord, Results, FakeHarness]:
    assert cross_check(document, deployment.topology, "test.yaml") == []
    record = DrillRecord(document, deployment.topology, seed=7)
    harness = FakeHarness(deployment)
    run_virtual(run_drill(record, harness, lambda line: None))
    return record, judge(record), harness


def test_a_lost_region_that_comes_back_holds(topology: Topology) -> None:
    deployment = FakeDeployment(topology)
    record, results, harness = run(drill(KILL_LEADING_REGION), deployment)
    assert [check.verdict for check in results.checks] == [Verdict.TRUE] * 6, results.checks
    assert results.exit_status is ExitStatus.HOLDS
    assert results.acknowledged_writes_lost == 0
    assert results.acknowledged_writes > 100
    recovery = results.recovery_time_s["global/"]
    assert recovery is not None and 2.0 < recovery < 3.0
    assert results.recovery_time_s["us/"] is None, "its home is gone until the fault ends"
    assert results.recovery_time_s["eu/"] is not None
    assert record.phase == "done"
    assert deployment.stopped and all(client.closed for client in harness.clients)


def test_links_are_cut_before_the_kill_and_mended_after_the_start(topology: Topology) -> None:
    deployment = FakeDeployment(topology)
    _, _, harness = run(drill(KILL_LEADING_REGION), deployment)
    assert deployment.calls == [
        "links, 0 cut",
        "links, 0 cut",
        "links, 36 cut",
        "kill us-east-1",
        "start us-east-1",
        "links, 0 cut",
    ]
    cut = {link for link, shape in harness.client_links[2].items() if shape.cut}
    assert len(cut) == 36
    assert all((source.startswith("us-east-1")) != (target.startswith("us-east-1")) for source, target in cut)


def test_links_are_afterwards_as_the_topology_says(tmp_path: Path) -> None:
    text = (ROOT / "deploy/topologies/three-regions.yaml").read_text()
    file = tmp_path / "lossy.yaml"
    file.write_text(f"{text}\nlinks:\n  - {{from: us-east-1, to: eu-west-1, jitter_ms: 3, loss: 0.01}}\n")
    lossy = load_topology(file)
    assert any(shape.loss and shape.jitter_ms for shape in lossy.links().values())
    faults: list[dict[str, object]] = [
        *KILL_LEADING_REGION,
        {"cut-link": {"from": "us-east-1", "to": "eu-west-1"}, "start_s": 6.0, "end_s": 16.0},
    ]
    deployment = FakeDeployment(lossy)
    _, _, harness = run(drill(faults), deployment)
    assert deployment.links == lossy.links()
    assert harness.client_links[-1] == lossy.links()
    assert {shape for shape in harness.client_links[2].values() if not shape.cut} <= set(lossy.links().values())


def test_software_term_is_measured_unshaped_and_latencies_match_their_prediction(topology: Topology) -> None:
    record, results, _ = run(drill([]), FakeDeployment(topology))
    assert record.software_ms == pytest.approx({"global/": 3.0, "us/": 3.0, "eu/": 3.0})
    assert len(results.latencies) == 9
    assert all(abs(row.difference_ms) < 0.01 and row.within for row in results.latencies)


def test_acknowledged_write_that_a_new_leader_forgets_is_found(topology: Topology) -> None:
    _, results, _ = run(drill(KILL_LEADING_REGION), FakeDeployment(topology, losing=True))
    assert results.verdict is Verdict.FALSE
    assert results.exit_status is ExitStatus.FAILS
    assert results.acknowledged_writes_lost == 1
    failed = {check.name for check in results.checks if check.verdict is Verdict.FALSE}
    assert failed == {"linearizable", "durable"}


def test_slow_election_breaks_the_recovery_bound(topology: Topology) -> None:
    _, results, _ = run(drill(KILL_LEADING_REGION), FakeDeployment(topology, election_s=7.0))
    assert results.exit_status is ExitStatus.FAILS
    failed = [check for check in results.checks if check.verdict is Verdict.FALSE]
    assert [check.name for check in failed] == ["recovery of global/"]
    assert "allowed are 5 s" in failed[0].reason


def test_recovery_of_a_keyspace_whose_home_is_lost_is_none_and_fails_if_demanded(topology: Topology) -> None:
    document = drill(KILL_LEADING_REGION, recovery_within_s={"us/": 5.0})
    _, results, _ = run(document, FakeDeployment(topology))
    assert results.exit_status is ExitStatus.FAILS
    assert "no write to us/ succeeded again before the fault ended" in results.checks[3].reason


def test_too_few_operations_is_unknown(topology: Topology) -> None:
    document = drill(KILL_LEADING_REGION, operations_beside_each_fault_min=100_000)
    _, results, _ = run(document, FakeDeployment(topology))
    assert results.exit_status is ExitStatus.UNKNOWN


def test_every_fault_is_made_and_undone(topology: Topology) -> None:
    faults: list[dict[str, object]] = [
        {"kill-node": {"leader-of": "us/"}, "start_s": 1.0, "end_s": 3.0},
        {"pause-node": "eu-west-1b-1", "start_s": 4.0, "end_s": 6.0},
        {"cut-link": {"from": "us-east-1", "to": "eu-west-1a"}, "start_s": 7.0, "end_s": 9.0},
        {"cut-link": {"from": "us-east-1a", "to": "eu-west-1", "both_ways": True}, "start_s": 8.0, "end_s": 10.0},
        {"isolate-region": "ap-northeast-1", "start_s": 11.0, "end_s": 13.0},
    ]
    deployment = FakeDeployment(topology)
    record, results, _ = run(drill(faults, recovery_within_s={}), deployment)
    assert deployment.calls[2:] == [
        "kill us-east-1a-1",
        "start us-east-1a-1",
        "pause eu-west-1b-1",
        "resume eu-west-1b-1",
        "links, 3 cut",
        "links, 8 cut",
        "links, 6 cut",
        "links, 0 cut",
        "links, 36 cut",
        "links, 0 cut",
    ]
    assert [fault.description for fault in results.faults] == [
        "kill-node us-east-1a-1",
        "pause-node eu-west-1b-1",
        "cut-link us-east-1 -> eu-west-1a",
        "cut-link us-east-1a <-> eu-west-1",
        "isolate-region ap-northeast-1",
    ]
    assert all(run.end_ns is not None for run in record.faults)
    assert results.exit_status is ExitStatus.HOLDS, results.checks


def test_no_key_gathers_more_than_ten_indeterminate_operations(topology: Topology) -> None:
    record, _, _ = run(drill(KILL_LEADING_REGION), FakeDeployment(topology, election_s=9.0))
    unknown: dict[str, int] = {}
    for item in record.operations:
        if item.outcome is Outcome.INFO:
            unknown[item.key] = unknown.get(item.key, 0) + 1
    assert sum(unknown.values()) > 100
    assert max(unknown.values()) <= 8


def test_insert_keys_are_never_reused_and_values_are_unique(topology: Topology) -> None:
    record, _, _ = run(drill([]), FakeDeployment(topology))
    inserts = [item.key for item in record.operations if item.kind is OperationKind.INSERT]
    assert len(inserts) == len(set(inserts)) > 100
    values = [item.value for item in record.operations if item.is_write and item.value is not None]
    assert len(values) == len(set(values))
    assert all(len(value) == 100 for value in values)


def test_same_seed_same_operations(topology: Topology) -> None:
    first, _, _ = run(drill(KILL_LEADING_REGION), FakeDeployment(topology))
    second, _, _ = run(drill(KILL_LEADING_REGION), FakeDeployment(topology))
    assert first.operations == second.operations


def test_interference_before_the_final_reads_is_found(topology: Topology) -> None:
    deployment = FakeDeployment(topology)
    record = DrillRecord(drill([]), topology, seed=7)

    async def delete_one(running: object) -> None:
        assert running is deployment
        acknowledged = next(
            item.key
            for item in record.operations
            if item.kind is OperationKind.INSERT and item.outcome is Outcome.OK and item.keyspace == "global/"
        )
        del deployment.states[topology.groups[-1].id].data[acknowledged.encode()]

    run_virtual(run_drill(record, FakeHarness(deployment), lambda line: None, delete_one))
    results = judge(record)
    assert (results.exit_status, results.acknowledged_writes_lost) == (ExitStatus.FAILS, 1)


def test_replicas_that_never_match_are_no_progress(topology: Topology) -> None:
    deployment = FakeDeployment(topology)
    deployment.never_heals = True
    record, results, _ = run(drill([]), deployment)
    assert results.exit_status is ExitStatus.NO_PROGRESS
    assert record.phase == "heal"
    assert results.acknowledged_writes_lost is None
    assert "its leader" in results.checks[0].reason
    assert deployment.stopped


def test_key_whose_final_read_is_not_answered_leaves_the_verdict_open(topology: Topology) -> None:
    record, results, _ = run(drill(KILL_LEADING_REGION), FakeDeployment(topology))
    number, read = next(
        (number, item) for number, item in enumerate(record.operations) if item.final and "insert/" not in item.key
    )
    record.operations[number] = replace(read, outcome=Outcome.INFO, value=None)
    without = judge(record)
    assert (results.exit_status, without.exit_status) == (ExitStatus.HOLDS, ExitStatus.UNKNOWN)
    assert f"the final reads of 1 keys were not answered: {read.key}." in without.checks[0].reason


def test_fault_that_did_not_happen_leaves_the_verdict_open(topology: Topology) -> None:
    record, _, _ = run(drill([*KILL_LEADING_REGION]), FakeDeployment(topology))
    record.faults.clear()
    adequate = next(check for check in judge(record).checks if check.name == "adequate")
    assert adequate.verdict is Verdict.UNKNOWN
    assert adequate.reason == "1 of 1 faults did not happen."


@pytest.mark.parametrize("at_s", [3.0, 9.0, 40.0])
def test_node_that_ends_unasked_fails_the_drill_although_it_is_started_again(topology: Topology, at_s: float) -> None:
    deployment = FakeDeployment(topology)

    async def crash() -> None:
        await asyncio.sleep(at_s)
        deployment.starts[NodeId("eu-west-1b-1")] += 1

    record = DrillRecord(drill(KILL_LEADING_REGION), topology, seed=7)

    async def both() -> None:
        crashing = asyncio.create_task(crash())
        await run_drill(record, FakeHarness(deployment), lambda line: None)
        crashing.cancel()

    run_virtual(both())
    results = judge(record)
    crashed = at_s < 40.0
    assert results.exit_status is (ExitStatus.FAILS if crashed else ExitStatus.HOLDS)
    if crashed:
        assert "eu-west-1b-1 started 1 times, faults demand 0" in results.checks[-1].reason


def test_node_that_a_fault_did_not_end_fails_the_drill(topology: Topology) -> None:
    class Immortal(FakeDeployment):
        async def kill_node(self, node: NodeId) -> None:
            pass

    faults: list[dict[str, object]] = [{"kill-node": "us-east-1a-1", "start_s": 1.0, "end_s": 5.0}]
    _, results, _ = run(drill(faults, recovery_within_s={}), Immortal(topology))
    assert results.exit_status is ExitStatus.FAILS
    assert "us-east-1a-1 started 0 times, faults demand 1" in results.checks[-1].reason


def test_node_that_does_not_take_a_cut_ends_the_drill(topology: Topology) -> None:
    deployment = FakeDeployment(topology)
    record = DrillRecord(drill(KILL_LEADING_REGION), topology, seed=7)

    async def run_it() -> None:
        async def fall_silent() -> None:
            await asyncio.sleep(8.0)
            deployment.silent = frozenset({NodeId("eu-west-1b-1")})

        falling = asyncio.create_task(fall_silent())
        with pytest.raises(Unavailable, match="eu-west-1b-1 did not answer when links were changed"):
            await run_drill(record, FakeHarness(deployment), lambda line: None)
        await falling

    run_virtual(run_it())
    assert "kill us-east-1" not in deployment.calls
    assert deployment.stopped


def test_paused_node_need_not_take_a_cut_at_once(topology: Topology) -> None:
    faults: list[dict[str, object]] = [
        {"pause-node": "eu-west-1b-1", "start_s": 1.0, "end_s": 9.0},
        {"cut-link": {"from": "us-east-1", "to": "eu-west-1"}, "start_s": 3.0, "end_s": 6.0},
    ]
    _, results, _ = run(drill(faults, recovery_within_s={}), FakeDeployment(topology))
    assert results.exit_status is ExitStatus.HOLDS, results.checks


def test_node_that_does_not_start_again_is_no_progress(topology: Topology) -> None:
    class Wrecked(FakeDeployment):
        async def start_node(self, node: NodeId) -> None:
            raise Unavailable(f"node {node} is absent, not running: its store is damaged")

    deployment = Wrecked(topology)
    _, results, _ = run(drill([{"kill-node": "us-east-1a-1", "start_s": 1.0, "end_s": 5.0}]), deployment)
    assert results.exit_status is ExitStatus.NO_PROGRESS
    assert "its store is damaged" in results.checks[0].reason
    assert deployment.stopped


def test_lost_write_is_found_although_replicas_never_match(topology: Topology) -> None:
    class HalfWrecked(FakeDeployment):
        """One group has no leader, so that its keys cannot be read."""

        def leader_of(self, group: Group) -> NodeId | None:
            ended = "start us-east-1" in self.calls
            return None if ended and group.id.startswith("eu-") else super().leader_of(group)

    deployment = HalfWrecked(topology, losing=True)
    deployment.never_heals = True
    record, results, _ = run(drill(KILL_LEADING_REGION), deployment)
    assert record.phase == "heal" and record.no_progress is not None
    assert (results.exit_status, results.acknowledged_writes_lost) == (ExitStatus.FAILS, 1)


def test_interrupted_drill_stops_and_can_be_reported(topology: Topology) -> None:
    deployment = FakeDeployment(topology)
    record = DrillRecord(drill(KILL_LEADING_REGION), topology, seed=7)

    async def interrupt_it() -> None:
        task = asyncio.create_task(run_drill(record, FakeHarness(deployment), lambda line: None))
        await asyncio.sleep(12.0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert [other for other in asyncio.all_tasks() if other is not asyncio.current_task()] == []

    run_virtual(interrupt_it())
    assert record.interrupted and deployment.stopped
    results = judge(record)
    assert (results.verdict, results.exit_status) == (Verdict.UNKNOWN, ExitStatus.UNKNOWN)
    assert "interrupted in phase 'drill'" in results.checks[0].reason
    assert any(item.error == "interrupted" and item.outcome is Outcome.INFO for item in record.operations)


def test_harness_that_crashes_is_raised_after_stopping(topology: Topology) -> None:
    class BrokenDeployment(FakeDeployment):
        async def kill_node(self, node: NodeId) -> None:
            raise OSError("no such process")

    deployment = BrokenDeployment(topology)
    record = DrillRecord(drill([{"kill-node": "us-east-1a-1", "start_s": 1.0, "end_s": 2.0}]), topology, seed=7)
    with pytest.raises(OSError, match="no such process"):
        run_virtual(run_drill(record, FakeHarness(deployment), lambda line: None))
    assert deployment.stopped
    record.crash = "OSError: no such process"
    assert judge(record).exit_status is ExitStatus.HARNESS_CRASHED
