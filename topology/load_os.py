"""Reads topology files and the measured data that ships with the package."""

import errno
from pathlib import Path

from isochrone.ids import RegionId
from isochrone.topology.build import Reference, build_topology
from isochrone.topology.latency import Cells, LatencyMatrix, parse_matrix, parse_places, parse_zone_rtts
from isochrone.topology.model import Problem, Topology, TopologyError
from isochrone.topology.schema import read_document
from isochrone.topology.yaml_text import parse_yaml

DATA = Path(__file__).parent / "data"
"""Tables of round trips and places; their sources and licences are in `SOURCES.md` beside them."""

MATRICES: dict[str, tuple[str, str | None]] = {
    "aws": ("aws_rtt_ms.csv", "aws_rtt_p90_ms.csv"),
    "azure": ("azure_rtt_ms.csv", "azure_rtt_p95_ms.csv"),
    "gcp": ("gcp_rtt_ms.csv", None),
    "gryff": ("gryff_nsdi20_5site_rtt_ms.csv", None),
}
"""Shipped matrices: median table and tail table."""


def load_topology(path: Path) -> Topology:
    """Read and check a topology file; a latency table that it names is looked for beside it.

    Raises:
        TopologyError: the file cannot be read or is wrong; its `problems` hold every fault. The file's author is at
            fault, except for files that cannot be read.
    """
    file = str(path)
    text, problems = read_text(path, "a topology file", "document")
    if text is None:
        raise TopologyError(tuple(problems))
    plain, problems = parse_yaml(text, file)
    if plain is None and problems:
        raise TopologyError(tuple(problems))
    read = read_document(plain, file)
    matrix: LatencyMatrix | None = None
    if "latencies" not in read.faulty:
        matrix, table_problems = _matrix(read.document.latencies, path)
        problems += table_problems
    places = parse_places((DATA / "regions.csv").read_text("utf-8"))
    zone_rtts = parse_zone_rtts((DATA / "intra_region_rtt_summary.csv").read_text("utf-8"))
    return build_topology(read, Reference(matrix, places, zone_rtts), file, problems)


def read_text(path: Path, allowed: str, key: str) -> tuple[str | None, list[Problem]]:
    """The text of a file, or the one problem with it, reported at `key`."""
    try:
        return path.read_text("utf-8"), []
    except UnicodeDecodeError as error:
        found = f"a byte that is not UTF-8 at position {error.start}"
    except ValueError as error:
        found = f"no file name: {error}"
    except OSError as error:
        found = {errno.ENOENT: "no such file", errno.EISDIR: "a directory"}.get(error.errno or 0, str(error.strerror))
    return None, [Problem(str(path), key, found, allowed)]


def _matrix(name: str, topology_file: Path) -> tuple[LatencyMatrix | None, list[Problem]]:
    """A shipped matrix, or one from a CSV file; None beside the problems that stopped it."""
    if name in MATRICES:
        median_file, tail_file = MATRICES[name]
        regions, median, _ = _shipped(median_file)
        tail = _shipped(tail_file)[1] if tail_file is not None else {}
        return LatencyMatrix(name, regions, median, tail), []
    path = topology_file.parent / name
    allowed = f"{', '.join(MATRICES)}, or a CSV file relative to the topology file"
    text, problems = read_text(path, allowed, "document")
    if text is None:
        at_key = [Problem(str(topology_file), "latencies", f"{name!r}: {each.found}", allowed) for each in problems]
        return None, at_key
    regions, median, problems = parse_matrix(text, str(path))
    return (None, problems) if problems else (LatencyMatrix(name, regions, median, {}), [])


def _shipped(file: str) -> tuple[tuple[RegionId, ...], Cells, list[Problem]]:
    return parse_matrix((DATA / file).read_text("utf-8"), file)
