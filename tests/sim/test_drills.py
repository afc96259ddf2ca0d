"""The drills that ship, in the simulated world: they hold within seconds, say that they were simulated, and repeat."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from isochrone.drills.harness_sim import simulate, world_of
from isochrone.drills.history import Outcome
from isochrone.drills.load_os import load_drill
from isochrone.drills.record import DrillRecord
from isochrone.drills.results import judge
from isochrone.drills.schema import DrillDocument
from isochrone.drills.verdict import ExitStatus, Verdict
from isochrone.ids import NodeId
from isochrone.ops.cli.main import cli

ROOT = Path(__file__).parents[2]
DRILLS = sorted(path.stem for path in (ROOT / "deploy/drills").glob("*.yaml"))


def drill(name: str, report: Path, *arguments: str) -> tuple[Result, dict[str, object]]:
    file = str(ROOT / f"deploy/drills/{name}.yaml")
    result = CliRunner().invoke(cli, ["drill", "run", file, "--sim", "--report", str(report), *arguments])
    return result, json.loads((report / "report.json").read_text())


@pytest.mark.parametrize("name", DRILLS)
def test_shipped_drills_hold_and_say_that_they_were_simulated(name: str, tmp_path: Path) -> None:
    result, figures = drill(name, tmp_path)
    assert result.exit_code == 0, result.output
    assert (figures["verdict"], figures["acknowledged_writes_lost"], figures["software_ms"]) == ("true", 0, {})
    simulated = figures["simulated"]
    assert isinstance(simulated, dict) and simulated["violations"] == []
    assert f"simulated, seed {figures['seed']}, trace hash {simulated['trace_hash']}" in result.stdout
    assert "invariants: the invariants of every group held" in result.stdout
    assert "commit latency" not in result.stdout
    assert "Isochrone drill, simulated" in (tmp_path / "report.html").read_text()


def recorded(name: str, seed: int, document: DrillDocument | None = None) -> DrillRecord:
    loaded = load_drill(ROOT / f"deploy/drills/{name}.yaml")
    record = DrillRecord(document or loaded.document, loaded.topology, seed)
    simulate(record, world_of(record), lambda line: None)
    return record


def small(**changed: object) -> DrillDocument:
    """The region drill, shorter and with little load."""
    document = load_drill(ROOT / "deploy/drills/region-failover.yaml").document
    clients = [client.model_copy(update={"rate_per_s": 4.0}) for client in document.workload.clients]
    workload = document.workload.model_copy(update={"warm_up_s": 1.0, "duration_s": 12.0, "clients": clients})
    expect = document.expect.model_copy(
        update={"operations_beside_each_fault_min": 10, "contended_operations_min": 0, "recovery_within_s": {}}
    )
    return DrillDocument.model_validate(
        {
            **document.model_dump(by_alias=True, exclude_none=True),
            "workload": workload.model_dump(),
            "expect": expect.model_dump(),
            **changed,
        }
    )


def one_fault(fault: dict[str, object]) -> DrillDocument:
    return small(faults=[{**fault, "start_s": 2.0, "end_s": 8.0}])


def test_a_seed_repeats_a_drill_exactly_and_another_one_does_not() -> None:
    document = one_fault({"kill-region": {"leader-of": "global/"}})
    runs = [recorded("region-failover", seed, document) for seed in (5, 5, 6)]
    hashes = [run.simulated.trace_hash for run in runs if run.simulated is not None]
    assert hashes[0] == hashes[1] != hashes[2]
    assert runs[0].operations == runs[1].operations


@pytest.mark.parametrize(
    "fault",
    [
        {"kill-region": {"leader-of": "global/"}},
        {"isolate-region": {"leader-of": "global/"}},
        {"kill-node": {"leader-of": "global/"}},
        {"pause-node": {"leader-of": "global/"}},
        {"cut-link": {"from": "us-east-1", "to": "eu-west-1"}},
        {"cut-link": {"from": "us-east-1", "to": "eu-west-1", "both_ways": True}},
    ],
    ids=lambda fault: next(iter(fault)),
)
def test_every_kind_of_fault_can_be_simulated(fault: dict[str, object]) -> None:
    record = recorded("region-failover", 1, one_fault(fault))
    results = judge(record)
    assert results.exit_status is ExitStatus.HOLDS, results.checks
    assert [run.end_ns is not None for run in record.faults] == [True]


def test_clients_in_an_isolated_region_are_cut_off_with_it() -> None:
    record = recorded("region-failover", 1, one_fault({"isolate-region": "ap-northeast-1"}))
    start_ns, end_ns = record.faults[0].start_ns, record.faults[0].end_ns
    assert end_ns is not None
    beside = [
        item
        for item in record.operations
        if item.region == "ap-northeast-1" and start_ns < item.invoke_ns and item.complete_ns < end_ns
    ]
    abroad = [item.outcome for item in beside if item.keyspace in ("us/", "eu/")]
    assert abroad and Outcome.OK not in abroad
    assert any(item.outcome is Outcome.OK for item in beside if item.keyspace == "ap/"), "its own home is with it"


def test_an_invariant_that_is_broken_fails_the_drill() -> None:
    """A planted fault: a disk forgets a vote when its node is killed."""
    loaded = load_drill(ROOT / "deploy/drills/region-failover.yaml")
    record = DrillRecord(one_fault({"kill-node": "us-east-1a-1"}), loaded.topology, 1)
    world = world_of(record)
    disk = world.machines[NodeId("us-east-1a-1")].disk
    open_disk = disk.open

    def open_forgetful() -> object:
        store = open_disk()
        for group, stored in store._image.groups.items():
            store._image.groups[group] = replace(stored, hard_state=replace(stored.hard_state, vote=None))
        return store

    disk.open = open_forgetful  # type: ignore[method-assign, assignment]
    simulate(record, world, lambda line: None)
    results = judge(record)
    assert results.exit_status is ExitStatus.FAILS
    assert [check.name for check in results.checks if check.verdict is Verdict.FALSE] == ["invariants"]


def test_a_region_that_does_not_come_back_is_no_progress() -> None:
    loaded = load_drill(ROOT / "deploy/drills/region-failover.yaml")
    record = DrillRecord(one_fault({"kill-region": "us-east-1"}), loaded.topology, 1)
    world = world_of(record)
    lost = [machine for machine in world.machines.values() if machine.endpoint.region == "us-east-1"]

    def progress(line: str) -> None:
        if line.startswith("fault: "):
            for machine in lost:
                machine.disk.missing = "planted: it burnt down"

    simulate(record, world, progress)
    results = judge(record)
    assert results.exit_status is ExitStatus.NO_PROGRESS
    assert "us-east-1a-1" in str(record.no_progress) and "did not start" in str(record.no_progress)
