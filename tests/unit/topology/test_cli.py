"""`isochrone topology`: output and exit statuses."""

import io
import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from rich.console import Console

from isochrone.ops.cli.topology import topology_group
from isochrone.ops.cli.topology_view import render
from isochrone.topology import load_topology

SHIPPED = Path(__file__).parents[3] / "deploy" / "topologies"


def run(*arguments: str) -> Result:
    return CliRunner().invoke(topology_group, arguments)


@pytest.mark.parametrize("name", ["three-regions", "two-regions-and-witness", "five-sites", "async-copies"])
def test_validate_a_good_file(name: str) -> None:
    result = run("validate", str(SHIPPED / f"{name}.yaml"))
    assert result.exit_code == 0, result.output
    assert "valid: " in result.stdout
    assert result.stderr == ""


@pytest.mark.parametrize("command", ["validate", "show"])
def test_bad_files_exit_with_2_and_one_line_for_each_fault(command: str, tmp_path: Path) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text("name: bad\nlatencies: aws\nregions: [{name: us-east-1, zones: 0}]\n")
    result = run(command, str(file))
    assert result.exit_code == 2
    assert result.stdout == ""
    lines = result.stderr.splitlines()
    assert [line.split(": ")[:2] for line in lines] == [[str(file), "regions[0].zones"], [str(file), "keyspaces"]]
    assert all(": found " in line and "; allowed: " in line for line in lines)


def test_a_missing_file_exits_with_2(tmp_path: Path) -> None:
    result = run("show", str(tmp_path / "none.yaml"))
    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1
    assert "no such file" in result.stderr


def test_show_as_json_tells_everything() -> None:
    shown = json.loads(run("show", str(SHIPPED / "five-sites.yaml"), "-o", "json").stdout)
    assert shown["rtt_ms"]["CA"]["JP"] == 113
    (group,) = shown["groups"]
    assert group["quorum"] == 3
    assert len(group["replicas"]) == 5
    assert {(each["client_region"], each["leader_region"]): each["commit_ms"] for each in group["predictions"]}[
        "EU", "CA"
    ] == pytest.approx(223)
    assert all(loss["keeps_quorum"] for loss in group["losses"])
    assert shown["keyspaces"][0]["prefix"] == "global/"


def test_show_tells_of_asynchronous_copies_and_what_they_may_lack() -> None:
    shown = json.loads(run("show", str(SHIPPED / "async-copies.yaml"), "-o", "json").stdout)
    (copy,) = shown["groups"][0]["async_copies"]
    assert (copy["node"], copy["region"], round(copy["delay_ms"], 1)) == ("eu-west-1a-1", "eu-west-1", 34.8)
    table = " ".join(run("show", str(SHIPPED / "async-copies.yaml")).stdout.split())
    assert "The asynchronous copy in eu-west-1 does not vote" in table
    assert "If us-east-1 is lost for good, the copy lacks what was proposed in the last 34.8 ms at least" in table
    assert "asynchronous" not in run("show", str(SHIPPED / "three-regions.yaml")).stdout


def test_show_tells_what_leases_save(tmp_path: Path) -> None:
    text = (SHIPPED / "three-regions.yaml").read_text(encoding="utf-8")
    file = tmp_path / "leased.yaml"
    file.write_text(text.replace("{prefix: global/,", "{prefix: global/, lease_reads: true,"), encoding="utf-8")
    shown = json.loads(run("show", str(file), "-o", "json").stdout)
    (group,) = [group for group in shown["groups"] if group["lease_reads"]]
    home = next(
        each for each in group["predictions"] if each["client_region"] == each["leader_region"] == group["home"]
    )
    assert home["read_ms"] == 0 < home["commit_ms"]
    table = run("show", str(file)).stdout
    assert "reads under leases" in table
    assert table.count("read latency while the leader has a lease") == 1


def test_show_tells_how_much_history_is_kept(tmp_path: Path) -> None:
    text = (SHIPPED / "three-regions.yaml").read_text(encoding="utf-8")
    file = tmp_path / "kept.yaml"
    file.write_text(text + "compaction: {us-east-1.zone: {keep_seconds: 60, keep_revisions: null}}\n", "utf-8")
    shown = json.loads(run("show", str(file), "-o", "json").stdout)
    kept = {group["id"]: group["compaction"] for group in shown["groups"]}
    assert kept["us-east-1.zone"] == {"keep_seconds": 60, "keep_revisions": None}
    table = " ".join(run("show", str(file)).stdout.split())
    assert "keeps what is superseded for 60 s" in table
    assert "keeps what is superseded for 3600 s and at most over 1000000 revisions" in table


def test_show_as_table() -> None:
    result = run("show", str(SHIPPED / "two-regions-and-witness.yaml"))
    assert result.exit_code == 0
    assert "\x1b" not in result.stdout, "no colours where there is no terminal"
    for wanted in (
        "eu-central-1.region",
        "witness",
        "election timeout 1000 to 1500 ms",
        "one region",
        "leader in eu-west-1",
    ):
        assert wanted in result.stdout


@pytest.mark.parametrize("name", ["three-regions", "two-regions-and-witness", "five-sites", "async-copies"])
def test_no_name_is_broken_at_80_columns(name: str) -> None:
    topology = load_topology(SHIPPED / f"{name}.yaml")
    console = Console(width=80, file=io.StringIO())
    for part in render(topology):
        console.print(part)
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    names = [name for region in topology.regions for name in (region.id, *region.zones)]
    assert {*names, *(node.id for node in topology.nodes)} <= set(text.split())
    assert max(map(len, text.splitlines())) <= 80


def test_show_warns_of_an_even_number_of_voters(tmp_path: Path) -> None:
    file = tmp_path / "even.yaml"
    zones = "[us-east-1a, us-east-1b, eu-west-1a, ap-northeast-1a]"
    shipped = (SHIPPED / "three-regions.yaml").read_text()
    file.write_text(shipped.replace("{prefix: us/,", f"{{prefix: us/, placement: {{voters: {zones}}},"))
    assert "has an even number of voters (4): it survives no more losses than with 3" in run("show", str(file)).stdout
    warnings = json.loads(run("show", str(file), "-o", "json").stdout)["warnings"]
    assert any("even number of voters" in warning for warning in warnings)


def test_show_marks_assumed_figures() -> None:
    output = run("show", str(SHIPPED / "three-regions.yaml")).stdout
    assert "0.9*" in output or "1.0*" in output
    assert "warning: no RTT between the zones of ap-northeast-1" in output


def test_schema_describes_every_key() -> None:
    schema = json.loads(run("schema").stdout)
    sections = [schema, *schema["$defs"].values()]
    keys = [(name, key) for section in sections for name, key in section["properties"].items()]
    assert len(keys) > 30
    assert not [name for name, key in keys if not key.get("description")]


@pytest.mark.parametrize("arguments", [["--help"], ["validate", "--help"], ["show", "--help"], ["schema", "--help"]])
def test_help_gives_examples(arguments: list[str]) -> None:
    result = run(*arguments)
    assert result.exit_code == 0
    assert "isochrone topology" in result.stdout
    assert "Example" in result.stdout
