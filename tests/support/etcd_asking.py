"""An endpoint of etcd's API on a host in virtual time, and clients of it, all in memory."""

import asyncio
from collections.abc import Awaitable, Callable

from google.protobuf.message import Message
from host_cluster import GROUP, KEYSPACE, HostCluster
from http2_client import Client, Frame, prefixed
from virtual_time import run_virtual

from isochrone.ids import NodeId, ReplicaRole
from isochrone.node.etcd_calls_grpc import GroupCalls
from isochrone.node.etcd_endpoint_grpc import MESSAGE_BYTES_MAX
from isochrone.node.etcd_group import GroupAccess
from isochrone.node.etcd_locks_grpc import LockCalls
from isochrone.node.etcd_probes_grpc import HealthCalls, reflection_methods
from isochrone.node.etcd_watches_grpc import PATH, watch_method
from isochrone.wire.etcd.answers_grpc import Speaker
from isochrone.wire.http2 import frames
from isochrone.wire.http2.calls import Methods
from isochrone.wire.http2.limits import Limits


class Asking:
    """A client of one endpoint, in memory. Reads everything at once, and gives back no windows but at the start."""

    def __init__(self, methods: Methods, *, takes: bool = True) -> None:
        """`takes`: its windows are as large as any answer."""
        self.client = Client(methods, Limits(), message_bytes_max=MESSAGE_BYTES_MAX)
        if takes:
            window = frames.settings((frames.INITIAL_WINDOW_SIZE, frames.WINDOW_MAX))
            self.client.connection.receive(window + frames.window_update(0, 1 << 30))
        self.frames: list[Frame] = []

    def begin(self, path: str, message: bytes, *, end: bool = True) -> int:
        """Begin a call with one message; returns its stream."""
        stream = self.client.open(path)
        data = prefixed(message)
        for at in range(0, len(data), frames.FRAME_BYTES_MAX):
            self.client.data(stream, data[at : at + frames.FRAME_BYTES_MAX])
        if end:
            self.client.data(stream, b"", end=True)
        return stream

    def read(self) -> None:
        self.frames += self.client.read()

    def status(self, stream: int) -> tuple[str, str] | None:
        """How a call ended: code and text; None if it has not."""
        ends = [
            self.client.fields(each)
            for each in self.frames
            if each.stream == stream and each.kind == frames.HEADERS and each.flags & frames.END_STREAM
        ]
        assert len(ends) <= 1
        return (ends[0]["grpc-status"], ends[0].get("grpc-message", "")) if ends else None

    def answers(self, stream: int) -> list[bytes]:
        """The messages of an answer."""
        data = b"".join(each.payload for each in self.frames if each.stream == stream and each.kind == frames.DATA)
        found = []
        while data:
            size = int.from_bytes(data[1:5], "big")
            found.append(data[5 : 5 + size])
            data = data[5 + size :]
        return found

    async def ask(self, path: str, message: Message) -> tuple[str, str]:
        stream = self.begin(path, message.SerializeToString())
        for _ in range(200):
            await asyncio.sleep(0.05)
            self.read()
            if (status := self.status(stream)) is not None:
                return status
        raise AssertionError("no answer")


def with_endpoint(test: Callable[[Methods, HostCluster], Awaitable[None]]) -> None:
    async def never() -> None:
        raise AssertionError("the leader is asked")

    async def main() -> None:
        cluster = HostCluster({"a": ReplicaRole.FULL})
        await cluster.start_all()
        await cluster.until(lambda: cluster.leader() is not None)
        host = cluster.processes[NodeId("a")].host
        assert host is not None
        access = GroupAccess(host, NodeId("a"), GROUP, [(KEYSPACE.encode(), KEYSPACE)], never)  # type: ignore[arg-type]
        speaker = Speaker(1, 2)
        methods = {
            **GroupCalls(access, speaker).methods(),
            **LockCalls(access, speaker).methods(),
            PATH: watch_method(access, speaker),
            **HealthCalls(host, [GROUP]).methods(),
            **reflection_methods(["etcdserverpb.KV", "etcdserverpb.Watch"]),
        }
        await test(methods, cluster)
        await access.close()
        await cluster.stop_all()

    run_virtual(main())
