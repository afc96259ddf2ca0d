"""What probes and tools ask of an endpoint: health by `grpc.health.v1`, and reflection.

Health has a name for each group (`health_name`), so that a probe can tell a node that lives from a group that serves:
a group serves at a node that has a replica of it and knows its leader. The empty name stands for the process, which
serves as long as it answers.
"""

from collections.abc import Iterable
from functools import partial
from typing import final

from grpc_health.v1 import health, health_pb2
from grpc_reflection.v1alpha import reflection, reflection_pb2

from isochrone.ids import GroupId
from isochrone.node.etcd_calls_grpc import MALFORMED, fail, parsed
from isochrone.regions.host import Host
from isochrone.wire.etcd.errors import Status
from isochrone.wire.http2.calls import Call, Methods, StreamMethod, UnaryMethod

SERVICE_CHARS_MAX = 256
"""Longer names are of no service that there is, and not kept."""
UNKNOWN_SERVICE = Status("NOT_FOUND", "unknown service")
_Health = health_pb2.HealthCheckResponse


def health_name(group: GroupId) -> str:
    """The service name under which a group's health is asked for."""
    return f"raft.{group}"


@final
class HealthCalls:
    """The health service of one node's endpoint."""

    def __init__(self, host: Host, groups: Iterable[GroupId]) -> None:
        """`groups`: of the topology; those without a replica here are unknown to a probe."""
        self._host = host
        self._groups = {health_name(group): group for group in groups}
        self._watching: dict[_HealthWatch, None] = {}

    def methods(self) -> Methods:
        """By path."""
        return {
            f"/{health.SERVICE_NAME}/Check": UnaryMethod(self._check),
            f"/{health.SERVICE_NAME}/Watch": StreamMethod(partial(_HealthWatch, self, self._watching)),
        }

    def status(self, service: str) -> int:
        """How a service is, as a number of `HealthCheckResponse.ServingStatus`."""
        if not service:
            return int(_Health.SERVING)
        group = self._groups.get(service)
        replica = None if group is None else self._host.replicas.get(group)
        if replica is None:
            return int(_Health.SERVICE_UNKNOWN)
        return int(_Health.NOT_SERVING if replica.known_leader() is None else _Health.SERVING)

    def changed(self) -> None:
        """A group's leader has changed: tell whoever watches."""
        for watch in list(self._watching):
            watch.tell()

    def _check(self, call: Call, data: bytes) -> None:
        request = parsed(call, health_pb2.HealthCheckRequest, data)
        if request is None:
            return
        status = self.status(request.service)
        if status == _Health.SERVICE_UNKNOWN:
            fail(call, UNKNOWN_SERVICE)
        else:
            call.answer(_Health(status=status).SerializeToString())


@final
class _HealthWatch:
    """One stream of a probe that wants to hear of changes."""

    def __init__(self, calls: HealthCalls, watching: "dict[_HealthWatch, None]", call: Call) -> None:
        self._calls = calls
        self._watching = watching
        self._call = call
        self._service: str | None = None
        self._told: int | None = None

    def message(self, message: bytes) -> None:
        """See `StreamHandler`. The first message says what to watch; there is no second."""
        request = parsed(self._call, health_pb2.HealthCheckRequest, message)
        if request is not None:
            self._service = request.service[:SERVICE_CHARS_MAX]
            self._watching[self] = None
            self.tell()

    def tell(self) -> None:
        """Say how the service is, unless the probe knows."""
        assert self._service is not None
        status = self._calls.status(self._service)
        if status != self._told:
            self._told = status
            self._call.send(_Health(status=status).SerializeToString())

    def ended(self) -> None:
        """See `StreamHandler`. The stream goes on, if the probe has said what to watch."""
        if self._service is None:
            fail(self._call, MALFORMED)

    def cancelled(self) -> None:
        """See `StreamHandler`."""
        self._watching.pop(self, None)


def reflection_methods(services: Iterable[str]) -> Methods:
    """Reflection that lists these services (full names, whose descriptors are loaded), health and itself."""
    names = (*services, health.SERVICE_NAME, reflection.SERVICE_NAME)
    servicer = reflection.ReflectionServicer(names)
    return {f"/{reflection.SERVICE_NAME}/ServerReflectionInfo": StreamMethod(partial(_Reflection, servicer))}


@final
class _Reflection:
    """One stream of a tool's questions."""

    def __init__(self, servicer: reflection.ReflectionServicer, call: Call) -> None:
        self._servicer = servicer
        self._call = call

    def message(self, message: bytes) -> None:
        """See `StreamHandler`."""
        request = parsed(self._call, reflection_pb2.ServerReflectionRequest, message)
        if request is not None:
            for answer in self._servicer.ServerReflectionInfo(iter((request,)), None):
                self._call.send(answer.SerializeToString())

    def ended(self) -> None:
        """See `StreamHandler`."""
        self._call.finish()

    def cancelled(self) -> None:
        """See `StreamHandler`."""
