"""What a snapshot of etcd's API gathers while writes and compactions go on."""

import asyncio
import hashlib
from types import SimpleNamespace
from typing import Any

import pytest
from http2_client import Client, prefixed
from state_log import StateLog
from virtual_time import run_virtual

from isochrone.errors import RevisionCompacted
from isochrone.node.etcd_maintenance_grpc import hash_of
from isochrone.node.etcd_slices import SLICE_RECORDS
from isochrone.node.etcd_snapshot_grpc import STALLED_S_MAX, SnapshotCalls, gathered, last_removal
from isochrone.wire.etcd.answers_grpc import Speaker
from isochrone.wire.etcd.generated import rpc_pb2 as pb
from isochrone.wire.http2 import frames
from isochrone.wire.kv import Compact, DeleteRange, Put, Txn
from isochrone.wire.records import decode_record

PER_TXN = 100
PATH = "/etcdserverpb.Maintenance/Snapshot"


def filled() -> StateLog:
    """Two keyspaces, one of them of several slices, with keys of equal revisions and one that is gone."""
    log = StateLog()
    for first in range(0, 2 * SLICE_RECORDS, PER_TXN):
        log.do(Txn((), tuple(Put(b"k/%05d" % number, b"old") for number in range(first, first + PER_TXN))))
    log.do(Put(b"m/a", b"old"))
    log.do(DeleteRange(b"k/00010"))
    log.do(Put(b"k/00011", b"newer"))
    return log


def expected(log: StateLog) -> list[bytes]:
    return sorted(record for state in log.state.data.keyspaces.values() for record in state.history.between(b"", None))


async def disturbed(log: StateLog, change: object) -> list[bytes]:
    """Gather, and change the state after the first slice."""
    data = log.state.data
    gathering = asyncio.ensure_future(gathered(data, data.revision))
    await asyncio.sleep(0)
    log.do(change)  # type: ignore[arg-type]
    return sorted(record for run in await gathering for record in run)


@pytest.mark.parametrize("change", [Put(b"k/01999", b"later"), Put(b"m/b", b"later"), DeleteRange(b"k/", b"k0")])
def test_a_snapshot_holds_one_revision_whatever_is_written_meanwhile(change: object) -> None:
    log = filled()
    held = expected(log)
    assert len(held) == 2 * SLICE_RECORDS
    assert asyncio.run(disturbed(log, change)) == held
    assert {decode_record(record).key[:2] for record in held} == {b"k/", b"m/"}
    assert expected(log) != held


def test_each_list_is_in_the_order_of_the_writes() -> None:
    log = filled()
    runs = asyncio.run(gathered(log.state.data, log.state.data.revision))
    assert len(runs) > 2 and all(run == sorted(run) for run in runs)


def test_a_compaction_up_to_the_revision_changes_nothing_and_one_beyond_ends_the_snapshot() -> None:
    log = filled()
    held = expected(log)
    assert asyncio.run(disturbed(log, Compact(log.state.revision))) == held
    log.do(Put(b"m/c", b"later"))

    async def overtaken() -> None:
        data = log.state.data
        gathering = asyncio.ensure_future(gathered(data, data.revision))
        await asyncio.sleep(0)
        log.do(Put(b"m/d", b"later"))
        log.do(Compact(log.state.revision))
        await gathering

    with pytest.raises(RevisionCompacted):
        asyncio.run(overtaken())


def server(log: StateLog) -> Client:
    """A client of an endpoint with this state."""
    machine = SimpleNamespace(data=log.state.data)
    access: Any = SimpleNamespace(replica=SimpleNamespace(machine=machine), term=1)
    return Client(SnapshotCalls(access, Speaker(1, 2)).methods())


async def until_quiet() -> None:
    """Let everything happen that needs no time."""
    for _ in range(200):
        await asyncio.sleep(0)


def statuses(client: Client, found: list[Any]) -> dict[int, str]:
    """How calls ended, by stream."""
    ends = [each for each in found if each.kind == frames.HEADERS and each.flags & frames.END_STREAM]
    return {each.stream: client.fields(each)["grpc-status"] for each in ends}


def large() -> StateLog:
    """A state that is larger than what may wait for a client."""
    log = StateLog()
    for number in range(8):
        log.do(Put(b"k/%d" % number, bytes(1_000_000)))
    return log


def test_a_file_comes_whole_with_its_checksum() -> None:
    async def run() -> bytes:
        client = server(filled())
        client.connection.receive(frames.frame(frames.WINDOW_UPDATE, 0, 0, (1 << 24).to_bytes(4, "big")))
        stream = client.open(PATH)
        client.send(frames.WINDOW_UPDATE, 0, stream, (1 << 24).to_bytes(4, "big"))
        client.data(stream, prefixed(pb.SnapshotRequest().SerializeToString()), end=True)
        await until_quiet()
        found = client.read()
        heads = [each for each in found if each.kind == frames.HEADERS]
        assert [client.fields(each).get("grpc-status") for each in heads] == [None, "0"]
        return b"".join(each.payload for each in found if each.kind == frames.DATA)

    data, answers = run_virtual(run()), []
    while data:
        end = 5 + int.from_bytes(data[1:5], "big")
        answers.append(pb.SnapshotResponse.FromString(data[5:end]))
        data = data[end:]
    file = b"".join(answer.blob for answer in answers)
    assert len(file) % 512 == 32, "by this etcdctl knows that a checksum is there"
    assert hashlib.sha256(file[:-32]).digest() == file[-32:]
    left = [answer.remaining_bytes for answer in answers]
    sizes = [len(answer.blob) for answer in answers]
    assert left == [sum(sizes[number + 1 : -1]) for number in range(len(sizes) - 1)] + [0]


def test_a_client_that_takes_nothing_loses_the_call_and_others_then_have_their_turn() -> None:
    async def run() -> None:
        client = server(large())
        stalled = client.call(b"", PATH)
        await until_quiet()
        assert client.connection.backlog_bytes < 4_000_000, "the rest of the file waits with us"
        second = client.call(b"", PATH)
        await until_quiet()
        assert statuses(client, client.read()) == {second: "8"}
        await asyncio.sleep(STALLED_S_MAX + 1)
        client.send(frames.RST_STREAM, 0, stalled, (8).to_bytes(4, "big"))
        third = client.call(b"", PATH)
        await until_quiet()
        assert third not in statuses(client, client.read())

    run_virtual(run())


@pytest.mark.parametrize("passes", range(6))
def test_a_client_that_gives_up_leaves_the_place_free(passes: int) -> None:
    async def run() -> None:
        client = server(filled())
        given_up = client.call(b"", PATH)
        for _ in range(passes):
            await asyncio.sleep(0)
        client.send(frames.RST_STREAM, 0, given_up, (8).to_bytes(4, "big"))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        second = client.call(b"", PATH)
        await until_quiet()
        assert statuses(client, client.read()).get(second) != "8"

    run_virtual(run())


def test_only_a_removal_that_was_the_last_write_is_told() -> None:
    log = filled()
    assert last_removal(log.state.data) == []
    log.do(DeleteRange(b"m/a"))
    (record,) = last_removal(log.state.data)
    assert decode_record(record).key == b"m/a"
    log.do(Put(b"k/00000", b"later"))
    assert last_removal(log.state.data) == []


def test_a_hash_is_of_one_revision_and_tells_states_apart() -> None:
    async def hashed(log: StateLog, revision: int, change: Put | DeleteRange | None = None) -> int:
        hashing = asyncio.ensure_future(hash_of(log.state.data, revision))
        await asyncio.sleep(0)
        if change is not None:
            log.do(change)
        return await hashing

    log, other = filled(), filled()
    revision = log.state.revision
    found = run_virtual(hashed(log, revision, DeleteRange(b"k/", b"k0")))
    assert found == run_virtual(hashed(other, revision)) == run_virtual(hashed(log, revision))
    assert run_virtual(hashed(log, log.state.revision)) != found
    other.do(Put(b"m/a", b"old"))
    assert run_virtual(hashed(other, other.state.revision)) != found, "versions count, not only values"
    log.do(Compact(log.state.revision))
    with pytest.raises(RevisionCompacted):
        run_virtual(hashed(log, revision))
