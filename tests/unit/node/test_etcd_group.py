"""Which keys and which group an endpoint of etcd's API speaks for."""

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from small_topology import write_topology

from isochrone.client import Client
from isochrone.errors import Unavailable
from isochrone.ids import GroupId, KeyspaceId, NodeId, RegionId
from isochrone.node.config import ConfigError
from isochrone.node.etcd_calls_grpc import outside
from isochrone.node.etcd_endpoint_grpc import served_group, speaking_for
from isochrone.node.etcd_group import UNDER_WAY_BYTES_MAX, GroupAccess
from isochrone.regions.host import Host
from isochrone.topology import load_topology
from isochrone.wire.etcd.errors import Status
from isochrone.wire.kv import ALL, Put, Txn

SHIPPED = Path(__file__).parents[3] / "deploy" / "topologies"


async def never() -> None:
    raise AssertionError("nobody is asked")


@pytest.mark.parametrize(
    ("key", "range_end", "served"),
    [
        (b"us/", b"", True),
        (b"us/a", b"", True),
        (b"us", b"", False),
        (b"ut", b"", False),
        (b"\0", ALL, True),
        (b"us/a", ALL, True),
        (b"zz", ALL, False),
        (b"f", b"us", False),
        (b"f", b"us/", False),
        (b"f", b"us/a", True),
        (b"us0", b"ut", False),
        (b"us/\xff", b"ut", True),
        (b"eu/", b"eu0", True),
    ],
)
def test_an_endpoint_serves_its_groups_keys_and_the_ranges_that_touch_them(
    key: bytes, range_end: bytes, served: bool
) -> None:
    keyspaces = [(b"us/", KeyspaceId("us")), (b"eu/", KeyspaceId("eu"))]
    access = GroupAccess(cast("Host", None), NodeId("a-1"), GroupId("g"), keyspaces, never)  # type: ignore[arg-type]
    assert access.serves(key, range_end) is served
    assert (outside(access, key, range_end) is None) is served


def test_what_lies_outside_is_refused_with_the_reason() -> None:
    access = GroupAccess(cast("Host", None), NodeId("a-1"), GroupId("g"), [(b"us/", KeyspaceId("us"))], never)  # type: ignore[arg-type]
    text = "isochrone: key 'foo' lies outside group g, for which this endpoint speaks; its keys begin with 'us/'"
    assert outside(access, b"foo") == Status("PERMISSION_DENIED", text)
    found = outside(access, b"foo", b"fop")
    assert found is not None and "all from 'foo' to 'fop' lies outside group g" in found.text


def test_what_is_passed_on_is_bounded_in_bytes() -> None:
    async def main() -> None:
        opened: asyncio.Future[Client] = asyncio.get_running_loop().create_future()

        async def connect() -> Client:
            return await opened

        keyspaces = [(b"us/", KeyspaceId("us"))]
        access = GroupAccess(
            cast("Host", SimpleNamespace(replicas={})), NodeId("a-1"), GroupId("g"), keyspaces, connect
        )
        told: list[object] = []
        put = Put(b"us/a", bytes(1 << 20))
        puts = UNDER_WAY_BYTES_MAX >> 20
        for _ in range(puts + 2):
            access.pass_on(b"us/", Txn(success=(put,)), 1.0, told.append)
        assert [type(each) for each in told] == [Unavailable] * 2
        await asyncio.sleep(0)
        opened.set_exception(Unavailable("nobody is there"))
        await asyncio.gather(*access._tasks)
        await asyncio.sleep(0)
        assert len(told) == puts + 2
        access.pass_on(b"us/", put, 1.0, told.append)
        assert len(told) == puts + 2, "there is room again"
        await access.close()
        assert "nobody is there" in str(told[-1])

    asyncio.run(main())


def test_an_endpoint_speaks_for_its_regions_group_unless_told_otherwise(tmp_path: Path) -> None:
    topology = load_topology(write_topology(tmp_path))
    group = topology.groups[0].id
    assert served_group(topology, RegionId("us-east-1"), None) == group
    assert served_group(topology, RegionId("elsewhere"), None) is None
    assert served_group(topology, RegionId("elsewhere"), group) == group
    with pytest.raises(ConfigError, match=f"etcd_group: found nowhere; allowed: {group}"):
        served_group(topology, RegionId("us-east-1"), GroupId("nowhere"))


TWO_REGIONS = """
name: two-regions-one-home
latencies: aws
regions:
  - {name: us-east-1, zones: [us-east-1a, us-east-1b]}
  - {name: eu-west-1, zones: [eu-west-1a, eu-west-1b]}
  - {name: us-west-2, zones: [us-west-2a], witness_site: true}
keyspaces:
  - {prefix: global/, home: us-east-1, survive: region}
clock: {source: bound, bound_ms: 5}
"""


def test_a_region_that_is_home_to_no_keys_speaks_for_those_that_it_holds_and_a_witness_site_for_none(
    tmp_path: Path,
) -> None:
    topology = load_topology(write_topology(tmp_path, TWO_REGIONS))
    group = topology.groups[0].id
    assert any(topology.node(replica.node).region == "eu-west-1" for replica in topology.groups[0].replicas)
    assert served_group(topology, RegionId("eu-west-1"), None) == group
    assert served_group(topology, RegionId("us-west-2"), None) is None


def test_clients_are_told_only_of_endpoints_that_speak_for_the_same_group() -> None:
    topology = load_topology(SHIPPED / "three-regions.yaml")
    addresses = {node.id: f"127.0.0.1:{number}" for number, node in enumerate(topology.nodes, 1)}
    node = topology.nodes[0]
    config: Any = SimpleNamespace(node=node.id, etcd_addresses=addresses, etcd_group=None)
    group = served_group(topology, node.region, None)
    assert group is not None
    own = {each.id: addresses[each.id] for each in topology.nodes if each.region == node.region}
    assert speaking_for(config, topology, group) == own and len(own) == 3
    elsewhere = next(each.id for each in topology.groups if each.home != node.region)
    assert {topology.node(each).region for each in speaking_for(config, topology, elsewhere)} == {
        topology.group(elsewhere).home
    }
    config.etcd_group = elsewhere
    assert speaking_for(config, topology, elsewhere) == addresses
