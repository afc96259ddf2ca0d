"""Recovery times and percentiles, from hand-made histories."""

import pytest

from isochrone.drills.faults import ResolvedFault
from isochrone.drills.history import Operation, OperationKind, Outcome
from isochrone.drills.measure import failed_writes, percentile, recovery_time_s
from isochrone.drills.record import FaultRun
from isochrone.drills.schema import FaultKind
from isochrone.ids import RegionId

S = 1_000_000_000


def write(start_s: float, end_s: float, outcome: str = "ok", region: str = "eu", keyspace: str = "k/") -> Operation:
    return Operation(
        process=1,
        region=region,
        keyspace=keyspace,
        kind=OperationKind.PUT,
        key="k/1",
        outcome=Outcome(outcome),
        invoke_ns=round(start_s * S),
        complete_ns=round(end_s * S),
        value="v",
    )


def fault(end_s: float | None = 20.0) -> FaultRun:
    lost = ResolvedFault(FaultKind.KILL_REGION, "kill-region us", region=RegionId("us"))
    return FaultRun(lost, 10 * S, None if end_s is None else round(end_s * S))


def test_first_acknowledged_write_issued_after_the_last_failed_one() -> None:
    history = [
        write(9.0, 9.1),
        write(10.5, 14.5, "info"),
        write(11.0, 11.1, "fail"),
        write(11.5, 12.6),
        write(12.0, 12.5),
        write(15.0, 15.1),
    ]
    assert recovery_time_s(history, "k/", fault()) == pytest.approx(2.5)
    assert failed_writes(history, "k/", fault()) == 2


def test_an_acknowledgement_between_failures_is_no_recovery() -> None:
    history = [
        write(10.5, 10.6),
        write(11.0, 15.0, "info"),
        write(12.0, 12.1),
        write(13.0, 17.0, "info"),
        write(14.0, 14.2),
    ]
    assert recovery_time_s(history, "k/", fault()) == pytest.approx(4.2)


def test_nothing_failed() -> None:
    assert recovery_time_s([write(10.2, 10.3), write(11.0, 11.1)], "k/", fault()) == pytest.approx(0.3)


def test_what_does_not_count() -> None:
    nothing = [
        write(9.9, 10.4),
        write(11.0, 11.1, region="us"),
        write(11.0, 11.1, keyspace="other/"),
        write(19.9, 20.1),
        write(20.5, 20.6),
    ]
    assert recovery_time_s(nothing, "k/", fault()) is None


def test_failures_inside_the_region_do_not_count() -> None:
    history = [write(10.5, 10.6), write(15.0, 19.0, "info", region="us")]
    assert recovery_time_s(history, "k/", fault()) == pytest.approx(0.6)
    assert failed_writes(history, "k/", fault()) == 0


def test_no_recovery_before_the_fault_ends_or_if_it_has_not_ended() -> None:
    failing = [write(10.5, 14.5, "info"), write(19.0, 23.0, "info")]
    assert recovery_time_s(failing, "k/", fault()) is None
    assert recovery_time_s([write(11.0, 11.1)], "k/", fault(end_s=None)) is None


@pytest.mark.parametrize(
    ("values", "fraction", "expected"),
    [([3.0], 0.5, 3.0), ([1.0, 2.0, 3.0], 0.5, 2.0), ([4.0, 1.0, 3.0, 2.0], 0.5, 2.0), (list(range(1, 101)), 0.99, 99)],
)
def test_percentile(values: list[float], fraction: float, expected: float) -> None:
    assert percentile(values, fraction) == expected
