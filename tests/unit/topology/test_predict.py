"""Predicted latencies against figures worked out by hand."""

from dataclasses import replace
from pathlib import Path

import pytest

from isochrone.topology import load_topology
from isochrone.topology.predict import predicted_commit_ms, predicted_read_ms, predictions, quorum_rtt_ms
from isochrone.topology.survival import LossKind, losses, voters_of

SHIPPED = Path(__file__).parents[3] / "deploy" / "topologies"

# The Gryff round trips with five voters. Leader CA: its quorum is OR (59) and VA (72).
FROM_CLIENT_TO_LEADER_CA_MS = {"CA": 72, "OR": 131, "VA": 144, "JP": 185, "EU": 223}


@pytest.mark.parametrize(("client", "expected_ms"), FROM_CLIENT_TO_LEADER_CA_MS.items())
def test_five_sites_with_the_leader_in_ca(client: str, expected_ms: float) -> None:
    topology = load_topology(SHIPPED / "five-sites.yaml")
    (group,) = topology.groups
    assert predicted_commit_ms(topology, group, f"{client}-a", "CA-a-1") == pytest.approx(expected_ms)
    assert predicted_read_ms(topology, group, f"{client}-a", "CA-a-1") == pytest.approx(expected_ms)


@pytest.mark.parametrize(("client", "expected_ms"), {"CA": 0, "OR": 59, "VA": 72, "JP": 113, "EU": 151}.items())
def test_a_read_under_a_lease_costs_the_way_to_the_leader(client: str, expected_ms: float) -> None:
    topology = load_topology(SHIPPED / "five-sites.yaml")
    group = replace(topology.groups[0], lease_reads=True)
    assert predicted_read_ms(topology, group, f"{client}-a", "CA-a-1") == pytest.approx(expected_ms)
    assert predicted_commit_ms(topology, group, f"{client}-a", "CA-a-1") == pytest.approx(expected_ms + 72)


def test_five_sites_quorums_of_every_leader() -> None:
    topology = load_topology(SHIPPED / "five-sites.yaml")
    (group,) = topology.groups
    quorums = {leader: quorum_rtt_ms(topology, group, f"{leader}-a-1") for leader in FROM_CLIENT_TO_LEADER_CA_MS}
    assert quorums == pytest.approx({"CA": 72, "OR": 93, "VA": 88, "JP": 121, "EU": 145})


def test_a_witness_counts_towards_the_quorum_but_never_leads() -> None:
    topology = load_topology(SHIPPED / "two-regions-and-witness.yaml")
    group = topology.group("eu-central-1.region")
    witness = group.replicas[-1].node
    with pytest.raises(ValueError, match="cannot lead"):
        quorum_rtt_ms(topology, group, witness)
    leaders = {prediction.leader_region for prediction in predictions(topology, group)}
    assert leaders == {"eu-central-1", "eu-west-1"}
    # The leader's other zone answers first, then the witness: eu-north-1 is nearer than eu-west-1.
    assert quorum_rtt_ms(topology, group, group.replicas[0].node) == pytest.approx(
        topology.rtt_ms("eu-central-1a", "eu-north-1a")
    )


def test_predictions_cover_each_client_and_each_possible_leader_once() -> None:
    topology = load_topology(SHIPPED / "three-regions.yaml")
    group = topology.group("us-east-1.region")
    found = predictions(topology, group)
    assert len(found) == 9
    assert len({(each.client_region, each.leader_region) for each in found}) == 9
    home = next(each for each in found if each.client_region == each.leader_region == "us-east-1")
    # One ack from the next zone (0.886 ms) and one from eu-west-1 (69.679 ms): the second one makes the quorum.
    assert home.commit_ms == pytest.approx((69.622 + 69.736) / 2)


def test_a_smaller_commit_quorum_makes_writes_faster_and_elections_need_more(tmp_path: Path) -> None:
    """Two of five commit: from CA the nearest, OR (59), in place of VA (72)."""
    text = (SHIPPED / "five-sites.yaml").read_text(encoding="utf-8")
    file = tmp_path / "flexible.yaml"
    file.write_text(text.replace("survive: region", "survive: region, quorums: {commit: 2, election: 4}"))
    (group,) = load_topology(file).groups
    assert group.id.endswith(".quorums-2-4")
    assert (group.commit_quorum(), group.election_quorum(), group.survivors_needed()) == (2, 4, 4)
    assert quorum_rtt_ms(load_topology(file), group, "CA-a-1") == pytest.approx(59)
    found = losses(voters_of(load_topology(file), group), group.quorums)
    assert {loss.kind for loss in found if loss.keeps_quorum} == {LossKind.ZONE, LossKind.REGION}
