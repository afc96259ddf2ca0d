"""`etcdctl` talks to a server of etcd's API and gets what etcd gives: the steps are proved against a real etcd.

Our own server is three nodes in processes of their own; all of them are asked, whoever leads.
"""

import re
import subprocess
from collections.abc import Iterator
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


def is_shared(section: str) -> bool:
    return section not in (*ETCD_ALONE, *OURS_ALONE)


ETCD_ALONE = ("member changes",)
"""Sections that our nodes do not pass: members are nodes of the topology, not any URL (see `test_members`)."""
OURS_ALONE = ("outside",)
"""Sections about what only our nodes refuse."""


@pytest.fixture(scope="module")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Three members of etcd, for all sections."""
    # etcd takes no new members in its first seconds, unless told so.
    options = ["--strict-reconfig-check=false"]
    with EtcdCluster(tmp_path_factory.mktemp("etcd"), options=options) as cluster:
        yield server_at(cluster.addresses, cluster.leader.address)


@pytest.fixture(scope="module")
def isochrone_nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Three nodes of ours, for all sections."""
    with etcd_nodes(tmp_path_factory.mktemp("isochrone")) as (addresses, leader):
        yield server_at(addresses, leader)


@pytest.fixture(scope="module", autouse=True)
def check_perf(tmp_path_factory: pytest.TempPathFactory) -> Iterator["subprocess.Popen[str]"]:
    """`etcdctl check perf` with nodes of its own, as it takes a minute: it goes on while the other tests run."""
    with etcd_nodes(tmp_path_factory.mktemp("perf")) as (addresses, _):
        command = ["etcdctl", f"--endpoints={','.join(addresses)}", "check", "perf", "--prefix=us/check-perf/"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        try:
            yield process
        finally:
            process.kill()
            process.communicate()


def converse(server: Server, section: str, directory: Path) -> None:
    with Etcdctl(server.endpoints, server.words | {"directory": str(directory)}) as shell:
        for step in SECTIONS[section]:
            shell.take(step)


@pytest.mark.parametrize("section", [name for name in SECTIONS if is_shared(name) or name in ETCD_ALONE])
def test_a_conversation_with_etcd(section: str, etcd: Server, tmp_path: Path) -> None:
    converse(etcd, section, tmp_path)


@pytest.mark.parametrize("section", [name for name in SECTIONS if is_shared(name) or name in OURS_ALONE])
def test_a_conversation_with_our_nodes(section: str, isochrone_nodes: Server, tmp_path: Path) -> None:
    converse(isochrone_nodes, section, tmp_path)


def test_etcdctl_measures_our_nodes(check_perf: "subprocess.Popen[str]") -> None:
    """It writes 150 times a second. A machine that does much else may miss that, but not by half."""
    output, _ = check_perf.communicate(timeout=120)
    found = re.search(r"Throughput (?:is|too low:) (\d+) writes/s", output)
    assert found is not None and int(found[1]) > 75, output[-500:]
