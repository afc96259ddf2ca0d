"""Overrides, nodes, groups and timers of whole files."""

from collections.abc import Callable
from pathlib import Path

import pytest

from isochrone.topology import Compaction, Topology, load_topology

Load = Callable[[str], Topology]

BASE = """
name: base
latencies: aws
regions:
  - {name: us-east-1, zones: 3}
  - {name: eu-west-1, zones: 3}
  - {name: eu-north-1, zones: 3}
keyspaces:
  - {prefix: us/, home: us-east-1, survive: zone}
  - {prefix: global/, home: us-east-1, survive: region}
"""


@pytest.fixture
def load(tmp_path: Path) -> Load:
    def from_text(text: str) -> Topology:
        file = tmp_path / "topology.yaml"
        file.write_text(text)
        return load_topology(file)

    return from_text


def test_coordinates_come_from_the_table_unless_given(load: Load) -> None:
    topology = load(
        BASE.replace("eu-west-1, zones: 3", "eu-west-1, zones: 3, city: Cork, latitude: 51.9, longitude: -8.5")
    )
    assert (topology.regions[0].latitude, topology.regions[0].longitude) == (38.9710, -77.2576)
    assert (topology.regions[1].city, topology.regions[1].latitude) == ("Cork", 51.9)


def test_equal_files_make_equal_topologies(load: Load) -> None:
    assert load(BASE) == load(BASE)
    assert hash(load(BASE)) == hash(load(BASE))


def test_the_clock_defaults_to_the_kernel(load: Load) -> None:
    clock = load(BASE).clock
    assert (clock.source, clock.bound_ms, clock.offset_max_ms) == ("kernel", 100, 500)


def test_reads_under_leases_are_asked_for(load: Load) -> None:
    """They take a group of their own, since all replicas of a group must agree about them."""
    topology = load(BASE + "  - {prefix: fast/, home: us-east-1, survive: zone, lease_reads: true}\n")
    assert {group.id: group.lease_reads for group in topology.groups} == {
        "us-east-1.region": False,
        "us-east-1.zone": False,
        "us-east-1.zone.leased": True,
    }


def test_history_is_kept_by_group(load: Load) -> None:
    text = "compaction: {us-east-1.zone: {keep_seconds: 60, keep_revisions: null}, us-east-1.region: {keep_seconds: 7}}"
    kept = {group.id: group.compaction for group in load(BASE + text).groups}
    assert kept == {"us-east-1.zone": Compaction(60, None), "us-east-1.region": Compaction(7, 1_000_000)}
    assert {group.compaction for group in load(BASE).groups} == {Compaction(3600, 1_000_000)}


def test_link_overrides_are_directed_and_later_ones_win(load: Load) -> None:
    topology = load(
        BASE
        + """
links:
  - {from: us-east-1, to: eu-west-1, delay_ms: 50, loss: 0.1}
  - {from: us-east-1a, to: eu-west-1, delay_ms: 60}
  - {from: us-east-1a, to: eu-west-1b, jitter_ms: 4}
"""
    )
    plain = load(BASE)
    shape = topology.link("us-east-1b", "eu-west-1b")
    assert (shape.delay_ms, shape.jitter_ms, shape.loss) == (50, 0, 0.1)
    shape = topology.link("us-east-1a", "eu-west-1b")
    assert (shape.delay_ms, shape.jitter_ms, shape.loss) == (60, 4, 0.1)
    back = topology.link("eu-west-1b", "us-east-1a")
    assert back == plain.link("eu-west-1b", "us-east-1a")
    assert topology.rtt_ms("us-east-1a", "eu-west-1b") == pytest.approx(60 + back.delay_ms + 2)


def test_a_region_may_override_the_links_between_its_own_zones(load: Load) -> None:
    topology = load(BASE + "links: [{from: us-east-1, to: us-east-1, delay_ms: 40}]")
    assert topology.link("us-east-1a", "us-east-1c").delay_ms == 40
    assert topology.link("us-east-1a", "us-east-1a").delay_ms == 0
    # Tail 1.25 x 80 ms: the heartbeat follows it, and T is ten round trips.
    group = topology.group("us-east-1.zone")
    assert (group.heartbeat_ms, group.election_timeout_ms) == (100, 1000)


def test_overrides_reach_the_timers(load: Load) -> None:
    there = "{from: us-east-1, to: eu-west-1, delay_ms: 200, jitter_ms: 10}"
    back = "{from: eu-west-1, to: us-east-1, delay_ms: 200, jitter_ms: 10}"
    far = load(BASE + f"links: [{there}, {back}]").group("us-east-1.region")
    # 1.25 x 400 ms, and the jitter of both directions in full.
    assert (far.heartbeat_ms, far.election_timeout_ms) == (520, 2600)


def test_overrides_decide_which_region_is_next(load: Load) -> None:
    topology = load(BASE + "links: [{from: us-east-1, to: eu-north-1, delay_ms: 1}]")
    regions = [topology.node(replica.node).region for replica in topology.group("us-east-1.region").replicas]
    assert regions == ["us-east-1", "us-east-1", "eu-north-1", "eu-north-1", "eu-west-1"]


def test_own_timers(load: Load) -> None:
    text = BASE + "timers: {us-east-1.zone: {heartbeat_ms: 40, election_timeout_ms: 300}}"
    group = load(text).group("us-east-1.zone")
    assert (group.heartbeat_ms, group.election_timeout_ms) == (40, 300)
    group = load(BASE + "timers: {us-east-1.region: {heartbeat_ms: 400}}").group("us-east-1.region")
    assert (group.heartbeat_ms, group.election_timeout_ms) == (400, 2000)


def test_keyspaces_that_ask_for_the_same_share_a_group(load: Load) -> None:
    topology = load(
        BASE
        + """
  - {prefix: us2/, home: us-east-1, survive: zone}
  - {prefix: us3/, home: us-east-1, survive: zone, ordering: external}
  - {prefix: us4/, home: us-east-1, survive: zone, witness: true}
  - {prefix: us5/, home: us-east-1, survive: zone, placement: {voters: [us-east-1c, us-east-1b, us-east-1a]}}
  - {prefix: us6/, home: us-east-1, survive: zone, placement: {voters: [us-east-1a, us-east-1b, us-east-1c]}}
"""
    )
    groups = {keyspace.id: keyspace.group for keyspace in topology.keyspaces}
    assert groups["us/"] == groups["us2/"] == "us-east-1.zone"
    assert groups["us3/"] == "us-east-1.zone.external"
    assert groups["us4/"] == "us-east-1.zone.witness"
    assert groups["us5/"] == groups["us6/"]
    assert groups["us5/"].startswith("us-east-1.zone.placed-")
    assert [group.id for group in topology.groups] == list(dict.fromkeys(groups.values()))


def test_keyspaces_with_different_asynchronous_copies_do_not_share_a_group(load: Load) -> None:
    topology = load(
        BASE
        + """
  - {prefix: us2/, home: us-east-1, survive: zone, async_copy: eu-west-1}
  - {prefix: us3/, home: us-east-1, survive: zone, async_copy: eu-west-1}
  - {prefix: us4/, home: us-east-1, survive: zone, async_copy: eu-north-1, witness: true}
"""
    )
    groups = {keyspace.id: keyspace.group for keyspace in topology.keyspaces}
    assert groups["us/"] == "us-east-1.zone"
    assert groups["us2/"] == groups["us3/"] == "us-east-1.zone.copy-eu-west-1"
    assert groups["us4/"] == "us-east-1.zone.witness.copy-eu-north-1"
    roles = {group.id: [str(replica.role) for replica in group.replicas] for group in topology.groups}
    assert roles[groups["us/"]] == ["full"] * 3
    assert roles[groups["us2/"]] == ["full", "full", "full", "learner"]
    assert roles[groups["us4/"]] == ["full", "full", "witness", "learner"]


def test_an_asynchronous_copy_may_stand_in_a_region_of_one_zone(load: Load) -> None:
    text = BASE.replace("eu-north-1, zones: 3", "eu-north-1, zones: 1")
    topology = load(text + "  - {prefix: us2/, home: us-east-1, survive: zone, async_copy: eu-north-1}\n")
    (copy,) = topology.groups[-1].learners()
    assert topology.node(copy.node).region == "eu-north-1"


def test_a_placement_by_hand_puts_the_home_first(load: Load) -> None:
    topology = load(
        BASE
        + """
  - prefix: hand/
    home: eu-west-1
    survive: region
    placement: {voters: [us-east-1a, eu-north-1a, eu-west-1b], witnesses: [eu-west-1a, us-east-1c]}
"""
    )
    group = topology.group(topology.keyspaces[-1].group)
    assert [(topology.node(replica.node).zone, replica.role) for replica in group.replicas] == [
        ("eu-west-1b", "full"),
        ("us-east-1a", "full"),
        ("eu-north-1a", "full"),
        ("eu-west-1a", "witness"),
        ("us-east-1c", "witness"),
    ]


def test_nodes_of_one_zone_share_its_replicas(load: Load) -> None:
    zones = [f"{region}{letter}" for region in ("us-east-1", "eu-west-1", "eu-north-1") for letter in "abc"]
    lines = [f"  - {{name: {zone}-main, zone: {zone}, address: '{zone}.example:7000'}}" for zone in zones]
    lines.append("  - {name: spare, zone: us-east-1a}")
    topology = load(BASE + "nodes:\n" + "\n".join(lines))
    assert topology.node("eu-west-1b-main").address == "eu-west-1b.example:7000"
    assert topology.node("spare").address is None
    first, second = topology.groups
    assert (first.replicas[0].node, second.replicas[0].node) == ("us-east-1a-main", "spare")


def test_a_latency_table_beside_the_file(load: Load, tmp_path: Path) -> None:
    (tmp_path / "own.csv").write_text("region,here,there\nhere,,30\nthere,34,\n")
    topology = load(
        """
name: own
latencies: own.csv
regions:
  - {name: here, zones: 3, latitude: 1, longitude: 2}
  - {name: there, zones: 1, latitude: 1, longitude: 2}
keyspaces: [{prefix: a, home: here, survive: zone}]
"""
    )
    assert topology.rtt_ms("here-a", "there-a") == 32
    assert topology.rtt_ms("here-a", "here-b") == 0.95
    assert topology.regions[0].zone_rtt_assumed
    assert not topology.regions[1].zone_rtt_assumed, "one zone has no links inside"
