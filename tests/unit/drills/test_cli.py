"""`isochrone drill` refuses bad input before it starts anything."""

import errno
import json
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from isochrone.drills.load_os import LoadedDrill
from isochrone.drills.record import DrillRecord
from isochrone.drills.results import Results, judge
from isochrone.drills.verdict import ExitStatus, Verdict
from isochrone.errors import DeadlineExceeded
from isochrone.ops.cli import drill as drill_module
from isochrone.ops.cli.drill import drill_group

ROOT = Path(__file__).parents[3]
BAD = "name: x\ntopology: nowhere.yaml\ncolour: red\n"


def test_validate_accepts_a_shipped_drill() -> None:
    result = CliRunner().invoke(drill_group, ["validate", str(ROOT / "deploy/drills/region-failover.yaml")])
    assert result.exit_code == 0
    assert "valid: 1 fault in 50 s, clients in 3 regions" in result.output


def test_bad_file_is_refused_with_one_line_for_each_fault(tmp_path: Path) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(BAD)
    for verb in ("validate", "run"):
        result = CliRunner().invoke(drill_group, [verb, str(file)])
        assert result.exit_code == 2
        lines = result.stderr.splitlines()
        assert all(line.startswith(f"{file}: ") for line in lines)
        assert {line.split(": ")[1] for line in lines} == {"workload", "faults", "expect", "colour", "topology"}
    assert list(tmp_path.iterdir()) == [file], "nothing was started"


def test_report_that_cannot_be_written_is_found_before_the_drill(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    drill = str(ROOT / "deploy/drills/region-failover.yaml")
    result = CliRunner().invoke(drill_group, ["run", drill, "--report", str(tmp_path / "taken" / "report")])
    assert result.exit_code == 2
    assert "cannot write the report" in result.stderr


def test_help_shows_examples() -> None:
    result = CliRunner().invoke(drill_group, ["run", "--help"])
    assert "isochrone drill run deploy/drills/region-failover.yaml" in result.output
    assert "no progress" in result.output


@pytest.fixture
def drilled(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[], tuple[Result, dict[str, Any]]]:
    """Runs a drill whose run is over at once; the result and the figures of its report."""

    def run(loaded: LoadedDrill, record: DrillRecord, directory: Path, started_at: object) -> None:
        record.phase = "done"
        (directory / "log").touch()

    def drill() -> tuple[Result, dict[str, Any]]:
        file = str(ROOT / "deploy/drills/region-failover.yaml")
        result = CliRunner().invoke(drill_group, ["run", file, "--report", str(tmp_path / "report")])
        return result, json.loads((tmp_path / "report" / "report.json").read_text())

    monkeypatch.setattr(drill_module, "_run", run)
    (tmp_path / "data").mkdir()
    monkeypatch.setattr("tempfile.mkdtemp", lambda **_: str(tmp_path / "data"))
    return drill


def test_ctrl_c_while_the_history_is_checked_still_writes_the_report(
    drilled: Callable[[], tuple[Result, dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    budgets: list[int] = []

    def interrupted_judge(record: DrillRecord, steps_max: int = 1) -> Results:
        budgets.append(steps_max)
        if steps_max:
            raise KeyboardInterrupt
        return judge(record, steps_max)

    monkeypatch.setattr(drill_module, "judge", interrupted_judge)
    result, figures = drilled()
    assert budgets == [1, 0]
    assert result.exit_code == ExitStatus.UNKNOWN, result.output
    assert (figures["verdict"], figures["interrupted"]) == ("unknown", True)
    assert "interrupted while the history was checked." in result.output


def test_an_interrupted_drill_that_fails_keeps_its_data(
    drilled: Callable[[], tuple[Result, dict[str, Any]]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def failing_judge(record: DrillRecord) -> Results:
        record.interrupted = True
        return replace(judge(record), verdict=Verdict.FALSE, exit_status=ExitStatus.FAILS)

    monkeypatch.setattr(drill_module, "judge", failing_judge)
    result, _ = drilled()
    assert result.exit_code == ExitStatus.FAILS
    assert (tmp_path / "data" / "log").exists()


def test_a_deployment_that_cannot_be_taken_down_is_reported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def run_until_signal(work: Coroutine[None, None, None]) -> None:
        work.close()

    def fail(_: Path) -> bool:
        raise DeadlineExceeded("processes 7 did not end")

    monkeypatch.setattr(drill_module, "run_until_signal", run_until_signal)
    monkeypatch.setattr(drill_module, "take_down", fail)
    drill = str(ROOT / "deploy/drills/region-failover.yaml")
    result = CliRunner().invoke(drill_group, ["run", drill, "--report", str(tmp_path / "report")])
    assert result.exit_code == ExitStatus.HARNESS_CRASHED
    figures = json.loads((tmp_path / "report" / "report.json").read_text())
    assert figures["crash"] == "DeadlineExceeded: processes 7 did not end"


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "isochrone: [Errno 28] No space left on device"),
        (DeadlineExceeded("processes 7 did not end"), "isochrone: processes 7 did not end"),
        (KeyError("x"), "Traceback (most recent call last):"),
    ],
)
def test_a_harness_that_fails_gives_no_verdict(
    error: Exception, told: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(drill_module, "_drill", fail)
    drill = str(ROOT / "deploy/drills/region-failover.yaml")
    result = CliRunner().invoke(drill_group, ["run", drill, "--report", str(tmp_path / "report")])
    assert result.exit_code == ExitStatus.HARNESS_CRASHED
    assert result.stderr.splitlines()[0] == told
