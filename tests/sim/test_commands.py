"""`isochrone sim` and `isochrone drill run --sim`: what they print, refuse, keep, and their exit statuses."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from isochrone.drills.history import from_lines
from isochrone.drills.sim.case import Case, SimResult, SimVerdict
from isochrone.drills.sim.options import Mode, SimOptions
from isochrone.drills.sim.run_os import draw_case
from isochrone.drills.sim.schedule import Schedule
from isochrone.ops.cli import sim as sim_module
from isochrone.ops.cli.main import cli

ROOT = Path(__file__).parents[2]


def isochrone(*arguments: str) -> Result:
    return CliRunner().invoke(cli, list(arguments))


def ran(*arguments: str) -> dict[str, object]:
    """What `--json` prints of a run that holds."""
    result = isochrone("sim", "run", "--json", *arguments)
    assert result.exit_code == 0, result.output
    plain: dict[str, object] = json.loads(result.stdout)
    return plain


def test_everything_drawn_is_printed_before_the_verdict() -> None:
    case = draw_case(5, Mode.LITE)
    result = isochrone("sim", "run", "--seed", "5", "--mode", "lite")
    assert result.exit_code == 0, result.output
    drawn, _, verdict = result.stdout.partition("\nholds: ")
    assert drawn.startswith("seed 5, mode lite, topology three-zones\n")
    for option in ("duration_ms 12000", f"rate_per_s {case.options.rate_per_s:g}", "clocks_honest ", "loss "):
        assert option in drawn
    assert [fault.description for fault in case.schedule if fault.description not in drawn] == []
    for words in ("per second of real time", "per second of CPU", "operations", "leader changes", "trace hash"):
        assert words in verdict


def test_one_object_is_printed_for_programs_and_is_a_case_file(tmp_path: Path) -> None:
    first = ran("--seed", "4", "--mode", "lite", "--history", str(tmp_path / "history.jsonl"))
    assert (first["seed"], first["verdict"]) == (4, "holds")
    assert {"trace_hash", "virtual_s", "wall_s", "options", "schedule"} <= set(first)
    with (tmp_path / "history.jsonl").open() as lines:
        assert len(list(from_lines(lines))) > 20
    file = tmp_path / "case.json"
    file.write_text(json.dumps(first))
    again = ran("--case", str(file))
    assert again["trace_hash"] == first["trace_hash"]


def test_a_seed_is_drawn_and_told_unless_it_is_given() -> None:
    first, second = (ran("--mode", "lite", "--duration", "1s") for _ in range(2))
    assert first["seed"] != second["seed"]
    again = ran("--mode", "lite", "--duration", "1s", "--seed", str(first["seed"]))
    assert again["trace_hash"] == first["trace_hash"]


def test_topology_and_duration_can_be_given() -> None:
    file = str(ROOT / "deploy/topologies/two-regions-and-witness.yaml")
    plain = ran("--seed", "1", "--mode", "perf", "--topology", file, "--duration", "2s")
    options = plain["options"]
    assert isinstance(options, dict)
    assert (options["topology"], options["duration_ms"], plain["schedule"]) == (file, 2000, [])


GOOD = {"options": {"seed": 1, "mode": "lite", "topology": "three-zones", "duration_ms": 2000}, "schedule": []}


def fault(**changed: object) -> dict[str, object]:
    return {"at_ms": 0, "duration_ms": 500, "kind": "crash", "targets": ["us-east-1a-1"], **changed}


def altered(**changed: object) -> str:
    return json.dumps({**GOOD, "options": {**GOOD["options"], **changed}})  # type: ignore[dict-item]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--seed", "-1"], "x>=0"),
        (["--seed", "1.5"], "integer"),
        (["--mode", "storm"], "lite"),
        (["--duration", "0s"], "above 0"),
        (["--duration", "100ms"], "--duration: found 0.1 s; allowed: 1.0 s to 1 h 0 min"),
        (["--duration", "2h"], "--duration: found 2 h 0 min; allowed: 1.0 s to 1 h 0 min"),
        (["--topology", "nowhere.yaml"], "nowhere.yaml"),
        (["--topology", "deploy"], "deploy"),
        (["--topology", "pyproject.toml"], "pyproject.toml"),
        (["--case", "nowhere.json"], "No such file"),
        (["--case", "deploy"], "directory"),
        (["--case", "case.json", "--seed", "1"], "--seed beside --case"),
        (["--case", "case.json", "--mode", "lite"], "--mode beside --case"),
        (["--case", "case.json", "--duration", "5s"], "--duration beside --case"),
        (["--seed", "1", "--history", "deploy/x/y"], "cannot be written"),
    ],
)
def test_arguments_that_cannot_be_are_refused(
    arguments: list[str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "case.json").write_text(json.dumps(GOOD))
    (tmp_path / "deploy").mkdir()
    (tmp_path / "deploy/x").write_text("a file")
    (tmp_path / "pyproject.toml").write_text("[project]")
    monkeypatch.chdir(tmp_path)
    result = isochrone("sim", "run", *arguments)
    assert (result.exit_code, result.stdout) == (2, ""), result.output
    assert words in result.stderr


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "not JSON"),
        ("{", "not JSON"),
        ("[]", "no options"),
        ("{}", "no options"),
        (json.dumps({**GOOD, "schedule": {}}), "a list of faults"),
        (json.dumps({**GOOD, "schedule": [7]}), "found 7"),
        (json.dumps({**GOOD, "schedule": [fault(kind="meteor")]}), "meteor"),
        (json.dumps({**GOOD, "schedule": [fault(at_ms="soon")]}), "soon"),
        (json.dumps({**GOOD, "schedule": [fault(targets=["us-east-1a-9"])]}), "'us-east-1a-9' is not known"),
        (json.dumps({**GOOD, "schedule": [fault(at_ms=1800)]}), "outside 0 to 2000"),
        (json.dumps({**GOOD, "schedule": [fault(kind="cut")]}), "found 1 targets; allowed: 2"),
        (
            json.dumps(
                {**GOOD, "schedule": [fault(kind="wipe-disk", targets=[f"us-east-1{zone}-1"]) for zone in "ab"]}
            ),
            "keeps 1 of 3 voters",
        ),
        (altered(mode="storm"), "storm"),
        (altered(colour="red"), "unknown key colour"),
        (altered(duration_ms="long"), "options"),
        (altered(duration_ms=None), "options"),
        (altered(loss=0.9), "loss: found 0.9"),
        (altered(topology="nowhere"), "nowhere"),
        (altered(topology=["three-zones"]), "topology"),
        (altered(seed=None), "seed"),
        (json.dumps({"options": {"seed": 1}, "schedule": []}), "options.mode: found nothing"),
        (json.dumps({"options": GOOD["options"], "shedule": []}), "schedule: found nothing"),
        (json.dumps({**GOOD, "schedule": [fault(at_ms=float("inf"))]}), "schedule[0].at_ms: found inf"),
        (altered(clock_offset_ms_max=float("nan")), "options.clock_offset_ms_max: found nan"),
        (altered(seed=-1), "seed: found -1; allowed: 0 or more"),
        ("[" * 100_000, "too many levels"),
    ],
)
def test_case_files_that_cannot_run_are_refused(text: str, words: str, tmp_path: Path) -> None:
    file = tmp_path / "case.json"
    file.write_text(text)
    result = isochrone("sim", "run", "--case", str(file))
    assert result.exit_code == 2, result.output
    assert result.stderr.startswith(f"{file}: ")
    assert words in result.stderr
    assert "Traceback" not in result.output
    assert "holds" not in result.stdout


@pytest.mark.parametrize(
    ("verdict", "status"),
    [
        (SimVerdict.HOLDS, 0),
        (SimVerdict.VIOLATION, 1),
        (SimVerdict.UNKNOWN, 3),
        (SimVerdict.NO_PROGRESS, 4),
        (SimVerdict.CRASHED, 5),
    ],
)
def test_the_exit_status_tells_the_verdict(verdict: SimVerdict, status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def run_case(options: SimOptions, schedule: Schedule, _: object) -> SimResult:
        figures = {"virtual_s": 1.0, "wall_s": 1.0, "cpu_s": 1.0, "events": 1}
        return SimResult(
            case=Case(options, schedule), verdict=verdict, reason="the evidence", trace_hash="5eed", **figures
        )  # type: ignore[arg-type]

    monkeypatch.setattr(sim_module, "run_case", run_case)
    result = isochrone("sim", "run", "--seed", "1", "--mode", "lite")
    assert result.exit_code == status
    assert f"{verdict}: the evidence" in result.stdout


def test_a_simulator_that_crashes_is_told_with_its_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    def run_case(*_: object) -> SimResult:
        raise ZeroDivisionError("planted")

    monkeypatch.setattr(sim_module, "run_case", run_case)
    result = isochrone("sim", "run", "--seed", "17", "--mode", "lite")
    assert result.exit_code == 5
    assert "seed 17: the simulator crashed" in result.stderr and "planted" in result.stderr


def started(*arguments: str, cwd: Path, **environment: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "isochrone.ops.cli.main", *arguments]
    path = os.pathsep.join(filter(None, [str(ROOT / "src"), os.environ.get("PYTHONPATH")]))
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": path} | environment,
    )


def children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def catches_signals(process: subprocess.Popen[str]) -> bool:
    """Whether a process has set a handler for SIGTERM, which Python itself does not."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    caught = int(next(line for line in status.splitlines() if line.startswith("SigCgt:")).split()[1], 16)
    return bool(caught >> (signal.SIGTERM - 1) & 1)


def ended_by(process: subprocess.Popen[str], number: signal.Signals, is_ready: Callable[[], bool]) -> tuple[str, str]:
    """Signal a process as soon as it catches signals and is ready; what it printed."""
    deadline_s = time.monotonic() + 60
    while not (catches_signals(process) and is_ready()):
        assert process.poll() is None and time.monotonic() < deadline_s
        os.sched_yield()
    process.send_signal(number)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + number, errors
    return output, errors


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_run_and_what_was_run_is_told(number: signal.Signals, tmp_path: Path) -> None:
    process = started("sim", "run", "--seed", "7", "--mode", "perf", "--duration", "1h", cwd=tmp_path)
    _, errors = ended_by(process, number, lambda: True)
    assert errors.startswith(f"ended by {number.name}; what was started is stopped; seed 7: "), errors
    assert len(errors.splitlines()) == 1, "nothing complains of being ended"


def test_a_signal_ends_a_swarm_its_workers_and_tells_what_was_run(tmp_path: Path) -> None:
    process = started("sim", "swarm", "--minutes", "60", "--mode", "lite", "--jobs", "2", "--json", cwd=tmp_path)
    workers: list[int] = []

    def is_ready() -> bool:
        workers[:] = children_of(process.pid)
        return len(workers) == 2

    output, errors = ended_by(process, signal.SIGINT, is_ready)
    assert "ended by SIGINT" in errors and "Traceback" not in errors
    assert json.loads(output)["runs"] >= 0
    assert [pid for pid in workers if Path(f"/proc/{pid}").exists()] == []


PLANTED = """
# A fault: a disk that has lost power forgets the last term, and its vote. Every schedule holds the crash that shows
# it, whatever the seed, among what does not.
from dataclasses import replace
from isochrone.drills.sim import run_os
from isochrone.drills.sim.disk import SimStore
from isochrone.drills.sim.schedule import Fault, FaultKind

crash = SimStore.crash

def forgetful_crash(self, keep=0):
    store = crash(self, keep)
    for group, stored in store._image.groups.items():
        forgotten = replace(stored.hard_state, term=stored.hard_state.term - 1, vote=None)
        store._image.groups[group] = replace(stored, hard_state=forgotten)
    return store

SimStore.crash = forgetful_crash
run_os.draw_schedule = lambda *_: (
    Fault(100, 900, FaultKind.LOSS, (), 0.05),
    Fault(300, 400, FaultKind.PAUSE, ("us-east-1b-1",)),
    Fault(500, 700, FaultKind.CRASH, ("us-east-1a-1",)),
    Fault(600, 900, FaultKind.DELAY, (), 20.0),
)
"""


def test_a_fault_is_found_kept_made_smaller_and_replayed(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(PLANTED)
    planted = {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT / "src")])}
    swarm = ("sim", "swarm", "--minutes", "0.01", "--mode", "lite", "--duration", "2s", "--jobs", "1", "--json")
    process = started(*swarm, cwd=tmp_path, **planted)
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 1, errors
    plain = json.loads(output)
    found = next(each for each in plain["failures"] if each["shrunk"])
    case, shrunk = (json.loads((tmp_path / found[name]).read_text()) for name in ("file", "shrunk"))
    assert case["verdict"] == shrunk["verdict"] == found["verdict"] == plain["verdict"] == "violation"
    assert case["reason"].split(":")[0] == shrunk["reason"].split(":")[0]
    assert [fault["kind"] for fault in shrunk["schedule"]] == ["crash"] and len(case["schedule"]) == 4
    assert shrunk["options"]["duration_ms"] < case["options"]["duration_ms"]

    for kept in (case, shrunk):
        process = started(*kept["replay"].split()[1:], "--json", cwd=tmp_path, **planted)
        again = json.loads(process.communicate(timeout=60)[0])
        assert process.returncode == 1
        assert (again["trace_hash"], again["reason"]) == (kept["trace_hash"], kept["reason"])

    process = started("sim", "shrink", found["file"], "--out", "small.json", cwd=tmp_path, **planted)
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 1, errors
    assert "replay it with: isochrone sim run --case small.json" in output
    assert json.loads((tmp_path / "small.json").read_text())["trace_hash"] == shrunk["trace_hash"]

    sound = isochrone("sim", "shrink", str(tmp_path / found["file"]), "--out", str(tmp_path / "none.json"))
    assert (sound.exit_code, "there is nothing to shrink" in sound.output) == (0, True), sound.output
    assert not (tmp_path / "none.json").exists()
    (tmp_path / "kept.json").write_text("mine")
    sound = isochrone("sim", "shrink", str(tmp_path / found["file"]), "--out", str(tmp_path / "kept.json"))
    assert (sound.exit_code, (tmp_path / "kept.json").read_text()) == (0, "mine"), sound.output


DEADLY = """
# One seed takes its process with it, as a fault in a library would.
import os
from isochrone.drills.sim.world import World

make = World.__init__

def deadly_make(self, options, topology, schedule):
    make(self, options, topology, schedule)
    if options.seed == 2:
        os._exit(9)

World.__init__ = deadly_make
"""


def test_a_worker_that_dies_is_told_with_its_seed_and_the_swarm_goes_on(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(DEADLY)
    planted = {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT / "src")])}
    swarm = ("sim", "swarm", "--minutes", "2", "--seeds", "8", "--mode", "lite", "--jobs", "2", "--seed", "1", "--json")
    process = started(*swarm, cwd=tmp_path, **planted)
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 5, errors
    plain = json.loads(output)
    assert [(each["seed"], each["failure"]) for each in plain["failures"]] == [(2, "crashed: the worker")]
    assert (plain["verdicts"]["crashed"], plain["runs"]) == (1, 8)
    case = json.loads((tmp_path / plain["failures"][0]["file"]).read_text())
    assert "ended with status 9" in case["reason"]
    assert ran("--case", str(tmp_path / plain["failures"][0]["file"]))["seed"] == 2, "without the fault it holds"


def test_a_swarm_runs_seeds_and_tells_what_it_found(tmp_path: Path) -> None:
    process = started(
        "sim",
        "swarm",
        "--minutes",
        "2",
        "--seeds",
        "8",
        "--mode",
        "lite",
        "--jobs",
        "2",
        "--seed",
        "1",
        "--json",
        cwd=tmp_path,
    )
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    plain = json.loads(output)
    assert plain == json.loads((tmp_path / "reports/swarm/swarm.json").read_text())
    assert (plain["verdict"], plain["first_seed"]) == ("holds", 1)
    assert plain["runs"] == plain["verdicts"]["holds"] == 8
    assert plain["faults"] and plain["operations"]["ok"] > 100
    assert sorted([*plain["probes"], *plain["probes_never_reached"]])


@pytest.mark.parametrize(
    "arguments",
    [
        ["--minutes", "0"],
        ["--minutes", "nan"],
        ["--minutes", "inf"],
        ["--minutes", "1", "--jobs", "0"],
        ["--minutes", "1", "--seeds", "0"],
        ["--minutes", "1", "--seed", "-3"],
        ["--minutes", "1", "--topology", "nowhere.yaml"],
        ["--minutes", "1", "--duration", "1ms"],
        ["--minutes", "1", "--out", "taken/below"],
        [],
    ],
)
def test_a_swarm_that_cannot_run_is_refused(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken").write_text("a file")
    assert isochrone("sim", "swarm", *arguments).exit_code == 2
