"""Placement, links and timers of random topologies keep their invariants."""

from itertools import combinations

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from isochrone.ids import RegionId, ReplicaRole
from isochrone.topology.build import Reference, build_topology
from isochrone.topology.latency import LatencyMatrix, Place
from isochrone.topology.model import Group, SurvivalGoal, Topology, TopologyError
from isochrone.topology.predict import predictions
from isochrone.topology.schema import read_document
from isochrone.topology.survival import LossKind, losses, voters_left, voters_of
from isochrone.topology.yaml_text import parse_yaml

NAMES = [RegionId(f"r{number}") for number in range(7)]
RTTS = st.floats(1, 400)


@st.composite
def documents(draw: st.DrawFn) -> tuple[dict[str, object], Reference]:
    """A document with names that resolve, and the data for it; its goals may be out of reach."""
    names = NAMES[: draw(st.integers(1, 7))]
    regions = [{"name": name, "zones": draw(st.integers(1, 4)), "witness_site": draw(st.booleans())} for name in names]
    regions[0]["witness_site"] = False
    homes = [region["name"] for region in regions if not region["witness_site"]]
    keyspaces = [
        {
            "prefix": f"{number}/",
            "home": draw(st.sampled_from(homes)),
            "survive": draw(st.sampled_from(["zone", "region"])),
            "ordering": draw(st.sampled_from(["linearizable", "external"])),
            "witness": draw(st.booleans()),
        }
        for number in range(draw(st.integers(1, 3)))
    ]
    median = {pair: draw(RTTS) for pair in combinations(names, 2)}
    tail = {pair: rtt * draw(st.floats(1, 2)) for pair, rtt in median.items() if draw(st.booleans())}
    matrix = LatencyMatrix("drawn", tuple(names), median, tail)
    zone_rtts = {name: draw(st.floats(0.1, 5)) for name in names if draw(st.booleans())}
    reference = Reference(matrix, {name: Place(name, 0.0, 0.0) for name in names}, zone_rtts)
    document = {"name": "drawn", "latencies": "drawn", "regions": regions, "keyspaces": keyspaces}
    return document, reference


def build(document: dict[str, object], reference: Reference) -> Topology | TopologyError:
    try:
        return build_topology(read_document(document, "drawn"), reference, "drawn")
    except TopologyError as error:
        return error


def satisfiable(document: dict[str, object], keyspace: dict[str, object]) -> bool:
    """Whether a keyspace's goal can be met, told without the code under test."""
    regions = {region["name"]: region for region in document["regions"]}
    if keyspace["survive"] == "zone":
        return regions[keyspace["home"]]["zones"] >= 3
    full = sum(not region["witness_site"] for region in regions.values())
    return full >= 3 or (full == 2 and len(regions) > 2)


@settings(max_examples=150, deadline=None)
@given(documents())
def test_a_topology_is_built_or_every_unmet_goal_is_named(drawn: tuple[dict[str, object], Reference]) -> None:
    document, reference = drawn
    result = build(document, reference)
    unmet = [
        f"keyspaces[{position}].survive"
        for position, keyspace in enumerate(document["keyspaces"])
        if not satisfiable(document, keyspace)
    ]
    if isinstance(result, TopologyError):
        assert [problem.path for problem in result.problems] == unmet
        assert unmet
    else:
        assert unmet == []
        for group in result.groups:
            check_group(result, group)
        check_sharing(result, document)


def check_group(topology: Topology, group: Group) -> None:
    voters = voters_of(topology, group)
    zones = [voter.zone for voter in voters]
    assert len(set(zones)) == len(zones), "a zone holds at most one voter of a group"
    assert len(voters) in (3, 5)
    first = voters[0]
    assert (first.region, first.role) == (group.home, ReplicaRole.FULL)
    assert first.zone == topology.region(group.home).zones[0], "the home region's first zone campaigns at bootstrap"
    witnesses = [voter for voter in voters if voter.role is ReplicaRole.WITNESS]
    assert len(witnesses) <= 1
    assert len(witnesses) < group.survivors_needed()
    for voter in voters:
        assert voter.role is ReplicaRole.WITNESS or not topology.region(voter.region).witness_site
    must_survive = {LossKind.ZONE} | ({LossKind.REGION} if group.goal is SurvivalGoal.REGION else set())
    assert all(loss.keeps_quorum for loss in losses(voters) if loss.kind in must_survive)
    if group.goal is SurvivalGoal.ZONE:
        assert {voter.region for voter in voters} == {group.home}
    check_timers(topology, group)
    for prediction in predictions(topology, group):
        assert prediction.commit_ms >= 0
        assert not topology.region(prediction.leader_region).witness_site


def check_timers(topology: Topology, group: Group) -> None:
    zones = [voter.zone for voter in voters_of(topology, group)]
    slowest = max(topology.rtt_ms(a, b) for a, b in combinations(zones, 2))
    assert group.heartbeat_ms >= max(100, slowest)
    assert group.election_timeout_ms >= max(1000, 5 * group.heartbeat_ms)


def check_sharing(topology: Topology, document: dict[str, object]) -> None:
    asked = {
        keyspace["prefix"]: (keyspace["home"], keyspace["survive"], keyspace["ordering"], keyspace["witness"])
        for keyspace in document["keyspaces"]
    }
    for a, b in combinations(topology.keyspaces, 2):
        assert (a.group == b.group) == (asked[a.id] == asked[b.id])


@settings(max_examples=100, deadline=None)
@given(documents())
def test_links_cover_all_pairs_and_add_up_to_the_round_trips(drawn: tuple[dict[str, object], Reference]) -> None:
    document, reference = drawn
    document["keyspaces"] = [{"prefix": "a", "home": NAMES[0], "survive": "zone"}]
    document["regions"][0]["zones"] = 3
    topology = build(document, reference)
    assert isinstance(topology, Topology)
    assert reference.matrix is not None
    region_of = {zone: region.id for region in topology.regions for zone in region.zones}
    for a, b in combinations(region_of, 2):
        assert topology.rtt_ms(a, b) == topology.rtt_ms(b, a)
        if region_of[a] != region_of[b]:
            assert abs(topology.rtt_ms(a, b) - reference.matrix.rtt_ms(region_of[a], region_of[b])) < 1e-9
        else:
            assert topology.rtt_ms(a, b) == reference.zone_rtts.get(region_of[a], 0.95)


@settings(max_examples=100, deadline=None)
@given(documents(), st.data())
def test_every_quorum_holds_a_full_replica(drawn: tuple[dict[str, object], Reference], data: st.DataObject) -> None:
    topology = build(*drawn)
    if isinstance(topology, TopologyError):
        return
    group = data.draw(st.sampled_from(topology.groups))
    voters = voters_of(topology, group)
    lost = data.draw(st.sets(st.sampled_from([voter.zone for voter in voters])))
    if voters_left(voters, lost) >= group.survivors_needed():
        assert any(voter.role is ReplicaRole.FULL for voter in voters if voter.zone not in lost)


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet=st.sampled_from("ab1-: \n[]{},&*!|>'\"#%@`?~=<._\t\x00é"), max_size=40))
def test_any_text_is_read_as_yaml_would_or_refused_with_problems(text: str) -> None:
    value, problems = parse_yaml(text, "file")
    if not problems:
        assert repr(value) == repr(yaml.safe_load(text))
    read = read_document(value, "file")
    assert problems or read.problems, "no such text is a topology"
