"""Our HTTP/2 server and the client that matters: etcd's own, in Go, as `etcdctl` brings it."""

import asyncio

import pytest

from isochrone.wire.etcd.errors import EtcdError
from isochrone.wire.etcd.generated import kv_pb2
from isochrone.wire.etcd.generated import rpc_pb2 as pb
from isochrone.wire.http2.calls import Call, StreamMethod, UnaryMethod
from isochrone.wire.http2.server_os import Http2Server

pytestmark = pytest.mark.interop
HEADER = pb.ResponseHeader(cluster_id=1, member_id=2, revision=3, raft_term=4)
OUT_OF_RANGE = 11
MANY = 3000


def answer_range(call: Call, request: bytes) -> None:
    """Keys as asked for: some thousands of them below `many`, an error for an old revision."""
    asked = pb.RangeRequest.FromString(request)
    if asked.revision:
        call.fail(OUT_OF_RANGE, EtcdError.COMPACTED.value.text)
        return
    keys = [b"many/%04d" % number for number in range(MANY)] if asked.key == b"many" else [asked.key]
    kvs = [kv_pb2.KeyValue(key=key, value=b"v" * 100, create_revision=2, mod_revision=3, version=1) for key in keys]
    call.answer(pb.RangeResponse(header=HEADER, kvs=kvs, count=len(kvs)).SerializeToString())


class OneEvent:
    """Watchers that are told of one event each."""

    def __init__(self, call: Call) -> None:
        self.call = call

    def message(self, message: bytes) -> None:
        create = pb.WatchRequest.FromString(message).create_request
        self.call.send(pb.WatchResponse(header=HEADER, created=True).SerializeToString())
        event = kv_pb2.Event(kv=kv_pb2.KeyValue(key=create.key, value=b"seen", mod_revision=3))
        self.call.send(pb.WatchResponse(header=HEADER, events=[event]).SerializeToString())

    def ended(self) -> None:
        self.call.finish()

    def cancelled(self) -> None:
        """Nothing to undo."""


METHODS = {"/etcdserverpb.KV/Range": UnaryMethod(answer_range), "/etcdserverpb.Watch/Watch": StreamMethod(OneEvent)}


async def etcdctl(port: int, *words: str) -> tuple[int, str, str]:
    """Run a command; its status, output and errors. A watch ends after its first event."""
    process = await asyncio.create_subprocess_exec(
        "etcdctl",
        f"--endpoints=127.0.0.1:{port}",
        *words,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None and process.stderr is not None
    async with asyncio.timeout(20):
        if words[0] == "watch":
            lines = [await process.stdout.readline() for _ in range(3)]
            process.kill()
            output, errors = b"".join(lines), b""
            await process.communicate()
        else:
            output, errors = await process.communicate()
    assert process.returncode is not None
    return process.returncode, output.decode(), errors.decode()


def test_etcdctl_speaks_to_our_server() -> None:
    async def run() -> None:
        server = Http2Server(METHODS, message_bytes_max=1 << 20)
        port = await server.start("127.0.0.1", 0)
        try:
            assert await etcdctl(port, "get", "key") == (0, f"key\n{'v' * 100}\n", "")
            status, output, _ = await etcdctl(port, "get", "many", "--prefix", "--keys-only")
            assert status == 0 and output.count("many/") == MANY
            status, _, errors = await etcdctl(port, "get", "key", "--rev=1")
            assert status == 1 and errors.endswith("Error: etcdserver: mvcc: required revision has been compacted\n")
            status, _, errors = await etcdctl(port, "put", "key", "value")
            assert status == 1 and "unknown method /etcdserverpb.KV/Put" in errors
            assert (await etcdctl(port, "watch", "key"))[1] == "PUT\nkey\nseen\n"
        finally:
            await server.stop()

    asyncio.run(run())
