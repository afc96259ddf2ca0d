"""The expiry check finds leases that end too soon or live too long, and takes what is right."""

import pytest

from isochrone.drills.checkers.lease_expiry import LeaseResult, LeaseStory, check_lease_expiry
from isochrone.drills.verdict import Verdict

TTL = 1_000


def story(
    promised: tuple[int, ...] = (0, 400), ended: int | None = 1_450, revoked: int | None = None, asked: int = 500
) -> LeaseStory:
    return LeaseStory(lease=7, ttl_ns=TTL, promised_ns=promised, asked_ns=asked, revoked_ns=revoked, ended_ns=ended)


def judged(*stories: LeaseStory, rate_max: float = 0.0, healed: int = 0, until: int = 10_000) -> LeaseResult:
    return check_lease_expiry(stories, rate_max=rate_max, healed_ns=healed, until_ns=until, patience_ns=300)


def test_a_lease_that_lives_its_time_from_the_last_promise_holds() -> None:
    result = judged(story(ended=1_400), story(ended=9_000))
    assert (result.verdict, result.expired) == (Verdict.TRUE, 2)


def test_a_lease_that_ends_before_its_time_is_found() -> None:
    result = judged(story(ended=1_399))
    assert result.verdict is Verdict.FALSE
    assert "lease 7 ran out 0.000 s after it was promised" in result.as_check().reason
    assert judged(story(ended=1_399), rate_max=0.01).verdict is Verdict.TRUE
    assert judged(story(ended=1_389), rate_max=0.01).verdict is Verdict.FALSE


def test_the_last_promise_counts_in_whatever_order_they_came() -> None:
    assert judged(story(promised=(400, 0), ended=1_399)).verdict is Verdict.FALSE


def test_a_lease_may_end_whenever_its_owner_wishes_and_not_be_renewed_after_that() -> None:
    assert judged(story(ended=450, revoked=430), story()).verdict is Verdict.TRUE
    assert judged(story(ended=450, revoked=451)).verdict is Verdict.FALSE, "it ended before the wish"
    result = judged(story(promised=(0, 500), ended=450, revoked=430))
    assert "was renewed" in result.broken[0]


@pytest.mark.parametrize(("healed", "until", "lives_on"), [(0, 1_800, True), (0, 1_801, False), (600, 1_801, True)])
def test_a_lease_that_nobody_renews_must_end(healed: int, until: int, lives_on: bool) -> None:
    result = judged(story(ended=None), story(), healed=healed, until=until)
    assert (result.verdict is not Verdict.FALSE) == lives_on
    assert result.undecided == ((7,) if lives_on else ())


def test_a_revoked_lease_must_end_too() -> None:
    assert judged(story(ended=None, revoked=450)).verdict is Verdict.FALSE


def test_without_an_expiry_nothing_is_proven() -> None:
    assert judged(story(ended=450, revoked=430)).verdict is Verdict.UNKNOWN
