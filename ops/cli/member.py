"""`isochrone member` and `move-leader`: who belongs to a group, and who leads it."""

import asyncio
import json
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import click

from isochrone.errors import Indeterminate
from isochrone.ids import GroupId, NodeId, ReplicaRole
from isochrone.node.clusters_os import Cluster, find_cluster
from isochrone.node.member_changes_grpc import add_member, ask_leader, view_of
from isochrone.node.members import (
    GroupView,
    hand_back_notice,
    plan_leave_joint,
    plan_move_leader,
    plan_promote,
    plan_remove,
    view_group,
)
from isochrone.ops.cli.cluster import directory_option
from isochrone.ops.cli.member_view import members_to_plain, render_members
from isochrone.ops.cli.progress_os import shown_while
from isochrone.ops.cli.tables import print_parts

_group_argument = click.argument("group")
_node_argument = click.argument("node")
_output_option = click.option(
    "-o", "--output", type=click.Choice(["table", "json"]), default="table", show_default=True
)


@click.group("member", no_args_is_help=True)
def member_group() -> None:
    """Show and change who belongs to a group, while it serves.

    A node joins as a learner, which copies log and state and has no vote, and is promoted when it has caught up. A
    witness votes from the start. Changes of voters go through a joint configuration, which is left by itself.

    \b
    A node that lost its store (isochrone bootstrap --help) comes back like this:
      isochrone bootstrap TOPOLOGY --out cluster --replace us-east-1c-1
      isochrone node --config cluster/nodes/us-east-1c-1.json
      isochrone member remove us-east-1.zone us-east-1c-1 --dir cluster
      isochrone member add us-east-1.zone us-east-1c-1 --dir cluster
      isochrone member promote us-east-1.zone us-east-1c-1 --dir cluster
    With more than one group, remove it from all of them first.

    \b
    Examples:
      isochrone member list
      isochrone member add us-east-1.zone us-east-1d-1
      isochrone member promote us-east-1.zone us-east-1d-1
      isochrone member remove us-east-1.zone us-east-1a-1
    """


@member_group.command("list", short_help="Show the members of a group, or of all.")
@click.argument("group", required=False)
@directory_option
@_output_option
def list_command(group: str | None, directory: Path, output: str) -> None:
    """Show the members of GROUP, or of every group, by the configuration in force at its leader.

    State: a member leads, follows, is silent (its node does not answer) or lost (its node has another store now).
    Match is how far the leader knows it to hold the log; lag is what it lacks of it.

    \b
    Examples:
      isochrone member list
      isochrone member list us-east-1.zone -o json | jq -r '.[].members[] | select(.lag > 100) | .node'
    """
    cluster = find_cluster(directory)
    statuses = asyncio.run(cluster.statuses())
    groups = [each.id for each in cluster.topology.groups] if group is None else [GroupId(group)]
    views = [view_group(cluster.topology, statuses, each) for each in groups]
    if output == "json":
        click.echo(json.dumps([members_to_plain(view) for view in views], indent=2))
    else:
        print_parts(part for view in views for part in render_members(view))


@member_group.command("add", short_help="Add a node to a group, as a learner or a witness.")
@_group_argument
@_node_argument
@click.option(
    "--role",
    type=click.Choice([ReplicaRole.LEARNER.value, ReplicaRole.WITNESS.value]),
    default=ReplicaRole.LEARNER.value,
    show_default=True,
)
@directory_option
@_output_option
def add_command(group: str, node: str, role: str, directory: Path, output: str) -> None:
    """Add NODE to GROUP. The node must run, and be in the topology; its store is asked of the node itself.

    A learner is promoted later to vote. A witness votes at once, and stores the log only.

    \b
    Examples:
      isochrone member add us-east-1.zone us-east-1d-1
      isochrone member add us-east-1.zone us-east-1d-1 --role witness
    """

    async def add(cluster: Cluster, view: GroupView) -> None:
        await add_member(cluster, view, NodeId(node), ReplicaRole(role))

    done = f"{node} is a {role} of {group}"
    if role == ReplicaRole.LEARNER:
        done += f"; when it has caught up: isochrone member promote {group} {node}"
    _run(directory, group, f"adding {node} to {group}", add, done, output)


@member_group.command("promote", short_help="Let a learner vote.")
@_group_argument
@_node_argument
@click.option("--in-place-of", "replaced", metavar="NODE", help="A voter that leaves in the same change.")
@directory_option
@_output_option
def promote_command(group: str, node: str, replaced: str | None, directory: Path, output: str) -> None:
    """Make the learner NODE a full voter of GROUP. Refused while it is not in sync with the leader.

    \b
    Examples:
      isochrone member promote us-east-1.zone us-east-1d-1
      isochrone member promote us-east-1.zone us-east-1a-2 --in-place-of us-east-1a-1
    """

    async def promote(cluster: Cluster, view: GroupView) -> None:
        change = plan_promote(view, NodeId(node), None if replaced is None else NodeId(replaced))
        await ask_leader(cluster, view, change)

    done = f"{node} is a full voter of {group}" + (f" in place of {replaced}" if replaced else "")
    _run(directory, group, f"promoting {node} in {group}", promote, done, output)


@member_group.command("remove", short_help="Remove a member from a group.")
@_group_argument
@_node_argument
@directory_option
@_output_option
def remove_command(group: str, node: str, directory: Path, output: str) -> None:
    """Remove NODE from GROUP. It need not run; if it leads, it hands over when it is out.

    What its store holds of the group stays there, unused, until the node joins again or gets another store.

    \b
    Example:
      isochrone member remove us-east-1.zone us-east-1a-1
    """

    async def remove(cluster: Cluster, view: GroupView) -> None:
        await ask_leader(cluster, view, plan_remove(view, NodeId(node)))

    _run(directory, group, f"removing {node} from {group}", remove, f"{node} is no member of {group} any more", output)


@member_group.command("leave-joint", short_help="End a change that is stuck half-way.")
@_group_argument
@directory_option
@_output_option
def leave_joint_command(group: str, directory: Path, output: str) -> None:
    """Leave the joint configuration of GROUP for the members that it leads to. It needs the quorums of both halves.

    Only a change that was begun so that it does not end by itself needs this.

    \b
    Example:
      isochrone member leave-joint us-east-1.zone
    """

    async def leave(cluster: Cluster, view: GroupView) -> None:
        await ask_leader(cluster, view, plan_leave_joint(view))

    _run(directory, group, f"leaving the joint configuration of {group}", leave, f"{group} is in one piece", output)


@click.command("move-leader")
@_group_argument
@_node_argument
@directory_option
@_output_option
def move_leader_command(group: str, node: str, directory: Path, output: str) -> None:
    """Hand the leadership of GROUP to NODE, a full voter. Writes wait until it has taken over; none is lost.

    \b
    Example:
      isochrone move-leader us-east-1.zone us-east-1b-1
    """

    async def move(cluster: Cluster, view: GroupView) -> None:
        operation = plan_move_leader(view, NodeId(node))
        if (notice := hand_back_notice(view, NodeId(node))) is not None:
            click.echo(f"isochrone: {notice}", err=True)
        await ask_leader(cluster, view, operation)

    _run(directory, group, f"handing {group} over to {node}", move, f"{node} leads {group}", output)


def _run(
    directory: Path,
    group: str,
    doing: str,
    operate: Callable[[Cluster, GroupView], Coroutine[Any, Any, None]],
    done: str,
    output: str,
) -> None:
    """Do one operation on a group, and show the members after it."""
    cluster = find_cluster(directory)

    async def run() -> GroupView:
        view = await view_of(cluster, GroupId(group))
        try:
            await operate(cluster, view)
        except Indeterminate as error:
            text = f"{error}; it may have been done, or may yet be: see isochrone member list {group}"
            raise type(error)(text) from error
        return await view_of(cluster, GroupId(group))

    with shown_while(lambda: f"{doing} …"):
        view = asyncio.run(run())
    if output == "json":
        click.echo(json.dumps(members_to_plain(view), indent=2))
    else:
        click.echo(done)
        print_parts(render_members(view))
