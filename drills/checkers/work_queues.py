"""Work queues: every item is finished once, by one who has claimed it, and none is lost.

An item is a key that is there until somebody has finished it; a claim is another one, there while it lasts, and its
lock excludes others (`exclusion` judges that). What must hold:

1. what was put is there until it is finished; an item is there once;
2. an item is removed only while it is claimed, by one who had it when his body ended well, or who does not know;
3. whoever was told that he has finished an item has, and nobody else was told so;
4. a claim gets the item that lies at its key;
5. items are claimed in their order: not one behind another that nobody had claimed since before the claim was asked;
6. whoever was told that there is nothing to claim did not leave an item that nobody claimed all the time.

HAZARD: rules 5 and 6 see only what lasted as long as a question; what came and went meanwhile excuses it. They are for
claims with a lease of their own: those of one session do not ask for the same item.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from isochrone.drills.checkers.versions import Life
from isochrone.drills.verdict import Check, Verdict

NAME = "work queues"


class ClaimEnd(Enum):
    """How a claim ended, as its consumer knows it."""

    FINISHED = "finished"
    GIVEN_BACK = "given back"
    """Its body failed: nothing was asked to be removed."""
    UNKNOWN = "unknown"
    """It was lost, or no answer came."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimTold:
    """One who asked for an item. Times are true ones."""

    asked_ns: int
    answered_ns: int
    alone: bool
    """On a lease of its own; else another claim of the same session may have been asking for an item."""
    key: bytes | None
    """The item's; None: there was none to claim."""
    value: bytes = b""
    end: ClaimEnd = ClaimEnd.UNKNOWN
    ended_ns: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkQueueStory:
    """What became of one work queue."""

    name: bytes
    put: Mapping[bytes, bytes]
    """Items of which a producer was told, by key."""
    items: Mapping[bytes, Sequence[Life]]
    """All that were there."""
    claims: Mapping[bytes, Sequence[Life]]
    """When each item was claimed, by the item's key."""
    told: Sequence[ClaimTold]


def check_work_queue(story: WorkQueueStory) -> Check:
    """Judge a work queue. Unknown if nothing was ever finished."""
    for faults in (_lost(story), _removed(story), _finished(story), _out_of_order(story), _denied(story)):
        for fault in faults:
            return Check(NAME, Verdict.FALSE, f"{story.name!r}: {fault}.")
    finished = sum(told.end is ClaimEnd.FINISHED for told in story.told)
    if not finished:
        return Check(NAME, Verdict.UNKNOWN, "no item of a work queue was finished.")
    again = sum(len(lives) > 1 for lives in story.claims.values())
    return Check(NAME, Verdict.TRUE, f"{finished} items finished once, {again} claimed more than once.")


def _lost(story: WorkQueueStory) -> Iterator[str]:
    for key, value in story.put.items():
        lives = story.items.get(key, ())
        if not lives:
            yield f"{key!r} was put, and never there"
        elif lives[0].first.value != value:
            yield f"{key!r} was put as {value!r}, and lay there as {lives[0].first.value!r}"
    for key, lives in story.items.items():
        if len(lives) > 1:
            yield f"{key!r} was there {len(lives)} times"


def _removed(story: WorkQueueStory) -> Iterator[str]:
    enders = {told.key for told in story.told if told.end is not ClaimEnd.GIVEN_BACK}
    for key, lives in story.items.items():
        revision = lives[0].until_revision
        if revision is None:
            continue
        if not any(claim.lives_at(revision) for claim in story.claims.get(key, ())):
            yield f"{key!r} was removed at revision {revision}, when nobody had claimed it"
        if key not in enders:
            yield f"{key!r} is gone, and nobody finished it"


def _finished(story: WorkQueueStory) -> Iterator[str]:
    finished: dict[bytes, None] = {}
    for told in story.told:
        if told.key is None:
            continue
        life = next(iter(story.items.get(told.key, ())), None)
        if life is None or life.first.value != told.value:
            yield f"{told.key!r} was claimed as {told.value!r}, and never lay there so"
            continue
        if told.end is not ClaimEnd.FINISHED:
            continue
        if told.key in finished:
            yield f"{told.key!r} was finished twice"
        finished[told.key] = None
        if life.until_ns is None or life.until_ns > told.ended_ns:
            yield f"{told.key!r} was finished, and is there still"


def _out_of_order(story: WorkQueueStory) -> Iterator[str]:
    for told in story.told:
        if told.key is not None:
            for key in _left_alone(story, told):
                if key < told.key:
                    yield f"{told.key!r} was claimed before {key!r}, which nobody had"


def _denied(story: WorkQueueStory) -> Iterator[str]:
    for told in story.told:
        if told.key is None:
            for key in _left_alone(story, told):
                yield f"somebody was told that there is nothing to claim, and nobody had {key!r}"


def _left_alone(story: WorkQueueStory, told: ClaimTold) -> Iterator[bytes]:
    """Items that were there while this one asked, and that nobody had."""
    if not told.alone:
        return
    for key, lives in story.items.items():
        if lives[0].spans(told.asked_ns, told.answered_ns) and not any(
            claim.touches(told.asked_ns, told.answered_ns) for claim in story.claims.get(key, ())
        ):
            yield key
