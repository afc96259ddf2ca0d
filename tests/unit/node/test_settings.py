"""What a node reads from its topology about leading: who should lead, and whether reads go under leases."""

from pathlib import Path

import pytest

from isochrone.ids import NodeId
from isochrone.node.settings import group_settings
from isochrone.regions.raft.config import RaftConfig
from isochrone.topology import load_topology

TOPOLOGY = """
name: settings
latencies: aws
regions:
  - {name: us-east-1, zones: 3}
  - {name: eu-west-1, zones: 3}
  - {name: eu-north-1, zones: 3}
keyspaces:
  - {prefix: us/, home: us-east-1, survive: zone}
  - {prefix: global/, home: eu-west-1, survive: region, lease_reads: true}
clock: {drift_max_ppm: 500}
"""


@pytest.fixture
def raft(tmp_path: Path) -> dict[str, RaftConfig]:
    """The settings of each keyspace's group on one node outside of both homes."""
    file = tmp_path / "topology.yaml"
    file.write_text(TOPOLOGY)
    topology = load_topology(file)
    node = NodeId("eu-north-1a-1")
    groups = {keyspace.id: topology.group(keyspace.group) for keyspace in topology.keyspaces}
    return {prefix: group_settings(topology, node, group).raft for prefix, group in groups.items()}


def test_the_home_region_should_lead(raft: dict[str, RaftConfig]) -> None:
    """All of its nodes, as replicas may move among them; who is a full voter there decides at run time."""
    assert raft["global/"].preferred_leaders == ("eu-west-1a-1", "eu-west-1b-1", "eu-west-1c-1")


def test_leases_are_opt_in_and_take_the_bound_of_the_clocks(raft: dict[str, RaftConfig]) -> None:
    assert (raft["us/"].lease_reads, raft["global/"].lease_reads) == (False, True)
    assert {each.clock_drift_ppm_max for each in raft.values()} == {500}
