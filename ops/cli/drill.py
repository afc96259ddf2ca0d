"""`isochrone drill`: run a failure drill on real processes or in a simulated world, or check a drill file."""

import os
import shutil
import sys
import tempfile
import traceback
from datetime import UTC, datetime
from pathlib import Path

import click

from isochrone.drills.harness_os import LocalHarness
from isochrone.drills.harness_sim import simulate, world_of
from isochrone.drills.load_os import DrillError, LoadedDrill, load_drill
from isochrone.drills.record import DrillRecord
from isochrone.drills.report.report_os import describe_surroundings, write_report
from isochrone.drills.results import Results, judge
from isochrone.drills.runner import run_drill
from isochrone.drills.sim.loop import START_S
from isochrone.drills.verdict import ExitStatus, Verdict
from isochrone.errors import IsochroneError
from isochrone.node.deployment_ray import take_down
from isochrone.ops.cli.signals_os import Interrupted, ended_by_signal, run_until_signal
from isochrone.ops.cli.tables import counted

_MARK = {Verdict.TRUE: "holds", Verdict.FALSE: "FAILS", Verdict.UNKNOWN: "UNKNOWN"}
_file_argument = click.argument("file", type=click.Path(path_type=Path, readable=False))


@click.group("drill", no_args_is_help=True)
def drill_group() -> None:
    """Lose nodes, links and regions on purpose, and measure what happens.

    \b
    Examples:
      isochrone drill run deploy/drills/region-failover.yaml
      isochrone drill run deploy/drills/two-sites.yaml --report reports/two-sites --seed 7
      isochrone drill run deploy/drills/region-failover.yaml --sim
      isochrone drill validate deploy/drills/zone-failover.yaml
    """


@drill_group.command("validate", short_help="Check a file and report every fault.")
@_file_argument
def validate_command(file: Path) -> None:
    """Check FILE against its topology and report every fault, one a line: file, key, found, allowed.

    Exits with 0 if the file is right, with 2 if it is not. Starts nothing.

    \b
    Example:
      isochrone drill validate deploy/drills/region-failover.yaml
    """
    drill = _load_or_exit(file).document
    seconds = drill.workload.warm_up_s + drill.workload.duration_s
    clients = counted(len(drill.workload.clients), "region")
    click.echo(f"{file}: valid: {counted(len(drill.faults), 'fault')} in {seconds:g} s, clients in {clients}")


@drill_group.command("run", short_help="Run a drill, and write a report.")
@_file_argument
@click.option(
    "--report",
    "report_directory",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where report.html, report.json and history.jsonl go.  [default: reports/NAME]",
)
@click.option("--seed", type=click.IntRange(min=0), help="In place of the file's seed.")
@click.option("--sim", "simulated", is_flag=True, help="In a simulated world: virtual time, no processes, no Ray.")
def run_command(file: Path, report_directory: Path | None, seed: int | None, simulated: bool) -> None:
    """Run the drill in FILE on a deployment of its own, and write a report.

    Brings the topology up on this machine's own Ray, with links as slow as the real ones; runs clients in every
    region; makes the faults; heals; reads everything back; takes all down again; checks the history. Ctrl-C and SIGTERM
    stop it early: everything is taken down, and the report is written. Progress goes to standard error.

    With --sim the same drill runs in a simulated world within seconds, and the same seed gives the same run. Invariants
    are watched at every step; what software costs is not measured.

    \b
    Exit status:
      0  everything that the file expects holds
      1  an expectation or a safety check fails
      2  a file or an argument is wrong; nothing was started
      3  unknown: interrupted, or too little happened to judge
      4  no progress: the deployment did not serve again after the faults
      5  the harness itself crashed

    \b
    Examples:
      isochrone drill run deploy/drills/region-failover.yaml
      isochrone drill run deploy/drills/region-failover.yaml --report /tmp/failover --seed 42
      isochrone drill run deploy/drills/zone-failover.yaml --sim --seed 42
    """
    loaded = _load_or_exit(file)
    # Absolute, because Ray's driver changes its working directory.
    reports = Path(os.path.abspath(report_directory or Path("reports") / loaded.document.name))
    _check_writable_or_exit(reports)
    drill = _drill_simulated if simulated else _drill
    try:
        status = drill(loaded, reports, loaded.document.seed if seed is None else seed)
    except Exception as error:
        # A full disk under the report, a deployment that cannot be taken down, a fault of ours: never a verdict.
        known = isinstance(error, IsochroneError | OSError)
        click.echo(f"isochrone: {error}" if known else traceback.format_exc(), err=True)
        status = ExitStatus.HARNESS_CRASHED
    sys.exit(int(status))


def _drill(loaded: LoadedDrill, reports: Path, seed: int) -> ExitStatus:
    """Run the drill, judge it, report and show what came out."""
    started_at = datetime.now(UTC)
    record = DrillRecord(loaded.document, loaded.topology, seed)
    directory = Path(tempfile.mkdtemp(prefix="isochrone-drill-"))
    _run(loaded, record, directory, started_at)
    results = _report(record, reports, started_at)
    interrupted = record.interrupted and results.exit_status is ExitStatus.UNKNOWN
    if results.exit_status is ExitStatus.HOLDS or interrupted or not any(directory.iterdir()):
        shutil.rmtree(directory)
    else:
        click.echo(f"data and logs of the nodes: {directory}")
    return results.exit_status


def _drill_simulated(loaded: LoadedDrill, reports: Path, seed: int) -> ExitStatus:
    """As `_drill`, in a simulated world."""
    started_at = datetime.now(UTC)
    record = DrillRecord(loaded.document, loaded.topology, seed)
    world = world_of(record)

    def progress(line: str) -> None:
        click.echo(f"[{world.loop.now_s - START_S:5.1f} s] {line}", err=True)

    try:
        with ended_by_signal(world.loop.interrupt):
            simulate(record, world, progress)
    except Interrupted as end:
        record.interrupted = True
        click.echo(str(end), err=True)
    except Exception as error:
        _note_crash(record, error)
    return _report(record, reports, started_at).exit_status


def _report(record: DrillRecord, reports: Path, started_at: datetime) -> Results:
    """Judge a run, write its report, and show what came out."""
    click.echo("checking the history", err=True)
    results = _judge(record)
    write_report(reports, record, results, describe_surroundings(started_at))
    _show(record, results, reports)
    return results


def _judge(record: DrillRecord) -> Results:
    """Check the history. Ctrl-C ends the one check that takes long, and leaves the verdict unknown."""
    try:
        return judge(record)
    except KeyboardInterrupt:
        record.interrupted = True
        click.echo("interrupted; the report is written without a check of the history", err=True)
        return judge(record, steps_max=0)


def _run(loaded: LoadedDrill, record: DrillRecord, directory: Path, started_at: datetime) -> None:
    """Run the drill; what ends it early is written into the record."""

    def progress(line: str) -> None:
        elapsed = (datetime.now(UTC) - started_at).total_seconds()
        click.echo(f"[{elapsed:5.1f} s] {line}", err=True)

    async def run() -> None:
        harness = LocalHarness(loaded.topology_file, directory, record.seed)
        try:
            await run_drill(record, harness, progress)
        finally:
            harness.close()

    try:
        run_until_signal(run())
    except Interrupted as end:
        record.interrupted = True
        click.echo(str(end), err=True)
    except Exception as error:
        _note_crash(record, error)
    try:
        # Nothing is left to do, unless stopping itself failed or was interrupted.
        take_down(directory)
    except IsochroneError as error:
        _note_crash(record, error)


def _note_crash(record: DrillRecord, error: Exception) -> None:
    """Write down what ended a drill. An error of ours is a sentence; any other is shown with its traceback."""
    record.crash = f"{type(error).__name__}: {error}"
    known = isinstance(error, IsochroneError)
    click.echo(f"error: {error}" if known else "".join(traceback.format_exception(error)), err=True)


def _load_or_exit(file: Path) -> LoadedDrill:
    try:
        return load_drill(file)
    except DrillError as error:
        for problem in error.problems:
            click.echo(str(problem), err=True)
        sys.exit(int(ExitStatus.BAD_INPUT))


def _check_writable_or_exit(directory: Path) -> None:
    """A report that cannot be written is found before the drill, not after it."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "report.json").touch()
    except OSError as error:
        click.echo(f"cannot write the report: {error}", err=True)
        sys.exit(int(ExitStatus.BAD_INPUT))


def _show(record: DrillRecord, results: Results, reports: Path) -> None:
    click.echo("")
    for check in results.checks:
        click.echo(f"{_MARK[check.verdict]:8} {check.name}: {check.reason}")
    click.echo("")
    for name, time_s in results.recovery_time_s.items():
        recovered = "none before the fault ended" if time_s is None else f"{time_s:.2f} s"
        click.echo(f"recovery time of {name}: {recovered}")
    for row in results.latencies:
        click.echo(
            f"commit latency {row.keyspace} from {row.region}, leader {row.leader}: p50 {row.p50_ms:.1f} ms, expected "
            f"{row.predicted_ms:.1f} + {row.software_ms:.1f} ms: {'within' if row.within else 'outside'} tolerance"
        )
    if record.simulated is not None:
        click.echo(
            f"simulated, seed {record.seed}, trace hash {record.simulated.trace_hash}; latencies are not compared"
        )
    lost = "unknown" if results.acknowledged_writes_lost is None else str(results.acknowledged_writes_lost)
    click.echo(f"acknowledged writes lost: {lost} of {results.acknowledged_writes}")
    click.echo(f"verdict: {results.verdict} (exit status {int(results.exit_status)})")
    click.echo(f"report: {reports / 'report.html'}")
