"""Addresses for nodes: the topology's own, else free ports of loopback."""

import socket
from pathlib import Path

import pytest
from small_topology import ONE_REGION, write_topology

from isochrone.errors import Unavailable
from isochrone.node.ports_os import check_addresses, choose_addresses, choose_more_addresses
from isochrone.topology import load_topology


def test_every_node_gets_a_port_of_its_own_below_the_ephemeral_range(tmp_path: Path) -> None:
    addresses = choose_addresses(load_topology(write_topology(tmp_path)))
    ports = [int(address.removeprefix("127.0.0.1:")) for address in addresses.values()]
    assert len(set(ports)) == 3
    ephemeral = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text(encoding="utf-8").split()[0])
    assert all(10_000 <= port < ephemeral for port in ports)


def test_an_address_of_the_topology_is_kept(tmp_path: Path) -> None:
    nodes = """
nodes:
  - {name: n-a, zone: us-east-1a, address: "198.51.100.7:7001"}
  - {name: n-b, zone: us-east-1b}
  - {name: n-c, zone: us-east-1c}
"""
    topology = load_topology(write_topology(tmp_path, ONE_REGION + nodes))
    addresses = choose_addresses(topology)
    etcd_addresses = choose_more_addresses(topology, addresses)
    metrics_addresses = choose_more_addresses(topology, addresses, etcd_addresses)
    of_a_node = [each["n-a"] for each in (addresses, etcd_addresses, metrics_addresses)]
    assert of_a_node == ["198.51.100.7:7001", "198.51.100.7:7002", "198.51.100.7:7003"]
    drawn = [each[node] for each in (addresses, etcd_addresses, metrics_addresses) for node in ("n-b", "n-c")]
    assert all(address.startswith("127.0.0.1:") for address in drawn) and len(set(drawn)) == 6


@pytest.mark.parametrize(
    ("host", "reason"),
    [("127.0.0.1", "Address already in use"), ("192.0.2.1", "Cannot assign requested address"), ("no..host", None)],
)
def test_an_address_that_cannot_be_used_is_refused_with_the_reason(
    host: str, reason: str | None, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"{host}:{taken.getsockname()[1]}"
        nodes = f"""
nodes:
  - {{name: n-a, zone: us-east-1a, address: "{address}"}}
  - {{name: n-b, zone: us-east-1b}}
  - {{name: n-c, zone: us-east-1c}}
"""
        with pytest.raises(Unavailable) as refused:
            check_addresses(load_topology(write_topology(tmp_path, ONE_REGION + nodes)))
    begin = f"{address}, the address of node n-a, cannot be used: "
    assert str(refused.value).startswith(begin)
    assert reason is None or str(refused.value) == begin + reason
    assert "Unknown error" not in str(refused.value)
