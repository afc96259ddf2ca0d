"""The topologies and tables that ship with the project."""

import csv
from pathlib import Path

import pytest

from isochrone.ids import ReplicaRole
from isochrone.topology import Group, Topology, load_topology
from isochrone.topology.load_os import DATA, MATRICES
from isochrone.topology.predict import async_copies, quorum_rtt_ms
from isochrone.topology.survival import LossKind, losses, voters_of, warnings

SHIPPED = Path(__file__).parents[3] / "deploy" / "topologies"


def load(name: str) -> Topology:
    return load_topology(SHIPPED / f"{name}.yaml")


def placement(group: Group) -> list[tuple[str, str]]:
    return [(replica.node, replica.role.value) for replica in group.replicas]


def test_every_shipped_topology_is_tested_here() -> None:
    names = {path.stem for path in SHIPPED.glob("*.yaml")}
    assert names == {"three-regions", "two-regions-and-witness", "five-sites", "async-copies"}


def test_three_regions() -> None:
    topology = load("three-regions")
    assert len(topology.nodes) == 9
    assert [(keyspace.id, keyspace.group) for keyspace in topology.keyspaces] == [
        ("us/", "us-east-1.zone"),
        ("eu/", "eu-west-1.zone"),
        ("ap/", "ap-northeast-1.zone"),
        ("global/", "us-east-1.region"),
    ]
    assert placement(topology.groups[0]) == [(f"us-east-1{zone}-1", "full") for zone in "abc"]
    assert placement(topology.groups[3]) == [
        ("us-east-1a-1", "full"),
        ("us-east-1b-1", "full"),
        ("eu-west-1a-1", "full"),
        ("eu-west-1b-1", "full"),
        ("ap-northeast-1a-1", "full"),
    ]
    assert topology.clock.source == "bound"


def test_three_regions_links_are_halves_of_the_mean_of_both_measurements() -> None:
    topology = load("three-regions")
    # aws_rtt_ms.csv: us-east-1 to eu-west-1 69.622, back 69.736.
    for source, target in (("us-east-1a", "eu-west-1c"), ("eu-west-1c", "us-east-1a")):
        assert topology.link(source, target).delay_ms == pytest.approx((69.622 + 69.736) / 4)
    assert topology.rtt_ms("us-east-1a", "us-east-1b") == pytest.approx(0.886)
    assert topology.rtt_ms("us-east-1a", "us-east-1a") == 0
    assert topology.rtt_ms("ap-northeast-1a", "ap-northeast-1b") == pytest.approx(0.95)
    assert [region.id for region in topology.regions if region.zone_rtt_assumed] == ["ap-northeast-1"]
    assert warnings(topology) == ("no RTT between the zones of ap-northeast-1 is known; 0.95 ms is assumed",)


def test_three_regions_timers() -> None:
    timers = {group.id: (group.heartbeat_ms, group.election_timeout_ms) for group in load("three-regions").groups}
    assert timers["us-east-1.zone"] == (100, 1000)
    # aws_rtt_p90_ms.csv: eu-west-1 and ap-northeast-1 are 208.454 and 208.678 apart.
    assert timers["us-east-1.region"] == (209, 5 * 209)


def test_three_regions_links_cover_every_ordered_pair_of_zones() -> None:
    topology = load("three-regions")
    zones = [zone for region in topology.regions for zone in region.zones]
    links = topology.links()
    assert set(links) == {(source, target) for source in zones for target in zones}
    assert all(links[zone, zone].delay_ms == 0 for zone in zones)
    assert all(links[a, b].delay_ms > 0 for a in zones for b in zones if a != b)


def test_two_regions_and_a_witness_survive_either_region() -> None:
    topology = load("two-regions-and-witness")
    group = topology.group(topology.keyspaces[2].group)
    assert [(topology.node(node).region, role) for node, role in placement(group)] == [
        ("eu-central-1", "full"),
        ("eu-central-1", "full"),
        ("eu-west-1", "full"),
        ("eu-west-1", "full"),
        ("eu-north-1", "witness"),
    ]
    assert all(
        loss.keeps_quorum
        for loss in losses(voters_of(topology, group))
        if loss.kind in (LossKind.ZONE, LossKind.REGION)
    )
    hosted = {replica.node: replica.role for each in topology.groups for replica in each.replicas}
    site = next(node.id for node in topology.nodes if node.region == "eu-north-1")
    assert hosted[site] is ReplicaRole.WITNESS


def test_async_copies_stand_in_the_other_region_and_do_not_vote() -> None:
    topology = load("async-copies")
    group = topology.group(topology.keyspaces[0].group)
    assert group.id == "us-east-1.zone.copy-eu-west-1"
    assert placement(group) == [*((f"us-east-1{zone}-1", "full") for zone in "abc"), ("eu-west-1a-1", "learner")]
    assert [each.node for each in group.learners()] == ["eu-west-1a-1"]
    # As without the copy: a quorum of two of three, the timers of one region, no loss that names the other region.
    assert (group.commit_quorum(), group.heartbeat_ms, group.election_timeout_ms) == (2, 100, 1000)
    assert quorum_rtt_ms(topology, group, group.replicas[0].node) < 2
    assert "eu-west-1" not in {name for loss in losses(voters_of(topology, group)) for name in loss.lost}
    (copy,) = async_copies(topology, group)
    assert (copy.region, copy.delay_ms) == ("eu-west-1", pytest.approx((69.622 + 69.736) / 4))


def test_five_sites_put_one_voter_in_each() -> None:
    topology = load("five-sites")
    (group,) = topology.groups
    assert sorted(topology.node(node).region for node, _ in placement(group)) == ["CA", "EU", "JP", "OR", "VA"]
    # No tail was measured: 1.25 x the largest round trip of 220 ms.
    assert (group.heartbeat_ms, group.election_timeout_ms) == (275, 1375)
    assert all(loss.keeps_quorum for loss in losses(voters_of(topology, group)))


@pytest.mark.parametrize("name", MATRICES)
def test_shipped_matrices_are_complete(name: str, tmp_path: Path) -> None:
    """A topology of all regions of a matrix loads, so every pair has a figure and every region has coordinates."""
    with (DATA / MATRICES[name][0]).open() as table:
        regions = next(csv.reader(table))[1:]
    lines = [f"name: all\nlatencies: {name}\nregions:"]
    place = ", latitude: 0, longitude: 0" if name == "gryff" else ""
    lines += [f"  - {{name: {region}, zones: 1{place}}}" for region in regions]
    lines += [f"keyspaces:\n  - {{prefix: a, home: {regions[0]}, survive: region}}"]
    file = tmp_path / "all.yaml"
    file.write_text("\n".join(lines))
    topology = load_topology(file)
    assert len(topology.regions) == len(regions)
    assert len(topology.groups[0].replicas) == 5


def test_the_tables_carry_their_sources() -> None:
    sources = (DATA / "SOURCES.md").read_text()
    named = {path.name for path in DATA.glob("*.csv")} | {path.name for path in DATA.glob("*.geojson")}
    assert named
    assert not [name for name in named if name not in sources]
