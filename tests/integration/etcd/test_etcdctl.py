"""`etcdctl` talks to a server of etcd's API and gets what etcd gives: the steps are proved against a real etcd."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from etcd_cluster import EtcdCluster
from etcdctl import Etcdctl
from etcdctl_steps import SECTIONS

from isochrone.wire.etcd.generated import rpc_pb2

pytestmark = pytest.mark.interop


@dataclass(frozen=True, slots=True)
class Server:
    """Whatever speaks etcd's API on three endpoints, and what steps must know of it."""

    endpoints: list[str]
    """The leader's first."""
    words: dict[str, str]


def server_at(endpoints: list[str], leader: str) -> Server:
    """Describe a running server by its list of members."""
    with grpc.insecure_channel(leader) as channel:
        call = channel.unary_unary(
            "/etcdserverpb.Cluster/MemberList",
            request_serializer=rpc_pb2.MemberListRequest.SerializeToString,
            response_deserializer=rpc_pb2.MemberListResponse.FromString,
        )
        listed = call(rpc_pb2.MemberListRequest(), timeout=10.0)
    ids = [f"{member.ID:x}" for member in listed.members]
    own = f"{listed.header.member_id:x}"
    follower = next(each for each in ids if each != own)
    others = [endpoint for endpoint in endpoints if endpoint != leader]
    return Server([leader, *others], {"one": leader, "leader": own, "follower": follower})


@pytest.fixture(scope="module", params=["etcd"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server for all sections."""
    # etcd takes no new members in its first seconds, unless told so.
    options = ["--strict-reconfig-check=false"]
    with EtcdCluster(tmp_path_factory.mktemp(request.param), options=options) as cluster:
        yield server_at(cluster.addresses, cluster.leader.address)


@pytest.mark.parametrize("section", SECTIONS)
def test_a_conversation(section: str, server: Server, tmp_path: Path) -> None:
    with Etcdctl(server.endpoints, server.words | {"directory": str(tmp_path)}) as shell:
        for step in SECTIONS[section]:
            shell.take(step)
