"""Versions of keys as a group has committed them, with the true times by which it had: what checks of recipes judge by.

A version is *known* from the moment at which any replica had applied it: nobody sees it before, and every linearizable
question that is asked later sees it, or what replaced it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from isochrone.wire.records import KeyValue


@dataclass(frozen=True, slots=True)
class Version:
    """One version of one key; a tombstone has version 0."""

    item: KeyValue
    known_ns: int


@dataclass(frozen=True, slots=True)
class Life:
    """A key from its creation to its removal."""

    first: KeyValue
    """As it was created."""
    from_ns: int
    until_ns: int | None
    """None if it lives still."""
    until_revision: int | None

    def spans(self, from_ns: int, until_ns: int) -> bool:
        """Whether it lives all the time from one moment to another."""
        return self.from_ns <= from_ns and (self.until_ns is None or self.until_ns > until_ns)

    def touches(self, from_ns: int, until_ns: int) -> bool:
        """Whether it may have been seen between two moments."""
        return self.from_ns <= until_ns and (self.until_ns is None or self.until_ns >= from_ns)

    def lives_at(self, revision: int) -> bool:
        """Whether it lives as of a revision."""
        return self.first.mod_revision <= revision and (self.until_revision is None or revision < self.until_revision)


def lives_of(versions: Iterable[Version]) -> dict[bytes, list[Life]]:
    """The lives of each key, in order; `versions` are in the order in which they were written."""
    lives: dict[bytes, list[Life]] = {}
    begun: dict[bytes, Version] = {}
    for each in versions:
        key, revision = each.item.key, each.item.mod_revision
        if each.item.version:
            if key not in begun:
                begun[key] = each
                lives.setdefault(key, []).append(Life(each.item, each.known_ns, None, None))
        elif key in begun:
            first = begun.pop(key)
            lives[key][-1] = Life(first.item, first.known_ns, each.known_ns, revision)
    return lives


def revisions_of(versions: Sequence[Version]) -> list[list[Version]]:
    """Those that were written in one step together; all in order."""
    steps: list[list[Version]] = []
    for each in versions:
        if steps and steps[-1][0].item.mod_revision == each.item.mod_revision:
            steps[-1].append(each)
        else:
            steps.append([each])
    return steps
