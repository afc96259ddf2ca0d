"""The catalogue of metrics, and the text in which they are read."""

import re
from pathlib import Path

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from isochrone.histograms import Histogram
from isochrone.ids import NS_PER_S, NodeId
from isochrone.node import metric_catalogue as metrics
from isochrone.node.metric_catalogue import CATALOGUE, Kind
from isochrone.node.metric_readings import Reading, budget_readings, node_readings, predicted_readings
from isochrone.node.metrics_os import prometheus_text
from isochrone.topology import load_topology
from isochrone.wire.budget import Budget, Share

ROOT = Path(__file__).parents[3]
UNITS = ("_seconds", "_bytes", "_total")
PLAIN_COUNTS = {
    "isochrone_raft_is_leader",
    "isochrone_raft_has_leader",
    "isochrone_raft_term",
    "isochrone_raft_commit_index",
    "isochrone_raft_applied_index",
    "isochrone_raft_queued_commands",
    "isochrone_lock_active",
    "isochrone_lock_held_too_long",
    "isochrone_session_open",
    "isochrone_lease_open",
    "isochrone_watch_watchers",
    "isochrone_watch_behind",
    "isochrone_kv_revision",
}
"""Gauges without a unit."""


def text_of(*readings: Reading) -> str:
    return prometheus_text(readings, {"node": "n-1", "region": "r"}).decode()


def test_names_are_unique_and_end_in_their_unit() -> None:
    names = [metric.name for metric in CATALOGUE]
    assert len(set(names)) == len(names)
    assert {name for name in names if not name.endswith(UNITS)} == PLAIN_COUNTS
    for metric in CATALOGUE:
        assert re.fullmatch(r"isochrone(_[a-z]+)+", metric.name)
        assert metric.name.endswith("_total") == (metric.kind is Kind.COUNTER), metric
        assert metric.kind is not Kind.HISTOGRAM or metric.name.endswith("_seconds"), metric


def test_the_documentation_names_every_metric_and_no_other() -> None:
    text = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(isochrone_\w+)` \| (\w+) \| ([^|]*) \| ([^|]*) \|", text, re.MULTILINE)
    documented = [
        (name, kind, tuple(re.findall(r"`(\w+)`", labels)), meaning)
        for name, kind, labels, meaning in rows
        if not name.startswith("isochrone_client_")
    ]
    assert documented == [(each.name, each.kind.value, each.labels, each.meaning) for each in CATALOGUE]


def test_the_rules_for_prometheus_name_metrics_that_exist_with_labels_that_they_have() -> None:
    rules = yaml.safe_load((ROOT / "deploy" / "prometheus" / "alerts.yaml").read_text(encoding="utf-8"))
    known = {
        (metric.name + suffix): {"node", "region", *metric.labels}
        for metric in CATALOGUE
        for suffix in (("_bucket", "_count", "_sum") if metric.kind is Kind.HISTOGRAM else ("",))
    }
    used: set[str] = set()
    for rule in rules["groups"][0]["rules"]:
        names = re.findall(r"isochrone_\w+", rule["expr"])
        assert names and set(names) <= set(known), rule["alert"]
        labels = set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"]))
        assert labels and all(labels <= known[name] for name in names), rule["alert"]
        used |= set(names)
    assert len(used) >= 10


def test_a_histogram_is_told_in_seconds_with_rising_counts() -> None:
    histogram = Histogram((NS_PER_S // 10, NS_PER_S))
    for value_s in (0.05, 0.1, 0.5, 3.0):
        histogram.record(round(value_s * NS_PER_S))
    text = text_of(Reading(metrics.LOCK_ACQUISITION, ("g", "yes"), histogram))
    (family,) = text_string_to_metric_families(text)
    labels = {"node": "n-1", "region": "r", "group": "g", "waited": "yes"}
    assert (family.name, family.type) == ("isochrone_lock_acquisition_seconds", "histogram")
    assert [(sample.name.rpartition("_")[2], sample.value) for sample in family.samples] == [
        ("bucket", 2),
        ("bucket", 3),
        ("bucket", 4),
        ("count", 4),
        ("sum", pytest.approx(3.65)),
    ]
    assert [sample.labels.get("le") for sample in family.samples] == ["0.1", "1", "+Inf", None, None]
    assert all(labels.items() <= sample.labels.items() for sample in family.samples)


def test_readings_of_one_metric_stand_together_in_the_order_of_the_catalogue() -> None:
    readings = [Reading(metric, (group,), 1.0) for group in "ab" for metric in (metrics.LEASES, metrics.ELECTIONS)]
    families = list(text_string_to_metric_families(text_of(*readings)))
    assert [(each.name, each.type) for each in families] == [
        ("isochrone_raft_elections", "counter"),
        ("isochrone_lease_open", "gauge"),
    ]
    assert [[sample.labels["group"] for sample in each.samples] for each in families] == [["a", "b"]] * 2


def test_what_is_kept_for_clients_is_told_beside_its_limit_and_those_cut_off() -> None:
    budget = Budget(100)
    shares = [Share(budget, lambda: None) for _ in range(2)]
    shares[0].set(40)
    shares[1].set(70)
    text = text_of(*budget_readings(budget))
    told = {each.name: [sample.value for sample in each.samples] for each in text_string_to_metric_families(text)}
    assert told == {
        "isochrone_clients_kept_bytes": [40],
        "isochrone_clients_kept_limit_bytes": [100],
        "isochrone_clients_cut_off": [1],
    }


def test_a_clock_without_a_bound_is_infinitely_uncertain() -> None:
    text = text_of(*node_readings(1, 2, Histogram(), Histogram(), None))
    assert 'isochrone_clock_uncertainty_seconds{node="n-1",region="r"} +Inf' in text


def test_a_lock_is_predicted_for_clients_of_each_region() -> None:
    topology = load_topology(ROOT / "deploy" / "topologies" / "three-regions.yaml")
    (group, *_) = topology.groups
    leader = next(voter.node for voter in group.voters())
    predicted = {reading.labels: reading.value for reading in predicted_readings(topology, group, leader)}
    assert list(predicted) == [(group.id, region.id) for region in topology.regions]
    home, *others = predicted.values()
    assert isinstance(home, float) and all(isinstance(other, float) and other > home > 0 for other in others)
    assert not list(predicted_readings(topology, group, NodeId("elsewhere")))
