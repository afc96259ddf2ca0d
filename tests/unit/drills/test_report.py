"""The report: figures for programs, and a page that needs nothing but itself."""

import json
import re
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path

import pytest
from fake_deployment import FakeDeployment, FakeHarness
from virtual_time import run_virtual

from isochrone.drills.history import from_lines
from isochrone.drills.load_os import load_drill
from isochrone.drills.record import DrillRecord, Simulated
from isochrone.drills.report.report_os import describe_surroundings, write_report
from isochrone.drills.results import judge
from isochrone.drills.runner import run_drill

ROOT = Path(__file__).parents[3]


def record_of(name: str) -> DrillRecord:
    loaded = load_drill(ROOT / f"deploy/drills/{name}.yaml")
    return DrillRecord(loaded.document, loaded.topology, seed=1)


def write(directory: Path, record: DrillRecord) -> tuple[dict[str, object], str]:
    write_report(directory, record, judge(record), describe_surroundings(datetime.now(UTC)))
    return json.loads((directory / "report.json").read_text()), (directory / "report.html").read_text()


@pytest.fixture(scope="module")
def finished() -> DrillRecord:
    record = record_of("region-failover")
    run_virtual(run_drill(record, FakeHarness(FakeDeployment(record.topology)), lambda line: None))
    return record


class Balance(HTMLParser):
    """Finds tags that are not closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: object) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_figures(tmp_path: Path, finished: DrillRecord) -> None:
    figures, _ = write(tmp_path, finished)
    assert figures["verdict"] == "true"
    assert figures["acknowledged_writes_lost"] == 0
    recovery = figures["recovery_time_s"]
    assert isinstance(recovery, dict)
    assert set(recovery) == {"global/", "us/", "eu/", "ap/"}
    assert recovery["us/"] is None and 1.0 < recovery["global/"] < 4.0
    assert (figures["seed"], figures["simulated"]) == (1, None)
    assert set(figures["versions"]) >= {"python", "isochrone", "ray"}  # type: ignore[call-overload]


def test_page_is_well_formed_and_self_contained(tmp_path: Path, finished: DrillRecord) -> None:
    _, page = write(tmp_path, finished)
    balance = Balance()
    balance.feed(page)
    assert balance.open == []
    assert not re.search(r"https?://|src=|@import|url\(", page)
    for words in (
        "region-failover",
        "kill-region us-east-1",
        "global/ writes again",
        "acknowledged writes lost",
        "Dublin",
    ):
        assert words in page


def test_every_operation_of_the_drill_is_a_dot(tmp_path: Path, finished: DrillRecord) -> None:
    _, page = write(tmp_path, finished)
    shaped_ns = finished.shaped_ns
    assert shaped_ns is not None
    drawn = sum(1 for item in finished.operations if not item.final and item.invoke_ns >= shaped_ns)
    assert page.count("h0") == drawn > 1000


def test_history_file_holds_every_operation(tmp_path: Path, finished: DrillRecord) -> None:
    write(tmp_path, finished)
    with (tmp_path / "history.jsonl").open() as lines:
        found = from_lines(lines)
    assert sorted(found, key=repr) == sorted(finished.operations, key=repr)


def test_run_that_never_came_up_is_reported_too(tmp_path: Path) -> None:
    record = record_of("two-sites")
    record.crash = "Unavailable: <port> in use"
    figures, page = write(tmp_path, record)
    assert (figures["verdict"], figures["exit_status"], figures["acknowledged_writes_lost"]) == ("unknown", 5, None)
    assert "Unavailable: &lt;port&gt; in use" in page


def test_a_simulated_run_says_so_and_tells_no_figures_of_software(tmp_path: Path) -> None:
    record = record_of("region-failover")
    record.simulated = Simulated(trace_hash="5eed")
    run_virtual(run_drill(record, FakeHarness(FakeDeployment(record.topology)), lambda line: None))
    figures, page = write(tmp_path, record)
    assert (figures["seed"], figures["verdict"]) == (1, "true")
    assert figures["simulated"] == {"violations": [], "trace_hash": "5eed"}
    assert (figures["software_ms"], figures["latency"]) == ({}, [])
    assert "Isochrone drill, simulated" in page
    assert "Not compared: in a simulation software takes no time" in page
    assert "calibrate" not in page
    assert "the same seed gives the same run, with trace hash 5eed" in page


def test_an_invariant_that_does_not_hold_fails_a_simulated_drill(tmp_path: Path) -> None:
    record = record_of("region-failover")
    record.simulated = Simulated(["log matching: group g, node n: <entry 3>"])
    run_virtual(run_drill(record, FakeHarness(FakeDeployment(record.topology)), lambda line: None))
    figures, page = write(tmp_path, record)
    assert (figures["verdict"], figures["exit_status"]) == ("false", 1)
    assert "log matching: group g, node n: &lt;entry 3&gt;" in page
