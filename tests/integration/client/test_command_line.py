"""The command line on a real cluster: keys, watches, leases, locks around commands, elections."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
from process_cluster import Cluster
from small_topology import PROGRAM, eventually, isochrone, status_of, write_topology

NODES = ("us-east-1a-1", "us-east-1b-1", "us-east-1c-1")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three nodes that have a leader."""
    root = tmp_path_factory.mktemp("cluster")
    done = isochrone("bootstrap", write_topology(root), "--out", root / "cluster", cwd=root)
    assert done.returncode == 0, done.stderr
    cluster = Cluster(root / "cluster")
    for node in NODES:
        cluster.start(node)
    eventually(lambda: cluster.leader(*NODES) is not None, "a leader that all know")
    yield cluster
    cluster.end()


def run(cluster: Cluster, *arguments: str, text: str = "") -> "subprocess.CompletedProcess[str]":
    command = [str(PROGRAM), *arguments]
    environment = {**os.environ, "ISOCHRONE_DIR": str(cluster.root), "ISOCHRONE_REGION": "us-east-1"}
    return subprocess.run(
        command, capture_output=True, text=True, timeout=60, input=text, cwd=cluster.root, env=environment, check=False
    )


def start(cluster: Cluster, *arguments: str) -> "subprocess.Popen[str]":
    endpoints = ",".join(cluster.address(node) for node in NODES)
    environment = {**os.environ, "ISOCHRONE_ENDPOINTS": endpoints, "ISOCHRONE_REGION": "us-east-1"}
    process = subprocess.Popen(
        [str(PROGRAM), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=cluster.root,
        env=environment,
    )
    cluster.running.append(process)
    return process


def line_of(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def finish(process: "subprocess.Popen[str]", number: signal.Signals) -> int:
    process.send_signal(number)
    process.communicate(timeout=30)
    return process.returncode


def test_keys_are_written_read_changed_and_watched(cluster: Cluster) -> None:
    watcher = start(cluster, "watch", "us/key", "--rev", "1")
    assert run(cluster, "kv", "put", "us/key", "one").stdout == "OK\n"
    assert run(cluster, "kv", "put", "us/key", text="two").stdout == "OK\n"
    assert run(cluster, "kv", "get", "us/key").stdout == "us/key\ntwo\n"
    found = json.loads(run(cluster, "kv", "get", "us/k", "--prefix", "-o", "json").stdout)
    assert [(item["key"], item["value"], item["version"]) for item in found["items"]] == [("us/key", "two", 2)]
    done = run(cluster, "kv", "txn", text='value("us/key") = "two"\n\nput us/key three\nincr us/n 4\n\nget us/key\n')
    assert done.stdout == "SUCCESS\n\nOK\n\n4\n"
    assert run(cluster, "kv", "incr", "us/n", "--", "-3").stdout == "1\n"
    table = run(cluster, "kv", "get", "us/", "--prefix", "-o", "table").stdout.splitlines()
    assert table[0].split() == ["key", "value", "version", "created", "modified", "lease"] and len(table) == 4
    stale = run(cluster, "kv", "get", "us/key", "--stale")
    assert stale.stdout.startswith("us/key\n") and re.search(r"from us-east-1\w-1, at most [\d.]+ s old", stale.stderr)
    near = json.loads(run(cluster, "kv", "get", "us/key", "--stale", "-o", "json").stdout)
    assert near["provenance"] == "stale" and near["age_s"] > 0 and near["replica"] in NODES
    assert run(cluster, "kv", "del", "us/", "--prefix").stdout == "2\n"
    lines = [line_of(watcher) for _ in range(12)]
    assert lines == ["PUT", "us/key", "one", "PUT", "us/key", "two", "PUT", "us/key", "three", "DELETE", "us/key", ""]
    assert finish(watcher, signal.SIGINT) == 130
    refused = run(cluster, "kv", "put", "eu/key", "1")
    assert refused.returncode == 2 and "lies in no keyspace; known prefixes: 'us/'" in refused.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("kv", "incr", "us/wide", "99999999999999999999"),
        ("kv", "get", "us/wide", "--rev", "99999999999999999999"),
        ("kv", "get", "us/wide", "--stale", "--limit", "99999999999999999999"),
        ("kv", "put", "us/wide", "1", "--lease", "99999999999999999999"),
        ("watch", "us/wide", "--rev", "99999999999999999999"),
        ("lease", "timetolive", "99999999999999999999"),
    ],
)
def test_numbers_beyond_64_bits_are_bad_input(cluster: Cluster, arguments: tuple[str, ...]) -> None:
    done = run(cluster, *arguments)
    assert (done.returncode, done.stdout) == (2, "") and "Traceback" not in done.stderr, done.stderr


def test_arguments_that_are_not_utf_8_keep_their_bytes(cluster: Cluster) -> None:
    key, value = os.fsdecode(b"us/\xff"), os.fsdecode(b"\xfe")
    assert run(cluster, "kv", "put", key, value).stdout == "OK\n"
    assert run(cluster, "kv", "get", key).stdout == "us/\\xff\n\\xfe\n"
    done = run(cluster, "lock", "run", key, "--ttl", "2s", "--", "true")
    assert done.returncode == 0, done.stderr
    assert run(cluster, "lock", "show", key).stdout == "us/\\xff is free\n"


def test_leases_are_made_renewed_shown_and_ended(cluster: Cluster) -> None:
    made = json.loads(run(cluster, "lease", "grant", "60s", "-o", "json").stdout)
    lease = str(made["lease"])
    assert run(cluster, "kv", "put", "us/leased", "1", "--lease", lease).stdout == "OK\n"
    assert run(cluster, "lease", "keep-alive", lease, "--once").stdout == f"lease {lease} keepalived with TTL(60s)\n"
    shown = json.loads(run(cluster, "lease", "timetolive", lease, "--keys", "-o", "json").stdout)
    assert shown["keys"] == ["us/leased"] and 50_000 < shown["remaining_ms"] <= 60_000
    assert lease in run(cluster, "lease", "list").stdout.splitlines()
    assert "us/leased" in run(cluster, "lease", "list", "--long").stdout
    assert run(cluster, "lease", "revoke", lease).stdout == f"lease {lease} revoked\n"
    assert run(cluster, "kv", "get", "us/leased").stdout == ""
    assert run(cluster, "lease", "keep-alive", lease, "--once").returncode == 1


def test_a_command_runs_under_a_lock_with_its_token(cluster: Cluster) -> None:
    tell = 'echo "$ISOCHRONE_LOCK_NAME $ISOCHRONE_LOCK_TOKEN $ISOCHRONE_REGION"; exit 7'
    tokens = []
    for _ in range(2):
        done = run(cluster, "lock", "run", "us/lock", "--ttl", "10s", "--", "sh", "-c", tell)
        name, token, region = done.stdout.split()
        assert (done.returncode, name, region) == (7, "us/lock", "us-east-1"), done.stderr
        tokens.append(int(token))
    assert 0 < tokens[0] < tokens[1]
    holder = start(cluster, "lock", "run", "us/lock", "--", "sh", "-c", "echo held; sleep 60")
    assert line_of(holder) == "held"
    refused = run(cluster, "lock", "run", "us/lock", "--try", "--", "true")
    assert refused.returncode == 124 and "is held" in refused.stderr
    shown = json.loads(run(cluster, "lock", "show", "us/lock", "-o", "json").stdout)
    assert [item["mode"] for item in shown["holders"]] == ["X"] and shown["holders"][0]["token"] > tokens[1]
    waiting = run(cluster, "lock", "run", "us/lock", "--wait", "3s", "--", "true")
    assert waiting.returncode == 124 and f"held by {shown['holders'][0]['value']}" in waiting.stderr
    assert finish(holder, signal.SIGTERM) == 143
    assert run(cluster, "lock", "show", "us/lock").stdout == "us/lock is free\n"
    raised = run(cluster, "lock", "raise-epoch", "us/", "--above", "7")
    assert raised.stdout == "tokens of us/ have epoch 8 from now on; before, 1\n"
    assert run(cluster, "lock", "run", "us/lock", "--try", "--", "true").returncode == 0, "a signal releases it"
    missing = run(cluster, "lock", "run", "us/lock", "--", "./no-such-program")
    assert missing.returncode == 127 and "cannot be started" in missing.stderr
    assert run(cluster, "lock", "run", "us/lock", "--", str(cluster.root)).returncode == 126


def test_leaders_are_elected_and_observed(cluster: Cluster) -> None:
    observer = start(cluster, "elect", "us/leader", "--listen")
    assert line_of(observer) == "(nobody leads)"
    first = start(cluster, "elect", "us/leader", "one")
    assert line_of(first).startswith("us/leader is led by one with token ")
    second = start(cluster, "elect", "us/leader", "two", "-o", "json")
    assert finish(first, signal.SIGTERM) == 143
    assert json.loads(line_of(second))["value"] == "two"
    seen = [line_of(observer) for _ in range(3)]
    assert seen == ["one", "(nobody leads)", "two"] or seen[:2] == ["one", "two"]
    assert finish(second, signal.SIGTERM) == 143
    assert finish(observer, signal.SIGTERM) == 143


GRACE_S = 0.3
TELLS_SIGNALS = f"""
import signal, sys, time
asked_at = None
def told(number, frame):
    global asked_at
    print(signal.Signals(number).name, flush=True)
    if number == signal.SIGTERM:
        asked_at = time.monotonic()
    if number == signal.SIGUSR1:
        sys.exit(9)
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
    signal.signal(number, told)
print("held", flush=True)
while True:
    time.sleep(0.05)
    if asked_at and time.monotonic() > asked_at + 3 * {GRACE_S}:
        asked_at = None
        print("still there", flush=True)
"""


def remaining_ms(cluster: Cluster, lease: int) -> int:
    """What is left of a lease; below 0 if it has ended."""
    told = json.loads(run(cluster, "lease", "timetolive", str(lease), "-o", "json").stdout)
    left_ms: int = told["remaining_ms"]
    return left_ms


def is_renewed(cluster: Cluster, name: str) -> None:
    """Return when the lease of a lock's holder was renewed."""
    (holder,) = json.loads(run(cluster, "lock", "show", name, "-o", "json").stdout)["holders"]
    left_ms = [remaining_ms(cluster, holder["lease"])]

    def has_more() -> bool:
        left_ms.append(remaining_ms(cluster, holder["lease"]))
        return left_ms[-1] > left_ms[-2]

    eventually(has_more, f"the lease of {name} is renewed")


def test_signals_go_to_the_command_and_the_lock_is_held_until_it_has_ended(cluster: Cluster) -> None:
    options = ("--ttl", "4s", "--grace", f"{GRACE_S}s")
    holder = start(cluster, "lock", "run", "us/told", *options, "--", sys.executable, "-c", TELLS_SIGNALS)
    assert line_of(holder) == "held"
    holder.send_signal(signal.SIGINT)
    assert line_of(holder) == "SIGINT"
    holder.send_signal(signal.SIGTSTP)  # It stops the command, and nothing else.
    is_renewed(cluster, "us/told")
    holder.send_signal(signal.SIGCONT)
    holder.send_signal(signal.SIGTERM)
    assert line_of(holder) == "SIGTERM"
    assert line_of(holder) == "still there", "it may take longer than the grace"
    assert run(cluster, "lock", "run", "us/told", "--try", "--", "true").returncode == 124, "it has not ended yet"
    holder.send_signal(signal.SIGUSR1)
    holder.communicate(timeout=30)
    assert holder.returncode == 9
    assert run(cluster, "lock", "run", "us/told", "--try", "--", "true").returncode == 0


def test_a_wrapper_that_stood_still_stops_its_command_when_it_wakes(cluster: Cluster) -> None:
    """L1: meanwhile another has the lock, with a larger token."""
    options = ("--ttl", "3s", "--grace", "1s")
    show = "echo $ISOCHRONE_LOCK_TOKEN; exec sleep 60"
    holder = start(cluster, "lock", "run", "us/frozen", *options, "--", "sh", "-c", show)
    token = int(line_of(holder))
    os.kill(holder.pid, signal.SIGSTOP)
    try:
        later = run(
            cluster, "lock", "run", "us/frozen", "--wait", "20s", "--", "sh", "-c", "echo $ISOCHRONE_LOCK_TOKEN"
        )
    finally:
        os.kill(holder.pid, signal.SIGCONT)
    assert int(later.stdout) > token
    _, errors = holder.communicate(timeout=30)
    assert holder.returncode == 125 and "may be another's now" in errors


IGNORES_SIGTERM = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: print("asked to stop", flush=True))
print("held", flush=True)
while True:
    print(f"alive {time.clock_gettime(time.CLOCK_BOOTTIME)}", flush=True)
    time.sleep(0.05)
"""


def test_a_command_whose_lock_is_lost_is_stopped_before_the_deadline(cluster: Cluster) -> None:
    """The nodes stand still for a while, so nobody renews, and nobody says so."""
    options = ("--ttl", "4s", "--grace", "1s", "--timeout", "30s")
    holder = start(cluster, "lock", "run", "us/lost", *options, "--", sys.executable, "-c", IGNORES_SIGTERM)
    assert line_of(holder) == "held"
    for node in NODES:
        os.kill(cluster.by_node[node].pid, signal.SIGSTOP)
    stopped_at = time.clock_gettime(time.CLOCK_BOOTTIME)
    try:
        output, errors = holder.communicate(timeout=30)
    finally:
        for node in NODES:
            os.kill(cluster.by_node[node].pid, signal.SIGCONT)
    lines = output.splitlines()
    asked = lines.index("asked to stop")
    last = float(lines[-1].split()[1])
    assert holder.returncode == 125 and "may be another's now" in errors and "its command was stopped" in errors
    assert any(line.startswith("alive") for line in lines[asked:]), "it went on, and was killed"
    assert last - stopped_at < 4, "the lock may be another's so long after its last renewal"
    eventually(lambda: all(status_of(cluster.address(node)) is not None for node in NODES), "the nodes answer again")
