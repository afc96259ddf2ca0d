"""Reads drill files and the topologies that they name."""

from dataclasses import dataclass
from pathlib import Path

from isochrone.drills.schema import DrillDocument, cross_check, read_drill, topology_named
from isochrone.errors import InvalidRequest
from isochrone.node.files_os import load_served_topology
from isochrone.topology import Problem, Topology, TopologyError
from isochrone.topology.load_os import read_text
from isochrone.topology.yaml_text import parse_yaml


class DrillError(InvalidRequest):
    """A drill file, or the topology that it names, is wrong. `problems` holds every fault found."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = problems


@dataclass(frozen=True, slots=True)
class LoadedDrill:
    """A drill that fits its topology."""

    document: DrillDocument
    topology: Topology
    topology_file: Path


def load_drill(path: Path) -> LoadedDrill:
    """Read and check a drill file and its topology file.

    Raises:
        DrillError: one of them cannot be read or is wrong; its author is at fault.
    """
    file = str(path)
    text, problems = read_text(path, "a drill file", "document")
    if text is None:
        raise DrillError(tuple(problems))
    plain, problems = parse_yaml(text, file)
    if problems and plain is None:
        raise DrillError(tuple(problems))
    document, form_problems = read_drill(plain, file)
    problems += form_problems
    named = topology_named(plain)
    topology_file = path.parent / (named or "")
    topology: Topology | None = None
    if named is not None:
        topology, topology_problems = _load_topology(topology_file, named, file)
        problems += topology_problems
    if document is not None and topology is not None:
        problems += cross_check(document, topology, file)
    if problems or document is None or topology is None:
        raise DrillError(tuple(problems))
    return LoadedDrill(document, topology, topology_file)


def _load_topology(topology_file: Path, named: str, file: str) -> tuple[Topology | None, list[Problem]]:
    if topology_file.is_dir() or not topology_file.exists():
        what = "a directory" if topology_file.is_dir() else "no such file"
        return None, [Problem(file, "topology", f"{named!r}: {what}", "a topology file, relative to this file")]
    try:
        return load_served_topology(topology_file), []
    except TopologyError as error:
        return None, list(error.problems)
