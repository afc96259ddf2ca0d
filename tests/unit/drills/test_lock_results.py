"""What is said of a drill's locks and watches: each way to fail, and what is not enough to say anything."""

from dataclasses import replace
from pathlib import Path

import pytest

from isochrone.drills.checkers.exclusion import GuardedWrite, Hold
from isochrone.drills.checkers.watch_order import Gap, WatchStory, Written
from isochrone.drills.faults import ResolvedFault
from isochrone.drills.load_os import load_drill
from isochrone.drills.lock_results import judge_locks, next_grant_s
from isochrone.drills.record import DrillRecord, FaultRun
from isochrone.drills.schema import FaultKind
from isochrone.drills.verdict import Verdict
from isochrone.ids import NS_PER_S, NodeId, Revision, Timestamp
from isochrone.wire.kv import prefix_end
from isochrone.wire.records import KeyValue

DRILL = load_drill(Path(__file__).parents[3] / "deploy/drills/regional-locks.yaml")
LOCKS = DRILL.document.workload.locks
assert LOCKS is not None
NAMES = LOCKS.lock_names


def hold(number: int, lock: str, *, asked_s: float | None = None) -> Hold:
    start_ns = number * NS_PER_S
    asked_ns = start_ns if asked_s is None else round(asked_s * NS_PER_S)
    return Hold(
        lock=lock,
        holder=f"h{number % 3}",
        lease=number,
        token=number,
        asked_ns=asked_ns,
        granted_ns=start_ns,
        sure_until_ns=start_ns + NS_PER_S // 2,
    )


def item(revision: int, key: str, value: str) -> KeyValue:
    return KeyValue(key.encode(), value.encode(), Revision(1), Revision(revision), revision, 0, Timestamp(revision))


def record() -> DrillRecord:
    """A good one: a fault at second 20, all that is demanded, and one watcher who was told everything."""
    made = DrillRecord(DRILL.document, DRILL.topology, 1)
    for at_s in (20, 30):
        fault = ResolvedFault(FaultKind.KILL_NODE, "kill-node us-east-1a-1", NodeId("us-east-1a-1"))
        made.faults.append(FaultRun(fault, at_s * NS_PER_S, (at_s + 5) * NS_PER_S))
    made.locks.holds = [hold(number, name) for number in range(1, 40) for name in NAMES]
    data = [item(number + 2, f"{NAMES[0]}/data", f"{number} h{number % 3}") for number in range(1, 40)]
    made.locks.written = Written(tuple(data), 0)
    made.locks.stories = [
        WatchStory(
            name="us-east-1",
            group="us/",
            key=b"us/",
            range_end=prefix_end(b"us/"),
            start_revision=2,
            told=tuple(data),
            reached_end=True,
        )
    ]
    return made


def verdicts(made: DrillRecord) -> dict[str, Verdict]:
    return {check.name: check.verdict for check in judge_locks(made)}


def test_a_good_run_holds_and_a_drill_without_locks_is_not_judged() -> None:
    assert verdicts(record()) == dict.fromkeys(("lock exclusion", "next grant", "watches"), Verdict.TRUE)
    without = load_drill(Path(__file__).parents[3] / "deploy/drills/zone-failover.yaml")
    assert list(judge_locks(DrillRecord(without.document, without.topology, 1))) == []


def test_too_few_handovers_prove_nothing() -> None:
    made = record()
    made.locks.holds = made.locks.holds[:20]
    assert verdicts(made)["lock exclusion"] is Verdict.UNKNOWN


@pytest.mark.parametrize("in_store", [False, True])
def test_a_stale_token_that_was_taken_fails(in_store: bool) -> None:
    made = record()
    if in_store:
        assert made.locks.written is not None
        made.locks.written = Written((*made.locks.written.items, item(50, f"{NAMES[0]}/data", "3 h0")), 0)
    else:
        writes = [(5, 1), (4, 2)]
        made.locks.writes = [
            GuardedWrite(lock=NAMES[0], holder=f"h{token % 3}", token=token, at_ns=at, accepted=True)
            for token, at in writes
        ]
    assert verdicts(made)["lock exclusion"] is Verdict.FALSE


def test_the_next_grant_is_that_of_one_who_asked_after_the_fault() -> None:
    made = record()
    late = [each for each in made.locks.holds if not 20 * NS_PER_S <= each.asked_ns < 33 * NS_PER_S]
    made.locks.holds = [*late, hold(21, NAMES[0], asked_s=19.5), hold(28, NAMES[1])]
    assert next_grant_s(made, NAMES[0], made.faults[0]) == 13
    assert next_grant_s(made, NAMES[1], made.faults[0]) == 8
    assert verdicts(made)["next grant"] is Verdict.FALSE
    made.locks.holds = [each for each in made.locks.holds if each.granted_ns < 20 * NS_PER_S]
    assert verdicts(made)["next grant"] is Verdict.FALSE
    made.faults.pop()
    assert verdicts(made)["next grant"] is Verdict.UNKNOWN


def test_a_watch_that_lacks_something_fails_and_one_that_nobody_can_judge_proves_nothing() -> None:
    made = record()
    (story,) = made.locks.stories
    for told in (story.told[:-1], story.told[1:], (Gap(3, ()), *story.told)):
        made.locks.stories = [replace(story, told=told)]
        assert verdicts(made)["watches"] is Verdict.FALSE
    made.locks.written = None
    assert verdicts(made)["watches"] is Verdict.UNKNOWN
