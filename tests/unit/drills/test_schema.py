"""A wrong drill file gives one error for each fault, with file, key, what was found and what is allowed."""

import re
from pathlib import Path

import pytest

from isochrone.drills.load_os import DrillError, load_drill
from isochrone.drills.schema import FaultKind

ROOT = Path(__file__).parents[3]
SHIPPED = sorted((ROOT / "deploy/drills").glob("*.yaml"))

KILL = "kill-region: {leader-of: global/}"
GOOD = """
name: good
topology: {topology}
workload:
  duration_s: 20
  clients:
    - {{region: us-east-1, rate_per_s: 5}}
  keyspaces: {{global/: 1}}
faults:
  - kill-region: {{leader-of: global/}}
    start_s: 4
    end_s: 10
expect:
  recovery_within_s: {{global/: 5}}
  linearizable: true
  operations_beside_each_fault_min: 1
  contended_operations_min: 0
""".format(topology=ROOT / "deploy/topologies/three-regions.yaml")


def problems(tmp_path: Path, text: str) -> list[tuple[str, str, str]]:
    file = tmp_path / "drill.yaml"
    file.write_text(text)
    with pytest.raises(DrillError) as caught:
        load_drill(file)
    assert all(problem.file == str(file) for problem in caught.value.problems)
    return [(problem.path, problem.found, problem.allowed) for problem in caught.value.problems]


def one_problem(tmp_path: Path, old: str, new: str) -> tuple[str, str, str]:
    assert old in GOOD
    found = problems(tmp_path, GOOD.replace(old, new))
    assert len(found) == 1, found
    return found[0]


@pytest.mark.parametrize("file", SHIPPED, ids=lambda path: path.stem)
def test_shipped_drills_are_valid(file: Path) -> None:
    loaded = load_drill(file)
    assert loaded.document.name == file.stem
    assert loaded.document.faults


def test_these_are_the_shipped_drills() -> None:
    assert [file.stem for file in SHIPPED] == ["region-failover", "regional-locks", "two-sites", "zone-failover"]


def test_good_file_and_its_defaults(tmp_path: Path) -> None:
    (tmp_path / "drill.yaml").write_text(GOOD)
    document = load_drill(tmp_path / "drill.yaml").document
    assert document.faults[0].kind is FaultKind.KILL_REGION
    assert document.expect.linearizable is True
    assert document.expect.acknowledged_writes_lost == 0
    assert document.workload.keys.indeterminate_max <= 10


@pytest.mark.parametrize(
    ("old", "new", "path", "found", "allowed"),
    [
        ("duration_s: 20", "duration: 20", "workload.duration", "an unknown key", r"did you mean duration_s"),
        ("rate_per_s: 5", "rate_per_s: -5", "workload.clients[0].rate_per_s", "-5", "greater than 0"),
        ("rate_per_s: 5", "rate_per_s: five", "workload.clients[0].rate_per_s", "'five'", "a number"),
        (
            "region: us-east-1",
            "region: us-east-9",
            "workload.clients[0].region",
            "'us-east-9'",
            "us-east-1.*did you mean",
        ),
        ("rate_per_s: 5", "rate_per_s: 5, zone: x", "workload.clients[0].zone", "'x'", "us-east-1a, us-east-1b"),
        (
            "keyspaces: {global/: 1}",
            "keyspaces: {globl/: 1, global/: 1}",
            "workload.keyspaces.globl/",
            "'globl/'",
            "global/",
        ),
        ("leader-of: global/", "leader-of: nowhere/", "faults[0].kill-region.leader-of", "'nowhere/'", "us/, eu/, ap/"),
        ("{leader-of: global/}", "mars", "faults[0].kill-region", "'mars'", "us-east-1, eu-west-1, ap-northeast-1"),
        (
            "{leader-of: global/}",
            "{leader: x, leader-of: us/}",
            "faults[0].kill-region.leader",
            "an unknown key",
            "leader-of",
        ),
        (KILL, "kill-node: us-east-1", "faults[0].kill-node", "'us-east-1'", "us-east-1a-1"),
        (KILL, "pause-node: [a]", "faults[0].pause-node", "['a']", "text"),
        (KILL, "cut-link: {from: a, to: eu-west-1}", "faults[0].cut-link.from", "'a'", "us-east-1a"),
        (KILL, "cut-link: {from: eu-west-1}", "faults[0].cut-link.to", "nothing", "required"),
        (
            KILL,
            "cut-link: {from: eu-west-1, to: eu-west-1}",
            "faults[0].cut-link.to",
            "'eu-west-1'",
            "another place",
        ),
        ("end_s: 10", "end_s: 30", "faults[0].end_s", "30", "at most workload.duration_s, 20"),
        ("end_s: 10", "end_s: 4", "faults[0]", "{'kill-region'", "an end_s above start_s"),
        (KILL, "kill_region: x", "faults[0].kill_region", "an unknown key", "kill-region"),
        (
            "    end_s: 10",
            "    end_s: 10\n    kill-node: us-east-1a-1",
            "faults[0]",
            "{'kill-region'",
            "exactly one of kill-node",
        ),
        (
            "{global/: 5}",
            "{us/: 5}",
            "expect.recovery_within_s.us/",
            "'us/'",
            "a keyspace that the workload writes: global/",
        ),
        (
            "{global/: 1}",
            "{global/: 1}\n  locks: {keyspace: global/}",
            "expect.locks",
            "nothing",
            "what workload.locks asks for",
        ),
        (
            "contended_operations_min: 0",
            "contended_operations_min: 0\n  locks: {next_grant_within_s: 5, handovers_min: 1}",
            "workload.locks",
            "nothing",
            "what expect.locks asks for",
        ),
        ("{global/: 5}", "{xx/: 5}", "expect.recovery_within_s.xx/", "'xx/'", "global/"),
        ("linearizable: true", "acknowledged_writes_lost: 1", "expect.acknowledged_writes_lost", "1", "0"),
        ("contended_operations_min: 0", "", "expect.contended_operations_min", "nothing", "required"),
        ("name: good", "name: 'not good'", "name", "'not good'", "text that matches"),
        ("topology: ", "topology: missing/", "topology", "no such file", "relative to this file"),
    ],
)
def test_one_error_for_one_fault(tmp_path: Path, old: str, new: str, path: str, found: str, allowed: str) -> None:
    problem = one_problem(tmp_path, old, new)
    assert problem[0] == path
    assert found in problem[1]
    assert re.search(allowed, problem[2]), problem[2]


def test_locks_lie_in_a_keyspace_of_the_topology(tmp_path: Path) -> None:
    text = GOOD.replace("{global/: 1}", "{global/: 1}\n  locks: {keyspace: glo/}")
    text += "  locks: {next_grant_within_s: 5, handovers_min: 1}\n"
    assert [(path, found) for path, found, _ in problems(tmp_path, text)] == [("workload.locks.keyspace", "'glo/'")]


def test_several_faults_give_several_errors(tmp_path: Path) -> None:
    text = GOOD.replace("us-east-1,", "mars,").replace("end_s: 10", "end_s: 30").replace("{global/: 5}", "{xx/: 5}")
    assert [path for path, _, _ in problems(tmp_path, text)] == [
        "workload.clients[0].region",
        "faults[0].end_s",
        "expect.recovery_within_s.xx/",
    ]


def test_faults_of_the_topology_are_reported_with_those_of_the_drill(tmp_path: Path) -> None:
    (tmp_path / "topology.yaml").write_text("name: x\nlatencies: aws\nregions: []\nkeyspaces: []\ncolour: red\n")
    text = re.sub("topology: .*", "topology: topology.yaml", GOOD).replace("duration_s: 20", "duration_s: none")
    (tmp_path / "drill.yaml").write_text(text)
    with pytest.raises(DrillError) as caught:
        load_drill(tmp_path / "drill.yaml")
    files = {Path(problem.file).name: problem.path for problem in caught.value.problems}
    assert files["drill.yaml"] == "workload.duration_s"
    assert "topology.yaml" in files


@pytest.mark.parametrize("text", ["", "[]", "just text", "a: [", "name: x\nname: y\n"])
def test_what_is_no_drill_at_all(tmp_path: Path, text: str) -> None:
    assert problems(tmp_path, text)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(DrillError, match="no such file"):
        load_drill(tmp_path / "nowhere.yaml")


OVERLAP = """faults:
  - {first}
    start_s: 4
    end_s: 10
  - {second}
    start_s: 6
    end_s: 12
"""


@pytest.mark.parametrize(
    ("first", "second", "allowed"),
    [
        ("kill-node: us-east-1a-1", "kill-node: us-east-1b-1", True),
        ("kill-node: us-east-1a-1", "pause-node: us-east-1a-1", False),
        ("kill-node: us-east-1a-1", "kill-node: {leader-of: us/}", False),
        ("kill-region: us-east-1", "pause-node: eu-west-1a-1", False),
        ("kill-region: us-east-1", "isolate-region: eu-west-1", True),
        ("cut-link: {from: us-east-1, to: eu-west-1}", "kill-node: us-east-1a-1", True),
    ],
)
def test_faults_that_would_undo_each_other(tmp_path: Path, first: str, second: str, allowed: bool) -> None:
    faults = OVERLAP.format(first=first, second=second)
    text = re.sub(r"faults:\n.*?(?=expect:)", faults, GOOD, flags=re.DOTALL)
    if allowed:
        (tmp_path / "drill.yaml").write_text(text)
        assert len(load_drill(tmp_path / "drill.yaml").document.faults) == 2
    else:
        assert [path for path, _, _ in problems(tmp_path, text)] == ["faults[1].start_s"]
