"""Free TCP ports on loopback for nodes whose topology names none.

The ports are drawn below the range from which the system serves outgoing connections, so that no client of any
program takes one between the draw and the moment the node listens. Another program that draws in the same way may:
the node then says that its port is in use, and whoever deploys draws again.
"""

import random
import socket
from collections.abc import Mapping
from pathlib import Path

from isochrone.errors import Unavailable
from isochrone.ids import NodeId
from isochrone.topology import Topology

_EPHEMERAL_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
_FIRST = 10_000
_DRAWS_MAX = 1000


def choose_addresses(topology: Topology) -> Mapping[NodeId, str]:
    """An address for each node: the topology's, else a port of loopback that is free now.

    Raises:
        Unavailable: no port is free.
    """
    rng = random.SystemRandom()
    addresses = {spec.id: spec.address for spec in topology.nodes if spec.address is not None}
    taken = {int(address.rpartition(":")[2]) for address in addresses.values()}
    for spec in topology.nodes:
        if spec.id not in addresses:
            port = _draw_port(rng, taken)
            taken.add(port)
            addresses[spec.id] = f"127.0.0.1:{port}"
    return addresses


def choose_more_addresses(topology: Topology, *known: Mapping[NodeId, str]) -> Mapping[NodeId, str]:
    """Another address for each node, beside those `known`: the next port after that of the topology, or a free one.

    So a node to which the topology gives port n speaks etcd's API on n + 1, and serves its metrics on n + 2.

    Raises:
        Unavailable: no port is free.
    """
    rng = random.SystemRandom()
    chosen: dict[NodeId, str] = {}
    taken = {int(address.rpartition(":")[2]) for addresses in known for address in addresses.values()}
    for spec in topology.nodes:
        if spec.address is not None:
            host, _, port = spec.address.rpartition(":")
            chosen[spec.id] = f"{host}:{int(port) + len(known)}"
        else:
            drawn = _draw_port(rng, taken)
            taken.add(drawn)
            chosen[spec.id] = f"127.0.0.1:{drawn}"
    return chosen


def check_addresses(topology: Topology) -> None:
    """Raise `Unavailable` unless this machine can listen on every address that the topology names."""
    for spec in topology.nodes:
        if spec.address is None:
            continue
        host, _, port = spec.address.rpartition(":")
        try:
            socket.create_server((host, int(port))).close()
        except OSError as error:
            text = f"{spec.address}, the address of node {spec.id}, cannot be used: {_reason(error)}"
            raise Unavailable(text) from error


def _reason(error: OSError) -> str:
    """The reason alone: what a failed bind says of itself repeats the address."""
    return (error.strerror or str(error)).partition(" (while attempting")[0]


def _draw_port(rng: random.SystemRandom, taken: set[int]) -> int:
    last = _ephemeral_first() - 1
    for _ in range(_DRAWS_MAX):
        port = rng.randint(_FIRST, last)
        if port not in taken and _is_free(port):
            return port
    raise Unavailable(f"no free port found on 127.0.0.1 between {_FIRST} and {last}")


def _is_free(port: int) -> bool:
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


def _ephemeral_first() -> int:
    try:
        first = int(_EPHEMERAL_RANGE.read_text().split()[0])
    except (OSError, ValueError, IndexError):
        first = 32_768  # Linux's default
    return first if first > _FIRST + 1000 else 32_768
