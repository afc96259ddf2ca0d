"""Nodes as plain processes: `isochrone bootstrap` and `isochrone node`, without Ray."""

import json
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from process_cluster import Cluster
from small_topology import eventually, isochrone, status_of, write_topology

NODES = ("us-east-1a-1", "us-east-1b-1", "us-east-1c-1")


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """A cluster of three nodes, bootstrapped and not started."""
    done = isochrone("bootstrap", write_topology(tmp_path), "--out", tmp_path / "cluster", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    cluster = Cluster(tmp_path / "cluster")
    for node in NODES:
        assert str(cluster.config_file(node)) in done.stdout
    yield cluster
    cluster.end()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_three_processes_elect_a_leader_and_stop_cleanly_without_ray(cluster: Cluster, number: signal.Signals) -> None:
    processes = [cluster.start(node) for node in NODES]
    eventually(lambda: cluster.leader(*NODES) is not None, "a leader that all know")
    for process in processes:
        process.send_signal(number)
    for process in processes:
        output, errors = process.communicate(timeout=30)
        assert (process.returncode, output) == (0, "False\n"), errors


def test_the_status_of_a_cluster_of_which_nobody_answers_fails_and_says_how_to_start_it(cluster: Cluster) -> None:
    table = isochrone("status", "--dir", cluster.root, cwd=cluster.root)
    plain = isochrone("status", "--dir", cluster.root, "-o", "json", cwd=cluster.root)
    for done in (table, plain):
        assert done.returncode == 1
        assert done.stderr.startswith(
            "isochrone: none of the 3 nodes answers. Start plain processes by `isochrone node"
        )
        assert f"{cluster.root}/nodes/NODE.json" in done.stderr
    assert "0 of 3 nodes answer" in table.stdout
    assert set(json.loads(plain.stdout)["addresses"]) == set(NODES)
    cluster.start(NODES[0])
    eventually(lambda: status_of(cluster.address(NODES[0])) is not None, "the node listens")
    assert isochrone("status", "--dir", cluster.root, cwd=cluster.root).returncode == 0


def test_a_second_process_on_the_same_data_is_refused_and_the_first_goes_on(cluster: Cluster) -> None:
    first = cluster.start(NODES[0])
    eventually(lambda: status_of(cluster.address(NODES[0])) is not None, "the node listens")
    error = cluster.fails(NODES[0])
    assert error.startswith("isochrone: ")
    assert f"is in use by process {first.pid}" in error
    status = status_of(cluster.address(NODES[0]))
    assert status is not None and status.pid == first.pid


def test_up_leaves_a_directory_alone_in_which_a_node_runs(cluster: Cluster, tmp_path: Path) -> None:
    process = cluster.start(NODES[1])
    eventually(lambda: status_of(cluster.address(NODES[1])) is not None, "the node listens")
    before = {path: path.read_bytes() for path in cluster.root.glob("nodes/*")}
    done = isochrone("up", tmp_path / "topology-given.yaml", "--dir", cluster.root, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    data = cluster.root / "data" / NODES[1]
    assert done.stderr == f"isochrone: {data} is in use by process {process.pid}\n"
    assert {path: path.read_bytes() for path in cluster.root.glob("nodes/*")} == before
    status = status_of(cluster.address(NODES[1]))
    assert status is not None and status.pid == process.pid


def test_a_port_in_use_is_one_sentence(cluster: Cluster) -> None:
    address = cluster.address(NODES[0])
    host, _, port = address.rpartition(":")
    with socket.create_server((host, int(port))):
        assert cluster.fails(NODES[0]) == f"isochrone: cannot listen on {address}: Address already in use"


def test_a_foreign_store_is_refused(cluster: Cluster) -> None:
    plain = json.loads(cluster.config_file(NODES[0]).read_text(encoding="utf-8"))
    other = json.loads(cluster.config_file(NODES[1]).read_text(encoding="utf-8"))
    changed = plain | {"data_directory": other["data_directory"]}
    cluster.config_file(NODES[0]).write_text(json.dumps(changed), encoding="utf-8")
    error = cluster.fails(NODES[0])
    assert f"holds the store {other['store']} of node {NODES[1]}" in error


def test_a_copied_store_is_refused_unless_its_operator_says_that_it_was_moved(cluster: Cluster) -> None:
    plain = json.loads(cluster.config_file(NODES[0]).read_text(encoding="utf-8"))
    copy = cluster.root / "copy"
    shutil.copytree(plain["data_directory"], copy)
    changed = plain | {"data_directory": str(copy)}
    cluster.config_file(NODES[0]).write_text(json.dumps(changed), encoding="utf-8")
    assert "starts with --moved" in cluster.fails(NODES[0])
    cluster.start(NODES[0], "--moved")
    eventually(lambda: status_of(cluster.address(NODES[0])) is not None, "the moved node answers")


def test_a_wiped_store_is_refused(cluster: Cluster) -> None:
    data = Path(json.loads(cluster.config_file(NODES[0]).read_text(encoding="utf-8"))["data_directory"])
    for file in data.iterdir():
        file.unlink()
    assert str(data) in cluster.fails(NODES[0])
    assert not (data / "data.mdb").exists()


def test_a_wrong_configuration_exits_with_2(cluster: Cluster, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.json"
    wrong.write_text('{"node": "x"}', encoding="utf-8")
    done = isochrone("node", "--config", wrong, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"{wrong}: region: found nothing; this key is required\n"


def test_a_second_bootstrap_changes_nothing(cluster: Cluster, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in sorted(cluster.root.rglob("*")) if path.is_file()}
    done = isochrone("bootstrap", tmp_path / "topology-given.yaml", "--out", cluster.root, cwd=tmp_path)
    assert done.returncode == 0
    assert "nothing was changed" in done.stdout
    assert {path: path.read_bytes() for path in sorted(cluster.root.rglob("*")) if path.is_file()} == before


def test_a_broken_topology_exits_with_2_and_makes_nothing(tmp_path: Path) -> None:
    topology = write_topology(tmp_path, "name: x\nlatencies: nowhere\nregions: []\n")
    done = isochrone("bootstrap", topology, "--out", tmp_path / "cluster", cwd=tmp_path)
    assert done.returncode == 2
    assert all(line.startswith(f"{topology}: ") for line in done.stderr.strip().splitlines())
    assert not (tmp_path / "cluster").exists()


def test_a_full_disk_is_one_sentence_and_leaves_no_store(tmp_path: Path) -> None:
    program = (
        "import resource, sys\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n"
        "from isochrone.ops.cli.main import main\nmain()"
    )
    command = [sys.executable, "-B", "-c", program, "bootstrap", str(write_topology(tmp_path)), "--out", "d"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=tmp_path, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines()[-1].startswith("isochrone: cannot create a store in ")
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "d" / "data").exists()
