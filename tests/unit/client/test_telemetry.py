"""What clients tell OpenTelemetry."""

import re
from dataclasses import replace
from pathlib import Path

from opentelemetry.metrics import CallbackOptions

from isochrone.client import telemetry
from isochrone.client.results import Statistics
from isochrone.client.telemetry import COUNTERS

ROOT = Path(__file__).parents[3]
REGION = "a-region-of-this-test"


class Source:
    """Counts what it is told."""

    region = REGION

    def __init__(self, counted: Statistics) -> None:
        self.counted = counted

    def statistics(self) -> Statistics:
        return self.counted


def observed(name: str) -> dict[str, int | float]:
    """By class of error, where the metric has any."""
    observations = COUNTERS[name][1](CallbackOptions())
    found = [(dict(each.attributes or {}), each.value) for each in observations]
    return {str(labels.get("error", "")): value for labels, value in found if labels["region"] == REGION}


def test_clients_of_a_region_are_summed_and_stay_counted_when_they_are_closed() -> None:
    first = Source(Statistics(attempts=10, retransmissions=2, errors={"Unavailable": 1}))
    second = Source(Statistics(attempts=5, leader_changes=1, errors={"Unavailable": 2, "LockHeld": 1}))
    telemetry.count(first)
    telemetry.count(second)
    assert observed("isochrone_client_attempts_total") == {"": 15}
    telemetry.closed(first)
    telemetry.closed(first)
    second.counted = replace(second.counted, attempts=6)
    assert observed("isochrone_client_attempts_total") == {"": 16}
    telemetry.closed(second)
    assert observed("isochrone_client_attempts_total") == {"": 16}
    assert observed("isochrone_client_retries_total") == {"": 2}
    assert observed("isochrone_client_leader_changes_total") == {"": 1}
    assert observed("isochrone_client_reconnects_total") == {"": 0}
    assert observed("isochrone_client_errors_total") == {"Unavailable": 3, "LockHeld": 1}


def test_the_documentation_names_every_metric_of_clients_and_no_other() -> None:
    text = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    source = (ROOT / "client" / "telemetry.py").read_text(encoding="utf-8")
    documented = re.findall(r"^\| `(isochrone_client_\w+)` \|", text, re.MULTILINE)
    assert sorted(documented) == sorted(re.findall(r'"(isochrone_client_\w+)"', source))
    assert set(COUNTERS) <= set(documented)
