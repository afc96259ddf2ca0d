"""What benchmarks read out of the programs that they run, and how they count."""

import math

import pytest
from check_perf import CheckFailed, parse_check_perf
from figures import Load, percentile, table
from h2load import SHAPES, FailedLoad, Summary, length_prefixed, parse_log, parse_summary
from http2 import frame, header_block
from sides import IN_FLIGHT

SUMMARY = """
finished in 3.00s, 11703.50 req/s, 857.37KB/s
requests: 23407 total, 23407 started, 23407 done, 23405 succeeded, 1 failed, 1 errored, 0 timeout
status codes: 23407 2xx, 0 3xx, 0 4xx, 0 5xx
traffic: 1.67MB (1755899) total, 66.97KB (68574) headers (space savings 94.73%), 1.10MB (1148434) data
                     min         max         mean         sd        +/- sd
time for request:      223us     24.27ms      1.31ms      1.09ms    95.65%
"""


def test_the_summary_of_h2load() -> None:
    assert parse_summary(SUMMARY, 2) == Summary(done=23407, failed=2, data_bytes=1148434, seconds=2.0)


def test_a_run_without_a_summary_is_no_figure() -> None:
    with pytest.raises(FailedLoad, match="Could not resolve"):
        parse_summary("Could not resolve host", 2)


def test_the_log_of_h2load_gives_milliseconds_in_order() -> None:
    assert parse_log("1795438332446525\t200\t914\n1795438332446526\t200\t30\n") == [0.03, 0.914]


def test_percentiles_are_values_that_were_measured() -> None:
    assert percentile([1.0, 2.0, 3.0, 4.0], 0.5) == 2.0
    assert percentile([1.0, 2.0, 3.0, 4.0], 0.99) == 4.0
    assert percentile([7.0], 0.0) == 7.0
    assert math.isnan(percentile([], 0.5))


def test_operations_per_second() -> None:
    assert Load(in_flight=4, operations=300, seconds=1.5, p50_ms=1.0, p99_ms=2.0).per_s == 200.0


def test_a_table_is_aligned_and_has_no_trailing_spaces() -> None:
    assert (
        table(("what", "n"), [("a", "1"), ("long name", "")]) == "what       n\n---------  -\na          1\nlong name"
    )


def test_every_load_of_h2load_has_as_many_calls_in_flight_as_its_name_says() -> None:
    assert all(connections * streams == in_flight for in_flight, (connections, streams) in SHAPES.items())
    assert {in_flight for each in IN_FLIGHT.values() for in_flight in each if in_flight not in SHAPES} == {4}, "watches"


def test_a_message_in_a_body() -> None:
    assert length_prefixed(b"ab") == b"\0\0\0\0\x02ab"


def test_a_frame_has_a_length_of_three_bytes() -> None:
    assert frame(0, 1, 3, b"xyz") == b"\0\0\x03\0\x01\0\0\0\x03xyz"


def test_a_header_too_long_for_the_encoder_is_refused() -> None:
    with pytest.raises(ValueError, match="too long"):
        header_block("/" + "x" * 127, "localhost")


PASSED = """60 / 60 Boooooooooooooooo! 100.00% 1m0s
PASS: Throughput is 150 writes/s
PASS: Slowest request took 0.087s
PASS: Stddev is 0.004s
PASS
"""
FAILED = """FAIL: Throughput too low: 2291 writes/s
FAIL: Slowest request took too long: 1.25s
FAIL: Stddev too high: 0.104s
FAIL
"""


@pytest.mark.parametrize(("text", "figures"), [(PASSED, (150, 0.087, 0.004)), (FAILED, (2291, 1.25, 0.104))])
def test_what_etcdctl_check_perf_prints(text: str, figures: tuple[float, ...]) -> None:
    assert tuple(parse_check_perf(text).values()) == figures


def test_a_check_that_was_cut_short_is_no_figure() -> None:
    with pytest.raises(CheckFailed, match=r"slowest_s, stddev_s: PASS: Throughput"):
        parse_check_perf("PASS: Throughput is 150 writes/s\n")
