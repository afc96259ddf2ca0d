"""The checks of what partakers were told of recipes, by what their group has committed. Pure."""

from collections.abc import Sequence

from isochrone.drills.checkers.gates import NAME as GATES
from isochrone.drills.checkers.gates import check_gates
from isochrone.drills.checkers.meetings import NAME as MEETINGS
from isochrone.drills.checkers.meetings import Meeting, check_meetings
from isochrone.drills.checkers.membership import NAME as MEMBERSHIP
from isochrone.drills.checkers.membership import check_membership
from isochrone.drills.checkers.queues import check_queues
from isochrone.drills.checkers.versions import lives_of
from isochrone.drills.checkers.work_queues import NAME as WORK_QUEUES
from isochrone.drills.checkers.work_queues import WorkQueueStory, check_work_queue
from isochrone.drills.sim.committed import Committed
from isochrone.drills.sim.recipe_notes import SIZES, Notes, RecipeNames
from isochrone.drills.verdict import Check, guarded
from isochrone.ids import GroupId


def recipe_checks(names: RecipeNames, group: GroupId, truth: Committed, notes: Sequence[Notes]) -> list[Check]:
    """What may be said of the recipes of a keyspace, from the notes of all that used them."""
    return [
        guarded(MEMBERSHIP, lambda: _membership(names, group, truth, notes)),
        guarded(GATES, lambda: _gates(names, group, truth, notes)),
        guarded(MEETINGS, lambda: _meetings(names, group, truth, notes)),
        guarded("queue recipe", lambda: _queue(names, group, truth, notes)),
        guarded(WORK_QUEUES, lambda: _work_queue(names, group, truth, notes)),
    ]


def _membership(names: RecipeNames, group: GroupId, truth: Committed, notes: Sequence[Notes]) -> Check:
    prefix = f"{names.team}/".encode()
    ends = {lease: at_ns for (at, lease), at_ns in truth.lease_ends.items() if at == group}
    viewers = [viewer for each in notes for viewer in each.viewers]
    return check_membership(viewers, prefix, truth.below(group, prefix), truth.written(group).compacted, ends)


def _gates(names: RecipeNames, group: GroupId, truth: Committed, notes: Sequence[Notes]) -> Check:
    closed = lives_of(truth.below(group, f"{names.gate}/".encode()))
    return check_gates([wait for each in notes for wait in each.gate_waits], closed)


def _meetings(names: RecipeNames, group: GroupId, truth: Committed, notes: Sequence[Notes]) -> Check:
    meetings: list[Meeting] = []
    for size in SIZES:
        name = names.meeting(size).encode()
        written = truth.below(group, name + b"/")
        stays = [stay for each in notes for stay in each.stays[size]]
        meetings.append(Meeting(name=name, size=size, written=written, stays=stays))
    return check_meetings(meetings)


def _queue(names: RecipeNames, group: GroupId, truth: Committed, notes: Sequence[Notes]) -> Check:
    lives = lives_of(truth.below(group, f"{names.mails}/".encode()))
    left = [key for key, each in lives.items() if each[-1].until_ns is None]
    judged = check_queues([call for each in notes for call in each.queue_calls], left)
    return Check("queue recipe", judged.verdict, judged.reason)


def _work_queue(names: RecipeNames, group: GroupId, truth: Committed, notes: Sequence[Notes]) -> Check:
    name = names.reports.encode()
    items, claims = name + b"/items/", name + b"/claims/"
    claimed = lives_of(truth.below(group, claims))
    story = WorkQueueStory(
        name=name,
        put={key: value for each in notes for key, value in each.put.items()},
        items=lives_of(truth.below(group, items)),
        claims={items + key.removeprefix(claims): lives for key, lives in claimed.items()},
        told=[claim for each in notes for claim in each.claims],
    )
    return check_work_queue(story)
