"""Lease expiry: never before the time that was promised has passed by true time, and not long after it.

A grant or a renewal that was answered promises the whole time to live from some moment after it was *sent*. So no
expiry may be applied anywhere sooner than the time to live after the last promise was sent, less what clocks may run
fast; and a lease that nobody renews must have ended a bounded time after it was last asked for and faults were over.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from isochrone.drills.verdict import Check, Verdict

NAME = "lease expiry"


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseStory:
    """What became of one lease. Times are true ones."""

    lease: int
    ttl_ns: int
    promised_ns: tuple[int, ...]
    """When the grant and each renewal that was answered were sent."""
    asked_ns: int
    """When anybody last waited for the answer to a grant or a renewal."""
    revoked_ns: int | None
    """When its owner first asked to end it."""
    ended_ns: int | None
    """When its end was applied first, by any replica."""


@dataclass(frozen=True, slots=True)
class LeaseResult:
    """What was found."""

    expired: int
    """Leases that ended without their owner's wish."""
    broken: tuple[str, ...]
    undecided: tuple[int, ...]
    """Leases that live still, and may."""

    @property
    def verdict(self) -> Verdict:
        """Unknown if no lease ran out."""
        if self.broken:
            return Verdict.FALSE
        return Verdict.TRUE if self.expired else Verdict.UNKNOWN

    def as_check(self) -> Check:
        """As one line of a report."""
        match self.verdict:
            case Verdict.FALSE:
                reason = f"{self.broken[0]} ({len(self.broken)} in all)"
            case Verdict.TRUE:
                reason = f"{self.expired} leases ran out, none too soon; {len(self.undecided)} may live still."
            case Verdict.UNKNOWN:
                reason = "no lease ran out."
        return Check(NAME, self.verdict, reason)


def check_lease_expiry(
    stories: Iterable[LeaseStory], *, rate_max: float, healed_ns: int, until_ns: int, patience_ns: int
) -> LeaseResult:
    """Judge the leases of a run.

    Args:
        stories: one of each lease.
        rate_max: by so much (as a share) any clock ran faster or slower than true time.
        healed_ns: when faults were over.
        until_ns: when the run was looked at last.
        patience_ns: beside its time to live, a lease that nobody renews may live on so long after faults were over.
    """
    expired, broken, undecided = 0, [], []
    for story in stories:
        wanted = story.revoked_ns is not None and (story.ended_ns is None or story.revoked_ns <= story.ended_ns)
        promised_ns = max(story.promised_ns, default=0)
        if story.ended_ns is None:
            begun_ns = max(story.asked_ns, healed_ns)
            if until_ns > begun_ns + story.ttl_ns * (1 + 2 * rate_max) + patience_ns:
                silent_s = (until_ns - begun_ns) / 1e9
                broken.append(
                    f"lease {story.lease} of {story.ttl_ns / 1e9:g} s lives after {silent_s:.1f} s of silence"
                )
            else:
                undecided.append(story.lease)
        elif not wanted:
            expired += 1
            lived_ns = story.ended_ns - promised_ns
            if story.promised_ns and lived_ns < story.ttl_ns * (1 - rate_max):
                broken.append(
                    f"lease {story.lease} ran out {lived_ns / 1e9:.3f} s after it was promised {story.ttl_ns / 1e9:g} s"
                )
        elif story.ended_ns < promised_ns:
            broken.append(f"lease {story.lease} was renewed {(promised_ns - story.ended_ns) / 1e9:.3f} s after its end")
    return LeaseResult(expired, tuple(broken), tuple(undecided))
