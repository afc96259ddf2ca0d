"""What a node reads from its topology: who should lead, whether reads go under leases, what history is kept."""

from pathlib import Path

import pytest

from isochrone.ids import NodeId
from isochrone.node.settings import group_settings
from isochrone.regions.loading import GroupSettings
from isochrone.regions.office import CompactionRule
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
compaction:
  us-east-1.zone: {keep_seconds: 60, keep_revisions: null}
  eu-west-1.region.leased: {keep_seconds: null, keep_revisions: 5000}
"""


@pytest.fixture
def settings(tmp_path: Path) -> dict[str, GroupSettings]:
    """The settings of each keyspace's group on one node outside of both homes."""
    file = tmp_path / "topology.yaml"
    file.write_text(TOPOLOGY)
    topology = load_topology(file)
    node = NodeId("eu-north-1a-1")
    groups = {keyspace.id: topology.group(keyspace.group) for keyspace in topology.keyspaces}
    return {prefix: group_settings(topology, node, group) for prefix, group in groups.items()}


@pytest.fixture
def raft(settings: dict[str, GroupSettings]) -> dict[str, RaftConfig]:
    """What of it is for the Raft core."""
    return {prefix: each.raft for prefix, each in settings.items()}


def test_history_is_kept_as_the_topology_says(settings: dict[str, GroupSettings]) -> None:
    assert settings["us/"].compaction == CompactionRule(age_ms=60_000, revisions=0)
    assert settings["global/"].compaction == CompactionRule(age_ms=0, revisions=5_000)


def test_the_home_region_should_lead(raft: dict[str, RaftConfig]) -> None:
    """All of its nodes, as replicas may move among them; who is a full voter there decides at run time."""
    assert raft["global/"].preferred_leaders == ("eu-west-1a-1", "eu-west-1b-1", "eu-west-1c-1")


def test_leases_are_opt_in_and_take_the_bound_of_the_clocks(raft: dict[str, RaftConfig]) -> None:
    assert (raft["us/"].lease_reads, raft["global/"].lease_reads) == (False, True)
    assert {each.clock_drift_ppm_max for each in raft.values()} == {500}
