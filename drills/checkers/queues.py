"""Queues: items come out in the order in which they went in, each to one taker, and none is lost.

An item is a key of its own, made by one operation and removed by another (`PutSequential`, `TakeFirst`), so:

1. an item that was put before another was asked for has the smaller key;
2. an item is taken by one taker, and only if somebody put it; what was taken before another question was asked has the
   smaller key;
3. what is gone at the end was taken: items that no taker knows of are at most as many as questions without an answer;
4. a taker who was told that there is nothing asked at a moment when there may have been nothing.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from isochrone.drills.verdict import Check, Verdict

NAME = "queues"


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueCall:
    """One question to a queue. Times are true ones."""

    queue: str
    put: bool
    """Else somebody wanted the first item."""
    asked_ns: int
    answered_ns: int | None
    """None if the outcome is not known."""
    key: bytes | None = None
    """The item that was put or taken; None if there was none."""


def check_queues(calls: Sequence[QueueCall], left: Iterable[bytes]) -> Check:
    """Judge what was put and taken; `left` are the keys of items that are there at the end.

    Unknown if nothing was ever taken.
    """
    remaining = set(left)
    taken = 0
    for queue in sorted({call.queue for call in calls}):
        own = [call for call in calls if call.queue == queue]
        for fault in _faults(own, remaining):
            return Check(NAME, Verdict.FALSE, f"queue {queue}: {fault}")
        taken += sum(not call.put and call.key is not None for call in own)
    if not taken:
        return Check(NAME, Verdict.UNKNOWN, "nothing was taken from a queue.")
    return Check(NAME, Verdict.TRUE, f"{taken} items taken once and in order, {len(remaining)} left.")


def _faults(calls: Sequence[QueueCall], left: set[bytes]) -> Iterator[str]:
    puts = [call for call in calls if call.put and call.key is not None]
    takes = [call for call in calls if not call.put and call.key is not None]
    lost = sum(call.answered_ns is None for call in calls if not call.put)
    yield from _out_of_order(puts, "was put")
    yield from _out_of_order(takes, "was taken")
    taken = [call.key for call in takes]
    for key in sorted({key for key in taken if key is not None and taken.count(key) > 1}):
        yield f"{key!r} was taken {taken.count(key)} times"
    for again in taken:
        if again in left:
            yield f"{again!r} was taken, and is there still"
    known = {call.key for call in puts}
    unknown_puts = sum(call.answered_ns is None for call in calls if call.put)
    strangers = [key for key in taken if key not in known]
    if len(strangers) > unknown_puts:
        yield f"{strangers[0]!r} was taken, and nobody put it"
    gone = [call.key for call in puts if call.key not in left and call.key not in taken]
    if len(gone) > lost:
        yield f"{gone[0]!r} is gone, and nobody took it"
    yield from _denied(calls, puts, takes)


def _out_of_order(calls: Sequence[QueueCall], what: str) -> Iterator[str]:
    """Whoever asked after another had his answer has the larger key."""
    for one in calls:
        for other in calls:
            assert one.answered_ns is not None and one.key is not None and other.key is not None
            if one.answered_ns < other.asked_ns and one.key >= other.key:
                yield f"{other.key!r} {what} after {one.key!r}"


def _denied(calls: Sequence[QueueCall], puts: Sequence[QueueCall], takes: Sequence[QueueCall]) -> Iterator[str]:
    taken_from = {take.key: take.asked_ns for take in takes}
    unknown = [call.asked_ns for call in calls if not call.put and call.answered_ns is None]
    for call in calls:
        if call.put or call.answered_ns is None or call.key is not None:
            continue
        if any(asked_ns < call.answered_ns for asked_ns in unknown):
            continue  # It may have taken whatever there was.
        for put in puts:
            assert put.answered_ns is not None
            if put.answered_ns < call.asked_ns and taken_from.get(put.key, call.answered_ns) >= call.answered_ns:
                yield f"a taker was told that there is nothing, while {put.key!r} was there"
