"""Drives one unary gRPC method with `h2load`, a client in C, so that no slow client hides a fast server.

h2load sends one prepared body again and again, and knows HTTP but not gRPC: a refused call is a success to it, with no
data in the answer. So one call is made with a real client first, and its answer's size is what every one must have.
"""

import re
import resource
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import grpc
from etcd_cluster import require
from figures import CpuMeter, Load, percentile

SHAPES = {
    1: (1, 1),
    16: (4, 4),
    64: (8, 8),
    256: (16, 16),
    512: (16, 32),
    1000: (20, 50),
    2000: (20, 100),
    4000: (40, 100),
}
"""Connections, and streams on each, for a number of calls in flight."""
WARM_UP_S = 1
GRPC_HEADERS = ("content-type: application/grpc", "te: trailers")


class FailedLoad(Exception):
    """Some calls failed, so that the figures say nothing."""


@dataclass(frozen=True, slots=True)
class Target:
    """One method of one server, and the request to send to it."""

    address: str
    path: str
    request: bytes


@dataclass(frozen=True, slots=True)
class Summary:
    """What h2load says of a run."""

    done: int
    failed: int
    data_bytes: int
    seconds: float


def length_prefixed(message: bytes) -> bytes:
    """A message as gRPC puts it into a body: not compressed, its length, its bytes."""
    return b"\0" + len(message).to_bytes(4, "big") + message


def run_h2load(target: Target, in_flight: int, seconds: int, servers: Mapping[str, int]) -> Load:
    """Load a method for whole seconds after a warm-up. `servers`: pids of the processes whose CPU time is told.

    Raises:
        NotInstalled: there is no h2load.
        FailedLoad: a call failed.
        grpc.RpcError: the server refuses this very call.
    """
    require("h2load")
    size = len(length_prefixed(_probe(target)))
    connections, streams = SHAPES[in_flight]
    with tempfile.TemporaryDirectory() as scratch:
        body, log = Path(scratch, "body"), Path(scratch, "log")
        body.write_bytes(length_prefixed(target.request))
        command = ["h2load", f"-D{seconds}", f"--warm-up-time={WARM_UP_S}", f"-c{connections}", f"-m{streams}"]
        command += [f"--data={body}", f"--log-file={log}", *(f"--header={header}" for header in GRPC_HEADERS)]
        meter, client_cpu_s = CpuMeter(servers), _children_cpu_s()
        done = subprocess.run(
            [*command, f"http://{target.address}{target.path}"],
            capture_output=True,
            text=True,
            timeout=seconds + WARM_UP_S + 30,
            check=True,
        )
        summary = parse_summary(done.stdout, seconds)
        latencies_ms = parse_log(log.read_text())
    if summary.failed or summary.done == 0 or summary.data_bytes < size * summary.done:
        raise FailedLoad(f"{target.path}: {summary}; a whole answer has {size} bytes")
    # Processor time was taken from the warm-up on, operations are counted after it.
    served = round(summary.done * (seconds + WARM_UP_S) / seconds)
    cpu_us = meter.us_per(served) | {"h2load": (_children_cpu_s() - client_cpu_s) / served * 1e6}
    return replace(_load(in_flight, summary, latencies_ms), cpu_us=cpu_us)


def parse_summary(text: str, seconds: int) -> Summary:
    """Read what h2load printed about a run of `seconds` after its warm-up."""
    requests = re.search(r"^requests: .* (\d+) done, (\d+) succeeded, (\d+) failed, (\d+) errored", text, re.MULTILINE)
    traffic = re.search(r"^traffic: .*\((\d+)\) data$", text, re.MULTILINE)
    if requests is None or traffic is None:
        raise FailedLoad(f"h2load did not print a summary: {text[-500:]}")
    done, _, failed, errored = map(int, requests.groups())
    return Summary(done, failed + errored, int(traffic[1]), float(seconds))


def parse_log(text: str) -> list[float]:
    """The milliseconds of each request, in order of size, from h2load's log: start, HTTP status, microseconds."""
    return sorted(int(line.split("\t")[2]) / 1000 for line in text.splitlines())


def _load(in_flight: int, summary: Summary, latencies_ms: list[float]) -> Load:
    p50_ms, p99_ms = percentile(latencies_ms, 0.5), percentile(latencies_ms, 0.99)
    return Load(in_flight, summary.done, summary.seconds, p50_ms, p99_ms)


def _probe(target: Target) -> bytes:
    with grpc.insecure_channel(target.address) as channel:
        answer: bytes = channel.unary_unary(target.path)(target.request, timeout=10.0)
        return answer


def _children_cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
