"""Latency tables and what is made of their cells."""

import pytest

from isochrone.topology.latency import LatencyMatrix, parse_matrix, parse_places, parse_zone_rtts

MATRIX = LatencyMatrix(
    "m",
    ("a", "b", "c"),
    median={("a", "b"): 100.0, ("b", "a"): 110.0, ("a", "c"): 40.0},
    tail={("a", "b"): 120.0, ("b", "a"): 150.0},
)


def test_the_median_of_a_pair_is_the_mean_of_both_measurements() -> None:
    assert MATRIX.rtt_ms("a", "b") == MATRIX.rtt_ms("b", "a") == 105


def test_one_measurement_is_enough() -> None:
    assert MATRIX.rtt_ms("a", "c") == MATRIX.rtt_ms("c", "a") == 40


def test_a_pair_without_a_measurement_has_no_figure() -> None:
    assert MATRIX.rtt_ms("b", "c") is None
    assert MATRIX.tail_rtt_ms("b", "c") is None


def test_the_tail_is_the_larger_measurement_else_a_share_above_the_median() -> None:
    assert MATRIX.tail_rtt_ms("a", "b") == MATRIX.tail_rtt_ms("b", "a") == 150
    assert MATRIX.tail_rtt_ms("a", "c") == pytest.approx(1.25 * 40)


def test_a_matrix_drops_its_diagonal_and_empty_cells() -> None:
    regions, cells, problems = parse_matrix("region,a,b\na,5,7.5\nb,,6\n", "m.csv")
    assert (regions, cells, problems) == (("a", "b"), {("a", "b"): 7.5}, [])


def test_zone_figures_leave_out_what_is_not_between_zones() -> None:
    table = (
        "provider,region,scope,mid_ms\n"
        'aws,a,"cross-AZ (p50 of 50 pings per ordered AZ pair, private IP)",0.9\n'
        "aws,a,same-region VM ping (min/avg/max; zones not stated),0.1\n"
        "ibm,b,same-zone (30-day average),0.1\n"
        "gcp,c,same-region median (Performance Dashboard; mix of zone pairs),0.4\n"
    )
    assert parse_zone_rtts(table) == {"a": 0.9, "c": 0.4}


def test_places_leave_out_regions_without_coordinates() -> None:
    places = parse_places("provider,region,city,lat,lon\naws,a,Ashburn,38.9,-77.2\ngcp,b,,,\n")
    assert list(places) == ["a"]
    assert (places["a"].city, places["a"].latitude, places["a"].longitude) == ("Ashburn", 38.9, -77.2)
