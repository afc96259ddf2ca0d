"""`isochrone sim`: run the production code in a simulated world, from a seed."""

import json
import os
import secrets
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from isochrone.drills.history import to_lines
from isochrone.drills.sim.case import Case, SimResult, SimVerdict, result_to_plain
from isochrone.drills.sim.loop import START_S
from isochrone.drills.sim.options import DURATION_MS_MAX, DURATION_MS_MIN, Mode
from isochrone.drills.sim.run_os import draw_case, run_case, shipped_topologies
from isochrone.drills.sim.world import World
from isochrone.drills.swarm.jobs_os import NotReproducible, shrink_case
from isochrone.drills.swarm.kept_os import read_case, replay_command, write_case
from isochrone.drills.swarm.marks_os import package_marks
from isochrone.drills.swarm.swarm_os import Swarm, SwarmPlan, describe_shrunk
from isochrone.drills.swarm.tally import tally_to_plain
from isochrone.drills.verdict import ExitStatus
from isochrone.errors import InvalidRequest
from isochrone.ops.cli.durations import Duration, in_words
from isochrone.ops.cli.progress_os import say, shown_while
from isochrone.ops.cli.signals_os import Interrupted, ended_by_signal, run_until_signal
from isochrone.ops.cli.sim_view import progress_line, render_case, render_result, render_swarm
from isochrone.ops.cli.tables import counted, print_parts

_EXIT_STATUS = {
    SimVerdict.HOLDS: ExitStatus.HOLDS,
    SimVerdict.VIOLATION: ExitStatus.FAILS,
    SimVerdict.UNKNOWN: ExitStatus.UNKNOWN,
    SimVerdict.NO_PROGRESS: ExitStatus.NO_PROGRESS,
    SimVerdict.CRASHED: ExitStatus.HARNESS_CRASHED,
}
SEED_MAX = 2**32
"""Seeds that are drawn are below this."""

_topology_option = click.option(
    "--topology",
    metavar="FILE",
    help="A topology file, or the name of one that ships with the simulator: "
    f"{', '.join(shipped_topologies())}.  [default: by mode and seed]",
)
_duration_option = click.option(
    "--duration",
    type=Duration(),
    metavar="TIME",
    help="Virtual time in which faults run, such as 90s or 5m.  [default: 12s in mode lite, else 60s]",
)
_mode_option = click.option(
    "--mode",
    type=click.Choice([mode.value for mode in Mode]),
    default=Mode.SWARM.value,
    show_default=True,
    help="lite: three nodes, short. swarm: everything is drawn. perf: no faults.",
)
_json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object, and nothing else.")


@click.group("sim", no_args_is_help=True)
def sim_group() -> None:
    """Run the production code in a simulated world: virtual time, and faults that a seed replays exactly.

    \b
    Exit status:
      0    everything holds
      1    a safety check or an invariant is violated
      2    a file or an argument is wrong; nothing was run
      3    unknown: a check could not decide
      4    no progress: the healed system did not serve again
      5    the simulator itself crashed
      130  ended by Ctrl-C; what was run is told

    \b
    Examples:
      isochrone sim run --seed 7
      isochrone sim swarm --minutes 5
      isochrone sim run --case reports/swarm/seed-7.json
    """


@sim_group.command("run", short_help="Run one seed, or one case file.")
@click.option("--seed", type=click.IntRange(min=0), help="Drawn and printed unless given.")
@_topology_option
@_duration_option
@_mode_option
@click.option("--case", "case_file", type=click.Path(path_type=Path), help="Run this case instead of a seed's.")
@click.option(
    "--history",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write what the clients saw to this file, in the format of Jepsen histories.",
)
@_json_option
@click.pass_context
def run_command(
    ctx: click.Context,
    seed: int | None,
    topology: str | None,
    duration: float | None,
    mode: str,
    case_file: Path | None,
    history: Path | None,
    as_json: bool,
) -> None:
    """Run one seed, or one case file, and print what came of it.

    The seed, every drawn option and the fault schedule are printed first. The same case gives the same trace hash
    again. A case file is what `--json` prints: options and schedule.

    \b
    Examples:
      isochrone sim run --seed 7 --mode lite
      isochrone sim run --seed 7 --topology deploy/topologies/five-sites.yaml --duration 5m
      isochrone sim run --seed 7 --json > case.json
      isochrone sim run --case case.json --history history.jsonl
    """
    with _bad_input_refused():
        if case_file is None:
            drawn = secrets.randbelow(SEED_MAX) if seed is None else seed
            case = draw_case(drawn, Mode(mode), topology, _ms(duration))
        else:
            _refuse_beside_case(ctx)
            case = read_case(case_file)
        if history is not None:
            _check_writable(history)
        if as_json:
            say(f"seed {case.options.seed}")
        else:
            print_parts(render_case(case))
        result = _run(case, history)
    if as_json:
        click.echo(json.dumps(result_to_plain(result), indent=1))
    else:
        print_parts(render_result(result))
    sys.exit(int(_EXIT_STATUS[result.verdict]))


@sim_group.command("shrink", short_help="Look for a smaller case that fails alike.")
@click.argument("case_file", metavar="CASE", type=click.Path(path_type=Path))
@click.option("--limit", type=Duration(), default=120.0, metavar="TIME", help="Stop looking after it.  [default: 2m]")
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Where the smaller case goes.  [default: beside CASE, with -shrunk in its name]",
)
def shrink_command(case_file: Path, limit: float, out: Path | None) -> None:
    """Look for a smaller case that fails in the same way as CASE: fewer and shorter faults, less time, less load.

    Exits with the status that CASE itself has; with 0 there was nothing to shrink.

    \b
    Examples:
      isochrone sim run --seed 7 --json > case.json
      isochrone sim shrink case.json --limit 5m
    """
    target = out or case_file.with_name(f"{case_file.stem}-shrunk.json")
    with _bad_input_refused():
        case = read_case(case_file)
        _check_writable(target)
        first = _run(case, None)
        if first.verdict is SimVerdict.HOLDS:
            click.echo(f"{case_file} holds; there is nothing to shrink")
            return
        try:
            with ended_by_signal():
                shrunk = shrink_case(first, limit)
        except Interrupted as end:
            say(f"{end}; no smaller case was written")
            sys.exit(end.exit_status)
        except NotReproducible as error:
            say(f"{case_file} cannot be shrunk: {error}")
            sys.exit(int(ExitStatus.HARNESS_CRASHED))
    write_case(target, shrunk.result)
    print_parts(render_case(shrunk.result.case))
    print_parts(render_result(shrunk.result))
    click.echo(f"\n{describe_shrunk(first, shrunk)}; replay it with: {replay_command(target)}")
    sys.exit(int(_EXIT_STATUS[first.verdict]))


@sim_group.command("swarm", short_help="Run seeds on all cores for some minutes.")
@click.option("--minutes", type=float, required=True, help="Begin new seeds for so long.")
@click.option("--seeds", type=click.IntRange(min=1), help="Run at most so many seeds.")
@click.option("--jobs", type=click.IntRange(min=1), help="Worker processes.  [default: one for each core]")
@_topology_option
@_duration_option
@_mode_option
@click.option("--seed", type=click.IntRange(min=0), help="The first seed; the others follow it. Drawn unless given.")
@click.option(
    "--out",
    "directory",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("reports/swarm"),
    show_default=True,
    help="Where cases that do not hold are kept.",
)
@_json_option
def swarm_command(
    minutes: float,
    seeds: int | None,
    jobs: int | None,
    topology: str | None,
    duration: float | None,
    mode: str,
    seed: int | None,
    directory: Path,
    as_json: bool,
) -> None:
    """Run seed after seed on all cores, and tell what they found.

    A case that does not hold is kept as a file in the --out directory; the first one of each kind is also made smaller.
    At the end come the counts, and the marks for rare states that no run reached. Exits with the status of the worst
    verdict; see `isochrone sim --help`.

    \b
    Examples:
      isochrone sim swarm --minutes 30
      isochrone sim swarm --minutes 10 --seeds 100 --jobs 2 --seed 1 --mode lite --json
    """
    with _bad_input_refused():
        if not 0 < minutes < float("inf"):
            raise InvalidRequest(f"--minutes: found {minutes:g}; allowed: a number above 0")
        plan = SwarmPlan(
            minutes=minutes,
            seeds=seeds,
            jobs=jobs or len(os.sched_getaffinity(0)),
            first_seed=secrets.randbelow(SEED_MAX) if seed is None else seed,
            mode=Mode(mode),
            topology=topology,
            duration_ms=_ms(duration),
            directory=directory,
        )
        draw_case(plan.first_seed, plan.mode, plan.topology, plan.duration_ms)  # What is wrong is wrong for every seed.
        _check_writable(directory / "swarm.json")
    say(f"mode {mode}, seeds from {plan.first_seed} on, {counted(plan.jobs, 'worker')}")
    swarm = Swarm(plan, say)
    status = _swarm(swarm)
    marks = package_marks()
    plain = {"first_seed": plan.first_seed, "mode": mode, **tally_to_plain(swarm.tally, marks)}
    (directory / "swarm.json").write_text(json.dumps(plain, indent=1) + "\n", "utf-8")
    if as_json:
        click.echo(json.dumps(plain, indent=1))
    else:
        print_parts(render_swarm(swarm.tally, marks))
    sys.exit(status)


def _swarm(swarm: Swarm) -> int:
    """Run a swarm; its exit status."""
    end_s = time.monotonic() + swarm.plan.minutes * 60

    def describe() -> str:
        return progress_line(swarm.tally, end_s - time.monotonic())

    try:
        with shown_while(describe, lines=True):
            run_until_signal(swarm.run())
    except Interrupted as end:
        say(str(end))
        return end.exit_status
    except Exception:
        say(f"the swarm itself crashed\n{traceback.format_exc()}")
        return int(ExitStatus.HARNESS_CRASHED)
    return int(_EXIT_STATUS[swarm.tally.worst])


def _run(case: Case, history: Path | None) -> SimResult:
    """Run a case; a signal or a crash of the simulator ends the command."""
    worlds: list[World] = []

    def how_far() -> str:
        if not worlds:
            return "nothing was run"
        return f"{worlds[0].loop.now_s - START_S:.1f} virtual seconds, in the phase {worlds[0].outline.phase}"

    def stop() -> None:
        if not worlds or worlds[0].loop.is_closed():
            raise KeyboardInterrupt  # It runs no more; its history is being checked.
        worlds[0].loop.interrupt()

    seed = case.options.seed
    try:
        with ended_by_signal(stop), shown_while(lambda: f"seed {seed}: {how_far()}"):
            return run_case(case.options, case.schedule, worlds.append)
    except Interrupted as end:
        say(f"{end}; seed {seed}: {how_far()}")
        sys.exit(end.exit_status)
    except InvalidRequest:
        raise
    except Exception:
        say(f"seed {seed}: the simulator crashed: {how_far()}\n{traceback.format_exc()}")
        sys.exit(int(ExitStatus.HARNESS_CRASHED))
    finally:
        if history is not None and worlds:
            history.write_text("".join(f"{line}\n" for line in to_lines(worlds[0].outline.operations)), "utf-8")


@contextmanager
def _bad_input_refused() -> Iterator[None]:
    try:
        yield
    except InvalidRequest as error:
        click.echo(str(error), err=True)
        sys.exit(int(ExitStatus.BAD_INPUT))


def _refuse_beside_case(ctx: click.Context) -> None:
    """A case file holds all of these."""
    for name in ("seed", "topology", "duration", "mode"):
        if ctx.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE:
            raise InvalidRequest(f"--{name} beside --case; allowed: one of them, as a case file holds its own {name}")


def _check_writable(file: Path) -> None:
    """A file that cannot be written is found before the run, not after it. What is there stays, and nothing is left."""
    is_there = file.exists()
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("a"):
            pass
        if not is_there:
            file.unlink()
    except OSError as error:
        raise InvalidRequest(f"{file} cannot be written: {error.strerror}") from error


def _ms(duration_s: float | None) -> int | None:
    """A duration as a run takes it. Raises `InvalidRequest` in the words of the option."""
    if duration_s is None:
        return None
    if not DURATION_MS_MIN <= duration_s * 1000 <= DURATION_MS_MAX:
        allowed = f"{in_words(DURATION_MS_MIN / 1000)} to {in_words(DURATION_MS_MAX / 1000)}"
        raise InvalidRequest(f"--duration: found {in_words(duration_s)}; allowed: {allowed}")
    return round(duration_s * 1000)
