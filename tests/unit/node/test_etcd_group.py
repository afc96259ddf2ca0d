"""Which keys and which group an endpoint of etcd's API speaks for."""

from pathlib import Path
from typing import cast

import pytest
from small_topology import write_topology

from isochrone.ids import GroupId, KeyspaceId, NodeId, RegionId
from isochrone.node.config import ConfigError
from isochrone.node.etcd_endpoint_grpc import served_group
from isochrone.node.etcd_group import GroupAccess
from isochrone.regions.host import Host
from isochrone.topology import load_topology
from isochrone.wire.kv import ALL


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


def test_an_endpoint_speaks_for_its_regions_group_unless_told_otherwise(tmp_path: Path) -> None:
    topology = load_topology(write_topology(tmp_path))
    group = topology.groups[0].id
    assert served_group(topology, RegionId("us-east-1"), None) == group
    assert served_group(topology, RegionId("elsewhere"), None) is None
    assert served_group(topology, RegionId("elsewhere"), group) == group
    with pytest.raises(ConfigError, match=f"etcd_group: found nowhere; allowed: {group}"):
        served_group(topology, RegionId("us-east-1"), GroupId("nowhere"))
