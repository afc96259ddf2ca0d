"""`etcdctl` talks to a server of etcd's API and gets what etcd gives: the steps are proved against a real etcd.

Our own server is three nodes in processes of their own; all of them are asked, whoever leads.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from etcd_cluster import EtcdCluster
from etcd_nodes import etcd_nodes
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


NOT_SERVED = ("member changes", "check perf")
"""Sections that hold what our nodes do not do (adding members), or that measure."""

OURS_ALONE = ("outside",)
"""Sections about what only our nodes refuse."""


@contextmanager
def etcd(directory: Path) -> Iterator[Server]:
    """Three members of etcd."""
    # etcd takes no new members in its first seconds, unless told so.
    options = ["--strict-reconfig-check=false"]
    with EtcdCluster(directory, options=options) as cluster:
        yield server_at(cluster.addresses, cluster.leader.address)


@contextmanager
def isochrone_nodes(directory: Path) -> Iterator[Server]:
    """Three nodes of ours."""
    with etcd_nodes(directory) as (addresses, leader):
        yield server_at(addresses, leader)


SERVERS = {"etcd": etcd, "isochrone": isochrone_nodes}


@pytest.fixture(scope="module", params=SERVERS)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server for all sections."""
    with SERVERS[request.param](tmp_path_factory.mktemp(request.param)) as found:
        yield found


CONVERSATIONS = [
    (name, section)
    for name in SERVERS
    for section in SECTIONS
    if (name == "etcd" and section not in OURS_ALONE) or (name == "isochrone" and section not in NOT_SERVED)
]


@pytest.mark.parametrize(("server", "section"), CONVERSATIONS, indirect=["server"])
def test_a_conversation(section: str, server: Server, tmp_path: Path) -> None:
    with Etcdctl(server.endpoints, server.words | {"directory": str(tmp_path)}) as shell:
        for step in SECTIONS[section]:
            shell.take(step)
