"""A real etcd of one or more members on loopback, for benchmarks and for tests that compare with it.

`EtcdCluster` starts every member in a directory of its own and stops exactly the processes that it started. Members
write to disk as etcd does by default: nothing is switched off that makes a write durable.

    with tempfile.TemporaryDirectory() as scratch, EtcdCluster(Path(scratch)) as etcd:
        print(etcd.leader)
"""

import contextlib
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import grpc

from isochrone.wire.etcd.generated import rpc_pb2

READY_S_MAX = 60.0
STOP_S_MAX = 10.0
STATUS_PATH = "/etcdserverpb.Maintenance/Status"
PACKAGES = {"etcd": "etcd-server", "etcdctl": "etcd-client", "h2load": "nghttp2-client"}
"""Program, and the Debian package that brings it."""


class NotInstalled(Exception):
    """A program that a benchmark needs is missing; the text says how to get it."""


@dataclass(frozen=True, slots=True)
class Member:
    """One running member."""

    name: str
    address: str
    """`host:port` for clients."""
    process: "subprocess.Popen[bytes]"


def require(*programs: str) -> None:
    """Raise `NotInstalled` unless all these programs are there."""
    missing = [program for program in programs if shutil.which(program) is None]
    if missing:
        packages = " ".join(PACKAGES[program] for program in missing)
        raise NotInstalled(f"{', '.join(missing)} not found; on Debian and Ubuntu: apt-get install {packages}")


class EtcdCluster:
    """A cluster that runs as long as the context."""

    def __init__(self, directory: Path, members: int = 3, options: Sequence[str] = ()) -> None:
        """`options` go to every member's command line.

        Raises:
            NotInstalled: there is no etcd on this machine.
        """
        require("etcd")
        self._directory = directory
        self._names = [f"member-{number}" for number in range(members)]
        self._options = options
        self.members: list[Member] = []

    def __enter__(self) -> Self:
        try:
            self._start()
            wait_until(lambda: self._leader() is not None, READY_S_MAX, "every member knows the leader")
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def addresses(self) -> list[str]:
        """Where clients connect."""
        return [member.address for member in self.members]

    @property
    def leader(self) -> Member:
        """The member that leads now."""
        leader = self._leader()
        if leader is None:
            raise RuntimeError("the cluster has no leader that all members know")
        return leader

    def stop(self) -> None:
        """End all members; those that do not end in time are killed."""
        for member in self.members:
            member.process.terminate()
        for member in self.members:
            try:
                member.process.wait(STOP_S_MAX)
            except subprocess.TimeoutExpired:
                member.process.kill()
                member.process.wait()
        self.members.clear()

    def _start(self) -> None:
        ports = free_ports(2 * len(self._names))
        clients, peers = ports[: len(self._names)], ports[len(self._names) :]
        cluster = ",".join(f"{name}=http://127.0.0.1:{peer}" for name, peer in zip(self._names, peers, strict=True))
        for name, client, peer in zip(self._names, clients, peers, strict=True):
            command = [
                "etcd",
                f"--name={name}",
                f"--data-dir={self._directory / name}",
                f"--listen-client-urls=http://127.0.0.1:{client}",
                f"--advertise-client-urls=http://127.0.0.1:{client}",
                f"--listen-peer-urls=http://127.0.0.1:{peer}",
                f"--initial-advertise-peer-urls=http://127.0.0.1:{peer}",
                f"--initial-cluster={cluster}",
                "--initial-cluster-state=new",
                "--logger=zap",
                "--log-level=error",
                *self._options,
            ]
            with (self._directory / f"{name}.log").open("wb") as log:
                process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self._directory)
            self.members.append(Member(name, f"127.0.0.1:{client}", process))

    def _leader(self) -> Member | None:
        """The member that all others say leads; None while they differ or one does not answer."""
        statuses = [(member, self._status(member)) for member in self.members]
        told = {status.leader if status is not None else 0 for _, status in statuses}
        if len(told) != 1:
            return None
        return next((member for member, status in statuses if status and status.header.member_id in told), None)

    def _status(self, member: Member) -> rpc_pb2.StatusResponse | None:
        if member.process.poll() is not None:
            text = (self._directory / f"{member.name}.log").read_text(errors="replace").strip()
            raise RuntimeError(f"{member.name} of etcd ended with status {member.process.returncode}: {text[-2000:]}")
        with grpc.insecure_channel(member.address) as channel:
            call = channel.unary_unary(
                STATUS_PATH,
                request_serializer=rpc_pb2.StatusRequest.SerializeToString,
                response_deserializer=rpc_pb2.StatusResponse.FromString,
            )
            try:
                status: rpc_pb2.StatusResponse = call(rpc_pb2.StatusRequest(), timeout=2.0)
            except grpc.RpcError:
                return None
            return status


def free_ports(count: int) -> list[int]:
    """Ports of loopback that are free now and differ from each other."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [each.getsockname()[1] for each in sockets]


def wait_until(condition: Callable[[], bool], timeout_s: float, what: str) -> None:
    """Wait for what other processes bring about. Raises `TimeoutError` when they do not."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {timeout_s:g} s: {what}")
        time.sleep(0.05)
