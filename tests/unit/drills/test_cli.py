"""`isochrone drill` refuses bad input before it starts anything."""

import errno
from pathlib import Path

import pytest
from click.testing import CliRunner

from isochrone.drills.verdict import ExitStatus
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
