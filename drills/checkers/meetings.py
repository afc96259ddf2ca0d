"""Double barriers: nobody begins before enough have come, and nobody has left before all others leave.

A meeting's members have a key each, and a key `ready` is there while a round lasts. A *gathering* lasts from the
revision at which somebody is there until nobody is. What must hold:

1. a gathering finds no `ready` that another one has left;
2. `ready` is made only in a gathering in which as many were there at one time as are needed, and goes only when nobody
   is there;
3. who begins was there, and when he was told, his gathering had been ready, or as many there, since he came;
4. who has left, as he was told, is there no more, and so are all who were there when he went.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from isochrone.drills.checkers.versions import Version, revisions_of
from isochrone.drills.verdict import Check, Verdict
from isochrone.wire.records import KeyValue

NAME = "double barriers"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stay:
    """One who came to a meeting and was told that it begins. Times are true ones."""

    value: bytes
    """Of his key; no two stays have the same one."""
    began_ns: int
    left_ns: int | None
    """When he was told that all have left; None if he was not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Meeting:
    """A double barrier, and what became of its keys."""

    name: bytes
    size: int
    written: Sequence[Version]
    """All that was written below its name, in order."""
    stays: Sequence[Stay]

    def is_member(self, item: KeyValue) -> bool:
        """Whether a key says that somebody is there."""
        return item.key.startswith(self.name + b"/members/")

    @property
    def ready(self) -> bytes:
        """The key that is there while a round lasts."""
        return self.name + b"/ready"


@dataclass(slots=True)
class _Attendance:
    """One member's key."""

    came: int
    """Place of the step at which it was made."""
    gathering: int
    went_ns: int | None = None
    beside: dict[bytes, None] = field(default_factory=dict)
    """Who was there yet when it went."""


@dataclass(slots=True)
class _Tale:
    """What a meeting's keys tell."""

    attendances: dict[bytes, _Attendance]
    """By value."""
    opened: list[tuple[int, int, int]]
    """Gathering, step and time of each step after which it was ready or enough were there."""
    faults: list[str]
    gatherings: int


def check_meetings(meetings: Sequence[Meeting]) -> Check:
    """Judge meetings. Unknown if none began."""
    begun = gatherings = 0
    for meeting in meetings:
        tale = _tell(meeting)
        for fault in (*tale.faults, *_stay_faults(meeting, tale)):
            return Check(NAME, Verdict.FALSE, f"{meeting.name!r}, for {meeting.size}: {fault}.")
        begun += len(meeting.stays)
        gatherings += tale.gatherings
    if not begun:
        return Check(NAME, Verdict.UNKNOWN, "no meeting began.")
    return Check(NAME, Verdict.TRUE, f"{begun} began when enough had come, in {gatherings} gatherings.")


def _tell(meeting: Meeting) -> _Tale:
    tale = _Tale({}, [], [], 0)
    there: dict[bytes, _Attendance] = {}
    values: dict[bytes, bytes] = {}
    ready, most = False, 0
    for place, step in enumerate(revisions_of(meeting.written)):
        before, was_ready, known_ns = len(there), ready, step[0].known_ns
        for version in step:
            item = version.item
            if item.key == meeting.ready:
                ready = item.version > 0
            elif meeting.is_member(item) and item.version and item.key not in there:
                tale.gatherings += not before and not there
                there[item.key] = tale.attendances[item.value] = _Attendance(place, tale.gatherings)
                values[item.key] = item.value
            elif meeting.is_member(item) and not item.version and item.key in there:
                gone = there.pop(item.key)
                gone.went_ns = known_ns
                gone.beside = {values[key]: None for key in there}
        most = max(most, len(there)) if before and there else len(there)
        revision = step[0].item.mod_revision
        if there and not before and ready:
            tale.faults.append(f"whoever came at revision {revision} found what an earlier round had left")
        if ready and not was_ready and most < meeting.size:
            tale.faults.append(f"it was ready at revision {revision}, and {most} had come")
        if was_ready and not ready and before:
            tale.faults.append(f"the round ended at revision {revision}, and {before} were there")
        if there and (ready or len(there) >= meeting.size):
            tale.opened.append((tale.gatherings, place, known_ns))
    return tale


def _stay_faults(meeting: Meeting, tale: _Tale) -> Iterator[str]:
    for stay in meeting.stays:
        own = tale.attendances.get(stay.value)
        if own is None:
            yield f"{stay.value!r} began, and was never there"
            continue
        if not any(
            gathering == own.gathering and place >= own.came and known_ns <= stay.began_ns
            for gathering, place, known_ns in tale.opened
        ):
            yield f"{stay.value!r} began before enough had come"
        if stay.left_ns is None:
            continue
        if own.went_ns is None or own.went_ns > stay.left_ns:
            yield f"{stay.value!r} has left, and was there still"
        for other in own.beside:
            went_ns = tale.attendances[other].went_ns
            if went_ns is None or went_ns > stay.left_ns:
                yield f"{stay.value!r} had left when {other!r} was still there"
