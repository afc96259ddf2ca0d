"""Carries changes of a group's members to the nodes that make them, over the admin channel.

What to ask of whom is planned in `members`. A call that raises `Indeterminate` may have been done, or may yet be.
"""

from isochrone.errors import InvalidRequest, NotLeader, Unavailable
from isochrone.ids import GroupId, NodeId, ReplicaRole
from isochrone.node.clusters_os import Cluster
from isochrone.node.members import GroupView, plan_add, view_group
from isochrone.wire.admin_grpc import AdminClient
from isochrone.wire.operations import Operation

TIMEOUT_S = 30.0
"""How long an operation may take; then it is not known whether it was done."""
LEADERS_ASKED_MAX = 3
"""Nodes that are asked in turn, each named by the one before, until the leader is among them."""


async def view_of(cluster: Cluster, group: GroupId) -> GroupView:
    """A group as its nodes tell it now. Raises `InvalidRequest` for one that the topology does not have."""
    return view_group(cluster.topology, await cluster.statuses(), group)


async def add_member(cluster: Cluster, view: GroupView, node: NodeId, role: ReplicaRole) -> None:
    """Make a node a learner or a witness."""
    replica, change = plan_add(view, node, role)
    await _ask_node(cluster, node, replica)
    await ask_leader(cluster, view, change)


async def ask_leader(cluster: Cluster, view: GroupView, operation: Operation) -> None:
    """Ask the leader, and whoever leads instead by the word of the one that was asked."""
    node = view.leader
    asked: list[NodeId] = []
    while node is not None and node not in asked and len(asked) < LEADERS_ASKED_MAX:
        asked.append(node)
        try:
            return await _ask_node(cluster, node, operation)
        except NotLeader as error:
            node = error.leader
    raise Unavailable(f"group {view.group} has no leader that could be found; nothing was done, try again")


async def _ask_node(cluster: Cluster, node: NodeId, operation: Operation) -> None:
    if node not in cluster.addresses:
        raise InvalidRequest(f"the address of node {node} is not known")
    async with AdminClient(cluster.addresses[node]) as admin:
        await admin.operate(operation, TIMEOUT_S)
