"""Membership: views show exactly who was there as of their revisions, one after the other, and the dead do not stay.

1. A view shows the members as of its revision, those first that came first.
2. Whoever follows sees each revision that changed anything, in order; some are left out only where they may have been
   compacted.
3. The first view shows all that was known when it was asked for.
4. A member hangs on a lease, and is gone with it.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from isochrone.drills.checkers.versions import Version, lives_of
from isochrone.drills.verdict import Check, Verdict

NAME = "membership"


@dataclass(frozen=True, slots=True)
class MemberSeen:
    """A member, as a view shows it."""

    name: bytes
    value: bytes
    lease: int
    joined_revision: int
    revision: int


@dataclass(frozen=True, slots=True)
class ViewSeen:
    """Who was there as of a revision."""

    revision: int
    members: tuple[MemberSeen, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Viewer:
    """One who followed a membership for a while."""

    name: str
    asked_ns: int
    views: Sequence[ViewSeen]


def check_membership(
    viewers: Iterable[Viewer],
    prefix: bytes,
    written: Sequence[Version],
    compacted: int,
    lease_ends: Mapping[int, int],
) -> Check:
    """Judge what viewers saw. Unknown if nobody saw a change.

    Args:
        viewers: those of one membership.
        prefix: its members' keys begin with it.
        written: all versions of these keys, in order.
        compacted: the largest revision up to which they were ever compacted.
        lease_ends: true time at which the end of a lease was known, in nanoseconds.
    """
    changes = 0
    for fault in _lease_faults(written, lease_ends):
        return Check(NAME, Verdict.FALSE, fault)
    for viewer in viewers:
        for fault in _view_faults(viewer, prefix, written, compacted):
            return Check(NAME, Verdict.FALSE, f"{viewer.name} {fault}")
        changes += max(0, len(viewer.views) - 1)
    if not changes:
        return Check(NAME, Verdict.UNKNOWN, "nobody saw members come or go.")
    return Check(NAME, Verdict.TRUE, f"{changes} changes seen in order, each view as it was.")


def _lease_faults(written: Sequence[Version], lease_ends: Mapping[int, int]) -> Iterator[str]:
    for lives in lives_of(written).values():
        for life in lives:
            lease, key = life.first.lease, life.first.key
            if not lease:
                yield f"member {key!r} hangs on no lease."
            elif lease in lease_ends and (life.until_ns is None or life.until_ns > lease_ends[lease]):
                yield f"member {key!r} has outlived its lease {lease}."


def _view_faults(viewer: Viewer, prefix: bytes, written: Sequence[Version], compacted: int) -> Iterator[str]:
    for view in viewer.views:
        if view.members != members_at(written, prefix, view.revision):
            yield f"saw other members than there were at revision {view.revision}."
    for first in viewer.views[:1]:
        missed = [each for each in written if each.known_ns < viewer.asked_ns]
        if missed and missed[-1].item.mod_revision > first.revision:
            yield f"saw revision {first.revision} when {missed[-1].item.mod_revision} was known."
    for before, after in pairwise(view.revision for view in viewer.views):
        if after <= before:
            yield f"saw revision {after} after {before}."
        skipped = next((each.item.mod_revision for each in written if before < each.item.mod_revision < after), after)
        is_change = any(each.item.mod_revision == after for each in written)
        if (skipped < after or not is_change) and before + 1 >= compacted:
            yield f"saw revision {after} after {before}, without {skipped}."


def members_at(written: Iterable[Version], prefix: bytes, revision: int) -> tuple[MemberSeen, ...]:
    """The members as of a revision, in the order in which they came."""
    state = {each.item.key: each.item for each in written if each.item.mod_revision <= revision}
    members = [
        MemberSeen(item.key[len(prefix) :], item.value, item.lease, item.create_revision, item.mod_revision)
        for item in state.values()
        if item.version
    ]
    return tuple(sorted(members, key=lambda each: (each.joined_revision, each.name)))
