"""Zone labels of Ray nodes against the zones of a topology."""

import pytest

from isochrone.ids import ZoneId
from isochrone.node.placement import PlacementError, choose_placement

ZONES = [ZoneId("a"), ZoneId("b")]
OURS, KUBERNETES = "isochrone.io/zone", "topology.kubernetes.io/zone"


def test_without_labels_one_ray_node_stands_for_all_zones_and_says_so() -> None:
    placement = choose_placement(ZONES, [{}, {"ray.io/node-id": "1"}])
    assert placement.selector(ZONES[0]) is None
    assert placement.describe() == "no Ray node has a zone label: one Ray node stands for all zones"


@pytest.mark.parametrize("key", [OURS, KUBERNETES])
def test_labelled_nodes_are_selected_by_zone(key: str) -> None:
    placement = choose_placement(ZONES, [{key: "a"}, {key: "b"}, {key: "c"}, {}])
    assert placement.selector(ZONES[1]) == {key: "b"}
    assert key in placement.describe()


def test_our_own_label_goes_first() -> None:
    labels = [{OURS: "a", KUBERNETES: "x"}, {OURS: "b", KUBERNETES: "y"}]
    assert choose_placement(ZONES, labels).selector(ZONES[0]) == {OURS: "a"}


def test_a_key_of_ones_own_may_be_given() -> None:
    assert choose_placement(ZONES, [{"rack": "a"}, {"rack": "b"}], keys=["rack"]).selector(ZONES[0]) == {"rack": "a"}


def test_a_zone_without_a_ray_node_is_an_error_that_names_both_sides() -> None:
    with pytest.raises(PlacementError, match=r"isochrone\.io/zone=b; zones without a Ray node: b; zones seen: a, c$"):
        choose_placement(ZONES, [{OURS: "a"}, {OURS: "c"}])
