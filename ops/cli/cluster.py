"""`isochrone up`, `status` and `down`: a deployment on this machine, found by its directory."""

import asyncio
import json
from pathlib import Path

import click

from isochrone.errors import Unavailable
from isochrone.ids import GroupId
from isochrone.node.clusters_os import find_cluster
from isochrone.node.deployment_ray import RayDeployment, bring_up, take_down
from isochrone.ops.cli.signals_os import Interrupted, run_until_signal
from isochrone.ops.cli.status_view import render, to_plain
from isochrone.ops.cli.tables import counted, print_parts

directory_option = click.option(
    "--dir",
    "directory",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(".isochrone"),
    show_default=True,
    envvar="ISOCHRONE_DIR",
    show_envvar=True,
    help="Where the deployment keeps its data and finds itself again.",
)


etcd_group_option = click.option(
    "--etcd-group", metavar="GROUP", help="For which all nodes speak etcd's API, instead of each for its region's own."
)


@click.command("up")
@click.argument("topology", type=click.Path(path_type=Path, readable=False))
@directory_option
@click.option("--foreground", is_flag=True, help="Stay until Ctrl-C or SIGTERM, then take the deployment down.")
@etcd_group_option
def up_command(topology: Path, directory: Path, foreground: bool, etcd_group: str | None) -> None:
    """Bring the deployment of TOPOLOGY up on this machine, on a Ray of its own.

    Returns when every group has a leader. A directory that was used before is used again if its topology is the same.
    If anything fails, what was started is stopped again.

    \b
    Examples:
      isochrone up deploy/topologies/three-regions.yaml
      isochrone up deploy/topologies/five-sites.yaml --dir /var/tmp/five --foreground
      isochrone up deploy/topologies/three-regions.yaml --etcd-group us-east-1.region
    """
    try:
        run_until_signal(_up(topology, directory, foreground, None if etcd_group is None else GroupId(etcd_group)))
    except Interrupted as end:
        click.echo(f"isochrone: {end}", err=True)
        raise SystemExit(end.exit_status) from None


@click.command("status")
@directory_option
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table", show_default=True)
def status_command(directory: Path, output: str) -> None:
    """Show every replica of every group, as its node tells it. Asks the nodes, not Ray: --dir may also name the
    directory of a cluster of plain processes (isochrone bootstrap).

    State: a replica leads, follows, elects (it knows no leader), or is silent (its node does not answer).
    Lag is how many log entries a replica has to apply to reach the highest commit index that any replica reports. Of a
    learner it is told in time, too: how much older its newest entry is than the newest one that any replica reports.
    Fails if no node answers.

    \b
    Examples:
      isochrone status
      isochrone status -o json | jq .addresses
      isochrone status -o json | jq '.replicas[] | select(.role == "learner") | {node, group, lag, lag_ms}'
      isochrone status -o json | jq '.nodes[].groups[] | select(.leader == null)'
    """
    cluster = find_cluster(directory)
    statuses = asyncio.run(cluster.statuses())
    if output == "json":
        click.echo(json.dumps(to_plain(cluster.topology, statuses, cluster.addresses), indent=2))
    else:
        print_parts(render(cluster.topology, statuses))
    if not statuses:
        nodes, config = counted(len(cluster.topology.nodes), "node"), directory / "nodes" / "NODE.json"
        raise Unavailable(
            f"none of the {nodes} answers. Start plain processes by `isochrone node --config {config}`; a deployment "
            "of `isochrone up` by `isochrone down`, then `isochrone up` again"
        )


@click.command("down")
@directory_option
def down_command(directory: Path) -> None:
    """Take the deployment down. Its data stays, and every write that was acknowledged is in it.

    \b
    Example:
      isochrone down
    """
    if take_down(directory):
        click.echo(f"{directory}: down")
    else:
        click.echo(f"{directory}: nothing runs there that `isochrone up` started")


async def _up(topology: Path, directory: Path, foreground: bool, etcd_group: GroupId | None) -> None:
    deployment = await bring_up(topology, directory, _progress, etcd_group)
    try:
        click.echo(_summary(deployment))
        if foreground:
            await deployment.wait_ended()
    except asyncio.CancelledError:
        await deployment.stop()
        if not foreground:
            raise
        click.echo(f"{deployment.directory}: down")
    except BaseException:
        await deployment.stop()
        raise


def _summary(deployment: RayDeployment) -> str:
    topology = deployment.topology
    nodes = f"{counted(len(topology.nodes), 'node')} in {counted(len(topology.regions), 'region')}"
    groups = counted(len(topology.groups), "group")
    return f"{topology.name} is up in {deployment.directory}: {nodes}, {groups}, each with a leader"


def _progress(text: str) -> None:
    click.echo(f"  {text}", err=True)
