import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isochrone.client.attempts import PAUSE_FIRST_S, Call, Fail, Send, SessionRefused, Wait
from isochrone.client.routing import LeaderView
from isochrone.errors import (
    STATUS_BY_ERROR,
    ConnectionLost,
    DeadlineExceeded,
    Indeterminate,
    InvalidRequest,
    IsochroneError,
    LockHeld,
    NotLeader,
    QueueFull,
    Rejected,
    SessionExpired,
    Unavailable,
)
from isochrone.ids import GroupId, NodeId, Term
from isochrone.wire.session import Refusal

A, B = NodeId("a"), NodeId("b")
A_LEADS, B_LEADS = LeaderView(Term(1), A), LeaderView(Term(2), B)


def call(deadline=100.0):
    return Call(GroupId("g"), deadline)


def refusal(request, error, leader=None, node="a", stored=False):
    return Refusal(request, NodeId(node), error, "text", leader, stored)


def every_node(_):
    return True


def no_node(_):
    return False


def refuse(a_call, request, error, leader=None, now=0.0, stored=False):
    return a_call.refused(refusal(request, error, leader, stored=stored), now, random.Random(1))


def test_a_call_goes_to_the_leader_and_waits_for_the_answer():
    a_call = call()
    assert a_call.next(0.0, A_LEADS, every_node) == Send(A)
    assert a_call.sent(1, A, 0.0, 1.0) == 1.0
    assert a_call.next(0.5, A_LEADS, every_node) == Wait(1.0)
    assert a_call.next(1.0, A_LEADS, every_node) == Send(A)
    assert a_call.sent(2, A, 1.0, 1.0) == 3.0
    assert a_call.next(1.0, A_LEADS, every_node) == Wait(3.0)


def test_a_call_does_not_wait_for_an_answer_beyond_its_deadline():
    assert call(deadline=1.5).sent(1, A, 1.0, 1.0) == 1.5


def test_a_call_without_a_leader_or_without_a_link_waits_for_news_until_its_deadline():
    assert call().next(0.0, LeaderView(Term(1), None), every_node) == Wait(100.0)
    assert call().next(0.0, A_LEADS, no_node) == Wait(100.0)


def test_a_call_moves_to_a_new_leader_while_the_old_one_is_silent():
    a_call = call()
    a_call.sent(1, A, 0.0, 1.0)
    assert a_call.next(0.1, B_LEADS, no_node) == Wait(1.0)
    assert a_call.next(0.1, B_LEADS, every_node) == Send(B)


def test_a_refused_call_takes_the_hint_but_asks_no_node_twice_before_the_pause_is_over():
    a_call = call()
    assert a_call.next(0.0, A_LEADS, every_node) == Send(A)
    a_call.sent(1, A, 0.0, 1.0)
    assert refuse(a_call, 1, "NotLeader", B) is None
    assert a_call.next(0.0, A_LEADS, every_node) == Send(B)
    a_call.sent(2, B, 0.0, 1.0)
    assert refuse(a_call, 2, "NotLeader", A) is None
    step = a_call.next(0.0, A_LEADS, every_node)
    assert isinstance(step, Wait)
    assert 0 < step.until <= 2 * PAUSE_FIRST_S
    assert a_call.next(step.until, A_LEADS, every_node) == Send(A)


def test_news_end_the_pause():
    a_call = call()
    assert a_call.next(0.0, A_LEADS, every_node) == Send(A)
    a_call.sent(1, A, 0.0, 1.0)
    refuse(a_call, 1, "NotLeader")
    assert isinstance(a_call.next(0.0, A_LEADS, every_node), Wait)
    assert a_call.next(0.0, LeaderView(Term(2), A), every_node) == Send(A)


@pytest.mark.parametrize("name", sorted(cls.__name__ for cls in STATUS_BY_ERROR))
def test_what_a_first_refusal_ends_the_call_with_tells_what_is_certain(name):
    """By class: transient ones go on; the others end the call with themselves, or say that nothing is known."""
    a_call = call()
    a_call.sent(1, A, 0.0, 1.0)
    error = refuse(a_call, 1, name)
    match name:
        case "NotLeader" | "Unavailable" | "LearnerBehind":
            assert error is None
            assert a_call.settled
        case "LeadershipLost" | "ConnectionLost" | "DeadlineExceeded" | "StorageError":
            assert error is None
            assert not a_call.settled
        case "SessionExpired":
            assert type(error) is SessionRefused
        case "IsochroneError" | "InvariantViolation":
            assert type(error) is Indeterminate
        case _:
            assert type(error).__name__ == name
            assert isinstance(error, Rejected | InvalidRequest | Indeterminate)


def test_an_open_attempt_forbids_to_call_it_rejected():
    a_call = call()
    a_call.sent(1, A, 0.0, 1.0)
    a_call.sent(2, B, 0.5, 1.0)
    assert refuse(a_call, 2, "QueueFull") is None
    assert isinstance(refuse(a_call, 1, "QueueFull"), QueueFull)


def test_a_refusal_that_the_group_has_stored_is_certain_whatever_became_of_other_attempts():
    a_call = call()
    a_call.sent(1, A, 0.0, 1.0)
    a_call.sent(2, A, 0.5, 1.0)
    a_call.lost(A)
    a_call.sent(3, B, 0.6, 1.0)
    a_call.sent(4, B, 0.7, 1.0)
    assert type(refuse(a_call, 4, "LockHeld", stored=True)) is LockHeld


def test_a_stored_refusal_ends_the_call_even_where_another_attempt_would_cure_it():
    a_call = call()
    a_call.sent(1, A, 0.0, 1.0)
    assert type(refuse(a_call, 1, "Unavailable", stored=True)) is Unavailable


def test_a_session_that_is_gone_after_another_attempt_leaves_the_outcome_open():
    a_call = call()
    a_call.sent(1, A, 0.0, 1.0)
    a_call.lost(A)
    a_call.sent(2, A, 0.0, 1.0)
    assert type(refuse(a_call, 2, "SessionExpired")) is SessionExpired


def test_a_lost_connection_frees_the_call_and_makes_it_uncertain():
    a_call = call()
    a_call.sent(1, A, 0.0, 1.0)
    a_call.sent(2, B, 0.0, 1.0)
    a_call.sent(3, A, 0.0, 1.0)
    assert a_call.lost(A) == [1, 3]
    assert list(a_call.open_requests) == [2]
    assert a_call.next(0.0, A_LEADS, every_node) == Send(A)
    assert type(a_call.abandoned("closed")) is ConnectionLost


def test_a_call_whose_time_is_over_says_what_is_known():
    unsent, refused, silent = call(), call(), call()
    for a_call in (refused, silent):
        a_call.sent(1, A, 0.0, 1.0)
    refuse(refused, 1, "NotLeader")
    errors = []
    for a_call in (unsent, refused, silent):
        step = a_call.next(100.0, A_LEADS, every_node)
        assert isinstance(step, Fail)
        errors.append(step.error)
    assert [type(error) for error in errors] == [Unavailable, Unavailable, DeadlineExceeded]
    assert isinstance(errors[1].__cause__, NotLeader)
    assert type(unsent.abandoned("closed")) is Unavailable


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["refused", "lost", "silence", "news", "late", "stored"]),
        st.sampled_from(sorted(cls.__name__ for cls in STATUS_BY_ERROR)),
        st.sampled_from([A, B, None]),
        st.booleans(),
        st.floats(0.0, 3.0),
    ),
    max_size=30,
)


@given(EVENTS)
def test_a_call_is_never_called_rejected_when_an_attempt_took_effect(events):
    """Nodes that tell the truth, in any order of events: `Rejected` only if no attempt was executed.

    Whenever an attempt was sent, there is nothing to do before the time that `sent` names.
    """
    a_call, rng, now, view = call(deadline=40.0), random.Random(1), 0.0, A_LEADS
    waiting, executed, request, error = {}, set(), 0, None
    end = ("silence", "", None, False, 40.0)
    for kind, name, leader, executes, delay in [*events, end, end]:
        step = a_call.next(now, view, every_node)
        if isinstance(step, Send):
            request += 1
            waiting[request] = step.node
            until = a_call.sent(request, step.node, now, 1.0)
            step = a_call.next(now, view, every_node)
            assert step == Wait(until)
        if isinstance(step, Fail):
            error = step.error
            break
        assert now < step.until <= 40.0
        if kind == "news":
            view = LeaderView(Term(view.term + 1), leader)
        elif waiting:
            chosen = min(waiting) if kind == "late" else max(waiting)
            cls = next((cls for cls in STATUS_BY_ERROR if cls.__name__ == name), Exception)
            surely_not = kind in ("refused", "late") and issubclass(cls, Rejected | InvalidRequest | SessionExpired)
            if executes and not surely_not:
                executed.add(chosen)
            if kind == "stored":
                if not executed:  # What came of one attempt comes of all.
                    error = a_call.refused(refusal(chosen, name, leader, waiting.pop(chosen), True), now, rng)
                    assert error is not None
            elif kind == "lost":
                for lost in a_call.lost(waiting[chosen]):
                    del waiting[lost]
            elif kind != "silence" and not (surely_not and chosen in executed):
                error = a_call.refused(refusal(chosen, name, leader, waiting.pop(chosen)), now, rng)
        assert sorted(waiting) == sorted(a_call.open_requests)
        if error is not None:
            break
        now += delay
    assert isinstance(error, IsochroneError)
    assert isinstance(error, Indeterminate) or not executed
