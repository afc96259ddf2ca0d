"""Elections: a leader is announced only when the one before is announced no more.

What was written at an election's key shows it: the key of one leader's lease may be set again by that leader, but
another's stands there only after it was removed.

Who observes an election sees just that, each change once and in order, from some moment on; only what was compacted may
be left out.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from isochrone.drills.verdict import Check, Verdict
from isochrone.ids import Revision
from isochrone.wire.records import KeyValue

NAME = "elections"


@dataclass(frozen=True, slots=True)
class Announced:
    """Who leads, as an observer was told: what is announced, on which lease, since which revision."""

    value: bytes
    lease: int
    revision: Revision


def check_elections(written: Iterable[KeyValue]) -> Check:
    """Judge all versions of the keys of elections, in order. Unknown if no key had a second leader."""
    current: dict[bytes, KeyValue] = {}
    leaders: dict[bytes, int] = {}
    for item in written:
        before = current.get(item.key)
        if item.version and not item.lease:
            return Check(NAME, Verdict.FALSE, f"a leader of {item.key!r} was announced without a lease.")
        if item.version and before is not None and before.version and before.lease != item.lease:
            reason = (
                f"{item.value!r} was announced as leader of {item.key!r} at revision {item.mod_revision}, while "
                f"{before.value!r} was."
            )
            return Check(NAME, Verdict.FALSE, reason)
        if item.version and (before is None or not before.version):
            leaders[item.key] = leaders.get(item.key, 0) + 1
        current[item.key] = item
    terms, most = sum(leaders.values()), max(leaders.values(), default=0)
    if most < 2:
        return Check(NAME, Verdict.UNKNOWN, "no election had a second leader.")
    return Check(NAME, Verdict.TRUE, f"{terms} leaders of {len(leaders)} elections, one at a time.")


def observation_faults(seen: Sequence[Announced | None], written: Sequence[KeyValue], compacted: int) -> Iterator[str]:
    """What is wrong with what one observer saw (None: nobody leads).

    Args:
        seen: in order.
        written: all versions of the election's key, in order.
        compacted: the largest revision up to which they were ever compacted.
    """
    places = {(item.mod_revision, item.version > 0): place for place, item in enumerate(written)}
    before: int | None = None
    looked = False  # the last word was that nobody leads: of the next removal, or of a later one after a compaction
    for leader in seen:
        if leader is None:
            place = None if before is None else before + 1
            found = place is None or (place < len(written) and not written[place].version)
        else:
            place = places.get((leader.revision, True))
            if place is None or (written[place].value, written[place].lease) != (leader.value, leader.lease):
                yield f"{leader.value!r} was seen to lead at revision {leader.revision}, and was never announced so"
                return
            found = before is None or place == before + 1
        # Who has missed a compaction is shown who leads now, perhaps once more.
        left_out = looked or (before is not None and written[before].mod_revision + 1 < compacted)
        if not found and not (left_out and (leader is None or place is None or before is None or place >= before)):
            what = "nobody" if leader is None else f"{leader.value!r} at revision {leader.revision}"
            yield f"{what} was seen to lead out of order, after revision {written[before or 0].mod_revision}"
            return
        before = place if found or leader is not None else None
        looked = leader is None and left_out
