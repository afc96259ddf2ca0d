"""Simulated cases, their results, and swarms, as text and tables. Pure."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from isochrone.drills.sim.case import Case, SimResult, SimVerdict
from isochrone.drills.sim.plain import options_to_plain
from isochrone.drills.swarm.tally import WORST_FIRST, Tally
from isochrone.ops.cli.durations import in_words
from isochrone.ops.cli.tables import counted, heading, make_table

_STYLE = {SimVerdict.HOLDS: "green", SimVerdict.UNKNOWN: "yellow"}


def render_case(case: Case) -> Iterator[RenderableType]:
    """What will be run: every option, and the schedule."""
    options = options_to_plain(case.options)
    yield Text(f"seed {options.pop('seed')}, mode {options.pop('mode')}, topology {options.pop('topology')}")
    if case.story:
        yield Text(case.story)
    weights = options.pop("fault_weights")
    yield heading("options")
    yield Text("  ".join(f"{name} {_plain(value)}" for name, value in options.items()))
    if isinstance(weights, Mapping) and weights:
        yield Text("faults drawn from: " + ", ".join(f"{kind} {weight:g}" for kind, weight in weights.items()))
    yield heading(f"schedule: {counted(len(case.schedule), 'fault')}")
    if case.schedule:
        yield _schedule_table(case)


def _plain(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _schedule_table(case: Case) -> Table:
    table = make_table(("fault", "at s", "for s", "amount"), right_from=1)
    for fault in case.schedule:
        amount = f"{fault.amount:g}" if fault.amount else ""
        table.add_row(fault.description, f"{fault.at_ms / 1000:.3f}", f"{fault.duration_ms / 1000:.3f}", amount)
    return table


def render_result(result: SimResult) -> Iterator[RenderableType]:
    """The verdict, with its evidence, and the figures."""
    yield Text(f"\n{result.verdict}: {result.reason}", style=_STYLE.get(result.verdict, "red"))
    yield Text("")
    counters = result.counters
    faults = Counter(_beginning_with("fault_", counters))
    operations = _beginning_with("operations_", counters)
    speed = result.virtual_s / result.wall_s if result.wall_s else 0.0
    yield _facts(
        [
            (
                "virtual time",
                f"{result.virtual_s:.1f} s, {speed:.1f} s per second of real time, {result.speed:.1f} of CPU",
            ),
            ("events", f"{result.events:,}, {result.events_per_cpu_s:,.0f} per second of CPU"),
            ("operations", f"{sum(operations.values()):,}: {_counts(operations)}"),
            ("faults", f"{faults.total()} of {len(result.case.schedule)} had an effect: {_counts(faults)}"),
            ("leader changes", f"{counters.get('elections_won', 0)}"),
            ("fell asleep", counted(counters.get("raft_quiesced", 0), "replica")),
            ("frames", _counts(_beginning_with("frames_", counters))),
            ("rare states", _counts(result.probes)),
            ("trace hash", result.trace_hash),
        ]
    )


def _beginning_with(prefix: str, counters: Mapping[str, int]) -> dict[str, int]:
    return {name.removeprefix(prefix): count for name, count in counters.items() if name.startswith(prefix)}


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in sorted(counts.items())) or "none"


def _facts(facts: Sequence[tuple[str, str]]) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in facts:
        table.add_row(name, value)
    return table


def progress_line(tally: Tally, left_s: float) -> str:
    """How far a swarm has come."""
    bad = tally.runs - tally.verdicts[SimVerdict.HOLDS]
    left = f"{in_words(left_s)} left" if left_s > 0 else "finishing"
    return f"{tally.runs} seeds, {tally.virtual_s / 3600:.2f} virtual hours, {bad} did not hold, {left}"


def _never_reached(tally: Tally, marks: Sequence[str]) -> str:
    unreached = tally.never_reached(marks)
    should = ", ".join(mark for mark, why in unreached.items() if not why) or "none that should be"
    return "\n".join([should, *(f"{mark}: {why}" for mark, why in unreached.items() if why)])


def render_swarm(tally: Tally, marks: Sequence[str]) -> Iterator[RenderableType]:
    """What a swarm has run and found."""
    virtual_s = f"{tally.virtual_s / tally.cpu_s:.0f}" if tally.cpu_s else "0"
    events_s = f"{tally.events / tally.cpu_s:,.0f}" if tally.cpu_s else "0"
    yield heading(f"verdict: {tally.worst}")
    facts = [
        ("seeds", f"{tally.runs:,} in {in_words(tally.elapsed_s)}, {tally.seeds_per_minute:.0f} per minute"),
        ("verdicts", _counts({each.value: tally.verdicts[each] for each in WORST_FIRST if tally.verdicts[each]})),
        ("virtual time", f"{tally.virtual_s / 3600:.2f} h, {virtual_s} s per second of CPU"),
        ("events", f"{tally.events:,}, {events_s} per second of CPU"),
        ("operations", f"{tally.operations.total():,}: {_counts(tally.operations)}"),
        ("leader changes", f"{tally.elections:,}"),
        ("faults", f"{tally.faults.total():,}: {_counts(tally.faults)}"),
        ("rare states", f"{len(tally.probes)} of {len(marks)} reached: {_counts(tally.probes)}"),
        ("never reached", _never_reached(tally, marks)),
    ]
    if tally.slowest is not None:
        seed, speed = tally.slowest.case.options.seed, tally.slowest.speed
        facts.append(("slowest", f"seed {seed}: {speed:.0f} virtual seconds per second of CPU"))
    yield _facts(facts)
    if tally.kept:
        yield heading("kept")
        table = make_table(("seed", "what", "smallest case"))
        for kept in tally.kept:
            table.add_row(str(kept.seed), kept.failure, kept.shrunk or kept.file)
        yield table
