"""Prints what `regional.py --output` has written as tables in Markdown, for `docs/performance.md`.

.venv/bin/python bench/markdown.py reports/regional.json
"""

import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

from figures import Load
from sides import ENDPOINT, ETCD, IN_FLIGHT, SDK, SDK_WITNESS, WITNESS_MEASURES
from targets import CEILING, SERVERS, Results, judge

SIDES = {ETCD: "etcd", SDK: SDK, SDK_WITNESS: SDK_WITNESS, ENDPOINT: "our etcd endpoint"}
CLIENTS = ("client", "h2load")
FINE_US = 10
"""Below so many microseconds a decimal is told."""
Rows: TypeAlias = Iterator[Sequence[str]]


def results_of(document: Mapping[str, Mapping[str, Mapping[str, Sequence[Mapping[str, object]]]]]) -> Results:
    """The loads of a document that `regional.py` has written."""
    return {
        side: {name: [_load(dict(plain)) for plain in loads] for name, loads in found.items()}
        for side, found in document["results"].items()
    }


def _load(plain: dict[str, object]) -> Load:
    del plain["per_s"]
    return Load(**plain)  # type: ignore[arg-type]


def rates(results: Results) -> Rows:
    """Operations per second and latencies, with the ratios of ours to etcd's."""
    return _beside_etcd(results, IN_FLIGHT, (SDK, ENDPOINT))


def forms(results: Results) -> Rows:
    """The same of both forms of a group, where both were measured."""
    return _beside_etcd(results, WITNESS_MEASURES, (SDK, SDK_WITNESS))


def _beside_etcd(results: Results, names: Iterable[str], ours: Sequence[str]) -> Rows:
    heads = [head for side in ours for head in _heads(side)]
    yield "measure", "in flight", *[f"{SIDES[ETCD]} /s", "p50 / p99 ms"], *heads
    for name in names:
        for in_flight in IN_FLIGHT[name]:
            theirs, *found = (_at(results, side, name, in_flight) for side in (ETCD, *ours))
            if theirs or any(found):
                cells = [cell for load in found for cell in (*_cells(load), _ratio(load, theirs))]
                yield name, str(in_flight), *_cells(theirs), *cells


def _heads(side: str) -> tuple[str, str, str]:
    return f"{SIDES[side]} /s", "p50 / p99 ms", "ratio"


def processor_times(results: Results) -> Rows:
    """Processor time per operation where each side did best: over all servers, and of the client."""
    yield "CPU µs per operation at the best: servers + client", *SIDES.values()
    for name in IN_FLIGHT:
        bests = [_best(results, side, name) for side in SIDES]
        if any(bests):
            yield name, *["" if best is None else _spent(best) for best in bests]


def ceilings(results: Results) -> Rows:
    """What servers reach that do nothing."""
    yield "unary echo", "in flight", "calls/s", "server CPU µs"
    for server, described in SERVERS.items():
        for load in results.get(server, {}).get(CEILING, ()):
            yield described, str(load.in_flight), f"{load.per_s:,.0f}", _us(load.cpu_us["server"])


def targets(results: Results) -> Rows:
    """Each target, met or not."""
    yield "target", "ratio", "at least", ""
    for each in judge(results):
        yield each.what, f"{each.ratio:.2f}", f"{each.at_least:g}", "met" if each.met else "**not met**"


def _at(results: Results, side: str, name: str, in_flight: int) -> Load | None:
    return next((load for load in results.get(side, {}).get(name, ()) if load.in_flight == in_flight), None)


def _best(results: Results, side: str, name: str) -> Load | None:
    return max(results.get(side, {}).get(name, ()), key=lambda load: load.per_s, default=None)


def _cells(load: Load | None) -> tuple[str, str]:
    return ("", "") if load is None else (f"{load.per_s:,.0f}", f"{load.p50_ms:.2f} / {load.p99_ms:.1f}")


def _ratio(ours: Load | None, theirs: Load | None) -> str:
    return f"{ours.per_s / theirs.per_s:.2f}" if ours and theirs and theirs.per_s else ""


def _spent(load: Load) -> str:
    client = sum(us for name, us in load.cpu_us.items() if name in CLIENTS)
    servers = sum(us for name, us in load.cpu_us.items() if name not in CLIENTS)
    return f"{_us(servers)} + {_us(client)} ({load.in_flight} in flight)"


def _us(time_us: float) -> str:
    return f"{time_us:.1f}" if time_us < FINE_US else f"{time_us:.0f}"


def markdown(rows: Rows) -> str:
    """A table; the first row heads it."""
    lines = [f"| {' | '.join(row)} |" for row in rows]
    columns = lines[0].count(" | ") + 1
    return "\n".join([lines[0], "|" + "---|" * columns, *lines[1:]])


def main() -> None:
    """Print the tables."""
    results = results_of(json.loads(Path(sys.argv[1]).read_text()))
    print("\n\n".join(markdown(make(results)) for make in (rates, forms, processor_times, ceilings, targets)))


if __name__ == "__main__":
    main()
