"""etcd's `Maintenance.Snapshot`: the group as it is at this node now, as a database file of etcd's, and its checksum.

Theory of operation. The revision and the leases are taken at one moment; the keys as they were at that revision are
gathered after it, some at a time, while writes go on. The records themselves are shared with the state, so a snapshot
costs a list of them, and what of them is replaced while it is sent. Only one is sent at a time by a node, in pieces as
the client takes them; a client that takes none for a while loses the call.

A file must begin with what depends on its end, so the records are gone through twice: to plan the file, to write it.
"""

import asyncio
import hashlib
import heapq
from collections.abc import Coroutine, Iterable, Iterator
from typing import final

from isochrone.node.etcd_calls_grpc import parsed, refuse
from isochrone.node.etcd_group import GroupAccess
from isochrone.node.etcd_slices import SLICE_RECORDS, slices
from isochrone.node.etcd_work_grpc import Refused, working
from isochrone.regions.state.model import GroupData
from isochrone.wire.etcd.answers_grpc import Speaker
from isochrone.wire.etcd.backup_grpc import Backup
from isochrone.wire.etcd.bolt import FilePlan
from isochrone.wire.etcd.errors import EtcdError, Status
from isochrone.wire.etcd.generated import rpc_pb2 as pb
from isochrone.wire.http2.calls import Call, Methods
from isochrone.wire.records import record_is_live, record_revision

BLOB_BYTES = 256 << 10
BACKLOG_BYTES_MAX = 2 << 20
"""The file is continued when less waits for the client."""
STALLED_S_MAX = 30.0
"""A client that takes nothing for so long loses the call."""
UNDER_WAY = Status("RESOURCE_EXHAUSTED", "isochrone: this node is sending a snapshot already; try again when it has")


@final
class SnapshotCalls:
    """The one method."""

    def __init__(self, access: GroupAccess, speaker: Speaker) -> None:
        self._access = access
        self._speaker = speaker
        self._under_way = False

    def methods(self) -> Methods:
        """By path."""
        return {"/etcdserverpb.Maintenance/Snapshot": working(self._snapshot)}

    def _snapshot(self, call: Call, data: bytes) -> Coroutine[None, None, None] | None:
        if parsed(call, pb.SnapshotRequest, data) is None:
            return None
        replica = self._access.replica
        if replica is None or replica.machine is None:
            refuse(call, EtcdError.STOPPED)
            return None
        return self._send(call, replica.machine.data)

    async def _send(self, call: Call, data: GroupData) -> None:
        if self._under_way:
            raise Refused(UNDER_WAY)
        self._under_way = True
        try:
            revision = data.revision
            header = self._speaker.header(revision, self._access.term)
            backup = Backup(revision, {number: lease.ttl_ms for number, lease in data.leases.items()})
            removed = last_removal(data)
            runs = [*await gathered(data, revision), removed]
            for number, record in enumerate(_merged(runs)):
                backup.add(record)
                if number % SLICE_RECORDS == 0:
                    await asyncio.sleep(0)
            plan = backup.plan()
            await self._send_file(call, header, plan, backup.pages(plan, _merged(runs)))
        finally:
            self._under_way = False

    async def _send_file(self, call: Call, header: pb.ResponseHeader, plan: FilePlan, pages: Iterable[bytes]) -> None:
        checksum, left = hashlib.sha256(), plan.size_bytes
        for blob in _blobs(pages):
            checksum.update(blob)
            left -= len(blob)
            await _drained(call)
            call.send(pb.SnapshotResponse(header=header, remaining_bytes=left, blob=blob).SerializeToString())
        call.send(pb.SnapshotResponse(header=header, blob=checksum.digest()).SerializeToString())


async def gathered(data: GroupData, revision: int) -> list[list[bytes]]:
    """The records of all keys as they are at a revision, in lists that are each in the order of the writes.

    Raises:
        RevisionCompacted: a compaction has passed the revision meanwhile.
    """
    return [sorted(records) async for records in slices(data, revision)]  # a record begins with its place in that order


def last_removal(data: GroupData) -> list[bytes]:
    """The last write, if it removed a key: without it a file would not tell its revision."""
    last = [state.history.log[-1] for state in data.keyspaces.values() if state.history.log]
    return [record for record in last if record_revision(record) == data.revision and not record_is_live(record)][:1]


def _merged(runs: list[list[bytes]]) -> Iterator[bytes]:
    return heapq.merge(*runs)


def _blobs(pages: Iterable[bytes]) -> Iterator[bytes]:
    """The file in pieces of about `BLOB_BYTES`."""
    gathered_pages: list[bytes] = []
    size = 0
    for page in pages:
        gathered_pages.append(page)
        size += len(page)
        if size >= BLOB_BYTES:
            yield b"".join(gathered_pages)
            gathered_pages.clear()
            size = 0
    if gathered_pages:
        yield b"".join(gathered_pages)


async def _drained(call: Call) -> None:
    """Give others their turn, and wait until little waits for the client."""
    await asyncio.sleep(0)
    if call.backlog_bytes <= BACKLOG_BYTES_MAX:
        return
    drained = asyncio.Event()
    call.call_when_drained(drained.set)
    try:
        async with asyncio.timeout(STALLED_S_MAX):
            await drained.wait()
    except TimeoutError:
        raise Refused(EtcdError.TIMEOUT.value) from None
