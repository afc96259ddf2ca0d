"""Elections: a leader is announced only when the one before is announced no more.

What was written at an election's key shows it: the key of one leader's lease may be set again by that leader, but
another's stands there only after it was removed.
"""

from collections.abc import Iterable

from isochrone.drills.verdict import Check, Verdict
from isochrone.wire.records import KeyValue

NAME = "elections"


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
