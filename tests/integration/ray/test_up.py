"""`isochrone up`, `status` and `down` on a real Ray: one deployment of one region, through its life."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest
from small_topology import ONE_REGION, PROGRAM, REPOSITORY, eventually, isochrone, write_topology

from isochrone.wire.etcd.generated import rpc_pb2

NODES = ["us-east-1a-1", "us-east-1b-1", "us-east-1c-1"]


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A directory in which a deployment runs; the tests of this module share it, in order."""
    directory = tmp_path_factory.mktemp("up")
    topology = write_topology(directory)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_ADDRESS", "192.0.2.1:6379")  # Another Ray, which must not be joined.
        # From the root of the source tree, where every room could be imported by a second name.
        done = isochrone("up", topology, "--dir", directory / "d", cwd=REPOSITORY)
    assert done.returncode == 0, done.stderr
    assert "one-region is up" in done.stdout
    assert "one Ray node stands for all zones" in done.stderr
    yield directory / "d"
    isochrone("down", "--dir", directory / "d", cwd=directory)


def status(directory: Path) -> dict[str, Any]:
    """`isochrone status -o json`."""
    done = isochrone("status", "--dir", directory, "-o", "json", cwd=directory)
    assert done.returncode == 0, done.stderr
    plain: dict[str, Any] = json.loads(done.stdout)
    return plain


def pids(directory: Path) -> dict[str, int]:
    """The process of each node that answers."""
    return {node["node"]: node["pid"] for node in status(directory)["nodes"]}


def run_file(directory: Path) -> dict[str, Any]:
    """The run file."""
    plain: dict[str, Any] = json.loads((directory / "run.json").read_text(encoding="utf-8"))
    return plain


def session(directory: Path) -> list[psutil.Process]:
    """Every live process that runs below the deployment's Ray head, the head included."""
    head = run_file(directory)["head"]["pid"]
    return [process for process in psutil.process_iter() if os.getsid(process.pid) == head]


def test_status_tells_of_every_replica(deployment: Path) -> None:
    plain = status(deployment)
    assert plain["unreachable"] == []
    assert plain["addresses"] == run_file(deployment)["addresses"]
    assert [node["node"] for node in plain["nodes"]] == NODES
    leaders = {group["leader"] for node in plain["nodes"] for group in node["groups"]}
    assert leaders <= set(NODES) | {None}
    assert len(leaders - {None}) == 1
    table = isochrone("status", "--dir", deployment, cwd=deployment).stdout
    for word in ("node", "zone", "role", "state", "term", "commit", "applied", "lag", "leads", "zone: led by"):
        assert word in table
    assert "\x1b" not in table


def test_every_node_speaks_etcds_api_where_status_says(deployment: Path) -> None:
    nodes = status(deployment)["nodes"]
    assert {node["etcd_group"] for node in nodes} == {"us-east-1.zone"}
    for number, node in enumerate(nodes):
        with grpc.insecure_channel(node["etcd_address"]) as channel:
            put = rpc_pb2.PutRequest(key=b"us/etcd", value=node["node"].encode())
            channel.unary_unary("/etcdserverpb.KV/Put")(put.SerializeToString(), timeout=20)
            read = rpc_pb2.RangeRequest(key=b"us/etcd").SerializeToString()
            (item,) = rpc_pb2.RangeResponse.FromString(
                channel.unary_unary("/etcdserverpb.KV/Range")(read, timeout=20)
            ).kvs
            assert (item.value.decode(), item.version) == (node["node"], number + 1)
    shown = isochrone("status", "--dir", deployment, cwd=deployment).stdout
    assert f"etcd's API: {','.join(node['etcd_address'] for node in nodes)}" in shown


def test_everything_runs_in_one_session_below_one_head(deployment: Path) -> None:
    members = {process.pid for process in session(deployment)}
    assert set(pids(deployment).values()) < members


def test_a_second_up_is_refused_and_the_first_goes_on(deployment: Path) -> None:
    before = pids(deployment)
    done = isochrone("up", deployment.parent / "topology-given.yaml", "--dir", deployment, cwd=deployment)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (f"isochrone: a deployment runs in {deployment} already; see it with: isochrone status\n")
    assert pids(deployment) == before


def test_a_killed_node_is_started_again_on_its_own_data(deployment: Path) -> None:
    before = {node["node"]: node for node in status(deployment)["nodes"]}
    os.kill(before[NODES[0]]["pid"], signal.SIGKILL)
    eventually(lambda: pids(deployment).get(NODES[0], before[NODES[0]]["pid"]) != before[NODES[0]]["pid"], "restart")
    after = {node["node"]: node for node in status(deployment)["nodes"]}
    assert after[NODES[0]]["store"] == before[NODES[0]]["store"]
    assert after[NODES[0]]["incarnation"] == before[NODES[0]]["incarnation"] + 1
    for node in NODES[1:]:
        assert after[node]["pid"] == before[node]["pid"]


def test_a_killed_supervisor_comes_back_and_adopts_the_nodes(deployment: Path) -> None:
    before = pids(deployment)
    supervisors = [process for process in session(deployment) if "Supervisor" in " ".join(process.cmdline())]
    assert len(supervisors) == 1
    supervisors[0].kill()
    assert pids(deployment) == before  # Status needs no supervisor.
    # That it supervises again shows in a node that it starts again; that it adopted them, in the two it left alone.
    os.kill(before[NODES[1]], signal.SIGKILL)
    eventually(lambda: pids(deployment).get(NODES[1], before[NODES[1]]) != before[NODES[1]], "restart")
    after = pids(deployment)
    assert (after[NODES[0]], after[NODES[2]]) == (before[NODES[0]], before[NODES[2]])


CONTROL = """
import asyncio, json, sys
from pathlib import Path
from isochrone.node.deployment_ray import attach
from isochrone.node.driver_ray import is_supervised
from isochrone.node.processes_os import find_process, kill_and_wait
from isochrone.wire.shaping import LinkShape

async def main():
    deployment = attach(Path(sys.argv[1]))
    first, second, third = (spec.id for spec in deployment.topology.nodes)
    async def answering():
        return [status.node for status in await deployment.status()]
    async def pid(node):
        return {status.node: status.pid for status in await deployment.status()}[node]
    async def campaigns(node):
        counters = {status.node: status.counters for status in await deployment.status()}
        return counters.get(node, {}).get("raft_became_pre_candidate", 0)
    seen = {}
    await deployment.kill_node(second)
    await deployment.kill_node(second)
    seen["one killed"] = await answering()
    region = deployment.topology.regions[0].id
    kill_and_wait([(await deployment._state(region)).process], 10.0)
    state = await deployment._state(region)
    seen["held after the supervisor died"] = [*state.held]
    seen["seen by the next supervisor"] = {str(node): str(view.phase) for node, view in state.views.items()}[second]
    zones = [spec.zone for spec in deployment.topology.nodes]
    await deployment.kill_node(first)
    from_second = [link for link in deployment.topology.links() if link[0] == zones[1]]
    await deployment.set_links(dict.fromkeys(from_second, LinkShape(cut=True)))
    await deployment.start_node(second)
    await deployment.start_node(second)
    asked = await campaigns(third)
    async with asyncio.timeout(20):  # The links of the second were cut while it was down, so its votes do not arrive.
        while await campaigns(third) < asked + 3:
            await asyncio.sleep(0.05)
    await deployment.start_node(first)
    seen["all started"] = await answering()
    await deployment.set_links(deployment.topology.links())
    before = await pid(third)
    await deployment.pause_node(third)
    seen["one paused"] = await answering()
    cut = {(zones[0], zones[1]): LinkShape(cut=True)}
    seen["links not taken"] = [*await deployment.set_links(cut)]
    await deployment.resume_node(third)
    seen["links not taken afterwards"] = [*await deployment.set_links(deployment.topology.links())]
    seen["one resumed"] = await answering()
    seen["same process"] = await pid(third) == before
    supervisor = (await deployment._state(region)).process
    await deployment.kill_region(region)
    await deployment.kill_region(region)
    seen["region killed"] = await answering()
    seen["supervisor killed"] = find_process(supervisor) is None
    async with asyncio.timeout(20):  # Ray must not start it again.
        while is_supervised(region):
            await asyncio.sleep(0.05)
    await deployment.start_region(region)
    await deployment.start_region(region)
    seen["region started"] = await answering()
    print(json.dumps(seen))

asyncio.run(main())
"""


def test_nodes_and_regions_are_killed_paused_and_started_at_will(deployment: Path) -> None:
    command = [sys.executable, "-W", "error", "-c", CONTROL, str(deployment)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, cwd=deployment, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "one killed": [NODES[0], NODES[2]],
        "held after the supervisor died": NODES[1:2],
        "seen by the next supervisor": "absent",
        "all started": NODES,
        "one paused": NODES[:2],
        "links not taken": NODES[2:],
        "links not taken afterwards": [],
        "one resumed": NODES,
        "same process": True,
        "region killed": [],
        "supervisor killed": True,
        "region started": NODES,
    }


def test_down_leaves_no_process_and_no_file_behind_and_up_finds_the_data(deployment: Path) -> None:
    members = session(deployment)
    ray_directory = Path(run_file(deployment)["ray_directory"])
    stores = {node["node"]: node["store"] for node in status(deployment)["nodes"]}
    bystander = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(100)"], cwd=deployment)
    try:
        done = isochrone("down", "--dir", deployment, cwd=deployment)
        assert (done.returncode, done.stdout) == (0, f"{deployment}: down\n")
        assert [process for process in members if process.is_running()] == []
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()
    assert not ray_directory.exists()
    assert not (deployment / "run.json").exists()
    done = isochrone("status", "--dir", deployment, cwd=deployment)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"isochrone: nothing runs in {deployment}")
    done = isochrone("down", "--dir", deployment, cwd=deployment)
    assert (done.returncode, done.stdout) == (0, f"{deployment}: nothing runs there that `isochrone up` started\n")
    again = isochrone("up", deployment.parent / "topology-given.yaml", "--dir", deployment, cwd=deployment)
    assert again.returncode == 0, again.stderr
    assert {node["node"]: node["store"] for node in status(deployment)["nodes"]} == stores


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_foreground_deployment_ends_with_its_signal(tmp_path: Path, number: signal.Signals) -> None:
    topology = write_topology(tmp_path)
    command = [str(PROGRAM), "up", str(topology), "--dir", "d", "--foreground"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path)
    assert process.stdout is not None
    # One is stopped when it is up, the other one while it starts.
    if number is signal.SIGINT:
        assert "is up" in process.stdout.readline()
    else:
        eventually((tmp_path / "d" / "run.json").exists, "the head was started")
    members = session(tmp_path / "d")
    assert members
    process.send_signal(number)
    output, errors = process.communicate(timeout=60)
    if number is signal.SIGINT:
        assert (process.returncode, output) == (0, f"{tmp_path / 'd'}: down\n"), errors
    else:
        assert (process.returncode, output) == (128 + number, "")
        assert errors.endswith("isochrone: ended by SIGTERM; what was started is stopped\n")
    assert "Traceback" not in errors
    assert [member for member in members if member.is_running()] == []
    assert not (tmp_path / "d" / "run.json").exists()


def test_a_broken_topology_starts_nothing(tmp_path: Path) -> None:
    topology = write_topology(tmp_path, ONE_REGION.replace("latencies: aws", "latencies: mars"))
    done = isochrone("up", topology, "--dir", tmp_path / "d", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"{topology}: latencies: found ")
    assert not (tmp_path / "d").exists()


def test_a_missing_topology_is_bad_input(tmp_path: Path) -> None:
    done = isochrone("up", "none.yaml", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("none.yaml: ")
    assert not (tmp_path / ".isochrone").exists()


def test_a_node_without_its_store_fails_the_up_and_nothing_is_left_running(tmp_path: Path) -> None:
    topology = write_topology(tmp_path)
    assert isochrone("bootstrap", topology, "--out", tmp_path / "d", cwd=tmp_path).returncode == 0
    (tmp_path / "d" / "data" / NODES[1] / "data.mdb").unlink()
    done = isochrone("up", topology, "--dir", tmp_path / "d", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    last = done.stderr.splitlines()[-1]
    assert last.startswith(f"isochrone: node {NODES[1]} did not start: StorageError: there is no store in ")
    assert not (tmp_path / "d" / "run.json").exists()


def test_a_missing_ray_is_one_sentence(tmp_path: Path) -> None:
    program = "import sys; sys.modules['ray'] = None; from isochrone.ops.cli.main import main; main()"
    command = [sys.executable, "-c", program, "up", str(write_topology(tmp_path))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=tmp_path, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "isochrone: Ray is not installed; install it with: pip install 'ray>=2.60'\n"
    assert not (tmp_path / ".isochrone").exists()


def test_an_address_in_use_starts_nothing(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        nodes = f"""
nodes:
  - {{name: n-a, zone: us-east-1a, address: "{address}"}}
  - {{name: n-b, zone: us-east-1b}}
  - {{name: n-c, zone: us-east-1c}}
"""
        done = isochrone("up", write_topology(tmp_path, ONE_REGION + nodes), "--dir", tmp_path / "d", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"isochrone: {address}, the address of node n-a, cannot be used: Address already in use\n"
    assert not (tmp_path / "d" / "data").exists()
