"""The look at queues finds items that are lost, taken twice or out of order, and takes what is right."""

import pytest

from isochrone.drills.checkers.queues import QueueCall, check_queues
from isochrone.drills.verdict import Verdict


def put(key: bytes | None, asked: int, answered: int | None) -> QueueCall:
    return QueueCall(queue="q", put=True, asked_ns=asked, answered_ns=answered, key=key)


def take(key: bytes | None, asked: int, answered: int | None) -> QueueCall:
    return QueueCall(queue="q", put=False, asked_ns=asked, answered_ns=answered, key=key)


def test_what_is_right_holds() -> None:
    calls = [
        *(put(b"1", 0, 1), put(b"3", 2, 9), put(b"2", 3, 4), put(None, 5, None), put(b"5", 10, 11)),
        *(take(None, 0, 1), take(b"2", 12, 20), take(b"1", 13, 14), take(b"4", 21, 22), take(None, 23, None)),
        take(None, 24, 25),
    ]
    check = check_queues(calls, [b"5"])
    assert check.verdict is Verdict.TRUE, check.reason
    assert check.reason == "3 items taken once and in order, 1 left."


@pytest.mark.parametrize(
    ("calls", "left", "fault"),
    [
        ([put(b"2", 0, 1), put(b"1", 2, 3)], [b"1", b"2"], "b'1' was put after b'2'"),
        ([put(b"1", 0, 1), take(b"1", 2, 9), take(b"1", 3, 4)], [], "b'1' was taken 2 times"),
        ([put(b"1", 0, 1), put(b"2", 0, 1), take(b"2", 2, 3), take(b"1", 4, 5)], [], "b'1' was taken after b'2'"),
        ([put(b"1", 0, 1), take(b"1", 2, 3)], [b"1"], "b'1' was taken, and is there still"),
        ([take(b"1", 2, 3)], [], "b'1' was taken, and nobody put it"),
        ([put(b"1", 0, 1)], [], "b'1' is gone, and nobody took it"),
        ([put(b"1", 0, 1), take(None, 2, 3), take(b"1", 4, 5)], [], "a taker was told that there is nothing, while"),
    ],
)
def test_what_is_wrong_is_found(calls: list[QueueCall], left: list[bytes], fault: str) -> None:
    check = check_queues(calls, left)
    assert check.verdict is Verdict.FALSE
    assert fault in check.reason


def test_a_lost_answer_may_have_taken_anything_once() -> None:
    calls = [put(b"1", 0, 1), take(None, 2, None), take(None, 3, 4)]
    assert check_queues(calls, []).verdict is Verdict.UNKNOWN
    assert check_queues([*calls, put(b"2", 0, 1)], []).verdict is Verdict.FALSE
