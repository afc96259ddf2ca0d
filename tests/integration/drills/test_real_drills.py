"""Real, small drills: real processes, real links and a killed node."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import psutil
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
name: small
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


def write_files(directory: Path) -> Path:
    (directory / "topology.yaml").write_text(TOPOLOGY)
    (directory / "drill.yaml").write_text(DRILL)
    return directory / "drill.yaml"


@pytest.mark.timeout(120)
def test_unrecorded_delete_of_an_acknowledged_key_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # Ray's driver changes the directory; this restores it.
    loaded = load_drill(write_files(tmp_path))
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


@pytest.mark.timeout(120)
def test_interrupted_drill_stops_what_it_started_and_writes_its_report(tmp_path: Path) -> None:
    """The interrupt goes to the whole process group, as from a terminal."""
    isochrone = Path(sys.executable).with_name("isochrone")
    command = [str(isochrone), "drill", "run", str(write_files(tmp_path)), "--report", str(tmp_path / "report")]
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True, env=environment
    ) as drill:
        assert drill.stdout is not None
        output: list[str] = []
        started: list[psutil.Process] = []
        for line in drill.stdout:
            output.append(line)
            if "fault: kill-node" in line:
                started = psutil.Process(drill.pid).children(recursive=True)
                os.killpg(drill.pid, signal.SIGINT)
        assert drill.wait() == ExitStatus.UNKNOWN, "".join(output)
    figures = json.loads((tmp_path / "report" / "report.json").read_text())
    assert (figures["verdict"], figures["interrupted"], figures["crash"]) == ("unknown", True, None)
    assert figures["acknowledged_writes_lost"] is None
    assert sum(row["ok"] for row in figures["operations"].values()) > 20
    assert (tmp_path / "report" / "report.html").exists()
    assert "interrupted in phase 'drill'" in "".join(output)
    directory = re.search(r"bootstrapping \d stores in (\S+)", "".join(output))
    assert directory is not None and not Path(directory[1]).exists()
    assert len(started) >= 5, "the head, the supervisor and the nodes"
    assert [process for process in started if process.is_running()] == []
