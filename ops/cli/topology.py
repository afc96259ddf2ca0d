"""`isochrone topology`: check a topology file, show what follows from it, print the schema of the format."""

import json
from pathlib import Path

import click

from isochrone.ops.cli.tables import counted, print_parts
from isochrone.ops.cli.topology_view import render, topology_to_plain
from isochrone.topology import Topology, TopologyError, load_topology
from isochrone.topology.schema import TopologyDocument

BAD_INPUT_EXIT_STATUS = 2

_file_argument = click.argument("file", type=click.Path(path_type=Path, readable=False))


@click.group("topology", no_args_is_help=True)
def topology_group() -> None:
    """Check and explain topology files.

    \b
    Examples:
      isochrone topology validate deploy/topologies/three-regions.yaml
      isochrone topology show deploy/topologies/five-sites.yaml
      isochrone topology show deploy/topologies/three-regions.yaml -o json
    """


@topology_group.command("validate", short_help="Check a file and report every fault.")
@_file_argument
def validate_command(file: Path) -> None:
    """Check FILE and report every fault, one a line: file, key, what was found, what is allowed.

    Exits with 0 if the file is right, with 2 if it is not.

    \b
    Example:
      isochrone topology validate deploy/topologies/three-regions.yaml
    """
    topology = load_or_exit(file)
    counts = [
        counted(len(topology.regions), "region"),
        counted(len(topology.nodes), "node"),
        counted(len(topology.keyspaces), "keyspace"),
        counted(len(topology.groups), "group"),
    ]
    click.echo(f"{file}: valid: {', '.join(counts)}")


@topology_group.command("show", short_help="Show what follows from a file.")
@_file_argument
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table", show_default=True)
def show_command(file: Path, output: str) -> None:
    """Show what follows from FILE.

    Regions and the round trips between them; for each group its derived replicas and timers, what may be lost, and
    the predicted commit latency from each region for each region that could lead.

    \b
    Examples:
      isochrone topology show deploy/topologies/three-regions.yaml
      isochrone topology show deploy/topologies/three-regions.yaml -o json
    """
    topology = load_or_exit(file)
    if output == "json":
        click.echo(json.dumps(topology_to_plain(topology), indent=2, ensure_ascii=False))
        return
    print_parts(render(topology))


@topology_group.command("schema", short_help="Print the JSON Schema of the format.")
def schema_command() -> None:
    """Print the JSON Schema of topology files, for editors.

    \b
    Example:
      isochrone topology schema > topology.schema.json
    """
    click.echo(json.dumps(TopologyDocument.model_json_schema(), indent=2))


def load_or_exit(file: Path) -> Topology:
    """The topology of a file; a wrong one ends the command with one line a fault and exit status 2."""
    try:
        return load_topology(file)
    except TopologyError as error:
        for problem in error.problems:
            click.echo(str(problem), err=True)
        raise SystemExit(BAD_INPUT_EXIT_STATUS) from error
