"""Clients that stall, flood and break off, beside one that works: it is served, the node's memory stays bounded."""

import socket
from contextlib import ExitStack, suppress
from pathlib import Path

import grpc
import pytest
from hpack import Encoder
from http2_client import prefixed
from process_cluster import Cluster
from small_topology import eventually, isochrone, write_topology

from isochrone.topology import load_topology
from isochrone.wire.admin_grpc import CHANNEL_OPTIONS
from isochrone.wire.etcd.generated import rpc_pb2 as pb
from isochrone.wire.http2 import frames
from isochrone.wire.messages import PROTOCOL_VERSION
from isochrone.wire.session import ClientHello, WatchCreate
from isochrone.wire.session_codec import encode_session_frame
from isochrone.wire.streams_grpc import SESSION_METHOD

NODES = ("us-east-1a-1", "us-east-1b-1", "us-east-1c-1")
WRITES, VALUE_BYTES = 120, 300_000
STALLED = 20
"""What they do not read would be 720 MB, were it kept for each."""
GROWTH_BYTES_MAX = 450 << 20
PATIENCE_S = 60.0


class Raw:
    """A socket that speaks HTTP/2 to an endpoint, and reads only when told to."""

    def __init__(self, address: str, *, windows: bool) -> None:
        host, _, port = address.rpartition(":")
        self.socket = socket.create_connection((host, int(port)), timeout=PATIENCE_S)
        said = frames.settings((frames.INITIAL_WINDOW_SIZE, frames.WINDOW_MAX)) if windows else frames.settings()
        self.socket.sendall(frames.PREFACE + said + (frames.window_update(0, 1 << 30) if windows else b""))
        self._encoder = Encoder()

    def open(self, path: str, stream: int) -> bytes:
        said = {":method": "POST", ":scheme": "http", ":path": path, "content-type": "application/grpc"}
        return frames.frame(frames.HEADERS, frames.END_HEADERS, stream, self._encoder.encode(list(said.items())))

    def watch(self) -> None:
        create = pb.WatchRequest(create_request=pb.WatchCreateRequest(key=b"us/w/", range_end=b"us/w0"))
        data = frames.frame(frames.DATA, 0, 1, prefixed(create.SerializeToString()))
        self.socket.sendall(self.open("/etcdserverpb.Watch/Watch", 1) + data)

    def events(self, count: int) -> list[bytes]:
        """The keys of so many events of the stream."""
        raw, data, keys = b"", b"", list[bytes]()
        while len(keys) < count:
            received = self.socket.recv(1 << 20)
            assert received, "the endpoint hung up"
            raw += received
            while len(raw) >= frames.HEADER_BYTES:
                size, kind, _, _ = frames.parse_head(raw, 0)
                if len(raw) < frames.HEADER_BYTES + size:
                    break
                payload, raw = raw[frames.HEADER_BYTES : frames.HEADER_BYTES + size], raw[frames.HEADER_BYTES + size :]
                data += payload if kind == frames.DATA else b""
            while len(data) >= 5 and len(data) >= 5 + int.from_bytes(data[1:5], "big"):
                end = 5 + int.from_bytes(data[1:5], "big")
                keys += [event.kv.key for event in pb.WatchResponse.FromString(data[5:end]).events]
                data = data[end:]
        return keys

    def is_cut_off(self, pieces: list[bytes]) -> bool:
        """Send these, over and over and without reading, until the other end will have no more of it."""
        with suppress(ConnectionError):
            for _ in range(10_000):
                for piece in pieces:
                    self.socket.sendall(piece)
            return False
        return True

    def resets(self) -> list[bytes]:
        """Calls that are begun and given up, as many as there can be."""
        return [
            self.open("/etcdserverpb.Watch/Watch", stream) + frames.reset_stream(stream, frames.Code.CANCEL)
            for stream in range(1, 20_001, 2)
        ]


def memory_bytes(pid: int) -> int:
    """What a process holds of its own, without the files that it maps."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) << 10
    raise AssertionError("no such line")


def stalled_session(address: str, group: str, stack: ExitStack) -> None:
    """A session of our own protocol that watches and never reads."""
    hello = ClientHello(PROTOCOL_VERSION, "us-east-1", "us-east-1a", "stalled")
    watch = WatchCreate(1, group, b"us/w/", b"us/w0", 0, False, True, True)  # type: ignore[arg-type]
    channel = stack.enter_context(grpc.insecure_channel(address, options=CHANNEL_OPTIONS))
    call = channel.stream_stream(SESSION_METHOD)(iter([encode_session_frame([hello]), encode_session_frame([watch])]))
    stack.callback(call.cancel)


@pytest.fixture
def cluster(tmp_path: Path) -> "Cluster":
    done = isochrone("bootstrap", write_topology(tmp_path), "--out", tmp_path / "cluster", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    return Cluster(tmp_path / "cluster")


def test_a_client_is_served_beside_those_that_stall_flood_and_break_off(cluster: Cluster, tmp_path: Path) -> None:
    group = load_topology(tmp_path / "topology-given.yaml").groups[0].id
    try:
        for node in NODES:
            cluster.start(node)
        eventually(lambda: cluster.leader(*NODES) is not None, "a leader that all know")
        leader = cluster.leader(*NODES)
        assert leader is not None
        pid, address = cluster.by_node[leader].pid, cluster.etcd_address(leader)
        with ExitStack() as stack:
            before = memory_bytes(pid)
            watchers = [Raw(address, windows=number % 2 == 0) for number in range(STALLED)]
            for raw in watchers:
                stack.callback(raw.socket.close)
                raw.watch()
            stalled_session(cluster.address(leader), group, stack)
            channel = stack.enter_context(grpc.insecure_channel(address))
            put = channel.unary_unary("/etcdserverpb.KV/Put", request_serializer=pb.PutRequest.SerializeToString)
            for number in range(WRITES):
                if number in (30, 60, 90):
                    flood = Raw(address, windows=True)
                    stack.callback(flood.socket.close)
                    ping = frames.frame(frames.PING, 0, 0, bytes(8)) * 1_000
                    assert flood.is_cut_off([ping] if number == 60 else flood.resets())
                put(pb.PutRequest(key=b"us/w/%04d" % number, value=bytes(VALUE_BYTES)), timeout=PATIENCE_S)
            grown = memory_bytes(pid) - before
            assert grown < GROWTH_BYTES_MAX, f"the leader has grown by {grown >> 20} MiB"
            assert watchers[0].events(WRITES) == [b"us/w/%04d" % number for number in range(WRITES)]
    finally:
        cluster.end()
