"""Watches: every committed event of the range exactly once, in order; gaps are marked, and only where compaction was.

What was written is known from the replicas themselves: the records that they applied, in order. What a watcher was told
must be exactly that, from where it began. A gap must stand where the next event may have been compacted, must show the
keys as they were at its revision, and leads on behind it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from isochrone.drills.verdict import Check, Verdict
from isochrone.wire.kv import ALL
from isochrone.wire.records import KeyValue

NAME = "watches"


@dataclass(frozen=True, slots=True)
class Gap:
    """A watcher was told that it missed what was written up to `revision`, and the keys as of then."""

    revision: int
    items: tuple[KeyValue, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchStory:
    """What one watcher was told, in order."""

    name: str
    group: str
    key: bytes
    range_end: bytes
    start_revision: int
    told: tuple[KeyValue | Gap, ...]
    reached_end: bool
    """It listened until the end of the run, so everything written must have come."""


@dataclass(frozen=True, slots=True)
class WatchResult:
    """What was found."""

    events: int
    gaps: int
    broken: tuple[str, ...]

    @property
    def verdict(self) -> Verdict:
        """Unknown if nobody was told anything."""
        if self.broken:
            return Verdict.FALSE
        return Verdict.TRUE if self.events else Verdict.UNKNOWN

    def as_check(self) -> Check:
        """As one line of a report."""
        match self.verdict:
            case Verdict.FALSE:
                reason = f"{self.broken[0]} ({len(self.broken)} watchers in all)"
            case Verdict.TRUE:
                reason = f"{self.events} events told once and in order, {self.gaps} gaps."
            case Verdict.UNKNOWN:
                reason = "no watcher was told anything."
        return Check(NAME, self.verdict, reason)


@dataclass(frozen=True, slots=True)
class Written:
    """What a group has committed."""

    items: tuple[KeyValue, ...]
    """Every version of every key, in order."""
    compacted: int
    """The largest revision up to which the group was ever compacted."""


def check_watches(stories: Iterable[WatchStory], written: dict[str, Written]) -> WatchResult:
    """Judge what watchers were told by what their groups have committed."""
    events, gaps, broken = 0, 0, []
    for story in stories:
        told_gaps = sum(isinstance(item, Gap) for item in story.told)
        gaps += told_gaps
        events += len(story.told) - told_gaps
        fault = _first_fault(story, written[story.group])
        if fault is not None:
            broken.append(f"watcher {story.name}: {fault}")
    return WatchResult(events, gaps, tuple(broken))


def _first_fault(story: WatchStory, written: Written) -> str | None:
    items = [item for item in written.items if _within(item.key, story.key, story.range_end)]
    place = _after(items, story.start_revision - 1)
    next_revision = story.start_revision
    for told in story.told:
        if isinstance(told, Gap):
            if next_revision >= written.compacted:
                return f"a gap at revision {next_revision}, and nothing above {written.compacted} was compacted"
            if told.revision < next_revision - 1:
                return f"a gap leads back from revision {next_revision} to {told.revision}"
            if list(told.items) != _state_at(items, told.revision):
                return f"the gap shows other keys than there were at revision {told.revision}"
            place, next_revision = _after(items, told.revision), told.revision + 1
        else:
            if place == len(items) or told != items[place]:
                return _difference(told, items, place)
            place, next_revision = place + 1, told.mod_revision
    if story.reached_end and place < len(items):
        return f"{len(items) - place} events from revision {items[place].mod_revision} on were never told"
    return None


def _difference(told: KeyValue, items: Sequence[KeyValue], place: int) -> str:
    what = f"{told.key!r} at revision {told.mod_revision}"
    if told in items[:place]:
        return f"{what} was told again, or late"
    if told in items[place:]:
        return f"{what} was told, and {items[place].key!r} at revision {items[place].mod_revision} before it was not"
    return f"{what} was told, and never written so"


def _within(key: bytes, start: bytes, end: bytes) -> bool:
    return key == start if not end else key >= start and (end == ALL or key < end)


def _after(items: Sequence[KeyValue], revision: int) -> int:
    """Place of the first item above a revision."""
    return next((place for place, item in enumerate(items) if item.mod_revision > revision), len(items))


def _state_at(items: Iterable[KeyValue], revision: int) -> list[KeyValue]:
    state = {item.key: item for item in items if item.mod_revision <= revision}
    return [state[key] for key in sorted(state) if state[key].version]
