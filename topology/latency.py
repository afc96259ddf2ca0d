"""Round-trip times between and inside regions, read from tables.

A matrix cell (row, column) is a round trip measured from the row's region. A round trip crosses both directions
whoever starts it, so the two cells of a pair are two measurements of one thing: the median of the pair is their
mean, and half of it is taken as the delay of each direction (round trips say nothing of asymmetry; a link override
can). The tail, which timers are built on, is the larger of the two cells.
"""

import csv
import io
import math
from collections.abc import Mapping
from dataclasses import dataclass

from isochrone.ids import RegionId
from isochrone.topology.model import Problem

ASSUMED_ZONE_RTT_MS = 0.95
"""Between zones of a region with no figure: the median over AWS regions (`topology/data/SOURCES.md`)."""
TAIL_RATIO = 1.25
"""The tail of a round trip over its median, where no tail was measured."""

Cells = Mapping[tuple[RegionId, RegionId], float]


@dataclass(frozen=True, slots=True)
class LatencyMatrix:
    """Round trips between regions, in milliseconds. `tail` is the P90 or P95, and may be empty."""

    name: str
    regions: tuple[RegionId, ...]
    median: Cells
    tail: Cells

    def rtt_ms(self, a: RegionId, b: RegionId) -> float | None:
        """The median round trip of a pair, or None where there is no source."""
        cells = _both_ways(self.median, a, b)
        return sum(cells) / len(cells) if cells else None

    def tail_rtt_ms(self, a: RegionId, b: RegionId) -> float | None:
        """The P90 or P95 round trip, else 1.25 x the median; None where there is no source."""
        cells = _both_ways(self.tail, a, b)
        if cells:
            return max(cells)
        median = self.rtt_ms(a, b)
        return None if median is None else TAIL_RATIO * median


def _both_ways(cells: Cells, a: RegionId, b: RegionId) -> list[float]:
    return [cells[pair] for pair in ((a, b), (b, a)) if pair in cells]


@dataclass(frozen=True, slots=True)
class Place:
    """City and coordinates of a cloud region."""

    city: str
    latitude: float
    longitude: float


def parse_matrix(text: str, file: str) -> tuple[tuple[RegionId, ...], Cells, list[Problem]]:
    """Read a square CSV matrix: header `region,A,B,…`, then one row for each region; empty cells have no source.

    Returns the regions, the filled cells off the diagonal, and every fault.
    """
    try:
        rows = [row for row in csv.reader(io.StringIO(text)) if row]
    except csv.Error as error:
        return (), {}, [Problem(file, "document", str(error), "a CSV table")]
    header = [name.strip() for name in rows[0]] if rows else []
    if len(header) < 2 or header[0] != "region":
        found = repr(",".join(header)[:60]) if header else "nothing"
        return (), {}, [Problem(file, "line 1", found, "a header 'region,NAME,NAME,…'")]
    columns = [RegionId(name) for name in header[1:]]
    problems: list[Problem] = []
    if len(set(columns)) < len(columns) or "" in columns:
        problems.append(Problem(file, "line 1", repr(",".join(columns)), "region names, each once"))
    names = [row[0].strip() for row in rows[1:]]
    if sorted(names) != sorted(columns):
        problems.append(
            Problem(file, "column 1", repr(",".join(names)), f"the names of the header: {','.join(columns)}")
        )
    cells: dict[tuple[RegionId, RegionId], float] = {}
    for row in rows[1:]:
        source = RegionId(row[0].strip())
        if len(row) != len(header):
            problems.append(Problem(file, f"row {source}", f"{len(row)} columns", f"{len(header)}, as in the header"))
            continue
        for target, cell in zip(columns, row[1:], strict=True):
            if source == target or not cell.strip():
                continue
            value = _milliseconds(cell)
            if value is None:
                problems.append(Problem(file, f"row {source}, column {target}", repr(cell), "a positive number of ms"))
            else:
                cells[source, target] = value
    return tuple(columns), cells, problems


def _milliseconds(cell: str) -> float | None:
    try:
        value = float(cell)
    except ValueError:
        return None
    return value if value > 0 and math.isfinite(value) else None


def parse_places(text: str) -> dict[RegionId, Place]:
    """Cities and coordinates by region, from the `regions.csv` table."""
    return {
        RegionId(row["region"]): Place(row["city"], float(row["lat"]), float(row["lon"]))
        for row in csv.DictReader(io.StringIO(text))
        if row["lat"]
    }


def parse_zone_rtts(text: str) -> dict[RegionId, float]:
    """The middle round trip between zones by region, from the `intra_region_rtt_summary.csv` table.

    Rows that measure one zone, or that do not say which zones they measure, do not count.
    """
    return {
        RegionId(row["region"]): float(row["mid_ms"])
        for row in csv.DictReader(io.StringIO(text))
        if row["scope"].startswith(("cross-AZ", "same-region median"))
    }
