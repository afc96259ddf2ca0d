"""etcd's Maintenance service, but for snapshots, as far as it has a meaning for one group of a platform of many."""

import zlib
from collections.abc import Callable, Coroutine
from typing import final

from google.protobuf.message import Message

from isochrone.errors import NotLeader
from isochrone.ids import ReplicaRole
from isochrone.node.etcd_calls_grpc import fail, parsed, refuse
from isochrone.node.etcd_group import GroupAccess
from isochrone.node.etcd_slices import slices
from isochrone.node.etcd_work_grpc import working
from isochrone.regions.raft.changes import all_members
from isochrone.regions.replica import Replica
from isochrone.regions.requests import Outcome
from isochrone.regions.state.kv import check_revision
from isochrone.regions.state.model import GroupData
from isochrone.wire.etcd.answers_grpc import Speaker, numeric_id
from isochrone.wire.etcd.errors import OWN_PREFIX, EtcdError, Status, status_of
from isochrone.wire.etcd.generated import rpc_pb2 as pb
from isochrone.wire.http2.calls import Call, Methods, UnaryMethod

API_VERSION = "3.4.0"
"""The release of etcd whose API this is."""
NO_ALARMS = Status("UNIMPLEMENTED", f"{OWN_PREFIX}there are no alarms to raise")
_MAINTENANCE = "/etcdserverpb.Maintenance/"


@final
class MaintenanceCalls:
    """The service of an endpoint."""

    def __init__(self, access: GroupAccess, speaker: Speaker, store_bytes: Callable[[], int]) -> None:
        """`store_bytes` tells the size of the node's store, in which all of its groups are."""
        self._access = access
        self._speaker = speaker
        self._store_bytes = store_bytes

    def methods(self) -> Methods:
        """By path."""
        return {
            f"{_MAINTENANCE}Alarm": UnaryMethod(self._alarm),
            f"{_MAINTENANCE}Status": UnaryMethod(self._status),
            f"{_MAINTENANCE}Defragment": UnaryMethod(self._defragment),
            f"{_MAINTENANCE}Hash": working(self._hash),
            f"{_MAINTENANCE}HashKV": working(self._hash_kv),
            f"{_MAINTENANCE}MoveLeader": UnaryMethod(self._move_leader),
        }

    def _header(self) -> pb.ResponseHeader:
        return self._speaker.header(self._access.revision, self._access.term)

    def _replica(self, call: Call) -> Replica | None:
        """The replica here; None if there is none, and the call has ended with the reason."""
        replica = self._access.replica
        if replica is None:
            refuse(call, EtcdError.STOPPED)
        return replica

    def _alarm(self, call: Call, data: bytes) -> None:
        """There are no alarms: a node whose disk fails or is full stops, rather than serve on."""
        request = parsed(call, pb.AlarmRequest, data)
        if request is None:
            return
        if request.action == pb.AlarmRequest.ACTIVATE:
            fail(call, NO_ALARMS)
            return
        call.answer(pb.AlarmResponse(header=self._header()).SerializeToString())

    def _status(self, call: Call, data: bytes) -> None:
        request = parsed(call, pb.StatusRequest, data)
        replica = None if request is None else self._replica(call)
        if replica is None:
            return
        status = replica.status()
        leader = replica.known_leader()
        answer = pb.StatusResponse(
            header=self._header(),
            version=API_VERSION,
            dbSize=self._store_bytes(),
            dbSizeInUse=self._store_bytes(),
            leader=0 if leader is None else numeric_id(leader),
            raftIndex=status.commit,
            raftTerm=status.term,
            raftAppliedIndex=status.applied,
            errors=[] if leader else [EtcdError.NO_LEADER.value.text],
            isLearner=status.role is ReplicaRole.LEARNER,
        )
        call.answer(answer.SerializeToString())

    def _defragment(self, call: Call, data: bytes) -> None:
        """Nothing is to be done: a store uses again the pages that it has freed."""
        if parsed(call, pb.DefragmentRequest, data) is not None:
            call.answer(pb.DefragmentResponse(header=self._header()).SerializeToString())

    def _hash(self, call: Call, data: bytes) -> Coroutine[None, None, Message] | None:
        state = None if parsed(call, pb.HashRequest, data) is None else self._state(call)
        if state is None:
            return None

        async def work() -> Message:
            return pb.HashResponse(header=self._header(), hash=await hash_of(state, state.revision))

        return work()

    def _hash_kv(self, call: Call, data: bytes) -> Coroutine[None, None, Message] | None:
        request = parsed(call, pb.HashKVRequest, data)
        state = None if request is None else self._state(call)
        if request is None or state is None:
            return None

        async def work() -> Message:
            revision = request.revision if request.revision > 0 else state.revision
            check_revision(state, revision)
            found, compacted = await hash_of(state, revision), state.compacted
            header = self._header()
            return pb.HashKVResponse(header=header, hash=found, compact_revision=compacted, hash_revision=revision)

        return work()

    def _state(self, call: Call) -> GroupData | None:
        """What the replica here has applied; None if none keeps state, and the call has ended with the reason."""
        replica = self._replica(call)
        if replica is None:
            return None
        if replica.machine is None:
            refuse(call, EtcdError.STOPPED)
            return None
        return replica.machine.data

    def _move_leader(self, call: Call, data: bytes) -> None:
        """What only the leader can do: of another member etcd says so, too."""
        request = parsed(call, pb.MoveLeaderRequest, data)
        if request is None:
            return
        found = self._access.host.committed_configuration(self._access.group)
        members = {} if found is None else all_members(found.configuration)
        target = next((member for node, member in members.items() if numeric_id(node) == request.targetID), None)
        if target is None or target.role is not ReplicaRole.FULL:
            refuse(call, EtcdError.BAD_TRANSFEREE)
            return

        def done(outcome: Outcome) -> None:
            match outcome.error:
                case None:
                    call.answer(pb.MoveLeaderResponse(header=self._header()).SerializeToString())
                case NotLeader():
                    refuse(call, EtcdError.NOT_LEADER)
                case error:
                    fail(call, status_of(error))

        self._access.host.administration.transfer_leadership(self._access.group, target.node, done)


async def hash_of(data: GroupData, revision: int) -> int:
    """A checksum of all keys as they were at a revision, with their versions, leases and timestamps.

    Equal on all members, as long as the revision is not compacted; for `RevisionCompacted` see `slices`.
    """
    checksum = 0
    async for records in slices(data, revision):
        checksum = zlib.crc32(b"".join(records), checksum)
    return checksum
