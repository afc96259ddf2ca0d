"""The generated code is that of the .proto files, and the tables made of it are whole."""

import subprocess
import sys
from pathlib import Path

from isochrone.wire.etcd.services_grpc import METHODS

ROOT = Path(__file__).parents[3]
PATH = "isochrone/wire/etcd/generated"
GENERATED = ROOT / "wire/etcd/generated"


def test_generating_again_gives_the_same_bytes(tmp_path: Path) -> None:
    protos = sorted(f"{PATH}/{proto.name}" for proto in (ROOT / "wire/etcd").glob("*.proto"))
    assert len(protos) == 4
    roots = [f"-I{PATH}={ROOT / 'wire/etcd'}", f"--python_out={tmp_path}", f"--pyi_out={tmp_path}"]
    subprocess.run([sys.executable, "-m", "grpc_tools.protoc", *roots, *protos], check=True, timeout=60)
    made = {path.name: path.read_bytes() for path in (tmp_path / PATH).iterdir()}
    kept = {path.name: path.read_bytes() for path in GENERATED.iterdir() if "_pb2" in path.name}
    assert made == kept, "run make protos"


def test_the_services_have_the_methods_that_etcd_publishes() -> None:
    names: dict[str, list[str]] = {}
    for method in METHODS.values():
        names.setdefault(method.service, []).append(method.name)
    assert names == {
        "etcdserverpb.KV": ["Range", "Put", "DeleteRange", "Txn", "Compact"],
        "etcdserverpb.Watch": ["Watch"],
        "etcdserverpb.Lease": ["LeaseGrant", "LeaseRevoke", "LeaseKeepAlive", "LeaseTimeToLive", "LeaseLeases"],
        "etcdserverpb.Cluster": ["MemberAdd", "MemberRemove", "MemberUpdate", "MemberList", "MemberPromote"],
        "etcdserverpb.Maintenance": ["Alarm", "Status", "Defragment", "Hash", "HashKV", "Snapshot", "MoveLeader"],
        "v3lockpb.Lock": ["Lock", "Unlock"],
        "v3electionpb.Election": ["Campaign", "Proclaim", "Leader", "Observe", "Resign"],
    }


def test_what_streams() -> None:
    assert {path for path, method in METHODS.items() if method.request_streams} == {
        "/etcdserverpb.Watch/Watch",
        "/etcdserverpb.Lease/LeaseKeepAlive",
    }
    assert {path for path, method in METHODS.items() if method.response_streams} == {
        "/etcdserverpb.Watch/Watch",
        "/etcdserverpb.Lease/LeaseKeepAlive",
        "/etcdserverpb.Maintenance/Snapshot",
        "/v3electionpb.Election/Observe",
    }


def test_a_known_message_has_the_published_bytes() -> None:
    put = METHODS["/etcdserverpb.KV/Put"].request
    assert put(key=b"k", value=b"v", lease=7, prev_kv=True).SerializeToString() == b"\x0a\x01k\x12\x01v\x18\x07\x20\x01"
