"""etcd's Cluster service: the members of the endpoint's group, and changes of them.

A change goes to the nodes as one of `isochrone member` does, with the same checks, whichever node is asked. A member is
a node of the topology: one joins by the address at which its peers reach it, which is its peer URL, and the node must
run. It joins as a learner, as any full voter does here, and is promoted when it is in sync. Addresses stand in the
nodes' configurations, so a member's URLs cannot be changed from here.
"""

from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from typing import TypeVar, final
from urllib.parse import urlsplit

from google.protobuf.message import Message

from isochrone.ids import NodeId, ReplicaRole
from isochrone.node.clusters_os import Cluster
from isochrone.node.etcd_calls_grpc import parsed
from isochrone.node.etcd_group import GroupAccess
from isochrone.node.etcd_work_grpc import Refused, working
from isochrone.node.member_changes_grpc import add_member, ask_leader, view_of
from isochrone.node.members import GroupView, plan_promote, plan_remove
from isochrone.regions.raft.changes import all_members
from isochrone.wire.etcd.answers_grpc import Speaker, numeric_id
from isochrone.wire.etcd.errors import OWN_PREFIX, EtcdError, Status
from isochrone.wire.etcd.generated import rpc_pb2 as pb
from isochrone.wire.http2.calls import Call, Methods
from isochrone.wire.status import MemberStatus

LEARNER_FIRST = Status(
    "FAILED_PRECONDITION", f"{OWN_PREFIX}a full voter joins as a learner; add it with --learner and promote it then"
)
ADDRESSES_ARE_CONFIGURED = Status(
    "FAILED_PRECONDITION", f"{OWN_PREFIX}the addresses of nodes stand in their configurations and are not changed here"
)
_T = TypeVar("_T")
_CLUSTER = "/etcdserverpb.Cluster/"


@final
class ClusterCalls:
    """The service of an endpoint."""

    def __init__(
        self, access: GroupAccess, speaker: Speaker, cluster: Cluster, client_addresses: Mapping[NodeId, str]
    ) -> None:
        """`client_addresses`: where nodes speak etcd's API."""
        self._access = access
        self._speaker = speaker
        self._cluster = cluster
        self._client_addresses = client_addresses

    def methods(self) -> Methods:
        """By path."""
        return {
            f"{_CLUSTER}MemberList": working(self._list),
            f"{_CLUSTER}MemberAdd": working(self._add),
            f"{_CLUSTER}MemberRemove": working(self._remove),
            f"{_CLUSTER}MemberUpdate": working(self._update),
            f"{_CLUSTER}MemberPromote": working(self._promote),
        }

    def _list(self, call: Call, data: bytes) -> Coroutine[None, None, Message] | None:
        request = parsed(call, pb.MemberListRequest, data)
        if request is None:
            return None

        async def work() -> Message:
            return pb.MemberListResponse(header=self._header(), members=await self._listed(request.linearizable))

        return work()

    def _add(self, call: Call, data: bytes) -> Coroutine[None, None, Message] | None:
        request = parsed(call, pb.MemberAddRequest, data)
        if request is None:
            return None
        addresses = [urlsplit(url).netloc for url in request.peerURLs]

        async def add(view: GroupView) -> NodeId:
            if not addresses or not all(addresses):
                raise Refused(EtcdError.BAD_MEMBER_URLS.value)
            node = self._node_at(addresses)
            member = view.member(node)
            if member is not None and view.answers(member):
                raise Refused(EtcdError.PEER_URL_EXISTS.value)
            if not request.isLearner:
                raise Refused(LEARNER_FIRST)
            await add_member(self._cluster, view, node, ReplicaRole.LEARNER)
            return node

        async def work() -> Message:
            node, members = await self._changed(add)
            added = next(member for member in members if numeric_id(node) == member.ID)
            return pb.MemberAddResponse(header=self._header(), member=added, members=members)

        return work()

    def _remove(self, call: Call, data: bytes) -> Coroutine[None, None, Message] | None:
        request = parsed(call, pb.MemberRemoveRequest, data)
        if request is None:
            return None

        async def remove(view: GroupView) -> None:
            await ask_leader(self._cluster, view, plan_remove(view, _known(view, request.ID).node))

        async def work() -> Message:
            _, members = await self._changed(remove)
            return pb.MemberRemoveResponse(header=self._header(), members=members)

        return work()

    def _promote(self, call: Call, data: bytes) -> Coroutine[None, None, Message] | None:
        request = parsed(call, pb.MemberPromoteRequest, data)
        if request is None:
            return None

        async def promote(view: GroupView) -> None:
            member = _known(view, request.ID)
            if member.role is not ReplicaRole.LEARNER:
                raise Refused(EtcdError.MEMBER_NOT_LEARNER.value)
            await ask_leader(self._cluster, view, plan_promote(view, member.node, None))

        async def work() -> Message:
            _, members = await self._changed(promote)
            return pb.MemberPromoteResponse(header=self._header(), members=members)

        return work()

    def _update(self, call: Call, data: bytes) -> Coroutine[None, None, Message] | None:
        request = parsed(call, pb.MemberUpdateRequest, data)
        if request is None:
            return None

        async def work() -> Message:
            view = await view_of(self._cluster, self._access.group)
            node = _known(view, request.ID).node
            if [urlsplit(url).netloc for url in request.peerURLs] != [self._cluster.addresses[node]]:
                raise Refused(ADDRESSES_ARE_CONFIGURED)
            return pb.MemberUpdateResponse(header=self._header(), members=self._told(view))

        return work()

    # ---- what they share

    async def _changed(self, change: Callable[[GroupView], Awaitable[_T]]) -> tuple[_T, list[pb.Member]]:
        """Make a change; what it returns, and the members after it."""
        done = await change(await view_of(self._cluster, self._access.group))
        return done, self._told(await view_of(self._cluster, self._access.group))

    async def _listed(self, linearizable: bool) -> list[pb.Member]:
        """As known here, unless there is no replica here or the newest word is wanted."""
        found = self._access.host.committed_configuration(self._access.group)
        if linearizable or found is None:
            return self._told(await view_of(self._cluster, self._access.group))
        return self._described((member.node, member.role) for member in all_members(found.configuration).values())

    def _told(self, view: GroupView) -> list[pb.Member]:
        return self._described((member.node, member.role or member.outgoing_role) for member in view.members)

    def _described(self, members: Iterable[tuple[NodeId, ReplicaRole | None]]) -> list[pb.Member]:
        return [
            pb.Member(
                ID=numeric_id(node),
                name=node,
                peerURLs=_urls(self._cluster.addresses.get(node)),
                clientURLs=_urls(self._client_addresses.get(node)),
                isLearner=role is ReplicaRole.LEARNER,
            )
            for node, role in members
        ]

    def _node_at(self, addresses: list[str]) -> NodeId:
        found = [node for node, address in self._cluster.addresses.items() if address in addresses]
        if len(found) != 1:
            known = ", ".join(f"{node} at http://{address}" for node, address in self._cluster.addresses.items())
            text = f"{OWN_PREFIX}{', '.join(addresses)}: one node's address is needed; nodes are {known}"
            raise Refused(Status("INVALID_ARGUMENT", text))
        return found[0]

    def _header(self) -> pb.ResponseHeader:
        return self._speaker.header(self._access.revision, self._access.term)


def _known(view: GroupView, number: int) -> MemberStatus:
    found = next((member for member in view.members if numeric_id(member.node) == number), None)
    if found is None:
        raise Refused(EtcdError.MEMBER_NOT_FOUND.value)
    return found


def _urls(address: str | None) -> list[str]:
    return [] if address is None else [f"http://{address}"]
