"""The metrics of three real processes, as Prometheus would read them, while everything happens that they count."""

import asyncio
import json
import re
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
import pytest
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2, metrics_service_pb2_grpc
from process_cluster import Cluster
from prometheus_client.parser import text_string_to_metric_families
from small_topology import eventually, isochrone, write_topology

from isochrone.client import Client
from isochrone.errors import LockHeld
from isochrone.ids import GroupId, KeyspaceId
from isochrone.node.metric_catalogue import CATALOGUE, Kind
from isochrone.wire.commands import Command, OpenSession, SessionResult, decode_result, encode_command
from isochrone.wire.etcd.generated import rpc_pb2 as pb
from isochrone.wire.fence_gates import fenced
from isochrone.wire.kv import Put
from isochrone.wire.leases import LeaseGrant
from isochrone.wire.messages import PROTOCOL_VERSION
from isochrone.wire.session import ClientHello, Refusal, SessionMessage, WriteAnswer, WriteRequest
from isochrone.wire.session_client_grpc import connect

NODES = ("us-east-1a-1", "us-east-1b-1", "us-east-1c-1")
GROUP = GroupId("us-east-1.zone")
Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]
STEADY = {
    "isochrone_clock_uncertainty_seconds",
    "isochrone_store_limit_bytes",
    "isochrone_raft_queued_commands",
    "isochrone_raft_queued_bytes",
    "isochrone_clients_kept_bytes",
    "isochrone_clients_kept_limit_bytes",
    "isochrone_clients_cut_off_total",
    "isochrone_raft_has_leader",
    "isochrone_watch_behind",
}
"""Metrics that stay as they are, or were so again when they are read."""


def bootstrapped(directory: Path) -> Cluster:
    """Three nodes that warn of a lock after half a second, and were not started."""
    done = isochrone("bootstrap", write_topology(directory), "--out", directory / "cluster", cwd=directory)
    assert done.returncode == 0, done.stderr
    cluster = Cluster(directory / "cluster")
    for node in NODES:
        plain = json.loads(cluster.config_file(node).read_text(encoding="utf-8"))
        text = json.dumps(plain | {"lock_warning_s": 0.5})
        cluster.config_file(node).write_text(text, encoding="utf-8")
    return cluster


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A running cluster. The last test that uses it stops a node."""
    cluster = bootstrapped(tmp_path_factory.mktemp("running"))
    for node in NODES:
        cluster.start(node)
    eventually(lambda: cluster.leader(*NODES) is not None, "a leader that all know")
    yield cluster
    cluster.end()


def setting(cluster: Cluster, node: str, name: str) -> Any:
    return json.loads(cluster.config_file(node).read_text(encoding="utf-8"))[name]


def scrape(cluster: Cluster, node: str) -> Samples:
    """The samples of a node by name and labels."""
    url = f"http://{setting(cluster, node, 'metrics_address')}/metrics"
    with urllib.request.urlopen(url, timeout=10) as response:
        assert response.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        text = response.read().decode()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def total(samples: Samples, name: str, **labels: str) -> float:
    """The sum of a metric's samples that have these labels."""
    return sum(value for (found, its), value in samples.items() if found == name and labels.items() <= set(its))


def scrape_all(cluster: Cluster) -> dict[str, Samples]:
    return {node: scrape(cluster, node) for node in cluster.by_node}


async def contend(client: Client, other: Client, middle: Callable[[], None]) -> int:
    """Locks that are free, waited for, refused, waited for in vain and held for long, when `middle` is called.

    Returns an old token.
    """
    async with client.lock("us/lock", value="worker 7") as lock:
        token = lock.token
        with pytest.raises(LockHeld):
            async with other.lock("us/lock", wait_s=0):
                pass
        with pytest.raises(LockHeld):
            async with other.lock("us/lock", wait_s=0.2):
                pass
        waits = asyncio.create_task(_pass_through(other))
        await asyncio.sleep(3)  # beyond the warning time, and two rounds of whoever looks for that
        await asyncio.to_thread(middle)
    await waits
    return token


async def _pass_through(client: Client) -> None:
    async with client.lock("us/lock"):
        pass


async def raw(address: str, *commands: Command) -> list[WriteAnswer | Refusal]:
    """Commands sent to a node as they are, one after the other."""
    messages: asyncio.Queue[SessionMessage] = asyncio.Queue()
    hello = ClientHello(PROTOCOL_VERSION, "us-east-1", "us-east-1a", "raw")
    connection = await connect(address, hello, messages.put_nowait, lambda _: None)
    found: list[WriteAnswer | Refusal] = []
    for number, command in enumerate(commands, 1):
        request = WriteRequest((number,), GROUP, KeyspaceId("us/"), 5_000, b"", (encode_command(command),))
        connection.send(request)
        while not isinstance(message := await asyncio.wait_for(messages.get(), 10), WriteAnswer | Refusal):
            pass
        found.append(message)
    await connection.close()
    return found


async def what_counts(cluster: Cluster, leader: str, middle: Callable[[], None]) -> None:
    """Make everything happen that is counted, but for elections."""
    endpoints = [cluster.address(node) for node in NODES]
    async with (
        await Client.connect(endpoints, region="us-east-1") as client,
        await Client.connect(endpoints, region="us-east-1") as other,
        client.watch("us/watched", start_revision=1) as events,
    ):
        await client.put("us/watched", "1")
        await anext(events)
        old_token = await contend(client, other, middle)
        async with client.lock("us/lock") as lock:
            await client.execute("us/gate", fenced(b"us/gate", lock.name, lock.token))
            await client.execute("us/gate", fenced(b"us/gate", lock.name, old_token))
        await client.put("us/large", bytes(500_000))
        await client.get("us/watched")
        await client.execute("us/", LeaseGrant(0, 1_000))
    await sessions(cluster.address(leader))
    revoke_unknown_lease(setting(cluster, leader, "etcd_addresses")[leader])


async def sessions(address: str) -> None:
    """A command that comes twice, and one that comes when its session has expired."""
    (answer,) = await raw(address, Command(0, 0, 0, OpenSession(b"", 1_000)))
    assert isinstance(answer, WriteAnswer), answer
    opened = decode_result(answer.payloads[0])
    assert isinstance(opened, SessionResult)
    put = Put(b"us/raw", b"1")
    first, again = await raw(address, *[Command(opened.session, 1, 0, put)] * 2)
    assert isinstance(first, WriteAnswer) and isinstance(again, WriteAnswer) and first.payloads == again.payloads
    await asyncio.sleep(1.2)
    (late,) = await raw(address, Command(opened.session, 2, 0, put))
    assert isinstance(late, Refusal) and late.error == "SessionExpired", late


def revoke_unknown_lease(address: str) -> None:
    with grpc.insecure_channel(address) as channel:
        revoke = channel.unary_unary(
            "/etcdserverpb.Lease/LeaseRevoke",
            request_serializer=pb.LeaseRevokeRequest.SerializeToString,
            response_deserializer=pb.LeaseRevokeResponse.FromString,
        )
        with pytest.raises(grpc.RpcError):
            revoke(pb.LeaseRevokeRequest(ID=12345), timeout=10)


PROGRAM = """
import asyncio, json, sys
from opentelemetry import metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from isochrone.client import Client
from isochrone.errors import LockHeld

reader = InMemoryMetricReader()
metrics.set_meter_provider(MeterProvider([reader]))

async def main():
    async with await Client.connect([sys.argv[1]], region="us-east-1") as client:
        async with client.lock("us/program"):
            try:
                async with client.lock("us/program", wait_s=0):
                    pass
            except LockHeld:
                pass
    await client.close()

asyncio.run(main())
(resource,) = reader.get_metrics_data().resource_metrics
(scope,) = [each for each in resource.scope_metrics if each.scope.name == "isochrone.client"]
print(json.dumps({
    each.name: [[dict(point.attributes), getattr(point, "count", getattr(point, "value", None))]
                for point in each.data.data_points]
    for each in scope.metrics
}))
"""


def test_a_program_with_a_meter_provider_exports_what_its_client_did(cluster: Cluster) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, cluster.address(NODES[0])],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=cluster.root,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    region = {"region": "us-east-1"}
    assert told["isochrone_client_lock_acquisition_seconds"] == [[region, 1]]
    assert told["isochrone_client_lock_hold_seconds"] == [[region, 1]]
    assert told["isochrone_client_errors_total"] == [[region | {"error": "LockHeld"}, 1]]
    assert told["isochrone_client_attempts_total"][0][1] > 4
    assert told["isochrone_client_retries_total"] == [[region, 0]]


def test_every_metric_tells_what_happened(cluster: Cluster) -> None:
    first = cluster.leader(*NODES)
    assert first is not None
    before = scrape_all(cluster)
    assert total(before[first], "isochrone_raft_is_leader") == 1
    middle: dict[str, Samples] = {}
    asyncio.run(what_counts(cluster, first, lambda: middle.update(scrape_all(cluster))))
    moved = names_that_differ(before, middle)
    eventually(lambda: total(scrape(cluster, first), "isochrone_lease_expiries_total") > 0, "the lease runs out")
    after = scrape_all(cluster)
    check_counts(before[first], after[first])
    moved |= names_that_differ(before, after)

    check_warning(stopped_log(cluster, first))
    rest = [node for node in NODES if node != first]
    eventually(lambda: cluster.leader(*rest) in rest, "another leader")
    second = cluster.leader(*rest)
    assert second is not None
    check_election(scrape(cluster, second))
    moved |= names_that_differ(after, scrape_all(cluster))
    assert {metric.name for metric in CATALOGUE} - moved <= STEADY


def names_that_differ(before: dict[str, Samples], after: dict[str, Samples]) -> set[str]:
    """The metrics of which a value is another now, on a node that runs still."""
    histograms = [metric.name for metric in CATALOGUE if metric.kind is Kind.HISTOGRAM]
    counts = {f"{name}_count": name for name in histograms}
    return {
        counts.get(name, name)
        for node in after
        for (name, labels), value in after[node].items()
        if value != before[node].get((name, labels), 0.0)
    }


def check_counts(before: Samples, leader: Samples) -> None:
    """What `what_counts` did, as its leader counted it."""
    expected = [
        ("isochrone_lock_acquisition_seconds_count", {"waited": "no"}, 2),
        ("isochrone_lock_acquisition_seconds_count", {"waited": "yes"}, 1),
        ("isochrone_lock_waits_total", {"end": "granted"}, 1),
        ("isochrone_lock_waits_total", {"end": "timed_out"}, 1),
        ("isochrone_lock_token_rejections_total", {}, 1),
        ("isochrone_lock_held_too_long_total", {}, 1),
        ("isochrone_session_retries_total", {}, 1),
        ("isochrone_session_expiries_total", {}, 1),
        ("isochrone_lease_expiries_total", {}, 1),
        ("isochrone_errors_total", {"api": "session", "error": "LockHeld"}, 1),
        ("isochrone_errors_total", {"api": "session", "error": "SessionExpired"}, 1),
        ("isochrone_errors_total", {"api": "etcd", "error": "LeaseNotFound"}, 1),
    ]
    found = [
        (name, labels, total(leader, name, **labels) - total(before, name, **labels)) for name, labels, _ in expected
    ]
    assert found == expected
    predicted = total(leader, "isochrone_lock_acquisition_predicted_seconds", client_region="us-east-1")
    assert 0 < predicted < 0.01
    assert total(leader, "isochrone_clock_uncertainty_seconds") == 0.005


def stopped_log(cluster: Cluster, node: str) -> str:
    """Stop a node; returns what it logged."""
    process = cluster.by_node.pop(node)
    cluster.running.remove(process)
    process.terminate()
    _, log = process.communicate(timeout=30)
    assert process.returncode == 0, log
    return log


def check_warning(log: str) -> None:
    """While the lock was held for three seconds, a warning came after half a second and whenever that had doubled."""
    warnings = [line for line in log.splitlines() if "is held for" in line]
    assert len(warnings) >= 2
    holder = r"by lease \d+ \('worker 7'\), token \d+; 1 wait for it"
    assert re.search(rf"lock 'us/lock' is held for [123] s {holder}$", warnings[-1]), warnings


def check_election(leader: Samples) -> None:
    """What the second leader tells of how it became one."""
    assert total(leader, "isochrone_raft_is_leader") == total(leader, "isochrone_raft_elections_won_total") == 1
    assert total(leader, "isochrone_raft_election_seconds_count") == 1
    assert total(leader, "isochrone_raft_leader_changes_total") > 1


class Collector(metrics_service_pb2_grpc.MetricsServiceServicer):
    """An OTLP collector that keeps what it is sent."""

    def __init__(self) -> None:
        self.requests: list[metrics_service_pb2.ExportMetricsServiceRequest] = []

    def Export(  # noqa: N802
        self, request: metrics_service_pb2.ExportMetricsServiceRequest, context: grpc.ServicerContext
    ) -> metrics_service_pb2.ExportMetricsServiceResponse:
        self.requests.append(request)
        return metrics_service_pb2.ExportMetricsServiceResponse()


def test_a_node_pushes_its_metrics_where_the_environment_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    collector = Collector()
    server = grpc.server(futures.ThreadPoolExecutor(1))
    metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server(collector, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", "200")
    cluster = bootstrapped(tmp_path)
    try:
        cluster.start(NODES[0])
        eventually(lambda: len(collector.requests) >= 2, "two pushes")
        server.stop(None).wait()
        stopped_log(cluster, NODES[0])
    finally:
        cluster.end()
    (resource,) = collector.requests[-1].resource_metrics
    (scope,) = resource.scope_metrics
    names = {metric.name for metric in scope.metrics}
    assert names <= {metric.name for metric in CATALOGUE} and len(names) > 20
    (size,) = [metric for metric in scope.metrics if metric.name == "isochrone_store_size_bytes"]
    (point,) = size.gauge.data_points
    assert point.as_int > 4096
    assert {each.key: each.value.string_value for each in point.attributes} == {
        "node": NODES[0],
        "region": "us-east-1",
    }
