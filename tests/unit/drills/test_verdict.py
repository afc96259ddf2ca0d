"""Verdicts add up to their worst; a crash of a check is unknown."""

import pytest

from isochrone.drills.verdict import Check, Verdict, guarded, worst

TRUE, FALSE, UNKNOWN = Verdict.TRUE, Verdict.FALSE, Verdict.UNKNOWN


@pytest.mark.parametrize(
    ("parts", "whole"),
    [
        ([TRUE], TRUE),
        ([TRUE, UNKNOWN], UNKNOWN),
        ([UNKNOWN, FALSE, TRUE], FALSE),
        ([TRUE, FALSE], FALSE),
        ([], UNKNOWN),
    ],
)
def test_worst(parts: list[Verdict], whole: Verdict) -> None:
    assert worst(parts) is whole


def test_a_check_that_crashes_is_unknown_and_says_why() -> None:
    def crash() -> Check:
        raise ZeroDivisionError("oops")

    check = guarded("c", crash)
    assert check.verdict is UNKNOWN
    assert "ZeroDivisionError: oops (crash, line" in check.reason


def test_a_check_that_returns_is_passed_on() -> None:
    check = Check("c", FALSE, "because")
    assert guarded("c", lambda: check) is check
