"""`isochrone node` and `bootstrap`: a cluster of plain processes, without Ray."""

import asyncio
import logging
from pathlib import Path

import click

from isochrone.ids import GroupId, NodeId
from isochrone.node.bootstrap_os import bootstrap, is_bootstrapped, replace_store, write_configs
from isochrone.node.config import check_etcd_group
from isochrone.node.files_os import load_config
from isochrone.node.layout import Layout
from isochrone.node.logs_os import FORMAT
from isochrone.node.ports_os import choose_addresses
from isochrone.ops.cli.cluster import etcd_group_option
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
@click.option(
    "--replace",
    "replaced",
    metavar="NODE",
    help="Make a new, empty store for NODE, whose old one is lost or cannot be trusted any more.",
)
@etcd_group_option
def bootstrap_command(topology: Path, directory: Path, replaced: str | None, etcd_group: str | None) -> None:
    """Make the stores and node configurations of the cluster of TOPOLOGY, once, below --out.

    Then move each node's store and configuration to its machine, correct the paths in the configuration, and start the
    node with --moved once; on one machine nothing needs to be moved. Nodes without an address in the topology get a
    free port of loopback.

    A voter that lost its store must not go on as if it remembered its votes. --replace gives its node a store with a
    new id, as which it takes part in no group. Start it, then for each of its groups: member remove, member add, and
    member promote. Remove it from all of its groups before you add it to the first one.

    \b
    Examples:
      isochrone bootstrap deploy/topologies/three-regions.yaml --out cluster
      isochrone node --config cluster/nodes/us-east-1a-1.json
      isochrone bootstrap deploy/topologies/three-regions.yaml --out cluster --replace us-east-1a-1
    """
    if replaced is not None:
        _replace(topology, directory, NodeId(replaced))
        return
    loaded = load_topology(topology)
    wanted = None if etcd_group is None else GroupId(etcd_group)
    check_etcd_group(loaded, wanted)
    layout = Layout(directory.absolute())
    known = is_bootstrapped(layout)
    record = bootstrap(topology, layout.root, lambda text: click.echo(f"  {text}", err=True))
    if known:
        click.echo(f"{directory} holds cluster {record.cluster} of this topology already; nothing was changed")
        return
    write_configs(loaded, layout, record, choose_addresses(loaded), local=False, etcd_group=wanted)
    click.echo(f"{directory} holds cluster {record.cluster}; start each node with:")
    for spec in loaded.nodes:
        click.echo(f"  isochrone node --config {layout.node_config(spec.id)}")


def _replace(topology: Path, directory: Path, node: NodeId) -> None:
    store = replace_store(topology, directory, node)
    layout = Layout(directory.absolute())
    click.echo(f"node {node} has the empty store {store} in {layout.node_data(node)}")
    config = layout.node_config(node)
    if not config.exists():
        click.echo(f"{config} is not here: write the store's id into the node's configuration where that is")
    click.echo("start it, then remove it from its groups and add it anew: isochrone member --help")


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
    from isochrone.ops.telemetry.otlp_os import push_from_environment

    push = push_from_environment()
    asyncio.run(run_node(config, moved=moved, export=push and push.run))
