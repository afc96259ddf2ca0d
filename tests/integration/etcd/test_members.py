"""Members of a group come and go by etcd's Cluster service, whichever node is asked."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from process_cluster import Cluster
from small_topology import eventually, isochrone, status_of, write_topology

from isochrone.wire.etcd.answers_grpc import numeric_id
from isochrone.wire.etcd.services_grpc import METHODS

A, B, C, D = NODES = tuple(f"us-east-1{zone}-1" for zone in "abcd")
FOUR_ZONES = """
name: four-zones
latencies: aws
regions:
  - {name: us-east-1, zones: [us-east-1a, us-east-1b, us-east-1c, us-east-1d]}
keyspaces:
  - {prefix: us/, home: us-east-1, survive: zone}
clock: {source: bound, bound_ms: 5}
"""
Ask = Callable[..., Any]


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """Four nodes that run, of which three have a replica."""
    done = isochrone("bootstrap", write_topology(tmp_path, FOUR_ZONES), "--out", tmp_path / "cluster", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    cluster = Cluster(tmp_path / "cluster")
    try:
        for node in NODES:
            cluster.start(node)
        eventually(lambda: cluster.leader(A, B, C) is not None, "a leader that all know")
        eventually(lambda: status_of(cluster.address(D)) is not None, "the fourth node listens")
        yield cluster
    finally:
        cluster.end()


def asking(channel: grpc.Channel) -> Ask:
    """Calls methods of the Cluster service."""

    def ask(name: str, **fields: Any) -> Any:
        method = METHODS[f"/etcdserverpb.Cluster/{name}"]
        call = channel.unary_unary(
            method.path,
            request_serializer=method.request.SerializeToString,
            response_deserializer=method.response.FromString,
        )
        return call(method.request(**fields), timeout=30)

    return ask


def refused(ask: Ask, name: str, code: str, text: str, **fields: Any) -> None:
    with pytest.raises(grpc.RpcError) as error:
        ask(name, **fields)
    status: Any = error.value
    assert (status.code().name, text in status.details()) == (code, True), status.details()


def roles(members: Any) -> dict[str, bool]:
    """Whether each member is a learner."""
    return {member.name: member.isLearner for member in members}


@pytest.mark.parametrize("asked", [B, D], ids=["a member", "a node without a replica"])
def test_a_node_joins_is_promoted_and_leaves(asked: str, cluster: Cluster) -> None:
    etcd = json.loads(cluster.config_file(asked).read_text(encoding="utf-8"))["etcd_addresses"]
    urls = {node: [f"http://{cluster.address(node)}"] for node in NODES}
    with grpc.insecure_channel(etcd[asked]) as channel:
        ask = asking(channel)
        assert roles(ask("MemberList").members) == {A: False, B: False, C: False}

        refused(ask, "MemberAdd", "INVALID_ARGUMENT", "given member URLs are invalid", isLearner=True)
        refused(ask, "MemberAdd", "INVALID_ARGUMENT", "given member URLs are invalid", peerURLs=["here"])
        refused(ask, "MemberAdd", "INVALID_ARGUMENT", f"{D} at {urls[D][0]}", peerURLs=["http://127.0.0.1:1"])
        refused(ask, "MemberAdd", "FAILED_PRECONDITION", "Peer URLs already exists", peerURLs=urls[A])
        refused(ask, "MemberAdd", "FAILED_PRECONDITION", "joins as a learner", peerURLs=urls[D])
        added = ask("MemberAdd", peerURLs=urls[D], isLearner=True)
        assert (added.member.ID, added.member.name, list(added.member.peerURLs)) == (numeric_id(D), D, urls[D])
        assert list(added.member.clientURLs) == [f"http://{etcd[D]}"]
        assert roles(added.members) == {A: False, B: False, C: False, D: True}

        refused(ask, "MemberPromote", "NOT_FOUND", "member not found", ID=1234)
        refused(ask, "MemberPromote", "FAILED_PRECONDITION", "only promote a learner member", ID=numeric_id(A))

        def promoted() -> bool:
            try:
                return roles(ask("MemberPromote", ID=numeric_id(D)).members) == dict.fromkeys(NODES, False)
            except grpc.RpcError as error:
                status: Any = error
                told = "etcdserver: can only promote a learner member which is in sync with leader"
                assert status.details() == told or "try again" in status.details(), status.details()
                return False

        eventually(promoted, "the fourth node votes")
        refused(ask, "MemberUpdate", "NOT_FOUND", "member not found", ID=1234, peerURLs=urls[A])
        refused(ask, "MemberUpdate", "FAILED_PRECONDITION", "configurations", ID=numeric_id(A), peerURLs=urls[B])
        assert roles(ask("MemberUpdate", ID=numeric_id(A), peerURLs=urls[A]).members) == dict.fromkeys(NODES, False)

        refused(ask, "MemberRemove", "NOT_FOUND", "member not found", ID=1234)
        assert roles(ask("MemberRemove", ID=numeric_id(C)).members) == {A: False, B: False, D: False}
        assert roles(ask("MemberList", linearizable=True).members) == {A: False, B: False, D: False}
        silent, other = (node for node in (A, B, D) if node != asked)
        cluster.kill(silent)
        refused(ask, "MemberRemove", "UNAVAILABLE", f"{silent} does not answer", ID=numeric_id(other))
