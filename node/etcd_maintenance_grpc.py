"""etcd's Maintenance service, but for snapshots, as far as it has a meaning for one group of a platform of many."""

import zlib
from collections.abc import Callable
from typing import final

from isochrone.errors import IsochroneError, NotLeader
from isochrone.ids import ReplicaRole
from isochrone.node.etcd_calls_grpc import fail, parsed, refuse, timeout_s
from isochrone.node.etcd_group import GroupAccess
from isochrone.regions.raft.changes import all_members
from isochrone.regions.replica import Replica
from isochrone.regions.requests import Outcome
from isochrone.wire.commands import Result
from isochrone.wire.etcd.answers_grpc import Speaker, numeric_id
from isochrone.wire.etcd.errors import OWN_PREFIX, EtcdError, Status, status_of
from isochrone.wire.etcd.generated import rpc_pb2 as pb
from isochrone.wire.http2.calls import Call, Methods, UnaryMethod
from isochrone.wire.kv import ALL, Range, RangeResult

API_VERSION = "3.4.0"
"""The release of etcd whose API this is."""
NO_ALARMS = Status("UNIMPLEMENTED", f"{OWN_PREFIX}there are no alarms to raise")
_MAINTENANCE = "/etcdserverpb.Maintenance/"
_ALL_KEYS = Range(b"\0", ALL)


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
            f"{_MAINTENANCE}Hash": UnaryMethod(self._hash),
            f"{_MAINTENANCE}HashKV": UnaryMethod(self._hash_kv),
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

    def _hash(self, call: Call, data: bytes) -> None:
        if parsed(call, pb.HashRequest, data) is None:
            return

        def answer(result: RangeResult) -> pb.HashResponse:
            return pb.HashResponse(header=self._header(), hash=_hash_of(result))

        self._ask_for_hash(call, 0, answer)

    def _hash_kv(self, call: Call, data: bytes) -> None:
        request = parsed(call, pb.HashKVRequest, data)
        replica = None if request is None else self._replica(call)
        if request is None or replica is None:
            return
        compacted = 0 if replica.machine is None else replica.machine.data.compacted

        def answer(result: RangeResult) -> pb.HashKVResponse:
            at = request.revision if request.revision > 0 else result.revision
            return pb.HashKVResponse(
                header=self._header(), hash=_hash_of(result), compact_revision=compacted, hash_revision=at
            )

        self._ask_for_hash(call, max(request.revision, 0), answer)

    def _ask_for_hash(
        self, call: Call, revision: int, answer: "Callable[[RangeResult], pb.HashResponse | pb.HashKVResponse]"
    ) -> None:
        """Hash the keys as they were at a revision, by what is applied at this node."""

        def told(outcome: Result | IsochroneError) -> None:
            if isinstance(outcome, RangeResult):
                call.answer(answer(outcome).SerializeToString())
            elif isinstance(outcome, IsochroneError):
                fail(call, status_of(outcome))

        query = Range(_ALL_KEYS.key, _ALL_KEYS.range_end, revision=revision)
        self._access.ask_here(query.key, query, timeout_s(call), told)

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


def _hash_of(result: RangeResult) -> int:
    """Equal on all members at one revision."""
    checksum = 0
    for item in result.items:
        text = (
            f"{len(item.key)} {len(item.value)} {item.create_revision} {item.mod_revision} {item.version} {item.lease} "
        )
        checksum = zlib.crc32(text.encode() + item.key + item.value, checksum)
    return checksum
