"""`isochrone node` and `bootstrap`: a cluster of plain processes, without Ray."""

import asyncio
import logging
from pathlib import Path

import click

from isochrone.node.bootstrap_os import bootstrap, is_bootstrapped, write_configs
from isochrone.node.files_os import load_config
from isochrone.node.layout import Layout
from isochrone.node.logs_os import FORMAT
from isochrone.node.ports_os import choose_addresses
from isochrone.topology import load_topology


@click.command("bootstrap")
@click.argument("topology", type=click.Path(path_type=Path, readable=False))
@click.option(
    "--out",
    "directory",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    help="Where stores and configurations go; made if need be.",
)
def bootstrap_command(topology: Path, directory: Path) -> None:
    """Make the stores and node configurations of the cluster of TOPOLOGY, once, below --out.

    Then move each node's store and configuration to its machine, correct the paths in the configuration, and start the
    node with --moved once; on one machine nothing needs to be moved. Nodes without an address in the topology get a
    free port of loopback.

    \b
    Example:
      isochrone bootstrap deploy/topologies/three-regions.yaml --out cluster
      isochrone node --config cluster/nodes/us-east-1a-1.json
    """
    layout = Layout(directory.absolute())
    known = is_bootstrapped(layout)
    record = bootstrap(topology, layout.root, lambda text: click.echo(f"  {text}", err=True))
    if known:
        click.echo(f"{directory} holds cluster {record.cluster} of this topology already; nothing was changed")
        return
    loaded = load_topology(topology)
    write_configs(loaded, layout, record, choose_addresses(loaded), local=False)
    click.echo(f"{directory} holds cluster {record.cluster}; start each node with:")
    for spec in loaded.nodes:
        click.echo(f"  isochrone node --config {layout.node_config(spec.id)}")


@click.command("node")
@click.option(
    "--config",
    "config_file",
    type=click.Path(path_type=Path, readable=False),
    required=True,
    help="Written by bootstrap.",
)
@click.option(
    "--moved",
    is_flag=True,
    help="The store was stopped and moved here as a whole, and the original is gone. Needed at the first start after "
    "that: a copy or a restored backup would vote with an old memory, so it is refused.",
)
def node_command(config_file: Path, moved: bool) -> None:
    """Run one node as a plain process until SIGTERM or Ctrl-C.

    \b
    Examples:
      isochrone node --config cluster/nodes/us-east-1a-1.json
      isochrone node --config /etc/isochrone/node.json --moved
    """
    config = load_config(config_file)
    logging.basicConfig(level=logging.INFO, format=FORMAT)
    from isochrone.node.process_mode_os import run_node

    asyncio.run(run_node(config, moved=moved))
