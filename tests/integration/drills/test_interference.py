"""A real, small drill: real processes, real links, a killed node, and somebody who deletes an acknowledged key."""

import asyncio
import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from isochrone.client.client import Client
from isochrone.drills.harness_os import LocalHarness
from isochrone.drills.history import OperationKind, Outcome, from_lines
from isochrone.drills.load_os import load_drill
from isochrone.drills.record import DrillRecord
from isochrone.drills.report.report_os import describe_surroundings, write_report
from isochrone.drills.results import judge
from isochrone.drills.runner import run_drill
from isochrone.drills.verdict import ExitStatus, Verdict
from isochrone.node.deployment import Deployment

TOPOLOGY = """
name: one-region
latencies: aws
regions:
  - name: eu-west-1
    zones: 3
keyspaces:
  - {prefix: k/, home: eu-west-1, survive: zone}
clock: {source: bound, bound_ms: 5}
"""

DRILL = """
name: interference
topology: topology.yaml
workload:
  warm_up_s: 1
  duration_s: 9
  timeout_s: 4
  clients: [{region: eu-west-1, rate_per_s: 30}]
  keyspaces: {k/: 1}
faults:
  - kill-node: {leader-of: k/}
    start_s: 1
    end_s: 7
expect:
  recovery_within_s: {k/: 5.9}
  operations_beside_each_fault_min: 20
  contended_operations_min: 0
"""


@pytest.mark.timeout(120)
def test_unrecorded_delete_of_an_acknowledged_key_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # Ray's driver changes the directory; this restores it.
    (tmp_path / "topology.yaml").write_text(TOPOLOGY)
    (tmp_path / "drill.yaml").write_text(DRILL)
    loaded = load_drill(tmp_path / "drill.yaml")
    record = DrillRecord(loaded.document, loaded.topology, seed=1)
    started_at = datetime.now(UTC)

    async def delete_one(deployment: Deployment) -> None:
        inserted = next(
            item for item in record.operations if item.kind is OperationKind.INSERT and item.outcome is Outcome.OK
        )
        async with await Client.connect(list(deployment.addresses.values()), region="eu-west-1") as client:
            result = await client.delete(inserted.key)
        assert result.succeeded

    async def run() -> None:
        harness = LocalHarness(loaded.topology_file, tmp_path / "deployment", seed=1)
        try:
            await run_drill(record, harness, print, delete_one)
        finally:
            harness.close()

    asyncio.run(run())
    results = judge(record)
    write_report(tmp_path / "report", record, results, describe_surroundings(started_at))
    figures = json.loads((tmp_path / "report" / "report.json").read_text())

    assert record.phase == "done", results.checks
    assert (figures["verdict"], figures["exit_status"], figures["acknowledged_writes_lost"]) == ("false", 1, 1)
    assert results.exit_status is ExitStatus.FAILS
    verdicts = {check.name: check.verdict for check in results.checks}
    assert verdicts.pop("durable") is Verdict.FALSE
    assert verdicts.pop("linearizable") is Verdict.FALSE, "the final read of the key contradicts its insert"
    assert set(verdicts.values()) == {Verdict.TRUE}, results.checks
    assert figures["acknowledged_writes"] > 20
    assert 0 < figures["recovery_time_s"]["k/"] < 5.9
    with (tmp_path / "report" / "history.jsonl").open() as lines:
        assert len(from_lines(lines)) == len(record.operations)
