"""`report.html`: one self-contained page, for people. No network, light and dark, printable."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from isochrone.drills.history import Outcome
from isochrone.drills.measure import SETTLE_S
from isochrone.drills.record import DrillRecord
from isochrone.drills.report.figures import Surroundings
from isochrone.drills.report.timeline import draw_timeline, region_colour
from isochrone.drills.report.world import draw_world
from isochrone.drills.results import Results
from isochrone.drills.verdict import ExitStatus, Verdict
from isochrone.ids import ReplicaRole
from isochrone.topology.model import SurvivalGoal

_HEADLINE = {Verdict.TRUE: "Holds", Verdict.FALSE: "Fails", Verdict.UNKNOWN: "Unknown"}
_STATUS = {
    ExitStatus.HOLDS: "every check holds",
    ExitStatus.FAILS: "a check fails",
    ExitStatus.BAD_INPUT: "bad input",
    ExitStatus.UNKNOWN: "not enough is known",
    ExitStatus.NO_PROGRESS: "no progress after the faults",
    ExitStatus.HARNESS_CRASHED: "the harness crashed",
}


@dataclass(frozen=True, slots=True)
class Assets:
    """What the page is made of besides the figures."""

    style: str
    script: str
    land: dict[str, Any]
    """GeoJSON of the land."""


def to_page(record: DrillRecord, results: Results, surroundings: Surroundings, assets: Assets) -> str:
    """The page as text."""
    drill = record.drill
    body = [
        _header(record, results),
        _tiles(record, results),
        _timeline(record, results),
        '<div class="columns">',
        _section("Recovery", _RECOVERY_NOTE, _recovery_table(results)),
        _section(
            "Where",
            f"Topology {drill.topology.rpartition('/')[2]}: median round trips, links as shaped in the drill.",
            draw_world(record, results, assets.land),
        ),
        "</div>",
        _section("Checks", "Unknown is not a pass.", _checks_table(results)),
        _latency_section(record, results),
        '<div class="columns">',
        _section("Operations", "What the clients were told.", _operations_table(results)),
        _section("Groups", "Voters in the order of their places.", _groups_table(record)),
        "</div>",
        _section("Run", "", _run_facts(record, surroundings)),
        "<footer>Beside this page: report.json holds every figure, history.jsonl every operation.</footer>",
    ]
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(drill.name)}: '
        f'{_HEADLINE[results.verdict]}</title><meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{assets.style}</style></head><body><main>{''.join(body)}</main>"
        f"<script>{assets.script}</script></body></html>\n"
    )


_RECOVERY_NOTE = (
    "From the first link cut to the first acknowledged write issued outside the faulted region after the last one that "
    "failed. Without a failure, to the first one acknowledged. A keyspace with goal zone is rightly gone while its "
    "home region is."
)


def _header(record: DrillRecord, results: Results) -> str:
    return (
        f'<header><div><div class="brand">Isochrone drill{", simulated" if record.simulated else ""}</div>'
        f"<h1>{escape(record.drill.name)}</h1><p>{escape(record.drill.description)}</p></div>"
        f'<div class="verdict {results.verdict}">{_HEADLINE[results.verdict]}'
        f"<small>{_STATUS[results.exit_status]}</small></div></header>"
    )


def _tiles(record: DrillRecord, results: Results) -> str:
    lost = results.acknowledged_writes_lost
    bounded = {name: results.recovery_time_s.get(name) for name in record.drill.expect.recovery_within_s}
    known = {name: time for name, time in bounded.items() if time is not None}
    slowest = max(known, key=lambda name: known[name]) if known and len(known) == len(bounded) else None
    answered = sum(row["ok"] for row in results.counts.values())
    total = sum(sum(row.values()) for row in results.counts.values())
    tiles = [
        (
            "unknown" if lost is None else str(lost),
            "doubt" if lost is None else "bad" if lost else "good",
            f"acknowledged writes lost, of {results.acknowledged_writes:,}",
        ),
        (
            "none" if slowest is None else f"{known[slowest]:.2f} s",
            "doubt" if slowest is None else "",
            f"until {slowest} took writes again" if slowest else "recovery of a bounded keyspace",
        ),
        (f"{answered:,}", "", f"operations answered, of {total:,} asked"),
        (str(len(results.faults)), "", "faults: " + (_faults_in_words(results) or "none")),
    ]
    cells = (
        f'<div class="tile"><b class="{css}">{escape(big)}</b><span>{escape(small)}</span></div>'
        for big, css, small in tiles
    )
    return f'<div class="tiles">{"".join(cells)}</div>'


def _faults_in_words(results: Results) -> str:
    return ", ".join(dict.fromkeys(fault.description for fault in results.faults))


def _timeline(record: DrillRecord, results: Results) -> str:
    picture = draw_timeline(record, results)
    if not picture:
        return _section("Timeline", "No operation was recorded.", "")
    words = {
        Outcome.OK: "acknowledged",
        Outcome.FAIL: "refused, surely without effect",
        Outcome.INFO: "outcome unknown",
    }
    legend = "".join(
        f'<span><i style="background:var(--{outcome.value})"></i>{text}</span>' for outcome, text in words.items()
    )
    buttons = '<button data-keyspace="" aria-pressed="true">all keyspaces</button>' + "".join(
        f'<button data-keyspace="{escape(name)}" aria-pressed="false">{escape(name)}</button>'
        for name in record.drill.workload.keyspaces
    )
    note = "Each dot is one operation of a client in that region: when it was asked, and how long until the answer."
    return _section("Timeline", note, f'<div class="legend">{legend}{buttons}</div>{picture}')


def _recovery_table(results: Results) -> str:
    if not results.faults:
        return '<p class="muted">No fault ran.</p>'
    rows = [
        (
            _whole(fault.description),
            f"<code>{escape(name)}</code>",
            f"{fault.failed_writes[name]:,}",
            '<span class="muted">not before its end</span>' if time is None else f"{time:.2f} s",
        )
        for fault in results.faults
        for name, time in fault.recovery_time_s.items()
    ]
    return _table(("fault", "keyspace", "failed", "writes again after"), rows, numbers=(2, 3))


def _checks_table(results: Results) -> str:
    rows = [
        (escape(check.name), f'<span class="pill {check.verdict}">{check.verdict}</span>', escape(check.reason))
        for check in results.checks
    ]
    return _table(("check", "verdict", "why"), rows)


def _latency_section(record: DrillRecord, results: Results) -> str:
    title = "Commit latency against its prediction"
    if record.simulated:
        note = (
            "Not compared: in a simulation software takes no time, so latencies say nothing of a real deployment. The "
            "same drill on real processes measures them."
        )
        return _section(title, note, "")
    return _section(title, _latency_note(), _latency_table(record, results))


def _latency_note() -> str:
    return (
        "Acknowledged writes at least "
        f"{SETTLE_S:g} s away from any fault, by the leader that answered. Expected = predicted from the round trips + "
        "software term (p50 of writes under the same load with links unshaped, measured when the drill began). Within: "
        "15 % for goal region, 3 ms for goal zone."
    )


def _latency_table(record: DrillRecord, results: Results) -> str:
    if not results.latencies:
        return '<p class="muted">Too few writes outside faults to compare.</p>'
    header = ("keyspace", "goal", "client in", "leader", "writes", "p50", "p99", "expected", "p50 − expected", "")
    rows = []
    for row in results.latencies:
        share = f" ({row.difference_ms / row.expected_ms:+.0%})" if row.goal is SurvivalGoal.REGION else ""
        expected = f"{row.expected_ms:.1f} ms = {row.predicted_ms:.1f} + {row.software_ms:.1f}"
        verdict = "true" if row.within else "unknown"
        rows.append(
            (
                f"<code>{escape(row.keyspace)}</code>",
                row.goal.value,
                f'<i class="bar" style="background:{region_colour(record, row.region)}"></i>{escape(row.region)}',
                escape(row.leader),
                f"{row.samples:,}",
                f"{row.p50_ms:.1f} ms",
                f"{row.p99_ms:.1f} ms",
                expected,
                f"{row.difference_ms:+.1f} ms{share}",
                f'<span class="pill {verdict}">{"within" if row.within else "outside"}</span>',
            )
        )
    return _table(header, rows, numbers=(4, 5, 6, 7, 8, 9))


def _operations_table(results: Results) -> str:
    rows = [
        (escape(kind), *(f"{row[outcome.value]:,}" for outcome in Outcome), f"{sum(row.values()):,}")
        for kind, row in results.counts.items()
    ]
    return _table(("kind", "acknowledged", "refused", "unknown", "all"), rows, numbers=(1, 2, 3, 4))


def _groups_table(record: DrillRecord) -> str:
    rows = []
    for group in record.topology.groups:
        keyspaces = " ".join(each.id for each in record.topology.keyspaces if each.group == group.id)
        voters = ", ".join(
            _whole(replica.node + ("" if replica.role is ReplicaRole.FULL else f" ({replica.role})"))
            for replica in group.replicas
        )
        timeout = f"{group.election_timeout_ms}–{group.election_timeout_ms * 3 // 2} ms"
        rows.append((f"{_whole(group.id)}<br><code>{escape(keyspaces)}</code>", voters, _whole(timeout)))
    return _table(("group", "voters", "election timeout"), rows, numbers=(2,))


def _run_facts(record: DrillRecord, surroundings: Surroundings) -> str:
    phases = ", ".join(f"{phase.name} {(phase.end_ns - phase.start_ns) / 1e9:.1f} s" for phase in record.phases)
    software = ", ".join(f"{name} {term:.1f} ms" for name, term in record.software_ms.items())
    facts = [
        ("started", surroundings.started_at),
        ("took", f"{surroundings.elapsed_s:.0f} s in all; {phases}{' of virtual time' if record.simulated else ''}"),
        ("simulated", _simulated_in_words(record)),
        ("seed", str(record.seed)),
        ("software term", software),
        ("topology", f"{record.topology.name}, latencies: {record.topology.latencies}"),
        ("versions", ", ".join(f"{name} {version}" for name, version in surroundings.versions.items())),
        ("machine", ", ".join(f"{name} {value}" for name, value in surroundings.machine.items())),
    ]
    return "<dl>" + "".join(f"<dt>{name}</dt><dd>{escape(value)}</dd>" for name, value in facts if value) + "</dl>"


def _simulated_in_words(record: DrillRecord) -> str:
    if record.simulated is None:
        return ""
    return f"in virtual time; the same seed gives the same run, with trace hash {record.simulated.trace_hash}"


def _whole(words: str) -> str:
    """Text that is not broken over lines."""
    return f'<span class="whole">{escape(words)}</span>'


def _section(title: str, note: str, content: str) -> str:
    paragraph = f"<p>{escape(note)}</p>" if note else ""
    return f"<section><h2>{escape(title)}</h2>{paragraph}{content}</section>"


def _table(header: Sequence[str], rows: Iterable[Sequence[str]], numbers: Sequence[int] = ()) -> str:
    """A table of HTML cells; the columns in `numbers` stand to the right."""
    head = "".join(f'<th class="{"n" if at in numbers else ""}">{name}</th>' for at, name in enumerate(header))
    body = "".join(
        "<tr>"
        + "".join(f'<td class="{"n" if at in numbers else ""}">{cell}</td>' for at, cell in enumerate(row))
        + "</tr>"
        for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
